"""Of several engines of one run only the last goes on, without any lock."""

import json
import os
import subprocess
import sys
import time

import pytest

from engine.job.record import Record
from engine.runs import claims, launch
from engine.runs.claims import Claim, TakenError
from engine.runs.events import EventLog
from engine.runs.layout import create
from engine.runs.process import Lock, identity
from engine.runs.state import State, read_state
from engine.runs.watcher import Watcher


@pytest.fixture
def run(runs):
    return create(runs, "test", "train: {epochs: 3}\n")


CLAIMS = """
import sys
from pathlib import Path
from engine.runs import claims
from engine.runs.layout import RunDirectory
claim = claims.following(RunDirectory(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
print(claim.make(), flush=True)
"""


def test_of_many_at_once_one_has_it(run):
    started = [
        subprocess.Popen([sys.executable, "-c", CLAIMS, str(run.path)], stdin=-1, stdout=-1, text=True)
        for _ in range(6)
    ]  # fmt: skip
    for one in started:
        assert one.stdout.readline() == "ready\n"
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate()[0] for one in started]
    assert sorted(said) == ["False\n"] * 5 + ["True\n"]


def test_who_was_followed_is_told_by_whom(run):
    first = claims.following(run)
    assert first.make()
    first.check()
    second = claims.following(run)
    assert (second.number, second.make()) == (2, True)
    with pytest.raises(TakenError, match=rf"taken over by process {os.getpid()} on {os.uname().nodename}"):
        first.check()
    second.check()


def test_who_was_long_on_the_way_finds_a_later_one(run):
    late = claims.following(run)
    for _ in range(5):
        assert claims.following(run).make()
    assert not late.make()
    assert not Claim(run, 3).make()
    assert sorted(os.listdir(run.claims)) == ["3", "4", "5"]


def test_who_slept_while_many_came_and_went_is_told(run):
    first = claims.following(run)
    assert first.make()
    for _ in range(9):
        assert claims.following(run).make()
        with pytest.raises(TakenError):
            first.check()
    run.path.rename(run.path.with_name("moved"))
    first.check()  # a run that was moved away was not taken over


def test_what_else_lies_there_is_no_number(run):
    run.claims.mkdir()
    for name in ("x", "-1", "1e3", "٣", "9" * 200):
        (run.claims / name).touch()
    assert claims.following(run).number == 1
    run.claims.rename(run.path / "away")
    run.claims.symlink_to(run.path / "away")
    with pytest.raises(OSError, match="is a symbolic link"):
        claims.following(run).make()


@pytest.fixture
def no_engine(monkeypatch):
    """The commands that would have been started."""
    started = []
    monkeypatch.setattr(launch, "_detached", lambda command, *rest, **more: started.append(command))
    yield started
    launch.answer_signals()


def test_a_run_that_another_host_began_meanwhile_is_not_started(run, no_engine):
    """Though its lock is free here, and what was read of it is old."""
    old = State(status="queued", created=1.0, updated=1.0)
    now = State(status="starting", created=1.0, updated=2.0, engine={"host": "node-b", "pid": 7})
    now.write(run)
    with pytest.raises(launch.RequestError, match="was taken up meanwhile by process 7 on node-b"):
        launch.start(run, Lock.take(run.lock), old)
    assert read_state(run).updated == 2.0
    assert no_engine == []
    Lock.take(run.lock).release()  # nobody keeps it


def test_a_run_that_another_host_claims_in_the_same_moment_is_not_started(run, no_engine, monkeypatch):
    state = State(status="queued", created=1.0, updated=1.0)
    state.write(run)
    write = State.write

    def faster(self, where, durable=True):
        Claim(run, 1).make()  # theirs
        write(self, where, durable)

    monkeypatch.setattr(State, "write", faster)
    with pytest.raises(launch.RequestError, match="was taken up meanwhile"):
        launch.start(run, Lock.take(run.lock), state)
    assert no_engine == []
    assert read_state(run).status == "starting"  # as they have said, too: it is theirs now


def test_an_earlier_engines_heartbeat_is_not_the_new_ones(run, no_engine):
    """Of another host, or another boot, whose clock may be far behind."""
    State(status="queued").write(run)
    run.heartbeat.write_text(f"{time.monotonic() - 5000:16.3f} {10.0:12.1f}\n")
    lock = Lock.take(run.lock)
    kept = Lock(os.dup(lock.descriptor))
    launch.start(run, lock, read_state(run))
    look = Watcher(run).look()
    kept.release()
    assert (look.status, look.reason) == ("starting", "")


def test_the_engine_is_told_its_number(run, no_engine):
    State(status="queued").write(run)
    launch.start(run, Lock.take(run.lock), read_state(run))
    (command,) = no_engine
    assert command[command.index("--claim") + 1] == "1"
    assert json.loads((run.claims / "1").read_text())["pid"] == os.getpid()


def test_who_slept_writes_nothing_over_what_its_follower_says(run):
    first = claims.following(run)
    assert first.make()
    record = Record(run, State(status="running"), first.check)
    record.update(status="paused")
    record.beat(600)
    assert claims.following(run).make()
    State(status="running", engine={"host": "node-b"}).write(run)
    before = [path.read_bytes() for path in (run.state, run.events, run.heartbeat)]
    for write in (
        lambda: Record(run, State(status="running"), first.check),
        lambda: record.update(status="running"),
        lambda: record.event("warning", text="x"),
        lambda: record.train(1, 1, [1.0], {}),
        lambda: record.end("finished"),
        record.beat,
        record.close,
    ):
        with pytest.raises(TakenError):
            write()
    assert [path.read_bytes() for path in (run.state, run.events, run.heartbeat)] == before


def test_what_came_late_from_an_engine_that_is_gone_does_not_make_its_followers_run_lost(run):
    """A write that hung in a network file system: the snapshot names the first engine, the last claim another host."""
    first = claims.following(run)
    assert first.make()
    gone = {**identity().dump(), "pid": 2**22 + 1}
    follower = {**gone, "host": "node-b", "boot": "another"}
    State(status="running", engine=gone, claim=1).write(run)
    assert Watcher(run).look().status == "lost"
    (run.claims / "2").write_text(json.dumps(follower))
    look = Watcher(run).look()
    assert look.elsewhere == "node-b"  # which is just starting
    log = EventLog(run.events)
    log.append("engine", **follower, device="cpu")
    look = Watcher(run).look()
    assert (look.status, look.verified, look.elsewhere) == ("running", False, "node-b")
    log.append("finished", step=3, epoch=3)
    State(status="failed", error="out of memory", engine=gone, claim=1).write(run)
    assert (Watcher(run).look().status, Watcher(run).look().state.error) == ("finished", "")
    log.close()


def test_what_waits_for_an_engine_is_not_that_of_an_earlier_claim(run):
    """An evaluation that was done on another host before, described again, and whoever was to start it killed."""
    run.claims.mkdir()
    (run.claims / "1").write_text(json.dumps({**identity().dump(), "host": "node-b", "boot": "another"}))
    State(status="starting", kind="evaluation").write(run)
    assert Watcher(run).look().status == "lost"
    State(status="starting", engine={**identity().dump(), "pid": 2**22 + 1}, claim=2).write(run)  # but did not claim it
    assert (Watcher(run).look().status, Watcher(run).look().elsewhere) == ("lost", "")
