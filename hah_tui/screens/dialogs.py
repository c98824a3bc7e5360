"""Small questions over a screen: a line of text, a confirmation that names what goes, a long message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from hah_tui.text import shown, shown_line


class Ask(ModalScreen[str | None]):
    """Asks for a line of text; ``check`` says what is wrong with it ('' for nothing), which is shown while typing."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave it")]

    def __init__(
        self, title: str, what: str = "", value: str = "", check: Callable[[str], str] = lambda _: "", hint: str = ""
    ) -> None:
        super().__init__()
        self._title, self._what, self._value, self._check, self._hint = title, what, value, check, hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Text(shown_line(self._title))
            if self._what:
                yield Static(Text(shown(self._what)), classes="what")
            yield Input(shown_line(self._value, 1000), placeholder=self._hint, id="answer", select_on_focus=False)
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


class Confirm(ModalScreen[bool]):
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


class Message(ModalScreen[None]):
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
