"""RUN/slurm.json: the job of a Slurm cluster that a run, or an evaluation, was submitted as; and what a process that
runs in a job knows of it."""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import asdict, dataclass

from engine import disk
from engine.runs.layout import RunDirectory

_JOB = re.compile(r"[1-9][0-9]{0,9}")
_MOST_TASK = 4_000_000  # Slurm's own limit of an array is below


@dataclass(frozen=True)
class Job:
    """``job``: its number, of an array that of the whole array; ``task``: its number in the array, else None;
    ``cluster``: its name; ``submitted``: Unix seconds; ``script``: the path of what was submitted; ``parts``: tasks of
    the array that share one evaluation, whose job is the first of them."""

    job: str
    task: int | None
    cluster: str
    submitted: float
    script: str
    parts: int = 1

    @property
    def id(self) -> str:
        """As squeue, scontrol and scancel call it: 17, or 17_3."""
        return self.job if self.task is None else f"{self.job}_{self.task}"

    @property
    def whole(self) -> str:
        """What is cancelled where nothing is to be left of it: with the tasks that share its evaluation."""
        return self.job if self.parts > 1 else self.id

    def write(self, run: RunDirectory) -> None:
        """Note it in a run; raises OSError."""
        disk.replace_json(run.slurm, asdict(self))


def job_of(run: RunDirectory) -> Job | None:
    """The job that a run was last submitted as; None where it never was, or its file is no such note."""
    stored = disk.read_json(run.slurm, 1 << 16)
    job, task, submitted = stored.get("job"), stored.get("task"), stored.get("submitted")
    if not isinstance(job, str) or not _JOB.fullmatch(job):
        return None
    if task is not None and not (type(task) is int and 0 <= task < _MOST_TASK):
        return None
    if not isinstance(submitted, int | float) or isinstance(submitted, bool) or not math.isfinite(submitted):
        return None
    cluster, script, parts = stored.get("cluster"), stored.get("script"), stored.get("parts")
    return Job(
        job, task, cluster if isinstance(cluster, str) else "", submitted, script if isinstance(script, str) else "",
        parts if type(parts) is int and parts > 0 else 1,
    )  # fmt: skip


# Inside a job

_ANSWER = 8.0  # seconds for Slurm to answer who is about to be killed


def inside() -> str:
    """The id of the job that this process runs in, as `Job.id` has it; '' outside of any."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def cancelled() -> bool:
    """Whether somebody has cancelled the job of this process, as scancel does; False where Slurm does not say.

    A job that is ended is COMPLETING, whatever ends it. One that is to start again has been counted as restarted by
    then, and one over its limit, or preempted, has that for a reason.
    """
    if not inside():
        return False
    try:
        command = ["scontrol", "--oneliner", "show", "job", inside()]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_ANSWER, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    facts = dict(part.partition("=")[::2] for part in done.stdout.split() if "=" in part)
    restarted = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return (
        facts.get("JobState") in ("COMPLETING", "CANCELLED")
        and facts.get("Reason", "None") == "None"
        and facts.get("PreemptTime", "None") == "None"
        and facts.get("Restarts", "0").isdigit()
        and int(facts.get("Restarts", "0")) <= restarted
    )
