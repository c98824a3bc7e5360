"""A figure of a report as a chart: a quantity over a number, its spread over seeds as a band."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from engine.report.figures import Figure, Point, Series
from engine.results.estimates import Estimate
from hah_tui.series import Limits, limits
from hah_tui.widgets import canvas, raster
from hah_tui.widgets.axes import Axes, Curve
from hah_tui.widgets.canvas import QUIET, STRONG, TEXT, WAITING, Canvas, InkedRow


class FigureChart(Canvas, can_focus=True):
    """Draws a `Figure` whose x are numbers; the cursor goes from one to the next and the legend has their values."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "along(-1)", show=False),
        Binding("right,l", "along(1)", show=False),
    ]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.figure: Figure | None = None
        self._said = ""
        self._at: float | None = None  # the x under the cursor

    def draw(self, figure: Figure | None, said: str = "") -> None:
        """Show a figure, or say why there is none."""
        self.figure, self._said = figure, said
        if self.size.width and self.display:
            self.show(self.frame(self.size.width, self.size.height))

    def on_resize(self) -> None:
        self.draw(self.figure, self._said)

    def action_along(self, by: int) -> None:
        """Move the cursor by so many values."""
        places = self._places()
        if places:
            at = places.index(self._at) if self._at in places else len(places) if by < 0 else -1
            self._at = places[max(0, min(at + by, len(places) - 1))]
            self.draw(self.figure, self._said)

    def _places(self) -> list[float]:
        figure = self.figure
        return sorted({_x(point) for one in figure.series for point in one.points}) if figure else []

    def frame(self, width: int, height: int) -> list[InkedRow]:
        """The rows of a picture of this size: title, legend, curves, the axis."""
        figure, places = self.figure, self._places()
        if figure is None or len(places) < 2:
            lines = canvas.cut(self._said.split("\n"), width - 1)
            return [canvas.row((f" {line}", WAITING), width=width) for line in lines]
        rows = [canvas.row((f" {figure.title}", STRONG), width=width, right=[(f"{figure.y_label} ", QUIET)])]
        rows += self._legend(figure, width, max(1, height - 7))
        return rows + self._plot(figure, places, width, height - len(rows))

    def _legend(self, figure: Figure, width: int, most: int) -> list[InkedRow]:
        """A row for each curve, with its value under the cursor; where there are too many, one row of what fits."""
        entries = [self._entry(place, one) for place, one in enumerate(figure.series)]
        if len(entries) <= most:
            return [canvas.row(*entry, width=width) for entry in entries]
        pieces: list[tuple[str, int]] = []
        for place, entry in enumerate(entries):
            used, more = sum(len(text) for text, _ in pieces + entry[:2]), f" +{len(entries) - place}"
            if used + (len(more) if place < len(entries) - 1 else 0) > width:
                pieces.append((more, WAITING))
                break
            pieces += entry[:2]
        return [canvas.row(*pieces, width=width)]

    def _entry(self, place: int, one: Series) -> list[tuple[str, int]]:
        """What it is called, its value under the cursor, and what has to be said of it."""
        ink = 1 + place % canvas.LINES
        sign = raster.glyph(ink) if self.plain else raster.style(ink)[1] if self.app.no_color else "━"
        said, quiet = "", ", ".join(one.labels)
        point = next((point for point in one.points if _x(point) == self._at), None)
        if point is not None:
            spread = "" if point.y.spread is None else f" {'+-' if self.plain else '±'} {point.y.spread:.2g}"
            said, quiet = f" {point.y.mean:.4g}{spread}", f"n {len(point.y.values)}  {quiet}"
        return [(f" {sign} {one.title}", ink), (said, TEXT), (f"  {quiet}", QUIET)]

    def _plot(self, figure: Figure, places: list[float], width: int, height: int) -> list[InkedRow]:
        curves = [
            Curve(
                [(_x(point), point.y.mean) for point in one.points],
                1 + place % canvas.LINES,
                [spread(point.y) for point in one.points],
            )
            for place, one in enumerate(figure.series)
        ]
        ends = [end for one in curves for band in one.band for end in band]
        name = figure.x_label if self._at is None else f"{figure.x_label} = {self._at:.6g}"
        axes = Axes(Limits(places[0], places[-1], figure.log), limits(min(ends), max(ends)), name)
        return axes.rows(curves[::-1], width, height, self.plain, bool(self.app.no_color), self._at)


def _x(point: Point) -> float:
    return float(point.x)


def spread(one: Estimate) -> tuple[float, float]:
    """From where to where the runs of a mean spread."""
    return one.mean - (one.spread or 0.0), one.mean + (one.spread or 0.0)
