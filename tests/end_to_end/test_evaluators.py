"""One evaluation in several processes: the file that one process writes, whoever dies meanwhile."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from evaluators import made

from engine.runs import control, devices, launch, shares, store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.process import is_locked
from engine.runs.state import read_state
from tests.end_to_end.conftest import eventually, settings
from tests.once import once

# Few images and steps; what attacks and probes find is for others to judge. 71 pieces.
FEW = [
    "evaluate.suites=[noise, sparsity, corruptions, attacks, minimum_norm, masking]", "evaluate.images=24",
    "evaluate.noise.levels=[0.1, 0.2]", "evaluate.corruptions.names=[fog, contrast]",
    "evaluate.corruptions.severities=[1, 5]", "evaluate.attacks.steps=4", "evaluate.attacks.linf=[0.004, 0.008, 0.016]",
    "evaluate.minimum_norm.steps=4", "evaluate.minimum_norm.trials=1", "evaluate.masking.steps=4",
    "evaluate.masking.queries=8",
]  # fmt: skip
LONG = ["evaluate.suites=[attacks]", "evaluate.attacks.methods=[pgd]", "evaluate.attacks.steps=10000"]
LONG += ["evaluate.attacks.linf=[1e-4, 2e-4, 3e-4]", "evaluate.attacks.l2=[1e-4, 2e-4]"]  # too small to break any
PLAIN = ["compute.threads=1", "compute.kernels=reference"]  # starts sooner; benchmarks/evaluators.py has the twins


@pytest.fixture
def run(runs):
    return made(runs, *PLAIN)


def results(run):
    return {path.name: path.read_bytes() for path in run.results.glob("[!.]*.*")}


def of_one_process(tmp_path_factory):
    """What one process writes of FEW, made once in a session."""
    program = Path(sys.executable).with_name("hah")

    def make(folder):
        run = made(folder, *PLAIN)
        elsewhere = {f"XDG_{kind}_HOME": str(folder.with_name("nobody")) for kind in ("CONFIG", "DATA", "CACHE")}
        env = {**os.environ, **elsewhere, "HAH_RUNS": str(folder)}
        subprocess.run([program, "eval", run.id, *settings(FEW)], check=True, capture_output=True, env=env)

    return results(RunDirectory(once(tmp_path_factory, "alone", make) / "digits-hah-kept"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    return of_one_process(tmp_path_factory)


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


def runs_as(share, process):
    state = read_state(share)
    return state.status == "running" and state.engine["pid"] == process.pid


def warnings_of(job):
    return [event["text"] for event in Tail(job.events) if event["kind"] == "warning"]


def kept(run):
    return sum(path.read_bytes().count(b"\n") for path in run.results.glob(".*.pieces"))


def test_killed_at_random_points_three_processes_write_what_one_does(hah, run, alone):
    """Up to ten kills: of those beside the job, without whom it goes on, and of the job, with whom all of them die."""
    job, chance, kills = run.evaluation, random.Random(1), 0
    for beside in (2, 2, 0, 2):
        hah("eval", run.id, *settings(FEW), "--evaluators", "3", "--detach")
        victims = eventually(lambda: (len(found := processes_of(job)) == 2 and found) or not store.look(job).live, 120)
        if not store.look(job).live:
            break
        for pid in [*victims[:beside], read_state(job).engine["pid"]]:
            wanted, written = kept(run) + chance.randint(0, 1), len(results(run))
            eventually(lambda w=wanted, r=written: kept(run) >= w or len(results(run)) > r, 240)
            time.sleep(chance.uniform(0, 0.2))
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
                kills += 1
        eventually(lambda v=victims: all(map(gone, v)))  # nobody goes on without the job
        eventually(lambda: store.look(job).status in ("lost", "finished"))
    assert kills >= 4
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
    # Not RLIMIT_AS: a stack that cannot grow is a SIGSEGV.
    resource.prlimit(second, resource.RLIMIT_DATA, (1 << 20, 1 << 20))
    eventually(lambda: warnings_of(job), 120)
    # Short of memory, Python or PyTorch says so, oneDNN only that it cannot; a C library that does not look crashes.
    why = warnings_of(job)[0].partition("process 2 of 3 measures no more: ")[2]
    assert why.startswith(("out of memory", "probably out of memory", "its process was ended by SIG"))
    hah("pause", run.id)
    assert store.look(job).status == "paused"
    eventually(lambda: store.look(shares.directory(job, 3)).status == "paused")
    hah("resume", run.id)
    eventually(lambda: store.look(shares.directory(job, 3)).status == "running")
    again = subprocess.run(
        launch.engine_command("share", str(job.path), "--part", "3/3"), capture_output=True, text=True
    )
    assert (again.returncode, f"{job.id}-3 is being run by process {third}\n") == (2, again.stderr)
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


def test_parts_that_any_machine_measures_are_brought_together_by_the_job(hah, here, run, alone):
    """As an array of tasks would: nobody is there but the parts, which stop, go on, and leave the job nothing."""
    job, started = run.evaluation, []
    hah("eval", run.id, *settings(FEW), "--detach")
    hah("stop", run.id)
    written = results(run)  # before it was stopped

    def part(number):
        command = launch.engine_command("share", str(job.path), "--part", f"{number}/2")
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return started[-1]

    try:
        one, two = part(1), part(2)
        eventually(lambda: kept(run) >= 3, 120)
        control.send(job, "stop")  # nobody is there who would take it away
        eventually(lambda: one.poll() is not None and two.poll() is not None, 120)
        assert [one.returncode, two.returncode] == [130, 130]
        assert {read_state(share).stopped_by for share in shares.every(job)} == {"person"}
        control.Inbox(job).clear()
        one, two = part(1), part(2)
        eventually(lambda: runs_as(shares.directory(job, 1), one), 120)
        one.send_signal(signal.SIGTERM)
        eventually(lambda: one.poll() is not None, 120)
        assert (one.returncode, read_state(shares.directory(job, 1)).stopped_by) == (130, "signal")
        one = part(1)
        eventually(lambda: one.poll() is not None and two.poll() is not None, 120)
        assert [one.returncode, two.returncode] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert results(run) == written
    measured = kept(run)
    hah("eval", run.id, *settings(FEW))
    assert results(run) == alone
    whole = [event for event in Tail(job.events) if event["kind"] == "finished"]
    assert whole[-1]["piece"] == measured or written  # it had to measure nothing, but for what came before the stop


def test_each_has_a_gpu_of_its_own_as_far_as_they_go(hah, here, run, driver):
    """The GPUs are made up, so all compute on the CPU; who holds which is real."""
    driver(2)
    arguments = ["eval", run.id, *settings(LONG), "--device", "auto"]
    assert json.loads(here(*arguments, "--evaluators", "3", "--estimate", "--json").stdout)["processes"] == 2
    hah(*arguments, "--evaluators", "3", "--detach")
    job = run.evaluation
    eventually(lambda: [store.look(share).status for share in shares.every(job)] == ["running"], 120)
    (share,) = shares.every(job)
    assert [is_locked(path) for path in devices.locks()] == [True, True]
    seen = [Path(f"/proc/{read_state(one).engine['pid']}/environ").read_bytes().split(b"\0") for one in (job, share)]
    assert [b"CUDA_VISIBLE_DEVICES=GPU-1" in environment for environment in seen] == [False, True]
    assert "2 of 3 processes: each has a GPU of its own, and no more GPUs are free" in warnings_of(job)
    hah("stop", run.id)


def test_parts_are_refused_where_there_is_no_evaluation(run):
    for arguments, words in (
        ([str(run.path), "--part", "1/2"], "is no evaluation; one lies in a run's results, as RUN-evaluation"),
        ([str(run.path), "--part", "3/2"], "must be K/N, such as 2/8, got '3/2'"),
    ):
        done = subprocess.run(launch.engine_command("share", *arguments), capture_output=True, text=True)
        assert done.returncode == 2
        assert words in done.stderr
    assert not list(run.path.glob("**/shares"))
