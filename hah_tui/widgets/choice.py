"""A setting that is one of several."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from textual.events import Mount
from textual.widgets import Select


class Choice(Select[str]):
    """Textual's, which fails where it is taken away while it is being mounted: its parts are gone by then."""

    def __init__(self, options: Iterable[tuple[RenderableType, str]], value: str, name: str) -> None:
        super().__init__(options, value=value, allow_blank=False, compact=True, name=name)

    def _on_mount(self, event: Mount) -> None:
        if not self.query("SelectOverlay"):
            event.prevent_default()
