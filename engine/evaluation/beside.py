"""The processes that share an evaluation with its job: started, told what is asked, watched, and ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from engine.runs import control, launch, shares
from engine.runs.control import Command
from engine.runs.launch import Given
from engine.runs.layout import RunDirectory
from engine.runs.process import Beat, heartbeat_of, is_locked
from engine.runs.state import read_state

LOOK = 0.5  # seconds between two looks at other processes
GRACE = 5.0  # seconds that a process has to end by itself
_MOST_AT_A_LOOK = 2 * LOOK  # of silence: this process may have been stopped meanwhile, and the others with it
START_PATIENCE = 300.0  # without a heartbeat yet


@dataclass
class _Process:
    number: int
    process: subprocess.Popen[bytes]
    leash: int  # the end of a pipe: the process dies when it is closed, as it is when this one dies


class Beside:
    """The processes beside a job, one for each of ``given``; and all others that share it, on whatever machine.

    One that dies is not started again: what it had begun is measured by those that are left, and ``warn`` is told.
    """

    def __init__(self, job: RunDirectory, given: Sequence[Given], warn: Callable[[str], object]) -> None:
        self._job, self._given, self._warn = job, given, warn
        self._started: list[_Process] | None = None
        self._looked = 0.0
        self._silent: dict[RunDirectory, tuple[Beat | None, float]] = {}  # the last beat, and how long it is the last

    @property
    def count(self) -> int:
        """How many are there now."""
        return sum(is_locked(share.lock) for share in shares.every(self._job))

    def start(self) -> None:
        """Start them, unless that is done."""
        if self._started is not None:
            return
        self._started = []
        for number, given in enumerate(self._given, 2):
            end, leash = os.pipe()
            command = ["share", str(self._job.path), "--part", f"{number}/{len(self._given) + 1}", "--leash", str(end)]
            try:
                self._started.append(_Process(number, launch.beside(command, given, end), leash))
            except OSError as error:
                os.close(leash)
                self._warn(f"process {number} of {len(self._given) + 1} cannot be started: {error.strerror}")
            finally:
                os.close(end)
                given.release()

    def look(self) -> bool:
        """Look at them, if that is due: say which have died, end those that show no sign of life."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return False
        gap, self._looked = min(now - self._looked, _MOST_AT_A_LOOK), now
        for share in shares.every(self._job):
            beat = heartbeat_of(share.heartbeat)
            before, silent = self._silent.get(share, (None, 0.0))
            self._silent[share] = beat, silent + gap if beat == before else 0.0
        for one in [*(self._started or [])]:
            share = shares.directory(self._job, one.number)
            if one.process.poll() is not None:
                self._let_go(one)
                if one.process.returncode not in (0, 130):
                    said = read_state(share).error if one.process.returncode > 0 else ""
                    why = said or f"its process {launch.ending(one.process.returncode)}"
                    self._warn(f"process {one.number} of {len(self._given) + 1} measures no more: {why}")
            elif self._is_deaf(share):
                one.process.kill()
                one.process.wait()
                self._let_go(one)
                words = "it showed no sign of life and was ended"
                self._warn(f"process {one.number} of {len(self._given) + 1} measures no more: {words}")
        return True

    def works(self) -> bool:
        """Whether any of them is at work, so that what it has begun may be waited for."""
        started = [one for one in self._started or [] if one.process.poll() is None]
        return bool(started) or any(
            is_locked(share.lock) and not self._is_deaf(share) for share in shares.every(self._job)
        )

    def pass_on(self, command: Command) -> None:
        """Ask of all that share the evaluation what was asked of its job."""
        for share in shares.every(self._job):
            if is_locked(share.lock) and command.verb in ("pause", "resume", "stop", "stop-now"):
                with suppress(OSError):
                    control.send(share, command.verb)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *error: object) -> None:
        """None of those that were started outlives the job."""
        for one in self._started or []:
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        for one in [*(self._started or [])]:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, until - time.monotonic()))
            one.process.kill()
            one.process.wait()
            self._let_go(one)
        for given in self._given:
            given.release()

    def _let_go(self, one: _Process) -> None:
        assert self._started is not None
        os.close(one.leash)
        self._started.remove(one)

    def _is_deaf(self, share: RunDirectory) -> bool:
        beat, silent = self._silent.get(share, (None, 0.0))
        return silent > (beat.patience if beat is not None else START_PATIENCE)
