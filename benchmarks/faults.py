"""Kill an engine at random moments, resume it, and compare what is left with a run that nobody disturbed.

    python benchmarks/faults.py [--kills 100] [--seed 0]

A small deterministic run on digits is killed with SIGKILL and resumed until it has been killed so many times, and
then let finish. Its final weights must equal the undisturbed run's to the bit, the losses of its steps must have
neither gap nor contradiction, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import report

from engine.experiment import presets
from engine.job import checkpoints
from engine.runs import launch, layout, store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.state import State, read_state

SETTINGS = [
    "model.width=0.0625",
    "model.hah_blocks=2",
    "hah.alpha=[0.045, 0.025]",
    "hah.top_k=0.3",
    "data.train_limit=150",
    "data.test_limit=60",
    "train.batch_size=32",
    "train.noise_std=0.05",
    "train.milestones=[20]",
    "observe.images=40",
    "observe.log_every=2",
    "compute.threads=1",
    "checkpoints.minutes=0.001",
]


def begin(folder: Path, epochs: int) -> tuple[RunDirectory, subprocess.Popen[bytes]]:
    experiment = presets.load("quickstart", [*SETTINGS, f"train.epochs={epochs}"])
    run = layout.create(folder, "faults", presets.dumped(experiment))
    process = launch.start(run, launch.take(run), State(name="faults", created=time.time()))
    launch.answer_signals()
    return run, process


def losses(run: RunDirectory) -> dict[int, float]:
    found: dict[int, float] = {}
    for event in Tail(run.events):
        if event["kind"] == "train":
            for offset, loss in enumerate(event["losses"]):
                step = event["step"] - len(event["losses"]) + 1 + offset
                if found.setdefault(step, loss) != loss:
                    raise SystemExit(f"step {step} is told with two losses")
    if sorted(found) != list(range(1, max(found) + 1)):
        raise SystemExit("there is a gap in the steps")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    epochs = max(30, 3 * arguments.kills)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, process = begin(folder, epochs)
        if process.wait():
            raise SystemExit(launch.log_end(whole))
        run, process = begin(folder, epochs)
        kills = during_start = 0
        while kills < arguments.kills:
            wait = rng.expovariate(1.0)
            deadline = time.monotonic() + wait
            # A third of the kills come at any moment, start-up included; the others once it trains.
            if rng.random() < 2 / 3:
                while read_state(run).status != "running" and process.poll() is None:
                    time.sleep(0.01)
                deadline = time.monotonic() + wait / 4
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.005)
            if process.poll() is not None:
                break
            during_start += read_state(run).status == "starting"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            process = launch.start(run, launch.take(run), read_state(run))
            launch.answer_signals()
            print(f"\rkilled {kills} times, step {read_state(run).step}", end="", file=sys.stderr, flush=True)
        code = process.wait()
        print(file=sys.stderr)
        status = store.look(run).status
        a, b = (checkpoints.read(r.checkpoints / "last.pt")["network"] for r in (whole, run))
        equal = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        left = [path.name for path in run.path.rglob("*.tmp")]
        report(
            "faults",
            {
                "kills": kills,
                "kills_while_starting": during_start,
                "epochs": epochs,
                "steps": len(losses(whole)),
                "finished": status == "finished" and code == 0,
                "weights_equal_to_the_bit": equal,
                "losses_equal": losses(run) == losses(whole),
                "temporary_files_left": left,
                "log_bytes": {"undisturbed": whole.events.stat().st_size, "killed": run.events.stat().st_size},
            },
        )
        sys.exit(0 if equal and not left and status == "finished" else 1)


if __name__ == "__main__":
    main()
