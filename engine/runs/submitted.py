"""Runs that were submitted to Slurm: what it knows of them, and how what waits there is taken out again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.experiment.mistakes import RequestError
from engine.runs import squeue
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.slurm import Job, job_of
from engine.runs.squeue import Answer
from engine.runs.state import read_state
from engine.runs.watcher import Look

PATIENCE = 15.0  # seconds: the program tries for nine to reach a controller that is away
_RESTING = ("queued", "lost", "stopped")


AskSlurm = Callable[[Iterable[Job]], Answer]  # as a `squeue.Poll` has it


def job_for(look: Look) -> Job | None:
    """The job of Slurm that a run waits for, or is at work in, as far as its directory tells."""
    if not squeue.concerns(look.state, look.status):
        return None
    trained = look.run.path.parents[1] if look.state.kind == "evaluation" else look.run.path
    return None if RunDirectory(trained).queue.exists() else job_of(look.run)  # what a queue here has is not Slurm's


def told(looks: Sequence[Look], now: AskSlurm | None = None) -> list[Look]:
    """Looks with what Slurm knows of each, from one question for all; ``now``: asked so, in place of waiting."""
    jobs = [job_for(look) for look in looks]
    there = [job for job in jobs if job is not None]
    answer = now(there) if now is not None else squeue.ask([job.job for job in there])
    return [replace(look, slurm=None if job is None else answer.of(job)) for look, job in zip(looks, jobs, strict=True)]


def withdraw(looks: Sequence[Look]) -> tuple[list[RunDirectory], str]:
    """Stop, as a person does, what of some runs waits in Slurm, and cancel its jobs. A run that has an engine is not
    touched. Returns what waited, and a sentence where its jobs could not be cancelled.

    Each is *stopped* before its job is cancelled: a job that begins meanwhile finds its run so, and ends.
    """
    found = [
        (look, job)
        for look in looks
        if look.status in _RESTING and not is_locked(look.run.lock) and (job := job_for(look)) is not None
    ]  # fmt: skip
    # What has begun once goes on where Slurm has requeued its job; what has not is stopped in any case.
    answer = squeue.ask([job.job for _, job in found])
    asked = [replace(look, slurm=answer.of(job)) for look, job in found]
    waited = [look for look in asked if (look.status == "queued" or look.taken) and _stopped(look)]
    jobs = [look.slurm.job for look in waited if look.slurm is not None and not look.slurm.over]
    problem = answer.problem if jobs and answer.problem else _cancel(jobs)
    if problem:
        names = _some([look.run.id for look in waited])
        numbers = _some([job.id for job in jobs])
        problem = f"{names}: stopped, but job {numbers} could not be cancelled ({problem}); it ends when it begins"
    return [look.run for look in waited], problem


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _stopped(look: Look) -> bool:
    """Whether a run that has no engine, and is as it was seen, is stopped by a person from now on."""
    lock = Lock.take(look.run.lock)
    if lock is None:
        return False
    try:
        state = read_state(look.run)
        if (state.status, state.updated) != (look.state.status, look.state.updated):
            return False
        replace(state, status="stopped", stopped_by="person", updated=time.time()).write(look.run)
        return True
    finally:
        lock.release()


def _cancel(jobs: Sequence[Job]) -> str:
    """Cancel jobs; '' or why Slurm could not be asked to. A job that has ended is none to cancel."""
    # Not scancel --state=PENDING: of an array it cancels every task that waits, whichever was named.
    for at in range(0, len(jobs), squeue.MANY):
        try:
            names = [job.whole for job in jobs[at : at + squeue.MANY]]
            code, _, errors = squeue.run(["scancel", *names], PATIENCE)
        except FileNotFoundError:
            return "there is no scancel here"
        except OSError as error:
            return f"scancel {error.strerror}"
        said = "\n".join(text for text in errors.splitlines() if squeue.FORGOTTEN not in text)
        if code and said.strip():
            return f"scancel: {squeue.complaint(said)}"
    return ""


def there(jobs: Iterable[Job]) -> set[str]:
    """The ids of those jobs that wait or run; raises RequestError where Slurm does not say."""
    jobs = list(jobs)
    answer = squeue.ask([job.job for job in jobs])
    if answer.problem:
        raise RequestError(answer.problem)
    return {job.id for job in jobs if not answer.of(job).over}


def check_free(run: RunDirectory) -> None:
    """Refuse to take up a run whose job waits or runs in Slurm, or may; raises RequestError."""
    job, state = job_of(run), read_state(run)
    if job is None or job.job in (os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")):
        return
    answer = squeue.ask([job.job])
    now = answer.of(job)
    if now.over or answer.missing or (not now.known and not squeue.concerns(state, state.status)):
        return
    raise RequestError(f"{run.id} is Slurm's: {now.said}; 'hah stop {run.id}' takes it out")


def allocation() -> str:
    """What to know for who starts engines, or whoever starts what waits, inside a job of Slurm; '' outside of one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        return ""
    if "SLURMD_NODENAME" not in os.environ:  # the shell of salloc stays on the host where that was called
        return f"this shell holds job {job} of Slurm, and is not on its node: what starts here does not run there"
    return f"this is inside job {job} of Slurm: engines that start here end with it"
