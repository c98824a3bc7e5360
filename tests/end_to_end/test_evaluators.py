"""One evaluation in several processes: the file that one process writes, whoever dies meanwhile."""

import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from engine.experiment import presets
from engine.job import checkpoints
from engine.runs import launch, shares, store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.process import is_locked
from engine.runs.state import State, read_state
from tests.end_to_end.conftest import eventually, settings
from tests.evaluation.conftest import NETWORK
from tests.once import once

# Few images and steps; what attacks and probes find is for others to judge. 71 pieces.
FEW = [
    "evaluate.suites=[noise, sparsity, corruptions, attacks, minimum_norm, masking]", "evaluate.images=12",
    "evaluate.noise.levels=[0.1, 0.2]", "evaluate.corruptions.names=[fog, contrast]",
    "evaluate.corruptions.severities=[1, 5]", "evaluate.attacks.steps=4", "evaluate.attacks.linf=[0.004, 0.008, 0.016]",
    "evaluate.minimum_norm.steps=4", "evaluate.minimum_norm.trials=1", "evaluate.masking.steps=4",
    "evaluate.masking.queries=8",
]  # fmt: skip
LONG = ["evaluate.suites=[attacks]", "evaluate.attacks.methods=[pgd]", "evaluate.attacks.steps=10000"]
LONG += ["evaluate.attacks.linf=[1e-4, 2e-4, 3e-4]", "evaluate.attacks.l2=[1e-4, 2e-4]"]  # too small to break any


def made(folder):
    """A run that has finished with the tests' digits network."""
    experiment = presets.load(str(NETWORK / "config.yaml"), ["compute.threads=1", "compute.device=cpu"])
    run = RunDirectory(folder / "digits-hah-kept")
    for part in (run.control, run.checkpoints, run.results, run.tensorboard):
        part.mkdir(parents=True)
    run.config.write_text(presets.dumped(experiment))
    State(name="digits-hah", status="finished", epoch=8, epochs=8, began=1.0, created=1.0).write(run)
    weights = {"network": load_file(NETWORK / "model.safetensors"), "experiment": experiment.dump()}
    checkpoints.write(run.checkpoints / "last.pt", {**weights, "epoch": 8, "step": 96})
    return run


@pytest.fixture
def run(runs):
    return made(runs)


def results(run):
    return {path.name: path.read_bytes() for path in run.results.glob("[!.]*.*")}


@pytest.fixture(scope="session")
def alone(tmp_path_factory, program):
    """What one process writes, made once."""

    def make(folder):
        run = made(folder)
        elsewhere = {f"XDG_{kind}_HOME": str(folder.with_name("nobody")) for kind in ("CONFIG", "DATA", "CACHE")}
        env = {**os.environ, **elsewhere, "HAH_RUNS": str(folder)}
        subprocess.run([program, "eval", run.id, *settings(FEW)], check=True, capture_output=True, env=env)

    return results(RunDirectory(once(tmp_path_factory, "alone", make) / "digits-hah-kept"))


def processes_of(job):
    """The pids of the processes beside a job that are at work."""
    found = []
    for share in shares.every(job):
        pid = read_state(share).engine.get("pid")  # at the very start that of the one before
        if is_locked(share.lock) and pid and not gone(pid):
            found.append(pid)
    return found


def gone(pid):
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def warnings_of(job):
    return [event["text"] for event in Tail(job.events) if event["kind"] == "warning"]


def kept(run):
    return sum(path.read_bytes().count(b"\n") for path in run.results.glob(".*.pieces"))


def test_killed_at_random_points_three_processes_write_what_one_does(hah, run, alone):
    """Ten kills: of those beside the job, without whom it goes on, and of the job, with whom all of them die."""
    job, chance, kills = run.evaluation, random.Random(1), 0
    for beside in (2, 2, 0, 2):
        hah("eval", run.id, *settings(FEW), "--evaluators", "3", "--detach")
        victims = eventually(lambda: (found := processes_of(job)) and len(found) == 2 and found, 120)
        for pid in [*victims[:beside], read_state(job).engine["pid"]]:
            wanted, written = kept(run) + chance.randint(0, 3), len(results(run))
            eventually(lambda w=wanted, r=written: kept(run) >= w or len(results(run)) > r, 240)
            time.sleep(chance.uniform(0, 0.5))
            os.kill(pid, signal.SIGKILL)
            kills += 1
        eventually(lambda v=victims: all(map(gone, v)))  # nobody goes on without the job
        eventually(lambda: store.look(job).status == "lost")
    assert kills == 10
    assert len(results(run)) < len(alone)  # it is not over yet
    hah("eval", run.id, *settings(FEW), "--evaluators", "2", timeout=300)
    assert results(run) == alone
    assert not list(run.results.glob(".*"))
    assert not shares.every(job)


def test_who_dies_is_told_of_and_those_left_go_on_until_they_are_asked_to_stop(hah, here, run):
    job = run.evaluation
    hah("eval", run.id, *settings(LONG), "--evaluators", "3", "--detach")
    eventually(lambda: [store.look(share).status for share in shares.every(job)] == ["running"] * 2, 120)
    assert "3 processes" in here("show", job.id).stdout
    assert here("show", job.id, "--json").stdout.count('"piece"') == 3
    second, third = processes_of(job)
    resource.prlimit(second, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    eventually(lambda: warnings_of(job), 120)
    assert "process 2 of 3 measures no more: out of memory" in warnings_of(job)[0]
    hah("pause", run.id)
    assert store.look(job).status == "paused"
    eventually(lambda: store.look(shares.directory(job, 3)).status == "paused")
    hah("resume", run.id)
    eventually(lambda: store.look(shares.directory(job, 3)).status == "running")
    os.kill(third, signal.SIGKILL)
    eventually(lambda: len(warnings_of(job)) == 2)
    assert warnings_of(job)[1] == "process 3 of 3 measures no more: its process was ended by SIGKILL"
    eventually(lambda: read_state(job).processes == 1)
    hah("stop", run.id)
    hah("eval", run.id, *settings(LONG), "--evaluators", "2", "--detach")
    (pid,) = eventually(lambda: processes_of(job), 120)
    os.kill(read_state(job).engine["pid"], signal.SIGTERM)
    eventually(lambda: store.look(job).status == "stopped")
    assert read_state(job).stopped_by == "signal"
    assert gone(pid)


def test_parts_are_refused_where_there_is_no_evaluation(run):
    for arguments, words in (
        ([str(run.path), "--part", "1/2"], "is no evaluation; one lies in a run's results, as RUN-evaluation"),
        ([str(run.path), "--part", "3/2"], "must be K/N, such as 2/8, got '3/2'"),
    ):
        done = subprocess.run(launch.engine_command("share", *arguments), capture_output=True, text=True)
        assert done.returncode == 2
        assert words in done.stderr
    assert not list(run.path.glob("**/shares"))
