"""Updates of a screen that send what has changed only.

Textual 8 sends a changed row from the left edge of its widget on: with charts that is three to four times as many bytes
over a thin line, for the same CPU time. And while a screen opens it sends all of it three times or more. This leans on
names that Textual keeps to itself; where it has none of them any more, its own way is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.control import Control

try:
    from textual._compositor import ChopsUpdate, Compositor, CompositorUpdate, LayoutUpdate
except ImportError:  # another Textual
    Compositor = None  # type: ignore[assignment, misc]


def send_changed_cells(screen: Any) -> None:
    """Make a screen's partial updates small."""
    if Compositor is not None and type(getattr(screen, "_compositor", None)) is Compositor:
        screen._compositor = _ChangedCells()


class Picture:
    """What the terminal shows, as far as it is known: what is sent again as it was is left out."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[tuple[int, int], str]] = {}  # sequences by row and the cells that they cover

    def without(self, update: Any) -> Any:
        """An update without what is there already when it is written; Textual drops some before."""
        return update if Compositor is None or not isinstance(update, CompositorUpdate) else _Less(self, update)

    def written(self, update: Any, console: Any) -> str:
        """The sequences of an update."""
        if not isinstance(update, LayoutUpdate | _Spans):
            self._rows.clear()
            return str(update.render_segments(console))
        sequences = []
        spans = _of_layout(update, console) if isinstance(update, LayoutUpdate) else update.spans_of(console)
        for y, x1, x2, text in spans:
            row = self._rows.get(y, {})
            if row.get((x1, x2)) != text:
                kept = {ends: shown for ends, shown in row.items() if ends[1] <= x1 or ends[0] >= x2}
                self._rows[y] = {**kept, (x1, x2): text}
                sequences += [Control.move_to(x1, y).segment.text, text]
        return "".join(sequences)

    def forget(self) -> None:
        """Another size: nobody knows what the terminal makes of it."""
        self._rows.clear()


if Compositor is not None:

    def _of_layout(update: LayoutUpdate, console: Any) -> Iterator[tuple[int, int, int, str]]:
        for y, line in enumerate(update.strips, update.region.y):
            text = "".join(strip.render(console) for strip in line)
            yield y, update.region.x, update.region.right, text

    class _Less(CompositorUpdate):
        def __init__(self, picture: Picture, update: CompositorUpdate) -> None:
            self._picture, self._update = picture, update

        def render_segments(self, console: Any) -> str:
            return self._picture.written(self._update, console)

    class _Spans(ChopsUpdate):
        """Spans of cells, each sent from its first to its last."""

        def spans_of(self, console: Any) -> Iterator[tuple[int, int, int, str]]:
            """(row, first cell, one after the last, sequences) of each stretch without a gap."""
            for y, x1, x2 in self.spans:
                start = end = x1
                text = ""
                for last, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                    if strip is not None and x < x2 and last > x1:
                        left, right = max(x, x1), min(last, x2)
                        if left != end and text:
                            yield y, start, end, text
                            text = ""
                        start = start if text else left
                        part = strip if (left, right) == (x, last) else strip.crop(left - x, right - x)
                        text, end = text + part.render(console), right
                if text:
                    yield y, start, end, text

        def render_segments(self, console: Any) -> str:
            spans = self.spans_of(console)
            return "".join(Control.move_to(left, y).segment.text + text for y, left, _, text in spans)

    class _ChangedCells(Compositor):
        def render_partial_update(self) -> ChopsUpdate | None:
            update = super().render_partial_update()
            return None if update is None else _Spans(update.chops, update.spans, update.chop_ends)
