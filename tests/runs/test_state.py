"""Who is alive: locks, identities and heartbeats, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from engine.runs import process, state
from engine.runs.layout import RunDirectory, create
from engine.runs.process import Heartbeat, Lock, heartbeat_of, identity, is_locked, process_state
from engine.runs.state import State, Watcher, read_state


@pytest.fixture
def run(runs):
    return create(runs, "test", "train: {epochs: 3}\n")


# A process that holds a run's lock and beats, like an engine, until it is killed.
HOLDER = """
import sys, time
from engine.runs.layout import RunDirectory
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from pathlib import Path
run = RunDirectory(Path(sys.argv[1]))
lock = Lock.take(run.lock)
beat = Heartbeat(run.heartbeat)
beat.beat(float(sys.argv[2]))
State(status="running", engine=identity().dump()).write(run)
print("ready", flush=True)
while True:
    if sys.argv[3] == "beating":
        beat.beat(float(sys.argv[2]))
    time.sleep(0.02)
"""


@pytest.fixture
def engine(run):
    """Start an engine-like process: engine(patience=10, mode="beating")."""
    started = []

    def start(patience=10.0, mode="beating"):
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(run.path), str(patience), mode], stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"ready\n"
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def eventually(look, status, seconds=5.0):
    deadline = time.monotonic() + seconds
    while (seen := look()).status != status:
        assert time.monotonic() < deadline, (seen, status)
        time.sleep(0.02)
    return seen


def test_a_running_engine_is_running(run, engine):
    engine()
    look = Watcher(run).look()
    assert (look.status, look.verified, look.live) == ("running", True, True)


def test_kill_9_is_seen_as_lost(run, engine):
    child = engine()
    watcher = Watcher(run)
    assert watcher.look().status == "running"
    child.kill()
    killed = time.monotonic()
    look = eventually(watcher.look, "lost")
    assert time.monotonic() - killed < 5
    assert look.verified
    assert "hah resume" in look.reason
    child.wait()
    assert Watcher(run).look().status == "lost"  # a single look suffices on this host


def test_a_zombie_is_dead(run, engine):
    child = engine()
    child.kill()  # and nobody waits for it
    look = eventually(Watcher(run).look, "lost")
    assert look.verified
    assert process_state(look.state.engine) == ""


def test_a_stopped_engine_is_stalled_and_goes_on(run, engine):
    child = engine()
    watcher = Watcher(run)
    child.send_signal(signal.SIGSTOP)
    look = eventually(watcher.look, "stalled")
    assert "SIGCONT" in look.reason
    child.send_signal(signal.SIGCONT)
    assert eventually(watcher.look, "running").verified


def test_a_hung_engine_is_stalled(run, engine):
    engine(patience=0.2, mode="hung")
    look = eventually(Watcher(run).look, "stalled")
    assert "no progress" in look.reason
    assert look.verified


def test_an_engine_that_asked_for_patience_is_not(run, engine):
    engine(patience=60, mode="hung")
    time.sleep(0.3)
    assert Watcher(run).look().status == "running"


def test_a_pid_that_somebody_else_has_now(run):
    """This very process is alive, but it is not the engine: another start time."""
    mine = identity()
    State(status="running", engine=replace(mine, start_ticks=mine.start_ticks - 5).dump()).write(run)
    lock = Lock.take(run.lock)  # even if the lock looked taken
    assert Watcher(run).look().status == "lost"
    lock.release()


def test_after_a_reboot_a_run_is_lost(run):
    State(status="running", engine=replace(identity(), boot="another-boot").dump()).write(run)
    look = Watcher(run).look()
    assert (look.status, look.verified) == ("lost", True)


def test_a_copied_run_directory_is_not_running(run, engine, tmp_path):
    engine()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(run.path), str(copy)], check=True)
    assert Watcher(RunDirectory(copy)).look().status == "lost"
    assert Watcher(run).look().status == "running"


def elsewhere(run, **changes):
    """As if the engine's host were another one."""
    stored = json.loads(run.state.read_text())
    stored["engine"] |= {"host": "gpu-box-7", "boot": "elsewhere", **changes}
    run.state.write_text(json.dumps(stored))


def test_seen_from_another_host_a_single_look_is_the_last_known(run, engine):
    engine()
    elsewhere(run)
    look = Watcher(run).look()
    assert (look.status, look.verified) == ("running", False)
    assert "gpu-box-7" in look.reason


def test_a_reader_that_keeps_watching_sees_life_from_another_host(run, engine):
    engine()
    elsewhere(run)
    watcher = Watcher(run)
    watcher.look()
    time.sleep(0.1)
    look = watcher.look()
    assert (look.status, look.verified) == ("running", True)


def test_and_death_when_the_lock_is_free_and_the_heartbeat_silent(run, engine, monkeypatch):
    monkeypatch.setattr(state, "GONE_AFTER", 0.3)
    child = engine()
    elsewhere(run)
    watcher = Watcher(run)
    assert watcher.look().status == "running"
    child.kill()
    child.wait()
    assert (watcher.look().status, watcher.look().verified) == ("running", False)
    assert eventually(watcher.look, "lost").status == "lost"


def test_but_never_lost_while_the_lock_is_held(run, engine, monkeypatch):
    monkeypatch.setattr(state, "GONE_AFTER", 0.1)
    engine(patience=0.2, mode="hung")
    elsewhere(run)
    watcher = Watcher(run)
    watcher.look()
    look = eventually(watcher.look, "stalled")
    assert not look.verified


@pytest.mark.parametrize("shift", [-86400 * 365, 86400])
def test_clocks_that_are_wrong_change_nothing(run, engine, monkeypatch, shift):
    engine()
    for path in (run.state, run.heartbeat, run.lock):
        os.utime(path, (time.time() + shift, time.time() + shift))
    monkeypatch.setattr(time, "time", lambda: 1e9 + shift)
    assert Watcher(run).look().status == "running"


def test_an_engine_that_said_how_it_ended_is_believed(run):
    for status in ("finished", "stopped", "failed"):
        State(status=status, engine=identity().dump()).write(run)
        look = Watcher(run).look()
        assert (look.status, look.verified, look.live) == (status, True, False)


def test_a_launch_whose_launcher_died_is_starting_while_the_lock_is_held(run):
    lock = Lock.take(run.lock)
    State(status="starting", engine=replace(identity(), pid=2**22 + 1).dump()).write(run)
    assert Watcher(run).look().status == "starting"
    lock.release()
    assert Watcher(run).look().status == "lost"


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '"x"', '{"status": "dancing"}', '{"metrics": [1], "tags": [1, null], "epoch": "x"}',
     '{"engine": 3, "metrics": {"a": "b"}}', "[" * 10_000, '{"created": true, "error": null}'],
)  # fmt: skip
def test_a_broken_snapshot_is_survived(run, text):
    run.state.write_text(text)
    found = read_state(run)
    assert found.id == run.id
    assert isinstance(found.epoch, int)
    assert isinstance(found.metrics, dict)
    assert Watcher(run).look().status == "lost"


def test_a_lock_is_exclusive_survives_readers_and_dies_with_its_holder(run):
    lock = Lock.take(run.lock)
    assert is_locked(run.lock)
    assert Lock.take(run.lock, patience=0.05) is None
    lock.release()
    assert not is_locked(run.lock)
    assert not is_locked(run.path / "nothing")
    held = Lock.take(run.lock)
    assert held is not None
    held.release()


def test_a_forked_worker_does_not_keep_the_lock_of_an_engine_that_died(run):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom engine.runs.process import Lock\n"
        "lock = Lock.take(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\n"
        "print('forked', flush=True)\nos._exit(0)\n"
    )
    done = subprocess.Popen([sys.executable, "-c", code, str(run.lock)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert done.stdout.readline() == b"forked\n"
        done.wait()
        deadline = time.monotonic() + 5
        while is_locked(run.lock):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(done.pid, signal.SIGKILL)
        done.stdout.close()


def test_identity_tells_processes_apart():
    mine = identity()
    assert mine.pid == os.getpid()
    assert mine.boot == process.boot_id() != ""
    assert process_state(mine.dump()) in "RS"
    assert process_state(replace(mine, start_ticks=1).dump()) == ""
    assert process_state({}) == ""
    assert process_state({"pid": "x"}) == ""


def test_heartbeats(run):
    assert heartbeat_of(run.heartbeat) is None
    Heartbeat(run.heartbeat).beat(12.5)
    beat, patience = heartbeat_of(run.heartbeat)
    assert abs(beat - time.monotonic()) < 1
    assert patience == 12.5
    run.heartbeat.write_bytes(b"\xff nonsense")
    assert heartbeat_of(run.heartbeat) is None
