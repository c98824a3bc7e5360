"""Two runs or more: their curves over each other, their blocks side by side, what came out and what differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from textual.binding import BindingType

from engine.experiment.mistakes import RequestError
from engine.runs import store
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
from hah_tui.curves import Source
from hah_tui.screens.dialogs import PickRun
from hah_tui.screens.panels import PanelScreen
from hah_tui.text import duration, percent, shown_line
from hah_tui.themes import MARKS, mark
from hah_tui.widgets import canvas, raster
from hah_tui.widgets.bars import Groups
from hah_tui.widgets.canvas import GOOD, QUIET, REFERENCE, STRONG, TEXT, Canvas
from hah_tui.widgets.chart import Chart, ChartLine, shown_number
from hah_tui.widgets.feed import SideBySide

_CURVES = {"loss": LOSS, "cost": HAH_COST, "clean": CLEAN, "noisy": NOISY}
_BLOCKS = {"sparsity": METRICS[SPARSITY], "snr": METRICS[SNR]}
_RESULTS = [METRICS[name] for name in (CLEAN, NOISY, TRAIN_ACCURACY, TEST_LOSS, CROSS_ENTROPY, HAH_COST, RATE)]


class CompareScreen(PanelScreen):
    """The comparison of runs; the first has the first colour."""

    PLACE = "compare"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("compare")
    PRIORITY = ("results", "clean", "loss", "differences", "sparsity", "snr", "noisy", "cost")
    LOW = ("differences",)
    IDLE_SECONDS = 2.0

    def __init__(self, runs: Sequence[RunDirectory]) -> None:
        super().__init__()
        self.runs = [Source(run) for run in runs]
        self.experiments: dict[str, dict[str, Any] | str] = {}  # by id: the settings, or why they cannot be read
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

    def panels(self) -> Sequence[Canvas]:
        return self._panels

    def sources(self) -> list[Source]:
        return self.runs

    def subject(self) -> str:
        return "-".join(source.run.id for source in self.runs)[:80]

    def prepare(self) -> None:
        for source in self.runs:
            self.hah.in_background(self, partial(_settings, source.run), partial(self._know, source.run.id))

    def _know(self, name: str, settings: dict[str, Any] | str) -> None:
        self.experiments[name] = settings
        self.changed()

    def refill(self) -> None:
        names = self._names()
        behind = self.reference
        for panel in self._panels:
            if not panel.display:
                continue
            if isinstance(panel, Groups):
                of_blocks = _BLOCKS[str(panel.id)]
                panel.names = [(name, 1 + n % 8) for n, name in enumerate(names)]
                panel.lines = [
                    ChartLine(str(block), source.curves[of_blocks.of(block)], source.curves, 1 + n % 8, band=False)
                    for n, source in enumerate(self.runs)
                    for block in source.curves.blocks(of_blocks)
                ]
            elif isinstance(panel, Chart):
                metric = _CURVES[str(panel.id)]
                band = METRICS[metric].every_step and len(self.runs) <= 3
                panel.lines = [
                    ChartLine(name, source.curves[metric], source.curves, 1 + n % 8, band=band)
                    for n, (name, source) in enumerate(zip(names, self.runs, strict=True))
                ]
                if behind is not None:
                    panel.lines.append(
                        ChartLine(behind.run.id, behind.curves[metric], behind.curves, REFERENCE, True, False)
                    )
                panel.marks = self.runs[0].curves.marks
            elif isinstance(panel, SideBySide):
                header = [("", QUIET), *((name, 1 + n % 8) for n, name in enumerate(names))]
                if panel.id == "results":
                    panel.fill(header, self._results(), "nothing measured yet")
                else:
                    same = "the same settings" if len(self.experiments) == len(self.runs) else "reading"
                    panel.fill(header, self._differences(), same)
        self.query_one("#head", Canvas).show(self._head_rows())

    def _names(self) -> list[str]:
        """What the runs are called here: as they were named, where that tells them apart, else their ids."""
        ids = [source.run.id for source in self.runs]
        named = [name.rpartition("-")[0] or name for name in ids]
        return named if len(set(named)) == len(ids) else ids

    def _head_rows(self) -> list[canvas.InkedRow]:
        width, pieces = self.size.width, [(f" {len(self.runs)} runs", STRONG)]
        second: list[tuple[str, int]] = [(" ", 0)]
        for n, source in enumerate(self.runs):
            look = source.look
            status = "gone" if source.gone else look.status if look is not None else "reading"
            ink = 1 + n % 8
            sign = raster.glyph(ink) if self.hah.plain else raster.style(ink)[1] if self.app.no_color else "━"
            pieces.append((f"  {sign} {source.run.id}", ink))
            done = f" {look.state.epoch}/{look.state.epochs}" if look is not None else ""
            second.append((f"{mark(status, self.hah.plain) if status in MARKS else ''} {status}{done}", 1 + n % 8))
            second.append(("   ", 0))
        if self.reference is not None:
            pieces.append((f"  {self.reference.run.id}", REFERENCE))
        return [canvas.row(*pieces, width=width), canvas.row(*second, width=width)]

    def _results(self) -> list[list[tuple[str, int]]]:
        """Rows of results, the best of each marked."""
        states = [source.look.state if source.look is not None else None for source in self.runs]
        rows = []
        names = {name for state in states if state for name in state.metrics if name.startswith("eval/")}
        for metric in (*_RESULTS, *map(_evaluated, sorted(names))):
            values = [state.metrics.get(metric.name, math.nan) if state else math.nan for state in states]
            if not any(map(math.isfinite, values)):
                continue
            rows.append([(metric.title, QUIET), *self._marked(values, metric)])
        if any(states):
            trained = [duration(state.trained_seconds) if state else "-" for state in states]
            rows.append([("trained", QUIET), *((text, TEXT) for text in trained)])
        return rows

    def _marked(self, values: list[float], metric: Metric) -> list[tuple[str, int]]:
        first = best(values, metric.better == "higher") if metric.better else None
        star, rate = "* " if self.hah.plain else "★ ", metric.unit == "fraction"
        texts = [percent(v) if rate and math.isfinite(v) else shown_number(v, metric.unit) for v in values]
        return [(star + text, GOOD) if n == first else (text, TEXT) for n, text in enumerate(texts)]

    def _differences(self) -> list[list[tuple[str, int]]]:
        """Rows of settings in which a run differs from the first; the experiment's own name and tags say nothing."""
        from engine.experiment.fields import differences, flatten

        known = [self.experiments.get(source.run.id, "") for source in self.runs]
        rows = [
            [("cannot be read", canvas.WAITING), *((text if isinstance(text, str) else "", QUIET) for text in known)]
        ]
        rows = rows if any(isinstance(text, str) and text for text in known) else []
        whole = [settings for settings in known if isinstance(settings, dict)]
        names: dict[str, None] = {}
        for settings in whole[1:]:
            names.update(dict.fromkeys(differences(whole[0], settings)))
        flat = [flatten(settings) if isinstance(settings, dict) else {} for settings in known]
        for name in names:
            if name not in ("name", "description", "tags"):
                texts = [shown_line(values.get(name, "-"), 60) for values in flat]
                inks = [TEXT if text == texts[0] else canvas.MARK for text in texts]
                rows.append([(name, QUIET), *zip(texts, inks, strict=True)])
        return rows

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


def _settings(run: RunDirectory) -> dict[str, Any] | str:
    """The settings of a run as they are now, or why they cannot be read."""
    try:
        return store.experiment_of(run, read_state(run)).dump()
    except RequestError as error:
        return shown_line(error.mistakes[0].what)
    except OSError as error:
        return shown_line(error.strerror)
