"""Which runs are the paper's networks, and means over their seeds.

A run belongs to a preset when its network, data and training are the preset's; one that was started from a preset with
something changed is left out, and it is said why. Only where the width alone differs, or it and one switch of the
HaH network, runs make a *study*, which stands apart. Nor are numbers averaged that were measured differently: of
each metric the runs with the best count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine import disk
from engine.experiment import naming
from engine.experiment.fields import differences
from engine.experiment.fingerprint import fingerprint, settings
from engine.experiment.mistakes import RequestError
from engine.results.groups import Group, one_of_each_seed
from engine.results.measured import Measured, measured
from engine.results.numbers import FROM_TRAINING, plain
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import State, read_state

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
_BETWEEN = tuple(f"blocks-{count}-lambda-1" for count in range(1, 6))  # the presets blocks-N with lambda 1.0
BLOCKS_LAMBDA_1 = ("paper-standard", *_BETWEEN, "paper-hah-lambda-1")
_REFERENCES = ("paper-hah-lambda-1", "paper-hah")  # whose switches a study turns
WIDTH = "model.width"


@dataclass(frozen=True)
class Network(Group):
    """A network of the paper with its runs, one of each seed; its name is its preset's. ``width``: as a multiple of the
    paper's."""

    runs: tuple[Measured, ...] = ()
    width: float = 1.0

    @property
    def command(self) -> str:
        """What trains it."""
        preset, sets = (
            (self.name.removesuffix("-lambda-1"), ["hah.lambda=1.0"]) if self.name in _BETWEEN else (self.name, [])
        )
        sets += [f"{WIDTH}={self.width:g}"] if self.width != 1 else []
        return " ".join((f"hah run {preset}", *(f"--set {one}" for one in sets)))

    @property
    def preset(self) -> str:
        return self.name

    def without(self, name: str) -> list[str]:
        """Ids of the runs that lack a metric, or have it from training only or measured in a weaker way than others."""
        there = [number for number in self.best(name) if FROM_TRAINING not in number.labels]
        return [run.run.id for run in self.runs if run.numbers.get(name) not in there]


@dataclass(frozen=True)
class Study:
    """Runs that are the paper's networks but for one ``width``, by preset; ``switched``: its HaH network with one more
    setting changed, each with the preset that it is changed from, called by what differs."""

    width: float
    networks: dict[str, Network]
    switched: tuple[tuple[str, Network], ...] = ()

    @property
    def runs(self) -> list[Measured]:
        """All of them, each once."""
        every = (*self.networks.values(), *(network for _, network in self.switched))
        return list({run.run: run for network in every for run in network.runs}.values())


class Found(NamedTuple):
    networks: dict[str, Network]
    studies: list[Study]
    remarks: list[str]


def width_title(width: float) -> str:
    """A width as a multiple of the paper's: 'width 1/4', 'width 0.3'."""
    part = round(1 / width)
    return f"width 1/{part}" if part > 1 and abs(part * width - 1) < 1e-9 else f"width {width:g}"


def find(folders: Sequence[Path], chosen: Sequence[RunDirectory] = ()) -> Found:
    """The networks of the paper by preset, from runs of ``folders`` or only ``chosen`` ones, studies of other widths,
    and remarks in words."""
    candidates, others = (chosen, Counter[str]()) if chosen else _candidates(folders)
    runs = [measured(run) for run in candidates]
    remarks = [remark for run in runs for remark in run.remarks]
    found: dict[str, list[Measured]] = {preset: [] for preset in targets()}
    studies: dict[float, dict[str, list[Measured]]] = {}
    for run in runs:
        presets = presets_of(run)
        for preset in presets:
            found[preset].append(run)
        if presets or not run.experiment:
            continue
        if places := _in_study(run):
            for place in places:
                studies.setdefault(run.experiment["model"]["width"], {}).setdefault(place, []).append(run)
        elif run.state.preset in targets() or chosen:
            remarks.append(f"{run.run.id} is left out: {why_not(run)}")
        else:
            others[run.state.preset] += 1
    if others:
        named = ", ".join(f"{count} {plain(preset, 80) or 'unknown'}" for preset, count in sorted(others.items()))
        remarks.append(f"runs of other presets are left out: {named}; 'hah compare' takes any runs")
    for run in found["paper-adversarial"]:
        attack = run.experiment["train"]["adversarial"]
        how = f"{attack['steps']} PGD steps on the network in {attack['network']} mode"
        remarks.append(f"{run.run.id}: {how}, as the authors' repository of the tables has it; their other has 10")
    networks = {preset: _network(preset, runs, remarks) for preset, runs in found.items()}
    of_studies = [_study(width, places, remarks) for width, places in sorted(studies.items(), reverse=True)]
    for study in of_studies:
        count = f"{len(study.runs)} run{'s' if len(study.runs) > 1 else ''}"
        remarks.append(f"{count} of {width_title(study.width)} instead of 1 stand apart: not the paper's network")
    return Found(networks, of_studies, list(dict.fromkeys(remarks)))


def _in_study(run: Measured) -> list[str]:
    """The presets that a run is but for its width, else 'preset setting value' where one switch more is turned; [] of
    any other run."""
    if run.changed or run.experiment["model"]["width"] == 1:
        return []
    own = settings(run.experiment)
    every = {name: differences(settings(preset.dump()), own) for name, preset in _presets().items()}
    if same := [name for name, found in every.items() if set(found) == {WIDTH}]:
        return same
    for name in _REFERENCES:
        if len(every[name]) == 2 and WIDTH in every[name]:
            [setting] = every[name].keys() - {WIDTH}
            if setting.startswith("data.") or setting == "train.epochs":
                return []
            return [f"{name} {setting} {every[name][setting][1]}"]
    return []


def _study(width: float, places: dict[str, list[Measured]], remarks: list[str]) -> Study:
    networks = {
        preset: Network(preset, tuple(one_of_each_seed(places.get(preset, []), remarks)), width=width)
        for preset in targets()
    }
    switched = []
    for place, runs in sorted(places.items()):
        if place not in networks:
            reference = place.partition(" ")[0]
            base = settings(_presets()[reference].dump()) | {WIDTH: width}
            [_, words] = naming.what_differs([base, settings(runs[0].experiment)])
            members = tuple(one_of_each_seed(runs, remarks))
            switched.append((reference, Network(" ".join(words), members, width=width)))
    return Study(width, networks, tuple(switched))


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
    """The paper's presets, as shipped, and the numbers of HaH blocks with lambda 1.0."""
    from engine.experiment import presets

    folder, names = presets.shipped_folder(), (*TABLE_PRESETS, *BLOCKS_PRESETS)
    found = {name: presets.load(str(folder / f"{name}.yaml")) for name in names}
    for name in _BETWEEN:
        found[name] = presets.load(str(folder / f"{name.removesuffix('-lambda-1')}.yaml"), ["hah.lambda=1.0"])
    return found


def _candidates(folders: Sequence[Path]) -> tuple[list[RunDirectory], Counter[str]]:
    """Runs of the paper's presets, runs of other files that are the same experiments, and those that may be a study's;
    of the other runs how many there are of each preset."""
    groups = set(targets().values())
    epochs = {preset.train.epochs for preset in _presets().values()}
    found, others = [], Counter[str]()
    for run in store.runs_of(folders):
        state = read_state(run)
        if state.preset in targets() or store.group_of(run, state) in groups or _may_be_narrow(run, state, epochs):
            found.append(run)
        else:
            others[state.preset] += 1
    return found, others


def _may_be_narrow(run: RunDirectory, state: State, epochs: set[int]) -> bool:
    """Whether a run may be in a study, which its text says sooner than the schema would."""
    if state.epochs not in epochs:
        return False
    try:
        text = disk.read_text(run.config)
    except (OSError, RequestError):
        return False
    return "dataset: cifar10\n" in text and "train_limit: null\n" in text and "width: 1.0\n" not in text


def _network(preset: str, runs: Sequence[Measured], remarks: list[str]) -> Network:
    """A preset's runs, one for each seed."""
    return Network(preset, tuple(one_of_each_seed(runs, remarks)))


def why_not(run: Measured) -> str:
    """In which settings a run is not what the preset says that it was started from."""
    preset = _presets().get(run.state.preset)
    if preset is None:
        return f"it is none of the paper's networks (preset {plain(run.state.preset, 80) or 'unknown'})"
    found = differences(settings(preset.dump()), settings(run.experiment))
    said = [f"{name} {new} instead of {old}" for name, (old, new) in found.items()]
    said += [f"{name} changed while it trained" for name in run.changed if name not in found]
    more = f" and {len(said) - 4} more" if len(said) > 4 else ""
    return f"not as {run.state.preset} ({plain(', '.join(said[:4]), 300)}{more})"
