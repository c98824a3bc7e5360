"""Every run: how far it is, how good it is, and what can be done with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from engine.runs import store
from engine.runs.state import ENDED, LIVE
from engine.runs.store import Labels
from engine.runs.watcher import Look
from hah_tui import keys
from hah_tui.base import BaseApp
from hah_tui.listing import ListedRun, Listing, matcher, ordered, unknown_statuses
from hah_tui.screens import run_table
from hah_tui.screens.run_actions import ListActions
from hah_tui.screens.run_table import Losses, RunCell, RunColumn, RunTable
from hah_tui.text import home, shown_line
from hah_tui.themes import MARKS, mark
from hah_tui.widgets.line import Line

PAGE = 100  # rows the table holds; a longer list slides through them
ROUND_SECONDS = 0.5  # between two rounds over the runs folder
SILENCE_SECONDS = 5.0  # without a round after which the folder is said not to answer


@dataclass(frozen=True)
class Known:
    """What is known of the folder: its runs, losses of those that were looked at, and why it cannot be read."""

    rows: dict[str, ListedRun]
    losses: dict[str, list[float]]
    problem: str
    fresh: bool  # whether there are new losses

    @classmethod
    def of(cls, listing: Listing, losses: Losses, fresh: bool = False) -> Known:
        """As it is now, whatever is found after that."""
        return cls(dict(listing.rows), dict(losses.of), listing.problem, fresh)


class RunsScreen(ListActions):
    """The list of runs, kept up to date."""

    PLACE = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("runs"),
        Binding("escape", "leave", "clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, ListedRun] = {}
        self._losses: dict[str, list[float]] = {}
        self._order: list[ListedRun] = []  # filtered and sorted
        self._offset = 0  # of the first slot in it
        self._columns: list[RunColumn] = []
        self._cells: list[list[RunCell]] = []  # what the slots show
        self._current = ""  # id of the run under the cursor
        self._selected: dict[str, None] = {}
        self._said: dict[str, Text] = {}
        self._problem = ""
        self._filter = ""
        self._followed = False  # whether the cursor stays with its run
        self._loaded = False  # one whole round is done
        self._heard = time.monotonic()
        self._visible: tuple[str, ...] = ()

    # Layout

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Line(placeholder="words  status:running  tag:x  preset:y", id="filter", select_on_focus=False)
        table: RunTable = RunTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="empty")
        yield Static(id="detail")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.table.focus()
        self.set_interval(1.0, self._tick)
        folder = self.hah.folder
        look = partial(self._look, self.hah, Listing(folder), Losses(folder))
        self.follow(look, self._whole, ROUND_SECONDS)

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out(event.size.width)

    def on_screen_resume(self) -> None:
        self._sort()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._columns, self._said = [], {}
        self._lay_out(self.size.width)

    def _lay_out(self, width: int) -> None:
        chosen = run_table.columns(width)
        if chosen != self._columns and width:
            self._columns, self._cells = chosen, []
            self.table.clear(columns=True)
            for column in chosen:
                self.table.add_column(column.heading, width=column.width, key=column.name)
            self._show()

    # Reading the folder

    def _look(self, app: BaseApp, listing: Listing, losses: Losses) -> Known:
        """One round over the folder, for a thread; what it finds is handed over piece by piece."""
        shown = listing.version
        for _ in listing.update(self._visible):
            if listing.version != shown:
                shown = listing.version
                app.hand_over(self, partial(self._arrived, Known.of(listing, losses)))
            time.sleep(0.002)  # the screen has a turn
        fresh = [name for name in self._visible if name in listing.rows and losses.look(name)]
        return Known.of(listing, losses, bool(fresh))

    def _whole(self, known: Known) -> None:
        """A round is done."""
        first, self._loaded = not self._loaded, True
        self._arrived(known, first)
        self._followed = self._followed or self.seen

    def _arrived(self, known: Known, first: bool = False) -> None:
        self._heard = time.monotonic()
        changed = first or known.rows != self._rows or known.problem != self._problem
        self._rows, self._losses, self._problem = known.rows, known.losses, known.problem
        if not self.seen:
            return  # drawing under another screen would repaint all of that one
        if changed:
            self._selected = {name: None for name in self._selected if name in self._rows}
            self._sort()
        elif known.fresh:
            self._show()

    def _tick(self) -> None:
        """Ages, remaining times, and whether the folder still answers."""
        if self.seen:
            self._show()

    # What is shown

    def _sort(self) -> None:
        settings = self.hah.settings
        fits = matcher(self._filter)
        self._order = ordered(filter(fits, self._rows.values()), settings.sort, settings.reverse)
        self._show()

    def _place(self) -> int:
        """Where the current run is in the list; where it is not, its old place or the end.

        While the folder is read for the first time the cursor stays on top, unless somebody has moved it.
        """
        if not self._followed:
            return 0
        for index, row in enumerate(self._order):
            if row.id == self._current:
                return index
        return max(0, min(self._offset + self.table.cursor_row, len(self._order) - 1))

    def _show(self, scroll: bool = True) -> None:
        """Bring the slots up to date, cell by cell where something differs."""
        if not self._columns or not self.hah.holds(self):
            return
        place = self._place()
        self._offset = min(max(self._offset, 0, place - PAGE + 1), max(0, len(self._order) - PAGE), place)
        self._current = self._order[place].id if self._order else ""
        table = self.table
        page = self._order[self._offset : self._offset + PAGE]
        with self.app.batch_update():
            if len(page) < len(self._cells):
                table.clear()
                self._cells = []
            for slot, row in enumerate(page):
                cells = self._cells_of(row)
                if slot == len(self._cells):
                    table.add_row(*map(run_table.text, cells), key=str(slot))
                    self._cells.append(cells)
                    continue
                for column, (old, new) in enumerate(zip(self._cells[slot], cells, strict=True)):
                    if old != new:
                        table.update_cell_at(Coordinate(slot, column), run_table.text(new))
                self._cells[slot] = cells
            if page and table.cursor_row != place - self._offset:
                table.move_cursor(row=place - self._offset, animate=False, scroll=scroll)
            self.see()
            self._show_around()

    def _cells_of(self, row: ListedRun) -> list[RunCell]:
        losses, picked = self._losses.get(row.id, []), row.id in self._selected
        return run_table.cells(row, self._columns, losses, picked, row.id == self.hah.settings.reference, self.hah)

    @on(RunTable.Scrolled)
    def see(self) -> None:
        """Tell the thread which runs are on the screen."""
        top = self._offset + int(self.table.scroll_y)
        self._visible = tuple(row.id for row in self._order[top : top + max(self.table.size.height, 1)])

    @on(RunTable.Pushed)
    def _pushed(self, event: RunTable.Pushed) -> None:
        """The wheel is at an end of the slots: there are others then, through which it goes on."""
        table, way = self.table, 1 if event.down else -1
        if table.at_end(event.down):  # an earlier turn has not slid the list yet
            self._slide(way * max(1, table.max_scroll_y // 2))
        table.scroll_to(y=table.scroll_y + way * self.app.scroll_sensitivity_y, animate=False, immediate=True)

    def _slide(self, by: int) -> None:
        """Move the list through the slots, the picture standing still."""
        table, old = self.table, self._offset
        offset = max(0, min(old + by, len(self._order) - PAGE))
        if offset == old:
            return
        top = max(0, int(table.scroll_y) + old - offset)
        place = min(max(self._place(), offset), offset + PAGE - 1)  # the cursor stays in the slots
        self._offset, self._current = offset, self._order[place].id
        self._show(scroll=False)
        table.scroll_to(y=top, animate=False, immediate=True)
        self.see()

    @on(RunTable.Jumped)
    def _jumped(self, event: RunTable.Jumped) -> None:
        """Put the cursor on the first or the last run of the list."""
        if self._order:
            place = len(self._order) - 1 if event.last else 0
            self._current = self._order[place].id
            self._offset = max(0, min(place, len(self._order) - PAGE))
            self._show()

    def _show_around(self) -> None:
        """The line above and the lines below the table."""
        plain, colour, app = self.hah.plain, self.hah.colour, self.hah
        silent = time.monotonic() - self._heard
        live = sum(row.look.live for row in self._rows.values())
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  Runs  ", "bold")
        some = f"{len(self._order):,} of {len(self._rows):,}" if self._filter else f"{len(self._rows):,}"
        head.append(some if self._loaded else f"{some} and counting")
        if live:
            head.append(f"  {mark('running', plain)} {live} live", colour("live"))
        if self._selected:
            head.append(f"  {len(self._selected)} selected", colour("accent"))
        if app.settings.sort != "created" or app.settings.reverse:
            head.append(f"  by {app.settings.sort}{' reversed' if app.settings.reverse else ''}", colour("quiet"))
        if len(self._order) > PAGE:
            head.append(f"  at {self._place() + 1:,}", colour("quiet"))
        if self._problem:
            head.append(f"  {shown_line(self._problem)}", f"bold {colour('bad')}")
        elif silent > SILENCE_SECONDS:
            head.append(f"  the runs folder has not answered for {silent:.0f} s", f"bold {colour('bad')}")
        else:
            head.append(f"  {home(app.folder)}", colour("quiet"))
        self._say("#head", head)
        empty = self._loaded and not self._order
        self.set_class(empty, "empty")
        if not empty and self.focused is None:
            self.table.focus()
        if empty:
            self._say("#empty", self._nothing(), True)
        else:
            self._say("#detail", self._detail())

    def _say(self, where: str, text: Text, layout: bool = False) -> None:
        """Put a text in a place, mostly of fixed size: no layout, and nothing where it is the same."""
        if self._said.get(where) != text:
            self._said[where] = text
            self.query_one(where, Static).update(text, layout=layout)

    def _nothing(self) -> Text:
        if self._problem:
            return Text(shown_line(self._problem) + "\nIt is looked for again every half a second.")
        if unknown := unknown_statuses(self._filter):
            known = ", ".join((*LIVE, *ENDED))
            return Text(f"No status begins with '{shown_line(unknown[0])}': {known}.\nesc clears the filter.")
        if self._filter:
            return Text(f"None of {len(self._rows):,} runs fits '{shown_line(self._filter)}'.\nesc clears the filter.")
        return Text.assemble(
            ("No runs yet\n\n", "bold"),
            "Press ",
            ("n", f"bold {self.hah.colour('accent')}"),
            " and pick quickstart:\na small HaH network on digits,\nunder a minute on two CPU cores.\n\n",
            (home(self.hah.folder), self.hah.colour("quiet")),
        )

    def _detail(self) -> Text:
        row = self._rows.get(self._current)
        if row is None:
            return Text()
        state, colour = row.look.state, self.hah.colour
        detail = Text(no_wrap=True, overflow="ellipsis")
        detail.append(row.id, "bold")
        detail.append(f"  {row.look.status}", colour(MARKS.get(row.look.status, ("", "", "quiet"))[2]))
        detail.append(f"  epoch {state.epoch} of {state.epochs}  step {state.step:,}")
        if state.phase:
            detail.append(f"  {shown_line(state.phase, 20)}", colour("quiet"))
        if state.images_per_second and row.look.live:
            detail.append(f"  {state.images_per_second:,.0f} images/s", colour("quiet"))
        why = state.error if row.look.status == "failed" else row.look.reason
        if why and row.look.status in ("failed", "lost", "stopped"):
            why += "" if "resume" in why else "; r: resume"
        if why:
            detail.append(f"\n{shown_line(why, 500)}", colour("bad" if not row.look.live else "waiting"))
        else:
            facts = [f"preset {state.preset}" if state.preset else "", " ".join(row.tags), state.device]
            detail.append("\n" + shown_line("  ".join(filter(None, facts)), 300), colour("quiet"))
        detail.append(f"\n{shown_line(row.labels.note, 300) or home(row.look.run.path)}", colour("quiet"))
        return detail

    # Keys and clicks

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        place = self._offset + event.cursor_row
        if not 0 <= event.cursor_row < len(self._cells) or place >= len(self._order):  # no row has the number -1
            return
        if self._order[place].id == self._current:
            return
        self._current, self._followed = self._order[place].id, True
        if event.cursor_row == PAGE - 1 and self._offset + PAGE < len(self._order):
            self._offset = min(self._offset + PAGE // 2, len(self._order) - PAGE)
            self._show()
        elif event.cursor_row == 0 and self._offset:
            self._offset = max(0, self._offset - PAGE // 2)
            self._show()
        self.see()
        self._show_around()

    @on(DataTable.HeaderSelected)
    def _by_column(self, event: DataTable.HeaderSelected) -> None:
        order = self._columns[event.column_index].order
        if order:
            same = order == self.hah.settings.sort
            self.hah.change(sort=order, reverse=same and not self.hah.settings.reverse)
            self._sort()

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2 and event.widget is self.table and event.y > 0:
            self.action_open()

    @on(Input.Changed, "#filter")
    def _narrow(self, event: Input.Changed) -> None:
        self._filter = event.value
        self._sort()

    @on(Input.Submitted, "#filter")
    def _narrowed(self) -> None:
        self.table.focus()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def action_leave(self) -> None:
        """Clear the filter, or the selection; from the list there is nowhere to go back to."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("open")
        if not box.has_focus:
            self._selected.clear()
        self.set_focus(None)
        self._sort()

    def action_refresh(self) -> None:
        self.wake()

    def action_sort(self) -> None:
        orders = list(store.ORDERS)
        following = orders[(orders.index(self.hah.settings.sort) + 1) % len(orders)]
        self.hah.change(sort=following, reverse=False)
        self._sort()

    def action_reverse(self) -> None:
        self.hah.change(reverse=not self.hah.settings.reverse)
        self._sort()

    def action_select(self) -> None:
        if self._current in self._selected:
            del self._selected[self._current]
        elif self._current:
            self._selected[self._current] = None
        self._show()
        self.table.action_cursor_down()

    def action_select_all(self) -> None:
        everything = {row.id: None for row in self._order}
        self._selected = {} if self._selected.keys() == everything.keys() else everything
        self._show()

    def action_pin(self) -> None:
        same = self.hah.settings.reference == self._current
        self.hah.change(reference="" if same else self._current)
        self._show()
        self.hah.say("no reference run" if same else f"{self._current} is drawn behind other runs")

    # What is done with runs

    def target(self) -> Look | None:
        """The run under the cursor."""
        row = self._rows.get(self._current)
        return None if row is None else row.look

    def targets(self) -> list[Look]:
        """The selected runs, else the one under the cursor."""
        names = list(self._selected) or [self._current]
        return [self._rows[name].look for name in names if name in self._rows]

    def labels(self, look: Look) -> Labels:
        """The tags and the note of a run."""
        return self._rows[look.run.id].labels

    def acted(self) -> None:
        """The folder is read again now."""
        self.wake()

    @on(RunTable.Opened)
    def action_open(self) -> None:
        """Watch the run under the cursor."""
        look = self.target()
        if look is not None:
            self.hah.open("monitor", look.run)

    def action_new(self) -> None:
        self.hah.open("new")

    def action_queue(self) -> None:
        self.hah.open("queue")

    def action_sweeps(self) -> None:
        self.hah.open("sweep")

    def action_clone(self) -> None:
        look = self.target()
        if look is not None:
            self.hah.open("new", look.run)

    def action_compare(self) -> None:
        looks = self.targets()
        if len(looks) < 2:
            self.hah.say("select two runs or more with space, then compare them", "warning")
        else:
            self.hah.open("compare", *(look.run for look in looks))
