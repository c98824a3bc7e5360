"""A chart as a file: its numbers as CSV, its curves as an SVG picture."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from xml.sax.saxutils import escape

from rich.cells import cell_len

from hah_tui.series import Limits, labels, ticks
from hah_tui.text import duration, shown_line
from hah_tui.widgets.chart import Chart, ChartLine, View, position

WIDTH, HEIGHT = 900, 500
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 70, 45


def as_csv(lines: Sequence[tuple[str, str, ChartLine]], view: View) -> str:
    """(run, metric, line) as rows: a bin of steps each, with count, mean, minimum, maximum and the running mean."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "metric", "first_step", "last_step", "epoch", "seconds", "count", "mean", "minimum",
                     "maximum", f"running_mean_{view.horizon:g}_steps"])  # fmt: skip
    for run, metric, line in lines:
        series, curves = line.series, line.curves
        smooth = series.smoothed(view.horizon)
        for index in range(len(series)):
            if series.count[index]:
                middle = series.middle(index)
                first = series.number[index] << series.shift
                last = min(first + series.width - 1, series.last_step)
                epoch, seconds = curves.epoch_of(middle), curves.seconds_of(middle)
                values = series.mean(index), series.low[index], series.high[index], smooth[index]
                numbers = [f"{epoch:.6g}", f"{seconds:.6g}", series.count[index], *(f"{v:.9g}" for v in values)]
                writer.writerow([run, metric, first, last, *numbers])
    return out.getvalue()


def as_svg(chart: Chart, view: View, x: Limits, title: str, colours: Sequence[str], dark: bool) -> str:
    """The curves of a chart as they are shown: window, scale, running mean and bands."""
    ink, quiet, paper = ("#d8dee9", "#7f8b9b", "#141a23") if dark else ("#1e2530", "#646c78", "#ffffff")
    y = chart.y or Limits(0, 1)
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def across(line: ChartLine, step: float) -> float:
        return _LEFT + plot_width * x.fraction(position(view.axis, line.curves, step))

    def down(value: float) -> float:
        share = y.fraction(value)
        return _TOP + plot_height * (1 - min(max(share, -0.02), 1.02))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="{paper}"/>',
        f'<clipPath id="plot"><rect x="{_LEFT}" y="{_TOP - 4}" width="{plot_width}" height="{plot_height + 8}"/>'
        "</clipPath>",
        f'<text x="{_LEFT}" y="26" fill="{ink}" font-size="17" font-weight="bold">{_text(title)}</text>',
    ]
    at = ticks(y, 7)
    scale = 100 if chart.unit == "fraction" else 1
    for value, name in zip(at, labels([scale * v for v in at]), strict=True):
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down(value):.1f}" y2="{down(value):.1f}" '
                     f'stroke="{quiet}" stroke-opacity="0.25"/><text x="{_LEFT - 8}" y="{down(value) + 4:.1f}" '
                     f'text-anchor="end" fill="{quiet}">{name}{"%" * (scale == 100)}</text>')  # fmt: skip
    at = ticks(x, 8, seconds=view.axis == "time")
    for value, name in zip(at, map(duration, at) if view.axis == "time" else labels(at), strict=True):
        place = _LEFT + plot_width * x.fraction(value)
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 24}" text-anchor="middle" fill="{quiet}">{name}</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="{quiet}">{view.axis}</text>')
    for mark in chart.marks:
        if chart.lines and x.low <= position(view.axis, chart.lines[0].curves, mark.step) <= x.high:
            place = across(chart.lines[0], mark.step)
            parts.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_TOP + plot_height}" '
                         f'stroke="{quiet}" stroke-dasharray="3 4">'
                         f"<title>{_text(mark.text)}</title></line>")  # fmt: skip
    legend = _LEFT
    names: list[str] = []
    for line in sorted(chart.lines, key=lambda line: not line.reference):
        colour = quiet if line.reference else colours[(line.ink - 1) % len(colours)]
        series = line.series
        if line.band and not line.reference:
            edge = [(across(line, series.middle(i)), i) for i in range(len(series)) if series.count[i]]
            points = [(a, down(series.high[i])) for a, i in edge] + [
                (a, down(series.low[i])) for a, i in reversed(edge)
            ]
            parts.append(
                f'<polygon clip-path="url(#plot)" fill="{colour}" fill-opacity="0.18" points="{_points(points)}"/>'
            )
        for piece in _pieces(line, view.horizon):
            points = [(across(line, step), down(value)) for step, value in piece if value > 0 or not y.log]
            parts.append(f'<polyline clip-path="url(#plot)" fill="none" stroke="{colour}" stroke-width="2" '
                         f'stroke-linejoin="round" points="{_points(points)}"/>')  # fmt: skip
        if line.label and len(names) < 12:
            names.append(f'<text x="{legend}" y="50" fill="{colour}">{_text(line.label)}</text>')
            legend += 8 * len(line.label) + 18
    return "\n".join([*parts, *names, "</svg>\n"])


def free_path(folder: Path, name: str, suffix: str) -> Path:
    """A path nobody has taken: name.csv, name-2.csv, ..."""
    found, count = folder / f"{name}{suffix}", 1
    while found.exists():
        count += 1
        found = folder / f"{name}-{count}{suffix}"
    return found


def _pieces(line: ChartLine, horizon: float) -> list[list[tuple[float, float]]]:
    """The line between gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(line.series.smoothed(horizon)):
        if math.isnan(value):
            pieces.append([])
        else:
            pieces[-1].append((line.series.middle(index), value))
    return [piece for piece in pieces if piece]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(text: str) -> str:
    return escape(shown_line(text))


def placed(svg: str) -> str:
    """A picture of the terminal whose texts begin and end with a letter.

    Programs that drop the blanks at the ends of a text, or do not stretch it to its length, would move the rest of it.
    """

    def moved(match: re.Match[str]) -> str:
        before, x, between, length, after, text = match.groups()
        said = unescape(text)
        kept = said.strip()
        if not kept:
            return ""
        cell = float(length) / cell_len(said)
        left = float(x) + cell * (len(said) - len(said.lstrip()))
        wide = cell * cell_len(kept)
        return f'<text{before}x="{left:g}"{between}textLength="{wide:g}"{after}>{escape(kept)}</text>'

    return _TEXT.sub(moved, svg)


_TEXT = re.compile(r'<text([^>]*?)x="([\d.]+)"([^>]*?)textLength="([\d.]+)"([^>]*)>([^<]*)</text>')
