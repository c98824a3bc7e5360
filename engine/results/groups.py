"""Runs that are equal but for their seed, as one: which belong together, what a group is called, what is left out.

A mean is over what `means` lets into it. A run whose settings were changed while it trained equals no other, so it
stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.experiment import naming
from engine.experiment.fields import fields, flatten
from engine.experiment.fingerprint import settings
from engine.experiment.mistakes import RequestError
from engine.results.estimates import Estimate, best, estimate
from engine.results.means import Candidate, missing_seeds, standings
from engine.results.measured import Measured
from engine.results.numbers import FROM_TRAINING, Number
from engine.runs import store

SEED, RUN = "seed", "run"  # what runs may be grouped by, beside any setting: all but the seed, nothing


@dataclass(frozen=True)
class Group:
    """Runs of one mean; ``missing``: seeds that other groups have and this one lacks."""

    name: str
    runs: tuple[Measured, ...] = ()
    missing: tuple[int, ...] = ()

    def estimate(self, name: str) -> Estimate | None:
        """Mean and spread of a metric over the runs whose number of it was measured in the best way."""
        return self.over(lambda run: run.numbers.get(name))

    def over(self, number: Callable[[Measured], Number | None]) -> Estimate | None:
        """The same of any number that a run has."""
        return estimate(map(number, self.runs))

    def best(self, name: str) -> list[Number]:
        """The numbers that an estimate of a metric goes over."""
        return best(run.numbers.get(name) for run in self.runs)

    def labels(self, number: Estimate) -> list[str]:
        """What has to be said of a number of this group, also where it is not over all of its runs."""
        few = [f"{len(number.values)} of {len(self.runs)} seeds"] if len(number.values) < len(self.runs) else []
        return [*number.labels, *few]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs if run.seed is not None)


def one_of_each_seed(runs: Sequence[Measured], remarks: list[str]) -> list[Measured]:
    """Of runs that are equal but for their seed one for each seed: finished, most evaluated, newest; the rest is
    remarked upon."""
    chosen = []
    for run, standing in zip(runs, standings([_candidate(run) for run in runs]), strict=True):
        if standing.instead is None:
            chosen.append(run)
        else:
            remarks.append(f"{run.run.id} has the seed of {runs[standing.instead].run.id}, which stands for both")
    return sorted(chosen, key=lambda run: (run.seed or 0, run.run.id))


def _candidate(run: Measured) -> Candidate:
    evaluated = sum(FROM_TRAINING not in number.labels for number in run.numbers.values())
    group = store.group_of(run.run, run.state)
    return Candidate(run.state.status, bool(run.changed), group, run.seed, (evaluated, run.state.created))


def grouped(
    runs: Sequence[Measured], by: str = SEED, titles: Mapping[str, str] | None = None
) -> tuple[list[Group], list[str]]:
    """Groups of runs in the order in which their first comes, and remarks on what is left out of them.

    ``by``: `SEED` (runs that are equal but for it), `RUN` (each alone) or a setting by its dotted name; raises
    RequestError for anything else. ``titles``: names of groups by the fingerprint of their experiments.
    """
    if by not in (SEED, RUN) and by not in fields():
        raise RequestError(f"--by: {by!r} is no setting; allowed: {SEED}, {RUN} and the dotted names of settings")
    remarks: list[str] = []
    places: dict[str, list[Measured]] = {}
    for run in runs:
        places.setdefault(_key(run, by), []).append(run)
    found: list[tuple[str, list[Measured]]] = []
    for key, members in places.items():
        found += _means(key, members, by, remarks)
    names = _names(found, by, titles or {})
    groups = [Group(name, tuple(members)) for name, (_, members) in zip(names, found, strict=True)]
    if by == SEED:
        every = [frozenset(seed for run in places.get(key, members) if (seed := run.seed) is not None)
                 for key, members in found]  # fmt: skip
        lacks = missing_seeds(every, [frozenset(group.seeds) for group in groups])
        groups = [replace(group, missing=seeds) for group, seeds in zip(groups, lacks, strict=True)]
    return groups, remarks


def _key(run: Measured, by: str) -> str:
    if by == RUN or not run.experiment:
        return f"run {run.run.id}"
    group = store.group_of(run.run, run.state)
    if by == SEED:
        return group or f"run {run.run.id}"
    return f"{by}={naming.text(_value(run, by))}"


def _value(run: Measured, name: str) -> Any:
    return flatten(run.experiment).get(name)


def _means(key: str, members: list[Measured], by: str, remarks: list[str]) -> list[tuple[str, list[Measured]]]:
    """A group without what cannot enter its mean; where nothing can, each of its runs alone."""
    if len(members) == 1:
        return [(key, members)]
    whole = [run for run in members if not _candidate(run).why]
    if not whole:
        return [(f"run {run.run.id}", [run]) for run in members]
    for run in members:
        if run not in whole:
            why = f"{', '.join(run.changed)} changed while it trained" if run.changed else _how_far(run)
            remarks.append(f"{run.run.id} is left out of its group's mean: {why}")
    chosen = one_of_each_seed(whole, remarks)
    if by == SEED:
        return [(key, chosen)]
    same: dict[str, list[Measured]] = {}
    for run in chosen:
        same.setdefault(store.group_of(run.run, run.state), []).append(run)
    if len(same) > 1:
        others = [setting for setting in _differing([runs[0] for runs in same.values()]) if setting != by]
        remarks.append(f"the mean of {key} is over runs that differ in {', '.join(others[:5])}")
    return [(key, [run for runs in same.values() for run in runs])]


def _how_far(run: Measured) -> str:
    return f"{run.state.status} at epoch {run.state.epoch} of {run.state.epochs}"


def _differing(runs: Sequence[Measured]) -> list[str]:
    every = [settings(run.experiment) for run in runs]
    return [name for name in every[0] if any(one.get(name) != every[0][name] for one in every[1:])]


def _names(found: Sequence[tuple[str, list[Measured]]], by: str, titles: Mapping[str, str]) -> list[str]:
    """What differs names groups; runs that differ in their seed only have that too."""
    if by not in (SEED, RUN):
        return [key if key.startswith(f"{by}=") else key.removeprefix("run ") for key, _ in found]
    ids = [members[0].run.id for _, members in found]
    given = [titles.get(store.group_of(members[0].run, members[0].state), "") for _, members in found]
    if all(given) and len(set(given)) == len(given):
        return given
    if not all(members[0].experiment for _, members in found):
        return ids
    every = [settings(members[0].experiment) for _, members in found]
    called = []
    for _, members in found:
        own = {run.state.name for run in members}
        called.append(own.pop() if len(own) == 1 else members[0].state.preset)
    return naming.names(every, called, ids, [members[0].seed for _, members in found])
