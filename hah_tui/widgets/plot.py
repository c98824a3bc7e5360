"""Curves over a number that is no step: accuracy against noise, eps or severity, a measure of each block."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.report.figures import Figure, Point, Series
from engine.results.estimates import Estimate
from engine.results.numbers import ball
from hah_tui.series import Limits, extent, limits
from hah_tui.widgets.axes import MARKED, Axes, Curve
from hah_tui.widgets.canvas import REFERENCE, InkedRow

FRONT = 1  # the ink of the run in front; what is behind has REFERENCE
_AXES = {"noise": "std", "severity": "severity", "snr": "block", "sparsity": "block"}  # else eps
_WHOLE = ("severity", "snr", "sparsity")  # figures whose x is 1, 2, 3 ... and whose title says of what


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
            if math.isclose(_x(point), place) or len(one.points) > MARKED:
                found.append((one, point.y))
        return f"{_AXES.get(key, 'eps')} {where}", found

    def rows(self, width: int, height: int, plain: bool, colourless: bool, cursor: float | None) -> list[InkedRow]:
        """The picture without a title: curves with their intervals or spreads, and the axis."""
        key = self.figure.key
        scale = 255.0 if key == "eps-linf" else 1.0
        x = self._across(scale)
        name = "" if key in _WHOLE else "eps/255" if key == "eps-linf" else _AXES.get(key, "eps")
        axes = Axes(x, self._down(x, scale), name, "%" * self.figure.y_label.endswith("%"), whole=key in _WHOLE)
        curves = [
            Curve(
                [(scale * _x(point), point.y.mean) for point in one.points],
                FRONT if one.title == self.front else REFERENCE,
                [reach(point.y) for point in one.points] if one.title == self.front else (),
                sign(one.title == self.front, plain),
            )
            for one in sorted(self.series, key=lambda one: one.title == self.front)
        ]
        return axes.rows(curves, width, height, plain, colourless, None if cursor is None else scale * cursor)

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
