"""The cases of a sweep: every metric's mean over the finished runs of each, and curves over an axis."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.report import compare, own
from engine.report.compare import BLOCK_TITLES, Quantity
from engine.report.figures import Figure
from engine.results.groups import Group
from engine.results.measured import Measured, measured
from engine.results.numbers import Number
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.metrics import METRICS, Metric
from engine.runs.state import State
from engine.runs.watcher import Look
from engine.sweep.sweeps import StoredPoint, Sweep, Trial

_OBSERVE = re.compile(r"^observe:\n(?:[ \t].*\n)*", re.MULTILINE)
_BLOCK = re.compile(r"block/(\d{1,3})/(\w+)")


@dataclass(frozen=True)
class Cases:
    """``groups``: one for each point of the sweep, in its order, of its finished runs, which may be none."""

    groups: tuple[Group, ...] = ()
    quantities: tuple[Quantity, ...] = ()

    def curves(self) -> list[Figure]:
        """Accuracies over every number in which the cases differ, as `own.axes` draws them."""
        there = [group for group in self.groups if group.runs]
        return [one for one in own.axes(there) if any(len(series.points) > 1 for series in one.series)]


def value_of(run: Measured, name: str) -> float | None:
    """A metric of one run, measured or recorded; None of what is none of a single run's, as a mean over corruptions."""
    number = run.numbers.get(name)
    return run.state.metrics.get(name) if number is None else number.value


def best(quantity: Quantity) -> set[int]:
    """Places of the best cases; of a metric of which neither more nor less is better there are none."""
    training = _training_metric(quantity.name)
    return set() if training is not None and not training[1].better else quantity.best


class CaseReader:
    """Reads what was measured of a sweep's runs, again and again; what has not changed is not read again."""

    def __init__(self) -> None:
        self._known: dict[RunDirectory, tuple[object, Measured]] = {}
        self._observed: dict[str, dict[str, Any]] = {}
        self._cases: tuple[object, Cases] | None = None

    def read(self, sweep: Sweep, trials: Sequence[Trial]) -> Cases:
        """The cases of a sweep as these trials stand; the same object where nothing has changed."""
        known, self._known = self._known, {}
        by_group: dict[str, list[Measured]] = {point.group: [] for point in sweep.points}
        for trial in trials:
            if trial.look is not None and trial.look.status == "finished":
                by_group[trial.point.group].append(self._measured(trial.point, trial.seed, trial.look, known))
        state = [(point.label, [id(run) for run in by_group[point.group]]) for point in sweep.points]
        if self._cases is None or self._cases[0] != state:
            groups = tuple(
                Group(point.label, tuple(runs), tuple(sorted({*sweep.seeds} - {run.seed for run in runs})))
                for point in sweep.points
                for runs in [by_group[point.group]]
            )
            self._cases = state, Cases(groups, tuple(_quantities(groups)))
        return self._cases[1]

    def _measured(
        self, point: StoredPoint, seed: int, look: Look, known: dict[RunDirectory, tuple[object, Measured]]
    ) -> Measured:
        run = look.run
        stamp = look.state.updated, _date(f"{run.path}/results")
        before = known.get(run)
        if before is None or before[0] != stamp:
            # Its network is the point's, which its fingerprint says; the schema would take 20 ms to say so again.
            observe = self._observe(run, look.state)
            experiment = {**point.experiment, "seed": seed, "observe": observe} if observe else None
            before = stamp, measured(run, experiment)
        self._known[run] = before
        return before[1]

    def _observe(self, run: RunDirectory, state: State) -> dict[str, Any]:
        """On what a run was tested while it trained, which is no part of its fingerprint; runs share few texts."""
        try:
            written = _OBSERVE.search(disk.read_text(run.config))
            text = f"{written[0] if written else run.id}{state.changed}"
            if text not in self._observed:
                self._observed[text] = store.experiment_of(run, state).dump()["observe"]
        except (OSError, RequestError):
            return {}
        return self._observed[text]


def _date(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 (a thousand of them)
    except OSError:
        return 0


def _quantities(groups: Sequence[Group]) -> list[Quantity]:
    """What was measured, then of each block, then what training recorded last."""
    if not any(group.runs for group in groups):
        return []
    found = compare.quantities(groups)
    for what, title in BLOCK_TITLES.items():
        for block, numbers in compare.blocks(groups, what).items():
            name, lower = compare.of_block(what, block), what != "snr_db"
            found.append(Quantity(name, f"{title}, block {block}", False, tuple(numbers), lower))
    names = dict.fromkeys(name for group in groups for run in group.runs for name in sorted(run.state.metrics))
    for name in names:
        if (known := _training_metric(name)) is not None:
            title, metric = known
            numbers_of = tuple(group.over(partial(_recorded, name)) for group in groups)
            lower = metric.better == "lower"
            found.append(Quantity(name, title, metric.unit == "fraction", numbers_of, lower))
    return found


def _training_metric(name: str) -> tuple[str, Metric] | None:
    """What a metric of the record is called, also of one block."""
    if match := _BLOCK.fullmatch(name):
        metric = METRICS.get(f"block/*/{match[2]}")
        return None if metric is None else (f"{metric.title}, block {match[1]}, in training", metric)
    metric = METRICS.get(name)
    return None if metric is None else (f"{metric.title} in training", metric)


def _recorded(name: str, run: Measured) -> Number | None:
    value = run.state.metrics.get(name)
    return None if value is None else Number(value)
