"""A table with a column for each run, as wide as it is long: the first column stays while the others scroll."""

from __future__ import annotations

from typing import Any

from hah_tui.widgets.canvas import MARK, QUIET
from hah_tui.widgets.feed import Lines

_NAME = 10  # cells of a column's name beyond what its numbers need


class SideBySide(Lines):
    """The first column names what is in the row. What has no room is scrolled to, and said; a number is never cut.

    The names of the others stand in two rows where they are long.
    """

    at_end = False

    def __init__(self, title: str, digit: str = "", **kwargs: Any) -> None:
        super().__init__(title, digit, **kwargs)
        self.header: list[tuple[str, int]] = []
        self.cells: list[list[tuple[str, int]]] = []
        self.empty = ""
        self.side = 0  # columns scrolled away
        self._fitting = 0

    def fill(self, header: list[tuple[str, int]], cells: list[list[tuple[str, int]]], empty: str = "") -> None:
        """Show these rows; texts of (text, ink)."""
        self.header, self.cells, self.empty = header, cells, empty
        self.fresh()

    def scroll_columns(self, by: int) -> None:
        """Scroll to the right by so many columns, to the left where negative."""
        columns = len(self.header) - 1
        self.side = max(0, min(self.side + by, columns - max(1, self._fitting)))
        self.fresh()

    def show_column(self, place: int) -> None:
        """Scroll so that a column is to be seen."""
        if not self.side <= place < self.side + self._fitting:
            self.scroll_columns(place - self.side if place < self.side else place - self.side - self._fitting + 1)

    def listed(self, width: int, most: int) -> list[list[tuple[str, int]]]:
        if not self.cells:
            return [[(f" {self.empty}", QUIET)]]
        columns = len(self.header) - 1
        wide = [
            max(max(len(row[n][0]) for row in self.cells), min(len(self.header[n][0]), _NAME), 3)
            for n in range(1, columns + 1)
        ]
        names = max(len(row[0][0]) for row in self.cells)
        first = max(6, min(names, width - 4 - max(wide)))  # beside the widest of the others
        self.side = min(self.side, columns - 1)
        shown: list[int] = []
        room = width - 1 - first
        for n in range(self.side, columns):
            room -= wide[n] + 2
            if room < 0 and shown:
                break
            shown.append(n)
        self._fitting = len(shown)
        which = f"{shown[0] + 1}-{shown[-1] + 1}" if len(shown) > 1 else str(shown[0] + 1)
        said = f"{which} of {columns} < >" if len(shown) < columns else ""
        above, below = [self.header[0]], [("", QUIET)]
        for (text, ink), room in zip(self.header[1:], wide, strict=True):
            first_line, second_line = in_two(text, room)
            above.append((first_line, ink))
            below.append((second_line, ink))
        table = [above, *([below] if any(text for text, _ in below) else []), *self.cells]
        lines = []
        for place, row in enumerate(table):
            head = (said, MARK) if place == 0 and said else row[0]
            lines.append(
                [(f" {cut(head[0], first):<{first}}", head[1])]
                + [(f"  {cut(row[n + 1][0], wide[n]):>{wide[n]}}", row[n + 1][1]) for n in shown]
            )
        return lines


def in_two(text: str, width: int) -> tuple[str, str]:
    """A name in two rows of so many cells, parted between words where it can be."""
    if len(text) <= width:
        return text, ""
    at = text.rfind(" ", 0, width + 1)
    return (text[:at], text[at + 1 :]) if at > 0 else (text[:width], text[width:])


def cut(text: str, width: int) -> str:
    """A name in so many cells."""
    return text if len(text) <= width else text[: width - 1] + "…"
