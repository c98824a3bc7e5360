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
from hah_tui.base import BaseApp
from hah_tui.listing import ListedRun, sampled_losses
from hah_tui.text import age, duration, percent, shown_line
from hah_tui.themes import MARKS, bar, line_of, mark

LOSS_SECONDS = 4.0  # between two looks at the losses of a run

RunCell = tuple[str, str]  # text and style


@dataclass(frozen=True)
class RunColumn:
    """A column of the table; width 0 takes what the others leave."""

    name: str
    title: str
    width: int
    right: bool = False
    order: str = ""  # the store's, by a click on the title

    @property
    def heading(self) -> Text:
        title = self.title.rjust(self.width - 1) + " " if self.right else self.title
        return Text(title)


def columns(width: int) -> list[RunColumn]:
    """The columns that a terminal of so many cells has room for."""
    wide = width >= 150
    every = [
        (0, RunColumn("mark", "", 2)),
        (0, RunColumn("id", "run", 0, order="name")),
        (64, RunColumn("status", "status", 9, order="status")),
        (64, RunColumn("progress", "progress", 19 if wide else 12)),
        (0, RunColumn("percent", "", 5, True)),
        (70, RunColumn("eta", "ETA", 8, True)),
        (0, RunColumn("clean", "clean", 7, True, "accuracy")),
        (64, RunColumn("noisy", "noisy", 7, True, "noisy")),
        (78, RunColumn("loss", "loss", 17 if wide else 9)),
        (116, RunColumn("preset", "preset", 20 if wide else 14)),
        (100, RunColumn("device", "device", 8)),
        (90, RunColumn("age", "age", 8, True, "created")),
        (140, RunColumn("tags", "tags", 18)),
    ]
    chosen = [column for least, column in every if width >= least]
    left = width - 1 - sum(column.width for column in chosen)
    return [RunColumn(c.name, c.title, left, c.right, c.order) if c.width == 0 else c for c in chosen]


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
    state, look, plain, colour = row.look.state, row.look, app.plain, app.colour
    hue, quiet = colour(MARKS.get(look.status, ("", "", "quiet"))[2]), colour("quiet")
    done = state.progress
    pin = (" ^" if plain else " ◈") if pinned else ""

    def cell(column: RunColumn) -> RunCell:
        width = column.width
        match column.name:
            case "mark":
                return (">" if plain else "▌") if picked else mark(look.status, plain), hue
            case "id":
                return cut(row.id + pin, width, plain), "bold" if picked else ""
            case "status":
                return cut(look.status + ("" if look.verified else "?"), width, plain), hue
            case "progress":
                return bar(done, width - 1, plain), hue if look.live else quiet
            case "percent":
                return f"{100 * done:3.0f}% ", ""
            case "eta":
                return (duration(state.eta_seconds) if look.status == "running" else "").rjust(width - 1) + " ", ""
            case "clean":
                return percent(state.metrics.get(CLEAN)).rjust(width - 1) + " ", ""
            case "noisy":
                return percent(state.metrics.get(NOISY)).rjust(width - 1) + " ", ""
            case "loss":
                return line_of(losses, width - 1, plain), colour("live")
            case "preset":
                return cut(state.preset, width, plain), quiet
            case "device":
                return cut(state.device, width, plain), quiet
            case "age":
                return (age(state.created) if state.created else "-").rjust(width - 1) + " ", quiet
            case _:
                return cut(" ".join(row.tags), width, plain), colour("accent")

    return list(map(cell, columns))


def text(cell: RunCell) -> Text:
    """A cell as the table takes it."""
    return Text(cell[0], cell[1], no_wrap=True)


def cut(said: str, width: int, plain: bool) -> str:
    """Text on a line of its column, a gap kept after it."""
    clean = shown_line(said, 120)
    return clean if len(clean) < width else clean[: width - 2] + ("~" if plain else "…")
