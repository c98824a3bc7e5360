"""What a trained network withstands: a table beside what the paper prints, and curves over another run's; evaluations
are launched from here."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static

from engine.experiment.mistakes import RequestError
from engine.report import one_run
from engine.report.one_run import Entry, RunResults
from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.runs.watcher import Look, Watcher
from hah_tui import engines, keys
from hah_tui.base import BaseApp, Page
from hah_tui.in_turn import READING
from hah_tui.screens.evaluate import EvaluateDialog, Where
from hah_tui.text import age, duration, percent, shown_line
from hah_tui.themes import MARKS, bar, mark
from hah_tui.widgets.evaluated import Corrupted, Evaluated, Verdicts
from hah_tui.widgets.key_bar import KeyBar
from hah_tui.widgets.plot import Plot

if TYPE_CHECKING:
    from engine.experiment import Experiment

ROUND_SECONDS = 1.0  # between two looks at the evaluation that runs
_PANELS = {  # by how a heading of the table begins
    "Accuracy": "noise", "Noise": "noise", "Corruptions, severity 5": "corruptions", "Corruptions": "severity",
    "Attacks": "eps-linf", "Minimum": "eps-linf", "SNR": "snr",
    "Hoyer": "sparsity", "Active": "sparsity", "Silent": "sparsity",
}  # fmt: skip
_HUES = {"clear": "good", "suspect": "bad"}  # of verdicts; every other one is a warning


class ResultsScreen(Page):
    """The results of one run as a table or in panels, and the evaluation that is running."""

    PLACE = "results"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("results"),
        Binding("escape", "back", "back", key_display="esc"),  # ours, before the app's
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run_directory = run
        self.found = RunResults([], [], [])
        self.job: Look | None = None
        self._shown = self._read = False  # its own results; all that is to be shown
        self._stamp: object = None  # of the results that were read last
        self._table: list[Text] = []  # as it was drawn last: the heading and the rows
        self._files = Text()

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Static(id="job", classes="bar")
        table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Evaluated(id="plots")
        yield Static(id="note")
        yield Static(self._files, id="files")
        yield KeyBar(self.PLACE)

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self._show()
        look = partial(self._look, self.hah, Watcher(self.run_directory.evaluation))
        self.follow(look, self._looked, ROUND_SECONDS)

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    @property
    def plots(self) -> Evaluated:
        """The panels; shown instead of the table."""
        return self.query_one(Evaluated)

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._show()

    def _look(self, app: BaseApp, watcher: Watcher) -> tuple[RunResults | None, Look | None]:
        """The results where there are others, and the evaluation, if there is one; for a thread.

        First the run's own, which is quick, then what the other runs of the folder say of it, where that is shown.
        """
        run, found = self.run_directory, None
        job = watcher.look() if run.evaluation.state.exists() else None
        pinned = app.settings.reference
        stamp = pinned, *_stamp(run)
        try:
            if stamp != self._stamp:
                self._stamp = stamp
                found = one_run.read(run, pinned) if self.found.whole else one_run.alone(run)
            elif self._lacks(self.found):
                found = one_run.beside(self.found, pinned)
        except (OSError, RequestError) as error:
            found = replace(self.found, remarks=[str(error)], whole=True)
        return found, job

    def _looked(self, looked: tuple[RunResults | None, Look | None]) -> None:
        found, job = looked
        if found is not None:
            self.found, self._shown, self._read = found, True, not self._lacks(found)
            self._show()
            self.there(READING)  # the table is there; what it stands beside comes later
            if not self._read:
                self.wake()
        if job != self.job:
            self.job = job
            self._show_job()
            self.refresh_bindings()

    def _lacks(self, found: RunResults) -> bool:
        """Whether other runs are to be read: for mCE, or for what is behind the curves."""
        return not found.whole and (self.has_class("plots") or any(line.title == "mCE" for line in found.entries))

    def idle(self) -> set[str]:
        live, narrow = self.job is not None and self.job.live, self.size.width < 64
        return {"evaluate" if live else "stop_evaluation"} | (
            {"full_screen"} if narrow or not self.has_class("plots") else set()
        )

    def _show(self) -> None:
        colour, run = self.hah.colour, self.run_directory
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  Results  ", "bold")
        head.append(f"{shown_line(run.id)}  ", colour("accent"))
        head.append("measured beside published" if self._shown else "reading...", colour("quiet"))
        self.query_one("#head", Static).update(head, layout=False)
        self.plots.take(self.found)
        if self._shown:
            self._show_table()
        self._show_note()
        self._show_files()
        self._show_job()

    def _show_table(self) -> None:
        """Rows of one cell each, which are cheaper to draw than five; only what differs is drawn again."""
        table, width, lines = self.query_one(DataTable), self.size.width, self.found.entries
        narrow = width < 64
        number, sure = (7, 9) if narrow else (9, 14)  # cells of a measured number, and of its interval
        sure *= any(line.interval for line in lines)
        published, difference = (8, 0) if narrow else (10, 7)
        if all(line.published is None for line in lines):
            published = difference = 0
        title = max(12, width - 1 - number - sure - published) if narrow else 25
        row = partial(self._row, title, number, sure, published, difference)
        ours, theirs = ("ours", "paper") if narrow else ("measured", "published")
        head = Text(" " * title + (ours.rjust(number - 1) + " 95%" * bool(sure)).ljust(number + sure))
        head.append(_right(theirs, published)).append(_right("diff.", difference)).append("" if narrow else "of it")
        rows = [row(line) for line in lines]
        if self._table and (head, len(rows)) == (self._table[0], len(self._table) - 1):
            for place, (before, now) in enumerate(zip(self._table[1:], rows, strict=True)):
                if before != now:
                    table.update_cell_at(Coordinate(place, 0), now)
        else:
            cursor = table.cursor_row
            table.clear(columns=True)
            table.add_column(head, width=width - 1)
            table.add_rows([each] for each in rows)
            table.move_cursor(row=max(0, min(cursor, len(rows) - 1)), animate=False)
        self._table = [head, *rows]

    def _row(self, title: int, number: int, sure: int, published: int, difference: int, line: Entry) -> Text:
        """A line in columns of so many cells; what is cut says so, a verdict never is."""
        colour, plain, narrow = self.hah.colour, self.hah.plain, self.size.width < 64
        name, ours, there, moved, note = (shown_line(cell, 300) for cell in cells_of(line))
        row = Text(no_wrap=True, overflow="ellipsis")
        if line.heads:
            return row.append(name, f"bold {colour('accent')}")
        if line.verdict:
            end = max(title + number - 1, len(name) + len(ours) + 3)
            row.append(f"  {name}".ljust(end - len(ours))).append(ours, colour(_HUES.get(line.verdict, "waiting")))
        else:
            short = name if len(name) <= title - 3 else name[: title - 4] + ("~" if plain else "…")
            row.append(f"  {short}".ljust(title)).append(_right(ours, number))
            row.append(interval_of(line, narrow) if line.interval else "", colour("quiet"))
        row.pad_right(max(0, title + number + sure - len(row)))
        row.append(_right(there, published))
        row.append(_right(moved, difference), colour("waiting" if moved.startswith("-") else "good"))
        if not narrow:
            row.append(note, colour("quiet"))
        row.rstrip()
        if len(row) > self.size.width - 2:
            row.right_crop(len(row) - self.size.width + 3)
            row.append("~" if plain else "…", colour("quiet"))
        return row

    def _show_note(self) -> None:
        """What the cursor is at in full: of a table, which cuts notes and whose headings scroll away, or of a plot."""
        text, quiet = Text(), self.hah.colour("quiet")
        lines = self.found.entries[: self.query_one(DataTable).cursor_row + 1]
        if self.has_class("plots"):
            self._note_of_plot(text)
        elif lines:
            group, line = next(one.title for one in reversed(lines) if one.heads), lines[-1]
            text.append(group if line.heads else shown_line(f"{group}, {line.title}", 300))
            if line.interval:
                text.append(f"  {percent(line.ours)} {interval_of(line)} of {line.images:,} images")
            text.append(f"  {shown_line(line.note, 300)}", quiet)
        note = self.query_one("#note", Static)
        note.display = not self.has_class("plots") or not isinstance(self.plots.panel, Verdicts)
        note.update(text, layout=False)

    def _note_of_plot(self, text: Text) -> None:
        """Every series where the cursor is, else what has to be said of them."""
        panel, cursor, quiet = self.plots.panel, self.plots.cursor, self.hah.colour("quiet")
        if panel is None or isinstance(panel, Verdicts):
            return
        alike = len({tuple(series.labels) for series in panel.series}) == 1
        if cursor is None or isinstance(panel, Corrupted):
            for series in panel.series[: 1 if alike else None]:
                text.append("" if alike else f"{self._called(series.title)}: ")
                text.append(f"{shown_line(', '.join(series.labels) or 'measured in full', 300)}  ", quiet)
            if isinstance(panel, Plot):
                text.append("left, right: values" if self.hah.plain else "← →: values", quiet)
            elif panel.unsure:
                text.append(f"95% intervals up to {'+-' if self.hah.plain else '±'}{panel.unsure:.1f}", quiet)
            return
        where, found = panel.at(panel.places[cursor])
        text.append(where, self.hah.colour("accent"))
        percents = panel.figure.y_label.endswith("%")
        for series, value in found:
            text.append(f"  {self._called(series.title)} ", quiet)
            text.append(f"{value.mean:.1f}%" if percents else f"{value.mean:.3g}")
            if value.spread is not None:
                text.append(f" {'+-' if self.hah.plain else '±'} {value.spread:.{'1f' if percents else '2g'}}", quiet)
            elif value.interval:
                text.append(f" [{value.interval[0]:.1f}, {value.interval[1]:.1f}]", quiet)
            text.append("" if alike else f" {shown_line(', '.join(value.labels), 300)}", quiet)

    def _called(self, title: str) -> str:
        """A series in a sentence."""
        return "this run" if title == self.run_directory.id else shown_line(title, 120)

    def on_evaluated_moved(self) -> None:
        self._show_note()

    def on_data_table_row_highlighted(self) -> None:
        self._show_note()

    def _show_files(self) -> None:
        colour = self.hah.colour
        text = Text()
        if self._read and not self.found.entries:
            text.append("Nothing is measured yet. e: choose what to evaluate\n", "bold")
        for remark in self.found.remarks:
            text.append(f"{shown_line(remark, 300)}\n", colour("waiting"))
        files = [f"{shown_line(name)} ({age(when)} ago)" for name, when in self.found.files]
        text.append("  ".join(files) or "no result files yet", colour("quiet"))
        if text != self._files:
            self._files = text
            self.query_one("#files", Static).update(text)

    def _show_job(self) -> None:
        box, look = self.query_one("#job", Static), self.job
        box.display = look is not None and (look.live or look.status in ("failed", "lost", "stopped"))
        if look is None:
            return
        state, plain = look.state, self.hah.plain
        hue = self.hah.colour(MARKS.get(look.status, ("", "", "quiet"))[2])
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{mark(look.status, plain)} evaluation {look.status}", hue)
        if look.live:
            done = state.progress
            text.append(f"  {shown_line(state.phase, 30)}  {bar(done, 20, plain)} {100 * done:.0f}%", hue)
            if state.processes > 1:
                text.append(f"  {state.processes} processes")
            if state.eta_seconds is not None:
                text.append(f"  {duration(state.eta_seconds)} left")
        else:
            text.append(f"  {shown_line(state.error or look.why, 300)}", hue)
            text.append("  e: the same suites continue")
        box.update(text)

    # Actions

    def action_plots(self) -> None:
        """Panels instead of the table, or the table again."""
        self._turn(not self.has_class("plots"))

    def _turn(self, plots: bool) -> None:
        self.set_class(plots, "plots")
        if self._shown and self._lacks(self.found):
            self._read = False
            self.wake()
        (self.plots if plots else self.query_one(DataTable)).focus()
        self._show_note()
        self.refresh_bindings()

    def on_data_table_row_selected(self) -> None:
        self.action_full_screen()

    def action_full_screen(self) -> None:
        """The panel of the table's row; in panels the current one alone, or all again."""
        if self.has_class("plots"):
            self.plots.toggle()
            return
        lines = self.found.entries[: self.query_one(DataTable).cursor_row + 1]
        group = next((line.title for line in reversed(lines) if line.heads), "")
        norm = lines[-1].title.partition(" ")[0].lower() if lines else ""
        self.plots.find(f"eps-{norm}", next((key for start, key in _PANELS.items() if group.startswith(start)), group))
        self._turn(True)

    def action_next_panel(self) -> None:
        self._step(1)

    def action_previous_panel(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        if self.has_class("plots"):
            self.plots.go(self.plots.current + by)
        else:
            table = self.query_one(DataTable)
            table.move_cursor(row=table.cursor_row + by)

    def action_cursor_left(self) -> None:
        if self.has_class("plots"):
            self.plots.point(-1)

    def action_cursor_right(self) -> None:
        if self.has_class("plots"):
            self.plots.point(1)

    def action_earlier(self) -> None:
        if self.has_class("plots"):
            self.plots.scroll_lines(-5)

    def action_later(self) -> None:
        if self.has_class("plots"):
            self.plots.scroll_lines(5)

    def action_back(self) -> None:
        """Out of what was opened last: the cursor, a panel alone, the panels; then out of the screen."""
        if not self.has_class("plots"):
            self.hah.pop_screen()
        elif self.plots.cursor is not None:
            self.plots.unpoint()
        elif self.plots.full:
            self.plots.toggle()
        else:
            self._turn(False)

    def action_reload(self) -> None:
        self._stamp = None
        self.wake()

    def action_copy(self) -> None:
        self.hah.copy_to_clipboard(self.run_directory.id)
        self.hah.say(f"copied {self.run_directory.id}")

    def action_copy_path(self) -> None:
        self.hah.copy_to_clipboard(str(self.run_directory.path))
        self.hah.say(f"copied {self.run_directory.path}")

    def action_export_csv(self) -> None:
        """All rows, as shown, to a file in the current folder."""
        lines = self.found.entries
        target = Path.cwd() / time.strftime(f"{self.run_directory.id}-results-%Y%m%d-%H%M%S.csv")

        def write() -> None:
            text, group = io.StringIO(), ""
            table = csv.writer(text)
            table.writerow(["group", "quantity", "measured", "low", "high", "images", "published", "note"])
            for line in lines:
                if line.heads:
                    group = line.title
                else:
                    ours = line.verdict or _plain(line.ours)
                    low, high = line.interval or (None, None)
                    sure = [_plain(low), _plain(high), line.images or ""]
                    table.writerow([group, line.title, ours, *sure, _plain(line.published), line.note])
            target.write_text(text.getvalue(), encoding="utf-8")

        self.hah.in_background(self.hah, write, lambda _: self.hah.say(f"saved {target}"))

    def action_evaluate(self) -> None:
        run = self.run_directory

        def read() -> tuple[Experiment, list[str]]:
            return store.experiment_of(run, read_state(run)), engines.checkpoints(run)

        def ask(known: tuple[Experiment, list[str]]) -> None:
            self.hah.ask(self, EvaluateDialog(run, *known), self._evaluate)

        self.hah.in_background(self, read, ask, awaited=True)

    def _evaluate(self, asked: tuple[Experiment, str, Where, str] | None) -> None:
        if asked is None:
            return
        run, app = self.run_directory, self.hah
        experiment, checkpoint, where, site = asked

        def here() -> None:
            process = engines.evaluate(run, experiment, checkpoint)
            app.adopt(process)
            launch.await_start(run.evaluation, process)

        def begin(work: Callable[[], object], then: str = "") -> None:
            def begun(_: object) -> None:
                self.action_reload()
                if then:
                    app.say(f"{run.evaluation.id} {then}")

            app.say("asking for device and data...")
            app.in_background(self, work, begun, whole=where != "here")

        if where == "slurm":
            begin(partial(engines.hand_over_evaluation, run, experiment, checkpoint, site), "is Slurm's")
        elif where == "queue":
            begin(partial(engines.enqueue_evaluation, run, experiment, checkpoint), "waits in the queue")
        else:
            begin(here)

    def action_stop_evaluation(self) -> None:
        if self.job is None or not self.job.live:
            self.hah.say("no evaluation is running", "warning")
            return
        job = self.run_directory.evaluation
        said = partial(self.hah.say, "the evaluation has stopped")
        self.hah.in_background(self.hah, partial(engines.ask, job, "stop"), lambda _: said())


def _stamp(run: RunDirectory) -> tuple[Any, ...]:
    """What changes when there are other results."""
    found: list[Any] = []
    for path in (run.results, run.state):
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def _right(text: str, width: int) -> str:
    """Text at the right of a column and a blank; '' of a column without cells."""
    return f"{text:>{width - 1}} " if width else ""


def cells_of(line: Entry) -> list[str]:
    """Title, ours, published, difference, note."""
    difference = "" if line.ours is None or line.published is None else f"{100 * (line.ours - line.published):+.1f}"
    ours, there = (_number(line, value) for value in (line.ours, line.published))
    return [line.title, line.verdict or ours, there, difference, line.note]


def interval_of(line: Entry, short: bool = False) -> str:
    """The interval of a measured accuracy in percent: '[86.4, 87.7]'; ``short``: in whole ones, rounded outwards."""
    low, high = (100 * end for end in line.interval or (math.nan, math.nan))
    return f"[{math.floor(low)},{math.ceil(high)}]" if short else f"[{low:.1f}, {high:.1f}]"


def _number(line: Entry, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value) if line.percent else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
