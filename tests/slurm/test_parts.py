"""One evaluation that several tasks of a real Slurm share: the file of one process, and all of them end well."""

import json

from engine.runs import shares, store
from engine.runs.process import is_locked
from engine.runs.slurm import job_of
from engine.runs.state import read_state
from tests.end_to_end.conftest import eventually, settings
from tests.end_to_end.test_evaluators import FEW, LONG, PLAIN, kept, made, of_one_process, results
from tests.slurm.conftest import PATIENCE, until
from tests.slurm.test_jobs import ended


def submitted(done):
    (one,) = json.loads(done.stdout)["submitted"]
    number, _, task = one["job"].partition("_")
    assert task == "0"
    return number


def at_work(job, *numbers):
    """Whether these parts of an evaluation, and no others, are measured."""
    found = [share for share in shares.every(job) if is_locked(share.lock) and read_state(share).status == "running"]
    return found == [shares.directory(job, number) for number in numbers]


def stopped_by(share):
    return (read_state(share).status, read_state(share).stopped_by)


def test_tasks_that_begin_when_they_like_write_what_one_process_does(slurm, profile, hah, runs, tmp_path_factory):
    profile(options=["--hold"])
    run = made(runs, *PLAIN)
    job = run.evaluation
    number = submitted(hah("eval", run.id, *settings(FEW), "--on", "slurm", "--evaluators", "3", "--json"))
    assert job_of(job).id == f"{number}_0"
    # Before the job, and requeued on the way.
    slurm.ask("scontrol", "release", f"{number}_1")
    second = shares.directory(job, 2)
    eventually(lambda: kept(run) >= 3, PATIENCE)
    slurm.ask("scontrol", "requeue", f"{number}_1")
    eventually(lambda: stopped_by(second) == ("stopped", "signal"), PATIENCE)
    assert store.look(job).status == "queued"
    assert not results(run)
    slurm.ask("scontrol", "release", f"{number}_0")
    until(job, "finished")
    assert ended(slurm, f"{number}_0") == ("COMPLETED", "0:0")
    # After it.
    slurm.ask("scontrol", "release", f"{number}_2")
    for task in (1, 2):
        assert ended(slurm, f"{number}_{task}") == ("COMPLETED", "0:0")
    assert results(run) == of_one_process(tmp_path_factory)
    assert not list(run.results.glob(".*"))
    assert not shares.every(job)
    logs = {path.stem.rpartition("_")[2]: path.read_text() for path in runs.glob(".slurm/*.log")}
    assert f"{second.id} goes on later: SIGTERM came" in logs["1"]
    assert f"{job.id} is finished; nothing to do" in logs["2"]


def test_who_stops_the_evaluation_stops_all_its_tasks_and_who_cancels_one_that_one(slurm, profile, hah, here, runs):
    profile()
    run = made(runs, *PLAIN)
    job = run.evaluation
    number = submitted(hah("eval", run.id, *settings(LONG), "--on", "slurm", "--evaluators", "3", "--json"))
    eventually(lambda: status_of(job) == "running" and at_work(job, 2, 3), PATIENCE)
    slurm.ask("scancel", f"{number}_2")
    eventually(lambda: stopped_by(shares.directory(job, 3)) == ("stopped", "person"), PATIENCE)
    assert ended(slurm, f"{number}_2")[0] == "CANCELLED"
    # Without its job a part goes on, until somebody stops the evaluation that waits.
    slurm.ask("scontrol", "requeue", f"{number}_0")
    eventually(lambda: stopped_by(job) == ("stopped", "signal"), PATIENCE)
    assert at_work(job, 2)
    assert "stopped" in here("stop", job.id).stdout
    assert stopped_by(job) == ("stopped", "person")
    assert ended(slurm, number)[0] == "CANCELLED"
    eventually(lambda: stopped_by(shares.directory(job, 2)) == ("stopped", "person"), PATIENCE)
    # And again: this time the job is there to be asked.
    number = submitted(hah("resume", job.id, "--on", "slurm", "--json"))
    eventually(lambda: status_of(job) == "running" and at_work(job, 2, 3), PATIENCE)
    hah("stop", job.id)
    for task in (0, 1, 2):
        assert ended(slurm, f"{number}_{task}") == ("COMPLETED", "0:0")
    assert stopped_by(job) == ("stopped", "person")
    assert [read_state(share).status for share in shares.every(job)] == ["stopped"] * 2


def status_of(job):
    return store.look(job).status
