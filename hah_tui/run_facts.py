"""What a list may want to know of a run beyond its snapshot: its settings and what was evaluated. It is read when a
column, a filter or a grouping asks for it, in a thread; what thousands of runs have alike is read and kept once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from engine import disk
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import State

_OWN = re.compile(r"^(?:name: [\w.-]+|seed: \d{1,15})\n", re.MULTILINE)  # what runs that are alike do not share
_SEED = re.compile(r"^seed: (\d{1,15})$", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Shared:
    """The ``settings`` of an experiment by dotted name, its name and seed left out ({}: nobody asked for them), and of
    them what its ``network`` depends on, as `fingerprint.settings` has it. Runs that are alike have the same one."""

    settings: dict[str, Any]
    network: dict[str, Any]


@dataclass(frozen=True)
class Configured:
    """A run's configuration; ``group``: its fingerprint without seed, '' where settings were changed on the way."""

    shared: Shared
    seed: int | None
    group: str


_shared: dict[str, Shared] = {}  # by what is written but for name and seed, and what was changed since


def configured(run: RunDirectory, state: State) -> Configured:
    """The configuration of a run as it is now; raises RequestError or OSError where it cannot be read."""
    text = disk.read_text(run.config)
    key = f"{_OWN.sub('', text)}{state.changed}"
    if key not in _shared:
        _shared[key] = _read(run, state)
    written = _SEED.search(text)
    seed = state.seed if state.seed is not None or written is None else int(written[1])
    return Configured(_shared[key], seed, store.group_of(run, state))


def in_group(run: RunDirectory, state: State) -> Configured:
    """As much as grouping needs: no settings, and of runs of one group but the first's config.yaml is read."""
    group = store.group_of(run, state)
    if not group or state.seed is None:
        return configured(run, state)
    if group not in _networks:
        _networks[group] = Shared({}, configured(run, state).shared.network)
    return Configured(_networks[group], state.seed, group)


_networks: dict[str, Shared] = {}  # by group


def _read(run: RunDirectory, state: State) -> Shared:
    from engine.experiment import fingerprint
    from engine.experiment.fields import flatten

    experiment = store.experiment_of(run, state).dump()
    flat = {name: value for name, value in flatten(experiment).items() if name not in ("name", "seed")}
    return Shared(flat, fingerprint.settings(experiment))


def evaluated(run: RunDirectory) -> dict[str, float]:
    """The preferred evaluation results of a run by their names (eval/...); what only its training tested is none."""
    from engine.results.measured import measured
    from engine.results.numbers import FROM_TRAINING

    if not any(run.results.glob("[!.]*.json")):
        return {}
    numbers = measured(run).numbers.items()
    return {name: number.value for name, number in numbers if FROM_TRAINING not in number.labels}
