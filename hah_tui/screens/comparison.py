"""Two runs or more: their curves over each other, their blocks side by side, what came out and what differs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from textual.binding import BindingType

from engine.experiment import naming
from engine.experiment.mistakes import RequestError
from engine.results.means import standings
from engine.runs.layout import RunDirectory
from engine.runs.metrics import (
    CLEAN,
    CROSS_ENTROPY,
    HAH_COST,
    LOSS,
    METRICS,
    NOISY,
    RATE,
    SNR,
    SPARSITY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    Metric,
    Unit,
)  # fmt: skip
from engine.runs.state import read_state
from hah_tui import keys
from hah_tui.compared import Compared, candidate
from hah_tui.curves import Source
from hah_tui.run_facts import Configured, configured
from hah_tui.screens.dialogs import PickRun
from hah_tui.screens.panels import PanelScreen
from hah_tui.text import duration, percent, shown_line
from hah_tui.themes import MARKS, mark
from hah_tui.widgets import canvas, raster
from hah_tui.widgets.bars import Groups
from hah_tui.widgets.canvas import GOOD, QUIET, REFERENCE, STRONG, TEXT, Canvas
from hah_tui.widgets.chart import Chart, ChartLine, shown_number
from hah_tui.widgets.side_by_side import SideBySide

_CURVES = {"loss": LOSS, "cost": HAH_COST, "clean": CLEAN, "noisy": NOISY}
_BLOCKS = {"sparsity": METRICS[SPARSITY], "snr": METRICS[SNR]}
_RESULTS = [METRICS[name] for name in (CLEAN, NOISY, TRAIN_ACCURACY, TEST_LOSS, CROSS_ENTROPY, HAH_COST, RATE)]


class CompareScreen(PanelScreen):
    """The comparison of runs; a run keeps its colour, and beyond eight its dashes too."""

    PLACE = "compare"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("compare")
    PRIORITY = ("results", "clean", "loss", "differences", "sparsity", "snr", "noisy", "cost")
    LOW = ("differences",)
    IDLE_SECONDS = 2.0

    def __init__(self, runs: Sequence[RunDirectory]) -> None:
        super().__init__()
        self.runs = [Source(run) for run in runs]
        self.configured: dict[str, Configured] = {}  # by id
        self.unreadable: dict[str, str] = {}  # by id of the others: why
        self.entries = [Compared([source], number, self.configured) for number, source in enumerate(self.runs)]
        self.grouped = self.solo = False
        self.front: int | None = None  # the number of the entry in front of the others
        self._panels = (
            Chart("Loss", digit="1", id="loss"),
            Chart("Clean accuracy", "fraction", digit="2", id="clean"),
            Chart("Noisy accuracy", "fraction", digit="3", id="noisy"),
            Groups("Sparsity per block", digit="4", id="sparsity"),
            Groups("SNR per block, dB", digit="5", id="snr"),
            Chart("HaH cost", digit="6", id="cost"),
            SideBySide("Results", digit="7", id="results"),
            SideBySide("Settings that differ", digit="8", id="differences"),
        )
        self._call_them()

    def panels(self) -> Sequence[Canvas]:
        return self._panels

    def sources(self) -> list[Source]:
        return self.runs

    def subject(self) -> str:
        return "-".join(source.run.id for source in self.runs)[:80]

    def prepare(self) -> None:
        for source in self.runs:
            name, read = source.run.id, partial(_configured, source.run)
            self.hah.in_background(self, read, partial(self._know, name), partial(self._cannot_know, name))

    def _know(self, name: str, configured: Configured) -> None:
        self.configured[name] = configured
        if self.known:
            self._call_them()
        self.changed()

    def _cannot_know(self, name: str, error: Exception) -> None:
        said = error.mistakes[0].what if isinstance(error, RequestError) else getattr(error, "strerror", error)
        self.unreadable[name] = shown_line(said)
        self.changed()

    @property
    def known(self) -> bool:
        """Whether the settings of every run were read, or cannot be."""
        return len(self.configured) + len(self.unreadable) == len(self.runs)

    # Who is compared

    def _gather(self) -> None:
        """Make the entries: each run, or the groups of runs that are equal but for their seed."""
        hidden = {id(source) for entry in self.entries if entry.hidden for source in entry.members}
        groups: dict[str, list[Source]] = {}
        candidates = [candidate(source, self.configured) for source in self.runs]
        for source, run, standing in zip(self.runs, candidates, standings(candidates), strict=True):
            alone = not self.grouped or not run.group or standing.instead is not None
            groups.setdefault(source.run.id if alone else run.group, []).append(source)
        self.entries = [Compared(members, n, self.configured) for n, members in enumerate(groups.values())]
        for entry in self.entries:
            entry.hidden = all(id(source) in hidden for source in entry.members)
        self.front, self.solo = None, False
        self._call_them()
        self.redraw()

    def _call_them(self) -> None:
        """Call the entries by what differs, as soon as that is known."""
        ids = [entry.members[0].run.id for entry in self.entries]
        called = naming.trimmed([name.rpartition("-")[0] or name for name in ids])
        first = [known for name in ids if (known := self.configured.get(name)) is not None]
        if len(first) == len(ids):
            own = [name.rpartition("-")[0] or name for name in ids]
            names = naming.names([one.shared.network for one in first], own, ids, [one.seed for one in first])
        else:
            names = called if len(set(called)) == len(ids) else ids
        for entry, name in zip(self.entries, names, strict=True):
            entry.name = shown_line(name, 80)

    @property
    def shown(self) -> list[Compared]:
        """The entries that are drawn: all but the hidden ones, or the one in front alone."""
        if self.solo and self.front is not None:
            return [self.entries[self.front]]
        return [entry for entry in self.entries if not entry.hidden]

    def _ink(self, entry: Compared) -> int:
        """Faint where another one is in front."""
        return _ink(entry) if self.front in (None, entry.number) else _ink(entry) + canvas.FAINT

    def action_next_run(self) -> None:
        self._step_run(1)

    def action_previous_run(self) -> None:
        self._step_run(-1)

    def _step_run(self, by: int) -> None:
        """Bring another entry to the front; after the last, none."""
        places = [None, *(entry.number for entry in self.entries if not entry.hidden)]
        at = places.index(self.front) if self.front in places else 0
        self.front = places[(at + by) % len(places)]
        self.solo = self.solo and self.front is not None
        self._show_column()
        self.redraw()

    def _show_column(self) -> None:
        """Scroll the tables to the entry in front."""
        if self.front is not None:
            place = [entry.number for entry in self.shown].index(self.front)
            for panel in self._panels:
                if isinstance(panel, SideBySide):
                    panel.show_column(place)

    def action_hide_run(self) -> None:
        if self.front is None:
            for entry in self.entries:
                entry.hidden = False
        elif sum(not entry.hidden for entry in self.entries) > 1:
            self.entries[self.front].hidden = True
            self.front, self.solo = None, False
        self.redraw()

    def action_solo_run(self) -> None:
        if self.front is None:
            self.hah.say("bring a run to the front first: n", "warning")
            return
        self.solo = not self.solo
        self.redraw()

    def action_group_seeds(self) -> None:
        seeds = {(known.group, known.seed) for known in self.configured.values() if known.group}
        if not self.grouped and len({group for group, _ in seeds}) == len(seeds):
            self.hah.say("no two of these runs are equal but for their seed", "warning")
            return
        self.grouped = not self.grouped
        self._gather()

    def _move(self, cells: int) -> None:
        """The cursor of charts; in a table its columns."""
        panel = self.query_one(f"#{self.current}")
        if isinstance(panel, SideBySide):
            panel.scroll_columns(cells)
        else:
            super()._move(cells)

    def _scroll(self, back: int) -> None:
        panel = self.query_one(f"#{self.current}")
        if isinstance(panel, Groups):
            panel.scroll_blocks(-1 if back > 0 else 1)
        else:
            super()._scroll(back)

    # What is shown

    def refill(self) -> None:
        shown, behind = self.shown, self.reference
        for panel in self._panels:
            if not panel.display:
                continue
            if isinstance(panel, Groups):
                of_blocks = _BLOCKS[str(panel.id)]
                panel.names = [(entry.title, self._ink(entry), entry.number) for entry in shown]
                panel.lines = [
                    ChartLine(str(block), entry.series(of_blocks.of(block)), entry.members[0].curves, self._ink(entry),
                              band=False, owner=entry.number)
                    for entry in shown
                    for block in entry.members[0].curves.blocks(of_blocks)
                ]  # fmt: skip
            elif isinstance(panel, Chart):
                metric = _CURVES[str(panel.id)]
                few = len(shown) <= 3
                panel.lines = [
                    ChartLine(entry.title, entry.series(metric), entry.members[0].curves, self._ink(entry),
                              band=self._band(metric, entry, few), owner=entry.number, dash=_dash(entry))
                    for entry in sorted(shown, key=lambda entry: entry.number != self.front)
                ]  # fmt: skip
                if behind is not None:
                    panel.lines.append(
                        ChartLine(behind.run.id, behind.curves[metric], behind.curves, REFERENCE, True, False)
                    )
                panel.marks = shown[0].members[0].curves.marks
            elif isinstance(panel, SideBySide):
                header = [("", QUIET), *((entry.title, self._ink(entry)) for entry in shown)]
                if panel.id == "results":
                    panel.fill(header, self._results(), "nothing measured yet")
                else:
                    same = "the same settings" if self.known else "reading"
                    panel.fill(header, self._differences(), same)
        self.query_one("#head", Canvas).show(self._head_rows())

    def _band(self, metric: str, entry: Compared, few: bool) -> bool:
        """Whether what lies around a line is drawn: of a few, or of the one in front."""
        return (METRICS[metric].every_step or len(entry.members) > 1) and (few or entry.number == self.front)

    def _head_rows(self) -> list[canvas.InkedRow]:
        """Who is compared, and how they are: each where there is room, else how many."""
        width, plain, shown = self.size.width, self.hah.plain, self.shown
        count = f" {len(self.entries)} groups of {len(self.runs)} runs" if self.grouped else f" {len(self.runs)} runs"
        pieces: list[tuple[str, int]] = [(count, STRONG)]
        if len(shown) < len(self.entries):
            pieces.append((f", {len(self.entries) - len(shown)} hidden", QUIET))
        room = width - sum(len(text) for text, _ in pieces) - 6
        reference = f"  {self.reference.run.id}" if self.reference is not None else ""
        room -= len(reference)
        for place, entry in enumerate(sorted(shown, key=lambda entry: entry.number != self.front)):
            sign = raster.sign(_ink(entry), _dash(entry), plain, bool(self.app.no_color))
            said = f"  {sign} {entry.title}"
            room -= len(said)
            if room < 0:
                pieces.append((f"  +{len(shown) - place}", QUIET))
                break
            pieces.append((said, STRONG if entry.number == self.front else self._ink(entry)))
        pieces.append((reference, REFERENCE))
        second: list[tuple[str, int]] = [(" ", 0)]
        if self.front is not None or len(shown) <= 4:
            chosen = [self.entries[self.front]] if self.front is not None else shown
            for source in (source for entry in chosen for source in entry.members):
                ink = next(_ink(entry) for entry in chosen if source in entry.members)
                second += [(self._how(source, named=self.front is not None), ink), ("   ", 0)]
        else:
            statuses = Counter(_status(source) for entry in shown for source in entry.members)
            for status, many in statuses.items():
                sign = mark(status, plain) if status in MARKS else ""
                second += [(f"{sign} {many} {status}", TEXT), ("   ", 0)]
        return [canvas.row(*pieces, width=width), canvas.row(*second, width=width)]

    def _how(self, source: Source, named: bool) -> str:
        status, look = _status(source), source.look
        done = f" {look.state.epoch}/{look.state.epochs}" if look is not None else ""
        sign = mark(status, self.hah.plain) if status in MARKS else ""
        return f"{sign} {status}{done}" + (f" {source.run.id}" if named else "")

    def _results(self) -> list[list[tuple[str, int]]]:
        """Rows of results, the best of each marked; of groups the mean and spread of the finished runs."""
        shown = self.shown
        states = [source.look.state for entry in shown for source in entry.members if source.look is not None]
        rows = []
        names = {name for state in states for name in state.metrics if name.startswith("eval/")}
        for metric in (*_RESULTS, *map(_evaluated, sorted(names))):
            values = [entry.value(metric.name) for entry in shown]
            if any(math.isfinite(value) for value, _ in values):
                rows.append([(metric.title, QUIET), *self._marked(values, metric)])
        if states:
            trained = [[s.look.state.trained_seconds for s in entry.members if s.look is not None] for entry in shown]
            rows.append([("trained", QUIET), *((duration(fmean(each)) if each else "-", TEXT) for each in trained)])
        return rows

    def _marked(self, values: list[tuple[float, float]], metric: Metric) -> list[tuple[str, int]]:
        means = [mean for mean, _ in values]
        first = best(means, metric.better == "higher") if metric.better else None
        star, rate = "* " if self.hah.plain else "★ ", metric.unit == "fraction"

        def said(value: float) -> str:
            return percent(value) if rate and math.isfinite(value) else shown_number(value, metric.unit)

        between = " +- " if self.hah.plain else " ± "
        texts = [said(mean) + (between + said(spread) if math.isfinite(spread) else "") for mean, spread in values]
        return [(star + text, GOOD) if n == first else (text, TEXT) for n, text in enumerate(texts)]

    def _differences(self) -> list[list[tuple[str, int]]]:
        """Rows of settings in which an entry differs from the first, without names, tags and the seeds of groups."""
        ids, rows = [entry.members[0].run.id for entry in self.shown], []
        if any(name in self.unreadable for name in ids):
            rows.append([("cannot be read", canvas.WAITING), *((self.unreadable.get(name, ""), QUIET) for name in ids)])
        flat = [self._settings(name) for name in ids]
        whole = [settings for settings in flat if settings]
        names: dict[str, None] = {}
        for settings in whole[1:]:
            every = dict.fromkeys([*whole[0], *settings])
            names.update({name: None for name in every if settings.get(name) != whole[0].get(name)})
        silent = ("name", "description", "tags", *(("seed",) if self.grouped else ()))
        for name in names:
            if name not in silent:
                texts = [shown_line(values.get(name, "-"), 60) for values in flat]
                inks = [TEXT if text == texts[0] else canvas.MARK for text in texts]
                rows.append([(name, QUIET), *zip(texts, inks, strict=True)])
        return rows

    def _settings(self, name: str) -> dict[str, Any]:
        """A run's by dotted name, its seed among them; {} where they are not known."""
        known = self.configured.get(name)
        return {} if known is None else {"seed": known.seed, **known.shared.settings}

    def action_results(self) -> None:
        def picked(name: str | None) -> None:
            run = next((source.run for source in self.runs if source.run.id == name), None)
            if run is not None:
                self.hah.open("results", run)

        self.app.push_screen(PickRun("Whose results?", [source.run.id for source in self.runs], ""), picked)

    def action_copy(self) -> None:
        names = " ".join(source.run.id for source in self.runs)
        self.app.copy_to_clipboard(names)
        self.hah.say(f"copied {names}")


def _configured(run: RunDirectory) -> Configured:
    return configured(run, read_state(run))


def _ink(entry: Compared) -> int:
    return 1 + entry.number % canvas.LINES


def _dash(entry: Compared) -> int:
    """Of the lines beyond those that there are colours for."""
    return min(entry.number // canvas.LINES, len(raster.DASHES) - 1)


def _status(source: Source) -> str:
    return "gone" if source.gone else source.look.status if source.look is not None else "reading"


def best(values: Sequence[float], higher: bool = True) -> int | None:
    """Which of the values is the best; None for none, or where all are equal."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2 or max(finite) == min(finite):
        return None
    return list(values).index(max(finite) if higher else min(finite))


def _evaluated(name: str) -> Metric:
    """A number of an evaluation, by its name."""
    title = shown_line(name.removeprefix("eval/"), 40)
    unit: Unit = "fraction" if name.endswith("accuracy") else "number"
    return Metric(name, title, title, unit, better="higher" if "accuracy" in name else "")
