"""What a comparison puts side by side: runs, or those that are equal but for their seed as one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from engine.experiment.mistakes import RequestError
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from hah_tui.curves import Source
from hah_tui.series import BinnedSeries, MeanSeries
from hah_tui.text import shown_line


@dataclass(frozen=True)
class Facts:
    """What the comparison takes from a run's experiment: its settings, what its network depends on, and its group.

    ``problem`` says why they cannot be read.
    """

    whole: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    seed: int | None = None
    called: str = ""
    problem: str = ""


@dataclass
class Compared:
    """One line of the comparison: a run, or runs that are equal but for their seed; ``number`` gives it its look."""

    members: list[Source]
    number: int
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
    def finished(self) -> list[Source]:
        """The members that a mean of results is over."""
        if len(self.members) == 1:
            return self.members
        return [one for one in self.members if one.look is not None and one.look.status == "finished"]

    @property
    def title(self) -> str:
        """The name, with how many runs it stands for."""
        if len(self.members) == 1:
            return self.name
        whole, done = len(self.members), len(self.finished)
        return f"{self.name} ({done} seeds)" if done == whole else f"{self.name} ({done} of {whole} finished)"

    def value(self, metric: str) -> tuple[float, float]:
        """Mean and sample standard deviation of a result; NaN for none."""
        values = [
            source.look.state.metrics[metric]
            for source in self.finished
            if source.look is not None and metric in source.look.state.metrics
        ]
        return (fmean(values) if values else math.nan), (stdev(values) if len(values) > 1 else math.nan)


def facts_of(run: RunDirectory) -> Facts:
    """What a run is now; for a thread."""
    from engine.experiment.fingerprint import settings

    try:
        state = read_state(run)
        whole = store.experiment_of(run, state).dump()
        seed = whole.get("seed")
        called = run.id.rpartition("-")[0] or run.id
        return Facts(whole, settings(whole), store.group_of(run, state), seed, called)
    except RequestError as error:
        return Facts(problem=shown_line(error.mistakes[0].what))
    except OSError as error:
        return Facts(problem=shown_line(error.strerror))
