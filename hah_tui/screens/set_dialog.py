"""Asks for a setting that may change while a run lives: all of them with what they are and may be, found by typing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.experiment.mistakes import RequestError
from engine.runs.layout import RunDirectory
from hah_tui.base import app_of
from hah_tui.screens.dialogs import Dialog
from hah_tui.text import shown_line
from hah_tui.widgets.choice import Options
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from engine.experiment import Experiment


class SetDialog(Dialog[str | None]):
    """Answers with KEY=VALUE. Words find a setting, tab takes its name; what is wrong with a value is said at once."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "leave", "leave it"),
        Binding("tab", "complete", "take the name", show=False),
    ]

    def __init__(self, run: RunDirectory, experiment: Experiment, lives: bool) -> None:
        from engine.experiment.fields import fields, flatten

        super().__init__()
        values = flatten(experiment.dump())
        self._title = f"Change a setting of {run.id}" if lives else f"Resume {run.id} with a setting changed"
        self._experiment, self._looked = experiment, ""
        self._live = {f.name: (str(values[f.name]), f) for f in fields().values() if f.live and f.name in values}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Text(shown_line(self._title))
            yield Line(placeholder="words of its name", id="answer", compact=True)
            yield Options(id="settings", markup=False)
            yield Static(id="said", classes="hint")

    def on_mount(self) -> None:
        listed = self.query_one(OptionList)
        listed.can_focus = False
        listed.styles.max_height = "50%"
        self.query_one(Input).focus()
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        """The settings that fit what is typed, and what is to be said of it."""
        text = self._looked = self.query_one(Input).value
        name, given, _ = text.partition("=")
        listed = self.query_one(OptionList)
        fitting = [
            key for key in self._live if (key == name.strip() if given else all(word in key for word in name.split()))
        ]
        quiet, wide = app_of(self).colour("quiet"), max(map(len, self._live), default=0)
        listed.clear_options()
        for key in fitting:
            now, field = self._live[key]
            line = Text(f"{key:<{wide}}  {shown_line(now, 40)}", no_wrap=True, overflow="ellipsis")
            listed.add_option(Option(line.append(f"  {field.allowed()}", quiet), id=key))
        if fitting:
            listed.highlighted = 0
        wrong = self._wrong(text)
        help_ = "enter: do it   esc: leave it" if given else "tab: take its name   esc: leave it"
        said = self.query_one("#said", Static)
        said.update(Text(shown_line(wrong) or help_))
        said.set_class(bool(wrong), "wrong")

    def _wrong(self, text: str) -> str:
        if "=" not in text:
            return "" if self.query_one(OptionList).option_count else "no live setting has these words in its name"
        try:
            from engine.experiment import presets
            from engine.experiment.document import assigned

            presets.change(*assigned(text), self._experiment)
        except RequestError as error:
            return str(error).splitlines()[0]
        return ""

    def action_complete(self) -> None:
        """Put the name under the list's cursor into the line, ready for a value."""
        line = self.query_one(Line)
        if line.value != self._looked:  # keys that came faster than the list
            self._look()
        option = self.query_one(OptionList).highlighted_option
        if option is not None and "=" not in line.value:
            line.value = f"{option.id}="
            line.cursor_position = len(line.value)

    def on_key(self, event: Key) -> None:
        if event.key in ("up", "down"):
            listed = self.query_one(OptionList)
            (listed.action_cursor_up if event.key == "up" else listed.action_cursor_down)()
            event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if "=" not in event.value:
            self.action_complete()
        elif not self._wrong(event.value):
            self.dismiss(event.value)

    @on(OptionList.OptionSelected)
    def _taken(self) -> None:
        self.action_complete()

    def action_leave(self) -> None:
        self.dismiss(None)
