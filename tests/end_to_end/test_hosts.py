"""One runs folder and two hosts: nothing is run twice, nothing is lost, and what cannot be known is not said."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter

import pytest

from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.runs.watcher import Watcher
from engine.sweep import desk, queue
from tests import hosts
from tests.end_to_end.conftest import LONG, TINY, settings
from tests.end_to_end.test_queue import epochs_done, same, starts
from tests.hosts import Disturbed, Host, until

pytestmark = pytest.mark.skipif(bool(hosts.missing()), reason=hosts.missing())

PLAN = """
base: quickstart
set: {{ {settings} }}
axes: {{hah.lambda: [0.1, 0.5, 1.0]}}
seeds: 4
queue: {{slots: 3}}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(PLAN.format(settings=", ".join(one.replace("=", ": ", 1) for one in TINY)))
    return path


@pytest.fixture
def two(tmp_path):
    """Two hosts that see one runs folder, and die with the test."""
    started = [Host(name, tmp_path, {}) for name in ("node-a", "node-bb")]
    yield started
    for one in started:
        one.die()


def test_they_are_two_hosts(two, runs):
    """What the rest stands on: of what tells hosts apart, all is different, and the folder is the same."""
    text = (
        "import sys, json, time; from engine.runs.process import identity, Lock; from pathlib import Path\n"
        "lock = Lock.take(Path(sys.argv[1])); print(json.dumps([identity().dump(), time.monotonic(), lock is None]))"
    )
    runs.mkdir()
    (one, clock, _), (other, later, _) = (json.loads(host.python(text, str(runs / "lock"))) for host in two)
    assert all(one[fact] != other[fact] for fact in ("host", "boot", "pid_space"))
    assert abs(later - clock) > 1000
    before = one["boot"]
    two[0].die()
    two[0].boot()
    again = json.loads(two[0].python(text, str(runs / "lock")))[0]
    assert again["host"] == "node-a"
    assert again["boot"] != before


def test_commands_and_statuses_across_hosts(two, runs):
    a, b = two
    long = json.loads(a.hah("run", "quickstart", "--detach", "--json", *settings(LONG)).stdout)
    run = RunDirectory(runs / long["id"])
    there = json.loads(b.hah("show", run.id, "--json").stdout)
    assert (there["status"], there["host"], there["verified"]) == ("running", "node-a", False)
    assert "cpu on node-a" in b.hah("ls").stdout
    assert "cpu on node-a" not in a.hah("ls").stdout
    b.hah("pause", run.id)
    assert read_state(run).status == "paused"
    b.hah("resume", run.id)
    b.hah("set", run.id, "hah.lambda=0.5")
    assert read_state(run).changed == {"hah.lambda": 0.5}
    for asked in (("resume", run.id), ("rm", run.id, "--yes")):
        refused = b.hah(*asked, check=False)
        assert refused.returncode == 2
        assert "node-a" in refused.stderr or "is running" in refused.stderr
    # Its host dies: lost, once its silence has been waited for; said so, and gone on with, over there.
    a.die()
    went = b.hah("resume", run.id, "--detach")
    assert "waiting for a sign of life" in went.stderr
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [event["host"] for event in events if event["kind"] == "engine"] == ["node-a", "node-bb"]
    b.hah("stop", run.id)
    assert read_state(run).status == "stopped"


def test_a_run_that_is_taken_over_has_one_engine(two, runs):
    """On a file system that keeps locks to each host: nothing is taken up that may live elsewhere, unless a person says
    so, and then the engine that is followed ends without another word."""
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no bindfs, or no FUSE")
    a, b = two
    a.hah("queue", "add", "quickstart", *settings(LONG))
    (run,) = store.all_runs(runs)
    until(lambda: store.look(run).status == "running")
    subprocess.run(b.command("bindfs", runs, runs), check=True)
    refused = b.hah("queue", "add", "quickstart", check=False)
    assert refused.returncode == 2
    assert "node-a starts what waits there, and only one host may" in refused.stderr
    assert len(store.all_runs(runs)) == 1
    assert json.loads(b.hah("doctor", "--json").stdout)["mount"]["locks"] == "unknown"

    engine = read_state(run).engine
    a.kill(engine["pid"], signal.SIGSTOP)  # it lives, and nobody can see that it does
    refused = b.hah("resume", run.id, check=False)
    assert refused.returncode == 2
    assert "--take-over" in refused.stderr
    b.hah("resume", run.id, "--take-over", "--detach")
    until(lambda: read_state(run).status == "running" and read_state(run).engine["host"] == "node-bb")
    assert sum(map(len, hosts.engines(runs).values())) == 2
    a.kill(engine["pid"], signal.SIGCONT)
    until(lambda: sum(map(len, hosts.engines(runs).values())) == 1)
    assert "was taken over by process" in run.log.read_text()
    assert b.hah("pause", run.id).returncode == 0
    assert (read_state(run).status, read_state(run).engine["host"]) == ("paused", "node-bb")
    kinds = [(one["kind"], one.get("host")) for one in map(json.loads, run.events.read_text().splitlines())]
    assert [host for kind, host in kinds if kind == "engine"] == ["node-a", "node-bb"]
    assert not {"stopped", "failed", "finished"} & {kind for kind, _ in kinds}
    b.hah("stop", run.id)


def test_two_hosts_killed_at_random(two, runs, plan, hah, tmp_path):
    """Dispatchers and engines die at random moments, each host once as a whole: every run is done once, and its weights
    are those of one that nobody disturbed."""
    seed = random.randrange(10_000)
    disturbed = Disturbed(two, runs, random.Random(seed))
    two[0].hah("sweep", "run", plan, "--detach")
    two[1].hah("queue", "attend", "always")
    try:
        disturbed.until_done(3, 3, seconds=400)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {disturbed.killed}: {error}") from error
    items = queue.Queue(runs).items()
    assert len(items) == 12
    assert {item.look.status for item in items} == {"finished"}, (seed, disturbed.killed)
    assert disturbed.killed["host"] == 2
    assert len({start["host"] for item in items for start in starts(item.run)}) == 2
    for item in items:
        assert epochs_done(item.run) == [1, 2, 3], (seed, item.run.id)
        began = [json.loads(line) for line in item.run.events.read_text().splitlines()]
        kinds = Counter(event["kind"] for event in began)
        assert kinds["finished"] == 1, (seed, item.run.id)
        assert kinds["engine"] <= len(starts(item.run)), (seed, item.run.id)
        assert "taken over" not in item.run.log.read_text()
    one = next((item for item in items if len(starts(item.run)) > 1), items[0])
    (tmp_path / "alone.yaml").write_text(one.run.config.read_text())
    alone = json.loads(hah("run", tmp_path / "alone.yaml", "--json").stdout)
    assert same(RunDirectory(runs / alone["id"]), one.run), (seed, one.run.id)


def test_what_a_dead_host_had_is_taken_up_by_the_other(two, runs):
    """Also a start that was noted and never happened."""
    a, b = two
    a.hah("queue", "add", "quickstart", *settings(LONG))
    (run,) = store.all_runs(runs)
    until(lambda: store.look(run).status == "running")
    b.hah("queue", "attend", "always")
    until(lambda: len([one for one in desk.hosts(runs) if one.attends]) == 2)
    listed = b.hah("queue", "ls")
    assert "hosts that start what waits: node-a (" in listed.stderr
    assert "node-bb (this one, " in listed.stderr
    assert "cpu on node-a" in listed.stdout
    a.die()
    until(lambda: read_state(run).engine.get("host") == "node-bb" and read_state(run).status == "running")
    assert [start["host"] for start in starts(run)] == ["node-a", "node-bb"]
    b.hah("stop", run.id)
    assert Watcher(run).look().status == "stopped"
