"""Which columns a list has, what it is sorted by, what its groups are made by: one of many names, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from hah_tui.base import Page, app_of
from hah_tui.screens.dialogs import Dialog
from hah_tui.text import shown_line
from hah_tui.widgets.choice import Options
from hah_tui.widgets.line import Line

Offer = tuple[str, str]  # a name and what is said of it


class PickAttribute(Dialog[list[str] | None]):
    """Picks one of the names ``offered``, or ``several``, those that are ``chosen`` first; found by typing.

    Of one the answer is that one, None where it was left; of several all that are chosen then, in their order.
    """

    VERTICAL_BREAKPOINTS = Page.VERTICAL_BREAKPOINTS
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave it")]

    def __init__(self, title: str, offered: Sequence[Offer], chosen: Sequence[str], several: bool = False) -> None:
        super().__init__()
        self._title, self._several = title, several
        self._offered, self._chosen = dict(offered), list(chosen)
        self._found: list[str] = []
        self._new = 0  # chosen here, which come first

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Text(shown_line(self._title))
            yield Line(placeholder="words of its name", id="answer")
            yield Options(id="names", markup=False)
            yield Static(Text("enter: show or hide   esc: done" if self._several else "enter: take it   esc: leave it"),
                         classes="hint")  # fmt: skip

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, words: str, at: int = 0) -> None:
        order = dict.fromkeys([*self._chosen, *self._offered])
        self._found = [
            name for name in order
            if all(word in f"{name} {self._offered.get(name, '')}".lower() for word in words.lower().split())
        ]  # fmt: skip
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options([Option(self._line(name)) for name in self._found])
        if self._found:
            listed.highlighted = min(at, len(self._found) - 1)

    def _line(self, name: str) -> Text:
        app = app_of(self)
        tick = ("*" if app.plain else "✓") if name in self._chosen else " "
        line = Text(f"{tick} {shown_line(name) or 'nothing'}", no_wrap=True, overflow="ellipsis")
        return line.append(f"  {self._offered.get(name, '')}", app.colour("quiet"))

    def on_key(self, event: Key) -> None:
        moves = {"up": "cursor_up", "down": "cursor_down", "pageup": "page_up", "pagedown": "page_down"}
        if event.key in moves:
            getattr(self.query_one(OptionList), f"action_{moves[event.key]}")()
            event.stop()

    def on_input_submitted(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None and self._found:
            self._take(at)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._take(event.option_index)

    def _take(self, at: int) -> None:
        name = self._found[at]
        if not self._several:
            self.dismiss([name])
            return
        if name in self._chosen:
            self._new -= self._chosen.index(name) < self._new
            self._chosen.remove(name)
        else:
            self._chosen.insert(self._new, name)  # where it is seen: what is chosen last may find no room
            self._new += 1
        box = self.query_one(Input)
        if box.value:
            box.value = ""  # the next one is searched for, and what is chosen seen
            box.focus()
        else:
            self._fill("", at)

    def action_leave(self) -> None:
        self.dismiss(self._chosen if self._several else None)
