"""Which runs are the paper's networks, and means over their seeds.

A run belongs to a preset when its network, data and training are the preset's. Runs that were started from a preset
with something changed stand in where there are no others, and say what was changed; runs that differ are never
averaged. Nor are numbers that were measured in different ways: of each metric the runs with the best count.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.report.numbers import FROM_TRAINING, Number, plain
from engine.report.results import Measured, measured
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state

if TYPE_CHECKING:
    from engine.experiment import Experiment

TABLE_PRESETS = (
    "paper-standard", "paper-adversarial", "paper-hah", "no-hah-loss", "batch-norm", "no-threshold",
)  # fmt: skip
BLOCKS_PRESETS = tuple(f"blocks-{count}" for count in range(7))
_SECTIONS = ("data", "model", "hah", "train")  # what the trained network depends on, beside the seed
_ROUNDING = ("train.compile", "train.precision")


@dataclass(frozen=True)
class Estimate:
    """A mean over ``values``, one of each run; ``spread`` is their standard deviation (n - 1), None of a single run.

    ``draws``: of each run, the standard deviation over draws of the noise where there were several.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...] = ()
    draws: tuple[float | None, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        draws = tuple(None if one is None else factor * one for one in self.draws)
        return Estimate(tuple(factor * value for value in self.values), self.labels, draws)


@dataclass(frozen=True)
class Network:
    """A network of the paper with its runs, one of each seed; ``changed``: what is not as in the preset."""

    preset: str
    runs: tuple[Measured, ...] = ()
    changed: tuple[str, ...] = ()

    def estimate(self, name: str) -> Estimate | None:
        """Mean and spread of a metric over the runs whose number of it was measured in the best way."""
        return estimate(run.numbers.get(name) for run in self.runs)

    def best(self, name: str) -> list[Number]:
        """The numbers that an estimate of a metric goes over."""
        return best(run.numbers.get(name) for run in self.runs)

    def without(self, name: str) -> list[str]:
        """Ids of the runs that lack a metric, or have it from training only or measured in a weaker way than others."""
        there = [number for number in self.best(name) if FROM_TRAINING not in number.labels]
        return [run.run.id for run in self.runs if run.numbers.get(name) not in there]


def best(numbers: Iterable[Number | None]) -> list[Number]:
    """The preferred one, and those that were measured as it was: what has to be said of them is the same."""
    found = [number for number in numbers if number]
    labels = max(found, key=lambda number: number.rank).labels if found else ()
    return [number for number in found if set(number.labels) == set(labels)]


def estimate(numbers: Iterable[Number | None]) -> Estimate | None:
    """The estimate of what was measured in the best way; None of nothing."""
    found = best(numbers)
    if not found:
        return None
    values, draws = tuple(number.value for number in found), tuple(number.draws for number in found)
    return Estimate(values, found[0].labels, draws if any(one is not None for one in draws) else ())


def find(folder: Path, chosen: Sequence[RunDirectory] = ()) -> tuple[dict[str, Network], list[str]]:
    """The networks of the paper by preset, from runs of ``folder`` or only ``chosen`` ones, and remarks in words."""
    shipped = _presets()
    targets = {name: _settings(experiment.dump()) for name, experiment in shipped.items()}
    runs = [measured(run) for run in (chosen or _candidates(folder, shipped))]
    remarks = [remark for run in runs for remark in run.remarks]
    networks, used = {}, set()
    for preset, target in targets.items():
        twins = {name for name, other in targets.items() if other == target}
        networks[preset] = _network(preset, target, twins, runs, remarks)
        used |= {run.run.id for run in networks[preset].runs}
    if chosen:
        for run in runs:
            if run.run.id not in used and not any(remark.startswith(run.run.id) for remark in remarks):
                preset = plain(run.state.preset, 80) or "unknown"
                remarks.append(
                    f"{run.run.id} is none of the paper's networks (preset {preset}); 'hah compare' takes any runs"
                )
    return networks, list(dict.fromkeys(remarks))


@cache
def _presets() -> dict[str, Experiment]:
    """The paper's presets, as shipped."""
    from engine.experiment import presets

    names = (*TABLE_PRESETS, *BLOCKS_PRESETS)
    return {name: presets.load(str(presets.shipped_folder() / f"{name}.yaml")) for name in names}


def _settings(experiment: dict[str, Any]) -> dict[str, Any]:
    """What the network depends on, by dotted name."""
    from engine.experiment.fields import flatten

    flat = flatten({section: experiment.get(section) for section in _SECTIONS})
    return {name: value for name, value in flat.items() if name not in _ROUNDING}


def _candidates(folder: Path, shipped: dict[str, Experiment]) -> list[RunDirectory]:
    """Runs of the paper's presets, and runs of other files whose config.yaml has the same network, data and training.

    Thousands of runs are told apart by the text of config.yaml, which is written by one function; few are parsed.
    """
    from engine.experiment import presets

    texts = {_text(presets.dumped(experiment)) for experiment in shipped.values()}
    found = []
    for run in store.all_runs(folder):
        state = read_state(run)
        if state.preset in shipped or _text(_read(run.config)) in texts:
            found.append(run)
    return found


def _text(config: str) -> str:
    """The part of a dumped experiment from data to train."""
    start, end = config.find("\ndata:\n"), config.find("\nobserve:\n")
    return config[start:end] if 0 <= start < end else config


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _network(
    preset: str, target: dict[str, Any], twins: set[str], runs: Sequence[Measured], remarks: list[str]
) -> Network:
    """The runs of one preset (or of a twin, which is the same network under another name), one for each seed."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for run in runs:
        changed = _changed(target, run)
        if not changed or run.state.preset in twins:
            groups.setdefault(changed, []).append(run)
    if not groups:
        return Network(preset)
    chosen = () if () in groups else max(groups, key=lambda changed: max(run.state.created for run in groups[changed]))
    for changed, others in groups.items():
        if changed != chosen:
            for run in others:
                why = f"differs from the preset ({_short(changed)})"
                remarks.append(f"{run.run.id} {why} and is not averaged with the others of {preset}")
    by_seed: dict[int | None, Measured] = {}
    for run in sorted(groups[chosen], key=_merit):
        if run.seed in by_seed:
            remarks.append(f"{by_seed[run.seed].run.id} has the seed of {run.run.id}, which stands for both")
        by_seed[run.seed] = run
    return Network(preset, tuple(sorted(by_seed.values(), key=lambda run: (run.seed or 0, run.run.id))), chosen)


def _changed(target: dict[str, Any], run: Measured) -> tuple[str, ...]:
    """The settings that are not the preset's, as 'name=value'."""
    from engine.experiment.fields import differences

    if not run.experiment:
        return ("its config.yaml cannot be read",)
    found = differences(target, _settings(run.experiment))
    return tuple(f"{name}={value}" for name, (_, value) in found.items())


def _merit(run: Measured) -> tuple[bool, int, float]:
    evaluated = sum(FROM_TRAINING not in number.labels for number in run.numbers.values())
    return run.state.status == "finished", evaluated, run.state.created


def _short(changed: Sequence[str]) -> str:
    return ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
