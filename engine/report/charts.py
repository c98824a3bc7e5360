"""Small charts as SVG for a page: colours are the page's (`--standard`, `--hah`, ...), so that they follow its scheme.

Markers and dashes say what colours say; every point has its number as a title.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from engine.report.figures import NORMS, Figure, Point, Series
from engine.report.published import TABLE_1
from engine.report.tables import ACCURACIES, title_of

WIDTH, HEIGHT = 400.0, 260.0
_SMALL = 220.0, 160.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 10.0, 12.0, 38.0
LOOKS = {  # class of the colour, marker, dashes: the colours of the figures as files
    "Standard": ("standard", "s", "5 3"),
    "HaH": ("hah", "o", ""),
    "HaH, lambda 1.0": ("hah-1", "^", "6 2 1 2"),
    "clean": ("clean", "s", ""),
    "noise 0.1": ("hah-1", "^", "1 2"),
    "Linf 2/255": ("hah", "o", "5 3"),
    "L2 0.25": ("green", "D", "6 2 1 2"),
}


_OTHER = ("clean", "o", "")


@dataclass(frozen=True)
class Axis:
    """Numbers to places between two ends of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Four to seven round numbers."""
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def charts(figure: Figure) -> list[str]:
    """The drawings of a figure with data: one, of minimum norms one for each norm and its curve, of sparsity also the
    densities of each block."""
    if figure.key == "figure-5":
        norms = [norm for norm in NORMS if any(point.x == norm for one in figure.series for point in one.points)]
        curves = dict(figure.curves)
        return [
            *(_bars(figure, norm) for norm in norms),
            *(_lines(f"accuracy against eps, {NORMS[norm]}", curves[norm], (0, 100), f"eps ({NORMS[norm]})", steps=True)
              for norm in norms if norm in curves),
        ]  # fmt: skip
    highest = {"figure-2": (0.0, 1.0)}.get(figure.key) or ((0.0, 100.0) if figure.y_label.endswith("%") else None)
    blocks = figure.key in ("figure-2", "figure-3b")
    crosses = [] if figure.where else list(_published(figure))
    found = [_lines(figure.title, figure.series, highest, figure.x_label, blocks=blocks, crosses=crosses)]
    for block, series in figure.curves:
        found.append(_lines(f"density of Hoyer ratios, block {block}", series, None, f"Hoyer ratio, block {block}",
                            steps=True))  # fmt: skip
    return found


def legend(figure: Figure) -> str:
    """The networks of a figure, as the lines of its drawings are, and what has to be said of their numbers."""
    rows = []
    for one in figure.series:
        look = LOOKS.get(one.title, _OTHER)
        said = f" <small>{escape(', '.join(one.labels))}</small>" if one.labels else ""
        line = f'<line x1="1" y1="6" x2="27" y2="6" class="line {look[0]}"{_dash(look[2])}/>{_marker(look, 14, 6)}'
        rows.append(
            f'<li><svg viewBox="0 0 28 12" class="key" aria-hidden="true">{line}</svg>{escape(one.title)}{said}'
        )
    if not figure.where and list(_published(figure)):
        cross = '<path d="M10,2l8,8m0,-8l-8,8" class="line cross clean"/>'
        rows.append(f'<li><svg viewBox="0 0 28 12" class="key" aria-hidden="true">{cross}</svg>published')
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _lines(
    title: str,
    series: Sequence[Series],
    span: tuple[float, float] | None,
    x_label: str,
    blocks: bool = False,
    steps: bool = False,
    crosses: Sequence[tuple[float, float, str]] = (),
) -> str:
    points = [point for one in series for point in one.points]
    xs = [*(float(point.x) for point in points), *(at for at, _, _ in crosses)]
    low_x, high_x = (0.5, max(6.0, max(xs)) + 0.5) if blocks else (min(xs), max(xs))
    width, height = _SMALL if steps else (WIDTH, HEIGHT)
    x = Axis(low_x, high_x if high_x > low_x else low_x + 1, _LEFT, width - _RIGHT)
    y = Axis(*(span or _span(points)), height - _BOTTOM, _TOP)
    parts = list(_frame(x, y, x_label, [float(n) for n in range(1, int(x.high) + 1)] if blocks else x.ticks))
    if blocks:
        left, right = x(0.5), x(6.5)
        place = f'x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{y.start - _TOP:.1f}"'
        text = f'<text x="{(left + right) / 2:.1f}" y="{_TOP + 10}" class="mid">HaH blocks</text>'
        parts.insert(0, f'<rect {place} class="blocks"/>{text}')
    for one in series:
        parts += _steps(one, x, y) if steps else _line(one, x, y)
    for at, value, name in crosses:
        across, up, colour = x(at), y(value), LOOKS.get(name, _OTHER)[0]
        path = f"M{across - 4:.1f},{up - 4:.1f}l8,8m0,-8l-8,8"
        said = f"{name}, {at:g}: {_number(value)}, published"
        parts.append(f'<g><title>{escape(said)}</title><path d="{path}" class="line cross {colour}"/></g>')
    return _svg(title, parts, width, height)


def _published(figure: Figure) -> Iterator[tuple[float, float, str]]:
    """What the paper prints of it, as crosses: Figure 4 two accuracies of the text, Figure 6 Table 1 at its ends."""
    if figure.key == "figure-4" and figure.statement:
        yield from ((0.1, 100 * value, title_of(preset)) for preset, value in figure.statement.numbers)
    elif figure.key == "figure-6":
        for column in ACCURACIES:
            yield from ((at, 100 * TABLE_1[preset][column.name].value, column.title)
                        for at, preset in ((0, "paper-standard"), (6, "paper-hah")))  # fmt: skip


def _line(one: Series, x: Axis, y: Axis) -> Iterator[str]:
    look = LOOKS.get(one.title, _OTHER)
    places = [(x(float(point.x)), y(point.y.mean), point) for point in one.points]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up, _ in places)
    yield f'<polyline points="{path}" class="line {look[0]}"{_dash(look[2])}/>'
    for across, up, point in places:
        ends = _ends(point)
        if ends:
            yield (f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{y(ends[0]):.1f}" y2="{y(ends[1]):.1f}" '
                   f'class="bar {look[0]}"/>')  # fmt: skip
        said = f"{one.title}, {point.x:g}: {_number(point.y.mean)}" + (
            f" [{_number(ends[0])}, {_number(ends[1])}]" if ends else ""
        )
        yield f"<g><title>{escape(said)}</title>{_marker(look, across, up)}</g>"


def _steps(one: Series, x: Axis, y: Axis) -> Iterator[str]:
    look = LOOKS.get(one.title, _OTHER)
    path: list[str] = []
    before: float | None = None
    for point in one.points:
        across, up = x(float(point.x)), y(point.y.mean)
        path += [f"{across:.1f},{before:.1f}"] if before is not None else []
        path.append(f"{across:.1f},{up:.1f}")
        before = up
    ends = f"{x(float(one.points[0].x)):.1f},{y.start:.1f}", f"{x(float(one.points[-1].x)):.1f},{y.start:.1f}"
    yield f'<polygon points="{" ".join((ends[0], *path, ends[1]))}" class="area {look[0]}"/>'
    yield f'<polyline points="{" ".join(path)}" class="line {look[0]}"{_dash(look[2])}/>'


def _bars(figure: Figure, norm: str) -> str:
    """A bar for each network with its mean minimum norm."""
    there = [(one.title, point) for one in figure.series for point in one.points if point.x == norm]
    width, height = _SMALL
    y = Axis(0, max(point.y.mean for _, point in there) * 1.15 or 1.0, height - _BOTTOM, _TOP)
    x = Axis(0, 1, _LEFT, width - _RIGHT)
    parts = list(_frame(x, y, f"mean minimum norm, {NORMS[norm]}", []))
    slot = (x.end - x.start) / len(there)
    for place, (title, point) in enumerate(there):
        left, wide, up = _LEFT + slot * (place + 0.25), slot / 2, y(point.y.mean)
        look = LOOKS.get(title, _OTHER)
        parts.append(
            f'<g><rect x="{left:.1f}" y="{up:.1f}" width="{wide:.1f}" height="{y.start - up:.1f}" '
            f'class="fill {look[0]}"/>'
            f'<text x="{left + wide / 2:.1f}" y="{up - 4:.1f}" class="mid strong">{_number(point.y.mean)}</text>'
            f"<title>{escape(title)}</title></g>"
        )
    return _svg(f"{figure.title} {NORMS[norm]}", parts, width, height)


def _frame(x: Axis, y: Axis, x_label: str, ticks: Sequence[float]) -> Iterator[str]:
    for tick in y.ticks:
        yield (f'<line x1="{x.start}" x2="{x.end}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
               f'<text x="{x.start - 5}" y="{y(tick) + 3.5:.1f}" class="end">{tick:g}</text>')  # fmt: skip
    for tick in ticks:
        yield f'<text x="{x(tick):.1f}" y="{y.start + 13:.1f}" class="mid">{tick:.4g}</text>'
    middle, below = (x.start + x.end) / 2, y.start + _BOTTOM - 5
    yield f'<text x="{middle:.1f}" y="{below:.1f}" class="mid label">{escape(x_label)}</text>'


def _svg(title: str, parts: Sequence[str], width: float, height: float) -> str:
    kind = "chart small" if width < WIDTH else "chart"
    return (f'<svg viewBox="0 0 {width:g} {height:g}" class="{kind}" role="img" aria-label="{escape(title)}">'
            f"<title>{escape(title)}</title>{''.join(parts)}</svg>")  # fmt: skip


def _marker(look: tuple[str, str, str], x: float, y: float) -> str:
    colour, kind, _ = look
    if kind == "o":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot {colour}"/>'
    shape = {
        "s": ((-2.7, -2.7), (2.7, -2.7), (2.7, 2.7), (-2.7, 2.7)),
        "^": ((0, -3.6), (3.4, 2.6), (-3.4, 2.6)),
        "D": ((0, -3.7), (3.4, 0), (0, 3.7), (-3.4, 0)),
    }[kind]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shape)
    return f'<polygon points="{points}" class="dot {colour}"/>'


def _ends(point: Point) -> tuple[float, float] | None:
    """The ends of its bar: the spread of seeds, else the interval of one run."""
    if point.y.spread is not None:
        return point.y.mean - point.y.spread, point.y.mean + point.y.spread
    return point.y.interval


def _span(points: Sequence[Point]) -> tuple[float, float]:
    """From zero, or below the least, to a little above the highest."""
    ends = [end for point in points for end in (_ends(point) or (point.y.mean,))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    return (low * 1.08, high * 1.08) if high > low else (0.0, 1.0)


def _dash(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""


def _number(value: float) -> str:
    return f"{value:.3g}"
