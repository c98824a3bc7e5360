"""Evaluations as jobs: what is to be measured of a run, with a status, a log and a process of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.disk import replace_json, replace_text
from engine.experiment.mistakes import RequestError
from engine.runs import launch
from engine.runs.control import Inbox
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock
from engine.runs.slurm import job_of
from engine.runs.state import State

if TYPE_CHECKING:
    from engine.experiment import Experiment


def take(run: RunDirectory) -> Lock:
    """The right to evaluate ``run``; raises RequestError naming the process that has it."""
    run.check()
    try:
        run.evaluation.path.mkdir(parents=True, exist_ok=True)
        run.evaluation.check()
        run.evaluation.control.mkdir(exist_ok=True)
    except OSError as error:
        raise RequestError(f"{run.results}: an evaluation cannot be made there: {error.strerror}") from None
    return launch.take(run.evaluation)


def prepare(run: RunDirectory, experiment: Experiment, checkpoint: str) -> State:
    """Describe the evaluation of ``checkpoint`` with the settings of ``experiment``; the caller holds the job's lock.

    Returns the state the job starts from. In Slurm it is what the run is, whose engine goes on with it.
    """
    from engine.experiment import presets

    job = run.evaluation
    state = State(kind="evaluation", name=experiment.name, created=time.time(), suites=len(experiment.evaluate.suites))
    state.write(job)
    if (note := job_of(run)) is not None:
        note.write(job)
    replace_json(job.manifest, {"kind": "evaluation", "run": run.id, "checkpoint": checkpoint})
    replace_text(job.config, presets.dumped(experiment))  # the last that is written: with it there is a job
    job.log.unlink(missing_ok=True)  # what an earlier evaluation said
    Inbox(job).clear()
    return state
