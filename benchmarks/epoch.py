"""A whole epoch as the engine trains it (data, logging, TensorBoard, observation) against its bare steps.

    python benchmarks/epoch.py [--preset paper-hah] [--images 5000] [--set KEY=VALUE ...]

`hah run` in a process of its own for two epochs of the first images of CIFAR-10; the second epoch is measured from the
record: seconds in steps (from images per second), in the observation (test accuracy, noisy accuracy, probes), and the
rest. The bare step is measured by `step.py`'s method in this process, before and after.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import device, report
from step import batch, ours, plain, seconds

from engine.experiment import presets
from engine.runs.events import Tail


def bare(kind: str, width: float, size: int) -> float:
    """Median seconds of five steps."""
    where = device()
    step = plain(width, where) if kind == "plain" else ours(width, where)
    data = batch(size, where)
    step(*data)
    return statistics.median(seconds(step, data) for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper-hah")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    changes = [*arguments.set, "train.epochs=2", "train.milestones=[]", f"data.train_limit={arguments.images}"]
    experiment = presets.load(arguments.preset, changes)
    width, size = experiment.model.width, experiment.train.batch_size
    before = {kind: bare(kind, width, size) for kind in ("plain", "ours")}
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            str(Path(sys.executable).with_name("hah")),
            "run",
            arguments.preset,
            "--runs-dir",
            temporary,
            "--json",
        ]
        for change in changes:
            command += ["--set", change]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        run = next(path for path in Path(temporary).iterdir() if path.is_dir())
        events = list(Tail(run / "events.jsonl"))
    after = {kind: bare(kind, width, size) for kind in ("plain", "ours")}
    epochs = [event for event in events if event["kind"] == "epoch"]
    trains = [event for event in events if event["kind"] == "train" and event["epoch"] == 2]
    begin, end = epochs[0]["time"], epochs[1]["time"]
    steps = -(-arguments.images // size)
    step = {kind: (before[kind] + after[kind]) / 2 for kind in before}
    training = trains[-1]["time"] - begin
    found = {
        "epoch_seconds": end - begin,
        "training_seconds": training,
        "observation_seconds": end - trains[-1]["time"],
        "bare_seconds": {kind: value * steps for kind, value in step.items()},
        "training_to_bare": training / (step["ours"] * steps),
        "epoch_to_plain": (end - begin) / (step["plain"] * steps),
    }
    print(json.dumps(found, indent=2))
    report("epoch", {"device": device().type, "preset": arguments.preset, "changes": changes, "steps": steps, **found})


if __name__ == "__main__":
    main()
