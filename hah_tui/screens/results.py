"""What a trained network withstands, beside what the paper prints; evaluations are launched from here."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from engine.experiment.datasets import CORRUPTION_GROUPS, CORRUPTIONS, PAPER_CORRUPTIONS
from engine.experiment.mistakes import RequestError
from engine.report import networks, published
from engine.report.numbers import Number
from engine.report.published import Published
from engine.report.results import Measured, measured
from engine.report.tables import ACCURACIES, SEVERITIES, WITHOUT_FROST, corruption_error, mean_over
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


@dataclass(frozen=True)
class Line:
    """One quantity: measured and published as fractions (``percent``) or plain numbers; ``title`` alone heads a group.

    ``verdict`` stands in place of the number of a check. ``note`` says what a reader has to know of the measured one,
    or where the published one is printed.
    """

    title: str
    ours: float | None = None
    published: float | None = None
    percent: bool = True
    note: str = ""
    heads: bool = False
    verdict: str = ""

    def cells(self) -> list[str]:
        """Title, ours, published, difference, note."""
        difference = "" if self.ours is None or self.published is None else f"{100 * (self.ours - self.published):+.1f}"
        return [self.title, self.verdict or self._said(self.ours), self._said(self.published), difference, self.note]

    def _said(self, number: float | None) -> str:
        if number is None:
            return ""
        return percent(number) if self.percent else f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


@dataclass(frozen=True)
class Found:
    """What a thread has read of a run's results."""

    lines: list[Line]
    files: list[str]
    remarks: list[str]


def read_results(run: RunDirectory, pinned: str = "") -> Found:
    """Everything measured of a run, beside what the paper prints of its preset; ``pinned``: the reference run's id."""
    known = measured(run)
    files = [
        f"{path.name} ({age(path.stat().st_mtime)} ago)"
        for path in sorted(run.results.glob("[!.]*.json"), key=lambda path: path.name)
    ]
    remarks = list(known.remarks)
    if known.state.preset in networks.TABLE_PRESETS and known.experiment and not networks.printed_as(known):
        remarks.append(f"beside no published numbers: {networks.why_not(known)}")
    return Found(lines_of(known, _corruption_error(known, pinned)), files, remarks)


def lines_of(known: Measured, mce: Number | None = None) -> list[Line]:
    """The table, in the order of the paper: accuracy and robustness, corruptions, noise, norms, blocks, checks."""
    preset, numbers = networks.printed_as(known), known.numbers
    printed = {**published.TABLE_3.get(preset, {}), **published.TABLE_1.get(preset, {})}
    corrupted = published.TABLE_2.get(preset, {})
    groups: dict[str, list[Line]] = {
        "Accuracy": [
            line
            for column in ACCURACIES
            for line in (
                *_line(
                    column.title, numbers.get(column.metric), printed.get(column.name) or corrupted.get(column.name)
                ),
                *_line(f"{column.title}, worst case", numbers.get(_worst_case(column.metric))),
            )
        ],
        "Corruptions, severity 5": _severity_5(known, corrupted),
        "Corruptions, severity 1-5": _all_severities(known, mce),
        "Noise": [],
        "Attacks": [],
        "Minimum norms": [],
        "SNR at noise 0.1, dB": [],
        "Hoyer sparsity": [],
        "Active fraction": [],
        "Silent fraction": [],
    }
    above = {name for column in ACCURACIES for name in (column.metric, _worst_case(column.metric))}
    for name in sorted(numbers.keys() - above, key=_natural):
        number = numbers[name]
        match name.split("/"):
            case ["eval", "noise", level, "accuracy"]:
                groups["Noise"] += _line(level.replace("-", " "), number)
            case ["eval", "attacks", attack, what]:
                title = attack.replace("-", " ", 1).capitalize()
                groups["Attacks"] += _line(title if what == "robust_accuracy" else f"{title}, worst case", number)
            case ["eval", "minimum_norm", norm, what]:
                title = f"{norm.capitalize()} {what.replace('_', ' ')}"
                groups["Minimum norms"] += _line(title, number, percent=what not in ("mean", "median"))
            case ["eval", "noise", "0.1", "snr_db", block]:
                groups["SNR at noise 0.1, dB"] += _line(f"block {block}", number, percent=False)
            case ["eval", "sparsity", block, "hoyer"]:
                groups["Hoyer sparsity"] += _line(f"block {block}", number, percent=False)
            case ["eval", "sparsity", block, ("active_fraction" | "silent_fraction") as what]:
                groups[what.replace("_", " ").capitalize()] += _line(f"block {block}", number)
    found = [line for title, lines in groups.items() if lines for line in (Line(title, heads=True), *lines)]
    for masking in known.maskings.values():
        found.append(Line(f"Masking, {masking.title}", heads=True))
        found.append(Line("all checks", verdict=masking.verdict, note="; ".join(masking.labels)))
        found += [Line(check.name, verdict=check.verdict, note=check.words) for check in masking.checks]
    return found


def _worst_case(metric: str) -> str:
    """The metric of the worst case beside a robust accuracy; no metric's name beside any other."""
    start, _, what = metric.rpartition("/")
    return f"{start}/worst_case" if what == "robust_accuracy" else ""


def _line(title: str, number: Number | None, there: Published | None = None, percent: bool = True) -> list[Line]:
    """The line of a quantity that is measured or published; none of one that is neither."""
    if number is None and there is None:
        return []
    notes = list(number.labels) if number else ["not measured yet"]
    notes += [there.place.partition(",")[0]] if there else []
    ours, theirs = number.value if number else None, there.value if there else None
    return [Line(title, ours, theirs, percent, "; ".join(notes))]


def _means(known: Measured, severities: Sequence[int], there: Published | None = None) -> list[Line]:
    """Mean accuracy over corruptions, and over those of each group."""
    lines = _line("mean", mean_over(known, severities), there)
    for group in CORRUPTION_GROUPS:
        lines += _line(f"mean of {group}", mean_over(known, severities, group))
    return lines


def _severity_5(known: Measured, printed: dict[str, Published]) -> list[Line]:
    """Means and every corruption at the severity that the published numbers fit."""
    mean, there = mean_over(known, (5,)), printed.get(published.MEAN)
    if mean and there and WITHOUT_FROST in mean.labels:
        fifteen = fmean(printed[name].value for name in PAPER_CORRUPTIONS if name != "frost")
        there = Published(fifteen, "Table 2 without frost")
    lines = _means(known, (5,), there)
    for name in CORRUPTIONS:
        lines += _line(name.replace("_", " "), known.numbers.get(f"eval/corruptions/{name}/5"), printed.get(name))
    return lines


def _all_severities(known: Measured, mce: Number | None) -> list[Line]:
    """Means over severities 1 to 5, and mCE."""
    lines = [*_means(known, SEVERITIES), *_line("mCE", mce)]
    if mce is None and mean_over(known, SEVERITIES):
        lines.append(Line("mCE", note="relative to a pinned run or paper-standard; neither has these corruptions yet"))
    return lines


def _corruption_error(known: Measured, pinned: str) -> Number | None:
    """mCE relative to the pinned run, else to the folder's paper-standard; None where what it takes is not measured."""
    if mean_over(known, SEVERITIES) is None:
        return None
    for runs in _standards(known.run, pinned):
        means = {run.run.id: mean_over(run, SEVERITIES) for run in runs if _dataset(run) == _dataset(known)}
        standards = [run for run in runs if means.get(run.run.id) in networks.best(means.values())]
        error = corruption_error(known, standards)
        if error is not None:
            whose = f"relative to {', '.join(run.run.id for run in standards)}"
            return replace(error, labels=(*error.labels, whose))
    return None


def _standards(run: RunDirectory, pinned: str) -> Iterator[Sequence[Measured]]:
    """The pinned run, then the standard runs of the paper's size."""
    folder = run.path.parent
    if pinned not in ("", run.id):
        yield [measured(RunDirectory(folder / pinned))]
    standard = [other for other in store.all_runs(folder) if read_state(other).preset == "paper-standard"]
    if standard:
        yield networks.find([folder], standard)[0]["paper-standard"].runs


def _dataset(known: Measured) -> str:
    return str(known.experiment.get("data", {}).get("dataset"))


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
        self.found = Found([], [], [])
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

    def _look(self, app: BaseApp, watcher: Watcher) -> tuple[Found | None, Look | None]:
        """The results where there are others, and the evaluation, if there is one; for a thread."""
        run, found = self.run_directory, None
        job = watcher.look() if run.evaluation.state.exists() else None
        stamp = _stamp(run)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                found = read_results(run, app.settings.reference)
            except (OSError, RequestError) as error:
                found = Found([], [], [str(error)])
        return found, job

    def _looked(self, looked: tuple[Found | None, Look | None]) -> None:
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
        for line in self.found.lines:
            texts = []
            for place, (said, cells) in enumerate(zip(line.cells(), widths, strict=False)):
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
        if self.found.lines:
            table.move_cursor(row=min(row, len(self.found.lines) - 1), animate=False)
        self._show_note()
        self._show_files()
        self._show_job()

    def _show_note(self) -> None:
        """The line at the cursor in full, with its group: the table cuts notes, and headings scroll away."""
        lines, text = self.found.lines[: self.query_one(DataTable).cursor_row + 1], Text()
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
        if self._read and not self.found.lines:
            text.append("Nothing is measured yet. e: choose what to evaluate\n", "bold")
        for remark in self.found.remarks:
            text.append(f"{shown_line(remark, 300)}\n", colour("waiting"))
        text.append("  ".join(shown_line(name) for name in self.found.files) or "no result files yet", colour("quiet"))
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
            done = state.step / state.steps if state.steps else 0.0
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
        lines = self.found.lines
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

    def _evaluate(self, asked: tuple[Experiment, str] | None) -> None:
        if asked is None:
            return
        run, app = self.run_directory, self.hah

        def begin() -> None:
            process = engines.evaluate(run, *asked)
            app.adopt(process)
            launch.await_start(run.evaluation, process)

        app.say("asking for device and data...")
        app.in_background(self, begin, lambda _: self.action_reload())

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


def _natural(name: str) -> list[tuple[float, str]]:
    """Parts of a metric name, numbers by size."""
    parts = []
    for part in name.split("/"):
        try:
            parts.append((float(part), ""))
        except ValueError:
            parts.append((float("inf"), part))
    return parts


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
