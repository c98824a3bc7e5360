"""Who is alive: locks, identities and heartbeats, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from engine.disk import replace_json
from engine.runs import process
from engine.runs.events import EventLog
from engine.runs.layout import RunDirectory, create
from engine.runs.mounts import Mount
from engine.runs.process import Heartbeat, Lock, heartbeat_of, identity, is_locked, process_state
from engine.runs.state import State, read_state
from engine.runs.watcher import Watcher


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
    assert Watcher(run).look().status == "lost"
    lock = Lock.take(run.lock)  # and yet something keeps its lock: nobody can go on, and it is said who
    look = Watcher(run).look()
    assert (look.status, look.live) == ("stalled", True)
    assert look.reason == f"its engine is gone, but process {os.getpid()} keeps its lock: end that one"
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
    monkeypatch.setattr("engine.runs.watcher.GONE_AFTER", 0.3)
    child = engine()
    elsewhere(run)
    watcher = Watcher(run)
    assert watcher.look().status == "running"
    child.kill()
    child.wait()
    assert (watcher.look().status, watcher.look().verified) == ("running", False)
    assert eventually(watcher.look, "lost").status == "lost"


def test_but_never_lost_while_the_lock_is_held(run, engine, monkeypatch):
    monkeypatch.setattr("engine.runs.watcher.GONE_AFTER", 0.1)
    engine(patience=0.2, mode="hung")
    elsewhere(run)
    watcher = Watcher(run)
    watcher.look()
    look = eventually(watcher.look, "stalled")
    assert not look.verified


def on(monkeypatch, locks):
    """As if the runs folder were on such a file system."""
    mount = Mount("nfs", "box:/export", locks, "as a test says")
    monkeypatch.setattr("engine.runs.watcher.mount_of", lambda folder: mount)


@pytest.mark.parametrize("locks", ["local", "unknown"])
def test_where_locks_say_nothing_another_hosts_silence_is_never_death(run, monkeypatch, locks):
    on(monkeypatch, locks)
    monkeypatch.setattr("engine.runs.watcher.GONE_AFTER", 0.0)
    Heartbeat(run.heartbeat).beat(0.1)
    State(status="running", engine=identity().dump()).write(run)
    elsewhere(run)
    watcher = Watcher(run)
    assert (watcher.look().status, watcher.look().verified) == ("running", False)
    time.sleep(0.2)
    look = watcher.look()
    assert (look.status, look.verified, look.live) == ("stalled", False, True)
    assert look.reason.startswith(
        "no sign of life from gpu-box-7 for 0 s, and whether its engine lives cannot be known"
    )
    assert look.reason.endswith("nfs of box:/export, as a test says")
    monkeypatch.undo()
    on(monkeypatch, "shared")
    monkeypatch.setattr("engine.runs.watcher.GONE_AFTER", 0.1)
    look = watcher.look()  # where they are seen, a lock that is free says what the silence does not
    assert (look.status, look.verified) == ("lost", True)
    assert look.reason == "its engine on gpu-box-7 is gone without a word; 'hah resume' continues it"


@pytest.mark.parametrize("locks", ["disk", "shared", "local", "unknown"])
def test_life_is_believed_whatever_a_free_lock_says(run, monkeypatch, locks):
    on(monkeypatch, locks)
    beat = Heartbeat(run.heartbeat)
    beat.beat()
    State(status="running", engine=identity().dump()).write(run)
    elsewhere(run)
    watcher = Watcher(run)
    watcher.look()
    beat.beat()
    look = watcher.look()
    assert (look.status, look.verified) == ("running", True)
    assert look.reason == "its lock is not seen here, but life on gpu-box-7"


def test_a_snapshot_that_changes_is_life_too(run, engine):
    """Of a heartbeat, what is written reaches other hosts late."""
    engine(mode="hung")
    elsewhere(run)
    watcher = Watcher(run)
    watcher.look()
    replace(read_state(run), updated=time.time()).write(run)
    assert watcher.look().verified


@pytest.mark.parametrize("locks", ["disk", "shared"])
def test_this_hosts_reboot_is_known_by_its_name(run, monkeypatch, locks):
    on(monkeypatch, locks)
    State(status="running", engine=replace(identity(), boot="before").dump()).write(run)
    assert (Watcher(run).look().status, Watcher(run).look().verified) == ("lost", True)
    on(monkeypatch, "local")  # two hosts of one name could be there
    assert Watcher(run).look().status == "running"


def test_on_a_file_system_of_several_hosts_the_heartbeat_is_sent(run, monkeypatch):
    sent = []
    monkeypatch.setattr(os, "fdatasync", sent.append)
    for locks, often in (("disk", 0), ("shared", 1), ("local", 1)):
        sent.clear()
        monkeypatch.setattr(process, "mount_of", lambda folder, locks=locks: Mount("nfs", "", locks, ""))
        beat = Heartbeat(run.heartbeat)
        for _ in range(100):
            beat.beat()
        assert len(sent) == often  # and not with every step


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
    beat = heartbeat_of(run.heartbeat)
    assert abs(beat.clock - time.monotonic()) < 1
    assert (beat.patience, beat.words) == (12.5, "")
    for nonsense in (b"\xff nonsense", b"nan inf", b"1e999 1", b""):
        run.heartbeat.write_bytes(nonsense)
        assert heartbeat_of(run.heartbeat) is None


def test_the_last_words_of_an_engine_that_can_write_nothing_else(run):
    State(status="running", engine=replace(identity(), pid=2**22 + 1).dump()).write(run)
    beat = Heartbeat(run.heartbeat)
    beat.beat(12.5)
    size = run.heartbeat.stat().st_size
    beat.say("events.jsonl: No space left on device\n" + "x" * 1000)
    beat.beat(3)
    assert run.heartbeat.stat().st_size == size
    look = Watcher(run).look()
    assert look.status == "lost"
    assert look.reason.startswith("events.jsonl: No space left on device x")
    assert look.reason.endswith("x; 'hah resume' continues it")


def test_queued_is_queued_without_a_lock(run):
    State(status="queued").write(run)
    assert (Watcher(run).look().status, Watcher(run).look().verified) == ("queued", True)


def record(run):
    """What an engine writes of two epochs."""
    run.config.write_text("name: mine\ntags: [a, b]\ntrain: {epochs: 3}\n")
    replace_json(run.manifest, {"name": "mine", "preset": "quickstart", "created": 1000.0})
    log = EventLog(run.events)
    log.append("engine", **identity().dump(), device="cpu", gpu=None, why="x")
    log.append("position", step=0, epoch=0, batch=0)
    for epoch in (1, 2):
        log.append("train", step=10 * epoch, epoch=epoch, losses=[1.0], values={"train/loss": 1 / epoch, "x": None})
        log.append("epoch", step=10 * epoch, epoch=epoch, values={"test/accuracy": 0.1 * epoch})
    log.append("set", id="1", step=20, name="train.epochs", old=3, new=2, replayed=False)
    return log


DAMAGE = [b"", b"null", b"[]", b"{", b'"x"', b'{"status": "dancing"}', b'{"status": "finished", "epoch": "x"}',
          b'{"status": "finished", "metrics": {"a": "b"}}', b'{"status": "finished", "metrics": {"a": NaN}}',
          b'{"status": "finished", "created": 1e999}', b'{"status": "finished", "step": ' + b"9" * 400 + b"}",
          b'{"status": "finished", "created": true}', b'{"status": "finished", "created": -5}',
          b'{"status": "finished", "engine": 3}', b'{"status": "finished", "tags": [1]}', b"[" * 10_000,
          b"\xff\xfe\x00", b'{"status": "fini']  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_read_again_from_the_record(run, damage):
    log = record(run)
    log.append("finished", step=20, epoch=2)
    log.close()
    run.state.write_bytes(damage)
    state = read_state(run)
    assert (state.id, state.name, state.preset, state.tags) == (run.id, "mine", "quickstart", ["a", "b"])
    assert (state.status, state.epoch, state.epochs, state.step) == ("finished", 2, 2, 20)
    assert state.metrics == {"train/loss": 0.5, "test/accuracy": 0.2}
    assert state.changed == {"train.epochs": 2}
    assert (state.created, state.device) == (1000.0, "cpu")
    assert Watcher(run).look().status == "finished"


@pytest.mark.parametrize("instead", ["nothing", "folder", "pipe", "dangling"])
def test_whatever_is_in_the_snapshots_place(run, instead):
    record(run).close()
    match instead:
        case "folder":
            run.state.mkdir()
        case "pipe":
            os.mkfifo(run.state)
        case "dangling":
            run.state.symlink_to("/nowhere")
    look = Watcher(run).look()  # and nobody waits for a writer
    assert (look.status, look.state.epoch) == ("lost", 2)  # nobody said how it ended
    log = EventLog(run.events)
    log.append("failed", error="out of memory", text="out of memory")
    log.close()
    assert Watcher(run).look().status == "failed"
    assert read_state(run).error == "out of memory"


def test_an_evaluation_of_before_kinds_were_written_is_still_one(run):
    run.manifest.write_text(json.dumps({"run": "x", "checkpoint": "last"}))
    old = {"status": "running", "phase": "noise", "epoch": 1, "epochs": 2, "step": 3, "steps": 6}
    run.state.write_text(json.dumps(old))
    state = read_state(run)
    assert (state.kind, state.suite, state.suites, state.piece, state.pieces) == ("evaluation", 1, 2, 3, 6)
    assert (state.epochs, state.steps) == (0, 0)
    run.manifest.write_text("{}")
    assert (read_state(run).kind, read_state(run).epoch) == ("training", 1)


@pytest.mark.parametrize(
    ("facts", "done"),
    [
        ({}, 0), ({"step": 3, "steps": 4, "epoch": 0, "epochs": 2}, 0.75), ({"epoch": 1, "epochs": 2}, 0.5),
        ({"kind": "evaluation", "suite": 1, "suites": 2}, 0.5),
        ({"kind": "evaluation", "suite": 1, "suites": 2, "piece": 9, "pieces": 10}, 0.9),
        ({"step": 9, "steps": 4}, 1),
    ],
)  # fmt: skip
def test_progress_is_of_what_the_job_counts(facts, done):
    assert State(**facts).progress == done
