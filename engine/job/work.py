"""An engine's job: what it writes, its device, what it is asked meanwhile; and the work that one kind of job is."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.experiment.mistakes import RequestError
from engine.job.record import Record
from engine.runs import devices, slurm
from engine.runs.control import Command, Inbox
from engine.runs.layout import RunDirectory
from engine.runs.process import PATIENCE, Lock

if TYPE_CHECKING:
    import torch

    from engine.experiment import Experiment

FIRST_PATIENCE = 180.0  # seconds until the first sign of progress (compilation, the GPU's start)
MOST_PATIENCE = 600.0
_FORGOTTEN = 0.98  # of a long patience stays after each sign of progress
_PAUSE_POLL = 0.05


class Stopped(Exception):  # noqa: N818 (not an error)
    """Somebody asked the job to stop; ``save``: what it has done. ``signal`` is the name of the signal that asked, ''
    where a person did."""

    def __init__(self, save: bool = True, signal: str = "") -> None:
        super().__init__()
        self.save, self.signal = save, signal

    @property
    def by(self) -> str:
        """Who asked: a person, who may have cancelled a job of Slurm, a signal, or a limit (of CPU time)."""
        if not self.signal or slurm.cancelled():
            return "person"
        return "limit" if self.signal == "SIGXCPU" else "signal"


@dataclass(frozen=True)
class Place:
    """Where a job is worked on: the torch device and how it was chosen."""

    device: torch.device
    choice: devices.Choice

    @property
    def name(self) -> str:
        """The GPU's name, or cpu."""
        return self.choice.gpu.name if self.choice.gpu else self.device.type

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""
        import torch

        return {
            "type": self.device.type,
            "gpu": self.choice.gpu and self.choice.gpu.name,
            "driver": devices.driver(),
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
        }


class Job:
    """A job in progress. ``asked_to_stop`` gives the name of the signal that has come, '' for none."""

    def __init__(self, record: Record, place: Place, asked_to_stop: Callable[[], str] = lambda: "") -> None:
        self.record, self.directory, self.place = record, record.run, place
        self.paused = False
        self._asked_to_stop, self._inbox = asked_to_stop, Inbox(record.run)
        self.glance: Callable[[], object] = lambda: None  # looks at others, also while paused; may raise Stopped
        self.passes_on: Callable[[Command], object] = lambda command: None  # tells others what was asked
        self._patience, self._at = FIRST_PATIENCE, time.monotonic()

    def attend(self, change: Callable[[Command], str | None]) -> float:
        """Show life, and answer what has arrived; stay here while paused. Returns for how many seconds; raises Stopped.

        ``change`` answers a command that changes a setting: '' where it is done, why it cannot be, or None where it has
        to wait.
        """
        now = time.monotonic()
        gap, self._at = now - self._at, now
        self._patience = max(PATIENCE, min(MOST_PATIENCE, 4 * gap), _FORGOTTEN * self._patience)
        if not self._answer(change):
            return 0.0
        while self._answer(change):
            time.sleep(_PAUSE_POLL)
        self._at = time.monotonic()
        return self._at - now

    def _answer(self, change: Callable[[Command], str | None]) -> bool:
        """Answer every command that waits; returns whether the job is paused now."""
        self.record.beat(self._patience)
        if name := self._asked_to_stop():
            self._stop(Stopped(signal=name))
        self.glance()
        for command in self._inbox.read():
            refused: str | None = command.problem
            if command.verb == "set" and not refused:
                refused = change(command)
                if refused is None:
                    continue
            elif command.verb in ("pause", "resume") and self.paused != (command.verb == "pause"):
                self.paused = not self.paused
                self.record.update(status="paused" if self.paused else "running")  # whoever asked finds it so
            self.record.event("command", id=command.id, verb=command.verb, ok=not refused, text=refused)
            self._inbox.done(command)
            if not refused:
                self.passes_on(command)
            if command.verb.startswith("stop"):
                self._stop(Stopped(save=command.verb == "stop"))
        return self.paused

    def _stop(self, stopped: Stopped) -> None:
        self.record.update(status="stopping")
        raise stopped


class Work(ABC):
    """What one kind of job does, from its images to its last result."""

    following: tuple[RunDirectory, Lock] | None = None  # the job to go on with, in the end, and its lock

    def __init__(self, job: Job, experiment: Experiment) -> None:
        self.job, self.record, self.experiment = job, job.record, experiment

    @abstractmethod
    def prepare(self) -> None:
        """Read what the work needs; raises RequestError where something of it cannot be had."""

    @abstractmethod
    def __call__(self) -> None:
        """Do it; raises Stopped, or what went wrong."""

    def position(self) -> dict[str, Any]:
        """How far it is, for the record."""
        return {}

    def goes_on(self) -> str:
        """Where the next engine would go on, in words."""
        return "what is done stays"

    def relief(self) -> str:
        """What takes less memory."""
        return "choose another compute.device"

    def explained(self, error: BaseException) -> str:
        """What went wrong, where, and what can be done about it."""
        if isinstance(error, RequestError):
            return str(error)
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "out of memory" in text.lower() or "can't allocate memory" in text or isinstance(error, MemoryError):
            size = re.search(r"tried to allocate [\d.]+ \w+", text, re.IGNORECASE)
            return f"out of memory{f' ({size[0].lower()})' if size else ''}; {self.relief()}"
        if "could not create a" in text:  # all that PyTorch says where oneDNN gets no memory
            return f"probably out of memory ({text}); {self.relief()}"
        if isinstance(error, OSError):
            return f"{error.strerror or text}: {error.filename or 'a file of the run'}; {self.goes_on()}"
        return f"{type(error).__name__}: {text}"
