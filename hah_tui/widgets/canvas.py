"""Rows of characters with inks, repainted only where they differ from those shown before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from hah_tui import themes
from hah_tui.base import app_of

# Inks. 1 to 8 are curves; a band behind a curve has its number and FAINT more.
LINES, FAINT = 8, 8
TEXT, QUIET, TITLE, FOCUSED, MARK, CURSOR, REFERENCE, STRONG, GOOD, BAD, WAITING, LIVE = range(17, 29)
BAR, BAR_REFERENCE, BAR_MARK, STANDARD, STANDARD_REFERENCE, STANDARD_MARK, BEHIND, HISTORY, GRID = range(29, 38)
INKS = {"quiet": QUIET, "waiting": WAITING, "live": LIVE, "good": GOOD, "bad": BAD}  # by the names of `themes.MARKS`

APART = 8  # cells between two changes in a row that are sent for themselves

InkedRow = tuple[str, bytes]  # one character a cell, and the ink of each


def row(*pieces: tuple[str, int], width: int, right: Sequence[tuple[str, int]] = ()) -> InkedRow:
    """Pieces of (text, ink) as a row of ``width`` cells, those of ``right`` at its end where there is room."""
    text, inks = "".join(t for t, _ in pieces), b"".join(bytes([ink]) * len(t) for t, ink in pieces)
    end, end_inks = "".join(t for t, _ in right), b"".join(bytes([ink]) * len(t) for t, ink in right)
    if len(text) + 1 + len(end) > width:
        end, end_inks = "", b""
    if len(text) > width:
        text, inks = text[: width - 1] + "…" * (width > 0), inks[:width]
    gap = width - len(text) - len(end)
    return text + " " * gap + end, inks + bytes(gap) + end_inks


def narrow(text: str) -> str:
    """``text`` with question marks for characters of two cells or none, which rows cannot hold."""
    return "".join(c if cell_len(c) == 1 else "?" for c in text) if cell_len(text) != len(text) else text


def changes(old: InkedRow, new: InkedRow) -> list[tuple[int, int]]:
    """The cells, as (first, one after the last), in which two rows differ; what is between two of them by less than
    APART stays with them."""
    if old == new:
        return []
    if len(old[0]) != len(new[0]):
        return [(0, max(len(old[0]), len(new[0])))]
    spans: list[tuple[int, int]] = []
    for cell, (a, b, c, d) in enumerate(zip(old[0], new[0], old[1], new[1], strict=True)):
        if a != b or c != d:
            if spans and cell - spans[-1][1] < APART:
                spans[-1] = spans[-1][0], cell + 1
            else:
                spans.append((cell, cell + 1))
    return spans


class Canvas(Widget):
    """Shows rows. ``repainted`` counts the cells that were handed to the terminal again."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows: list[InkedRow] = []
        self.repainted = 0
        self._palette: tuple[object, dict[int, Style]] = (None, {})

    @property
    def plain(self) -> bool:
        """Whether only ASCII is to be shown."""
        return app_of(self).plain

    def show(self, rows: list[InkedRow]) -> None:
        """Show ``rows``; what stays as it was is not painted again."""
        if self.plain:
            rows = [(text.translate(_PLAIN), inks) for text, inks in rows]
        old, self.rows = self.rows, rows
        if len(old) != len(rows):
            self.repainted += sum(len(text) for text, _ in rows)
            self.refresh()
            return
        regions = []
        for y, (before, after) in enumerate(zip(old, rows, strict=True)):
            for first, end in changes(before, after):
                self.repainted += end - first
                regions.append(Region(first, y, end - first, 1))
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        if y >= len(self.rows):
            return Strip.blank(self.size.width, self.rich_style)
        styles = self._styles()
        return Strip([Segment(text, styles[ink]) for text, ink in runs(self.rows[y])], len(self.rows[y][0]))

    def text(self) -> str:
        """What is shown, as plain lines."""
        return "\n".join(text.rstrip() for text, _ in self.rows)

    def _styles(self) -> dict[int, Style]:
        name, base = self.app.theme, self.rich_style
        if self._palette[0] != (name, base):
            found = palette(name, self.app.theme_variables)
            self._palette = (name, base), {0: base, **{ink: base + style for ink, style in found.items()}}
        return self._palette[1]


def runs(row: InkedRow) -> Iterator[tuple[str, int]]:
    """A row as (text, ink) with as few changes as can be: blanks take the ink before them, unless it would show."""
    text, inks = row
    drawn, last = bytearray(inks), 0
    for index, (char, ink) in enumerate(zip(text, inks, strict=True)):
        if char == " " and not ink and last not in _FILLED:
            drawn[index] = last
        last = drawn[index]
    at = 0
    for ink, group in groupby(drawn):
        length = len(list(group))
        yield text[at : at + length], ink
        at += length


_FILLED = {TITLE, FOCUSED, CURSOR, BAR_REFERENCE, BAR_MARK, STANDARD_REFERENCE, STANDARD_MARK, BEHIND}
_PLAIN = str.maketrans("…●━┊┈│·→▲▼└─├↑↓▌", "~*-:.|.>^v`-+^v|")


def palette(theme: str, variables: dict[str, str]) -> dict[int, Style]:
    """The style of every ink in a theme."""

    def color(name: str, default: str = "#888888") -> Color:
        try:
            return Color.parse(variables.get(name, default))
        except ValueError:
            return Color.parse(default)

    def style(front: Color | None, back: Color | None = None, bold: bool = False) -> Style:
        return Style(
            color=front.rich_color if front else None, bgcolor=back.rich_color if back else None, bold=bold or None
        )

    surface, panel = color("surface"), color("panel")
    text, quiet, primary, accent = (
        color("foreground"),
        color("quiet", variables.get("text-muted", "#888888")),
        color("primary"),
        color("accent"),
    )
    lines = [Color.parse(value) for value in themes.SERIES.get(theme, themes.SERIES["hah-dark"])]
    behind = surface.blend(text, 0.22)
    standard = surface.blend(text, 0.5)
    return {
        **{1 + index: style(line) for index, line in enumerate(lines)},
        **{1 + FAINT + index: style(surface.blend(line, 0.45)) for index, line in enumerate(lines)},
        TEXT: style(text),
        QUIET: style(quiet),
        STRONG: style(text, bold=True),
        TITLE: style(text, panel, bold=True),
        FOCUSED: style(color("background"), primary, bold=True),
        MARK: style(accent),
        CURSOR: style(color("background"), accent),
        REFERENCE: style(surface.blend(text, 0.42)),
        GRID: style(surface.blend(text, 0.16)),
        GOOD: style(color("good", variables.get("success", "#00aa00"))),
        BAD: style(color("bad", variables.get("error", "#ee3333")), bold=True),
        WAITING: style(color("waiting", variables.get("warning", "#ccaa00"))),
        LIVE: style(color("live", variables.get("primary", "#5ec8d8"))),
        BAR: style(lines[0]),
        BAR_REFERENCE: style(lines[0], behind),
        BAR_MARK: style(surface, lines[0]),
        HISTORY: style(surface.blend(lines[0], 0.6)),
        STANDARD: style(standard),
        STANDARD_MARK: style(surface, standard),
        STANDARD_REFERENCE: style(standard, behind),
        BEHIND: style(text, behind),
    }


def cut(text: Iterable[str], width: int) -> list[str]:
    """Lines, each cut to ``width`` cells."""
    return [line if len(line) <= width else line[: max(0, width - 1)] + "…" for line in text]
