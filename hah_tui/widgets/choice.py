"""One of several: Textual's widgets without what fails in them when keys come faster than pictures."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.events import Mount, Resize
from textual.geometry import Size
from textual.widgets import OptionList, Select
from textual.widgets._select import SelectCurrent, SelectOverlay


class Options(OptionList):
    """A list to choose from. Textual's fails where a page is asked for before its lines are known, and is painted twice
    where it is shown again with the size it had."""

    _known: Size | None = None

    def on_resize(self, event: Resize) -> None:
        if event.size == self._known:
            event.prevent_default()
        self._known = event.size

    def action_page_up(self) -> None:
        with suppress(KeyError):
            super().action_page_up()  # type: ignore[no-untyped-call]

    def action_page_down(self) -> None:
        with suppress(KeyError):
            super().action_page_down()  # type: ignore[no-untyped-call]


class Overlay(SelectOverlay, Options):
    """The list that a `Choice` opens."""


class Choice(Select[str]):
    """A setting that is one of several. Textual's fails where it is taken away while it is being mounted: its parts are
    gone by then."""

    def __init__(self, options: Iterable[tuple[RenderableType, str]], value: str, name: str) -> None:
        super().__init__(options, value=value, allow_blank=False, compact=True, name=name)

    def compose(self) -> ComposeResult:
        yield SelectCurrent(self.prompt)
        yield Overlay().data_bind(compact=Select.compact)

    def _on_mount(self, event: Mount) -> None:
        if not self.query(Overlay):
            event.prevent_default()

    def action_show_overlay(self) -> None:
        if self.query(Overlay):
            super().action_show_overlay()
