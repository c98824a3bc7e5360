"""A sweep as a reader sees it now, read again and again at the cost of what has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.experiment.mistakes import RequestError
from engine.report.cases import CaseReader, Cases
from engine.runs.layout import RunDirectory
from engine.runs.submitted import AskSlurm, told
from engine.runs.watcher import Look
from engine.sweep import desk, queue, sweeps
from engine.sweep.desk import Group
from engine.sweep.sweeps import Sweep, Trial

ROUND_SECONDS = 2.0  # between two looks at a sweep
MANY = 500  # runs that are read in a tenth of a second
PATIENCE = 1.0  # seconds after which what is read already is shown
SHARE = 0.01  # of a core, at most, goes into looking: beyond that it is done more rarely


@dataclass(frozen=True)
class SweepNow:
    """What is known of a sweep: its trials, seed by seed within each point, what was measured, its group."""

    sweep: Sweep
    trials: Sequence[Trial] = ()
    cases: Cases = field(default_factory=Cases)
    group: Group = field(default_factory=Group)
    held: bool = False
    problem: str = ""
    again: frozenset[RunDirectory] = frozenset()  # runs that have ended and wait to be started again
    slurm: Mapping[RunDirectory, Look] = field(default_factory=dict)  # the looks at jobs that Slurm may have, as told

    def status(self, trial: Trial) -> str:
        """How a trial stands, also for the queue and for Slurm."""
        job = self.job(trial)
        awaited = job is not None and job.awaited
        return "queued" if awaited or (trial.look is not None and trial.look.run in self.again) else trial.status

    def job(self, trial: Trial) -> Look | None:
        """The look at what a trial does now, with what Slurm says of it."""
        return None if trial.job is None else self.slurm.get(trial.job.run, trial.job)


class SweepReader:
    """Reads the sweeps of a folder, for a thread; what has not changed is not read again. ``slurm`` is asked of trials
    that it may have, without being waited for."""

    def __init__(self, folder: Path, slurm: AskSlurm | None = None) -> None:
        self.folder, self._ask = folder, slurm
        self._trials, self._cases = sweeps.Reader([folder]), CaseReader()
        self._plan: tuple[object, Sweep] | None = None
        self._ready: dict[RunDirectory, tuple[Trial, int, bool]] = {}
        self._cost = 0.0

    def read(self, name: str, begun: Callable[[SweepNow], object]) -> SweepNow:
        """A sweep as it is; ``begun`` has the cases of a long one before its runs are read, and where that takes long
        the runs before their results."""
        time.sleep(max(0.0, self._cost / SHARE - ROUND_SECONDS))
        since, clock = time.thread_time(), time.monotonic()
        sweep = self._sweep(name)
        group, held = desk.group_of(self.folder, name), desk.paused(self.folder)
        if len(sweep.trials) > MANY:
            begun(SweepNow(sweep, group=group, held=held))
        trials = self._trials.trials(sweep)
        if time.monotonic() - clock > PATIENCE:
            begun(SweepNow(sweep, trials, group=group, held=held))
        again = frozenset(
            trial.look.run for trial in trials if trial.look is not None and self._waits(trial, trial.look)
        )
        jobs = [trial.job for trial in trials if trial.job is not None] if self._ask is not None else []
        slurm = {look.run: look for look in told(jobs, self._ask) if look.slurm is not None} if jobs else {}
        found = SweepNow(sweep, trials, self._cases.read(sweep, trials), group, held, again=again, slurm=slurm)
        self._cost = min(time.thread_time() - since, self._cost or 0.1)  # the first time says nothing of the others
        return found

    def _waits(self, trial: Trial, look: Look) -> bool:
        """Whether the queue is to start a run again that has ended."""
        if trial.status not in ("stopped", "lost", "failed"):
            return False
        try:
            asked = look.run.queue.stat().st_mtime_ns
        except OSError:
            return False
        known = self._ready.get(look.run)
        if known is None or known[0] is not trial or known[1] != asked:
            known = self._ready[look.run] = (trial, asked, queue.item_of(look.run).standing == "ready")
        return known[2]

    def _sweep(self, name: str) -> Sweep:
        path = sweeps.folder_of(self.folder) / name / "plan.json"
        try:
            stamp = name, path.stat().st_mtime_ns
        except OSError:
            raise RequestError(f"the plan of {name} is gone; S shows the sweeps there are") from None
        if self._plan is None or self._plan[0] != stamp:
            self._plan = stamp, sweeps.read(self.folder, name)
        return self._plan[1]
