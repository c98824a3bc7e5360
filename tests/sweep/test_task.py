"""What a task of a Slurm job finds left to do, and whom it tells of a signal; no Slurm and no engine is needed."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from engine.experiment import presets
from engine.runs import evaluations, launch
from engine.runs.process import STOPPING
from engine.runs.slurm import Job
from engine.runs.state import read_state
from engine.sweep.sbatch import Tasks
from engine.sweep.task import Part, Task
from tests.tui.made import made


@pytest.fixture
def run(runs):
    """A run that is trained, whose own experiment names nothing to measure."""
    runs.mkdir()
    return made(runs, points=0)


@pytest.fixture
def task(run, monkeypatch):
    """task(Task) is the one of a job that was handed that run, job 18."""
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    return lambda kind, **facts: kind(
        Tasks(run.path.parent, facts.pop("only", False), (run.id,), facts.pop("retries", 0), 1.0, "ci", "", **facts), 0
    )


def evaluation(run, job, **state):
    lock = evaluations.take(run)
    prepared = evaluations.prepare(run, presets.load("quickstart", ["evaluate.suites=[noise]"]), "last")
    replace(prepared, **state).write(run.evaluation)
    Job(job, None, "ci", 1.0, "").write(run.evaluation)
    lock.release()


def test_an_evaluation_that_was_handed_over_with_its_run_is_gone_on_with_and_its_failure_is_the_jobs(run, task):
    evaluation(run, "18", status="stopped", stopped_by="signal")
    item = task(Task)._item()
    assert (item.job, item.standing) == (run.evaluation, "ready")
    evaluation(run, "18", status="failed", error="nan")
    assert task(Task).work() == 1
    evaluation(run, "17", status="failed", error="nan")  # another job's
    assert task(Task).work() == 0


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_that_comes_before_or_while_an_engine_is_started_reaches_it(run, task, monkeypatch, early):
    evaluation(run, "18", status="queued")

    def start(*_, **__):
        if early:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        if not early:
            os.kill(os.getpid(), signal.SIGTERM)
        return subprocess.Popen(
            ["sleep", "20"], preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        )

    monkeypatch.setattr(launch, "start", start)
    whole = task(Task)
    assert whole._do(whole._item()) == -signal.SIGTERM
    monkeypatch.setattr(launch, "beside", start)
    part = task(Part, only=True, parts=2)
    if early:
        os.kill(os.getpid(), signal.SIGTERM)
    assert part._measured("1/2") == -signal.SIGTERM


@pytest.mark.parametrize("retries", [0, 2])
def test_what_fails_is_tried_again_as_often_as_the_plan_says(run, task, monkeypatch, capsys, retries):
    evaluation(run, "18", status="queued")
    tried = []

    def start(job, lock, state, *_, **__):
        tried.append(job)
        replace(state, status="failed", error="nan", began=1.0, updated=time.time()).write(job)
        return subprocess.Popen(["false"])

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(launch, "answer_signals", lambda: None)
    assert task(Task, retries=retries).work() == 1
    assert tried == [run.evaluation] * (1 + retries)
    said = capsys.readouterr().out
    assert [n for n in range(1, 4) if f"failed, {n} of {1 + retries} tries" in said] == list(range(1, 1 + retries))
    assert read_state(run.evaluation).status == "failed"
