"""The queue with real engines and a real dispatcher that are really killed: everything is done once, and to the bit."""

import contextlib
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, holder_of
from engine.runs.state import read_state
from engine.sweep import desk, queue
from tests.end_to_end.conftest import LONG, eventually, settings

FAST = ("-s", "train.epochs=2", "-s", "train.milestones=[]", "-s", "observe.images=16", "-s", "data.train_limit=256")
PLAN = """
base: quickstart
set: {train.epochs: 2, train.milestones: [], observe.images: 16, data.train_limit: 256}
axes: {hah.lambda: [0.1, 1.0]}
seeds: 2
queue: {slots: 2}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture(autouse=True)
def nothing_left(runs):
    """No dispatcher and no engine outlives a test."""
    yield
    for path in (desk.dispatcher_lock(runs), *runs.glob("*/lock")):
        pid = holder_of(path)
        for one in {pid, *([read_state(RunDirectory(path.parent)).engine.get("pid")] if path.name == "lock" else [])}:
            if one and store.look(RunDirectory(path.parent)).live if path.name == "lock" else one:
                try:
                    os.kill(one, signal.SIGKILL)
                except (OSError, TypeError):
                    continue


def weights(run):
    return torch.load(run.checkpoints / "last.pt", weights_only=True)["network"]


def same(first, second):
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def run_alone(hah, strength, seed, threads):
    """One trial of PLAN as a run of its own."""
    own = ("-s", f"hah.lambda={strength}", "-s", f"seed={seed}", "-s", f"compute.threads={threads}")
    return json.loads(hah("run", "quickstart", *FAST, *own, "--json").stdout)


def again_alone(hah, item):
    config = store.experiment_of(item.run, read_state(item.run))
    return run_alone(hah, config.hah.lambda_, config.seed, item.starts[0].threads)


def starts(run):
    return json.loads(run.starts.read_text())["starts"]


def epochs_done(run):
    """The epochs of a run's record. One that ended right before a kill, its checkpoint not yet written, is done again:
    what comes after the position that an engine goes on from does not count."""
    found = []
    for event in map(json.loads, run.events.read_text().splitlines()):
        if event["kind"] == "epoch":
            found.append(event["epoch"])
        elif event["kind"] == "position":
            found = [epoch for epoch in found if epoch <= event["epoch"]]
    return found


def words_of(pid):
    """The command line of a process, [] where it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def test_a_sweep_from_its_plan_to_its_end_then_more_seeds(hah, runs, plan):
    dry = json.loads(hah("sweep", "run", plan, "--dry-run", "--json").stdout)
    assert [(trial["label"], trial["seed"], trial["act"]) for trial in dry["trials"]] == [
        ("lambda=0.1", 2022, "make"), ("lambda=0.1", 2023, "make"),
        ("lambda=1", 2022, "make"), ("lambda=1", 2023, "make"),
    ]  # fmt: skip
    assert not list(runs.glob("*"))

    # One of them was made by hand before.
    by_hand = run_alone(hah, 0.1, 2022, 1)
    done = hah("sweep", "run", plan, "--json")
    trials = {(one["label"], one["seed"]): one for one in json.loads(done.stdout)["trials"]}
    assert {one["status"] for one in trials.values()} == {"finished"}
    assert trials["lambda=0.1", 2022]["run"] == by_hand["id"]
    assert len(store.all_runs(runs)) == 4
    for one in trials.values():
        if one["run"] != by_hand["id"]:
            assert len(starts(RunDirectory(runs / one["run"]))) == 1

    again = hah("sweep", "run", plan)
    assert "4 there already" in again.stdout
    assert len(store.all_runs(runs)) == 4

    more = hah("sweep", "extend", "small", "--seeds", "3", "--detach")
    assert "2 new, 4 there already" in more.stdout
    assert hah("queue", "wait").returncode == 0
    status = hah("sweep", "status", "small")
    assert "6 runs, 6 finished" in status.stdout

    # The same experiment alone, with as many threads as a slot had, is the same to the bit.
    name = trials["lambda=1", 2023]["run"]
    alone = run_alone(hah, 1.0, 2023, starts(RunDirectory(runs / name))[0]["threads"])
    assert same(RunDirectory(runs / alone["id"]), RunDirectory(runs / name))

    hah("sweep", "rm", "small", "--yes")
    assert len(store.all_runs(runs)) == 7
    assert hah("sweep", "status", "small", check=False).returncode == 2


def test_dispatcher_and_engines_killed_at_random_moments(hah, runs, plan):
    """Every run is done once, and its weights are those of one that nobody killed."""
    hah("sweep", "run", plan, "--detach")
    seed = random.randrange(10_000)
    chance = random.Random(seed)
    killed = {"dispatcher": 0, "engine": 0}
    deadline = time.monotonic() + 240
    while True:
        items = queue.Queue(runs).items()
        if all(item.standing in ("done", "over") for item in items):
            break
        assert time.monotonic() < deadline, (seed, killed, [(item.run.id, item.standing, item.why) for item in items])
        time.sleep(chance.uniform(0.2, 1.5))
        # Until an engine says who it is, who started it stands there.
        live = [item for item in items if item.standing == "live" and "run" in words_of(item.look.state.engine["pid"])]
        # Three losses without any progress are the end of a run, and a dispatcher that dies as it starts one is a loss.
        live = [item for item in live if len(item.starts) == 1]
        if killed["engine"] < 4 and live and chance.random() < 0.5:
            victim = chance.choice(live)
            os.kill(victim.look.state.engine["pid"], signal.SIGKILL)
            killed["engine"] += 1
            claimed = time.monotonic()
            while store.look(victim.run).status in ("running", "starting") and time.monotonic() - claimed < 5:
                time.sleep(0.05)
                if len(starts(victim.run)) > len(victim.starts):
                    break  # another engine has it already
            else:
                assert store.look(victim.run).status not in ("running", "starting"), seed
        elif killed["dispatcher"] < 5:
            pid = holder_of(desk.dispatcher_lock(runs))
            if pid and desk.has_dispatcher(runs):
                os.kill(pid, signal.SIGKILL)
                killed["dispatcher"] += 1
        hah("queue", "resume")  # somebody looks at it again, as after a reboot
    assert killed["dispatcher"] >= 1, (seed, killed)
    assert {item.look.status for item in items} == {"finished"}, (seed, killed)
    for item in items:
        done = epochs_done(item.run)
        assert done == sorted(set(done)) == [1, 2], (seed, item.run.id, done)
    with ThreadPoolExecutor() as several:
        alone = list(several.map(partial(again_alone, hah), items[:2]))
    for item, one in zip(items[:2], alone, strict=True):
        assert same(RunDirectory(runs / one["id"]), item.run), (seed, item.run.id)
    assert not list(runs.glob(".*.new"))


def test_twelve_dispatchers_started_at_once(hah, runs):
    from engine.runs import launch

    runs.mkdir()
    hah("queue", "pause")
    hah("queue", "add", "quickstart", *FAST)
    time.sleep(0.5)
    if (pid := holder_of(desk.dispatcher_lock(runs))) and desk.has_dispatcher(runs):
        os.kill(pid, signal.SIGKILL)
    processes = [
        launch.background([*launch.module("engine.sweep"), str(runs)], desk.dispatcher_log(runs)) for _ in range(12)
    ]
    try:
        deadline = time.monotonic() + 60
        while sum(process.poll() is None for process in processes) > 1 or not desk.has_dispatcher(runs):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        hah("queue", "resume")
        (item,) = queue.Queue(runs).items()
        assert hah("queue", "wait", timeout=120).returncode == 0
        assert len(starts(item.run)) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_stop_resume_and_what_a_person_took_out(hah, runs, plan):
    hah("queue", "pause")
    hah("sweep", "run", plan, "--detach", "--slots", "1")
    listed = json.loads(hah("queue", "ls", "--json").stdout)
    assert [one["standing"] for one in listed["runs"]] == ["ready"] * 4
    assert all("the queue is paused" in one["why"] for one in listed["runs"])
    first, second, third, _ = [one["id"] for one in listed["runs"]]
    hah("queue", "move", third, "--first")
    assert json.loads(hah("queue", "ls", "--json").stdout)["runs"][0]["id"] == third
    hah("stop", first)
    hah("queue", "rm", second)
    hah("rm", third, "--yes")
    assert hah("sweep", "status", "small", check=False).returncode == 130
    assert "4 runs, 2 stopped" in hah("sweep", "status", "small", check=False).stdout
    hah("sweep", "stop", "small")
    status = hah("sweep", "status", "small", check=False)
    assert "3 stopped, 1 missing" in status.stdout
    assert not any(read_state(run).began for run in store.all_runs(runs))
    hah("queue", "resume")
    done = hah("sweep", "resume", "small", timeout=240)
    assert "4 runs, 4 finished" in done.stdout


def test_a_failed_run_of_a_sweep_is_said_and_tried_again_when_asked(hah, runs, tmp_path):
    plan = tmp_path / "bad.yaml"
    plan.write_text(
        "base: quickstart\n"
        "set: {train.epochs: 1, train.milestones: [], train.optimizer: adamw}\n"
        "axes: {train.lr: [1.0e6], train.weight_decay: [1.0e6]}\n"
    )
    done = hah("sweep", "run", plan, check=False)
    assert done.returncode == 1
    assert "1 runs, 1 failed" in done.stdout
    (run,) = store.all_runs(runs)
    assert hah("sweep", "resume", "bad", check=False).returncode == 1
    assert len(starts(run)) == 1
    assert hah("sweep", "resume", "bad", "--failed", check=False).returncode == 1
    assert len(starts(run)) == 2


def test_a_reboot(runs, hah):
    """What was running before it is lost and goes on; nothing of it is believed to run."""
    runs.mkdir()
    hah("queue", "pause")
    hah("queue", "add", "quickstart", *FAST)
    (run,) = store.all_runs(runs)
    engine = {"host": os.uname().nodename, "boot": "another", "pid": 1, "start_ticks": 1, "pid_space": ""}
    replace(read_state(run), status="running", step=0, engine=engine).write(run)
    Lock.take(run.lock).release()
    assert store.look(run).status == "lost"
    hah("queue", "resume")
    assert hah("queue", "wait", timeout=120).returncode == 0
    assert read_state(run).status == "finished"


def test_run_queue_waits_its_turn(hah, runs):
    hah("queue", "pause")
    said = hah("run", "quickstart", *FAST, "--queue", "--json")
    (queued,) = json.loads(said.stdout)["queued"]
    run = RunDirectory(Path(queued["path"]))
    assert read_state(run).status == "queued"
    hah("queue", "resume")
    assert hah("queue", "wait", run.id, timeout=120).returncode == 0
    hah("eval", run.id, "--suite", "sparsity", "--images", "32", "--queue")
    assert hah("queue", "wait", timeout=120).returncode == 0
    assert list(run.results.glob("sparsity-*.json"))
    shown = json.loads(hah("show", run.id, "--json").stdout)
    assert shown["queued_commit"].removesuffix("-dirty") == shown["manifest"]["source"]["commit"]


def engines_by_gpu(runs):
    """The GPU that every engine process of a runs folder was handed, {pid: uuid}, as the processes say."""
    found = {}
    for pid in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
        words = words_of(pid)
        if "--gpu" in words and any(Path(word).parent == runs for word in words):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == pid:  # unlike what it has just forked, to become another program
                    found[pid] = words[words.index("--gpu") + 1]
    return found


def test_four_gpus(hah, runs, driver):
    """Never two engines on one GPU, and none idle while something waits, whatever ends: a driver tells of four GPUs."""
    driver(4)
    hah("queue", "add", *["quickstart"] * 5, *settings([*LONG, "compute.device=auto"]))

    def full(*running):
        """The engine on each GPU, once there are four and these runs are at work."""
        held = engines_by_gpu(runs)
        assert len(set(held.values())) == len(held), held
        return held if len(held) == 4 and all(store.look(run).status == "running" for run in running) else None

    def why(run):
        return next(said for item, said in queue.explained(runs, queue.Queue(runs).items()) if item.run == run)

    *first, fifth = [item.run for item in queue.Queue(runs).items()]
    held = eventually(lambda: full(*first), 90)
    assert sorted(held.values()) == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert why(fifth) == "for a GPU"

    # What is stopped makes room for what waits.
    pid = read_state(first[0]).engine["pid"]
    hah("stop", first[0].id)
    after = eventually(lambda: full(fifth), 60)
    assert after[read_state(fifth).engine["pid"]] == held.pop(pid)
    assert held.items() < after.items()

    # Another dispatcher finds every GPU held, and the place of an engine that dies is taken again, by what comes first.
    killed = holder_of(desk.dispatcher_lock(runs))
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not desk.has_dispatcher(runs))
    hah("queue", "add", "quickstart", *settings([*LONG, "compute.device=auto"]))
    (late,) = [item.run for item in queue.Queue(runs).items() if item.standing == "ready"]
    eventually(lambda: why(late) == "for a GPU" and desk.has_dispatcher(runs))
    held = full()
    pid = read_state(fifth).engine["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: read_state(fifth).engine["pid"] != pid and full(fifth), 60)
    assert [start["gpu"] for start in starts(fifth)] == [held[pid]] * 2
    assert why(late) == "for a GPU"
