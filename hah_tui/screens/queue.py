"""The queue: what runs where, what waits and why, in the order in which it will be started."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Static

from engine.runs.submitted import AskSlurm
from engine.runs.watcher import Look
from engine.sweep import at_slurm, desk, queue
from engine.sweep.desk import Group
from engine.sweep.queue import Item, Queue
from hah_tui import engines, keys
from hah_tui.in_turn import READING
from hah_tui.screens.dialogs import Ask
from hah_tui.screens.run_actions import RunActions
from hah_tui.text import age, shown_line, slurm_line
from hah_tui.themes import MARKS, bar, mark
from hah_tui.widgets.key_bar import KeyBar

ROUND_SECONDS = 1.0  # between two looks at the queue


@dataclass(frozen=True)
class QueueNow:
    """What is known of the queue: each run with why it is where it is, what is held, whether anybody starts."""

    rows: tuple[tuple[Item, str], ...] = ()
    groups: tuple[Group, ...] = ()
    held: bool = False
    dispatcher: bool = True


class QueueScreen(RunActions):
    """Runs that wait, and those at work, kept up to date."""

    PLACE = "queue"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("queue")

    def __init__(self) -> None:
        super().__init__()
        self.known = QueueNow()
        self._read = self._ended = False
        self._current = ""  # id of the run under the cursor
        self._filled: list[list[tuple[str, str]]] = []  # what the table shows
        self._widths: list[int] = []

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="detail")
        yield KeyBar(self.PLACE)

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self._show()
        folder = self.hah.folder
        readers = Queue(folder), at_slurm.reader(folder)
        self.follow(partial(_look, folder, *readers, self.hah.slurm.now), self._looked, ROUND_SECONDS)
        # Somebody starts what waits while people look at it.
        self.hah.in_background(self, partial(_attend, folder))

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._widths = []
        self._show()

    def _looked(self, known: QueueNow) -> None:
        self._read, rows, row = True, self.rows, self.query_one(DataTable).cursor_row
        if 0 <= row < len(rows):  # the message that it is there may be on its way
            self._current = rows[row][0].run.id
        self.known = known
        self._show()

    # What is shown

    @property
    def rows(self) -> list[tuple[Item, str]]:
        """The runs that are shown."""
        return [one for one in self.known.rows if self._ended or one[0].standing in ("live", "ready")]

    def _show(self) -> None:
        if not self.hah.holds(self) or not self.size.width:
            return
        self._show_head()
        titles, widths = _columns(self.size.width)
        table, rows = self.query_one(DataTable), self.rows
        filled = [self._cells(item, why, titles) for item, why in rows]
        names = [item.run.id for item, _ in rows]
        place = names.index(self._current) if self._current in names else min(max(table.cursor_row, 0), len(rows) - 1)
        if widths != self._widths or filled != self._filled:
            self._widths, self._filled = widths, filled
            self._current = names[place] if names else ""
            table.clear(columns=True)
            for title, width in zip(titles, widths, strict=True):
                table.add_column(Text(title), width=width)
            for cells in filled:
                table.add_row(*(_fitting(text, style, width, self.hah.plain) for (text, style), width in
                                zip(cells, widths, strict=True)))  # fmt: skip
            if rows:
                table.move_cursor(row=place, animate=False)
        self._show_detail()

    def _show_head(self) -> None:
        colour = self.hah.colour
        live = sum(item.standing == "live" for item, _ in self.known.rows)
        waiting = sum(item.standing == "ready" for item, _ in self.known.rows)
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  Queue  ", "bold")
        head.append(f"{live} run, {waiting} wait" if self._read else "reading...")
        if self.known.held:
            head.append("  held: space goes on", f"bold {colour('waiting')}")
        elif not self.known.dispatcher and any(
            item.standing == "ready" and item.entry.group != at_slurm.GROUP for item, _ in self.known.rows
        ):
            head.append("  nobody starts what waits: space twice", f"bold {colour('bad')}")
        for group in self.known.groups:
            if group.paused:
                head.append(f"  {group.name} held", colour("waiting"))
        self.query_one("#head", Static).update(head, layout=False)

    def _cells(self, item: Item, why: str, titles: list[str]) -> list[tuple[str, str]]:
        plain, colour, state = self.hah.plain, self.hah.colour, item.look.state
        shown = "queued" if item.standing == "ready" else item.look.status
        hue = colour(MARKS.get(shown, ("", "", "quiet"))[2])
        every = {
            "": (mark(shown, plain), hue),
            "run": (item.job.id, ""),
            "status": (item.status, hue),
            "group": (item.entry.group, colour("quiet")),
            "done": (bar(state.progress, 8, plain), hue),
            "device": (item.look.device if item.standing == "live" else "", ""),
            "queued": (age(item.entry.queued), colour("quiet")),
            "why": (slurm_line(item.look) or why, colour("quiet")),
        }
        return [every[title] for title in titles]

    def _show_detail(self) -> None:
        colour, item = self.hah.colour, self._item()
        text = Text(no_wrap=True, overflow="ellipsis")
        if item is None:
            said = "nothing runs or waits" if self._read else ""
            text.append(f"{said}\nctrl+l in the form of a new run, or 'hah sweep run', queues" if said else "")
        else:
            why = next(why for one, why in self.known.rows if one is item)
            group = next((one for one in self.known.groups if one.name == item.entry.group), Group(item.entry.group))
            limit = "" if group.limit is None else f", {group.limit} at once"
            held = f", held: {shown_line(group.reason)}" if group.reason else ", held" if group.paused else ""
            where = f" on {item.look.device}" if item.standing == "live" and item.look.device else ""
            text.append(f"{item.status}{where}  ", colour(MARKS.get(item.look.status, ("", "", "quiet"))[2]))
            text.append(shown_line(slurm_line(item.look) or why, 300))
            starts = f"  {len(item.starts)} starts" if len(item.starts) > 1 else ""
            priority = f"  priority {item.entry.priority}" if item.entry.priority else ""
            text.append(f"\ngroup {item.entry.group}{limit}{held}{priority}{starts}", colour("quiet"))
        self.query_one("#detail", Static).update(text, layout=False)

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        rows = self.rows
        if 0 <= event.cursor_row < len(rows):
            self._current = rows[event.cursor_row][0].run.id
            self._show_detail()

    @on(DataTable.RowSelected)
    def _chosen(self) -> None:
        self.action_open()

    # What is done

    def _item(self) -> Item | None:
        return next((item for item, _ in self.rows if item.run.id == self._current), None)

    def _ours(self, otherwise: str) -> Item | None:
        """The run under the cursor, if it is this queue's; ``otherwise`` is said of one of Slurm's."""
        item = self._item()
        if item is not None and item.entry.group == at_slurm.GROUP:
            self.hah.say(f"{item.job.id}: {otherwise}", "warning")
            return None
        return item

    def target(self) -> Look | None:
        """The run under the cursor."""
        item = self._item()
        return None if item is None else item.look

    def acted(self) -> None:
        """The queue is read again now."""
        self.wake()

    def _do(self, work: Callable[[Path], object]) -> None:
        """Ask something of the queue, then look at it again; the next key is for what is found."""

        def look(_: object) -> None:
            self.awaited.add(READING)
            self.wake()

        self.hah.in_background(self, partial(work, self.hah.folder), look, awaited=True)

    def action_stop(self) -> None:
        """Stop what runs, and take out what waits."""
        item = self._item()
        if item is not None and item.standing == "ready" and item.entry.group != at_slurm.GROUP:
            self._do(lambda _: engines.ask(item.job, "stop"))
        else:
            super().action_stop()

    def action_open(self) -> None:
        item = self._item()
        if item is not None:
            self.hah.open("monitor", item.run)

    def action_refresh(self) -> None:
        self.wake()

    def action_sweeps(self) -> None:
        self.hah.open("sweep")

    def action_ended(self) -> None:
        self._ended = not self._ended
        self._show()

    def action_sooner(self) -> None:
        self._move(-1)

    def action_later_in_line(self) -> None:
        self._move(1)

    def action_first(self) -> None:
        self._move(None, first=True)

    def action_last(self) -> None:
        self._move(None)

    def _move(self, by: int | None, first: bool = False) -> None:
        item = self._ours("Slurm orders what waits for it by itself")
        if item is None:
            return
        waiting = [one for one, _ in self.known.rows if one.standing == "ready" and one.entry.group != at_slurm.GROUP]
        if item not in waiting:
            self.hah.say("only what waits has a place in the line", "warning")
            return
        at = waiting.index(item)
        if by is None:
            self._do(lambda folder: queue.move(folder, item.run, first))
            return
        # One further is before the one after the next.
        target = at - 1 if by < 0 else at + 2
        if at + by < 0 or at + by >= len(waiting):
            return
        before = waiting[target].run if target < len(waiting) else None
        self._do(lambda folder: queue.move(folder, item.run, before=before))

    def action_hold(self) -> None:
        on_hold = not self.known.held

        def work(folder: Path) -> None:
            desk.pause(folder, on_hold)
            if not on_hold:
                desk.ensure_dispatcher(folder)

        self._do(work)

    def action_hold_group(self) -> None:
        item = self._ours("Slurm has no groups of ours: scontrol hold keeps a job back")
        if item is None:
            return
        name = item.entry.group

        def work(folder: Path) -> None:
            held = desk.group_of(folder, name).paused
            desk.set_group(folder, name, paused=not held, reason="", **({"since": time.time()} if held else {}))
            if held:
                desk.ensure_dispatcher(folder)

        self._do(work)

    def action_limit_group(self) -> None:
        item = self._ours("how many run at once in Slurm was said when they were submitted")
        if item is None:
            return
        name = item.entry.group
        now = next((one.limit for one in self.known.groups if one.name == name), None)

        def check(text: str) -> str:
            return "" if not text.strip() or (text.strip().isdecimal() and 0 < int(text) < 1000) else "a whole number"

        def put(text: str | None) -> None:
            if text is not None:
                self._do(lambda folder: desk.set_group(folder, name, limit=int(text) if text.strip() else None))

        what = "How many of its runs at once? Nothing: as many as there are devices."
        self.hah.push_screen(Ask(f"Group {name}", what, "" if now is None else str(now), check, over=True), put)

    def action_requeue(self) -> None:
        item = self._ours("r goes on with it here, f3 submits it again")
        if item is None:
            return
        if item.standing != "over":
            self.hah.say(
                "only a run that failed, was lost or was stopped can be queued again (e shows them)", "warning"
            )
            return

        def work(folder: Path) -> None:
            queue.requeue(item.run, item.entry)
            desk.ensure_dispatcher(folder)

        self._do(work)


def _columns(width: int) -> tuple[list[str], list[int]]:
    """Titles and widths of the columns that there is room for."""
    every = [
        (0, "", 2), (0, "run", 0), (64, "status", 9), (96, "group", 14), (0, "done", 9), (116, "device", 14),
        (110, "queued", 8), (76, "why", -1),
    ]  # fmt: skip
    chosen = [(title, wide) for least, title, wide in every if width >= least]
    left = width - 1 - sum(wide for _, wide in chosen if wide > 0)
    why = left // 2 if any(wide < 0 for _, wide in chosen) else 0
    shares = {0: left - why, -1: why}
    return [title for title, _ in chosen], [shares.get(wide, wide) for _, wide in chosen]


def _fitting(text: str, style: str, width: int, plain: bool) -> Text:
    clean = shown_line(text, 300)
    clean = clean if len(clean) < width else clean[: width - 2] + ("~" if plain else "…")
    return Text(clean, style, no_wrap=True)


def _look(folder: Path, reader: Queue, submitted: Queue, slurm: AskSlurm) -> QueueNow:
    """The queue as it is, and what Slurm has; for a thread."""
    return QueueNow(
        tuple(queue.explained(folder, reader.items(), at_slurm.told(submitted.items(), slurm))),
        tuple(desk.groups(folder).values()),
        desk.paused(folder),
        desk.has_dispatcher(folder) or any(host.attends for host in desk.others(folder)),
    )


def _attend(folder: Path) -> None:
    """Have somebody start what waits, where anything does; for a thread."""
    if (
        not desk.paused(folder)
        and not desk.refusal(folder)
        and any(item.standing == "ready" for item in Queue(folder).items())
    ):
        desk.ensure_dispatcher(folder)
