"""What a comparison puts side by side: runs, or those that are equal but for their seed as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev

from engine.results.means import Candidate, standings
from engine.runs import store
from hah_tui.curves import Source
from hah_tui.run_facts import Configured
from hah_tui.series import BinnedSeries, MeanSeries


@dataclass
class Compared:
    """One line of the comparison: a run, or runs that are equal but for their seed; ``number`` gives it its look."""

    members: list[Source]
    number: int
    configured: Mapping[str, Configured] = field(default_factory=dict)  # by id
    name: str = ""
    hidden: bool = False
    means: dict[str, MeanSeries] = field(default_factory=dict)

    def series(self, metric: str) -> BinnedSeries:
        """The run's, or the mean of the runs'."""
        if len(self.members) == 1:
            return self.members[0].curves[metric]
        mean = self.means.setdefault(metric, MeanSeries())
        mean.follow([source.curves[metric] for source in self.members])
        return mean

    @property
    def counted(self) -> list[Source]:
        """The members that a mean of results is over."""
        if len(self.members) == 1:
            return self.members
        found = zip(self.members, standings([candidate(one, self.configured) for one in self.members]), strict=True)
        return [one for one, standing in found if not standing.why]

    @property
    def title(self) -> str:
        """The name, with how many runs it stands for."""
        if len(self.members) == 1:
            return self.name
        whole, done = len(self.members), len(self.counted)
        return f"{self.name} ({done} seeds)" if done == whole else f"{self.name} ({done} of {whole} finished)"

    def value(self, metric: str) -> tuple[float, float]:
        """Mean and sample standard deviation of a result; NaN for none."""
        values = [
            source.look.state.metrics[metric]
            for source in self.counted
            if source.look is not None and metric in source.look.state.metrics
        ]
        return (fmean(values) if values else math.nan), (stdev(values) if len(values) > 1 else math.nan)


def candidate(source: Source, configured: Mapping[str, Configured]) -> Candidate:
    """A run for a mean, by what is known of the settings of runs, by id; of a seed the newest stands."""
    known, look = configured.get(source.run.id), source.look
    group, seed = (known.group, known.seed) if known else ("", None)
    if look is None:
        return Candidate("reading", False, group, seed)
    return Candidate(look.status, bool(store.changed_on_the_way(look.state)), group, seed, (look.state.created,))
