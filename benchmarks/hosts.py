"""Two hosts on one runs folder, killed at random: what is done twice, what is lost, what differs.

    python benchmarks/hosts.py [--rounds 5] [--engines 6] [--dispatchers 8] [--seed 0]

As root: the hosts are Linux namespaces (`tests/hosts.py`). In each round twelve small runs of a sweep are queued, and
dispatchers and engines of both hosts are killed with SIGKILL at random moments, each host once as a whole. Every run
must be done once, by never more than one engine at a time, with the weights of one that nobody disturbed. Then a host
dies with a run at work: the seconds until the other one has begun it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from machine import report

from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.sweep import queue
from tests.end_to_end.conftest import LONG, TINY, settings
from tests.hosts import Disturbed, Host, missing, until

PLAN = "base: quickstart\nset: {{ {settings} }}\naxes: {{hah.lambda: [0.1, 0.5, 1.0]}}\nseeds: 4\nqueue: {{slots: 3}}\n"


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run.checkpoints / "last.pt", weights_only=True)["network"]
    return found


def undisturbed(runs: Path, alone: Path) -> int:
    """Every run once more, by itself; how many have other weights."""
    different = 0
    for run in store.all_runs(runs):
        experiment = store.experiment_of(run, read_state(run))
        copy = runs.with_name("alone.yaml")
        copy.write_text(run.config.read_text())
        hah = [str(Path(sys.executable).with_name("hah")), "run", str(copy), "--runs-dir", str(alone)]
        subprocess.run([*hah, "--set", f"seed={experiment.seed}"], check=True, capture_output=True, cwd="/")
        ours, theirs = weights(store.all_runs(alone)[0]), weights(run)
        different += any(not torch.equal(ours[name], theirs[name]) for name in ours)
    return different


def disturbed(place: Path, engines: int, dispatchers: int, seed: int) -> dict[str, Any]:
    """One round."""
    runs, plan = place / "runs", place / "small.yaml"
    plan.write_text(PLAN.format(settings=", ".join(one.replace("=", ": ", 1) for one in TINY)))
    os.environ["HAH_RUNS"] = str(runs)
    two = [Host(name, place, {}) for name in ("node-a", "node-bb")]
    began = time.monotonic()
    try:
        two[0].hah("sweep", "run", plan, "--detach")
        two[1].hah("queue", "attend", "always")
        round_ = Disturbed(two, runs, random.Random(seed))
        round_.until_done(engines, dispatchers, seconds=3600)
    finally:
        for host in two:
            host.die()
    items = queue.Queue(runs).items()
    records = [[json.loads(line) for line in item.run.events.read_text().splitlines()] for item in items]
    kinds = [Counter(event["kind"] for event in record) for record in records]
    return {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "runs": len(items),
        "finished_once": sum(kind["finished"] == 1 for kind in kinds),
        "engines_killed": round_.killed["engine"],
        "dispatchers_killed": round_.killed["dispatcher"],
        "hosts_killed": round_.killed["host"],
        "engines": sum(kind["engine"] for kind in kinds),
        "starts_noted": sum(len(item.starts) for item in items),
        "by_host": Counter(start.host for item in items for start in item.starts),
        "weights_that_differ": undisturbed(runs, place / "alone"),
    }


def taken_up(place: Path) -> float:
    """Seconds from the death of a host until the other one's engine is at its run."""
    runs = place / "runs"
    os.environ["HAH_RUNS"] = str(runs)
    a, b = two = [Host(name, place, {}) for name in ("node-a", "node-bb")]
    try:
        a.hah("queue", "add", "quickstart", *settings(LONG))
        (run,) = store.all_runs(runs)
        until(lambda: store.look(run).status == "running", 600)
        b.hah("queue", "attend", "always")
        time.sleep(5)
        a.die()
        began = time.monotonic()
        until(lambda: read_state(run).engine.get("host") == "node-bb", 600)
        return round(time.monotonic() - began, 1)
    finally:
        for host in two:
            host.die()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", type=int, default=6)
    parser.add_argument("--dispatchers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    os.environ["OMP_NUM_THREADS"] = "1"
    rounds, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("CONFIG", "DATA", "CACHE", "STATE"):
            os.environ[f"XDG_{kind}_HOME"] = f"{folder}/{kind.lower()}"
        for number in range(arguments.rounds):
            for what in ("round", "death"):
                (Path(folder) / f"{what}-{number}").mkdir()
            place = Path(folder) / f"round-{number}"
            rounds.append(disturbed(place, arguments.engines, arguments.dispatchers, arguments.seed + number))
            print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
            seconds.append(taken_up(Path(folder) / f"death-{number}"))
    load = [round(one, 1) for one in os.getloadavg()]
    report("hosts", {"rounds": rounds, "seconds_until_taken_up": seconds, "load_of_the_machine": load})


if __name__ == "__main__":
    main()
