"""Curves of any length in bounded memory, their debiased running mean, and the limits and ticks of an axis."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple, TypeVar

CAPACITY = 512  # bins of a series; pairs are merged beyond it, so a long one has 256 to 512
T = TypeVar("T", int, float)
HUGE, TINY = 1e30, 1e-30  # what is beyond is a gap, what is below is 0: arithmetic on axes has room


class _RunningMean(NamedTuple):
    """A running mean up to a step, before its bias is taken out."""

    end: int
    weighted: float = 0.0
    weight: float = 0.0

    @property
    def value(self) -> float:
        return self.weighted / self.weight


class BinnedSeries:
    """Values over steps, in bins of ``width`` steps (a power of two) that keep count, sum, minimum and maximum.

    Steps come in rising order; one behind the last bin goes into it. A value that is not finite makes a gap: a bin
    with count 0, unless finite values share it. ``version`` changes with every change.
    """

    __slots__ = ("_cache", "_generation", "capacity", "count", "high", "last", "last_step", "low", "number", "shift",
                 "total", "version")  # fmt: skip

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity, self.shift, self.version = capacity, 0, 0
        self.number = array("q")  # a bin covers steps number << shift to ((number + 1) << shift) - 1
        self.count = array("q")
        self.total, self.low, self.high = array("d"), array("d"), array("d")
        self.last, self.last_step = math.nan, -1
        self._generation = 0  # changes when bins that were complete change
        self._cache: tuple[float, int, array[float], _RunningMean] | None = None

    def __len__(self) -> int:
        return len(self.number)

    @property
    def width(self) -> int:
        """Steps in a bin."""
        return 1 << self.shift

    def add(self, step: int, value: float) -> None:
        """One value at ``step``."""
        self.version += 1
        number = step >> self.shift
        if not self.number or number > self.number[-1]:
            self.number.append(number)
            self.count.append(0)
            self.total.append(0.0)
            self.low.append(math.inf)
            self.high.append(-math.inf)
            while len(self.number) > self.capacity:
                self._merge()
        self.last_step = max(step, self.last_step)
        if not -HUGE < value < HUGE:  # NaN too
            return
        if -TINY < value < TINY:
            value = 0.0
        self.last = value
        self.count[-1] += 1
        self.total[-1] += value
        if value < self.low[-1]:
            self.low[-1] = value
        if value > self.high[-1]:
            self.high[-1] = value

    def add_many(self, steps: tuple[int, ...] | range, values: Sequence[float]) -> None:
        """`add` for each of many, at a fraction of the price: a bin takes all that is its own at once, and bins are
        merged once, after all of them."""
        sizes = [*map(abs, values)]
        if not values or not (sum(sizes) < math.inf and max(sizes) < HUGE):
            for step, value in zip(steps, values, strict=True):
                self.add(step, value)
            return
        if min(sizes) < TINY:
            values = [0.0 if -TINY < value < TINY else value for value in values]
        numbers, edges = _bins(steps, self.shift, self.number[-1] if self.number else -1)
        if joins := edges[0]:  # so many go into the last bin that there is
            part = values[:joins]
            self.count[-1] += joins
            self.total[-1] += sum(part)
            self.low[-1] = min(self.low[-1], *part)
            self.high[-1] = max(self.high[-1], *part)
        self.number.extend(numbers)
        if len(numbers) == len(values) - joins:  # each has a bin of its own
            self.count.extend([1] * len(numbers))
            for column in (self.total, self.low, self.high):
                column.extend(values[joins:])
        else:
            parts = [values[first:end] for first, end in pairwise(edges)]
            self.count.extend(map(len, parts))
            self.total.extend(map(sum, parts))
            self.low.extend(map(min, parts))
            self.high.extend(map(max, parts))
        self.version += len(values)
        self.last, self.last_step = values[-1], max(self.last_step, *steps)
        while len(self.number) > self.capacity:
            self._merge()

    def truncate(self, step: int) -> None:
        """Forget what came after ``step``: an engine goes on from a checkpoint of there."""
        keep = bisect_right(self.number, step >> self.shift)
        if keep == len(self.number) and self.last_step <= step:
            return
        for column in (self.number, self.count, self.total, self.low, self.high):
            del column[keep:]
        self.version += 1
        self._generation += 1
        self.last_step = min(self.last_step, step) if keep else -1
        self.last = next((self.mean(i) for i in range(keep - 1, -1, -1) if self.count[i]), math.nan)

    def mean(self, index: int) -> float:
        """Mean of a bin, NaN for a gap."""
        count = self.count[index]
        return self.total[index] / count if count else math.nan

    def middle(self, index: int) -> float:
        """The step in the middle of a bin (of the part that has been, for the last one)."""
        first = self.number[index] << self.shift
        return (first + min(first + self.width - 1, self.last_step)) / 2

    def middles(self) -> list[float]:
        """The middle of every bin."""
        shift, half = self.shift, (self.width - 1) / 2
        found = [(number << shift) + half for number in self.number]
        return [*found[:-1], self.middle(len(found) - 1)] if found else found

    def first_step(self) -> int:
        """The first step there is a bin for."""
        return self.number[0] << self.shift if self.number else 0

    def nearest(self, step: float) -> int | None:
        """The bin with values whose middle is nearest to ``step``; None where there is none."""
        at = bisect_left(self.number, int(step) >> self.shift)
        before = next((i for i in range(min(at, len(self) - 1), -1, -1) if self.count[i]), None)
        after = next((i for i in range(at, len(self)) if self.count[i]), None)
        if before is None or after is None:
            return after if before is None else before
        return before if abs(self.middle(before) - step) <= abs(self.middle(after) - step) else after

    def smoothed(self, horizon: float) -> array[float]:
        """The debiased running mean at each bin, NaN at gaps: a value d steps back has exp(-d / ``horizon``) of the
        weight, so that curves that are recorded at every step and curves that are recorded once an epoch lag alike.

        The sum is an integral over steps: a bin stands for the steps since the last bin with values. A ``horizon`` of
        0 gives the means of the bins. Costs only what is new since the last call with the same horizon.
        """
        if self._cache is None or self._cache[0] != horizon or self._cache[1] != self._generation:
            self._cache = (horizon, self._generation, array("d"), _RunningMean(self.first_step() - 1))
        _, _, done, past = self._cache
        for index in range(len(done), max(0, len(self) - 1)):
            past = self._smooth(index, horizon, past)
            done.append(past.value if self.count[index] else math.nan)
        self._cache = (horizon, self._generation, done, past)
        if not len(self):
            return array("d")
        now = self._smooth(len(self) - 1, horizon, past).value if self.count[-1] else math.nan
        return done + array("d", [now])  # may still change

    def _smooth(self, index: int, horizon: float, past: _RunningMean) -> _RunningMean:
        if not self.count[index]:
            return past
        end = min(((self.number[index] + 1) << self.shift) - 1, self.last_step)
        kept = math.exp(-max(end - past.end, 1) / horizon) if horizon else 0.0
        return _RunningMean(end, kept * past.weighted + (1 - kept) * self.mean(index), kept * past.weight + (1 - kept))

    def _merge(self) -> None:
        """Wider bins: of twice the width, or as wide as the two nearest to each other need to become one."""
        wider = min(b - a for a, b in pairwise(self.number)).bit_length()
        self.shift += wider
        self._generation += 1
        numbers, edges = _bins(tuple(self.number), wider, -1)
        parts = [slice(first, end) for first, end in pairwise(edges)]
        self.number = array("q", numbers)
        self.count, self.total = _joined(self.count, parts, sum), _joined(self.total, parts, sum)
        self.low, self.high = _joined(self.low, parts, min), _joined(self.high, parts, max)


def _joined(column: array[T], parts: Sequence[slice], join: Callable[[Sequence[T]], T]) -> array[T]:
    """A column whose bins of each part become one."""
    values = column.tolist()
    return array(column.typecode, [join(values[part]) for part in parts])


@lru_cache(maxsize=4)
def _bins(steps: tuple[int, ...] | range, shift: int, last: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The bins after ``last`` that steps begin, and at which of the steps each does; then how many steps there are.
    Curves share their steps, so this is asked again and again."""
    numbers, edges = list[int](), list[int]()
    for at, step in enumerate(steps):
        if step >> shift > last:
            last = step >> shift
            numbers.append(last)
            edges.append(at)
    return tuple(numbers), (*edges, len(steps))


class MeanSeries(BinnedSeries):
    """The mean of several series where all of them have values, with the sample standard deviation around it.

    Its bins are as wide as the widest of theirs; `low` and `high` are a standard deviation away from the mean.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[tuple[int, int], ...] = ()

    def follow(self, members: Sequence[BinnedSeries]) -> None:
        """Take up what is new in ``members``."""
        seen = tuple((id(one), one.version) for one in members)
        if seen == self._seen:
            return
        self._seen = seen
        self.version += 1
        self._generation += 1
        self.shift = max((one.shift for one in members), default=0)
        sums = [_rebinned(one, self.shift) for one in members]
        shared = sorted(set.intersection(*(set(one) for one in sums))) if sums else []
        for column in (self.number, self.count, self.total, self.low, self.high):
            del column[:]
        for number in shared:
            values = [one[number] for one in sums]
            mean = fmean(values)
            spread = stdev(values) if len(values) > 1 else 0.0
            self.number.append(number)
            self.count.append(1)
            self.total.append(mean)
            self.low.append(mean - spread)
            self.high.append(mean + spread)
        self.last_step = min((one.last_step for one in members), default=-1)
        self.last = fmean(one.last for one in members) if shared else math.nan


def _rebinned(series: BinnedSeries, shift: int) -> dict[int, float]:
    """The means of a series in bins of ``1 << shift`` steps, where it has values."""
    total, count = dict[int, float](), dict[int, int]()
    for index, number in enumerate(series.number):
        if series.count[index]:
            wide = number >> (shift - series.shift)
            total[wide] = total.get(wide, 0.0) + series.total[index]
            count[wide] = count.get(wide, 0) + series.count[index]
    return {number: total[number] / count[number] for number in total}


@dataclass(frozen=True)
class Limits:
    """The ends of an axis, linear or logarithmic (then ``low`` > 0)."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        """Where a value lies: 0 at low, 1 at high; NaN where it has no place."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else math.nan

    def value(self, fraction: float) -> float:
        """The value at a place; undoes `fraction`."""
        if self.log:
            return float(self.low * (self.high / self.low) ** fraction)
        return self.low + fraction * (self.high - self.low)


def limits(low: float, high: float, before: Limits | None = None, log: bool = False) -> Limits:
    """Rounded limits around [low, high]. Those of ``before`` stay as long as the values fit into them and fill at
    least a good part, so that a curve that trembles does not move its axis. ``log`` needs low > 0.
    """
    if log:
        new = Limits(_one_two_five(low, up=False), _one_two_five(high, up=True), True)
        if new.low == new.high:
            new = Limits(_one_two_five(low * 0.9, up=False), _one_two_five(high * 1.1, up=True), True)
    else:
        if high - low <= max(TINY, 1e-9 * max(abs(low), abs(high))):
            pad = max(abs(low), abs(high)) * 0.1 or 1.0
            low, high = low - pad, high + pad
        step = nice_step((high - low) / 4)
        new = Limits(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)
    slack = 0.0 if log else 1e-9 * (high - low)
    if before is not None and before.log == log and before.low <= low + slack and high <= before.high + slack:
        filled = before.fraction(new.high) - before.fraction(new.low)
        if filled > 0.4:
            return before
    return new


def growing(high: float, before: float = 0.0, end: float = math.inf) -> float:
    """The right end of an axis that only grows: a little beyond ``high``, rarely another one, at most ``end``."""
    if high <= before <= end:
        return before
    if high <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(high))
    rounded = next(
        m * power for m in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12.5) if m * power >= high * (1 - 1e-12)
    )
    return max(high, min(rounded, end))


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10, 20) if m * power >= least * (1 - 1e-12))


_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def ticks(axis: Limits, most: int, seconds: bool = False) -> list[float]:
    """At most ``most`` (>= 2) round values within the limits, rising; ``seconds``: round as times are."""
    if axis.log:
        return _log_ticks(axis, most)
    least = (axis.high - axis.low) / max(1, most)
    step = nice_step(least)
    if seconds and least > 0.5:
        step = next((s for s in _SECONDS if s >= least), 86400 * nice_step(max(1.0, least / 86400)))
    while True:
        first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
        if last - first < most:
            return [n * step for n in range(first, last + 1)]
        step = nice_step(step * 1.5)


def _log_ticks(axis: Limits, most: int) -> list[float]:
    first, last = math.floor(math.log10(axis.low) - 1e-9), math.ceil(math.log10(axis.high) + 1e-9)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**p for p in range(first, last + 1) for m in mantissas]
        found = [value for value in found if axis.low * (1 - 1e-9) <= value <= axis.high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    every = math.ceil(len(found) / most)
    return found[::every]


def _one_two_five(value: float, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    if up:
        return next(m for m in (1.0, 2.0, 5.0, 10.0, 20.0) if m * power >= value * (1 - 1e-12)) * power
    return next(m for m in (10.0, 5.0, 2.0, 1.0, 0.5) if m * power <= value * (1 + 1e-12)) * power


def labels(values: Sequence[float]) -> list[str]:
    """Numbers of one axis with as many decimals as tell them apart: '0.25', '20k', '1e-4'."""
    finite = [abs(value) for value in values if value]
    if not finite:
        return ["0" for _ in values]
    largest, smallest = max(finite), min(finite)
    if largest < 1e-3 or (smallest < 1e-3 and largest / smallest > 50):
        return ["0" if not value else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") for value in values]
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if largest >= 10 * size or (unit == "M" and largest >= size):
            return ["0" if not value else _decimals(value / size, values, size) + unit for value in values]
    return [_decimals(value, values, 1.0) for value in values]


def _decimals(value: float, values: Sequence[float], size: float) -> str:
    gaps = [abs(b - a) / size for a, b in pairwise(values) if a != b]
    gap = min(gaps, default=abs(value) or 1.0)
    places = next((n for n in range(7) if abs(gap * 10**n - round(gap * 10**n)) < 1e-6 * max(1, gap * 10**n)), 6)
    text = f"{value:.{places}f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def extent(values: Iterable[float]) -> tuple[float, float] | None:
    """Smallest and largest of what is finite, None for nothing."""
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else None
