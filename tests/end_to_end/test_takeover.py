"""An engine whose run another host has claimed meanwhile: it ends, and what there is stays as it is."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.experiment import presets
from engine.runs import claims, launch
from engine.runs.layout import create
from engine.runs.process import Lock
from engine.runs.state import State, read_state
from tests.end_to_end.conftest import LONG, eventually


def contents(run):
    """What every file of a run is but what its engine says of its own end, and the event file that is this engine's."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_ino)
        for path in run.path.rglob("*")
        if path.is_file()
        and path.name not in ("engine.log", "lock")
        and path.suffix != ".tmp"
        and path.parent != run.tensorboard
    }


@pytest.mark.parametrize("when", ["as it is imported", "as it begins", "as it trains"])
def test_an_engine_that_slept_through_it_changes_nothing_more(runs, when):
    run = create(runs, "long", presets.dumped(presets.load("quickstart", LONG)))
    State(status="queued").write(run)
    process = launch.start(run, Lock.take(run.lock), read_state(run))
    launch.answer_signals()
    try:
        if when == "as it is imported":
            eventually(lambda: read_state(run).engine["pid"] == process.pid)
            time.sleep(random.uniform(0, 0.5))
        else:
            eventually(lambda: read_state(run).step > (0 if when == "as it begins" else 40))
            time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: "\nState:\tT" in Path(f"/proc/{process.pid}/status").read_text())
        assert claims.following(run).make()
        before = contents(run)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == launch.TAKEN
    finally:
        process.kill()
        process.wait()
    assert contents(run) == before
    assert not list(run.path.rglob("*.tmp"))
    assert run.log.read_text().splitlines()[-1].endswith("this engine ends and writes nothing more")


def test_a_launch_whose_engine_is_told_so_leaves_the_followers_snapshot(runs):
    run = create(runs, "long", "name: long\n")
    State(status="starting", engine={"host": "node-b"}).write(run)
    ended = subprocess.Popen([sys.executable, "-c", f"import os; os._exit({launch.TAKEN})"])
    before = run.state.read_bytes()
    assert launch.await_start(run, ended) == []
    assert run.state.read_bytes() == before
