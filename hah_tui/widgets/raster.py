"""A picture of lines and bands in characters: braille dots, 2 x 4 in a cell, or plain ASCII, one glyph a cell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import cycle

_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row] of U+2800
_MASKS: tuple[tuple[tuple[int, ...], ...], ...] = tuple(  # [column][first row][last row]: the dots between
    tuple(tuple(sum(bits[first : last + 1]) for last in range(4)) for first in range(4)) for bits in _BITS
)
_LOOSE: tuple[tuple[tuple[int, ...], ...], ...] = tuple(  # the same of a checkerboard
    tuple(tuple(mask & (0x05, 0x90)[column] for mask in line) for line in lines) for column, lines in enumerate(_MASKS)
)
_WHOLE: tuple[tuple[int, ...], ...] = ((1,) * 4,) * 4  # of a cell of ASCII
_BRAILLE = " " + "".join(chr(0x2800 + dots) for dots in range(1, 256))
GLYPHS = "*+ox#%@&"  # of ASCII lines, by ink
BEHIND = "."  # of an ASCII line with another ink, one behind the others
# Where there is no colour, lines differ by what of them is drawn: dots on, dots off, and so on, and how legends say so.
DASHES: tuple[tuple[tuple[int, ...], str], ...] = (((), "━"), ((6, 4), "╍"), ((2, 3), "┈"), ((9, 3, 2, 3), "╸"))
SPARSE: tuple[tuple[int, ...], str] = ((1, 3), "·")  # of a line behind the others


def glyph(ink: int) -> str:
    """Of an ASCII line."""
    return GLYPHS[ink - 1] if ink <= len(GLYPHS) else BEHIND


def style(ink: int) -> tuple[tuple[int, ...], str]:
    """The dash of a line without colour, and its sign in a legend."""
    return DASHES[(ink - 1) % len(DASHES)] if ink <= len(GLYPHS) else SPARSE


def sign(ink: int, dash: int = 0, plain: bool = False, colourless: bool = False) -> str:
    """What a line with an ink and one of the DASHES looks like, in a legend."""
    if plain:
        return glyph(ink)
    return style(ink)[1] if colourless and not dash else DASHES[dash][1]


class Raster:
    """``width`` x ``height`` cells. Every cell shows one ink, a number from 1: that of the line drawn over it last;
    bands lie behind lines and give way to them cell by cell.

    Positions are in dots from the top left; ``columns`` x ``rows`` of them.
    """

    def __init__(self, width: int, height: int, ascii: bool = False) -> None:
        self.width, self.height, self.ascii = width, height, ascii
        self.columns, self.rows = (width, height) if ascii else (2 * width, 4 * height)
        cells = width * height
        self._dots = bytearray(cells), bytearray(cells)  # those of left columns and of right ones
        self._back = bytearray(cells), bytearray(cells)
        self._inks, self._back_inks = bytearray(cells), bytearray(cells)
        self._drawn: list[bool] = []  # of a dash, by column

    def line(self, points: Iterable[tuple[float, float]], ink: int, dash: tuple[int, ...] = ()) -> None:
        """Connect points (x, y) in dots, x not falling; a NaN in y is a gap, and a point between two gaps a dot.

        ``dash``: so many columns are drawn, so many left out, and so on.
        """
        self._drawn = [on for on, count in zip(cycle((True, False)), dash, strict=False) for _ in range(count)]
        self._line(points, ink)
        self._drawn = []

    def _line(self, points: Iterable[tuple[float, float]], ink: int) -> None:
        at, last, top, bottom = -1, 0.0, math.nan, math.nan  # the column, its last y, and how far it is filled
        for x, y in points:
            if y != y:  # NaN
                self._fill(at, top, bottom, ink)
                top = math.nan
                continue
            column = round(x)
            if top != top:
                top = bottom = y
            elif column <= at:
                column, top, bottom = at, y if y < top else top, y if y > bottom else bottom
            else:
                self._fill(at, top, bottom, ink)
                if column - at > 1 or abs(y - last) > 1:
                    self._connect((at, last), (column, y), ink)
                top = bottom = y
            at, last = column, y
        self._fill(at, top, bottom, ink)

    def band(self, columns: Iterable[tuple[float, float, float]], ink: int) -> None:
        """Fill between (x, top, bottom) in dots, x rising, loosely: every other dot, to stay behind the lines."""
        at: int | None = None  # the column that is gathered, and how far it reaches
        above = below = math.nan
        for x, top, bottom in columns:
            if top != top or bottom != bottom:  # NaN
                if at is not None:
                    self._fill(at, above, below, ink, behind=True)
                at = None
                continue
            column = round(x)
            if column == at:
                above, below = top if top < above else above, bottom if bottom > below else below
                continue
            if at is not None:
                self._fill(at, above, below, ink, behind=True)
                wide = column - at
                for step in range(max(1, -at), min(wide, self.columns - at)):
                    share = step / wide
                    y0, y1 = above + share * (top - above), below + share * (bottom - below)
                    self._fill(at + step, y0, y1, ink, behind=True)
            at, above, below = column, top, bottom
        if at is not None:
            self._fill(at, above, below, ink, behind=True)

    def cells(self, row: int) -> tuple[str, bytes]:
        """The characters of a row and the ink of each; 0 under blanks."""
        start, end = row * self.width, (row + 1) * self.width
        text, inks = [], bytearray(self._inks[start:end])
        (left, right), (back_left, back_right) = self._dots, self._back
        for index in range(start, end):
            dots = left[index] | right[index]
            if not dots:
                dots = back_left[index] | back_right[index]
                inks[index - start] = self._back_inks[index] if dots else 0
                text.append((":" if dots else " ") if self.ascii else _BRAILLE[dots])
            else:
                text.append(glyph(self._inks[index]) if self.ascii else _BRAILLE[dots])
        return "".join(text), bytes(inks)

    def _connect(self, a: tuple[int, float], b: tuple[int, float], ink: int) -> None:
        slope = (b[1] - a[1]) / (b[0] - a[0])
        start = max(a[0], -1)
        y = a[1] if start == a[0] else a[1] + slope * (start - 0.5 - a[0])
        for column in range(start, min(b[0], self.columns) + 1):
            after = a[1] + slope * (column + 0.5 - a[0]) if column < b[0] else b[1]
            self._fill(column, y, after, ink)
            y = after

    def _fill(self, column: int, y0: float, y1: float, ink: int, behind: bool = False) -> None:
        """Dots of a column from y0 to y1, both included, cut at the edges; ``behind``: every other one, of a band."""
        if not 0 <= column < self.columns or y0 != y0:
            return
        if self._drawn and not self._drawn[column % len(self._drawn)]:
            return
        top, bottom = (round(y0), round(y1)) if y0 <= y1 else (round(y1), round(y0))
        if bottom < 0 or top >= self.rows:
            return
        top, bottom = top if top > 0 else 0, bottom if bottom < self.rows else self.rows - 1
        planes, inks = (self._back, self._back_inks) if behind else (self._dots, self._inks)
        width = self.width
        if self.ascii:
            masks, cell, dots, first, last = _WHOLE, column, planes[0], top, bottom
        else:
            masks, cell, dots = (_LOOSE if behind else _MASKS)[column & 1], column >> 1, planes[column & 1]
            first, last = top >> 2, bottom >> 2
        start, end = first * width + cell, last * width + cell
        if first == last:
            mask = masks[top & 3][bottom & 3]
            if mask:
                dots[start] |= mask
                inks[start] = ink
            return
        for index, mask in ((start, masks[top & 3][3]), (end, masks[0][bottom & 3])):
            if mask:
                dots[index] |= mask
                inks[index] = ink
        between = last - first - 1
        if between:  # whole cells, at once
            dots[start + width : end : width] = bytes([masks[0][3]]) * between
            inks[start + width : end : width] = bytes([ink]) * between
