"""Small questions over a screen: a line of text, a run, a confirmation that names what goes; a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from hah_tui.in_turn import Answer, Awaited
from hah_tui.text import shown, shown_line
from hah_tui.widgets.choice import Options
from hah_tui.widgets.line import Line


class Dialog(ModalScreen[Answer], Awaited[Answer]):
    """Lies over a screen until it is answered, which it is once: keys that are held down answer it again."""

    def dismiss(self, result: Answer | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Ask(Dialog[str | None]):
    """Asks for a line of text; ``check`` says what is wrong with it ('' for nothing), which is shown while typing.

    What is typed comes after ``value``, or ``over`` it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave it")]

    def __init__(
        self, title: str, what: str = "", value: str = "", check: Callable[[str], str] = lambda _: "", hint: str = "",
        over: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self._title, self._what, self._value, self._check, self._hint = title, what, value, check, hint
        self._over = over

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Text(shown_line(self._title))
            if self._what:
                yield Static(Text(shown(self._what)), classes="what")
            yield Line(shown_line(self._value, 1000), placeholder=self._hint, id="answer", select_on_focus=self._over)
            yield Static(Text("enter: do it   esc: leave it"), id="said", classes="hint")

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        wrong = self._check(event.value)
        said = self.query_one("#said", Static)
        said.update(Text(shown_line(wrong) or "enter: do it   esc: leave it"))
        said.set_class(bool(wrong), "wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if not self._check(event.value):
            self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """Asks before something that cannot be taken back; only y does it."""

    BINDINGS: ClassVar[list[BindingType]] = [("y", "yes", "yes"), ("n,escape", "no", "no")]

    def __init__(self, title: str, lines: Sequence[str], yes: str) -> None:
        super().__init__()
        self._title, self._lines, self._yes = title, lines, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog danger") as box:
            box.border_title = Text(shown_line(self._title))
            with VerticalScroll(classes="what"):
                yield Static(Text("\n".join(shown_line(line) for line in self._lines)))
            yield Static(Text(f"y: {self._yes}   n, esc: leave it"), classes="hint")

    def action_yes(self) -> None:
        self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)


class Message(Dialog[None]):
    """Says something longer, until a key is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "leave", "back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = Text(shown_line(self._title))
            with VerticalScroll(classes="what"):
                yield Static(Text(shown(self._text, 20_000)))
            yield Static(Text("esc, enter: back"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        self.dismiss(None)


class PickRun(Dialog[str | None]):
    """Picks a run of the folder by its id, or another of ``names``; '' is none."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave it")]
    SHOWN = 200

    def __init__(self, title: str, names: Sequence[str], now: str, hint: str = "words of its id") -> None:
        super().__init__()
        self._title, self._names, self._now, self._hint = title, names, now, hint
        self._found: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Text(shown_line(self._title))
            yield Line(placeholder=self._hint, id="answer")
            yield Options(id="runs", markup=False)
            yield Static(Text("enter: take it   esc: leave it"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).styles.max_height = "60%"
        self._fill("")
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, words: str) -> None:
        found = [name for name in self._names if all(word in name for word in words.split())]
        self._found = [*([""] if self._now and not words else []), *found][: self.SHOWN]
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options([Option(Text(shown_line(name) or "(none)")) for name in self._found])
        if self._found:
            listed.highlighted = 0

    def on_key(self, event: Key) -> None:
        if event.key in ("up", "down"):
            listed = self.query_one(OptionList)
            (listed.action_cursor_up if event.key == "up" else listed.action_cursor_down)()
            event.stop()

    def on_input_submitted(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None and self._found:
            self.dismiss(self._found[at])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._found[event.option_index])

    def action_leave(self) -> None:
        self.dismiss(None)
