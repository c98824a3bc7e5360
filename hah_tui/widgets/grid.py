"""A table of which only what is in view is drawn: a thousand rows cost what a screenful does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import BEHIND, CURSOR, QUIET, Canvas, InkedRow

Cell = tuple[str, int]  # text and ink
WHEEL = 3  # rows that a turn of the wheel moves


@dataclass(frozen=True)
class GridColumn:
    """``width`` in cells, without the one between it and the next."""

    title: str
    width: int
    right: bool = False

    def fit(self, text: str) -> str:
        """A text in as many cells as the column has."""
        if len(text) > self.width:
            text = text[: self.width - 1] + "…"
        return text.rjust(self.width) if self.right else text.ljust(self.width)


class Grid(Canvas, can_focus=True):
    """Rows under headings, a cursor on one cell; the first column stands still while the others scroll sideways."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys, f"move({way!r})", show=False)
        for way, keys in (
            ("up", "up,k"), ("down", "down,j"), ("left", "left,h"), ("right", "right,l"), ("earlier", "pageup"),
            ("later", "pagedown"), ("first", "home"), ("last", "end"), ("top", "ctrl+home"), ("bottom", "ctrl+end"),
        )
    ]  # fmt: skip

    class Moved(Message):
        """The cursor is on another cell."""

    class Opened(Message):
        """Somebody clicked twice on the cell under the cursor."""

    class Titled(Message):
        """Somebody clicked on the heading of a column."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns: Sequence[GridColumn] = ()
        self.count = 0
        self.row = self.column = 0  # under the cursor
        self._cell: Callable[[int, int], Cell] = lambda row, column: ("", 0)
        self._top, self._left = 0, 1  # the first row and the first scrolling column in view

    def fill(self, columns: Sequence[GridColumn], count: int, cell: Callable[[int, int], Cell]) -> None:
        """Show ``count`` rows, each of a cell for every column."""
        self.columns, self.count, self._cell = columns, count, cell
        self.put(self.row, self.column)

    def put(self, row: int, column: int) -> None:
        """Put the cursor on a cell, or the nearest there is, and draw what has changed."""
        self.row, self.column = max(0, min(row, self.count - 1)), max(0, min(column, len(self.columns) - 1))
        height, width = self.size.height, self.size.width
        blank = canvas.row(width=width)
        self.rows = [*self.rows, *[blank] * height][:height]  # as Textual paints it in a new size
        if height < 2 or not width or not self.columns:
            self.show([blank] * height)
            return
        self._top = max(min(self._top, self.row, self.count - (height - 1)), self.row - (height - 2), 0)
        self._left = max(1, min(self._left, self.column or self._left))
        while self.column > self._last(self._left) and self._left < self.column:
            self._left += 1
        while self._left > 1 and self._last(self._left - 1) == len(self.columns) - 1:
            self._left -= 1  # there is room for one more
        rows = [self._head(), *map(self._line, range(self._top, min(self._top + height - 1, self.count)))]
        self.show([*rows, *[blank] * (height - len(rows))])  # always as many: what changes is sent alone

    def _last(self, left: int) -> int:
        """The last column in view where ``left`` is the first that scrolls: itself at least."""
        room = self.size.width - self.columns[0].width
        for place in range(left, len(self.columns)):
            room -= 1 + self.columns[place].width
            if room < 0:
                return max(left, place - 1)
        return len(self.columns) - 1

    def _shown(self) -> list[int]:
        return [0, *range(self._left, self._last(self._left) + 1)]

    def _head(self) -> InkedRow:
        """The headings, with < and > where there are more."""
        shown = self._shown()
        pieces = [(self.columns[place].fit(self.columns[place].title) + " ", QUIET) for place in shown]
        text, inks = canvas.row(*pieces, width=self.size.width)
        edge = self.columns[0].width
        if self._left > 1:
            text = text[:edge] + "<" + text[edge + 1 :]
        if shown[-1] < len(self.columns) - 1:
            text = text[:-1] + ">"
        return text, bytes([QUIET]) * len(inks)

    def _line(self, row: int) -> InkedRow:
        pieces: list[tuple[str, int]] = []
        for place in self._shown():
            text, ink = self._cell(row, place)
            text = self.columns[place].fit(text)
            if row == self.row and place in (0, self.column):
                pieces.append((text, CURSOR if place == self.column else BEHIND))
            else:  # blanks have no ink of their own, which would be sent
                before, after = len(text) - len(text.lstrip()), len(text.rstrip())
                pieces += [(text[:before], 0), (text[before:after], ink), (text[max(before, after) :], 0)]
            pieces.append((" ", 0))
        return canvas.row(*pieces[:-1], width=self.size.width)

    def action_move(self, way: str) -> None:
        """Move the cursor."""
        page = max(1, self.size.height - 2)
        rows = {"up": -1, "down": 1, "earlier": -page, "later": page, "top": -self.count, "bottom": self.count}
        columns = {"left": -1, "right": 1, "first": -len(self.columns), "last": len(self.columns)}
        self.put(self.row + rows.get(way, 0), self.column + columns.get(way, 0))
        self.post_message(self.Moved())

    def on_resize(self) -> None:
        self.put(self.row, self.column)

    def on_mouse_scroll_down(self) -> None:
        self._turn(WHEEL)

    def on_mouse_scroll_up(self) -> None:
        self._turn(-WHEEL)

    def _turn(self, rows: int) -> None:
        """Turn the wheel: the cursor goes along."""
        self.put(self.row + rows, self.column)
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        start = 0
        for place in self._shown() if self.columns else []:
            end = start + self.columns[place].width + 1
            if start <= event.x < end and event.y == 0:
                self.post_message(self.Titled(place))
            elif start <= event.x < end and self._top + event.y - 1 < self.count:
                self.put(self._top + event.y - 1, place)
                self.post_message(self.Opened() if event.chain == 2 else self.Moved())
            start = end
