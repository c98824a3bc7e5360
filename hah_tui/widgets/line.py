"""A line to type into."""

from __future__ import annotations

from typing import Any

from textual.reactive import Reactive
from textual.widgets import Input


class Line(Input, inherit_bindings=False):
    """Textual's `Input` without the bindings by which other widgets scroll, and without a cursor that blinks."""

    BINDINGS = Input.BINDINGS
    cursor_blink = Reactive(False, init=False)  # a picture twice a second, over a thin line too

    def __init__(self, value: str = "", select_on_focus: bool = False, **how: Any) -> None:
        # To validate is to set classes, so to match all styles again.
        super().__init__(value, select_on_focus=select_on_focus, validate_on=(), **how)

    @property
    def at_end(self) -> bool:
        """Whether there is nothing behind the cursor to take away."""
        return self.cursor_position >= len(self.value) and self.selection.is_empty
