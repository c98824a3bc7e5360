"""The record of one open run as curves: events come in batches, memory stays bounded however long the run."""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from engine.runs import launch
from engine.runs.events import Event, Tail
from engine.runs.layout import RunDirectory
from engine.runs.metrics import LOSS, Metric
from engine.runs.submitted import AskSlurm, told
from engine.runs.watcher import Look, Watcher
from hah_tui.series import BinnedSeries

BATCH = 1 << 19  # bytes that one poll reads: some hundred records, applied within a frame
SERIES_LIMIT = 600  # metrics of a run: 19 blocks have 76
MARKS_LIMIT = 200
EVENTS_LIMIT = 500
LOG_LINES = 200  # of engine.log
_BLOCK = re.compile("[1-9][0-9]{0,2}")
_NUMBER: dict[type, Callable[[Any], float]] = {float: float, int: float, type(None): lambda _: math.nan}
_BREAK = 60.0  # seconds between two records of one engine beyond which nobody trained (a suspended machine)


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step and may explain a curve."""

    step: int
    kind: str  # set, resume
    text: str


class Curves:
    """What the events of a run say, by metric name.

    ``seconds`` is the time trained, a series over steps like any other; pauses between engines do not count.
    """

    def __init__(self) -> None:
        self.series: dict[str, BinnedSeries] = {}
        self.seconds = BinnedSeries()
        # What no series has yet: steps and values, by name.
        self._new = defaultdict[str, tuple[list[int], list[Any]]](lambda: ([], []))
        self.marks: deque[Mark] = deque(maxlen=MARKS_LIMIT)
        self.events: deque[Event] = deque(maxlen=EVENTS_LIMIT)  # those worth a line
        self.taken = 0  # events ever taken
        self.step = 0
        self.epoch = 0  # completed
        self.steps_per_epoch = 0.0  # 0: not known yet
        self.time = 0.0  # Unix time of the last event
        self._elapsed = 0.0
        self._clock: float | None = None  # time of the last record of this engine

    def take(self, events: Iterable[Event]) -> None:
        """Add events, oldest first. What is not as the engine writes it is passed over."""
        for event in events:
            self.taken += 1
            time = event.get("time")
            if isinstance(time, int | float) and 0 < time < 1e11:
                self.time = float(time)
            kind, step, values = event["kind"], event.get("step"), event.get("values")
            if kind in ("train", "epoch") and _is_step(step) and isinstance(values, dict):
                self._tick(step)
                if kind == "train":
                    self._train(step, values, event.get("losses"))
                else:
                    self._epoch(step, values, event.get("epoch"))
                    self.events.append(event)
            elif kind == "position" and _is_step(step):
                self._put()
                self._clock = None
                if self.step > step:
                    self._back_to(step)
                if step:
                    self.marks.append(Mark(step, "resume", f"resumed at step {step:,}"))
                    self.events.append(event)
            elif kind == "set" and _is_step(step):
                if not event.get("replayed") and not event.get("withdrawn"):  # those change nothing here
                    text = f"{event.get('name')} {event.get('old')} → {event.get('new')}"
                    self.marks.append(Mark(step, "set", text))
                self.events.append(event)
            elif kind != "log":
                self.events.append(event)
        self._put()

    def __getitem__(self, name: str) -> BinnedSeries:
        """The series of a metric, an empty one where there is none (yet)."""
        return self.series.get(name) or self.series.setdefault(name, BinnedSeries())

    def blocks(self, metric: Metric) -> list[int]:
        """The numbers of the blocks that have ``metric``, rising."""
        start, _, end = metric.name.partition("*")
        found = []
        for name, series in self.series.items():
            if name.startswith(start) and name.endswith(end) and len(series):
                number = name[len(start) : len(name) - len(end)]
                found += [int(number)] if _BLOCK.fullmatch(number) else []
        return sorted(found)

    def epoch_of(self, step: float) -> float:
        """Epochs trained after ``step`` steps."""
        return step / self.steps_per_epoch if self.steps_per_epoch else 0.0

    def seconds_of(self, step: float) -> float:
        """Seconds trained after ``step`` steps, between what is known in a straight line."""
        clock = self.seconds
        if not len(clock):
            return 0.0
        at = bisect.bisect_left(clock.number, int(step) >> clock.shift)
        right = min(at, len(clock) - 1)
        left = max(0, right - 1)
        x0, x1 = (clock.middle(left) if right else 0.0), clock.middle(right)
        y0, y1 = (clock.mean(left) if right else 0.0), clock.mean(right)
        return y1 if x1 <= x0 else max(0.0, y0 + (y1 - y0) * (step - x0) / (x1 - x0))

    def _train(self, step: int, values: dict[str, Any], losses: Any) -> None:
        for name, value in values.items():
            if name != LOSS or not isinstance(losses, list):
                self._add(name, step, value)
        if isinstance(losses, list):  # of every step
            steps, column = self._new[LOSS]
            steps.extend(max(0, step - back) for back in reversed(range(len(losses))))
            column.extend(losses)

    def _epoch(self, step: int, values: dict[str, Any], epoch: Any) -> None:
        for name, value in values.items():
            if not name.startswith("train/"):  # those are means of what was taken already
                self._add(name, step, value)
        if _is_step(epoch) and epoch:
            self.epoch, self.steps_per_epoch = epoch, step / epoch

    def _add(self, name: str, step: int, value: Any) -> None:
        steps, column = self._new[name]
        steps.append(step)
        column.append(value)

    def _put(self) -> None:
        """Bring the values that were taken into their series: many at a time cost less than one by one. Null is what
        was not finite; what is no number is passed over."""
        for name, (steps, values) in self._new.items():
            if set(map(type, values)) != {float}:
                known = [(step, value) for step, value in zip(steps, values, strict=True) if type(value) in _NUMBER]
                steps, values = [step for step, _ in known], [_NUMBER[type(value)](value) for _, value in known]
            if values:
                self._named(name).add_many(tuple(steps), values)
        self._new.clear()

    def _named(self, name: str) -> BinnedSeries:
        found = self.series.get(name)
        if found is None:
            found = BinnedSeries()
            if len(self.series) < SERIES_LIMIT:
                self.series[name] = found
        return found

    def _tick(self, step: int) -> None:
        if self._clock is not None and 0 <= self.time - self._clock < _BREAK:
            self._elapsed += self.time - self._clock
        self._clock = self.time
        self.step = max(step, self.step)
        self.seconds.add(step, self._elapsed)

    def _back_to(self, step: int) -> None:
        """An engine died behind its last checkpoint: what it had recorded after that did not come to pass."""
        for series in (*self.series.values(), self.seconds):
            series.truncate(step)
        self.marks = deque((mark for mark in self.marks if mark.step <= step), MARKS_LIMIT)
        self.step = step
        if self.steps_per_epoch:
            self.epoch = int(step / self.steps_per_epoch + 1e-9)
        self._elapsed = self.seconds.last if len(self.seconds) else 0.0


@dataclass(frozen=True)
class Reading:
    """What one look at a run brought."""

    events: list[Event]
    more: bool  # records are waiting already
    look: Look | None  # None: its directory is gone
    log: str = ""  # the end of engine.log, where it was asked for


class Source:
    """One open run. `read` waits for a disk and is called from a thread; `take` adds what it brought, elsewhere.
    ``slurm`` is asked of its job, without being waited for."""

    def __init__(self, run: RunDirectory, slurm: AskSlurm | None = None) -> None:
        self.run, self._ask = run, slurm
        self.curves = Curves()
        self.look: Look | None = None
        self.gone = False
        self.loaded = False  # everything that was there has been taken once
        self.log = ""
        self._tail, self._watcher = Tail(run.events), Watcher(run)

    def read(self, log: bool = False) -> Reading:
        """The next records, at most about BATCH bytes of them, and how the run is now."""
        if not self.run.config.exists():
            return Reading([], False, None)
        look = self._watcher.look()  # before the records: a run that has ended writes no more
        if self._ask is not None:
            look = told([look], self._ask)[0]
        before = self._tail.offset
        events = self._tail.read(BATCH)
        more = self._tail.offset - before > BATCH // 2
        return Reading(events, more, look, launch.log_end(self.run, LOG_LINES) if log else "")

    def take(self, reading: Reading) -> bool:
        """Add what was read; returns whether anything is new."""
        gone = reading.look is None
        new = bool(reading.events) or gone != self.gone or reading.more == self.loaded
        new, self.gone = new or (not gone and reading.look != self.look), gone
        self.look = reading.look or self.look
        new, self.log = new or reading.log not in ("", self.log), reading.log or self.log
        self.curves.take(reading.events)
        self.loaded = self.loaded or not reading.more
        return new

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: the run has ended and all of it was read."""
        return self.loaded and self.look is not None and not self.look.live


class Replay:
    """A run that has ended, played again from its record at a speed; ``curves`` is what had happened by then."""

    SECONDS = 20.0  # that a whole run takes at first

    def __init__(self, run: RunDirectory, curves: Curves) -> None:
        """``curves``: those of the whole run."""
        self.curves = Curves()
        self.curves.steps_per_epoch = curves.steps_per_epoch
        trained = curves.seconds.last if len(curves.seconds) else 1.0
        self.speed = 2.0 ** round(math.log2(max(trained / self.SECONDS, 1 / 16)))
        self.playing = True
        self.over = False
        self._tail = Tail(run.events)
        self._waiting: deque[Event] = deque()
        self._drained = False  # all of the file is in _waiting or taken
        self._now: float | None = None  # the time it is in the run

    @property
    def hungry(self) -> bool:
        """Whether more should be read."""
        return not self._drained and len(self._waiting) < 4000

    def read(self) -> list[Event]:
        """The next records, for `feed`; called from a thread."""
        return self._tail.read(BATCH)

    def feed(self, events: list[Event]) -> None:
        """Queue records."""
        self._drained = self._drained or not events
        self._waiting.extend(events)

    def play(self, seconds: float) -> bool:
        """Let so much time of the person's pass; returns whether anything happened."""
        if not self.playing or self.over:
            return False
        due = []
        if self._now is not None:
            self._now += seconds * self.speed
        while self._waiting:
            time = self._waiting[0].get("time")
            time = float(time) if isinstance(time, int | float) else self._now or 0.0
            if self._now is None or abs(time - self._now) > max(_BREAK, 5 * self.speed):
                self._now = time  # nobody trained in between, or the clock was set
            if time > self._now:
                break
            due.append(self._waiting.popleft())
        self.curves.take(due)
        self.over = self._drained and not self._waiting
        return bool(due) or self.over


def _is_step(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 52
