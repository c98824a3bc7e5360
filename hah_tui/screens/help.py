"""What every key does, from the table that dispatches them."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from hah_tui import keys
from hah_tui.screens.dialogs import Dialog

TITLES = {
    "runs": "Runs",
    "new": "New run",
    "monitor": "Monitor",
    "compare": "Compare",
    "results": "Results",
    "queue": "Queue",
    "sweep": "Sweep",
    "all": "Everywhere",
}


class HelpScreen(Dialog[None]):
    """The keys of the screen one comes from, then those that work everywhere, then the others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,question_mark,f1,enter,q", "leave", "back"),
        ("j", "scroll(1)", "down"),
        ("k", "scroll(-1)", "up"),
    ]

    def __init__(self, screen: str) -> None:
        super().__init__()
        self._from = screen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Keys"
            with VerticalScroll(classes="what"):
                order = sorted(TITLES, key=lambda name: (name != self._from, name != "all"))
                for name in order:
                    yield Static(TITLES[name] + (" (this screen)" if name == self._from else ""), classes="heading")
                    yield Static(keys_of(name))
            yield Static(Text("esc: back   arrows, j, k: scroll   tab, shift+tab: between panes"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)


def keys_of(screen: str) -> Table:
    """Keys and what they do, of one screen."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=9, no_wrap=True)
    table.add_column()
    for action in keys.of(screen):
        table.add_row(Text(action.shown_keys or "palette", style="bold"), Text(action.help))
    return table
