"""Runs as jobs of a real Slurm: what a task does with its run, whatever happens to its job."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.disk import read_json
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.slurm import job_of
from engine.runs.state import read_state
from tests.end_to_end.conftest import TINY, eventually, settings, status
from tests.end_to_end.test_processes import assert_losses_have_no_gap_and_no_contradiction, step, weights
from tests.slurm.conftest import PATIENCE, until

LONG = ["train.epochs=100000", "train.milestones=[]"]
SOME = ["train.epochs=40", "train.milestones=[30]", "train.noise_std=0.05", "checkpoints.minutes=0.001"]


def starts(run):
    return read_json(run.starts).get("starts", [])


def ended(slurm, job):
    """Wait until a job has ended; how, and with which exit code."""
    eventually(lambda: not slurm.ask("squeue", "-h", "-j", job, check=False).strip(), PATIENCE)
    facts = slurm.ask("scontrol", "--oneliner", "show", "job", job).split()
    return next(fact.partition("=")[2] for fact in facts if fact.startswith("JobState=")), next(
        fact.partition("=")[2] for fact in facts if fact.startswith("ExitCode=")
    )


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The weights of a run of SOME that nothing happens to, made here without Slurm."""
    program = str(Path(sys.executable).with_name("hah"))
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [program, "run", "quickstart", *settings([*TINY, *SOME]), "--json"]
    elsewhere = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **elsewhere, "HAH_RUNS": str(folder / "runs")}
    )
    (run,) = store.all_runs(folder / "runs")
    return weights(run)


def assert_undisturbed(run, undisturbed):
    mine = weights(run)
    assert mine.keys() == undisturbed.keys()
    assert all(torch.equal(mine[name], undisturbed[name]) for name in mine)
    assert_losses_have_no_gap_and_no_contradiction(run)


def test_a_run_with_its_evaluation_is_one_job_in_whatever_folder(slurm, profile, hah, tmp_path, monkeypatch):
    monkeypatch.setenv("HAH_RUNS", str(tmp_path / "my 'runs' 100%"))
    foreign = tmp_path / "my 'runs' 100%" / ".slurm" / "platformdirs.py"  # nothing there is ever executed
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise SystemExit(3)")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")  # of the shell that submits; not for the job
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    profile(gres="gpu:1", time="10")
    values = [*TINY, "train.epochs=1", "train.milestones=[]", "evaluate.suites=[sparsity]", "evaluate.images=20"]
    (one,) = json.loads(hah("run", "quickstart", "--on", "slurm", "--json", *settings(values)).stdout)["submitted"]
    run, job = RunDirectory(Path(one["path"])), one["job"]
    assert job_of(run).id == job
    until(run.evaluation, "finished")
    assert job_of(run.evaluation) == job_of(run)
    assert ended(slurm, job) == ("COMPLETED", "0:0")
    (start,) = starts(run)
    assert start["host"] in ("ci0", "ci1")
    assert start["gpu"] in ("0", "1")
    assert start["threads"] == 1
    said = (run.path / "slurm.log").read_text()
    assert f"starts {run.id}" in said
    assert f"{run.evaluation.id} is finished" in said
    # What was submitted is kept, and can be submitted again: there is nothing left to do.
    script = job_of(run).script
    again = slurm.ask("sbatch", "--parsable", script).strip()
    assert ended(slurm, again) == ("COMPLETED", "0:0")
    assert len(starts(run)) == 1
    more = hah("eval", run.id, "--suite", "noise", "--images", "20", "--on", "slurm", "--json")
    (one,) = json.loads(more.stdout)["submitted"]
    assert one["id"] == run.evaluation.id
    until(run.evaluation, "finished")
    assert ended(slurm, one["job"]) == ("COMPLETED", "0:0")
    assert len(list(run.results.glob("noise-*.json"))) == 1
    assert job_of(run).id == job


def test_a_preempted_run_is_requeued_and_ends_with_the_weights_of_an_undisturbed_one(
    slurm, profile, handed, undisturbed
):
    profile()
    run, job = handed(*SOME)
    eventually(lambda: step(run) > 5, PATIENCE)
    urgent = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1"]
    slurm.ask("sbatch", "--parsable", *urgent)
    eventually(lambda: status(run) == "stopped", PATIENCE)
    assert read_state(run).stopped_by == "signal"
    until(run, "finished")
    assert ended(slurm, job) == ("COMPLETED", "0:0")
    assert len(starts(run)) >= 2
    assert_undisturbed(run, undisturbed)


def test_a_run_longer_than_its_time_limit_finishes_by_resuming(slurm, profile, handed, hah):
    profile(time="1", grace=10)
    run, job = handed(*LONG)
    eventually(lambda: len(starts(run)) >= 2, PATIENCE)
    eventually(lambda: status(run) == "running" and step(run) > starts(run)[1]["done"], PATIENCE)
    assert starts(run)[1]["before"] == "stopped"
    assert starts(run)[1]["done"] > 0

    def shortened():  # it may be between two stretches again
        return hah("set", run.id, f"train.epochs={read_state(run).epoch + 3}", check=False).returncode == 0

    eventually(shortened, PATIENCE)
    until(run, "finished")
    assert ended(slurm, job) == ("COMPLETED", "0:0")
    assert_losses_have_no_gap_and_no_contradiction(run)


def test_a_cancelled_job_is_stopped_by_a_person_and_does_not_go_on(slurm, profile, handed, hah):
    profile()
    run, job = handed(*LONG)
    eventually(lambda: step(run) > 3, PATIENCE)
    slurm.ask("scancel", job)
    until(run, "stopped")
    assert read_state(run).stopped_by == "person"
    assert ended(slurm, job)[0] == "CANCELLED"
    time.sleep(2)
    assert slurm.ask("squeue", "-h", "-j", job, check=False).strip() == ""
    # And goes on where somebody asks for it.
    (one,) = json.loads(hah("resume", run.id, "--on", "slurm", "--json").stdout)["submitted"]
    assert one["job"] != job
    at = read_state(run).step
    eventually(lambda: status(run) == "running" and step(run) > at, PATIENCE)
    hah("stop", run.id)
    assert read_state(run).stopped_by == "person"
    assert ended(slurm, one["job"]) == ("COMPLETED", "0:0")
    assert_losses_have_no_gap_and_no_contradiction(run)


def test_a_run_on_a_node_that_dies_is_lost_and_goes_on_when_slurm_starts_its_job_again(
    slurm, profile, handed, undisturbed
):
    profile(options=["--nodelist=ci1"])
    run, job = handed(*SOME)
    eventually(lambda: step(run) > 5, PATIENCE)
    slurm.kill_node("ci1")
    until(run, "lost")
    time.sleep(15)  # BatchStartTimeout and 10: until then a job that its node does not know may be about to begin there
    slurm.start_node("ci1")  # a node that comes back without the job has lost it
    until(run, "finished")
    assert ended(slurm, job) == ("COMPLETED", "0:0")
    assert [one["before"] for one in starts(run)] == ["queued", "lost"]
    assert_undisturbed(run, undisturbed)


def test_a_failing_run_fails_its_job(slurm, profile, handed):
    profile(shell=["export HAH_DATA=/nowhere"])
    run, job = handed("data.dataset=digits", "train.lr=1000000", "train.optimizer=sgd")
    until(run, "failed")
    assert ended(slurm, job) == ("FAILED", "1:0")


def test_two_jobs_of_one_run_do_not_run_it_twice(slurm, profile, handed, hah):
    profile()
    run, job = handed(*LONG)
    eventually(lambda: step(run) > 0, PATIENCE)
    second = slurm.ask("sbatch", "--parsable", job_of(run).script).strip()
    assert ended(slurm, second) == ("COMPLETED", "0:0")
    assert len(starts(run)) == 1
    assert job_of(run).id == job
    assert "another process runs it" in (run.path / "slurm.log").read_text()
    hah("stop", run.id)
