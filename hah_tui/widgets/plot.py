"""Curves over a number that is no step: accuracy against noise, eps or severity, a measure of each block."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.report.figures import Figure, Point, Series
from engine.results.estimates import Estimate
from engine.results.numbers import ball
from hah_tui.series import Limits, extent, labels, limits, ticks
from hah_tui.widgets import raster
from hah_tui.widgets.canvas import FAINT, QUIET, REFERENCE, TEXT, InkedRow

FRONT = 1  # the ink of the run in front; what is behind has REFERENCE
_AXES = {"noise": "std", "severity": "severity", "snr": "block", "sparsity": "block"}  # else eps
_WHOLE = ("severity", "snr", "sparsity")  # figures whose x is 1, 2, 3 ... and whose title says of what
_MARKED = 20  # points at most of a curve that has a mark at each


@dataclass(frozen=True)
class Plot:
    """A figure as rows of characters; ``front`` is the title of the series in front."""

    figure: Figure
    front: str

    @property
    def title(self) -> str:
        return self.figure.title

    @property
    def series(self) -> tuple[Series, ...]:
        return self.figure.series

    @property
    def places(self) -> list[float]:
        """Where the series in front was measured, else that behind."""
        return [_x(point) for point in self._leading.points]

    @property
    def _leading(self) -> Series:
        every = self.series
        return next((one for one in every if one.title == self.front and len(one.points) > 1), every[0])

    def at(self, place: float) -> tuple[str, list[tuple[Series, Estimate]]]:
        """A place in words, and what every series has there (or nearest to it)."""
        key = self.figure.key
        where = ball("linf", place) if key == "eps-linf" else f"{place:.4g}"
        found = []
        for one in self.series:
            point = min(one.points, key=lambda point: abs(_x(point) - place))
            if math.isclose(_x(point), place) or len(one.points) > _MARKED:
                found.append((one, point.y))
        return f"{_AXES.get(key, 'eps')} {where}", found

    def rows(self, width: int, height: int, plain: bool, colourless: bool, cursor: float | None) -> list[InkedRow]:
        """The picture without a title: curves with their intervals or spreads, and the axis."""
        scale = 255.0 if self.figure.key == "eps-linf" else 1.0
        below = 1 if height >= 4 else 0
        tall = height - below
        x = self._across(scale)
        y = self._down(x, scale)
        unit = "%" * self.figure.y_label.endswith("%")
        at = ticks(y, max(2, min(6, (tall + 1) // 2)))
        names = [name + unit for name in labels(at)]
        left = max(len(name) for name in names) + 1
        wide = max(1, width - left - 1)
        drawn = raster.Raster(wide, tall, plain)

        def dot(place: float, value: float) -> tuple[float, float]:
            return x.fraction(scale * place) * (drawn.columns - 1), (1 - y.fraction(value)) * (drawn.rows - 1)

        marks: dict[tuple[int, int], tuple[str, int]] = {}
        for one in sorted(self.series, key=lambda one: one.title == self.front):
            front = one.title == self.front
            ink = FRONT if front else REFERENCE
            dash = raster.style(ink)[0] if colourless and not plain else ()
            drawn.line([dot(_x(point), point.y.mean) for point in one.points], ink, dash)
            if front:
                ends = [(point, *reach(point.y)) for point in one.points]
                drawn.band(
                    [(dot(_x(point), high)[0], dot(0, high)[1], dot(0, low)[1]) for point, low, high in ends],
                    ink + FAINT,
                )
            if len(one.points) <= min(_MARKED, wide // 2):
                for point in one.points:
                    cell = (
                        round(x.fraction(scale * _x(point)) * (wide - 1)),
                        round((1 - y.fraction(point.y.mean)) * (tall - 1)),
                    )
                    marks[cell] = sign(front, plain), ink
        gutter = {round((1 - y.fraction(value)) * (tall - 1)): name for value, name in zip(at, names, strict=True)}
        line = -1 if cursor is None else round(x.fraction(scale * cursor) * (wide - 1))
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
        return found + [self._axis(x, left, wide, width)] * below

    def _across(self, scale: float) -> Limits:
        """From the first place of the leading series to its last: a longer one behind does not squeeze it."""
        low, high = scale * self.places[0], scale * self.places[-1]
        return Limits(low, high) if high > low else Limits(low, low + 1)

    def _down(self, x: Limits, scale: float) -> Limits:
        """Rounded limits around what lies between the ends of the axis; no accuracy is below 0% or above 100%."""
        values: list[float] = []
        for one in self.series:
            for point in one.points:
                if x.low <= scale * _x(point) <= x.high:
                    values += [point.y.mean, *(reach(point.y) if one.title == self.front else ())]
        ends = extent(values) or (0.0, 1.0)
        found = limits(*ends)
        if not self.figure.y_label.endswith("%"):
            return found
        return Limits(max(0.0, found.low), min(100.0, found.high))

    def _axis(self, x: Limits, left: int, wide: int, width: int) -> InkedRow:
        """Round values under their places, and what they are at the end."""
        key = self.figure.key
        if key in _WHOLE:
            name, at = "", [float(n) for n in range(math.ceil(x.low), math.floor(x.high) + 1)]
        else:
            name, at = "eps/255" if key == "eps-linf" else _AXES.get(key, "eps"), ticks(x, max(2, wide // 8))
        chars, free, room = [" "] * width, 0, left + wide - len(name)
        for value, said in zip(at, labels(at), strict=True):
            start = max(0, left + round(x.fraction(value) * (wide - 1)) - len(said) // 2)
            if start >= free and start + len(said) + bool(name) <= room + (not name):
                chars[start : start + len(said)], free = said, start + len(said) + 1
        chars[room : room + len(name)] = name
        return "".join(chars)[:width], bytes([QUIET]) * width


def _x(point: Point) -> float:
    assert not isinstance(point.x, str)
    return point.x


def reach(one: Estimate) -> tuple[float, float]:
    """From where to where a value goes: the spread of runs around their mean, else the interval of one."""
    if one.spread is not None:
        return one.mean - one.spread, one.mean + one.spread
    return one.interval or (one.mean, one.mean)


def sign(front: bool, plain: bool) -> str:
    """The mark of a measured point, and of its series in a legend."""
    return ("*" if plain else "●") if front else ("o" if plain else "○")
