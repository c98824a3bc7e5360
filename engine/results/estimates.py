"""Means over runs of what was measured alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from engine.results.numbers import Number


@dataclass(frozen=True)
class Estimate:
    """A mean over ``values``, one of each run; ``spread`` is their standard deviation (n - 1), None of a single run.

    ``draws``: of each run, the standard deviation over draws of the noise where there were several. ``images``: the
    fewest distinct images that one of them was counted over; None of what is no count. ``interval``: the 95% confidence
    interval of a single run's accuracy; of several runs the spread says more.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...] = ()
    draws: tuple[float | None, ...] = ()
    images: int | None = None
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        draws = tuple(None if one is None else factor * one for one in self.draws)
        ends = (factor * self.interval[0], factor * self.interval[1]) if self.interval else None
        return replace(self, values=tuple(factor * value for value in self.values), draws=draws, interval=ends)


def measured_how(labels: Iterable[str]) -> tuple[str, ...]:
    """What the labels of a number say of how it was measured, but for how many images."""
    return tuple(sorted(label for label in labels if not (label.startswith("first ") and "images" in label)))


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
    counted = [number.images for number in found]
    images = min((one for one in counted if one is not None), default=None) if None not in counted else None
    return Estimate(
        values,
        found[0].labels,
        draws if any(one is not None for one in draws) else (),
        images,
        found[0].interval if len(found) == 1 else None,
    )
