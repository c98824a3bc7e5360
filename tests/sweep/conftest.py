"""Runs of a queue without engines: their directories, in every state that a queue can meet."""

import time
from dataclasses import replace

import pytest

from engine.runs.state import read_state
from engine.sweep.queue import Entry
from tests.tui.made import made


@pytest.fixture
def queued(runs):
    """queued(id, status, **asked) -> a run of the queue; ``state`` changes its snapshot."""
    runs.mkdir()
    counted = iter(range(1, 1000))

    def make(id, status="queued", state=None, **asked):
        run = made(runs, "a", status=status, epoch=0, points=0)
        run = type(run)(run.path.rename(runs / id))
        now = time.time() - 100
        replace(read_state(run), updated=now, **(state or {})).write(run)
        facts = {"position": float(next(counted)), "queued": now, "device": "cpu", **asked}
        Entry(**facts).write(run)
        return run

    return make
