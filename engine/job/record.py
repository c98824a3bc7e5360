"""The record of a run as it happens: event log, snapshot, TensorBoard and heartbeat, written by one hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.runs.events import MOST_IN_A_RECORD, EventLog
from engine.runs.layout import RunDirectory
from engine.runs.metrics import CLEAN, LOSS, NOISY, TRAIN_ACCURACY
from engine.runs.process import PATIENCE, Heartbeat, identity
from engine.runs.state import State

if TYPE_CHECKING:
    from torch import Tensor

    from engine.experiment import Experiment
    from engine.job.tensorboard import TensorBoard

_SAID = (LOSS, TRAIN_ACCURACY, CLEAN, NOISY)  # of an epoch, in engine.log
SNAPSHOT_SECONDS = 0.5  # at most one state.json in this time, but for changes of status


class Record:
    """Writes what happens; ``state`` is the present snapshot. Before anything is written ``check`` is called, which
    raises where another engine has the run now: who slept through that must not write over what the other one says.

    The event log is the record proper: an OSError of it reaches the caller. The snapshot is a convenience for lists,
    made again with the next one, so a failure to write it is passed over.
    """

    def __init__(self, run: RunDirectory, state: State, check: Callable[[], object] = lambda: None) -> None:
        check()
        self.run, self.state, self.check = run, state, check
        self.log = EventLog(run.events)
        self.heartbeat = Heartbeat(run.heartbeat)
        self._tensorboard: TensorBoard | None = None
        self._written = 0.0
        self._mute = ""  # why the snapshot cannot be written now
        self.update(engine=identity().dump(), error="")

    def open_tensorboard(self, experiment: Experiment | None, step: int = 0) -> None:
        """Open the event files, of a training with its experiment; what they hold beyond ``step`` is hidden
        (TensorBoard's purge_step)."""
        self.check()
        from engine.job.tensorboard import TensorBoard  # brings torch, which an engine may import only later

        self._tensorboard = TensorBoard(self.run.tensorboard, experiment, step + 1 if step else 0)

    def event(self, kind: str, **fields: Any) -> None:
        """A record of something that must not be lost."""
        self._append(kind, durable=True, **fields)

    def train(self, epoch: int, first: int, losses: list[float], values: Mapping[str, float]) -> None:
        """The training metrics of steps ``first`` .. first + len(losses) - 1, and the loss of each."""
        step = first + len(losses) - 1
        short, said = [_short(x) for x in losses], _all_short(values)
        while len(short) > MOST_IN_A_RECORD:  # the values stand with the last of them
            part, short, first = short[:MOST_IN_A_RECORD], short[MOST_IN_A_RECORD:], first + MOST_IN_A_RECORD
            self._append("train", step=first - 1, epoch=epoch, losses=part, values={})
        self._append("train", step=step, epoch=epoch, losses=short, values=said)
        self._latest(step, values)

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], observed: Mapping[str, float]) -> None:
        """The end of an epoch: its training means, and what was observed after it (TensorBoard has only the latter)."""
        every = _all_short({**values, **observed})
        self._append("epoch", step=step, epoch=epoch, values=every)
        said = [f"{name} {every[name]:.4g}" for name in _SAID if name in every]
        print(f"epoch {epoch} step {step}", *said, sep="  ", flush=True)
        self._latest(step, observed)
        self.update(metrics={**self.state.metrics, **_all_short(values)})

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """What an evaluation of the checkpoint of this training step found."""
        self.update(metrics={**self.state.metrics, **values})
        if self._tensorboard is not None:
            self._tensorboard.scalars(step, values)

    def pictures(self, step: int, weights: Sequence[Tensor]) -> None:
        """The weights of the blocks' convolutions as histograms and the first ones' filters, for TensorBoard."""
        if self._tensorboard is not None:
            self.check()
            self._tensorboard.pictures(step, weights)

    def warning(self, text: str) -> None:
        """Something a reader should know that did not stop the run."""
        self.event("warning", text=text)
        print(f"warning: {text}", flush=True)

    def update(self, **changes: Any) -> None:
        """Change the snapshot; a change of status or phase is written at once, the rest twice a second at most."""
        urgent = any(
            key in changes and changes[key] != getattr(self.state, key) for key in ("status", "error", "changed")
        )
        self.state = replace(self.state, updated=time.time(), **changes)
        if urgent or time.monotonic() - self._written >= SNAPSHOT_SECONDS:
            self._snapshot(durable=urgent)

    def beat(self, patience: float = PATIENCE) -> None:
        """A sign of progress; the next comes within ``patience`` seconds."""
        self.check()
        self.heartbeat.beat(patience)

    def end(self, kind: str, *, error: str = "", by: str = "", **fields: Any) -> None:
        """Say how the run ended, ``by`` whom it was stopped; the snapshot that says so is the last thing written."""
        try:
            self.event(kind, **fields, **({"by": by} if by else {}))
        except OSError as full:
            print(f"the record cannot say that it {kind}: {full}", flush=True)
        self.state = replace(
            self.state, status=kind, error=error, stopped_by=by, phase="", eta_seconds=None, updated=time.time()
        )
        self.close()
        if self._mute:
            self.heartbeat.say(f"it {kind}{': ' if error else ''}{error} ({self._mute})")

    def close(self) -> None:
        """Write what is held back, the snapshot last."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        self._snapshot(durable=True)
        self.log.close()

    def _append(self, kind: str, durable: bool = False, **fields: Any) -> None:
        self.check()
        self.log.append(kind, durable=durable, **fields)

    def _snapshot(self, durable: bool) -> None:
        self.check()
        self._written = time.monotonic()
        try:
            self.state.write(self.run, durable)
            why = ""
        except OSError as error:
            why = f"state.json cannot be written: {error.strerror}"
        if why != self._mute:  # said where there is room for it, and taken back
            self._mute = why
            self.heartbeat.say(why)
            print(why or "state.json can be written again", flush=True)

    def _latest(self, step: int, values: Mapping[str, float]) -> None:
        finite = _all_short(values)
        self.update(step=step, metrics={**self.state.metrics, **finite})
        if self._tensorboard is not None:
            self._tensorboard.scalars(step, finite)


def _short(value: float) -> float | None:
    """A number with nine significant digits (float32 has no more), None for what JSON cannot hold."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _all_short(values: Mapping[str, float]) -> dict[str, float]:
    return {name: short for name, value in values.items() if (short := _short(value)) is not None}
