"""Partial updates of a screen that send the changed cells only.

Textual 8 sends a changed row from the left edge of its widget on: with charts that is three to four times as many bytes
over a thin line, for the same CPU time. This leans on names that Textual keeps to itself; where it has none of them any
more, its own way is taken.
"""

from __future__ import annotations

from typing import Any

from rich.control import Control

try:
    from textual._compositor import ChopsUpdate, Compositor
except ImportError:  # another Textual
    Compositor = None  # type: ignore[assignment, misc]


def send_changed_cells(screen: Any) -> None:
    """Make a screen's partial updates small."""
    if Compositor is not None and type(getattr(screen, "_compositor", None)) is Compositor:
        screen._compositor = _ChangedCells()


if Compositor is not None:

    class _Spans(ChopsUpdate):
        """Spans of cells, each sent from its first to its last."""

        def render_segments(self, console: Any) -> str:
            sequences = []
            for y, x1, x2 in self.spans:
                for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                    if strip is not None and x < x2 and end > x1:
                        left, right = max(x, x1), min(end, x2)
                        part = strip if (left, right) == (x, end) else strip.crop(left - x, right - x)
                        sequences += [Control.move_to(left, y).segment.text, part.render(console)]
            return "".join(sequences)

    class _ChangedCells(Compositor):
        def render_partial_update(self) -> ChopsUpdate | None:
            update = super().render_partial_update()
            return None if update is None else _Spans(update.chops, update.spans, update.chop_ends)
