"""One bar for each block: its value now, its history, and a reference run behind it; or the blocks' curves."""

from __future__ import annotations

import math
from typing import Any

from engine.runs.metrics import Metric, Unit
from hah_tui import themes
from hah_tui.curves import Curves
from hah_tui.series import Limits, labels, limits, ticks
from hah_tui.widgets import canvas, raster
from hah_tui.widgets.canvas import QUIET, REFERENCE, TEXT, InkedRow
from hah_tui.widgets.chart import Chart, ChartLine, shown_number

_ACROSS, _UP = " ▏▎▍▌▋▊▉█", " ▁▂▃▄▅▆▇█"
_HISTORY = 24  # cells, at most


class Bars(Chart):
    """Blocks 1 .. n; the first ``hah_blocks`` are HaH blocks and have the colour of them."""

    def __init__(self, title: str, unit: Unit = "number", digit: str = "", **kwargs: Any) -> None:
        super().__init__(title, unit, digit, ends=True, **kwargs)
        self.hah_blocks = 0
        self.as_curves = False
        self.reference_name = ""
        self.scale: Limits | None = None

    def _state(self) -> object:
        return super()._state(), self.as_curves, self.hah_blocks

    def _legend(self) -> list[list[tuple[str, int]]]:
        if self.as_curves:
            return [entry[:1] for entry in super()._legend()]
        solid = "#" if self.plain else "█"
        entries = []
        front = [line for line in self.lines if not line.reference]
        if self.hah_blocks and front:
            entries.append([(solid, canvas.BAR), (" HaH", QUIET)])
        if len(front) > self.hah_blocks:
            entries.append([(solid, canvas.STANDARD), (" standard", QUIET)])
        if len(front) < len(self.lines):
            entries.append([("." if self.plain else " ", canvas.BEHIND), (f" {self.reference_name}", QUIET)])
        return entries

    def _plot(self, width: int, height: int, below: int) -> list[InkedRow]:
        if self.as_curves or not any(len(line.series) for line in self.lines):
            return super()._plot(width, height, below)
        self._plot_width = 0
        height += below
        front = [line for line in self.lines if not line.reference]
        behind = {line.label: self.value_of(line) for line in self.lines if line.reference}
        values = [(line, self.value_of(line), behind.get(line.label, math.nan)) for line in front]
        finite = [v for _, now, then in values for v in (now, then) if math.isfinite(v)]
        self.scale = limits(min(0.0, *finite), max(0.0, *finite), self.scale) if finite else Limits(0, 1)
        if height < len(values):
            rows = self._up(values, width, height)
        else:
            rows = self._across(values, width)
            if height >= 2 * len(rows) - 1:  # room to tell one bar from the next
                rows = [line for row in rows for line in (row, canvas.row(width=width))]
        return (rows + [canvas.row(width=width) for _ in range(height)])[:height]

    def _inks(self, line: ChartLine) -> tuple[int, int, int]:
        """Inks of a bar: alone, over the reference, and for the reference's end inside it."""
        if line.label.isdecimal() and int(line.label) <= self.hah_blocks:
            return canvas.BAR, canvas.BAR_REFERENCE, canvas.BAR_MARK
        return canvas.STANDARD, canvas.STANDARD_REFERENCE, canvas.STANDARD_MARK

    def _across(self, values: list[tuple[ChartLine, float, float]], width: int) -> list[InkedRow]:
        """One row a block: number, bar, value, history."""
        history = min(_HISTORY, width // 3) if width >= 36 else 0
        room = max(3, width - 3 - 8 - (history + 2 if history else 0))
        rows = []
        for line, now, then in values:
            text, inks = self._bar(now, then, room, *self._inks(line))
            past = ""
            if history:
                series = line.series
                means = [m for m in (series.mean(i) for i in range(len(series))) if not math.isnan(m)]
                if 0 < len(means) < history:
                    means = [means[cell * len(means) // history] for cell in range(history)]
                past = themes.line_of(means, history, self.plain).replace("█", "▇")  # a gap to the row above
            rows.append(
                canvas.row(
                    (f"{line.label:>2} ", QUIET),
                    *zip(text, inks, strict=True),
                    (f" {shown_number(now, self.unit):>6} ", TEXT),
                    (past.ljust(history), canvas.HISTORY if self._inks(line)[0] == canvas.BAR else QUIET),
                    width=width,
                )
            )
        return rows

    def _bar(self, now: float, then: float, room: int, ink: int, over: int, marked: int) -> tuple[str, bytes]:
        """``room`` cells from the low to the high end of the scale."""
        scale = self.scale or Limits(0, 1)
        zero = scale.fraction(0.0) * room
        value = scale.fraction(now) * room if math.isfinite(now) else zero
        behind = scale.fraction(then) * room if math.isfinite(then) else math.nan
        text, inks = [], bytearray()
        for cell in range(room):
            inside = min(zero, behind) <= cell + 0.5 < max(zero, behind) if not math.isnan(behind) else False
            if value >= zero:
                eighths = 8 if cell + 1 <= value else round(8 * (value - cell)) if cell < value else 0
                eighths = eighths if cell + 1 > zero else 0
            else:
                eighths = 8 if value <= cell + 0.5 < zero else 0
            end = not math.isnan(behind) and cell == min(room - 1, int(behind)) and not inside
            if end and eighths == 8:
                text.append("|" if self.plain else "▏")
                inks.append(marked)
            elif eighths:
                text.append(("#" if eighths >= 4 else "-") if self.plain else _ACROSS[eighths])
                inks.append(over if inside else ink)
            else:
                text.append("." if inside and self.plain else " ")
                inks.append(canvas.BEHIND if inside else 0)
        return "".join(text), bytes(inks)

    def _up(self, values: list[tuple[ChartLine, float, float]], width: int, height: int) -> list[InkedRow]:
        """One column a block: value above, number below."""
        group = max(2, min(8, width // max(1, len(values))))  # a gap and a bar
        values = values[: width // group]
        turns = 1 if group > 2 else 2  # thin bars: values stand in two rows by turns, and every second number
        told = turns if height >= 2 + 2 * turns else 0
        tall = max(1, height - 1 - told)
        scale = self.scale or Limits(0, 1)
        top = max(scale.high, 1e-12)
        rows: list[InkedRow] = []
        room = turns * group - 1
        for turn in range(told):
            shown = "".join(f" {_short(now, self.unit, room):>{room}}" for _, now, _ in values[turn::turns])
            rows.append(canvas.row(((" " * turn * group + shown)[:width], TEXT), width=width))
        for level in range(tall - 1, -1, -1):
            cells: list[tuple[str, int]] = []
            for line, now, then in values:
                ink, over, marked = self._inks(line)
                eighths = max(0, min(8, round(8 * (now / top * tall - level)))) if math.isfinite(now) else 0
                behind = math.isfinite(then) and then / top * tall > level + 0.5
                end = math.isfinite(then) and level == int(max(0.0, then) / top * tall) and not behind
                if end and eighths == 8:
                    char, chosen = ("-" if self.plain else "▁"), marked
                elif eighths:
                    char = ("#" if eighths >= 4 else "_") if self.plain else _UP[eighths]
                    chosen = over if behind else ink
                else:
                    char, chosen = ("." if behind and self.plain else " "), canvas.BEHIND if behind else 0
                cells += [(" ", 0), (char * (group - 1), chosen)]
            rows.append(canvas.row(*cells, width=width))
        if height >= 3:
            numbers = "".join(f" {line.label:^{room}}" for line, _, _ in values[::turns])
            rows.append(canvas.row((numbers[:width], QUIET), width=width))
        return rows[:height]


_FILLS = "█░▓▒"  # of bars without colour


class Groups(Chart):
    """For each block the bars of several runs beside each other, in the runs' colours; a line's label is its block.

    Blocks that have no room are scrolled to, and said.
    """

    def __init__(self, title: str, unit: Unit = "number", digit: str = "", **kwargs: Any) -> None:
        super().__init__(title, unit, digit, **kwargs)
        self.names: list[tuple[str, int, int]] = []  # of the runs, with their inks and their owners' numbers
        self.first = 0  # blocks scrolled away
        self._fitting = self._blocks = 1

    def _legend(self) -> list[list[tuple[str, int]]]:
        return [[(f"{self._fill(ink)} {name}", ink)] for name, ink, _ in self.names]

    def scroll_blocks(self, pages: int) -> None:
        """Show the blocks that follow, or those before."""
        self.first = max(0, min(self.first + pages * self._fitting, self._blocks - self._fitting))
        self.draw(self._view, self._x, force=True)

    def _fill(self, ink: int) -> str:
        """What a bar is made of: without colour, or without its characters, each run of something else."""
        if self.plain:
            return raster.glyph(ink)
        return _FILLS[(ink - 1) % len(_FILLS)] if self.colourless else "█"

    def _state(self) -> object:
        return super()._state(), list(self.names)

    def _plot(self, width: int, height: int, below: int) -> list[InkedRow]:
        if not any(len(line.series) for line in self.lines) or height < 2:
            return super()._plot(width, height, below)
        self._plot_width = 0
        values = {(int(line.label), line.owner): self.value_of(line) for line in self.lines}
        blocks, runs = sorted({block for block, _ in values}), [(ink, owner) for _, ink, owner in self.names]
        found = self.y = limits(min(0.0, *(v for v in values.values() if math.isfinite(v)), 0.0),
                                max(0.0, *(v for v in values.values() if math.isfinite(v)), 0.0), self.y)  # fmt: skip
        at = ticks(found, max(2, min(5, height // 2)))
        left = max(len(name) for name in labels(at)) + 1
        gutter = {round((1 - found.fraction(v)) * (height - 1)): n for v, n in zip(at, labels(at), strict=True)}
        runs, lost = runs[: max(1, width - left - 1)], max(0, len(runs) - (width - left - 1))
        group = max(len(runs) + 1, min(16, (width - left) // len(blocks)))
        self._fitting, self._blocks = min(len(blocks), max(1, (width - left) // group)), len(blocks)
        self.first = max(0, min(self.first, len(blocks) - self._fitting))
        fitting, bar = blocks[self.first : self.first + self._fitting], max(1, (group - 1) // len(runs))
        self.outside = f"blocks {fitting[0]}-{fitting[-1]} of {blocks[-1]}" if len(fitting) < len(blocks) else ""
        self.outside += f", {lost} runs more" if lost else ""
        rows: list[InkedRow] = []
        for level in range(height - 1, -1, -1):
            pieces = [(gutter.get(height - 1 - level, "").rjust(left - 1) + " ", QUIET)]
            for block in fitting:
                for ink, owner in runs:
                    value = values.get((block, owner), math.nan)
                    tall = found.fraction(value) * height if math.isfinite(value) else 0.0
                    eighths = max(0, min(8, round(8 * (tall - level))))
                    part = (" " if eighths < 4 else self._fill(ink)) if self.plain else _UP[eighths]
                    pieces.append(((self._fill(ink) if eighths == 8 else part) * bar, ink))
                pieces.append((" " * (group - bar * len(runs)), 0))
            rows.append(canvas.row(*pieces, width=width))
        if below:
            numbers = "".join(str(block).center(bar * len(runs)).ljust(group) for block in fitting)
            rows.append(canvas.row((" " * left + numbers, QUIET), width=width))
        return rows


def _short(value: float, unit: Unit, width: int) -> str:
    """A value in ``width`` characters: '.76', '13'."""
    text = shown_number(value, unit)
    if len(text) <= width:
        return text
    for places in (2, 1, 0):
        text = f"{value:.{places}f}"
        text = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
        if len(text) <= width:
            return text
    return text[:width]


def block_lines(curves: Curves, metric: Metric, reference: Curves | None = None) -> list[ChartLine]:
    """A line for each block of a run, those of a reference behind them."""
    behind = []
    if reference is not None:
        numbers = reference.blocks(metric)
        behind = [ChartLine(str(n), reference[metric.of(n)], reference, REFERENCE, True, False) for n in numbers]
    numbers = curves.blocks(metric)
    return [
        *(ChartLine(str(n), curves[metric.of(n)], curves, 1 + (n - 1) % 8, band=False) for n in numbers),
        *behind,
    ]
