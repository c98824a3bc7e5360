"""Runs that are equal but for their seed, or in one setting, as one line of a list: mean, spread, n, missing seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from engine.results.means import missing_seeds, standings
from hah_tui import attributes
from hah_tui.attributes import Attribute
from hah_tui.listing import ListedRun
from hah_tui.run_facts import Shared

SEED = "seed"  # what groups are made by: equal but for the seed, or the name of a setting
_DATA = "data.dataset"


@dataclass(frozen=True)
class Group:
    """``runs`` of one ``key``. Into means go those of ``counted``, of each seed the newest; ``missing`` are the seeds
    that it lacks (`means` has both rules)."""

    key: str
    name: str
    runs: tuple[ListedRun, ...]
    missing: tuple[int, ...] = ()
    left_out: int = 0  # runs of it that do not fit the filter

    @property
    def id(self) -> str:
        """Its place among the ids of runs, none of which has a colon."""
        return f"group:{self.key}"

    @cached_property
    def sorted_out(self) -> tuple[tuple[ListedRun, ...], dict[str, int]]:
        """The counted runs, and how many others there are, by why they are not."""
        newest = sorted(self.runs, key=lambda run: -run.created)
        found = list(zip(newest, standings([run.candidate for run in newest]), strict=True))
        others = Counter(standing.why for _, standing in found if standing.why)
        if self.left_out:
            others["that the filter leaves out"] = self.left_out
        return tuple(run for run, standing in found if not standing.why), dict(others)

    @property
    def size(self) -> int:
        """How many runs it has, with those that the filter leaves out."""
        return len(self.runs) + self.left_out

    @cached_property
    def seeds(self) -> frozenset[int]:
        return frozenset(run.seed for run in self.runs if run.seed is not None)

    @cached_property
    def finished(self) -> frozenset[int]:
        """The seeds of the counted runs."""
        return frozenset(run.seed for run in self.counted if run.seed is not None)

    @property
    def counted(self) -> tuple[ListedRun, ...]:
        return self.sorted_out[0]

    def mean(self, by: Attribute) -> float | None:
        """The mean of a measured attribute over the counted runs, of progress over all; None of no value."""
        if by.name not in self._means:
            values = self._values(by)
            self._means[by.name] = statistics.fmean(values) if values else None
        return self._means[by.name]

    def spread(self, by: Attribute) -> float | None:
        """The sample standard deviation of the same; None of a single value."""
        if by.name not in self._spreads:
            values = self._values(by)
            self._spreads[by.name] = statistics.stdev(values) if len(values) > 1 else None
        return self._spreads[by.name]

    def _values(self, by: Attribute) -> list[float]:
        runs = self.runs if by.name in attributes.PROGRESS else self.counted
        return [float(value) for run in runs if (value := by.of(run)) is not None]

    @cached_property
    def _means(self) -> dict[str, float | None]:
        return {}

    @cached_property
    def _spreads(self) -> dict[str, float | None]:
        return {}

    def value(self, by: Attribute) -> Any:
        """What it is sorted by: a mean, the latest moment, or what all its runs have; None where they differ."""
        if by.is_mean:
            return self.mean(by)
        if by.name == "name":
            return self.name
        values = [value for run in self.runs if (value := by.of(run)) is not None]
        if by.kind == "moment":
            return max(values, default=None)
        return values[0] if values and all(value == values[0] for value in values) else None

    @cached_property
    def created(self) -> float:
        return max(run.created for run in self.runs)


Entry = ListedRun | Group  # of a list


def grouped(runs: Iterable[ListedRun], by: str, before: Iterable[Entry] = ()) -> list[Entry]:
    """Runs in groups by a setting, or by all but the seed, where a run that is alone stays one.

    Runs of another data set are another group, whatever the setting. What was changed on the way is alone. A group
    of ``before`` in which nothing has changed is that one, with all that was found out of it.
    """
    known = {entry.key: entry for entry in before if isinstance(entry, Group)}
    members: dict[tuple[str, ...], list[ListedRun]] = {}
    for run in runs:
        members.setdefault(_key(run, by), []).append(run)
    if by != SEED:
        datasets = {key[1] for key in members}
        short = by.rpartition(".")[2]
        return [
            _again(
                Group("|".join(key), " ".join((f"{short}={key[0]}", *key[1:][: len(datasets) > 1])), tuple(found)),
                known,
            )
            for key, found in members.items()
        ]
    several = {key[0]: found for key, found in members.items() if len(found) > 1}
    names = _names(
        tuple(run.configured.shared for (run, *_) in several.values() if run.configured),
        tuple(_called(found) for found in several.values()),
        tuple(run.id for (run, *_) in several.values()),
    )
    groups = [
        _again(Group(key, name, tuple(found)), known) for (key, found), name in zip(several.items(), names, strict=True)
    ]
    alone = [found[0] for found in members.values() if len(found) == 1]
    return [*_with_missing(groups), *alone]


def narrowed(entries: Iterable[Entry], fits: Callable[[ListedRun], bool]) -> list[Entry]:
    """The runs that fit, alone or in their groups, which say how many others they have."""
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Group):
            runs = tuple(filter(fits, entry.runs))
            if runs:
                found.append(replace(entry, runs=runs, left_out=len(entry.runs) - len(runs)))
        elif fits(entry):
            found.append(entry)
    return found


def _again(group: Group, known: Mapping[str, Group]) -> Group:
    old = known.get(group.key)
    return old if old is not None and (old.name, old.runs) == (group.name, group.runs) else group


def _key(run: ListedRun, by: str) -> tuple[str, ...]:
    if by == SEED:
        return ((run.configured.group if run.configured else "") or run.id,)
    return attributes.kept(by).said(run.setting(by)), str(run.setting(_DATA))


def _called(runs: Sequence[ListedRun]) -> str:
    """What people called the runs of a group; '' where they are called differently."""
    names = {run.look.state.name for run in runs}
    return names.pop() if len(names) == 1 else ""


@lru_cache(maxsize=4)
def _names(shared: tuple[Shared, ...], called: tuple[str, ...], ids: tuple[str, ...]) -> tuple[str, ...]:
    from engine.experiment.naming import names

    return tuple(names([one.network for one in shared], called, ids))


def _with_missing(groups: Sequence[Group]) -> list[Group]:
    missing = missing_seeds([group.seeds for group in groups], [group.finished for group in groups])
    return [
        group if group.missing == seeds else replace(group, missing=seeds)
        for group, seeds in zip(groups, missing, strict=True)
    ]


def ordered(entries: Iterable[Entry], by: Attribute, reverse: bool) -> list[Entry]:
    """Runs and groups by an attribute, as `attributes.ordered`."""
    return attributes.ordered(entries, by, reverse, lambda one: one.value(by) if isinstance(one, Group) else by.of(one))
