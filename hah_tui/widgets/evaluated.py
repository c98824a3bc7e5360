"""What was measured of a run in panels: curves, accuracy under each corruption, the checks for masked gradients."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.message import Message

from engine.report.figures import Point, Series
from engine.report.one_run import RunResults
from engine.results.corruptions import SEVERITIES
from engine.results.groups import Group
from engine.results.numbers import Masking
from hah_tui.text import shown_line
from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import BAD, GOOD, QUIET, REFERENCE, STRONG, TEXT, WAITING, Canvas, InkedRow
from hah_tui.widgets.plot import FRONT, Plot, sign

LEAST = (38, 7)  # cells a panel needs
VERDICTS = {"clear": GOOD, "suspect": BAD}  # every other one is a warning


@dataclass(frozen=True)
class Corrupted:
    """The accuracy in % under each corruption and severity, and how far it lies above what is behind in the mean over
    the severities that both have."""

    each: tuple[tuple[str, tuple[Series, ...]], ...]
    front: str
    title: str = "Accuracy under each corruption, %"
    key: str = "corruptions"

    @property
    def series(self) -> tuple[Series, ...]:
        """All points of each."""
        found: dict[str, tuple[Point, ...]] = {}
        for _, series in self.each:
            for one in series:
                found[one.title] = found.get(one.title, ()) + one.points
        return tuple(Series(title, points) for title, points in found.items())

    @property
    def unsure(self) -> float:
        """How far an interval of the run in front reaches at most; 0 of none."""
        front = (point.y for one in self.series if one.title == self.front for point in one.points)
        return max((max(one.mean - one.interval[0], one.interval[1] - one.mean) for one in front if one.interval),
                   default=0.0)  # fmt: skip

    def lines(self, width: int) -> list[list[tuple[str, int]]]:
        """Rows of (text, ink), the first a heading; what has no room is left away, the difference last."""
        behind = any(len(series) > 1 for _, series in self.each)
        cell, form = (5, "{:.1f}") if width >= 18 + 5 * 5 else (4, "{:.0f}")
        spare = width - 18 - 5 * cell
        differs = behind and spare >= 7
        meant = spare >= 7 * (1 + differs)
        head = " severity".ljust(18) + "".join(f"{severity:>{cell}}" for severity in SEVERITIES)
        rows = [[(head + f"{'mean':>7}" * meant + f"{'diff.':>7}" * differs, QUIET)]]
        for name, series in self.each:
            values = {one.title == self.front: {point.x: point.y.mean for point in one.points} for one in series}
            ours, theirs = values.get(True, {}), values.get(False, {})
            row = [(f" {name}".ljust(18), TEXT)]
            row += [(f"{form.format(ours[at]) if at in ours else '-':>{cell}}", TEXT) for at in SEVERITIES]
            row.append((f"{sum(ours.values()) / len(ours):7.1f}" if ours and meant else " " * 7 * meant, STRONG))
            both = ours.keys() & theirs.keys()
            if differs and both:
                moved = sum(ours[at] - theirs[at] for at in both) / len(both)
                row.append((f"{moved:+7.1f}", GOOD if moved >= 0 else WAITING))
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Verdicts:
    """The checks for masked gradients of one norm, in full words."""

    masking: Masking
    behind: Group | None

    @property
    def title(self) -> str:
        return f"Masking, {self.masking.title}"

    @property
    def key(self) -> str:
        return f"masking-{self.masking.norm}"

    def lines(self, width: int) -> list[list[tuple[str, int]]]:
        """Rows of (text, ink), no word of a sentence left away."""

        def wrapped(text: str, indent: str) -> list[list[tuple[str, int]]]:
            clean = _cells(shown_line(text, 2000))
            lines = textwrap.wrap(clean, width - 1, initial_indent=indent, subsequent_indent=indent)
            return [[(line, TEXT)] for line in lines]

        rows = [_verdict("all checks", self.masking.verdict)]
        rows += wrapped("; ".join(self.masking.labels), "   ")
        for check in self.masking.checks:
            rows += [_verdict(check.name, check.verdict), *wrapped(check.words, "   ")]
        for run in self.behind.runs if self.behind else ():
            theirs = run.maskings.get(self.masking.norm)
            rows += wrapped(f"behind, {run.run.id}: {theirs.verdict if theirs else 'not checked'}", " ")
        return rows


def _verdict(name: str, verdict: str) -> list[tuple[str, int]]:
    return [(f" {_cells(shown_line(name, 60))}: ", STRONG), (shown_line(verdict, 60), VERDICTS.get(verdict, WAITING))]


def _cells(text: str) -> str:
    """Text from a disk, one character a cell."""
    return text if cell_len(text) == len(text) else "".join(char if cell_len(char) == 1 else "?" for char in text)


Panel = Plot | Corrupted | Verdicts


def panels_of(found: RunResults) -> list[Panel]:
    """The panels that there are numbers for, in the order of the table."""
    if found.known is None:
        return []
    front = found.known.run.id
    made: list[Panel] = [Plot(figure, front) for figure in found.figures]
    after = next((n + 1 for n, figure in enumerate(found.figures) if figure.key == "severity"), len(made))
    made[after:after] = [Corrupted(found.corruptions, front)] * bool(found.corruptions)
    return made + [Verdicts(masking, found.behind) for masking in found.known.maskings.values()]


class Evaluated(Canvas, can_focus=True):
    """Panels under one legend, as many beside each other as have room, a page of them at a time; one is current."""

    class Moved(Message):
        """Another panel is current, or the cursor is elsewhere."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.panels: Sequence[Panel] = ()
        self.names: tuple[str, str] = ("", "")  # in front, behind
        self.current = 0
        self.full = False
        self.cursor: int | None = None  # of the current plot's places
        self.first = 0  # line shown of the current panel, if it is of lines
        self._shape = (1, 1)  # columns and rows of panels
        self._top = 1

    def take(self, found: RunResults) -> None:
        """Show other results; the current panel stays it, if it is still there."""
        before = self.panel
        self.panels = panels_of(found)
        keys = [key_of(panel) for panel in self.panels]
        at = keys.index(key_of(before)) if before is not None and key_of(before) in keys else 0
        if at != self.current or before is None:
            self.go(at)
        if self.cursor is not None and isinstance(self.panel, Plot):
            self.cursor = min(self.cursor, len(self.panel.places) - 1)
        self.names = ("this run", _cells(shown_line(found.behind.name, 120)) if found.behind else "")
        self.draw()

    @property
    def panel(self) -> Panel | None:
        return self.panels[self.current] if self.current < len(self.panels) else None

    def find(self, *keys: str) -> None:
        """Make a panel the current one: that of the first of these keys (or titles) that there is."""
        for key in keys:
            for place, panel in enumerate(self.panels):
                if key in (key_of(panel), panel.title):
                    self.go(place)
                    return

    def go(self, to: int) -> None:
        """Make a panel the current one."""
        self.current = to % len(self.panels) if self.panels else 0
        self.cursor, self.first = None, 0
        self.draw()
        self.post_message(self.Moved())

    def point(self, by: int) -> None:
        """Move the cursor over the places where something was measured."""
        if isinstance(self.panel, Plot):
            last = len(self.panel.places) - 1
            self.cursor = (0 if by > 0 else last) if self.cursor is None else min(max(self.cursor + by, 0), last)
            self.draw()
            self.post_message(self.Moved())

    def unpoint(self) -> None:
        """No cursor."""
        self.cursor = None
        self.draw()
        self.post_message(self.Moved())

    def scroll_lines(self, by: int) -> None:
        """Move a panel of lines on or back."""
        self.first += by
        self.draw()

    def toggle(self) -> None:
        """The current panel alone, or all again."""
        self.full = not self.full and self._shape != (1, 1)
        self.draw()

    # Drawing

    def on_resize(self, event: Resize) -> None:
        self.draw()

    def draw(self) -> None:
        """Draw the page that the current panel is on; panels of its last row share the width."""
        width, height = self.size.width, self.size.height
        if not width or not height:
            return
        rows = self._legend(width)[: max(0, height - 4)]
        self._top = len(rows)
        room, count = height - len(rows), len(self.panels)
        if not self.panels:
            empty = "no curves yet: nothing is measured at several places"
            self.show([canvas.row(width=width), canvas.row((empty.center(width), QUIET), width=width)])
            return
        columns, down = self._shape = (1, 1) if self.full else _arranged(width, room, count)
        shown = self._page
        down = -(-len(shown) // columns)
        for line in range(down):
            places = shown[line * columns : (line + 1) * columns]
            tall = (room + (down - 1 - line)) // down
            wide = [(width + 1 + column) // len(places) - 1 for column in range(len(places))]
            pictures = [self._picture(place, cells, tall) for place, cells in zip(places, wide, strict=True)]
            rows += [_joined(parts) for parts in zip(*pictures, strict=True)]
        self.show(rows[:height])

    def _legend(self, width: int) -> list[InkedRow]:
        """Which marks are whose, in as many rows as it takes."""
        front, behind = self.names
        entries = [(f" {sign(True, self.plain)} {front}", FRONT)]
        entries += [(f" {sign(False, self.plain)} {behind}", REFERENCE)] if behind else []
        if sum(len(text) + 1 for text, _ in entries) <= width:
            return [canvas.row(*[piece for entry in entries for piece in (entry, (" ", 0))], width=width)]
        return [
            canvas.row((line, ink), width=width)
            for text, ink in entries
            for line in textwrap.wrap(text, width - 1, initial_indent=" ", subsequent_indent="   ")
        ]

    def _picture(self, place: int, width: int, height: int) -> list[InkedRow]:
        panel, chosen = self.panels[place], place == self.current
        body: list[InkedRow] = []
        said = ""
        if height < 2:
            pass
        elif isinstance(panel, Plot):
            cursor = panel.places[self.cursor] if chosen and self.cursor is not None else None
            body = panel.rows(width, height - 1, self.plain, bool(self.app.no_color), cursor)
        else:
            lines, room = panel.lines(width), max(1, height - 1)
            head = 1 if isinstance(panel, Corrupted) else 0
            last = max(0, len(lines) - room)
            first = min(max(self.first, 0), last) if chosen else 0
            self.first = first if chosen else self.first
            if last:
                said = f"{first + 1} to {first + room - head} of {len(lines) - head} "
            body = [canvas.row(*line, width=width) for line in [*lines[:head], *lines[head + first :][: room - head]]]
            body += [canvas.row(width=width)] * (room - len(body))
        count = f"{place + 1}/{len(self.panels)} " if len(self._page) < len(self.panels) else ""
        ink = canvas.FOCUSED if chosen else canvas.TITLE
        title = f" {panel.title} "
        spare = width - len(title) - 1
        right = next((text for text in (said + count, said, count) if len(text) <= spare), "")
        return [canvas.row((title, ink), width=width, right=[(right, QUIET)]), *body][:height]

    @property
    def _page(self) -> range:
        """The panels that are shown with the current one."""
        room = self._shape[0] * self._shape[1]
        first = self.current // room * room
        return range(first, min(first + room, len(self.panels)))

    # Mouse

    def on_click(self, event: Click) -> None:
        place = self._under(event.x, event.y)
        if place is None:
            return
        if place == self.current:
            self.toggle()
        else:
            self.go(place)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(-3)

    def _under(self, x: int, y: int) -> int | None:
        """The panel at a cell."""
        shown, columns = self._page, self._shape[0]
        if y < self._top or not self.panels:
            return None
        down = -(-len(shown) // columns)
        line = min((y - self._top) * down // max(1, self.size.height - self._top), down - 1)
        places = shown[line * columns : (line + 1) * columns]
        return places[min(x * len(places) // max(1, self.size.width), len(places) - 1)]


def key_of(panel: Panel) -> str:
    """What a panel is known by."""
    return panel.figure.key if isinstance(panel, Plot) else panel.key


def _arranged(width: int, height: int, count: int) -> tuple[int, int]:
    """Columns and rows of panels: as few rows as hold them all, else as many as have room."""
    columns = min(3, count, max(1, (width + 1) // (LEAST[0] + 1)))
    return columns, min(-(-count // columns), max(1, height // LEAST[1]))


def _joined(parts: Sequence[InkedRow]) -> InkedRow:
    """Rows beside each other, a cell between."""
    return " ".join(text for text, _ in parts), b"\0".join(inks for _, inks in parts)
