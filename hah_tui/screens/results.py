"""What a trained network withstands, beside what the paper prints; evaluations are launched from here."""

from __future__ import annotations

import csv
import io
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from engine.experiment.mistakes import RequestError
from engine.report import one_run
from engine.report.one_run import Entry, RunResults
from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.runs.watcher import Look, Watcher
from hah_tui import engines, keys
from hah_tui.base import BaseApp, Page
from hah_tui.screens.evaluate import EvaluateDialog
from hah_tui.text import age, duration, percent, shown_line
from hah_tui.themes import MARKS, bar, mark

if TYPE_CHECKING:
    from engine.experiment import Experiment

ROUND_SECONDS = 1.0  # between two looks at the evaluation that runs
_HUES = {"clear": "good", "suspect": "bad"}  # of verdicts; every other one is a warning


class ResultsScreen(Page):
    """The results of one run, and the evaluation that is running."""

    PLACE = "results"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("results"),
        Binding("j", "scroll(1)", "down", show=False),
        Binding("k", "scroll(-1)", "up", show=False),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run_directory = run
        self.found = RunResults([], [], [])
        self.job: Look | None = None
        self._read = False
        self._stamp: object = None  # of the results that were read last

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Static(id="job", classes="bar")
        table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="note")
        yield Static(id="files")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self._show()
        look = partial(self._look, self.hah, Watcher(self.run_directory.evaluation))
        self.follow(look, self._looked, ROUND_SECONDS)

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._show()

    def _look(self, app: BaseApp, watcher: Watcher) -> tuple[RunResults | None, Look | None]:
        """The results where there are others, and the evaluation, if there is one; for a thread."""
        run, found = self.run_directory, None
        job = watcher.look() if run.evaluation.state.exists() else None
        stamp = _stamp(run)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                found = one_run.read(run, app.settings.reference)
            except (OSError, RequestError) as error:
                found = RunResults([], [], [str(error)])
        return found, job

    def _looked(self, looked: tuple[RunResults | None, Look | None]) -> None:
        found, job = looked
        if found is not None:
            self.found, self._read = found, True
            self._show()
        if job != self.job:
            self.job = job
            self._show_job()
            self.refresh_bindings()

    def idle(self) -> set[str]:
        return {"evaluate"} if self.job is not None and self.job.live else {"stop_evaluation"}

    def _show(self) -> None:
        plain, colour, run = self.hah.plain, self.hah.colour, self.run_directory
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  Results  ", "bold")
        head.append(f"{shown_line(run.id)}  ", colour("accent"))
        head.append("measured beside published" if self._read else "reading...", colour("quiet"))
        self.query_one("#head", Static).update(head, layout=False)
        table = self.query_one(DataTable)
        width, row = self.size.width, table.cursor_row
        narrow = width < 64
        numbers = [11, 8] if narrow else [11, 11, 9]
        title = max(12, width - 1 - sum(numbers)) if narrow else 26
        widths = [title, *numbers, *([] if narrow else [max(10, width - 1 - title - sum(numbers))])]
        titles = ["", "measured", "paper" if narrow else "published", "diff.", "of it"]
        table.clear(columns=True)
        for place, (name, cells) in enumerate(zip(titles, widths, strict=False)):
            table.add_column(Text(name.rjust(cells - 1) + " " if 0 < place < 4 else name), width=cells)
        for line in self.found.entries:
            texts = []
            for place, (said, cells) in enumerate(zip(cells_of(line), widths, strict=False)):
                clean = shown_line(said, 300)
                clean = clean if line.heads or place else f"  {clean}"
                clean = clean if len(clean) < cells else clean[: cells - 2] + ("~" if plain else "…")
                style = f"bold {colour('accent')}" if line.heads and place == 0 else ""
                if place == 1 and line.verdict:
                    style = colour(_HUES.get(line.verdict, "waiting"))
                if place == 3 and said:
                    style = colour("good" if not said.startswith("-") else "waiting")
                style = colour("quiet") if place == 4 else style
                texts.append(Text(clean.rjust(cells - 1) + " " if 0 < place < 4 else clean, style, no_wrap=True))
            table.add_row(*texts)
        if self.found.entries:
            table.move_cursor(row=min(row, len(self.found.entries) - 1), animate=False)
        self._show_note()
        self._show_files()
        self._show_job()

    def _show_note(self) -> None:
        """The line at the cursor in full, with its group: the table cuts notes, and headings scroll away."""
        lines, text = self.found.entries[: self.query_one(DataTable).cursor_row + 1], Text()
        if lines:
            group = next(line.title for line in reversed(lines) if line.heads)
            text.append(group if lines[-1].heads else shown_line(f"{group}, {lines[-1].title}", 300))
            text.append(f"  {shown_line(lines[-1].note, 300)}", self.hah.colour("quiet"))
        self.query_one("#note", Static).update(text, layout=False)

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
            if state.eta_seconds is not None:
                text.append(f"  {duration(state.eta_seconds)} left")
        else:
            text.append(f"  {shown_line(state.error or look.reason, 300)}", hue)
            text.append("  e: the same suites continue")
        box.update(text)

    # Actions

    def action_scroll(self, by: int) -> None:
        table = self.query_one(DataTable)
        table.move_cursor(row=table.cursor_row + by)

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
            table.writerow(["group", "quantity", "measured", "published", "note"])
            for line in lines:
                if line.heads:
                    group = line.title
                else:
                    ours = line.verdict or _plain(line.ours)
                    table.writerow([group, line.title, ours, _plain(line.published), line.note])
            target.write_text(text.getvalue(), encoding="utf-8")

        self.hah.in_background(self.hah, write, lambda _: self.hah.say(f"saved {target}"))

    def action_evaluate(self) -> None:
        run = self.run_directory

        def read() -> tuple[Experiment, list[str]]:
            return store.experiment_of(run, read_state(run)), engines.checkpoints(run)

        def ask(known: tuple[Experiment, list[str]]) -> None:
            if self.is_current:
                self.app.push_screen(EvaluateDialog(run, *known), self._evaluate)

        self.hah.in_background(self, read, ask)

    def _evaluate(self, asked: tuple[Experiment, str, bool] | None) -> None:
        if asked is None:
            return
        run, app = self.run_directory, self.hah
        experiment, checkpoint, queued = asked

        def begin() -> None:
            if queued:
                engines.enqueue_evaluation(run, experiment, checkpoint)
                return
            process = engines.evaluate(run, experiment, checkpoint)
            app.adopt(process)
            launch.await_start(run.evaluation, process)

        def begun(_: None) -> None:
            self.action_reload()
            if queued:
                app.say(f"{run.evaluation.id} waits in the queue")

        app.say("asking for device and data...")
        app.in_background(self, begin, begun)

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


def cells_of(line: Entry) -> list[str]:
    """Title, ours, published, difference, note."""
    difference = "" if line.ours is None or line.published is None else f"{100 * (line.ours - line.published):+.1f}"
    ours, there = (_number(line, value) for value in (line.ours, line.published))
    return [line.title, line.verdict or ours, there, difference, line.note]


def _number(line: Entry, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value) if line.percent else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
