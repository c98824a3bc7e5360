"""RUN/slurm.json: the job of a Slurm cluster that a run, or an evaluation, was submitted as."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from engine import disk
from engine.runs.layout import RunDirectory

_JOB = re.compile(r"[1-9][0-9]{0,9}")
_MOST_TASK = 4_000_000  # Slurm's own limit of an array is below


@dataclass(frozen=True)
class Job:
    """``job``: its number, of an array that of the whole array; ``task``: its number in the array, else None;
    ``cluster``: its name; ``submitted``: Unix seconds; ``script``: the path of what was submitted."""

    job: str
    task: int | None
    cluster: str
    submitted: float
    script: str

    @property
    def id(self) -> str:
        """As squeue, scontrol and scancel call it: 17, or 17_3."""
        return self.job if self.task is None else f"{self.job}_{self.task}"

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
    cluster, script = stored.get("cluster"), stored.get("script")
    return Job(
        job, task, cluster if isinstance(cluster, str) else "", submitted, script if isinstance(script, str) else ""
    )
