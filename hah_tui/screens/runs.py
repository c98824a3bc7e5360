"""Every run: how far it is, how good it is, and what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Input, Static

from engine.experiment.mistakes import RequestError
from engine.runs.store import Labels
from engine.runs.watcher import Look
from hah_tui import attributes, groups, keys
from hah_tui.attributes import Attribute
from hah_tui.base import BaseApp
from hah_tui.filters import Filter
from hah_tui.groups import Entry, Group
from hah_tui.in_turn import READING
from hah_tui.listing import ListedRun, Listing, Wants
from hah_tui.screens import run_detail, run_table
from hah_tui.screens.pick_attribute import PickAttribute
from hah_tui.screens.run_actions import ListActions
from hah_tui.screens.run_table import Losses, RunCell, RunColumn, RunTable
from hah_tui.text import home, shown_line
from hah_tui.themes import mark
from hah_tui.widgets.changed_cells import send_changed_cells
from hah_tui.widgets.key_bar import KeyBar
from hah_tui.widgets.line import Line

PAGE = 100  # rows the table holds; a longer list slides through them
ROUND_SECONDS = 0.5  # between two rounds over the runs folder
PIECE_SECONDS = 1.0  # between the first two pictures of a list that is being read; then twice as long each time
SILENCE_SECONDS = 5.0  # without a round after which the folder is said not to answer


@dataclass(frozen=True)
class Known:
    """What is known of the folder: its runs, losses of those that were looked at, why it cannot be read, and what was
    read of all runs beside their snapshots."""

    rows: dict[str, ListedRun]
    losses: dict[str, list[float]]
    problem: str
    version: int
    has: frozenset[Wants]
    fresh: bool  # whether there are new losses

    @classmethod
    def of(cls, listing: Listing, losses: Losses, fresh: bool = False) -> Known:
        """As it is now, whatever is found after that."""
        return cls(dict(listing.rows), dict(losses.of), listing.problem, listing.version, listing.has, fresh)


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
        self._entries: list[Entry] = []  # all runs and groups
        self._order: list[Entry] = []  # what fits the filter, sorted, with the runs of groups that are unfolded
        self._places: dict[str, int] = {}  # of each in it
        self._open: set[str] = set()  # ids of the groups whose runs are shown
        self._inside: set[str] = set()  # and ids of these runs
        self._fitting = self._made = self._live = 0  # runs that fit the filter, groups of them, runs that live
        self._version = -1
        self._has: frozenset[Wants] = frozenset()  # what is read of every run
        self._offset = 0  # of the first slot in it
        self._columns: list[RunColumn] = []
        self._shift = 0  # of the columns that were chosen, how many are left of the table
        self._beyond = 0  # and right of it
        self._cells: list[list[RunCell]] = []  # what the slots show
        self._current = ""  # id of the run under the cursor
        self._slot = 0  # the one that it was found or put in
        self._selected: dict[str, None] = {}
        self._said: dict[str, Text] = {}
        self._problem = ""
        self._filter = Filter()  # the last that could be understood
        self._mistake = ""  # what is wrong with what is written
        self._followed = False  # whether the cursor stays with its run
        self._loaded = False  # one whole round is done
        self._heard = time.monotonic()
        self._visible: tuple[str, ...] = ()
        self._wants: frozenset[Wants] = frozenset()

    # Layout

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Line(placeholder="clean>0.9 lambda=1 status:running -tag:x words", id="filter")
        yield Static(id="mistake", markup=False)
        table: RunTable = RunTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="empty")
        yield Static(id="detail")
        yield KeyBar(self.PLACE)

    def on_mount(self) -> None:
        send_changed_cells(self)
        self.table.focus()
        self._want()
        self.set_interval(1.0, self._tick)
        folder = self.hah.folder
        look = partial(self._look, self.hah, Listing(folder, self.hah.slurm.now), Losses(folder))
        self.paint_late()
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
        settings, by = self.hah.settings, attributes.kept(self.hah.settings.sort)
        up = by.downwards == settings.reverse
        mark = ("^" if up else "v") if self.hah.plain else "▲" if up else "▼"
        listed = (settings.columns.split() or run_table.usual(bool(settings.group)))[self._shift :]
        chosen = run_table.columns(width, listed if settings.columns or self._shift else (), by, mark, settings.group)
        self._beyond = len(listed) + 1 - sum(column.attribute is not None for column in chosen)
        if chosen != self._columns and width:
            self._columns, self._cells = chosen, []
            self.table.clear(columns=True)
            for column in chosen:
                self.table.add_column(column.heading, width=column.width, key=column.name)
            self._show()

    # Reading the folder

    def _want(self) -> None:
        """Have read of every run what the filter, the order and the columns ask for."""
        settings = self.hah.settings
        asked = [*self._filter.attributes, *map(attributes.kept, (settings.sort, *settings.columns.split()))]
        asked += [attributes.kept(settings.group)] * bool(settings.group)
        wants = attributes.wanted(asked)
        if not wants <= self._wants:
            self._wants |= wants
            self.wake()

    def _look(self, app: BaseApp, listing: Listing, losses: Losses) -> Known:
        """One round over the folder, for a thread; what it finds is handed over now and then, the first at once."""
        shown, due, pause, listing.wants = listing.version, 0.0, PIECE_SECONDS, self._wants
        for _ in listing.update(self._visible):
            if listing.version != shown and time.monotonic() > due:
                shown, due, pause = listing.version, time.monotonic() + pause, 2 * pause
                app.call_in_app(self, partial(self._arrived, Known.of(listing, losses)))
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
        changed = first or (known.version, known.has) != (self._version, self._has)
        self._rows, self._losses, self._problem = known.rows, known.losses, known.problem
        self._version, self._has = known.version, known.has
        if not self.seen:
            return  # drawing under another screen would repaint all of that one
        if changed:
            self._selected = {name: None for name in self._selected if name in self._rows}
            self._sort()
        elif known.fresh:
            self._catch_up()
            self._show()
        self.paint()
        self.there(READING)  # though not of all runs yet

    def _tick(self) -> None:
        """Ages, remaining times, and whether the folder still answers."""
        if self.seen:
            self._catch_up()
            self._show(all_slots=False)

    # What is shown

    def _sort(self) -> None:
        self._catch_up()
        settings = self.hah.settings
        by = attributes.kept(settings.sort)
        if self._grouped:
            self._entries = groups.grouped(self._rows.values(), settings.group, self._entries)
        else:
            self._entries = list(self._rows.values())
        entries = groups.narrowed(self._entries, self._filter.fits) if self._filter.terms else self._entries
        self._order, self._inside = [], set()
        for entry in groups.ordered(entries, by, settings.reverse):
            self._order.append(entry)
            if isinstance(entry, Group) and entry.id in self._open:
                self._inside.update(run.id for run in entry.runs)
                self._order += attributes.ordered(entry.runs, by, settings.reverse)
        self._fitting = sum(len(entry.runs) if isinstance(entry, Group) else 1 for entry in entries)
        self._made = sum(isinstance(entry, Group) for entry in entries)
        self._live = sum(run.look.live for run in self._rows.values())
        self._places = {row.id: place for place, row in enumerate(self._order)}
        self._show()

    @property
    def _grouped(self) -> bool:
        """Whether there are groups: not before it is known of every run which one is its."""
        by = self.hah.settings.group
        return bool(by) and attributes.wanted([attributes.kept(by)]) <= self._has

    def _place(self) -> int:
        """Where the current run is in the list; where it is not, its old place or the end.

        While the folder is read for the first time the cursor stays on top, unless somebody has moved it.
        """
        if not self._followed:
            return 0
        if self._current in self._places:
            return self._places[self._current]
        return max(0, min(self._offset + self.table.cursor_row, len(self._order) - 1))

    def _show(self, scroll: bool = True, all_slots: bool = True) -> None:
        """Bring the slots up to date, or only those on the screen, cell by cell where something differs."""
        if not self._columns or not self.hah.holds(self):
            return
        place = self._place()
        self._offset = min(max(self._offset, 0, place - PAGE + 1), max(0, len(self._order) - PAGE), place)
        self._current = self._order[place].id if self._order else ""
        table = self.table
        page = self._order[self._offset : self._offset + PAGE]
        seen = range(PAGE) if all_slots else range(int(table.scroll_y), int(table.scroll_y) + table.size.height)
        with self.app.batch_update():
            if len(page) < len(self._cells):
                table.clear()
                self._cells = []
            for slot, row in enumerate(page):
                if slot not in seen and slot < len(self._cells):
                    continue
                cells = self._cells_of(row)
                if slot == len(self._cells):
                    table.add_row(*map(run_table.text, cells, self._columns), key=str(slot))
                    self._cells.append(cells)
                    continue
                for column, (old, new) in enumerate(zip(self._cells[slot], cells, strict=True)):
                    if old != new:
                        table.put(Coordinate(slot, column), run_table.text(new, self._columns[column]))
                self._cells[slot] = cells
            if page and table.cursor_row != place - self._offset:
                table.move_cursor(row=place - self._offset, animate=False, scroll=scroll)
            self._slot = place - self._offset
            self.see()
            self._show_around()

    def _cells_of(self, row: Entry) -> list[RunCell]:
        if isinstance(row, Group):
            picked = all(run.id in self._selected for run in row.runs)
            return run_table.group_cells(row, self._columns, row.id in self._open, picked, self.hah)
        losses, picked = self._losses.get(row.id, []), row.id in self._selected
        return run_table.cells(
            row, self._columns, losses, picked, row.id == self.hah.settings.reference, self.hah, row.id in self._inside
        )

    @on(RunTable.Scrolled)
    def see(self) -> None:
        """Tell the thread which runs are on the screen."""
        top = self._offset + int(self.table.scroll_y)
        seen = self._order[top : top + max(self.table.size.height, 1)]
        self._visible = tuple(row.id for row in seen if isinstance(row, ListedRun))

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

    def action_jump(self, last: bool) -> None:
        """Put the cursor on the first or the last run of the list."""
        if self._order:
            place = len(self._order) - 1 if last else 0
            self._current = self._order[place].id
            self._offset = max(0, min(place, len(self._order) - PAGE))
            self._show()

    def _show_around(self) -> None:
        """The line above and the lines below the table."""
        plain, colour, app = self.hah.plain, self.hah.colour, self.hah
        silent = time.monotonic() - self._heard
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  Runs  ", "bold")
        some = f"{self._fitting:,} of {len(self._rows):,}" if self._filter.terms else f"{len(self._rows):,}"
        head.append(some if self._loaded else f"{some} and counting")
        if app.settings.group:
            head.append(
                f" in {self._made:,} group{'' if self._made == 1 else 's'}"
                if self._grouped
                else " and reading settings",
                colour("quiet"),
            )
        if self._live:
            head.append(f"  {mark('running', plain)} {self._live} live", colour("live"))
        if self._selected:
            head.append(f"  {len(self._selected)} selected", colour("accent"))
        by = attributes.kept(app.settings.sort)
        if not any(column.mark for column in self._columns) and (by.name != "created" or app.settings.reverse):
            head.append(f"  by {shown_line(by.title)}{' reversed' if app.settings.reverse else ''}", colour("quiet"))
        if self._shift or (self._beyond and app.settings.columns):
            head.append(f"  < {self._shift} columns {self._beyond} >", colour("quiet"))
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
            asked = self._filter.text if self._filter.terms else ""
            self._say("#empty", run_detail.nothing(app, self._problem, len(self._rows), asked), True)
        else:
            group, row = self._group(), self._rows.get(self._current)
            detail = run_detail.of_group(group, app) if group else run_detail.of_run(row, app) if row else Text()
            self._say("#detail", detail)

    def _say(self, where: str, text: Text, layout: bool = False) -> None:
        """Put a text in a place, mostly of fixed size: no layout, and nothing where it is the same."""
        if self._said.get(where) != text:
            self._said[where] = text
            self.query_one(where, Static).update(text, layout=layout)

    def _group(self) -> Group | None:
        """The group under the cursor."""
        place = self._places.get(self._current)
        row = None if place is None else self._order[place]
        return row if isinstance(row, Group) else None

    # Keys and clicks

    def _catch_up(self) -> None:
        """The run under the cursor is the current one, though the message of that may be on its way."""
        if self.table.cursor_row != self._slot:
            self._move_to(self.table.cursor_row)

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        if event.cursor_row == self.table.cursor_row:
            self._move_to(event.cursor_row)

    def _move_to(self, slot: int) -> None:
        place = self._offset + slot
        if not 0 <= slot < len(self._cells) or place >= len(self._order):  # no row has the number -1
            return
        self._slot = slot
        if self._order[place].id == self._current:
            return
        self._current, self._followed = self._order[place].id, True
        if slot == PAGE - 1 and self._offset + PAGE < len(self._order):
            self._offset = min(self._offset + PAGE // 2, len(self._order) - PAGE)
            self._show()
        elif slot == 0 and self._offset:
            self._offset = max(0, self._offset - PAGE // 2)
            self._show()
        self.see()
        self._show_around()

    @on(DataTable.HeaderSelected)
    def _by_column(self, event: DataTable.HeaderSelected) -> None:
        by = self._columns[event.column_index].attribute
        if by is not None:
            self._sort_by(by.name, by == attributes.kept(self.hah.settings.sort) and not self.hah.settings.reverse)

    def _sort_by(self, name: str, reverse: bool = False) -> None:
        self.hah.change(sort=name, reverse=reverse)
        self._want()
        self._lay_out(self.size.width)
        self._sort()

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2 and event.widget is self.table and event.y > 0:
            self.action_open()

    @on(Input.Changed, "#filter")
    def _narrow(self, event: Input.Changed) -> None:
        try:
            self._filter, self._mistake = Filter.parse(event.value), ""
        except RequestError as error:  # what fitted the last filter stays in view
            self._mistake = str(error)
        mistake = self.query_one("#mistake", Static)
        mistake.update(shown_line(self._mistake, 300))
        mistake.set_class(bool(self._mistake), "wrong")
        self._want()
        self._sort()

    @on(Input.Submitted, "#filter")
    def _narrowed(self) -> None:
        self.table.focus()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()
        self.hah.in_background(self, attributes.settings)  # which take a tenth of a second, before one is typed

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
        now = attributes.kept(self.hah.settings.sort).name
        self._pick("Sort by", [now], lambda names: self._sort_by(names[0]))

    def action_reverse(self) -> None:
        self._sort_by(self.hah.settings.sort, not self.hah.settings.reverse)

    def action_columns(self) -> None:
        now = self.hah.settings.columns.split() or run_table.usual(bool(self.hah.settings.group))
        self._pick("Columns", [attributes.kept(name).name for name in now], self._have_columns, several=True)

    def _have_columns(self, names: list[str]) -> None:
        usual = tuple(names) == run_table.usual(bool(self.hah.settings.group))
        self.hah.change(columns="" if usual else " ".join(name for name in names if name != "name"))
        self._shift = 0
        self._want()
        self._lay_out(self.size.width)

    def action_more_columns(self) -> None:
        """Let the table slide over the columns for which there is no room."""
        if self._beyond:
            self._shift += 1
            self._lay_out(self.size.width)

    def action_first_columns(self) -> None:
        self._shift = max(0, self._shift - 1)
        self._lay_out(self.size.width)

    def _pick(self, title: str, now: Sequence[str], then: Callable[[list[str]], object], several: bool = False) -> None:
        """Have attributes chosen, of all that these runs have."""

        def ask(found: list[Attribute]) -> None:
            offers = [(one.name, one.about) for one in found]
            self.hah.ask(self, PickAttribute(title, offers, now, several), picked)

        def picked(names: list[str] | None) -> None:
            if names is not None:
                then(names)

        runs = list(self._rows.values())
        self.hah.in_background(self, lambda: attributes.offered(runs), ask, awaited=True)

    def action_select(self) -> None:
        group = self._group()
        names = [run.id for run in group.runs] if group else [self._current] * bool(self._current)
        if all(name in self._selected for name in names):
            self._selected = {name: None for name in self._selected if name not in names}
        else:
            self._selected.update(dict.fromkeys(names))
        self._show()
        self.table.action_cursor_down()

    def action_select_all(self) -> None:
        everything = {run.id: None for row in self._order for run in (row.runs if isinstance(row, Group) else (row,))}
        self._selected = {} if self._selected.keys() == everything.keys() else everything
        self._show()

    @on(RunTable.Unfolded)
    def _unfolded(self, event: RunTable.Unfolded) -> None:
        if event.unfold:
            self.action_unfold()
        else:
            self.action_fold()

    def action_unfold(self) -> None:
        if (group := self._group()) is not None:
            self._open.add(group.id)
            self._sort()

    def action_fold(self) -> None:
        """Fold the group under the cursor, or the one of the run under it."""
        for row in self._order:
            if isinstance(row, Group) and (row.id == self._current or any(run.id == self._current for run in row.runs)):
                self._open.discard(row.id)
                self._current = row.id
                self._sort()
                return

    def action_group(self) -> None:
        offers = [("", "every run for itself"), (groups.SEED, "runs that are equal but for their seed")]

        def ask(names: list[str]) -> None:
            offered = [*offers, *((name, "setting") for name in names)]
            self.hah.ask(self, PickAttribute("Group by", offered, [self.hah.settings.group]), group)

        def group(names: list[str] | None) -> None:
            if names is not None:
                self.hah.change(group=names[0])
                self._shift = 0
                self._want()
                self._lay_out(self.size.width)
                self._sort()

        self.hah.in_background(self, attributes.settings, ask, awaited=True)

    def action_pin(self) -> None:
        if self._group() is not None:
            self.hah.say("a group is no reference: unfold it and pin one of its runs", "warning")
            return
        same = self.hah.settings.reference == self._current
        self.hah.change(reference="" if same else self._current)
        self._show()
        self.hah.say("no reference run" if same else f"{self._current} is drawn behind other runs")

    # What is done with runs

    def target(self) -> Look | None:
        """The run under the cursor."""
        row = self._rows.get(self._current)
        if row is None and self._group() is not None:
            self.hah.say("that is for one run: unfold the group with the right arrow", "warning")
        return None if row is None else row.look

    def targets(self) -> list[Look]:
        """The selected runs, else the one under the cursor."""
        group = self._group()
        names = list(self._selected) or ([run.id for run in group.runs] if group else [self._current])
        return [self._rows[name].look for name in names if name in self._rows]

    def labels(self, look: Look) -> Labels:
        """The tags and the note of a run."""
        return self._rows[look.run.id].labels

    def acted(self) -> None:
        """The folder is read again now."""
        self.wake()

    @on(RunTable.Opened)
    def action_open(self) -> None:
        """Watch the run under the cursor, or unfold or fold a group."""
        if (group := self._group()) is not None:
            self.action_fold() if group.id in self._open else self.action_unfold()
            return
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
