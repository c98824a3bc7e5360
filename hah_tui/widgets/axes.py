"""Curves between two axes as rows of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hah_tui.series import Limits, labels, ticks
from hah_tui.widgets import raster
from hah_tui.widgets.canvas import FAINT, QUIET, TEXT, InkedRow

MARKED = 20  # points at most of a curve that has a mark at each


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in the units of the axes, and from where to where each goes where that is shown as a band."""

    points: Sequence[tuple[float, float]]
    ink: int
    band: Sequence[tuple[float, float]] = ()
    mark: str = ""  # at each point


@dataclass(frozen=True)
class Axes:
    """``name`` stands at the end of the axis below, whose numbers are whole ones with ``whole``; ``unit`` after every
    number beside."""

    x: Limits
    y: Limits
    name: str = ""
    unit: str = ""
    whole: bool = False

    def rows(
        self, curves: Sequence[Curve], width: int, height: int, plain: bool, colourless: bool, cursor: float | None
    ) -> list[InkedRow]:
        """Curves, the last on top, a line at the ``cursor``, the numbers, and from four rows on the axis below."""
        if height < 1:
            return []
        below = 1 if height >= 4 else 0
        tall = height - below
        at = ticks(self.y, max(2, min(6, (tall + 1) // 2)))
        names = [name + self.unit for name in labels(at)]
        left = max(map(len, names)) + 1
        wide = max(1, width - left - 1)
        drawn = raster.Raster(wide, tall, plain)

        def across(place: float) -> float:
            return self.x.fraction(place) * (drawn.columns - 1)

        def down(value: float) -> float:
            return (1 - self.y.fraction(value)) * (drawn.rows - 1)

        marks: dict[tuple[int, int], tuple[str, int]] = {}
        for one in curves:
            dash = raster.style(one.ink)[0] if colourless and not plain else ()
            drawn.line([(across(x), down(y)) for x, y in one.points], one.ink, dash)
            ends = zip(one.points, one.band, strict=False)
            drawn.band([(across(x), down(high), down(low)) for (x, _), (low, high) in ends], one.ink + FAINT)
            if one.mark and len(one.points) <= min(MARKED, wide // 2):
                for x, y in one.points:
                    cell = round(self.x.fraction(x) * (wide - 1)), round((1 - self.y.fraction(y)) * (tall - 1))
                    marks[cell] = one.mark, one.ink
        gutter = {round((1 - self.y.fraction(value)) * (tall - 1)): name for value, name in zip(at, names, strict=True)}
        line = -1 if cursor is None else round(self.x.fraction(cursor) * (wide - 1))
        found = []
        for row in range(tall):
            text, inks = drawn.cells(row)
            cells, colours = list(text), bytearray(inks)
            if 0 <= line < wide and cells[line] == " ":
                cells[line], colours[line] = "│", TEXT
            for (column, at_row), (char, ink) in marks.items():
                if at_row == row and 0 <= column < wide:
                    cells[column], colours[column] = char, ink
            label = gutter.get(row, "").rjust(left - 1) + " "
            found.append((label + "".join(cells) + " ", bytes([QUIET]) * left + bytes(colours) + b"\0"))
        return found + [self._below(left, wide, width)] * below

    def _below(self, left: int, wide: int, width: int) -> InkedRow:
        """Round values under their places, and what they are at the end."""
        at = ticks(self.x, max(2, wide // 8))
        if self.whole:
            at = [float(n) for n in range(math.ceil(self.x.low), math.floor(self.x.high) + 1)]
        # The end of a setting's name tells it apart, and has its value under the cursor.
        name = self.name if len(self.name) <= wide else "…" + self.name[len(self.name) - wide + 1 :]
        chars, free, room = [" "] * width, 0, left + wide - len(name)
        for value, said in zip(at, labels(at), strict=True):
            start = max(0, left + round(self.x.fraction(value) * (wide - 1)) - len(said) // 2)
            if start >= free and start + len(said) + bool(name) <= room + (not name):
                chars[start : start + len(said)], free = said, start + len(said) + 1
        chars[room : room + len(name)] = name
        return "".join(chars)[:width], bytes([QUIET]) * width
