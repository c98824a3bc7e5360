"""A real Slurm on this machine (two nodes, four fake GPUs): what is true of runs that go through it.

    python benchmarks/slurm.py [array] [sweep] [cancel] [preempt] [limit] [node] [--wait 120] [--kept FILE]

`array`: 8 runs in one array, never two on one GPU at a time. `sweep`: 20 runs, each done once. `cancel`: scancel is
*stopped*, by a person, and does not go on. `preempt`, `limit`, `node`: a run is preempted, reaches its time limit (of a
minute), or loses its node, and ends with the weights of a run that nobody disturbed; seconds until it went on.
`--wait`: for how long Slurm lets a requeued job wait (its own default is 120 s). `--kept`: what an earlier call has
found, by scenario, is in there and not tried again; it takes half an hour on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import report

from engine.disk import read_json, replace_json
from engine.runs import store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.slurm.cluster import Cluster

HAH = str(Path(sys.executable).with_name("hah"))
TINY = {
    "model.width": 0.0625, "model.hah_blocks": 2, "hah.alpha": [0.09, 0.05], "data.train_limit": 150,
    "data.test_limit": 60, "train.batch_size": 32, "train.milestones": [], "observe.images": 40, "compute.threads": 1,
    "checkpoints.minutes": 0.001,
}  # fmt: skip


class Bench:
    """A Slurm, a runs folder, and a shell in which both are known."""

    def __init__(self, folder: Path, wait: int) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.cluster = Cluster(folder / "slurm", wait=wait)
        self.environment = {**self.cluster.environment, "HAH_RUNS": str(self.runs), "OMP_NUM_THREADS": "1"}
        for kind in ("CONFIG", "DATA", "CACHE", "STATE"):
            self.environment[f"XDG_{kind}_HOME"] = str(folder / kind.lower())

    def profile(self, **said: Any) -> None:
        path = self.folder / "config" / "hah-tui" / "slurm.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = [f"export XDG_{kind}_HOME={self.folder / kind.lower()}" for kind in ("CACHE", "STATE", "CONFIG", "DATA")]
        path.write_text(json.dumps({"cpus": 1, "shell": [*own, "export OMP_NUM_THREADS=1"], **said}))

    def hah(self, *arguments: str) -> Any:
        done = subprocess.run(
            [HAH, *arguments, "--json"], capture_output=True, text=True, env=self.environment, cwd="/"
        )
        if done.returncode:
            raise SystemExit(f"hah {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def submitted(self, epochs: int) -> tuple[RunDirectory, str]:
        values = [f"--set={name}={json.dumps(value)}" for name, value in {**TINY, "train.epochs": epochs}.items()]
        (one,) = self.hah("run", "quickstart", "--on", "slurm", *values)["submitted"]
        return RunDirectory(Path(one["path"])), one["job"]

    def undisturbed(self, epochs: int) -> dict[str, torch.Tensor]:
        values = [f"--set={name}={json.dumps(value)}" for name, value in {**TINY, "train.epochs": epochs}.items()]
        return weights(RunDirectory(Path(self.hah("run", "quickstart", *values)["path"])))

    def swept(self, name: str, count: int) -> list[RunDirectory]:
        """The runs of a sweep through Slurm, when all have ended."""
        settings = ", ".join(f"{key}: {json.dumps(value)}" for key, value in {**TINY, "train.epochs": 2}.items())
        plan = self.folder / f"{name}.yaml"
        plan.write_text(f"name: {name}\nbase: quickstart\nset: {{{settings}}}\nseeds: {count}\n")
        answer = self.hah("sweep", "run", str(plan), "--on", "slurm")
        self.until(lambda: not self.cluster.ask("squeue", "-h").strip())
        return [RunDirectory(self.runs / one["id"]) for one in answer["submitted"]]

    def until(self, done: Any, patience: float = 1800.0) -> float:
        """Wait; returns for how long."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > patience:
                raise SystemExit("it did not happen")
            time.sleep(0.2)
        return time.monotonic() - began


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoints / "last.pt", weights_only=True)["network"]


def starts(run: RunDirectory) -> list[dict[str, Any]]:
    return read_json(run.starts).get("starts", [])


def status(run: RunDirectory) -> str:
    return store.look(run).status


def outcome(run: RunDirectory, whole: dict[str, torch.Tensor]) -> dict[str, Any]:
    """How a disturbed run has ended, and for how long it rested between its engines."""
    mine, found = weights(run), starts(run)
    rests = [round(two["time"] - two["ended"], 1) for two in found[1:]]
    return {
        "status": status(run),
        "starts": len(found),
        "seconds_between_engines": rests,
        "weights_equal": mine.keys() == whole.keys() and all(torch.equal(mine[name], whole[name]) for name in mine),
    }


def overlapping(runs: list[RunDirectory]) -> int:
    """How many pairs of engines were on one GPU at the same time."""
    spans = []
    for run in runs:
        for start in starts(run):
            end = max(event["time"] for event in Tail(run.events))
            spans.append(((start["host"], start["gpu"]), start["time"], end))
    return sum(
        one[0] == two[0] and one[1] < two[2] and two[1] < one[2]
        for index, one in enumerate(spans)
        for two in spans[:index]
    )


def several(bench: Bench, name: str, count: int) -> dict[str, Any]:
    bench.profile(gres="gpu:1")
    runs = bench.swept(name, count)
    return {
        "runs": len(runs),
        "finished": sum(status(run) == "finished" for run in runs),
        "starts": sum(len(starts(run)) for run in runs),
        "gpus": len({(one["host"], one["gpu"]) for run in runs for one in starts(run)}),
        "pairs_on_one_gpu_at_a_time": overlapping(runs),
    }


def cancel(bench: Bench) -> dict[str, Any]:
    bench.profile()
    run, job = bench.submitted(100_000)
    bench.until(lambda: read_state(run).step > 3)
    bench.cluster.ask("scancel", job)
    bench.until(lambda: status(run) != "running")
    bench.until(lambda: not bench.cluster.ask("squeue", "-h").strip())
    time.sleep(15)
    return {"status": status(run), "by": read_state(run).stopped_by, "starts": len(starts(run))}


def preempt(bench: Bench) -> dict[str, Any]:
    bench.profile()
    whole = bench.undisturbed(40)
    run, _ = bench.submitted(40)
    bench.until(lambda: read_state(run).step > 5)
    urgent = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1"]
    bench.cluster.ask("sbatch", *urgent)
    bench.until(lambda: status(run) == "finished")
    return outcome(run, whole)


def limit(bench: Bench) -> dict[str, Any]:
    bench.profile(time="1", grace=10)
    epochs, began = 80, time.monotonic()
    bench.undisturbed(epochs)
    epochs *= math.ceil(90 / (time.monotonic() - began))  # work of minutes here, by limits of one
    whole = bench.undisturbed(epochs)
    run, _ = bench.submitted(epochs)
    bench.until(lambda: status(run) in ("finished", "failed"))
    return outcome(run, whole)


def node(bench: Bench) -> dict[str, Any]:
    bench.profile(options=["--nodelist=ci1"])
    whole = bench.undisturbed(40)
    run, _ = bench.submitted(40)
    bench.until(lambda: read_state(run).step > 5)
    bench.cluster.kill_node("ci1")
    bench.until(lambda: status(run) == "lost")
    time.sleep(15)  # as in tests/slurm: until then Slurm takes a job that its node does not know for one to come
    bench.cluster.start_node("ci1")
    bench.until(lambda: status(run) == "finished")
    return {"after_the_node_died": "lost", **outcome(run, whole)}


SCENARIOS = {
    "array": lambda bench: several(bench, "array", 8),
    "sweep": lambda bench: several(bench, "sweep", 20),
    "cancel": cancel,
    "preempt": preempt,
    "limit": limit,
    "node": node,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--wait", type=int, default=120)
    parser.add_argument("--kept", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = read_json(arguments.kept) if arguments.kept else {}
    for name in [one for one in arguments.scenarios or SCENARIOS if one not in found]:
        with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:  # sockets take no long path
            bench = Bench(Path(folder), arguments.wait)
            try:
                found[name] = SCENARIOS[name](bench)
            finally:
                bench.cluster.stop()
            if arguments.kept:
                replace_json(arguments.kept, found)
            print(name, found[name], file=sys.stderr, flush=True)
    report("slurm", {"requeued_jobs_wait_seconds": arguments.wait, **found})


if __name__ == "__main__":
    main()
