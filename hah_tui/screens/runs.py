"""Every run: how far it is, how good it is, and what can be done with it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from engine.runs.state import Look
from hah_tui import keys, orders
from hah_tui.listing import Listing, Row, matcher, ordered, sampled_losses
from hah_tui.screens import Page
from hah_tui.screens.dialogs import Ask, Confirm
from hah_tui.text import age, duration, percent, shown_line
from hah_tui.themes import MARKS, bar, line_of, mark

if TYPE_CHECKING:
    from hah_tui.app import HahApp

PAGE = 100  # rows the table holds; a longer list slides through them
ROUND_SECONDS = 0.5  # between two rounds over the runs folder
LOSS_SECONDS = 4.0  # between two looks at the losses of a run
SILENCE_SECONDS = 5.0  # without a round after which the folder is said not to answer

Cell = tuple[str, str]  # text and style


@dataclass(frozen=True)
class Column:
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


def columns(width: int) -> list[Column]:
    """The columns that a terminal of so many cells has room for."""
    wide = width >= 150
    every = [
        (0, Column("mark", "", 2)),
        (0, Column("id", "run", 0, order="name")),
        (64, Column("status", "status", 9, order="status")),
        (64, Column("progress", "progress", 19 if wide else 12)),
        (0, Column("percent", "", 5, True)),
        (70, Column("eta", "ETA", 8, True)),
        (0, Column("clean", "clean", 7, True, "accuracy")),
        (64, Column("noisy", "noisy", 7, True, "noisy")),
        (78, Column("loss", "loss", 17 if wide else 9)),
        (116, Column("preset", "preset", 20 if wide else 14)),
        (100, Column("device", "device", 8)),
        (90, Column("age", "age", 8, True, "created")),
        (140, Column("tags", "tags", 18)),
    ]
    chosen = [column for least, column in every if width >= least]
    left = width - 1 - sum(column.width for column in chosen)
    return [Column(c.name, c.title, left, c.right, c.order) if c.width == 0 else c for c in chosen]


class RunTable(DataTable[Text]):
    """A table whose rows are slots that a longer list slides through."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", tooltip="open the run: live, or as it was"),
        Binding("j", "cursor_down", "down", show=False),
        Binding("k", "cursor_up", "up", show=False),
        Binding("g", "scroll_top", "first", show=False),
        Binding("G", "scroll_bottom", "last", show=False),
    ]

    def action_select_cursor(self) -> None:
        self.screen.run_action_open()  # type: ignore[attr-defined]

    def action_scroll_top(self) -> None:
        self.screen.slide_to(0)  # type: ignore[attr-defined]

    def action_scroll_bottom(self) -> None:
        self.screen.slide_to(-1)  # type: ignore[attr-defined]

    action_scroll_home = action_scroll_top
    action_scroll_end = action_scroll_bottom

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if self.is_mounted and new != old:
            self.screen.see()  # type: ignore[attr-defined]

    def on_mouse_scroll_down(self) -> None:
        if self.scroll_y >= self.max_scroll_y:
            self.screen.slide(max(1, self.max_scroll_y // 2))  # type: ignore[attr-defined]

    def on_mouse_scroll_up(self) -> None:
        if self.scroll_y <= 0:
            self.screen.slide(-max(1, self.max_scroll_y // 2))  # type: ignore[attr-defined]


class RunsScreen(Page):
    """The list of runs, kept up to date by one thread."""

    PLACE = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("runs"),
        Binding("escape", "leave", "clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, Row] = {}
        self._losses: dict[str, list[float]] = {}
        self._order: list[Row] = []  # filtered and sorted
        self._offset = 0  # of the first slot in it
        self._columns: list[Column] = []
        self._cells: list[list[Cell]] = []  # what the slots show
        self._current = ""  # id of the run under the cursor
        self._selected: dict[str, None] = {}
        self._said: dict[str, Text] = {}
        self._problem = ""
        self._filter = ""
        self._followed = False  # whether the cursor stays with its run
        self._loaded = False  # one whole round is done
        self._heard = time.monotonic()
        self._visible: tuple[str, ...] = ()
        self._wake, self._over, self._watched = threading.Event(), False, True

    # Layout

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Input(placeholder="words  status:running  tag:x  preset:y", id="filter", select_on_focus=False)
        table: RunTable = RunTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="empty")
        yield Static(id="detail")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.table.focus()
        self.set_interval(1.0, self._tick)
        threading.Thread(target=self._follow, args=(self.hah, self.hah.folder), daemon=True).start()

    def on_unmount(self) -> None:
        self._over = True
        self._wake.set()

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out(event.size.width)

    def on_screen_suspend(self) -> None:
        self._watched = False

    def on_screen_resume(self) -> None:
        self._watched = True
        self._wake.set()
        self._sort()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._columns, self._said = [], {}
        self._lay_out(self.size.width)

    def _lay_out(self, width: int) -> None:
        chosen = columns(width)
        if chosen != self._columns and width:
            self._columns, self._cells = chosen, []
            self.table.clear(columns=True)
            for column in chosen:
                self.table.add_column(column.heading, width=column.width, key=column.name)
            self._show()

    # The thread that reads the folder

    def _follow(self, app: HahApp, folder: Path) -> None:
        listing = Listing(folder)
        shown, sizes, losses = -1, dict[str, tuple[float, int]](), dict[str, list[float]]()

        def give(whole: bool, drawn: bool = False) -> None:
            found = dict(listing.rows), dict(losses), listing.problem
            app.hand_over(partial(self._arrived, *found, whole, drawn))

        while not self._over:
            for _ in listing.update(self._visible):
                if listing.version != shown:
                    shown = listing.version
                    give(False)
                time.sleep(0.002)  # the screen has a turn
            read = [name for name in self._visible if name in listing.rows and _new_losses(folder, name, sizes, losses)]
            give(True, bool(read))
            self._wake.wait(ROUND_SECONDS if self._watched else 4 * ROUND_SECONDS)
            self._wake.clear()

    def _arrived(
        self, rows: dict[str, Row], losses: dict[str, list[float]], problem: str, whole: bool, drawn: bool
    ) -> None:
        if not self.is_mounted:
            return
        self._heard = time.monotonic()
        changed = rows != self._rows or problem != self._problem or whole > self._loaded
        self._rows, self._losses, self._problem = rows, losses, problem
        self._loaded = self._loaded or whole
        if not self.seen:
            return  # drawing under another screen would repaint all of that one
        if changed:
            self._selected = {name: None for name in self._selected if name in rows}
            self._sort()
        elif drawn:
            self._show()
        self._followed = self._followed or whole

    def _tick(self) -> None:
        """Ages, remaining times, and whether the folder still answers."""
        if self.seen and self.is_mounted:
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
        if not self._columns or not self.is_mounted:
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
                    table.add_row(*map(_text, cells), key=str(slot))
                    self._cells.append(cells)
                    continue
                for column, (old, new) in enumerate(zip(self._cells[slot], cells, strict=True)):
                    if old != new:
                        table.update_cell_at(Coordinate(slot, column), _text(new))
                self._cells[slot] = cells
            if page and table.cursor_row != place - self._offset:
                table.move_cursor(row=place - self._offset, animate=False, scroll=scroll)
            self.see()
            self._show_around()

    def _cells_of(self, row: Row) -> list[Cell]:
        state, look, plain, colour = row.look.state, row.look, self.hah.plain, self.hah.colour
        hue = colour(MARKS.get(look.status, ("", "", "quiet"))[2])
        quiet = colour("quiet")
        done = state.step / state.steps if state.steps else state.epoch / state.epochs if state.epochs else 0.0
        done = min(done, 1.0)
        picked = row.id in self._selected
        pin = ("^" if plain else "◈") if row.id == self.hah.settings.reference else ""
        width = {column.name: column.width for column in self._columns}
        unsure = "" if look.verified else "?"
        found: dict[str, Callable[[], Cell]] = {
            "mark": lambda: ((">" if plain else "▌") if picked else mark(look.status, plain), hue),
            "id": lambda: (_cut(row.id + (f" {pin}" if pin else ""), width["id"], plain), "bold" if picked else ""),
            "status": lambda: (_cut(look.status + unsure, 9, plain), hue),
            "progress": lambda: (bar(done, width["progress"] - 1, plain), hue if look.live else quiet),
            "percent": lambda: (f"{100 * done:3.0f}% ", ""),
            "eta": lambda: (duration(state.eta_seconds).rjust(7) + " " if look.status == "running" else "", ""),
            "clean": lambda: (percent(state.metrics.get("test/accuracy")).rjust(6) + " ", ""),
            "noisy": lambda: (percent(state.metrics.get("test/noisy_accuracy")).rjust(6) + " ", ""),
            "loss": lambda: (line_of(self._losses.get(row.id, []), width["loss"] - 1, plain), colour("live")),
            "preset": lambda: (_cut(state.preset, width["preset"], plain), quiet),
            "device": lambda: (_cut(state.device, 8, plain), quiet),
            "age": lambda: ((age(state.created) if state.created else "-").rjust(7) + " ", quiet),
            "tags": lambda: (_cut(" ".join(row.tags), 18, plain), colour("accent")),
        }
        return [found[column.name]() for column in self._columns]

    def see(self) -> None:
        """Tell the thread which runs are on the screen."""
        top = self._offset + int(self.table.scroll_y)
        self._visible = tuple(row.id for row in self._order[top : top + max(self.table.size.height, 1)])

    def slide(self, by: int) -> None:
        """The wheel is at an end of the slots: move the list through them, the picture standing still."""
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

    def slide_to(self, index: int) -> None:
        """Put the cursor on a run by its place in the list; -1 is the last."""
        if self._order:
            self._current = self._order[index].id
            place = len(self._order) - 1 if index < 0 else index
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
            head.append(f"  {_home(app.folder)}", colour("quiet"))
        self._say("#head", head)
        empty = self._loaded and not self._order
        self.set_class(empty, "empty")
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
        if self._filter:
            return Text(f"None of {len(self._rows):,} runs fits '{shown_line(self._filter)}'.\nesc clears the filter.")
        return Text.assemble(
            ("No runs yet\n\n", "bold"),
            "Press ",
            ("n", f"bold {self.hah.colour('accent')}"),
            " and pick quickstart:\na small HaH network on digits,\nunder a minute on two CPU cores.\n\n",
            (_home(self.hah.folder), self.hah.colour("quiet")),
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
        detail.append(f"\n{shown_line(row.labels.note, 300) or _home(row.look.run.path)}", colour("quiet"))
        return detail

    # Keys and clicks

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        place = self._offset + event.cursor_row
        if event.cursor_row >= len(self._cells) or place >= len(self._order):
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
            self.run_action_open()

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
        self.table.focus()
        self._sort()

    def action_refresh(self) -> None:
        self._wake.set()

    def action_sort(self) -> None:
        orders_ = list(store.ORDERS)
        following = orders_[(orders_.index(self.hah.settings.sort) + 1) % len(orders_)]
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

    def chosen(self) -> list[Row]:
        """The selected runs, else the one under the cursor."""
        names = list(self._selected) or [self._current]
        return [self._rows[name] for name in names if name in self._rows]

    def one(self) -> Row | None:
        """The run under the cursor."""
        return self._rows.get(self._current)

    def run_action_open(self) -> None:
        """Watch the run under the cursor."""
        row = self.one()
        if row is not None:
            self.hah.open_run(row.look.run)

    action_open = run_action_open

    def action_new(self) -> None:
        from hah_tui.screens.new_run import NewRunScreen

        self.hah.push_screen(NewRunScreen())

    def action_clone(self) -> None:
        from hah_tui.screens.new_run import NewRunScreen

        row = self.one()
        if row is not None:
            self.hah.push_screen(NewRunScreen(row.look.run))

    def action_compare(self) -> None:
        rows = self.chosen()
        if len(rows) < 2:
            self.hah.say("select two runs or more with space, then compare them", "warning")
            return
        from hah_tui.screens.compare import CompareScreen

        self.hah.push_screen(CompareScreen([row.look.run for row in rows]))

    def action_results(self) -> None:
        row = self.one()
        if row is not None:
            from hah_tui.screens.results import ResultsScreen

            self.hah.push_screen(ResultsScreen(row.look.run))

    def action_copy(self) -> None:
        names = " ".join(row.id for row in self.chosen())
        if names:
            self.hah.copy_to_clipboard(names)
            self.hah.say(f"copied {names}")

    def action_copy_path(self) -> None:
        row = self.one()
        if row is not None:
            self.hah.copy_to_clipboard(str(row.look.run.path))
            self.hah.say(f"copied {row.look.run.path}")

    def action_stop(self) -> None:
        self._each("stop", lambda look: look.live, lambda run: orders.ask(run, "stop"), "saves and stops", "stopped")

    def action_pause(self) -> None:
        running = ("running", "stalled")
        self._each("pause", lambda look: look.status in running, lambda run: orders.ask(run, "pause"), "", "paused")

    def action_resume(self) -> None:
        def fits(look: Look) -> bool:
            return look.status in ("paused", "stopped", "failed", "lost")

        self._each("resume", fits, self._go_on, "is being resumed", "goes on")

    def action_extend(self) -> None:
        row = self.one()
        if row is None:
            return
        if row.look.live:
            what = f"{row.id} is {row.look.status}: a run that has ended can be trained further"
            self.hah.say(what, "warning")
            return
        epoch, epochs = row.look.state.epoch, row.look.state.epochs

        def check(text: str) -> str:
            right = text.strip().isdigit() and len(text) < 9 and int(text) > epoch
            return "" if right else f"a whole number above {epoch}, the epochs trained"

        def extend(text: str | None) -> None:
            if text is not None:
                act = partial(self._go_on, epochs=int(text))
                self._each("extend", lambda _: True, act, "is being trained further", "goes on", [row])

        what = f"{epoch} of {epochs} epochs are trained. Train to which epoch?"
        self.hah.push_screen(Ask(f"Extend {row.id}", what, str(2 * max(epochs, 1)), check), extend)

    def _go_on(self, run: RunDirectory, epochs: int | None = None) -> None:
        process = orders.resume(run, epochs)
        if process is not None:
            self.hah.adopt(process)
            launch.await_start(run, process)

    def _each(
        self,
        verb: str,
        fits: Callable[[Look], bool],
        act: Callable[[RunDirectory], object],
        now: str,
        then: str,
        rows: Sequence[Row] | None = None,
    ) -> None:
        """Do something with every chosen run it can be done with, each in a thread; say what came of it."""
        rows = self.chosen() if rows is None else rows
        fitting = [row for row in rows if fits(row.look)]
        if not fitting:
            if rows:
                first = rows[0]
                self.hah.say(f"cannot {verb} {first.id}: it is {first.look.status}", "warning")
            return
        if now:
            self.hah.say(f"{fitting[0].id if len(fitting) == 1 else f'{len(fitting)} runs'}: {verb} asked for")

        def told(row: Row, _: object) -> None:
            self.hah.say(f"{row.id} {then}")
            self._wake.set()

        for row in fitting:
            self.hah.in_background(partial(act, row.look.run), partial(told, row))

    def action_tag(self) -> None:
        rows = self.chosen()
        if not rows:
            return

        def check(text: str) -> str:
            return "" if text.split() else "one or more words; -word takes one away"

        def put(text: str | None) -> None:
            if text is None:
                return
            words = text.split()

            def write() -> None:
                for row in rows:
                    store.label(
                        row.look.run,
                        add=[word for word in words if not word.startswith("-")],
                        remove=[word[1:] for word in words if word.startswith("-")],
                    )

            self.hah.in_background(write, lambda _: self._wake.set())

        have = " ".join(dict.fromkeys(tag for row in rows for tag in row.labels.tags))
        what = f"Tags now: {have}" if have else "Words to find it by; -word takes one away."
        self.hah.push_screen(Ask(f"Tag {_named(rows)}", what, "", check, "words"), put)

    def action_note(self) -> None:
        row = self.one()
        if row is None:
            return

        def put(text: str | None) -> None:
            if text is not None:
                self.hah.in_background(lambda: store.label(row.look.run, note=text), lambda _: self._wake.set())

        self.hah.push_screen(Ask(f"Note on {row.id}", "", row.labels.note), put)

    def action_delete(self) -> None:
        rows = self.chosen()
        live = [row for row in rows if row.look.live]
        if live:
            self.hah.say(f"{live[0].id} is {live[0].look.status}: stop it first. Nothing was deleted", "warning")
            return
        if rows:
            self.hah.in_background(lambda: [_contents(row) for row in rows[:50]], partial(self._confirm_delete, rows))

    def _confirm_delete(self, rows: list[Row], lines: list[str]) -> None:
        more = [f"and {len(rows) - len(lines):,} more"] if len(rows) > len(lines) else []
        where = f"from {_home(self.hah.folder)}"

        def gone(_: object) -> None:
            self._selected.clear()
            self.hah.say(f"deleted {_named(rows)}")
            self._wake.set()

        def delete(yes: bool | None) -> None:
            if yes:
                self.hah.in_background(partial(_remove, rows), gone, self._not_all_gone)

        count = "this run" if len(rows) == 1 else f"these {len(rows)} runs"
        title = f"Delete {count} for good?"
        self.hah.push_screen(Confirm(title, [*lines, *more, where], f"delete {_named(rows)}"), delete)

    def _not_all_gone(self, error: Exception) -> None:
        self.hah.complain(error)
        self._wake.set()


def _text(cell: Cell) -> Text:
    return Text(cell[0], cell[1], no_wrap=True)


def _cut(text: str, width: int, plain: bool) -> str:
    """Text on a line of its column, a gap kept after it."""
    clean = shown_line(text, 120)
    return clean if len(clean) < width else clean[: width - 2] + ("~" if plain else "…")


def _home(path: Path) -> str:
    text = shown_line(path, 300)
    home = str(Path.home())
    return "~" + text[len(home) :] if home != "/" and text.startswith(f"{home}/") else text


def _named(rows: Sequence[Row]) -> str:
    return rows[0].id if len(rows) == 1 else f"{len(rows)} runs"


def _contents(row: Row) -> str:
    """What goes with a run: its size, its checkpoints and results."""
    size = 0
    for folder, _, files in os.walk(row.look.run.path):
        for name in files:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 (many)
            except OSError:
                continue
    kept = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for what, folder in (("checkpoint", row.look.run.checkpoints), ("result", row.look.run.results))
        if (count := sum(not path.name.startswith(".") for path in _listed(folder)))
    ]
    return "  ".join([row.id, row.look.status, f"epoch {row.look.state.epoch}", f"{size / 2**20:.1f} MiB", *kept])


def _remove(rows: Sequence[Row]) -> None:
    for row in rows:
        store.remove(row.look.run)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _new_losses(folder: Path, name: str, sizes: dict[str, tuple[float, int]], losses: dict[str, list[float]]) -> bool:
    """Sample the losses of a run again if its record has grown and the last time is a while ago."""
    when, size = sizes.get(name, (0.0, -1))
    now = time.monotonic()
    if now - when < LOSS_SECONDS:
        return False
    path = folder / name / "events.jsonl"
    try:
        grown = path.stat().st_size
    except OSError:
        grown = 0
    sizes[name] = (now, grown)
    if grown == size or (size < 0 and not grown):
        return False
    losses[name] = sampled_losses(path)
    return True
