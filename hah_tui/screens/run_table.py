"""The table of runs: which columns a terminal has room for, and what stands in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.widgets import DataTable

from engine.runs.metrics import CLEAN, NOISY
from hah_tui.attributes import Attribute, kept
from hah_tui.base import BaseApp
from hah_tui.listing import ListedRun, sampled_losses
from hah_tui.text import shown_line
from hah_tui.themes import MARKS, bar, line_of, mark

_QUIET = ("preset", "device", "created")
LOSS_SECONDS = 4.0  # between two looks at the losses of a run

RunCell = tuple[str, str]  # text and style


@dataclass(frozen=True)
class RunColumn:
    """A column of the table, of an attribute; width 0 takes what the others leave. ``mark``: of the order, if it is by
    this one."""

    attribute: Attribute | None
    width: int
    title: str = ""
    mark: str = ""

    @property
    def name(self) -> str:
        return self.attribute.name if self.attribute else self.title

    @property
    def right(self) -> bool:
        """Whether it is set flush right."""
        by = self.attribute
        return by is not None and by.is_number and by.name not in ("bar", "curve")

    @property
    def heading(self) -> Text:
        room = self.width - 1 - len(self.mark)
        title = self.title if len(self.title) <= room else self.title[-room:]  # the end tells paths apart
        return Text(f"{title}{self.mark}".rjust(self.width - 1) + " " if self.right else f"{title}{self.mark}")


# The columns that nobody has chosen: from which width on they are there, their own, and that on a wide terminal.
_USUAL = (
    ("status", 64, 9, 9), ("bar", 64, 12, 19), ("progress", 0, 5, 5), ("eta", 70, 8, 8), (CLEAN, 0, 7, 7),
    (NOISY, 64, 7, 7), ("curve", 78, 9, 17), ("preset", 116, 14, 20), ("device", 100, 8, 8), ("created", 90, 8, 8),
    ("tags", 140, 18, 18),
)  # fmt: skip
USUAL = tuple(name for name, *_ in _USUAL)
WIDE = 150
LEAST = 16  # cells for the name of a run
_WIDTHS = {name: width for name, _, width, _ in _USUAL} | {"note": 24, "seed": 6, "epoch": 6}


def columns(width: int, chosen: Sequence[str], order: Attribute, mark: str) -> list[RunColumn]:
    """The columns that a terminal of so many cells has room for: the usual ones, or of those that somebody has chosen
    the first. The table is sorted by ``order``, whose column gets the ``mark``.
    """
    usual = [(name, wide if width >= WIDE else narrow) for name, least, narrow, wide in _USUAL if width >= least]
    left = width - 1 - 2
    found: list[RunColumn] = []
    for name, cells in [(name, _width(kept(name))) for name in chosen] or usual:
        if left - cells < LEAST:
            break
        found.append(_column(kept(name), cells, order, mark))
        left -= cells
    return [RunColumn(None, 2), _column(kept("name"), left, order, mark), *found]


def _column(by: Attribute, width: int, order: Attribute, mark: str) -> RunColumn:
    return RunColumn(by, width, by.title, mark if by == order else "")


def _width(by: Attribute) -> int:
    """Of a column that somebody has chosen: its values are whole in it, and what can be of its title."""
    least = {"fraction": 7, "words": 14, "setting": 12, "moment": 8, "seconds": 9}.get(by.kind, 11)
    return _WIDTHS.get(by.name, max(least, min(len(by.title) + 3, 24)))


class Losses:
    """A few losses of each run, read again when its record has grown and the last look is a while ago."""

    def __init__(self, folder: Path) -> None:
        self.of: dict[str, list[float]] = {}
        self._folder = folder
        self._looked: dict[str, tuple[float, int]] = {}  # when, and how long the record was

    def look(self, name: str) -> bool:
        """Whether there are new ones of a run."""
        when, size = self._looked.get(name, (-LOSS_SECONDS, 0))
        now = time.monotonic()
        if now - when < LOSS_SECONDS:
            return False
        path = self._folder / name / "events.jsonl"
        try:
            grown = path.stat().st_size
        except OSError:
            grown = 0
        self._looked[name] = (now, grown)
        if grown == size:
            return False
        self.of[name] = sampled_losses(path)
        return True


class RunTable(DataTable[Text]):
    """A table whose rows are slots that a longer list slides through."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", tooltip="open the run: live, or as it was"),
        Binding("j", "cursor_down", "down", show=False),
        Binding("k", "cursor_up", "up", show=False),
        Binding("g", "scroll_top", "first", show=False),
        Binding("G", "scroll_bottom", "last", show=False),
    ]

    class Opened(Message):
        """The run under the cursor is to be opened."""

    class Jumped(Message):
        """The cursor is to go to the first run of the list, or the last."""

        def __init__(self, last: bool) -> None:
            super().__init__()
            self.last = last

    class Scrolled(Message):
        """Other slots are on the screen."""

    class Pushed(Message):
        """The wheel turns on at an end of the slots."""

        def __init__(self, down: bool) -> None:
            super().__init__()
            self.down = down

    def action_select_cursor(self) -> None:
        self.post_message(self.Opened())

    def action_scroll_top(self) -> None:
        self.post_message(self.Jumped(last=False))

    def action_scroll_bottom(self) -> None:
        self.post_message(self.Jumped(last=True))

    action_scroll_home = action_scroll_top
    action_scroll_end = action_scroll_bottom

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if self.is_mounted and new != old:
            self.post_message(self.Scrolled())

    def at_end(self, down: bool) -> bool:
        """Whether there are no more slots that way."""
        return self.scroll_y >= self.max_scroll_y if down else self.scroll_y <= 0

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._push(event, True)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._push(event, False)

    def _push(self, event: MouseScrollDown | MouseScrollUp, down: bool) -> None:
        if self.at_end(down):  # whoever slides the list scrolls it after that
            event.prevent_default().stop()
            self.post_message(self.Pushed(down))


def cells(
    row: ListedRun, columns: Sequence[RunColumn], losses: list[float], picked: bool, pinned: bool, app: BaseApp
) -> list[RunCell]:
    """What stands in the columns of a run."""
    look, plain, colour = row.look, app.plain, app.colour
    hue, quiet = colour(MARKS.get(look.status, ("", "", "quiet"))[2]), colour("quiet")
    done = look.state.progress
    pin = (" ^" if plain else " ◈") if pinned else ""

    def cell(column: RunColumn) -> RunCell:
        width, by = column.width, column.attribute
        if by is None:
            return (">" if plain else "▌") if picked else mark(look.status, plain), hue
        match by.name:
            case "name":
                return cut_inside(row.id, width - len(pin), plain) + pin, "bold" if picked else ""
            case "status":
                return cut(look.status + ("" if look.verified else "?"), width, plain), hue
            case "bar":
                return bar(done, width - 1, plain), hue if look.live else quiet
            case "progress":
                return f"{100 * done:3.0f}% ", ""
            case "curve":
                return line_of(losses, width - 1, plain), colour("live")
        value = by.of(row)
        said = "" if value is None and by.name == "eta" else by.said(value)
        style = {"tags": colour("accent"), "note": colour("accent")}.get(by.name, quiet if by.name in _QUIET else "")
        return (said.rjust(width - 1) + " " if column.right else cut(said, width, plain)), style

    return list(map(cell, columns))


def text(cell: RunCell) -> Text:
    """A cell as the table takes it."""
    return Text(cell[0], cell[1], no_wrap=True)


def cut(said: str, width: int, plain: bool) -> str:
    """Text on a line of its column, a gap kept after it."""
    clean = shown_line(said, 120)
    return clean if len(clean) < width else clean[: width - 2] + ("~" if plain else "…")


def cut_inside(said: str, width: int, plain: bool) -> str:
    """The same, cut in its middle: the ends of long names tell them apart."""
    clean, end = shown_line(said, 120), 5
    if len(clean) < width:
        return clean
    begin = max(1, width - 2 - end)
    return clean[:begin] + ("~" if plain else "…") + clean[-end:]
