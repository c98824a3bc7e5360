"""What a trained network withstands, beside what the paper prints; evaluations are launched from here."""

from __future__ import annotations

import csv
import io
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from engine.experiment.mistakes import RequestError
from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from engine.runs.state import Look, Watcher, read_state
from hah_tui import keys, orders
from hah_tui.screens import Page
from hah_tui.screens.evaluate import EvaluateDialog
from hah_tui.text import age, duration, shown_line
from hah_tui.themes import MARKS, bar, mark

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.report.results import Measured, Number
    from hah_tui.app import HahApp

ROUND_SECONDS = 1.0  # between two looks at the evaluation that runs
_CORRUPTIONS = "Corruptions, severity 5"


@dataclass(frozen=True)
class Line:
    """One quantity: measured and published as fractions (``percent``) or plain numbers; ``title`` alone heads a group.

    ``note`` says what a reader has to know of the measured one, or where the published one is printed.
    """

    title: str
    ours: float | None = None
    published: float | None = None
    percent: bool = True
    note: str = ""
    heads: bool = False

    def cells(self) -> list[str]:
        """Title, ours, published, difference, note."""
        if self.heads:
            return [self.title, "", "", "", self.note]
        difference = "" if self.ours is None or self.published is None else f"{100 * (self.ours - self.published):+.1f}"
        return [self.title, self._said(self.ours), self._said(self.published), difference, self.note]

    def _said(self, number: float | None) -> str:
        return "" if number is None else f"{100 * number:.1f}%" if self.percent else f"{number:.3g}"


@dataclass(frozen=True)
class Found:
    """What a thread has read of a run's results."""

    lines: list[Line]
    files: list[str]
    remarks: list[str]


def read_results(run: RunDirectory) -> Found:
    """Everything measured of a run, beside what the paper prints of its preset."""
    from engine.report.results import measured

    known = measured(run)
    files = [
        f"{path.name} ({age(path.stat().st_mtime)} ago)"
        for path in sorted(run.results.glob("[!.]*.json"), key=lambda path: path.name)
    ]
    remarks = list(known.remarks)
    changed = _changed(known)
    if changed:
        remarks.append(f"not quite {known.state.preset}: {', '.join(changed)} differ")
    return Found(lines_of(known), files, remarks)


def lines_of(known: Measured) -> list[Line]:
    """The table, in the order of the paper: accuracy and robustness, corruptions, noise, norms, blocks, checks."""
    from engine.report import published
    from engine.report.results import CLEAN, attack_name, noise_name

    preset, numbers = known.state.preset, known.numbers
    of_cifar = known.experiment.get("data", {}).get("dataset") == "cifar10"
    printed = {**published.TABLE_3.get(preset, {}), **published.TABLE_1.get(preset, {})} if of_cifar else {}
    corrupted = published.TABLE_2.get(preset, {}) if of_cifar else {}

    def line(title: str, name: str, there: Any = None, percent: bool = True) -> Line | None:
        number: Number | None = numbers.get(name)
        if number is None and there is None:
            return None
        notes = [
            *(number.labels if number else ("not measured yet",)),
            *([there.place.partition(",")[0]] if there else []),
        ]
        return Line(title, number.value if number else None, there.value if there else None, percent, "; ".join(notes))

    groups: dict[str, list[Line | None]] = {
        "Accuracy": [
            line("clean", CLEAN, printed.get(published.CLEAN) or corrupted.get(published.CLEAN)),
            line("noise 0.1", noise_name(0.1), printed.get(published.NOISY)),
            line("adversarial Linf 2/255", attack_name("linf", 2 / 255), printed.get(published.LINF)),
            line("adversarial L2 0.25", attack_name("l2", 0.25), printed.get(published.L2)),
        ],
        _CORRUPTIONS: [],
        "Noise": [],
        "Attacks": [],
        "Minimum norms": [],
        "SNR at noise 0.1, dB": [],
        "Hoyer sparsity": [],
    }
    corruptions = [name.split("/")[2] for name in numbers if name.startswith("eval/corruptions/") and name[-1] == "5"]
    of_paper = [name for name in corrupted if name not in (published.CLEAN, published.MEAN)]
    for name in dict.fromkeys([*of_paper, *corruptions]):
        title = name.replace("_", " ")
        groups[_CORRUPTIONS].append(line(title, f"eval/corruptions/{name}/5", corrupted.get(name)))
    for name in sorted(numbers, key=_natural):
        match name.split("/"):
            case ["eval", "noise", level, "accuracy"] if level != "0.1":
                groups["Noise"].append(line(level.replace("-", " "), name))
            case ["eval", "attacks", attack, "robust_accuracy"] if name not in (
                attack_name("linf", 2 / 255), attack_name("l2", 0.25)
            ):  # fmt: skip
                groups["Attacks"].append(line(attack.replace("-", " "), name))
            case ["eval", "minimum_norm", norm, what]:
                percent = what == "success_rate"
                groups["Minimum norms"].append(line(f"{norm} {what.replace('_', ' ')}", name, percent=percent))
            case ["eval", "noise", "0.1", "snr_db", block]:
                groups["SNR at noise 0.1, dB"].append(line(f"block {block}", name, percent=False))
            case ["eval", "sparsity", block, "hoyer"]:
                groups["Hoyer sparsity"].append(line(f"block {block}", name, percent=False))
    found: list[Line] = []
    for title, members in groups.items():
        there = [member for member in members if member is not None]
        if there:
            found += [Line(title, heads=True), *there]
    if known.masking is not None:
        found.append(Line("Checks for masked gradients", heads=True, note=known.masking.verdict))
        found += [Line(check.name, note=f"{check.verdict}: {check.words}") for check in known.masking.checks]
    return found


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
        self._wake, self._over = threading.Event(), False

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Static(id="job", classes="bar")
        table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield table
        yield Static(id="files")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self._show()
        threading.Thread(target=self._follow, args=(self.hah,), daemon=True).start()

    def on_unmount(self) -> None:
        self._over = True
        self._wake.set()

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._show()

    def _follow(self, app: HahApp) -> None:
        """Read the results when there are others, look at the evaluation now and then."""
        run, stamp = self.run_directory, object()
        watcher = Watcher(run.evaluation)
        while not self._over:
            now = _stamp(run)
            if now != stamp:
                stamp = now
                try:
                    found = read_results(run)
                except (OSError, RequestError) as error:
                    found = Found([], [], [str(error)])
                app.hand_over(partial(self._arrived, found))
            look = watcher.look() if run.evaluation.state.exists() else None
            app.hand_over(partial(self._job_seen, look))
            self._wake.wait(ROUND_SECONDS)
            if self._wake.is_set():
                stamp = object()
            self._wake.clear()

    def _arrived(self, found: Found) -> None:
        self.found, self._read = found, True
        if self.is_mounted:
            self._show()

    def _job_seen(self, look: Look | None) -> None:
        if self.is_mounted and look != self.job:
            self.job = look
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
        title = max(12, width - 1 - 9 * 2) if narrow else 28
        widths = [
            title,
            9,
            11 if not narrow else 9,
            0 if narrow else 9,
            0 if narrow else max(10, width - 1 - title - 29),
        ]
        titles = ["", "measured", "published" if not narrow else "paper", "diff.", "of it"]
        table.clear(columns=True)
        for place, (name, cells) in enumerate(zip(titles, widths, strict=True)):
            if cells:
                table.add_column(Text(name.rjust(cells - 1) + " " if 0 < place < 4 else name), width=cells)
        for line in self.found.lines:
            texts = []
            for place, (said, cells) in enumerate(zip(line.cells(), widths, strict=True)):
                if not cells:
                    continue
                clean = shown_line(said, 300)
                clean = clean if len(clean) < cells else clean[: cells - 2] + ("~" if plain else "…")
                style = f"bold {colour('accent')}" if line.heads and place == 0 else ""
                if place == 3 and said:
                    style = colour("good" if not said.startswith("-") else "waiting")
                style = colour("quiet") if place == 4 else style
                clean = clean if line.heads or place else f"  {clean}"[: cells - 1]
                texts.append(Text(clean.rjust(cells - 1) + " " if 0 < place < 4 else clean, style, no_wrap=True))
            table.add_row(*texts)
        if self.found.lines:
            table.move_cursor(row=min(row, len(self.found.lines) - 1), animate=False)
        self._show_files()
        self._show_job()

    def _show_files(self) -> None:
        colour = self.hah.colour
        text = Text()
        if self._read and not self.found.lines:
            text.append("Nothing is measured yet. e: choose what to evaluate\n", "bold")
        text.append("  ".join(shown_line(name) for name in self.found.files) or "no result files yet", colour("quiet"))
        for remark in self.found.remarks:
            text.append(f"\n{shown_line(remark, 300)}", colour("waiting"))
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
        self._wake.set()

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
                    table.writerow([group, line.title, _plain(line.ours), _plain(line.published), line.note])
            target.write_text(text.getvalue(), encoding="utf-8")

        self.hah.in_background(write, lambda _: self.hah.say(f"saved {target}"))

    def action_evaluate(self) -> None:
        run = self.run_directory

        def read() -> tuple[Experiment, list[str]]:
            return store.experiment_of(run, read_state(run)), orders.checkpoints(run)

        def ask(known: tuple[Experiment, list[str]]) -> None:
            if self.is_current:
                self.app.push_screen(EvaluateDialog(run, *known), self._evaluate)

        self.hah.in_background(read, ask)

    def _evaluate(self, asked: tuple[Experiment, str] | None) -> None:
        if asked is None:
            return
        run, app = self.run_directory, self.hah

        def begin() -> None:
            process = orders.evaluate(run, *asked)
            app.adopt(process)
            launch.await_start(run.evaluation, process)

        app.say("asking for device and data...")
        app.in_background(begin, lambda _: self._wake.set())

    def action_stop_evaluation(self) -> None:
        if self.job is None or not self.job.live:
            self.hah.say("no evaluation is running", "warning")
            return
        job = self.run_directory.evaluation
        self.hah.in_background(partial(orders.ask, job, "stop"), lambda _: self.hah.say("the evaluation has stopped"))


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


def _changed(known: Measured) -> list[str]:
    """The settings in which a run is not the preset whose published numbers stand beside it."""
    from engine.experiment import presets
    from engine.experiment.fields import differences
    from engine.report import published

    if known.state.preset not in {**published.TABLE_1, **published.TABLE_2, **published.TABLE_3}:
        return []
    try:
        base = presets.load(known.state.preset).dump()
    except RequestError:
        return []
    aside = ("name", "description", "tags", "seed")
    names = [name for name in differences(base, known.experiment) if name not in aside]
    return [name for name in names if name.partition(".")[0] not in ("compute", "observe", "checkpoints", "evaluate")]


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
