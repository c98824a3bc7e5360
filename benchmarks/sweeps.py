"""The queue: how full it keeps its slots, what survives kills, and what a thousand planned runs cost.

    python benchmarks/sweeps.py [slots] [kills] [plans] [--runs 20] [--dispatchers 50] [--engines 20] [--seed 0]

`slots`: short runs over two slots; how much of the time between the first start and the last end both hold an engine,
and how much of that the engines spent starting. `kills`: the dispatcher and engines killed with SIGKILL at random
moments; every run must be done once, with the weights of one that nobody disturbed, nothing left over. `plans`: the
time of `--dry-run` and `status` of 1,000 runs, and the processor time of a dispatcher while 1,000 runs wait.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import report

from engine.disk import read_json
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.process import holder_of
from engine.sweep import desk, queue

HAH = [str(Path(sys.executable).with_name("hah"))]
SHORT = "train.epochs: {epochs}, train.milestones: [], data.train_limit: 512, observe.images: 32, checkpoints.every: 1"
PLAN = """
name: {name}
base: quickstart
set: {{{short}}}
axes: {{hah.lambda: {{from: 0.1, to: 1.0, count: {groups}}}}}
seeds: 2
queue: {{slots: 2}}
"""


def hah(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*HAH, *arguments, "--runs-dir", str(folder)], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout


def planned(folder: Path, name: str, runs: int, epochs: int) -> Path:
    path = folder.with_name(f"{name}.yaml")
    path.write_text(PLAN.format(name=name, short=SHORT.format(epochs=epochs), groups=runs // 2))
    return path


def ended(items: list[queue.Item]) -> bool:
    return bool(items) and all(item.standing in ("done", "over") for item in items)


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoints / "last.pt", weights_only=True)["network"]


def spans(run: RunDirectory) -> list[tuple[float, float, float]]:
    """(started, ready, ended) of every engine of a run that ended by itself."""
    begun = [start["time"] for start in read_json(run.starts)["starts"]]
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    ready = [event["time"] for event in events if event["kind"] == "position"]
    done = [event["time"] for event in events if event["kind"] == "finished"]
    return [(begun[-1], ready[-1], done[-1])]


def slots(folder: Path, runs: int) -> dict[str, Any]:
    """Both slots full?"""
    hah(folder, "sweep", "run", str(planned(folder, "slots", runs, 6)), "--detach")
    reader = queue.Queue(folder)
    while not ended(reader.items()):
        time.sleep(0.5)
    found = [span for item in reader.items() for span in spans(item.run)]
    first, last = min(one[0] for one in found), max(one[2] for one in found)
    # At the very end the other slot has nothing left to hold: up to where the first of the two became empty for good.
    last_starts = sorted(one[0] for one in found)[-2:]
    until = min(one[2] for one in found if one[0] in last_starts)
    edges = sorted([(one[0], 1) for one in found] + [(one[2], -1) for one in found])
    full, held, since = 0.0, 0, first
    for moment, change in edges:
        if held == 2:
            full += min(moment, until) - min(since, until)
        held, since = held + change, moment
    engine = sum(one[2] - one[0] for one in found)
    return {
        "runs": runs,
        "seconds": round(last - first, 1),
        "both_slots_hold_an_engine": round(full / (until - first), 4),
        "both_slots_over_the_whole": round(full / (last - first), 4),
        "start_up": round(sum(one[1] - one[0] for one in found) / engine, 4),
    }


def kills(folder: Path, runs: int, dispatchers: int, engines: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    path = planned(folder, "kills", runs, 40)
    hah(folder, "sweep", "run", str(path), "--detach")
    reader, left = queue.Queue(folder), {"dispatcher": dispatchers, "engine": engines}
    longest = 0.0
    while not ended(items := reader.items()):
        time.sleep(chance.uniform(0.05, 0.6))
        # One that is killed again and again before it gets further is given up, which is as it should be.
        live = [
            item
            for item in items
            if item.standing == "live" and item.starts and queue.done(item.look.state) > item.starts[-1].done
        ]
        if left["engine"] and live and chance.random() < 0.35:
            victim = chance.choice(live)
            try:
                os.kill(victim.look.state.engine["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue
            left["engine"] -= 1
            longest = max(longest, claimed(victim))
        elif left["dispatcher"]:
            pid = holder_of(desk.dispatcher_lock(folder))
            if pid is not None and desk.has_dispatcher(folder):
                os.kill(pid, signal.SIGKILL)
                left["dispatcher"] -= 1
        hah(folder, "queue", "resume")
    if {item.look.status for item in items} != {"finished"}:
        raise SystemExit(f"not all have finished: {[(item.run.id, item.look.status, item.why) for item in items]}")
    for item in items:
        done = [json.loads(line) for line in item.run.events.read_text().splitlines()]
        epochs = [event["epoch"] for event in done if event["kind"] == "epoch"]
        if sorted(set(epochs)) != list(range(1, 41)) or sum(event["kind"] == "finished" for event in done) != 1:
            raise SystemExit(f"{item.run.id} was not done exactly once")
    if litter := [*folder.glob(".*.new"), *folder.glob("*/.*.tmp"), *folder.glob("*/*/.*.tmp")]:
        raise SystemExit(f"left over: {litter}")
    different = 0
    alone = folder.with_name("alone")
    for item in items:
        experiment = store.experiment_of(item.run, item.look.state)
        copy = folder.with_name("alone.yaml")
        copy.write_text(item.run.config.read_text())
        threads = item.starts[0].threads
        hah(alone, "run", str(copy), "--set", f"compute.threads={threads}", "--set", f"seed={experiment.seed}")
        ours, theirs = weights(store.all_runs(alone)[0]), weights(item.run)
        different += any(not torch.equal(ours[name], theirs[name]) for name in ours)
    return {
        "runs": runs,
        "dispatchers_killed": dispatchers - left["dispatcher"],
        "engines_killed": engines - left["engine"],
        "starts": sum(len(item.starts) for item in items),
        "weights_that_differ": different,
        "longest_false_claim_seconds": round(longest, 2),
    }


def claimed(victim: queue.Item) -> float:
    """For how long a run whose engine was killed is still said to run."""
    began, starts = time.monotonic(), len(victim.starts)
    while store.look(victim.job).status in ("running", "starting"):
        if len(read_json(victim.run.starts)["starts"]) > starts or time.monotonic() - began > 30:
            break  # another engine has taken it up
        time.sleep(0.02)
    return time.monotonic() - began


def timed(folder: Path, *arguments: str) -> float:
    """The best of three, in seconds of wall time."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([*HAH, *arguments, "--runs-dir", str(folder)], capture_output=True, check=False, cwd="/")
        found.append(time.perf_counter() - began)
    return round(min(found), 3)


def plans(folder: Path) -> dict[str, Any]:
    path = folder.with_name("thousand.yaml")
    path.write_text("base: paper-hah\naxes: {hah.lambda: {from: 0.01, to: 10, count: 250, scale: log}}\nseeds: 4\n")
    empty = timed(folder, "sweep", "run", str(path), "--dry-run")
    folder.mkdir(exist_ok=True)
    hah(folder, "queue", "pause")
    began = time.perf_counter()
    hah(folder, "sweep", "run", str(path), "--detach")
    queued = time.perf_counter() - began
    there = timed(folder, "sweep", "run", str(path), "--dry-run")
    status, listed = timed(folder, "sweep", "status", "thousand"), timed(folder, "queue", "ls")
    # Waiting for a device that does not come free: the group may have none, the queue is not paused.
    hah(folder, "queue", "group", "thousand", "--limit", "1")
    first = queue.Queue(folder).items()[0].run
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(first.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    hah(folder, "queue", "resume")
    time.sleep(5)
    pid = holder_of(desk.dispatcher_lock(folder))
    assert pid is not None
    began, used = time.monotonic(), cpu(pid)
    time.sleep(30)
    share = (cpu(pid) - used) / (time.monotonic() - began)
    os.kill(pid, signal.SIGKILL)
    holder.kill()
    holder.wait()
    return {
        "runs": 1000,
        "dry_run_of_new_seconds": empty,
        "dry_run_of_queued_seconds": there,
        "queueing_seconds": round(queued, 1),
        "status_seconds": status,
        "queue_ls_seconds": listed,
        "dispatcher_share_of_a_core": round(share, 4),
    }


_HOLDER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from engine.runs.layout import RunDirectory
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import read_state
run = RunDirectory(Path(sys.argv[1]))
lock = Lock.take(run.lock)
replace(read_state(run), status="running", engine=identity().dump()).write(run)
print("held", flush=True)
beat = Heartbeat(run.heartbeat)
while True:
    beat.beat()
    time.sleep(1)
"""


def cpu(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["slots", "kills", "plans"])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--dispatchers", type=int, default=50)
    parser.add_argument("--engines", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for part in arguments.parts:
            folder = Path(place) / part / "runs"
            folder.parent.mkdir()
            if part == "slots":
                found[part] = slots(folder, arguments.runs)
            elif part == "kills":
                found[part] = kills(folder, 8, arguments.dispatchers, arguments.engines, arguments.seed)
            elif part == "plans":
                found[part] = plans(folder)
            else:
                parser.error(f"there is slots, kills and plans, got {part!r}")
            print(part, found[part], file=sys.stderr)
    report("sweeps", found)


if __name__ == "__main__":
    main()
