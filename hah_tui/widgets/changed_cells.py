"""Updates of a screen that send what has changed only.

Textual 8 sends a changed row from the left edge of its widget on: with charts that is three to four times as many bytes
over a thin line, for the same CPU time. And while a screen opens it sends all of it three times or more. This leans on
names that Textual keeps to itself; where it has none of them any more, its own way is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from rich.control import Control
from textual.strip import Strip

try:
    from textual._compositor import ChopsUpdate, Compositor, CompositorUpdate, LayoutUpdate
except ImportError:  # another Textual
    Compositor = None  # type: ignore[assignment, misc]

Span = tuple[int, int, int, Strip]  # the row, its first cell, the one after its last, and what is in them


def send_changed_cells(screen: Any) -> None:
    """Make a screen's partial updates small."""
    if Compositor is not None and type(getattr(screen, "_compositor", None)) is Compositor:
        screen._compositor = _ChangedCells()


class Picture:
    """What the terminal shows, as far as it is known: what is sent again as it was is left out."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[tuple[int, int], Strip]] = {}  # by row and the cells that they cover

    def without(self, update: Any) -> Any:
        """An update without what is there already when it is written; Textual drops some before."""
        return update if Compositor is None or not isinstance(update, CompositorUpdate) else _Less(self, update)

    def written(self, update: Any, console: Any) -> str:
        """The sequences of an update, after which text has no style."""
        return lean(self._written(update, console))

    def _written(self, update: Any, console: Any) -> str:
        if not isinstance(update, LayoutUpdate | _Spans):
            self._rows.clear()
            return str(update.render_segments(console))
        spans = _of_layout(update) if isinstance(update, LayoutUpdate) else update.spans_of()
        return _placed((span for span in spans if self._is_new(*span)), console)

    def _is_new(self, y: int, x1: int, x2: int, strip: Strip) -> bool:
        """Whether these cells are another picture than they were; they are this one now."""
        row = self._rows.setdefault(y, {})
        if row.get((x1, x2)) == strip:
            return False
        parts = []
        for left, right in sorted(ends for ends in row if ends[1] > x1 and ends[0] < x2):
            known = row.pop((left, right))
            before, part, after = (known.crop(*ends) for ends in ((0, x1 - left), (x1 - left, x2 - left), (x2 - left,)))
            if before.text + part.text + after.text != known.text:
                continue  # a letter of two cells is cut through: what a terminal makes of that nobody knows
            row |= {ends: rest for ends, rest in (((left, x1), before), ((x2, right), after)) if rest.cell_length}
            parts.append(part)
        row[x1, x2], there = strip, Strip.join(parts)
        return there.cell_length < x2 - x1 or there.text != strip.text or _seen(there) != _seen(strip)

    def forget(self) -> None:
        """Another size: nobody knows what the terminal makes of it."""
        self._rows.clear()


_ON_BLANKS = ("reverse", "underline", "underline2", "strike", "overline", "frame", "encircle")  # are seen there, too


def _seen(strip: Strip) -> list[tuple[str, object]]:
    """What is seen of a strip, however it is divided: a blank shows nothing of the colour that a letter would have."""
    found = list[tuple[str, object]]()
    for text, style, _ in strip:
        bare = style is not None and text.isspace() and not any(getattr(style, name) for name in _ON_BLANKS)
        look = style.bgcolor if style is not None and bare else style
        if found and found[-1][1] == look:
            found[-1] = found[-1][0] + text, look
        else:
            found.append((text, look))
    return found


def _placed(spans: Iterable[Span], console: Any) -> str:
    """The sequences of spans, each where it belongs."""
    pieces, at = list[str](), (-1, -1)
    for y, x1, x2, strip in spans:
        if at != (y, x1):
            pieces.append(Control.move_to(x1, y).segment.text)
        pieces.append(strip.render(console))
        at = y, x2
    return "".join(pieces)


_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_MOVES = re.compile(r"(?:\x1b\[\d+;\d+H)*")
_CODES = re.compile(r"[345]8;2;\d+;\d+;\d+|[345]8;5;\d+|\d+")


def lean(sequences: str) -> str:
    """The same picture with fewer bytes: Rich tells every piece of text its whole style and takes that back after it;
    here each says in what it differs from the one before."""
    pieces, now, wanted, end = list[str](), "", "", 0
    for match in _STYLE.finditer(sequences):
        start, codes = match.start(), match[1]
        if start > end:
            text = sequences[end:start]
            if wanted != now and not _MOVES.fullmatch(text):
                pieces.append(_change(now, wanted))
                now = wanted
            pieces.append(text)
        wanted = "" if codes in ("", "0") else f"{wanted};{codes}" if wanted else codes
        end = match.end()
    if now != wanted:
        pieces.append(_change(now, wanted))
    pieces.append(sequences[end:])
    return "".join(pieces)


@lru_cache(maxsize=4096)
def _change(now: str, wanted: str) -> str:
    """The sequence that takes text of one style to another, both as codes (none: no style)."""
    old, new = _parts(now), _parts(wanted)
    if old is None or new is None or not old.keys() <= new.keys():
        return f"\x1b[0;{wanted}m" if wanted else "\x1b[0m"
    differs = ";".join(code for kind, code in new.items() if old.get(kind) != code)
    return f"\x1b[{differs}m" if differs else ""


def _parts(style: str) -> dict[str, str] | None:
    """The codes of a style by what they are of: the text's colour, that behind it, or each of the others. None where
    there are some that take another back."""
    found = {}
    for code in _CODES.findall(style):
        number = int(code.partition(";")[0])
        if number == 38 or 30 <= number <= 37 or 90 <= number <= 97:
            found["text"] = code
        elif number == 48 or 40 <= number <= 47 or 100 <= number <= 107:
            found["behind"] = code
        elif 1 <= number <= 9:
            found[code] = code
        else:
            return None
    return found


if Compositor is not None:

    def _of_layout(update: LayoutUpdate) -> Iterator[Span]:
        for y, line in enumerate(update.strips, update.region.y):
            start = update.region.x
            for strip in line:
                if strip.cell_length:
                    yield y, start, start + strip.cell_length, strip
                start += strip.cell_length

    class _Less(CompositorUpdate):
        def __init__(self, picture: Picture, update: CompositorUpdate) -> None:
            self._picture, self._update = picture, update
            self._sequences: str | None = None

        def render_segments(self, console: Any) -> str:
            if self._sequences is None:
                self._sequences = self._picture.written(self._update, console)
            return self._sequences

    class _Spans(ChopsUpdate):
        """Stretches of cells, of which only what changed is sent."""

        def spans_of(self) -> Iterator[Span]:
            """Each part between two edges of widgets."""
            for y, x1, x2 in self.spans:
                for last, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                    if strip is not None and x < x2 and last > x1:
                        left, right = max(x, x1), min(last, x2)
                        yield y, left, right, strip.crop(left - x, right - x)

        def render_segments(self, console: Any) -> str:
            return _placed(self.spans_of(), console)

    class _ChangedCells(Compositor):
        def render_partial_update(self) -> ChopsUpdate | None:
            update = super().render_partial_update()
            return None if update is None else _Spans(update.chops, update.spans, update.chop_ends)
