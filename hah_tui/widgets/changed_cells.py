"""Updates of a screen that send what has changed only.

Textual 8 sends a changed row from the left edge of its widget on: with charts that is three to four times as many bytes
over a thin line, for the same CPU time. And while a screen opens it sends all of it three times or more. This leans on
names that Textual keeps to itself; where it has none of them any more, its own way is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rich.control import Control

try:
    from textual._compositor import ChopsUpdate, Compositor, CompositorUpdate, LayoutUpdate
except ImportError:  # another Textual
    Compositor = None  # type: ignore[assignment, misc]


def send_changed_cells(screen: Any) -> None:
    """Make a screen's partial updates small."""
    if Compositor is not None and type(getattr(screen, "_compositor", None)) is Compositor:
        screen._compositor = _ChangedCells()


class Picture:
    """What the terminal shows, as far as it is known: what is sent again as it was is left out."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[tuple[int, int], str]] = {}  # sequences by row and the cells that they cover

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
        sequences = []
        spans = _of_layout(update, console) if isinstance(update, LayoutUpdate) else update.spans_of(console)
        for y, x1, x2, text in spans:
            row = self._rows.get(y, {})
            if row.get((x1, x2)) != text:
                kept = {ends: shown for ends, shown in row.items() if ends[1] <= x1 or ends[0] >= x2}
                self._rows[y] = {**kept, (x1, x2): text}
                sequences += [Control.move_to(x1, y).segment.text, text]
        return "".join(sequences)

    def forget(self) -> None:
        """Another size: nobody knows what the terminal makes of it."""
        self._rows.clear()


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

    def _of_layout(update: LayoutUpdate, console: Any) -> Iterator[tuple[int, int, int, str]]:
        for y, line in enumerate(update.strips, update.region.y):
            text = "".join(strip.render(console) for strip in line)
            yield y, update.region.x, update.region.right, text

    class _Less(CompositorUpdate):
        def __init__(self, picture: Picture, update: CompositorUpdate) -> None:
            self._picture, self._update = picture, update

        def render_segments(self, console: Any) -> str:
            return self._picture.written(self._update, console)

    class _Spans(ChopsUpdate):
        """Spans of cells, each sent from its first to its last."""

        def spans_of(self, console: Any) -> Iterator[tuple[int, int, int, str]]:
            """(row, first cell, one after the last, sequences) of each stretch without a gap."""
            for y, x1, x2 in self.spans:
                start = end = x1
                text = ""
                for last, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                    if strip is not None and x < x2 and last > x1:
                        left, right = max(x, x1), min(last, x2)
                        if left != end and text:
                            yield y, start, end, text
                            text = ""
                        start = start if text else left
                        part = strip if (left, right) == (x, last) else strip.crop(left - x, right - x)
                        text, end = text + part.render(console), right
                if text:
                    yield y, start, end, text

        def render_segments(self, console: Any) -> str:
            spans = self.spans_of(console)
            return "".join(Control.move_to(left, y).segment.text + text for y, left, _, text in spans)

    class _ChangedCells(Compositor):
        def render_partial_update(self) -> ChopsUpdate | None:
            update = super().render_partial_update()
            return None if update is None else _Spans(update.chops, update.spans, update.chop_ends)
