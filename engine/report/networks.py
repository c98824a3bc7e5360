"""Which runs are the paper's networks, and means over their seeds.

A run belongs to a preset when its network, data and training are the preset's; one that was started from a preset with
something changed is left out, and it is said why. Nor are numbers averaged that were measured in different ways: of
each metric the runs with the best count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.experiment.fingerprint import fingerprint, settings
from engine.results.groups import Group, one_of_each_seed
from engine.results.measured import Measured, measured
from engine.results.numbers import FROM_TRAINING, plain
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state

if TYPE_CHECKING:
    from engine.experiment import Experiment

PRINTED = {  # presets of which the paper prints numbers; lambda 1.0 probably acted, 0.1 is what the text says
    "paper-standard": ("paper-standard",),
    "paper-adversarial": ("paper-adversarial",),
    "paper-hah": ("paper-hah-lambda-1", "paper-hah"),
    "no-hah-loss": ("no-hah-loss",),
    "batch-norm": ("batch-norm-lambda-1", "batch-norm"),
    "no-threshold": ("no-threshold-lambda-1", "no-threshold"),
}
TABLE_PRESETS = tuple(preset for presets in PRINTED.values() for preset in presets)
BLOCKS_PRESETS = tuple(f"blocks-{count}" for count in range(7))


@dataclass(frozen=True)
class Network(Group):
    """A network of the paper with its runs, one of each seed; its name is its preset's."""

    runs: tuple[Measured, ...] = ()

    @property
    def preset(self) -> str:
        return self.name

    def without(self, name: str) -> list[str]:
        """Ids of the runs that lack a metric, or have it from training only or measured in a weaker way than others."""
        there = [number for number in self.best(name) if FROM_TRAINING not in number.labels]
        return [run.run.id for run in self.runs if run.numbers.get(name) not in there]


def find(folders: Sequence[Path], chosen: Sequence[RunDirectory] = ()) -> tuple[dict[str, Network], list[str]]:
    """The networks of the paper by preset, from runs of ``folders`` or only ``chosen`` ones, and remarks in words."""
    candidates, others = (chosen, Counter[str]()) if chosen else _candidates(folders)
    runs = [measured(run) for run in candidates]
    remarks = [remark for run in runs for remark in run.remarks]
    found: dict[str, list[Measured]] = {preset: [] for preset in targets()}
    for run in runs:
        presets = presets_of(run)
        for preset in presets:
            found[preset].append(run)
        if not presets and run.experiment:
            remarks.append(f"{run.run.id} is left out: {why_not(run)}")
    if others:
        named = ", ".join(f"{count} {plain(preset, 80) or 'unknown'}" for preset, count in sorted(others.items()))
        remarks.append(f"runs of other presets are left out: {named}; 'hah compare' takes any runs")
    for run in found["paper-adversarial"]:
        attack = run.experiment["train"]["adversarial"]
        how = f"{attack['steps']} PGD steps on the network in {attack['network']} mode"
        remarks.append(f"{run.run.id}: {how}, as the authors' repository of the tables has it; their other has 10")
    networks = {preset: _network(preset, runs, remarks) for preset, runs in found.items()}
    return networks, list(dict.fromkeys(remarks))


def presets_of(run: Measured) -> list[str]:
    """The paper's presets whose network, data and training are this run's; their names differ, nothing else."""
    group = store.group_of(run.run, run.state) if run.experiment else ""
    return [preset for preset, target in targets().items() if target == group]


def printed_as(run: Measured) -> str:
    """The preset under which the paper prints this run's network; '' of any other network."""
    presets = presets_of(run)
    return next((name for name, variants in PRINTED.items() if not set(variants).isdisjoint(presets)), "")


@cache
def targets() -> dict[str, str]:
    """The fingerprints of the paper's presets, as groups."""
    return {name: fingerprint(experiment, seed=False) for name, experiment in _presets().items()}


@cache
def _presets() -> dict[str, Experiment]:
    """The paper's presets, as shipped."""
    from engine.experiment import presets

    names = (*TABLE_PRESETS, *BLOCKS_PRESETS)
    return {name: presets.load(str(presets.shipped_folder() / f"{name}.yaml")) for name in names}


def _candidates(folders: Sequence[Path]) -> tuple[list[RunDirectory], Counter[str]]:
    """Runs of the paper's presets, and runs of other files that are the same experiments; of the other runs how many
    there are of each preset."""
    groups = set(targets().values())
    found, others = [], Counter[str]()
    for run in store.runs_of(folders):
        state = read_state(run)
        if state.preset in targets() or store.group_of(run, state) in groups:
            found.append(run)
        else:
            others[state.preset] += 1
    return found, others


def _network(preset: str, runs: Sequence[Measured], remarks: list[str]) -> Network:
    """A preset's runs, one for each seed."""
    return Network(preset, tuple(one_of_each_seed(runs, remarks)))


def why_not(run: Measured) -> str:
    """In which settings a run is not what the preset says that it was started from."""
    from engine.experiment.fields import differences

    preset = _presets().get(run.state.preset)
    if preset is None:
        return f"it is none of the paper's networks (preset {plain(run.state.preset, 80) or 'unknown'})"
    found = differences(settings(preset.dump()), settings(run.experiment))
    said = [f"{name} {new} instead of {old}" for name, (old, new) in found.items()]
    said += [f"{name} changed while it trained" for name in run.changed if name not in found]
    more = f" and {len(said) - 4} more" if len(said) > 4 else ""
    return f"not as {run.state.preset} ({plain(', '.join(said[:4]), 300)}{more})"
