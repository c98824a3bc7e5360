"""Runs handed to Slurm: made or taken up, submitted, and noted; what was not submitted is as it was before."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs import evaluations, launch, making
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.runs.process import STOPPING, Lock
from engine.runs.slurm import Job
from engine.runs.squeue import Cluster
from engine.runs.state import State, read_state
from engine.sweep import desk, queue, sbatch
from engine.sweep.sbatch import Script

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.sweep.profiles import Profile


_PATIENCE = 90.0  # seconds for another hand-over, which waits for Slurm's programs


@dataclass(frozen=True)
class Handed:
    """A run, or the job that evaluates one, that Slurm has."""

    directory: RunDirectory
    job: Job


@dataclass(frozen=True)
class _Taken:
    """A run that is to be handed over with the directory that is worked on, which may be ``made`` for that, and the
    files that are changed, as they were (None: there was none), the snapshot last."""

    run: RunDirectory
    job: RunDirectory
    made: bool
    kept: Mapping[Path, bytes | None]


class Handover:
    """What is handed to Slurm together: collected, then submitted. What is left as the block ends is undone: a new run
    is gone, another is where it was.

    Nobody else hands over anything of the folder inside the block, so what is asked of a run there stays true.

    A run that was made or taken up is *queued*, without a note of its job until sbatch has answered: whoever is killed
    in between leaves one that says so.
    """

    def __init__(
        self, folder: Path, name: str, profile: Profile,
        *, only_evaluation: bool = False, limit: int | None = None, retries: int = 0, parts: int = 1,
    ) -> None:  # fmt: skip
        self._folder, self._name, self._profile = folder, name, profile
        self._only_evaluation, self._limit, self._retries, self._parts = only_evaluation, limit, retries, parts
        self._taken: list[_Taken] = []
        self.handed: list[Handed] = []
        self.site = sbatch.site()  # asked before anything is made
        self._alone: Lock | None = None

    def __enter__(self) -> Handover:
        self._alone = Lock.take(sbatch.made(self._folder) / "lock", patience=_PATIENCE)
        if self._alone is None:
            raise RequestError(f"something else of {self._folder} is being handed to Slurm for long; try again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._taken:
            with suppress(OSError, RequestError):
                self._undo(one)
        self._taken.clear()
        if self._alone is not None:
            self._alone.release()

    def _undo(self, one: _Taken) -> None:
        """Put back what was done to a run, unless somebody else has taken it up."""
        lock = Lock.take(one.job.lock)
        if lock is None:
            return
        try:
            state = read_state(one.job)
            if state.status != "queued" and (state.status != "starting" or state.engine):
                return
            if one.made:
                shutil.rmtree(one.job.path, ignore_errors=True)
            for path, content in one.kept.items():
                if content is not None:
                    disk.replace_bytes(path, content)
                else:
                    path.unlink(missing_ok=True)
            if one.run.queue in one.kept:
                desk.touch(self._folder)
        finally:
            lock.release()

    def make(self, experiment: Experiment, origin: Origin) -> RunDirectory:
        """A new run; raises RequestError."""
        run, _, lock = making.make(experiment, origin, self._folder, "queued")
        self._taken.append(_Taken(run, run, True, {}))
        lock.release()
        return run

    def again(self, job: RunDirectory) -> None:
        """A run that has ended or waits, or its evaluation, to go on; raises RequestError."""
        lock = launch.take(job)
        try:
            run = _run_of(job)
            if job != run:
                _check_trained(run)
            self._keep(run, job)
            self._wait(run, job, read_state(job))
        finally:
            lock.release()

    def evaluate(self, run: RunDirectory, experiment: Experiment, checkpoint: str = "last") -> None:
        """The evaluation of a run that is there; raises RequestError."""
        _check_trained(run)
        lock, job = evaluations.take(run), run.evaluation
        try:
            self._keep(run, job)
            self._wait(run, job, evaluations.prepare(run, experiment, checkpoint))
        finally:
            lock.release()

    def _keep(self, run: RunDirectory, job: RunDirectory) -> None:
        """Note how a job whose lock is held is now, before anything of it is changed."""
        made = not job.config.exists()
        files = [run.queue] if run.queue.is_file() else []
        files += [] if made else [job.manifest, job.config, job.slurm, job.state]
        kept = {path: path.read_bytes() if path.is_file() else None for path in files}
        self._taken.append(_Taken(run, job, made, kept))

    def _wait(self, run: RunDirectory, job: RunDirectory, state: State) -> None:
        """Let a job whose lock is held wait for Slurm, and for nobody else."""
        replace(state, status="queued", updated=time.time()).write(job)
        job.slurm.unlink(missing_ok=True)
        if run.queue.exists():
            run.queue.unlink()
            desk.touch(self._folder)

    def scripts(self) -> list[Script]:
        """What is to be submitted now."""
        jobs = [(one.run.id, one.job) for one in self._taken]
        return sbatch.scripts(
            self._folder, self._name, jobs, self._profile, self.site,
            only_evaluation=self._only_evaluation, limit=self._limit, retries=self._retries, parts=self._parts,
        )  # fmt: skip

    def submit(self) -> list[Handed]:
        """Hand everything over; raises RequestError with sbatch's words, when what was handed over before stays so."""
        before = ""
        for script in self.scripts():
            sbatch.made(self._folder)
            try:
                script.write()
            except OSError as error:
                raise RequestError(f"{script.path} cannot be written: {error.strerror}") from None
            # Nobody is interrupted between sbatch's answer and its note.
            held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                # The limit is one over all arrays.
                before = sbatch.submit(script, before if self._limit is not None else "")
                self._note(script, before)
            except BaseException:
                script.forget()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return self.handed

    def _note(self, script: Script, number: str) -> None:
        alone, parts = script.tasks.count == 1, script.tasks.parts
        for index, directory in enumerate(script.jobs):
            job = Job(number, None if alone else index, self.site.name, time.time(), str(script.path), parts)
            self._taken = [one for one in self._taken if one.job != directory]
            with suppress(OSError):  # the task notes it too
                job.write(directory)
            self.handed.append(Handed(directory, job))


def drawn(
    folder: Path, name: str, runs: Sequence[str], profile: Profile,
    *, only_evaluation: bool = False, limit: int | None = None, retries: int = 0, parts: int = 1,
) -> list[str]:  # fmt: skip
    """The scripts that would be submitted for runs of these ids, by the limits of this site where there is one."""
    try:
        site = sbatch.site()
    except RequestError:
        site = Cluster("")
    found = [RunDirectory(folder / run) for run in runs]
    jobs = [(run.id, run.evaluation if only_evaluation else run) for run in found]
    scripts = sbatch.scripts(folder, name, jobs, profile, site, only_evaluation=only_evaluation, limit=limit,
                             retries=retries, parts=parts)  # fmt: skip
    return [script.text for script in scripts]


def _check_trained(run: RunDirectory) -> None:
    """Refuse to take a run out of a queue that has still to train it; raises RequestError."""
    if queue.entry_of(run) is None:
        return
    item = queue.item_of(run)
    if item.standing in ("live", "ready") and not item.evaluates:
        raise RequestError(f"{run.id} is in the queue and not trained yet; 'hah queue rm {run.id}' takes it out")


def _run_of(job: RunDirectory) -> RunDirectory:
    """The run that a job belongs to: itself, or the one that it evaluates."""
    return RunDirectory(job.path.parents[1]) if read_state(job).kind == "evaluation" else job
