"""What enters a mean over runs that are equal but for their seed: in lists, comparisons and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

AGAIN = "of a seed that is there"
CHANGED, UNREADABLE = "changed on the way", "unreadable"


@dataclass(frozen=True)
class Candidate:
    """What the rule asks of a run: its status, whether settings were changed while it trained, the fingerprint of its
    experiment without seed ('' where that cannot be read), its seed, and its merit beside others of that seed."""

    status: str
    changed: bool
    group: str
    seed: int | None
    merit: tuple[float, ...] = ()

    @property
    def why(self) -> str:
        """Why it enters no mean, whatever else there is; '' where nothing speaks against it."""
        if self.changed:
            return CHANGED
        if not self.group:
            return UNREADABLE
        return "" if self.status == "finished" else self.status


@dataclass(frozen=True)
class Standing:
    """``why`` a run is not in the mean, '' of one that is; ``instead``: the place of the run that stands for its seed,
    where that is another."""

    why: str
    instead: int | None = None


def standings(runs: Sequence[Candidate]) -> list[Standing]:
    """Of each run: finished ones that nobody changed enter the mean, one of each seed of an experiment, that with the
    most merit (the first of equals). Of unfinished ones too only one stands for a seed."""
    stands: dict[tuple[str, int | None], int] = {}
    for place in sorted(range(len(runs)), key=lambda place: (not runs[place].why, runs[place].merit), reverse=True):
        if runs[place].group:
            stands.setdefault((runs[place].group, runs[place].seed), place)
    found = []
    for place, run in enumerate(runs):
        first = stands.get((run.group, run.seed), place)
        instead = first if first != place else None
        found.append(Standing(run.why or (AGAIN if instead is not None else ""), instead))
    return found


def missing_seeds(seeds: Sequence[frozenset[int]], counted: Sequence[frozenset[int]]) -> list[tuple[int, ...]]:
    """Of each group, by the ``seeds`` of its runs and of those that are ``counted``: its own that are not, and those
    that a group with one of them has."""
    kinds = set(counted)
    shared = {  # by the seeds of a group, of which most have the same
        own: own.union(*(others for others in kinds if not others.isdisjoint(own))) for own in set(seeds)
    }
    return [tuple(sorted(shared[own] - done)) for own, done in zip(seeds, counted, strict=True)]
