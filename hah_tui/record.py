"""The record of one open run as curves: events come in batches, memory stays bounded however long the run."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from engine.runs.events import Event, Tail
from engine.runs.layout import RunDirectory
from hah_tui.widgets.series import Series

BATCH = 1 << 18  # bytes that one poll reads: some hundred records, applied within a frame
SERIES_LIMIT = 600  # metrics of a run: 19 blocks have 76
MARKS_LIMIT = 200
EVENTS_LIMIT = 500
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
        self.series: dict[str, Series] = {}
        self.seconds = Series()
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
            if isinstance(time, int | float) and math.isfinite(time):
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
                self._clock = None
                if self.step > step:
                    self._back_to(step)
                if step:
                    self.marks.append(Mark(step, "resume", f"resumed at step {step:,}"))
                    self.events.append(event)
            elif kind == "set" and _is_step(step):
                if not event.get("replayed"):  # a resumed engine repeats those that came after its checkpoint
                    text = f"{event.get('name')} {event.get('old')} → {event.get('new')}"
                    self.marks.append(Mark(step, "set", text))
                self.events.append(event)
            elif kind != "log":
                self.events.append(event)

    def __getitem__(self, name: str) -> Series:
        """The series of a metric, an empty one where there is none (yet)."""
        return self.series.get(name) or self.series.setdefault(name, Series())

    def blocks(self, metric: str) -> list[int]:
        """The numbers of the blocks that have ``metric``, rising."""
        found = []
        for name in self.series:
            parts = name.split("/")
            if len(parts) == 3 and parts[0] == "block" and parts[2] == metric and parts[1].isdecimal():
                found.append(int(parts[1][:6]))
        return sorted(n for n in found if len(self.series[f"block/{n}/{metric}"]))

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
            if name != "train/loss" or not isinstance(losses, list):
                self._add(name, step, value)
        if not isinstance(losses, list):
            return
        first = step - len(losses) + 1
        if all(type(loss) is float for loss in losses):
            self._named("train/loss").add_all(max(0, first), losses)
        else:
            for offset, loss in enumerate(losses):  # null is what was not finite
                self._add("train/loss", max(0, first + offset), loss)

    def _epoch(self, step: int, values: dict[str, Any], epoch: Any) -> None:
        for name, value in values.items():
            if not name.startswith("train/"):  # those are means of what was taken already
                self._add(name, step, value)
        if _is_step(epoch) and epoch:
            self.epoch, self.steps_per_epoch = epoch, step / epoch

    def _add(self, name: str, step: int, value: Any) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._named(name).add(step, float(value))
        elif value is None:
            self._named(name).add(step, math.nan)

    def _named(self, name: str) -> Series:
        found = self.series.get(name)
        if found is None:
            found = Series()
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


class Reader:
    """Reads the event log of a run, so much at a time; meant for a thread, while another takes what came."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._tail = Tail(run.events)

    def read(self) -> tuple[list[Event], bool]:
        """(The next events, whether more are waiting)."""
        before = self._tail.offset
        events = self._tail.read(BATCH)
        return events, self._tail.offset - before > BATCH // 2


def _is_step(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 62
