"""The table of runs: which columns a terminal has room for, and what stands in them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.cells import set_cell_size
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.widgets import DataTable

from engine.runs.metrics import CLEAN, LOSS, NOISY
from hah_tui.attributes import PROGRESS, Attribute, kept
from hah_tui.base import BaseApp
from hah_tui.groups import SEED, Group
from hah_tui.listing import ListedRun, sampled_losses
from hah_tui.text import shown_line
from hah_tui.themes import MARKS, bar, line_of, mark

if TYPE_CHECKING:
    from typing_extensions import Self

_SETTING = re.compile(r"([A-Za-z_.]+)(?==)")  # in the name of a group
_QUIET = ("preset", "device", "created")
LOSS_SECONDS = 4.0  # between two looks at the losses of a run

RunCell = tuple[str, str]  # text and style


@dataclass(frozen=True)
class RunColumn:
    """A column of the table, of an attribute. ``mark``: of the order, if it is by this one; ``spread``: how many of its
    cells are for the spread that follows a mean."""

    attribute: Attribute | None
    width: int
    title: str = ""
    mark: str = ""
    spread: int = 0

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
        if not self.right:
            return Text(f"{title}{self.mark}".ljust(self.width))
        return Text(f"{title}{self.mark}".rjust(max(0, self.width - 1 - self.spread)).ljust(self.width))

    def placed(self, said: str, spread: str = "") -> str:
        """A value in its cells, means and single values under each other."""
        return (said.rjust(self.width - 1 - self.spread) + spread.ljust(self.spread)).ljust(self.width)


# The columns that nobody has chosen: from which width on they are there, their own, and that on a wide terminal.
_USUAL = (
    ("status", 64, 9, 9), ("bar", 64, 12, 19), ("progress", 0, 5, 5), ("eta", 70, 8, 8), (CLEAN, 0, 7, 7),
    (NOISY, 64, 7, 7), ("curve", 78, 9, 17), ("preset", 116, 14, 20), ("device", 100, 8, 8), ("created", 90, 8, 8),
    ("tags", 140, 18, 18),
)  # fmt: skip
_GROUPED = (
    (CLEAN, 0, 15, 15), (NOISY, 78, 15, 15), ("progress", 90, 5, 5), ("status", 100, 9, 9), ("created", 90, 8, 8),
    (LOSS, 116, 19, 19), ("preset", 116, 14, 20), ("tags", 140, 18, 18),
)  # fmt: skip
WIDE = 150
LEAST, SQUEEZED, BROAD = 16, 12, 60  # cells for the name of a run; where there would be no column beside it; at most
_WIDTHS = {name: width for name, _, width, _ in _USUAL} | {"note": 24, "seed": 6, "epoch": 6}
_SPREADS = {"fraction": (15, 8), "number": (19, 9), "seconds": (17, 9)}  # cells of a mean, and of its spread


def usual(grouped: bool) -> tuple[str, ...]:
    """The names of the columns that nobody has chosen."""
    return tuple(name for name, *_ in (_GROUPED if grouped else _USUAL))


def columns(width: int, chosen: Sequence[str], order: Attribute, mark: str, group: str = "") -> list[RunColumn]:
    """The columns that a terminal of so many cells has room for: the usual ones, or of those that somebody has chosen
    the first. The table is sorted by ``order``, whose column gets the ``mark``; ``group``: what its groups are made by.
    """
    table = _GROUPED if group else _USUAL
    default = [(name, wide if width >= WIDE else narrow) for name, least, narrow, wide in table if width >= least]
    found = [RunColumn(None, 6, "n")] if group else []
    found += [RunColumn(None, 9, "missing")] if group == SEED and width >= 64 else []
    left = width - 1 - 2 - sum(column.width for column in found)
    for name, cells in [(name, _width(kept(name), bool(group))) for name in chosen] or default:
        if left - cells < (LEAST if any(column.attribute for column in found) else SQUEEZED):
            break
        found.append(_column(kept(name), cells, order, mark, bool(group)))
        left -= cells
    rest = [RunColumn(None, left - BROAD, " ")] if left > BROAD else []  # a line is read better where it is short
    return [RunColumn(None, 2), _column(kept("name"), min(left, BROAD), order, mark), *found, *rest]


def _column(by: Attribute, width: int, order: Attribute, mark: str, grouped: bool = False) -> RunColumn:
    spread = _SPREADS[by.kind][1] if grouped and _is_spread(by) else 0
    return RunColumn(by, width, by.title, mark if by == order else "", spread)


def _is_spread(by: Attribute) -> bool:
    return by.is_mean and by.name not in (*PROGRESS, "curve", "eta")


def _width(by: Attribute, grouped: bool) -> int:
    """Of a column that somebody has chosen: its values are whole in it, and what can be of its title."""
    if grouped and _is_spread(by):
        return max(_SPREADS[by.kind][0], min(len(by.title) + 3, 24))
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
        # The screen's at once: as a message it would come after the keys that follow.
        Binding("g,home,ctrl+home", "screen.jump(False)", "first", show=False),
        Binding("G,end,ctrl+end", "screen.jump(True)", "last", show=False),
    ]

    _puts = False

    class Opened(Message):
        """The run under the cursor is to be opened."""

    class Unfolded(Message):
        """The group under the cursor is to be unfolded, or folded."""

        def __init__(self, unfold: bool) -> None:
            super().__init__()
            self.unfold = unfold

    class Scrolled(Message):
        """Other slots are on the screen."""

    class Pushed(Message):
        """The wheel turns on at an end of the slots."""

        def __init__(self, down: bool) -> None:
            super().__init__()
            self.down = down

    def action_select_cursor(self) -> None:
        self.post_message(self.Opened())

    def put(self, at: Coordinate, cell: Text) -> None:
        """Change one cell on the screen; Textual's own way draws the whole table for it."""
        self._puts = True
        self.update_cell_at(at, cell)
        self._puts = False
        self.refresh_coordinate(at)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        return self if self._puts else super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

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

    def action_cursor_right(self) -> None:
        self.post_message(self.Unfolded(True))

    def action_cursor_left(self) -> None:
        self.post_message(self.Unfolded(False))

    def _push(self, event: MouseScrollDown | MouseScrollUp, down: bool) -> None:
        if self.at_end(down):  # whoever slides the list scrolls it after that
            event.prevent_default().stop()
            self.post_message(self.Pushed(down))


def cells(
    row: ListedRun,
    columns: Sequence[RunColumn],
    losses: list[float],
    picked: bool,
    pinned: bool,
    app: BaseApp,
    inside: bool = False,
) -> list[RunCell]:
    """What stands in the columns of a run, which may be ``inside`` a group."""
    look, plain, colour = row.look, app.plain, app.colour
    status = look.status if row.evaluation is None else row.evaluation.status
    hue, quiet = colour(MARKS.get(status, ("", "", "quiet"))[2]), colour("quiet")
    done = look.state.progress
    pin = (" ^" if plain else " ◈") if pinned else ""

    def cell(column: RunColumn) -> RunCell:
        width, by = column.width, column.attribute
        if by is None:
            return ("", "") if column.title else ((">" if plain else "▌") if picked else mark(status, plain), hue)
        match by.name:
            case "name":
                seed = (f"  seed {row.seed}  " if width > LEAST + 8 else f"  {row.seed} ") if inside else ""
                return seed + cut_inside(row.id, width - len(seed + pin), plain) + pin, "bold" if picked else ""
            case "status":
                said = look.status if row.evaluation is None else "measures"
                return cut(said + ("" if look.verified else "?"), width, plain), hue
            case "bar":
                return bar(done, width - 1, plain), hue if look.live else quiet
            case "progress":
                return f"{100 * done:3.0f}% ", ""
            case "curve":
                return line_of(losses, width - 1, plain), colour("live")
        value = by.of(row)
        said = "" if value is None and by.name == "eta" else by.said(value)
        style = {"tags": colour("accent"), "note": colour("accent")}.get(by.name, quiet if by.name in _QUIET else "")
        return column.placed(said) if column.right else cut(said, width, plain), style

    return list(map(cell, columns))


def group_cells(group: Group, columns: Sequence[RunColumn], open: bool, picked: bool, app: BaseApp) -> list[RunCell]:
    """What stands in the columns of a group."""
    plain, colour = app.plain, app.colour
    counted, every, live = len(group.counted), group.size, sum(run.look.live for run in group.runs)

    def cell(column: RunColumn) -> RunCell:
        width, by = column.width, column.attribute
        if by is None:
            match column.title:
                case "n":
                    if counted == every:
                        return f"{every}", ""
                    return cut(f"{counted}/{every}", width, plain), colour("waiting")
                case "missing":
                    return _seeds(group.missing, width - 1, plain), colour("waiting")
                case "":
                    return (">" if plain else "▌") if picked else (".:" if plain else "▾▸")[not open], colour("accent")
            return "", ""
        if by.name == "name":
            return abridged(group.name, width, plain), "bold"
        if by.name == "status" and live:
            return cut(f"{live} live", width, plain), colour("live")
        if by.name in PROGRESS or column.spread:
            mean = group.mean(by)
            if by.name == "bar":
                return bar(mean or 0.0, width - 1, plain), colour("live" if live else "quiet")
            if by.name == "progress":
                return f"{100 * (mean or 0.0):3.0f}% ", ""
            spread = group.spread(by)
            said = "" if spread is None else f" {by.spread(spread)}"
            return column.placed(by.said(mean), said.replace("±", "+-") if plain else said), ""
        value = None if by.is_mean else group.value(by)
        said = "" if value is None else by.said(value)
        return column.placed(said) if column.right else cut(said, width, plain), colour("quiet")

    return list(map(cell, columns))


def _seeds(seeds: Sequence[int], width: int, plain: bool) -> str:
    """As many of some seeds as there is room for, whole, and how many more there are."""
    for shown in range(len(seeds), -1, -1):
        more = len(seeds) - shown
        said = " ".join([*map(str, seeds[:shown]), *[f"+{more}"] * bool(more)])
        if len(said) <= width:
            return said
    return "~" if plain else "…"


def text(cell: RunCell, column: RunColumn) -> Text:
    """A cell as the table takes it, filled up here: what Textual fills up it writes in another style."""
    return Text(set_cell_size(cell[0], column.width), cell[1], no_wrap=True)


def cut(said: str, width: int, plain: bool) -> str:
    """Text on a line of its column, a gap kept after it."""
    clean = shown_line(said, 120)
    return clean if len(clean) < width else clean[: width - 2] + ("~" if plain else "…")


def abridged(name: str, width: int, plain: bool) -> str:
    """The name of a group on a line of its column: names of settings get as short as they must, values stay whole."""
    for letters in range(20, 0, -1):
        short = _SETTING.sub(partial(_letters, letters), name)
        if len(short) < width:
            return shown_line(name if len(name) < width else short)
    return cut_inside(name, width, plain)


def _letters(most: int, setting: re.Match[str]) -> str:
    return setting[1].rpartition(".")[2][:most]


def cut_inside(said: str, width: int, plain: bool) -> str:
    """The same, cut in its middle: the ends of long names tell them apart."""
    clean, end = shown_line(said, 120), 5
    if len(clean) < width:
        return clean
    begin = max(1, width - 2 - end)
    return clean[:begin] + ("~" if plain else "…") + clean[-end:]
