"""What a real Slurm says of runs: of jobs that wait, run, or are gone; and where nobody is there to say it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.experiment import presets
from engine.runs import slurm as notes
from engine.runs import squeue, store, submitted
from engine.runs.making import Origin
from engine.runs.slurm import Job
from engine.runs.state import read_state
from engine.sweep import plan as plans
from engine.sweep import profiles, sites, submit, sweeps
from engine.sweep.handover import Handover
from hah_tui.cli import preparing
from tests.end_to_end.conftest import LONG, TINY, eventually, settings
from tests.slurm.conftest import PATIENCE, until
from tests.tui.made import made


@pytest.fixture
def over(profile, runs):
    """over(settings, time="10") -> a run that was handed to Slurm, without a look at packages and data before."""

    def hand(values, **said):
        profile(**said)
        with Handover(runs, "quickstart", profiles.load(sites.find(None))) as handover:
            run = handover.make(presets.load("quickstart", values), Origin("quickstart"))
            handover.submit()
        return run

    return hand


@pytest.fixture
def held(over):
    """A run whose job Slurm has and does not start."""
    return lambda: over(TINY, options=["--hold"])


@pytest.fixture
def at_work(over):
    """A run that trains on for a long time in its job."""

    def begin():
        run = over(LONG, time="10", grace=5)
        until(run, "running")
        eventually(lambda: store.look(run).state.step > 0, PATIENCE)
        return run

    return begin


def listed(here, run):
    (one,) = [one for one in json.loads(here("ls", "--json").stdout)["runs"] if one["id"] == run.id]
    return one


def state_of(slurm, run):
    """The state of a run's job, '' where Slurm has none that waits or runs."""
    return slurm.ask("squeue", "-h", "-j", notes.job_of(run).id, "-o", "%T", check=False).strip()


def test_a_run_that_waits_says_why_is_asked_in_vain_and_cancelled(slurm, held, here):
    run = held()
    number = notes.job_of(run).id
    for change in ("--epochs=3", "--set=hah.lambda=2"):
        refused = here("resume", run.id, "--on", "slurm", change, check=False)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "--on slurm: goes on with a run as it is; no setting can be changed on the way" in refused.stderr
    one = listed(here, run)
    assert (one["status"], one["slurm"]["state"], one["slurm"]["reason"]) == ("queued", "pending", "JobHeldUser")
    assert one["reason"] == f"job {number} is pending: held: scontrol release {number}"
    assert f"held: scontrol release {number} (job {number})" in here("queue", "ls").stdout
    for command in (("pause", run.id), ("set", run.id, "hah.lambda=2")):
        assert f"waits in Slurm as job {number}, and has no engine" in here(*command, check=False).stderr
    assert "is Slurm's" in here("resume", run.id, check=False).stderr
    assert "stopped" in here("stop", run.id).stdout
    assert (read_state(run).status, read_state(run).stopped_by) == ("stopped", "person")
    assert state_of(slurm, run) == ""
    submitted.check_free(run)  # it could go on here now


def test_a_run_that_waits_is_cancelled_when_it_is_deleted(slurm, held, here):
    run = held()
    number = notes.job_of(run).id
    here("rm", "--yes", run.id)
    assert not run.path.exists()
    assert slurm.ask("squeue", "-h", "-j", number, "-t", "PD", check=False) == ""


def test_of_an_array_that_waits_one_is_stopped_then_all(slurm, profile, here, runs, tmp_path):
    profile(options=["--hold"])
    plan = tmp_path / "small.yaml"
    plan.write_text(
        "base: quickstart\nset: {train.epochs: 2, train.milestones: []}\naxes: {hah.lambda: [0.1, 1.0, 2.0]}\n"
    )
    sweep = replace(sweeps.of_plan(plans.load(plans.find(str(plan)))), on="slurm")
    sweeps.write(runs, sweep)
    submit.go(runs, sweep)
    trials = json.loads(here("sweep", "status", "small", "--json", check=False).stdout)["trials"]
    assert [trial["slurm"]["state"] for trial in trials] == ["pending"] * 3
    assert here("sweep", "status", "small", check=False).stdout.count("held: scontrol release") == 3
    here("stop", trials[1]["run"])
    trials = json.loads(here("sweep", "status", "small", "--json", check=False).stdout)["trials"]
    states = [trial["slurm"] and trial["slurm"]["state"] for trial in trials]
    assert states == ["pending", None, "pending"]  # scancel --state=PENDING would have taken them all
    assert [trial["status"] for trial in trials] == ["queued", "stopped", "queued"]
    assert "2 no longer wait, 0 stopped" in here("sweep", "stop", "small").stdout
    trials = json.loads(here("sweep", "status", "small", "--json", check=False).stdout)["trials"]
    assert [trial["status"] for trial in trials] == ["stopped"] * 3
    assert slurm.ask("squeue", "-h", "-t", "PD") == ""


def test_a_run_at_work_tells_its_node_and_time_and_is_reached_through_its_directory(slurm, at_work, here):
    run = at_work()
    facts = listed(here, run)["slurm"]
    assert (facts["state"], facts["node"] in ("ci0", "ci1")) == ("running", True)
    assert 0 < facts["seconds_left"] < 600
    assert f"job {notes.job_of(run).id} on {facts['node']}, " in here("ls").stdout
    assert f"job {notes.job_of(run).id} on {facts['node']}, " in here("queue", "ls").stdout
    assert "is running" in here("resume", run.id, check=False).stderr
    here("stop", run.id)
    assert (read_state(run).status, read_state(run).stopped_by) == ("stopped", "person")
    eventually(lambda: state_of(slurm, run) == "", PATIENCE)  # its task has left it alone, and ended


def test_a_requeued_run_says_that_it_goes_on_and_can_be_taken_out(slurm, at_work, here):
    run = at_work()
    slurm.ask("scontrol", "requeuehold", notes.job_of(run).id)
    until(run, "stopped")
    eventually(lambda: state_of(slurm, run) == "PENDING", PATIENCE)
    one = listed(here, run)
    assert (one["status"], one["stopped_by"], one["slurm"]["state"]) == ("stopped", "signal", "pending")
    assert "and will go on with it" in one["reason"]
    assert "is Slurm's" in here("resume", run.id, check=False).stderr
    here("stop", run.id)
    assert read_state(run).stopped_by == "person"
    assert state_of(slurm, run) == ""


def test_a_run_whose_node_died_is_lost_whatever_slurm_believes(slurm, at_work, here):
    run = at_work()
    node = squeue.ask([notes.job_of(run).job]).of(notes.job_of(run)).node
    slurm.kill_node(node)
    try:
        eventually(lambda: store.look(run).status == "lost", PATIENCE)
        one = listed(here, run)
        assert "its engine is gone without a word" in one["reason"]
        assert "Slurm still has job" in one["reason"]
        here("stop", run.id)
        assert (read_state(run).status, read_state(run).stopped_by) == ("stopped", "person")
    finally:
        slurm.start_node(node)
        eventually(lambda: slurm.idle() == ["ci0", "ci1"], PATIENCE)


def test_a_job_that_slurm_never_had_or_has_forgotten(slurm, held, here, runs):
    runs.mkdir()
    run = made(runs, id="forgotten", status="queued", epoch=0, points=0)
    Job("999999", None, "ci", 1.0, "").write(run)
    for alone in (True, False):  # alone, which squeue calls an error, and beside another
        if not alone:
            held()
        one = listed(here, run)
        assert (one["status"], one["slurm"]["state"]) == ("queued", "gone")
        assert (
            "Slurm no longer knows job 999999, and never began it; 'hah resume forgotten --on slurm'" in one["reason"]
        )
    assert "forgotten" in here("queue", "ls").stdout  # nothing vanishes
    here("stop", run.id)
    assert read_state(run).stopped_by == "person"


def test_a_controller_that_hangs_is_survived_and_a_stopped_run_stays_so(slurm, held, here, monkeypatch):
    run = held()
    monkeypatch.setattr(squeue, "PATIENCE", 1.0)
    os.kill(slurm.controller, signal.SIGSTOP)
    try:
        one = listed(here, run)
        assert (one["status"], one["slurm"]["state"]) == ("queued", "unknown")
        assert one["slurm"]["problem"] == "squeue has not answered for 1 s"
        assert "has not answered" in here("resume", run.id, check=False).stderr
        done = here("stop", run.id, check=False)
        assert (done.returncode, "it ends when it begins" in done.stderr) == (2, True)
        assert "has not answered" in squeue.cluster().problem
    finally:
        os.kill(slurm.controller, signal.SIGCONT)
    monkeypatch.undo()
    number = notes.job_of(run).id
    eventually(lambda: slurm.ask("squeue", "-h", "-j", number, "-o", "%T", check=False).strip() == "PENDING", PATIENCE)
    slurm.ask("scontrol", "release", number)
    eventually(lambda: slurm.ask("squeue", "-h", "-j", number, "-o", "%T", check=False).strip() == "", PATIENCE)
    assert (read_state(run).status, read_state(run).stopped_by) == ("stopped", "person")
    assert "stopped by a person" in (run.path / "slurm.log").read_text()
    assert not run.log.exists()  # no engine ever began


def test_a_controller_that_is_away_is_survived_and_asked_again(slurm, held, here, monkeypatch):
    run = held()
    monkeypatch.setattr(squeue, "PATIENCE", 30.0)
    slurm.end_controller()
    try:
        one = listed(here, run)
        assert (one["status"], one["slurm"]["state"]) == ("queued", "unknown")
        assert "Unable to contact slurm controller" in one["slurm"]["problem"]
    finally:
        slurm.start_controller()
    assert listed(here, run)["slurm"]["state"] == "pending"


def test_who_detaches_an_engine_inside_a_job_is_told_that_it_ends_with_it(slurm):
    hah = Path(sys.executable).with_name("hah")
    command = ["srun", "-n1", hah, "run", "quickstart", "--detach", *settings(TINY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "of Slurm: engines that start here end with it; --on slurm submits a job of its own" in done.stderr


def test_doctor_finds_slurm_its_partitions_and_what_a_profile_is_wrong_about(slurm, profile):
    lines, problems = preparing.of_slurm(squeue.cluster())
    assert "cluster ci, 1,001 tasks in an array at most" in lines[0]
    assert "partition  low: the default, up, no time limit, 2 nodes, gpu:2" in lines
    assert (lines[-1].partition(":")[0], problems) == ("profile    none, which '--on slurm' needs", [])
    path = profile(partition="gpu")
    lines, problems = preparing.of_slurm(squeue.cluster())
    assert f"profile    slurm: {path}" in lines
    assert problems == [f"{path}: partition: gpu is none of this cluster's: low, high"]
    profile(partition="low", grace=-1)
    assert "grace: must be whole seconds" in preparing.of_slurm(squeue.cluster())[1][0]
