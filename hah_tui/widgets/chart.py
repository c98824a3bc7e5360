"""A chart of curves over steps, epochs or time, drawn from bins: its cost does not depend on the length of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.cells import cell_len
from textual.events import Click, Leave, MouseMove, Resize
from textual.message import Message

from engine.runs.metrics import Unit
from hah_tui.curves import Curves, Mark
from hah_tui.series import BinnedSeries, Limits, growing, labels, limits, ticks
from hah_tui.text import duration, shown_line
from hah_tui.widgets import canvas, raster
from hah_tui.widgets.canvas import FAINT, QUIET, REFERENCE, TEXT, TITLE, Canvas, InkedRow

Axis = Literal["step", "epoch", "time"]
AXES: tuple[Axis, ...] = ("step", "epoch", "time")
SMOOTHING = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)  # horizons of the running mean, as parts of the run
GRID_ROWS = 8  # rows of a plot from which on it has grid lines


@dataclass
class ChartLine:
    """A curve: a series of ``curves`` under a short label; a reference is drawn behind, in grey.

    ``owner``: whose it is, of several runs; ``dash`` (of `raster.DASHES`) tells those of one ink apart.
    """

    label: str
    series: BinnedSeries
    curves: Curves
    ink: int
    reference: bool = False
    band: bool = True
    owner: int = 0
    dash: int = 0


@dataclass
class View:
    """What charts beside each other share; ``cursor`` is a step of the run in front."""

    axis: Axis = "step"
    smooth: int = 0  # of SMOOTHING
    cursor: float | None = None
    zoom: int = 0  # times the axis was halved
    centre: float = 1.0  # of the zoomed part, as a fraction of the whole axis
    ends: dict[Axis, float] = field(default_factory=dict)  # the right end of each axis so far
    total: float = math.inf  # steps there will be
    steps: float = 1.0  # the same, or where it is not known a little more than there are

    @property
    def horizon(self) -> float:
        """Steps after which a value has 1/e of its weight in the running mean."""
        return SMOOTHING[self.smooth] * self.steps


def position(axis: Axis, curves: Curves, step: float) -> float:
    """Where a step lies on an axis."""
    if axis == "step":
        return step
    return curves.epoch_of(step) if axis == "epoch" else curves.seconds_of(step)


def window(view: View, all_curves: Sequence[Curves]) -> Limits:
    """The part of the axis that is shown; the end of the whole grows with the runs, but rarely."""
    longest = max((curves.step for curves in all_curves), default=0)
    view.steps = view.total if math.isfinite(view.total) else growing(longest, view.steps)
    last = max((position(view.axis, curves, curves.step) for curves in all_curves), default=0.0)
    end = math.inf
    if math.isfinite(view.total) and all_curves:
        end = math.inf if view.axis == "time" else max(last, position(view.axis, all_curves[0], view.total))
    before = view.ends.get(view.axis, 0.0)
    if last and before > 8 * last:
        before = 0.0  # another, shorter run
    whole = view.ends[view.axis] = growing(last, before, end) if last > 0 else 1.0
    width = whole / 2**view.zoom
    low = min(max(view.centre * whole - width / 2, 0.0), whole - width)
    return Limits(low, low + width)


def shown_number(value: float, unit: Unit) -> str:
    """A value for a legend."""
    if math.isnan(value):
        return "-"
    if unit == "fraction":
        return f"{100 * value:.1f}%"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


class Chart(Canvas, can_focus=True):
    """A panel with a title, a legend with values, and curves; drawn by `draw`, as often as its owner likes."""

    class Pointed(Message):
        """The mouse points at a step of the run in front (None: nowhere)."""

        def __init__(self, step: float | None) -> None:
            super().__init__()
            self.step = step

    class Opened(Message):
        """A click on the title: this panel alone, or all again."""

        def __init__(self, chart: Chart) -> None:
            super().__init__()
            self.chart = chart

    def __init__(self, title: str, unit: Unit = "number", digit: str = "", ends: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heading, self.unit, self.digit, self.ends = title, unit, digit, ends
        self.lines: list[ChartLine] = []
        self.marks: Sequence[Mark] = ()
        self.log_y = False
        self.zoom_y = 0  # times the values that are shown were halved, around that of the first curve
        self.y: Limits | None = None
        self.empty = "no values yet"
        self.outside = ""  # what of the curves lies beyond the limits
        self._view, self._x = View(), Limits(0, 1)
        self._left, self._plot_width = 0, 0
        self._drawn: object = None

    # What is shown

    def draw(self, view: View, x: Limits, force: bool = False) -> None:
        """Draw what has changed since the last call; ``x``: the part of the axis that is shown."""
        self._view, self._x = view, x
        if not self.size.width or not self.display:
            self._drawn = self._drawn or False  # what was asked for is drawn as soon as there is room
            return
        state = (self.size, self.has_focus, self.app.theme, self.plain, self.log_y, self.zoom_y, view.axis,
                 view.horizon, view.cursor, x, len(self.marks), self._state())  # fmt: skip
        if state == self._drawn and not force:
            return
        self._drawn = state
        self.show(self.frame(self.size.width, self.size.height))

    @property
    def colourless(self) -> bool:
        """Whether lines must differ without their colours (NO_COLOR)."""
        return bool(self.app.no_color)

    def _state(self) -> object:
        return [(id(line.series), line.series.version, line.label, line.ink) for line in self.lines]

    def on_resize(self, event: Resize) -> None:
        self._again()

    def on_focus(self) -> None:
        self._again()

    def on_blur(self) -> None:
        self._again()

    def _again(self) -> None:
        """The same once more, if there was anything."""
        if self._drawn is not None:
            self.draw(self._view, self._x, force=True)

    def frame(self, width: int, height: int) -> list[InkedRow]:
        """The rows of a picture of this size: title, legend, curves, the axis."""
        top = min(height, 2 if height >= 9 else 1)
        below = 1 if height - top >= 3 else 0
        plot = self._plot(width, height - top - below, below)
        return self._head(width, height)[:top] + plot

    def _head(self, width: int, height: int) -> list[InkedRow]:
        """Title and legend: in one row where the panel is low."""
        name = (f" {self.digit} {self.heading} ".replace("  ", " "), canvas.FOCUSED if self.has_focus else TITLE)
        entries, flags = self._legend(), [(" ".join(self._flags()) + " ", QUIET)]
        if height >= 9:
            return [canvas.row(name, width=width, right=flags), _legend_row(entries, width)]
        room, flagged = width - len(name[0]), len(flags[0][0])
        if not self.outside and _length(_shorter(entries, room), 1) > room - flagged:
            flags, flagged = [], 0  # the legend says more, unless something is not to be seen
        shown = _fitting(_shorter(entries, room - flagged), room - flagged)
        pieces = [piece for entry in shown for piece in ((" ", 0), *entry)]
        pieces = [] if _length(shown, 1) > room - flagged else pieces
        return [canvas.row(name, *pieces, width=width, right=flags)]

    def _flags(self) -> list[str]:
        view, said = self._view, [self.outside] if self.outside else []
        if self.log_y:
            said.append("log")
        if view.horizon:
            said.append(f"mean {max(1, round(view.horizon)):,} steps")
        if view.zoom:
            said.append(f"{2**view.zoom}x")
        if self.zoom_y:
            said.append(f"y {2**self.zoom_y}x")
        return said

    def _legend(self) -> list[list[tuple[str, int]]]:
        entries = []
        for line in self.lines:
            if line.reference and line.label == "":
                continue
            value = self.value_of(line)
            sign = raster.sign(line.ink, line.dash, self.plain, self.colourless)
            text = f" {shown_number(value, self.unit)}"
            entries.append([(f"{sign} {line.label}", line.ink), (text, TEXT)])
        return entries

    def value_of(self, line: ChartLine) -> float:
        """The value of a line at the cursor, else its last: smoothed as it is drawn."""
        series, cursor = line.series, self._view.cursor
        if not len(series):
            return math.nan
        if cursor is not None:
            step = cursor if not line.reference else self._step_of_reference(line, cursor)
            index = series.nearest(step)
            if index is None:
                return math.nan
            return series.smoothed(self._view.horizon)[index]
        return series.smoothed(self._view.horizon)[-1] if self._view.horizon else series.last

    def _step_of_reference(self, line: ChartLine, cursor: float) -> float:
        if self._view.axis == "step" or not self.lines:
            return cursor
        return step_at(self._view.axis, line.curves, position(self._view.axis, self.lines[0].curves, cursor))

    def _plot(self, width: int, height: int, below: int) -> list[InkedRow]:
        if height < 1:
            return []
        view, x = self._view, self._x
        found = self._y_limits()
        if found is None:
            middle = [canvas.row((self.empty.center(width), QUIET), width=width)]
            rows: list[InkedRow] = [canvas.row(width=width) for _ in range(height + below)]
            rows[(height - 1) // 2 : (height - 1) // 2 + 1] = middle
            self._left, self._plot_width = 0, width
            return rows
        self.y = y = found
        at = ticks(y, max(2, min(6, (height + 1) // 2)))
        names = [
            name + "%" * (self.unit == "fraction")
            for name in labels([100 * v if self.unit == "fraction" else v for v in at])
        ]
        self._left = left = max(len(name) for name in names) + 1
        right = 3 if self.ends and width > 30 else 0
        self._plot_width = plot = max(1, width - left - right - 1)
        drawn = raster.Raster(plot, height, self.plain)
        place = _Place(view.axis, x, y, drawn)

        def put(line: ChartLine, ink: int) -> None:
            dashed = raster.style(ink)[0] if self.colourless and not self.plain else ()
            dash = dashed or raster.DASHES[line.dash][0]
            drawn.line(place.points(line, line.series.smoothed(view.horizon)), ink, dash)

        front = [line for line in self.lines if not line.reference]
        for line in self.lines:
            if line.reference:
                put(line, REFERENCE)
        for line in front:
            if line.band:
                drawn.band(place.band(line), line.ink + FAINT)
        for line in reversed(front):
            put(line, line.ink)
        gutter = {}
        for value, name in zip(at, names, strict=True):
            gutter[_clamp(round((1 - y.fraction(value)) * (height - 1)), height)] = name
        ends = self._line_ends(front, y, height) if right else {}
        columns = self._columns(place, plot)
        rows = []
        for index in range(height):
            text, inks = drawn.cells(index)
            if index in gutter and height >= GRID_ROWS:
                inks = bytes(canvas.GRID if char == " " else ink for char, ink in zip(text, inks, strict=True))
                text = text.replace(" ", "┈")
            for column, (char, ink) in columns.items():
                if text[column] in " ┈":
                    text = text[:column] + char + text[column + 1 :]
                    inks = inks[:column] + bytes([ink]) + inks[column + 1 :]
            label = gutter.get(index, "").rjust(left - 1) + " "
            end, end_ink = ends.get(index, ("", 0))
            rows.append(
                (label + text + end.rjust(right) + " ", bytes([QUIET]) * left + inks + bytes([end_ink]) * right + b"\0")
            )
        if below:
            rows.append(self._axis_row(x, left, plot, width))
        return rows

    def _columns(self, place: _Place, plot: int) -> dict[int, tuple[str, int]]:
        """Columns of the cursor and of what happened, by cell."""
        if not self.lines:
            return {}
        found, curves = {}, self.lines[0].curves
        for mark in self.marks:
            cell = place.cell(curves, mark.step)
            if 0 <= cell < plot:
                found[cell] = ("┊", canvas.MARK if mark.kind == "set" else QUIET)
        if self._view.cursor is not None:
            cell = place.cell(curves, self._view.cursor)
            if 0 <= cell < plot:
                found[cell] = ("│", TEXT)
        return found

    def _line_ends(self, front: list[ChartLine], y: Limits, height: int) -> dict[int, tuple[str, int]]:
        ends: dict[int, tuple[str, int]] = {}
        for line in front:
            value = self.value_of(line)
            if not math.isnan(value) and not math.isnan(y.fraction(value)):
                row = _clamp(round((1 - y.fraction(value)) * (height - 1)), height)
                ends.setdefault(row, (line.label[-2:], line.ink))
        return ends

    def _axis_row(self, x: Limits, left: int, plot: int, width: int) -> InkedRow:
        """Round values under their places, the axis's name at the end, and where the cursor is."""
        axis = self._view.axis
        chars, inks = [" "] * width, bytearray(width)
        unit = {"step": "steps", "epoch": "epochs", "time": "time"}[axis]
        room = left + plot - len(unit) - 1
        at = ticks(x, max(2, plot // 10), seconds=axis == "time")
        free = 0
        for value, name in zip(at, [duration(v) for v in at] if axis == "time" else labels(at), strict=True):
            start = left + round(x.fraction(value) * (plot - 1)) - len(name) // 2
            start = max(start, 0)
            if start >= free and start + len(name) <= room:
                chars[start : start + len(name)], free = name, start + len(name) + 1
                inks[start : start + len(name)] = bytes([QUIET]) * len(name)
        chars[room + 1 : room + 1 + len(unit)] = unit
        inks[room + 1 : room + 1 + len(unit)] = bytes([QUIET]) * len(unit)
        if self._view.cursor is not None and self.lines:
            value = position(axis, self.lines[0].curves, self._view.cursor)
            if x.low <= value <= x.high:
                shown = {"step": f"{value:,.0f}", "epoch": f"{value:,.2f}", "time": duration(value)}[axis]
                near, curves = 1.5 * (x.high - x.low) / plot, self.lines[0].curves
                said = [m.text for m in self.marks if abs(position(axis, curves, m.step) - value) <= near]
                texts = [shown_line(text, 40) for text in said if cell_len(text) == len(text)]
                name = f" {'  '.join([shown, *texts])} "[:width]
                start = max(0, min(left + round(x.fraction(value) * (plot - 1)) - len(name) // 2, width - len(name)))
                left_end, right_end = start, start + len(name)
                while left_end and chars[left_end - 1] != " ":  # no half a tick beside it
                    left_end -= 1
                while right_end < width and chars[right_end] != " ":
                    right_end += 1
                chars[left_end:right_end] = " " * (right_end - left_end)
                chars[start : start + len(name)] = name
                inks[start : start + len(name)] = bytes([canvas.CURSOR]) * len(name)
        return "".join(chars)[:width], bytes(inks[:width])

    def _y_limits(self) -> Limits | None:
        """Rounded limits around the curves in view, and around their bands as far as these are not far away.

        A few bins far outside the others (the first steps of a loss) are cut off; `outside` says so.
        """
        found: list[float] = []
        band_low, band_high, self.outside = math.inf, -math.inf, ""
        low, high = math.inf, -math.inf
        for line in self.lines:
            series = line.series
            if not len(series):
                continue
            first, last = self._visible(line)
            values = sorted(
                v for v in series.smoothed(self._view.horizon)[first:last] if v > 0 or (v <= 0 and not self.log_y)
            )
            if not values:
                continue
            few = len(values) // 33
            found += (values[0], values[-1])
            low, high = min(low, values[few]), max(high, values[-1 - few])
            if line.band and not line.reference:
                band_low = min(band_low, *series.low[first:last])
                band_high = max(band_high, *(v for v in series.high[first:last] if v > -math.inf))
        if low > high:
            return None
        reach = 0.4 * (high - low) or abs(high)
        if self.log_y or min(found) >= low - reach:
            low = min(found)
        else:
            self.outside = f"{'v' if self.plain else '▼'} {shown_number(min(found), self.unit)}"
        if self.log_y or max(found) <= high + reach:
            high = max(found)
        else:
            self.outside += f"{'^' if self.plain else '▲'} {shown_number(max(found), self.unit)}"
        if not self.log_y:
            reach = 0.25 * (high - low)
            low, high = max(min(low, band_low), low - reach), min(max(high, band_high), high + reach)
        if self.zoom_y:
            whole, share = Limits(low, high if high > low else low + (abs(low) or 1.0), self.log_y), 0.5**self.zoom_y
            middle = whole.fraction(next((v for v in map(self.value_of, self.lines) if not math.isnan(v)), math.nan))
            start = min(max(middle - share / 2, 0.0), 1.0 - share) if not math.isnan(middle) else 0.0
            low, high = whole.value(start), whole.value(start + share)
        return limits(low, high, self.y, self.log_y)

    def _visible(self, line: ChartLine) -> tuple[int, int]:
        """The bins in the window, and one to each side."""
        if not self._view.zoom:
            return 0, len(line.series)
        axis, series = self._view.axis, line.series
        inside = [i for i in range(len(series))
                  if self._x.low <= position(axis, line.curves, series.middle(i)) <= self._x.high]  # fmt: skip
        return (max(0, inside[0] - 1), min(len(series), inside[-1] + 2)) if inside else (0, len(series))

    # Cursor

    def step_from(self, cells: float) -> float:
        """The step ``cells`` to the right of the left end of the plot."""
        share = min(max(cells / max(1, self._plot_width - 1), 0.0), 1.0)
        return step_at(self._view.axis, self.lines[0].curves, self._x.value(share)) if self.lines else 0.0

    def moved(self, cursor: float | None, cells: int) -> float | None:
        """The cursor moved by so many cells; from nowhere to the last value."""
        if not self.lines or not self._plot_width:
            return None
        curves = self.lines[0].curves
        if cursor is None:
            return float(min(curves.step, self.step_from(self._plot_width)))
        at = self._x.fraction(position(self._view.axis, curves, cursor)) * (self._plot_width - 1)
        return min(self.step_from(round(at) + cells), float(curves.step))

    def on_mouse_move(self, event: MouseMove) -> None:
        if event.y and self._plot_width and self.lines and event.button:
            self.post_message(self.Pointed(self.step_from(event.x - self._left)))

    def on_click(self, event: Click) -> None:
        if event.y == 0 and event.chain >= 1:
            self.post_message(self.Opened(self))
        elif self.lines and self._plot_width:
            self.post_message(self.Pointed(self.step_from(event.x - self._left)))

    def on_leave(self, event: Leave) -> None:
        event.stop()


class _Place:
    """From values to dots."""

    def __init__(self, axis: Axis, x: Limits, y: Limits, drawn: raster.Raster) -> None:
        self._axis, self._x, self._y, self._raster = axis, x, y, drawn
        self._known: dict[tuple[int, tuple[float, ...]], list[float]] = {}  # columns of the middles of bins

    def _across(self, line: ChartLine) -> list[float]:
        curves, middles = line.curves, tuple(line.series.middles())
        found = self._known.get((id(curves), middles))
        if found is None:
            scale, low = (self._raster.columns - 1) / (self._x.high - self._x.low), self._x.low
            if self._axis == "step":
                found = [(step - low) * scale for step in middles]
            elif self._axis == "epoch":
                per = curves.steps_per_epoch or 1.0
                found = [(step / per - low) * scale for step in middles]
            else:
                found = [(curves.seconds_of(step) - low) * scale for step in middles]
            self._known[id(curves), middles] = found
        return found

    def _down(self) -> Callable[[float], float]:
        y, last = self._y, self._raster.rows - 1
        if y.log:
            scale, low = last / math.log(y.high / y.low), y.low
            return lambda value: last - scale * math.log(value / low) if value > 0 else math.nan
        scale, low = last / (y.high - y.low), y.low
        return lambda value: last - scale * (value - low)

    def _shown(self, across: Sequence[float]) -> slice:
        """What lies inside the window, and one point to each side: what is far outside would be drawn for nothing."""
        last = self._raster.columns
        first = next((i for i, x in enumerate(across) if x >= 0), len(across))
        after = next((i for i in range(len(across) - 1, -1, -1) if across[i] <= last), -1)
        return slice(max(0, first - 1), after + 2)

    def points(self, line: ChartLine, values: Sequence[float]) -> list[tuple[float, float]]:
        """A line in dots."""
        down, across = self._down(), self._across(line)
        shown = self._shown(across)
        return [(x, down(value)) for x, value in zip(across[shown], values[shown], strict=True)]

    def band(self, line: ChartLine) -> list[tuple[float, float, float]]:
        """Minimum and maximum of the bins of a line in dots."""
        down, series, across = self._down(), line.series, self._across(line)
        floor, shown = self._y.low if self._y.log else -math.inf, self._shown(across)
        bins = zip(across[shown], series.count[shown], series.high[shown], series.low[shown], strict=True)
        return [
            (x, down(high), down(max(low, floor))) if count else (x, math.nan, math.nan) for x, count, high, low in bins
        ]

    def cell(self, curves: Curves, step: float) -> int:
        """The cell column of a step."""
        share = self._x.fraction(position(self._axis, curves, step))
        return round(share * (self._raster.columns - 1)) // (1 if self._raster.ascii else 2)


def step_at(axis: Axis, curves: Curves, value: float) -> float:
    """The step at a place of an axis; undoes `position`."""
    if axis == "step":
        return value
    if axis == "epoch":
        return value * curves.steps_per_epoch
    low, high = 0.0, float(max(1, curves.step))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if curves.seconds_of(middle) < value else (low, middle)
    return (low + high) / 2


_SIGNS = ("━ ", "█ ")  # that say nothing which the colour of a label does not


def _legend_row(entries: list[list[tuple[str, int]]], width: int) -> InkedRow:
    shown = _fitting(_shorter(entries, width - 1), width - 1, 2)
    return canvas.row((" ", 0), *(p for e in shown for p in (*e, ("  ", 0))), width=width)


def _length(entries: list[list[tuple[str, int]]], gap: int) -> int:
    return sum(gap + sum(len(text) for text, _ in entry) for entry in entries)


def _fitting(entries: list[list[tuple[str, int]]], room: int, gap: int = 1) -> list[list[tuple[str, int]]]:
    """The entries of a legend that there is room for, and how many it leaves out."""
    if _length(entries, gap) <= room:
        return entries
    lengths = [gap + sum(len(text) for text, _ in entry) for entry in entries]
    fit, room = 0, room - len(f"+{len(entries)}") - gap
    while fit < len(entries) and sum(lengths[: fit + 1]) <= room:
        fit += 1
    return [*entries[:fit], [(f"+{len(entries) - fit}", QUIET)]]


def _shorter(entries: list[list[tuple[str, int]]], width: int) -> list[list[tuple[str, int]]]:
    """A legend without the glyphs before the labels where it is too long with them."""
    if sum(2 + sum(len(text) for text, _ in entry) for entry in entries) - 2 <= width:
        return entries
    return [[(e[0][0][2:] if e[0][0][:2] in _SIGNS else e[0][0], e[0][1]), *e[1:]] for e in entries]


def _clamp(row: int, height: int) -> int:
    return min(max(row, 0), height - 1)
