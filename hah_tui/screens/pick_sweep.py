"""Small questions about sweeps: which of them, and which of several things to do with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.events import Key
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.experiment.mistakes import RequestError
from engine.sweep import sweeps
from hah_tui.base import app_of
from hah_tui.screens.dialogs import Dialog
from hah_tui.text import shown_line
from hah_tui.widgets.choice import Options


class Which(Dialog[str | None]):
    """Asks which of several things is meant; a key for each, and esc for none."""

    BINDINGS: ClassVar[list[BindingType]] = [("n,escape", "leave", "leave it")]

    def __init__(self, title: str, lines: Sequence[str], answers: Mapping[str, str]) -> None:
        super().__init__()
        self._title, self._lines, self._answers = title, lines, answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog danger") as box:
            box.border_title = Text(shown_line(self._title))
            with VerticalScroll(classes="what"):
                yield Static(Text("\n".join(shown_line(line) for line in self._lines)))
            said = [f"{key}: {shown_line(words)}" for key, words in self._answers.items()]
            yield Static(Text("   ".join([*said, "n, esc: leave it"])), classes="hint")

    def on_key(self, event: Key) -> None:
        if event.key in self._answers:
            event.stop()  # the screen below has keys of that name
            self.dismiss(event.key)

    def action_leave(self) -> None:
        self.dismiss(None)


class PickSweep(Dialog[str | None]):
    """Picks a sweep of the folder, the newest first, and says how far each is."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave it")]

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        super().__init__()
        self._names, self._folder = names, folder

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Which sweep?"
            yield Options(*(Option(Text(name), id=name) for name in self._names), id="sweeps", markup=False)
            yield Static(Text("enter: take it   esc: leave it"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        app = app_of(self)

        def say(name: str, said: str) -> None:
            app.call_in_app(self, partial(self._say, name, said))

        app.in_background(self, partial(self._read, say))

    def _read(self, say: Callable[[str, str], object]) -> None:
        reader = sweeps.Reader([self._folder])
        for name in self._names:
            try:
                trials = reader.trials(sweeps.read(self._folder, name))
                counts = Counter(one.status for one in trials).most_common()
                say(name, f"{len(trials):,} runs: {', '.join(f'{count:,} {status}' for status, count in counts)}")
            except RequestError as error:
                say(name, shown_line(error.mistakes[0].what))

    def _say(self, name: str, said: str) -> None:
        text = Text(name, no_wrap=True, overflow="ellipsis")
        text.append(f"  {said}", app_of(self).colour("quiet"))
        self.query_one(OptionList).replace_option_prompt(name, text)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        self.dismiss(None)
