"""A sweep: cases and seeds as a grid of progress, means of any metric, an axis as a chart, and what is done with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Static

from engine.experiment.mistakes import Mistake, RequestError
from engine.report import cases, formats
from engine.report.cases import Cases
from engine.report.compare import Quantity
from engine.report.figures import Figure
from engine.results.estimates import Estimate
from engine.results.numbers import CLEAN
from engine.runs.watcher import Look
from engine.sweep import submit, sweeps
from engine.sweep.sweeps import Sweep, Trial
from hah_tui import engines, keys
from hah_tui.base import BaseApp
from hah_tui.in_turn import READING
from hah_tui.screens.dialogs import Ask, PickRun
from hah_tui.screens.pick_sweep import PickSweep, Which
from hah_tui.screens.run_actions import RunActions
from hah_tui.sweep_reader import ROUND_SECONDS, SweepNow, SweepReader
from hah_tui.text import duration, shown_line, slurm_line
from hah_tui.themes import MARKS, bar, mark
from hah_tui.widgets.canvas import GOOD, INKS, QUIET, TEXT
from hah_tui.widgets.changed_cells import send_changed_cells
from hah_tui.widgets.figure import FigureChart
from hah_tui.widgets.grid import Cell, Grid, GridColumn
from hah_tui.widgets.key_bar import KeyBar

T = TypeVar("T")
SETTLING = 0.1  # seconds until a screen that was opened is laid out
CELL = 7  # cells of a trial


class SweepScreen(RunActions):
    """The grid of one sweep, kept up to date."""

    PLACE = "sweep"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("sweep"), Binding("escape", "leave", show=False)]

    def __init__(self) -> None:
        super().__init__()
        send_changed_cells(self)
        self.known: SweepNow | None = None
        self.order: list[int] = []  # places of the points, as they are shown
        self._name = ""  # of the sweep
        self._metric, self._best_first, self._reverse = CLEAN, False, False
        self._kinds: list[tuple[str, int]] = []  # of each column: case, seed (of that place), n or mean
        self._figures: list[Figure] = []
        self._drawn: Cases | None = None  # whose figures they are
        self._figure = 0
        self._said: dict[str, Text] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield Grid()
        yield FigureChart()
        yield Static(id="detail")
        yield KeyBar(self.PLACE)

    @property
    def grid(self) -> Grid:
        return self.query_one(Grid)

    def on_mount(self) -> None:
        self.grid.focus()
        self._show()
        look = partial(self._look, self.hah, SweepReader(self.hah.folder, self.hah.slurm.now))
        self.follow(look, self._looked, ROUND_SECONDS)
        self.action_sweeps()

    def on_resize(self, event: Resize) -> None:
        self._show()

    def on_screen_resume(self) -> None:
        self._show()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._said = {}
        self._show()

    # Which sweep

    def action_sweeps(self) -> None:
        """Choose one, where there are several."""
        self.hah.in_background(self, partial(sweeps.names, self.hah.folder), self._choose, awaited=True)

    def _choose(self, names: list[str]) -> None:
        if len(names) > 1:
            self.hah.ask(self, PickSweep(names, self.hah.folder), self._take)
        elif names:
            self._take(names[0])
        else:
            self._say("#detail", Text("no sweeps yet\nctrl+l in the form of a new run, or 'hah sweep run', makes one"))

    def _take(self, name: str | None) -> None:
        if name is not None and name != self._name:
            self._name, self.known = name, None
            self.grid.put(0, 0)
            self.awaited.add(READING)
            self.wake()
        elif not self._name:
            self.dismiss()

    # Reading

    def _look(self, app: BaseApp, reader: SweepReader) -> SweepNow | None:
        """How the sweep stands, for a thread, in which a screen that has gone knows no app."""
        name = self._name
        if not name:
            return None
        first = self.known is None
        try:
            return reader.read(name, lambda now: app.call_in_app(self, partial(self._looked, now)) if first else None)
        except RequestError as error:
            return SweepNow(Sweep(name, "", "", (), ()), problem=shown_line(error.mistakes[0].what))

    def _looked(self, now: SweepNow | None) -> None:
        if now is None or now.sweep.name != self._name or now == self.known:
            return
        self.known = now
        if not self.seen:
            return
        if now.trials or now.problem:
            self._show()
        else:  # while a screen is laid out Textual sends whole rows, and these are soon filled
            self.set_timer(SETTLING, self._show)

    # What is shown

    @property
    def quantity(self) -> Quantity | None:
        """The metric whose means are shown; where it was not measured the first that was."""
        every = self.known.cases.quantities if self.known else ()
        return next((one for one in every if one.name == self._metric), every[0] if every else None)

    def _show(self) -> None:
        if not self.hah.holds(self) or not self.size.width:
            return
        if self.known is not None:
            self._lay_out(self.known)
        self._show_head()
        self._show_detail()
        if self.has_class("charted"):
            self._show_chart()

    def _lay_out(self, now: SweepNow) -> None:
        """Order the cases, choose columns for the room there is, and fill the grid; the cursor stays with its case."""
        at, quantity = self._point(), self.quantity
        self.order = list(range(len(now.sweep.points)))
        if self._best_first and quantity is not None:
            sign = 1 if quantity.lower else -1
            ranks = [sign * number.mean if number else math.inf for number in quantity.numbers]
            self.order.sort(key=ranks.__getitem__)
        if self._reverse:
            self.order.reverse()
        best = cases.best(quantity) if quantity else set()
        said = self._means(quantity, best) or ["-"] * len(now.sweep.points)
        seeds = len(now.sweep.seeds)
        heading = quantity.title + (", %" if quantity.percent else "") if quantity else "mean"
        label = max(4, max((len(point.label) for point in now.sweep.points), default=4))
        mean = GridColumn(heading, min(max(map(len, (heading, *said))), 26), True)
        count = GridColumn("n", len(f"{seeds}/{seeds}"), True)
        room = self.size.width - mean.width - count.width - 2
        first = GridColumn("case", max(4, min(label, max(12, room - seeds * (CELL + 1)), room // 2)))
        trials = [(GridColumn(str(seed), CELL), ("seed", place)) for place, seed in enumerate(now.sweep.seeds)]
        means = [(count, ("n", 0)), (mean, ("mean", 0))]
        fits = first.width + seeds * (CELL + 1) <= room
        chosen = [(first, ("case", 0)), *((*trials, *means) if fits else (*reversed(means), *trials))]
        self._kinds = [kind for _, kind in chosen]
        grid = self.grid
        if at in self.order:
            grid.row = self.order.index(at)

        def cell(row: int, column: int) -> Cell:
            place, (kind, seed) = self.order[row], self._kinds[column]
            match kind:
                case "case":
                    return shown_line(now.sweep.points[place].label), TEXT
                case _ if not now.trials:
                    return "", QUIET
                case "seed":
                    return self._cell(place, seed, quantity)
                case "n":
                    number = quantity.numbers[place] if quantity else None
                    return f"{len(number.values) if number else 0}/{seeds}", QUIET
            return said[place], GOOD if place in best else TEXT

        grid.fill([column for column, _ in chosen], len(self.order), cell)

    def _means(self, quantity: Quantity | None, best: set[int]) -> list[str]:
        """The mean of every case; where not all were measured alike, with a letter for how."""
        found, notes = [], formats.Footnotes()
        numbers = quantity.numbers if quantity else ()
        several = len({one.labels for one in numbers if one}) > 1
        star = "* " if self.hah.plain else "★ "
        for place, number in enumerate(numbers):
            if number is None or quantity is None:
                found.append("-")
                continue
            text = self._said_of(number, quantity, self.has_class("-large"))
            letters = f" {notes.mark(number.labels)}" if several and number.labels else ""
            found.append(star * (place in best) + text + letters)
        return found

    def _said_of(self, number: Estimate, quantity: Quantity, interval: bool = True) -> str:
        said = formats.said(number, quantity.percent, interval)
        return said.replace("±", "+-") if self.hah.plain else said

    def _cell(self, place: int, seed: int, quantity: Quantity | None) -> Cell:
        """A trial: its mark, and its value of the metric, or how far it is."""
        assert self.known is not None
        trial, plain = self._trial(place, seed), self.hah.plain
        if trial is None:
            return "", QUIET
        status = self.known.status(trial)
        sign, ink = mark(status, plain), INKS[MARKS.get(status, ("", "", "quiet"))[2]]
        if trial.look is None or trial.job is None:
            return sign, ink
        group = self.known.cases.groups[place] if self.known.cases.groups else None
        run = next((run for run in group.runs if run.seed == trial.seed), None) if group else None
        value = cases.value_of(run, quantity.name) if run and quantity else None
        if quantity is not None and value is not None and trial.status in ("finished", "unevaluated"):
            said = f"{100 * value:.1f}" if quantity.percent else f"{value:.3g}"
            return f"{sign} {said:.{CELL - 2}}", ink
        done = trial.job.state.progress
        return f"{sign} {bar(done, CELL - 2, plain)}" if done or status != "queued" else sign, ink

    def _show_head(self) -> None:
        colour, plain, now = self.hah.colour, self.hah.plain, self.known
        head = Text(no_wrap=True, overflow="ellipsis")
        if not self.has_class("-tiny"):
            head.append("hah-tui", f"bold {colour('primary')}")
            head.append("  Sweep  ", "bold")
        head.append(shown_line(self._name), "bold")
        if now is None:
            head.append("  reading..." if self._name else "")
        elif now.problem:
            head.append(f"  {now.problem}", f"bold {colour('bad')}")
        else:
            head.append("" if now.trials else f"  {len(now.sweep.trials):,} runs, reading...")
            counts = Counter(map(now.status, now.trials)).most_common()
            words = sum(len(f"  o {count:,} {status}") for status, count in counts) < self.size.width - len(head) - 20
            for status, count in counts:
                hue = colour(MARKS.get(status, ("", "", "quiet"))[2])
                head.append(f"  {mark(status, plain)} {count:,}" + f" {status}" * words, hue)
            if now.group.paused or now.held:
                why = f": {shown_line(now.group.reason, 100)}" if now.group.reason else ""
                head.append(f"  held{why}", f"bold {colour('waiting')}")
            if self._best_first or self._reverse:
                how = "best first" if self._best_first else "as planned"
                head.append(f"  {how}{', reversed' * self._reverse}", colour("quiet"))
            if len(now.sweep.points) >= self.grid.size.height and not self.has_class("charted"):
                head.append(f"  case {self.grid.row + 1} of {len(now.sweep.points)}", colour("quiet"))
        self._say("#head", head)

    def _show_detail(self) -> None:
        """The cell under the cursor, and the mean of its case in words."""
        now, place = self.known, self._point()
        if now is None or place is None:
            return
        colour, point = self.hah.colour, now.sweep.points[place]
        text, trial = Text(no_wrap=True, overflow="ellipsis"), self._under()
        if trial is None:
            text.append(f"{shown_line(point.label)}", "bold")
            differs = "  ".join(f"{name}={value}" for name, value in point.differs.items())
            text.append(f"  {shown_line(differs, 300)}", colour("quiet"))
        else:
            hue = colour(MARKS.get(now.status(trial), ("", "", "quiet"))[2])
            text.append(f"{shown_line(point.label)} seed {trial.seed}  ", "bold")
            text.append(trial.status if now.status(trial) == trial.status else f"{trial.status}, waits to go on", hue)
            if trial.look is not None and trial.job is not None and (job := now.job(trial)) is not None:
                state = trial.job.state
                evaluates = trial.job is not trial.look
                done = (
                    f"{state.suite} of {state.suites} suites" if evaluates else f"epoch {state.epoch} of {state.epochs}"
                )
                text.append("" if job.slurm is not None and not state.progress else f"  {done}")
                if trial.job.live and state.eta_seconds:
                    text.append(f"  ETA {duration(state.eta_seconds)}")
                why = state.error if trial.status == "failed" else slurm_line(job) or job.why
                text.append(f"  {shown_line(why, 300)}" if why else "", hue)
                text.append(f"  {trial.look.run.id}", colour("quiet"))
        text.truncate(self.size.width - 2, overflow="ellipsis")
        text.append(f"\n{self._words(now, place)}", colour("quiet"))
        self._say("#detail", text)

    def _words(self, now: SweepNow, place: int) -> str:
        """The mean of a case, over what it is, and what is left out of it."""
        quantity, seeds = self.quantity, len(now.sweep.seeds)
        number = quantity.numbers[place] if quantity else None
        if not now.trials:
            return "reading..."
        whole = now.trials[place * seeds : (place + 1) * seeds]
        left = Counter(now.status(one) for one in whole if one.look is None or one.look.status != "finished")
        out = f"; left out: {', '.join(f'{count} {status}' for status, count in left.items())}" if left else ""
        if quantity is None or number is None:
            return f"nothing measured of it yet{out}"
        said = self._said_of(number, quantity) + ("%" if quantity.percent else "")
        over = f", mean of {len(number.values)} of {seeds} seeds" if seeds > 1 else ""
        more = sum(one.look is not None and one.look.status == "finished" for one in whole) - len(number.values)
        otherwise = f", {more} measured otherwise" if more else ""
        labels = f" ({', '.join(number.labels)})" if number.labels else ""
        return shown_line(f"{quantity.title} {said}{over}{out}{otherwise}{labels}", 400)

    def _say(self, where: str, text: Text) -> None:
        if self._said.get(where) != text:
            self._said[where] = text
            self.query_one(where, Static).update(text, layout=False)

    # The cell under the cursor

    def _point(self) -> int | None:
        """The place in the plan of the case under the cursor."""
        row = self.grid.row
        return self.order[row] if self.order and row < len(self.order) else None

    def _trial(self, place: int, seed: int) -> Trial | None:
        """A trial by the places of its point and its seed; None where the runs are not read yet."""
        now = self.known
        return now.trials[place * len(now.sweep.seeds) + seed] if now is not None and now.trials else None

    def _under(self) -> Trial | None:
        place, column = self._point(), self.grid.column
        if place is None or column >= len(self._kinds) or self._kinds[column][0] != "seed":
            return None
        return self._trial(place, self._kinds[column][1])

    def target(self) -> Look | None:
        """The run of the cell under the cursor; where there is none that is said."""
        trial = self._under()
        if trial is None or trial.look is None:
            self.hah.say("that is done with the run of a cell: go to one that has a run", "warning")
            return None
        return trial.look

    def acted(self) -> None:
        """The sweep is read again now."""
        self.wake()

    @on(Grid.Moved)
    def _moved(self) -> None:
        self._show_head()
        self._show_detail()

    @on(Grid.Titled)
    def _titled(self, event: Grid.Titled) -> None:
        match self._kinds[event.column][0]:
            case "mean":
                self.action_order()
            case "case" if self._best_first:
                self.action_order()

    # What is done

    @on(Grid.Opened)
    def action_open(self) -> None:
        trial = self._under()
        if trial is None:
            self.hah.say("enter opens the run of a cell: go to the column of a seed")
        elif trial.look is None:
            self.hah.say(f"there is no run of {trial.point.label} with seed {trial.seed} yet; r makes it", "warning")
        else:
            self.hah.open("monitor", trial.look.run)

    def action_refresh(self) -> None:
        self.wake()

    def action_stop_some(self) -> None:
        """Ask which is meant: this run or all of the sweep."""
        now, trial = self.known, self._under()
        if now is None:
            return
        waiting = sum(now.status(one) == "queued" for one in now.trials)
        live = sum(one.job is not None and one.job.live and one.status != "queued" for one in now.trials)
        answers = {}
        if trial is not None and trial.job is not None and (trial.job.live or now.status(trial) == "queued"):
            answers["y"] = f"stop {trial.look.run.id if trial.look else ''}"
        if live + waiting > 0:
            answers["a"] = "stop all"
        if not answers:
            self.hah.say("nothing of it runs or waits", "warning")
            return

        def stop(answer: str | None) -> None:
            if answer == "y":
                self.action_stop()
            elif answer == "a":
                self._do(partial(engines.stop_sweep, sweep=now.sweep), self._stopped, "stopping")

        lines = [f"{live} of its runs are at work, {waiting} wait.", "Stopped runs are saved; r goes on with them."]
        self.hah.push_screen(Which(f"Stop {now.sweep.name}?", lines, answers), stop)

    def _stopped(self, counts: tuple[int, int, list[Mistake]]) -> None:
        waiting, stopped, refused = counts
        self.hah.say(f"{self._name}: {waiting} no longer wait, {stopped} stopped")
        for mistake in refused:
            self.hah.say(mistake, "error")

    def action_retry(self) -> None:
        """Ask what of it is to be gone on with."""
        if self.known is not None:
            trials = [one for one in self.known.trials if one.look is None or one.look.run not in self.known.again]
            ask = partial(self._ask_retry, self.known.sweep)
            self.hah.in_background(self, partial(_to_do, trials), ask, awaited=True)

    def _ask_retry(self, sweep: Sweep, counts: Counter[str]) -> None:
        if not counts:
            self.hah.say(f"nothing of {sweep.name} has failed, was stopped or is missing")
            return
        failed, others = counts["failed"], counts.total() - counts["failed"]
        answers = {"y": "all of it"} | ({"o": "but not what failed"} if failed and others else {})

        def go(answer: str | None) -> None:
            if answer is not None:
                act = partial(submit.go, sweep=sweep, failed=answer == "y")
                self._do(act, lambda done: self._queued(sum(done.values()) - done.get("", 0)), "queueing")

        lines = [", ".join(f"{count} {status}" for status, count in counts.most_common())]
        self.hah.ask(self, Which(f"Queue again of {sweep.name}?", lines, answers), go)

    def action_more_seeds(self) -> None:
        if self.known is None or self.known.problem:
            return
        sweep = self.known.sweep
        have = len(sweep.seeds)

        def check(text: str) -> str:
            if not (text.strip().isdecimal() and len(text) < 5 and int(text) > have):
                return f"a whole number above {have}"
            try:
                sweeps.extended(sweep, int(text))
            except RequestError as error:
                return error.mistakes[0].what
            return ""

        def more(folder: Path, seeds: int) -> int:
            done = submit.go(folder, submit.extend(folder, sweep, seeds))
            return sum(done.values()) - done.get("", 0)

        def put(text: str | None) -> None:
            if text is not None:
                self._do(partial(more, seeds=int(text)), self._queued, "queueing")

        what = f"{have} seeds of {len(sweep.points)} cases. How many in all? Only what is new runs."
        self.hah.push_screen(Ask(f"Extend {sweep.name}", what, str(have + 1), check, over=True), put)

    def _queued(self, count: int) -> None:
        self.hah.say(f"{self._name}: {count} runs wait in the queue")

    def _do(self, work: Callable[[Path], T], then: Callable[[T], object], verb: str) -> None:
        """Ask something of the sweep, then look at it again."""
        self.hah.say(f"{self._name}: {verb}")

        def told(outcome: T) -> None:
            then(outcome)
            self._acted()

        self.hah.in_background(self.hah, partial(work, self.hah.folder), told, whole=True)

    # The metric, the order, the chart

    def action_metric(self) -> None:
        every = {one.title: one.name for one in (self.known.cases.quantities if self.known else ())}
        if not every:
            self.hah.say("nothing is measured yet: means are over finished runs", "warning")
            return

        def take(title: str | None) -> None:
            if title:
                self._metric = every[title]
                self._show()

        self.hah.push_screen(PickRun("Which metric?", list(every), "", "words of its name"), take)

    def action_order(self) -> None:
        self._best_first = not self._best_first
        self._from_the_top()

    def action_reverse_order(self) -> None:
        self._reverse = not self._reverse
        self._from_the_top()

    def _from_the_top(self) -> None:
        """Show another order; the cursor stays with no case then."""
        self.order, self.grid.row = [], 0
        self._show()

    def action_axis(self) -> None:
        self.toggle_class("charted")
        self._figure = 0
        (self.query_one(FigureChart) if self.has_class("charted") else self.grid).focus()
        self.call_after_refresh(self._show)

    def action_next_axis(self) -> None:
        if self.has_class("charted") and self._figures:
            self._figure = (self._figure + 1) % len(self._figures)
            self._show_chart()

    def _show_chart(self) -> None:
        now = self.known
        if now is None:
            return
        if self._drawn is not now.cases:
            self._drawn, self._figures = now.cases, now.cases.curves()
        self._figure = min(self._figure, max(0, len(self._figures) - 1))
        chart = self.query_one(FigureChart)
        if self._figures:
            chart.draw(self._figures[self._figure])
            more = (
                f"chart {self._figure + 1} of {len(self._figures)}, tab: the next; " if len(self._figures) > 1 else ""
            )
            there, every = sum(bool(group.runs) for group in now.cases.groups), len(now.cases.groups)
            sign = "+-" if self.hah.plain else "±"
            over = f"{more}means {sign} standard deviation over finished seeds of {there} of {every} cases"
            self._say("#detail", Text(f"{over}\nleft, right: read a value; a: the table", self.hah.colour("quiet")))
        else:
            chart.draw(None, _why_no_chart(now))
            self._say("#detail", Text("a: the table", self.hah.colour("quiet")))

    async def action_leave(self) -> None:
        if self.has_class("charted"):
            self.action_axis()
        else:
            await self.hah.run_action("back")


def _to_do(trials: Sequence[Trial]) -> Counter[str]:
    """How many of which status there is something to be done for, also of what failed; for a thread."""
    return Counter(trial.status for trial in trials if submit.act_for(trial, failed=True))


def _why_no_chart(now: SweepNow) -> str:
    """Why a sweep is no chart."""
    there = sum(bool(group.runs) for group in now.cases.groups)
    names = dict.fromkeys(name for point in now.sweep.points for name in point.differs)
    numbers = [
        name
        for name in names
        if all(isinstance(point.differs.get(name), int | float) for point in now.sweep.points)
    ]  # fmt: skip
    if not numbers:
        return "no chart: the cases differ in no number that all of them have"
    if there < 2:
        return f"no chart yet: {there} of {len(now.sweep.points)} cases have a finished run; two are needed"
    return f"no chart: no accuracy was measured of two cases that differ in {numbers[0]} alone"
