"""One evaluation in two processes of one thread, against one process of one thread and one of two.

    python benchmarks/evaluators.py [--repeats 3] [--images 355] [--set KEY=VALUE]...

Real engines on the tests' digits network, whole evaluations from the launch on, with start-up, forecast and results.
They take turns, and a ratio is of neighbours, so that what else the machine does falls on all of them. It ends with an
error where results of the same number of threads differ by a byte; those of one and two threads need not be equal, and
what differs is named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import report
from safetensors.torch import load_file

from engine.experiment import presets
from engine.job import checkpoints
from engine.runs.layout import RunDirectory
from engine.runs.state import State

NETWORK = Path(__file__).resolve().parents[1] / "tests" / "evaluation" / "digits_network"
HAH = str(Path(sys.executable).with_name("hah"))
CASES = {"one": (1, 1), "two_processes": (2, 1), "two_threads": (1, 2)}  # processes, threads of each
SETTINGS = ["evaluate.suites=[attacks, masking]", "evaluate.attacks.steps=30", "evaluate.masking.steps=20"]


def made(folder: Path, *sets: str) -> RunDirectory:
    """A run that has finished with the tests' digits network, with further settings."""
    experiment = presets.load(str(NETWORK / "config.yaml"), ["compute.device=cpu", *sets])
    run = RunDirectory(folder / "digits-hah-kept")
    for part in (run.control, run.checkpoints, run.results, run.tensorboard):
        part.mkdir(parents=True)
    run.config.write_text(presets.dumped(experiment))
    State(name="digits-hah", status="finished", epoch=8, epochs=8, began=1.0, created=1.0).write(run)
    weights = {"network": load_file(NETWORK / "model.safetensors"), "experiment": experiment.dump()}
    checkpoints.write(run.checkpoints / "last.pt", {**weights, "epoch": 8, "step": 96})
    return run


def evaluated(processes: int, threads: int, settings: list[str]) -> tuple[float, dict[str, bytes]]:
    """Seconds of a whole evaluation, and its result files."""
    with tempfile.TemporaryDirectory() as place:
        run = made(Path(place) / "runs")
        sets = [*settings, f"compute.evaluators={processes}", f"compute.threads={threads}"]
        command = [HAH, "eval", run.id, "--runs-dir", str(run.path.parent), *(f"--set={one}" for one in sets)]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        seconds = time.perf_counter() - began
        return seconds, {path.name: path.read_bytes() for path in run.results.glob("[!.]*.*")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=355)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    settings = [*SETTINGS, f"evaluate.images={arguments.images}", *arguments.set]
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    load, found = [], dict[str, dict[str, bytes]]()
    for _ in range(arguments.repeats):
        for name, (processes, threads) in CASES.items():
            load.append(round(os.getloadavg()[0], 2))
            took, results = evaluated(processes, threads, settings)
            seconds[name].append(round(took, 2))
            if found.setdefault(name, results) != results:
                raise SystemExit(f"{name}: two evaluations of the same differ")
    if found["two_processes"] != found["one"]:
        raise SystemExit("two processes and one differ")
    ratios: dict[str, Any] = {}
    for name in ("two_processes", "two_threads"):
        each = [one / other for one, other in zip(seconds["one"], seconds[name], strict=True)]
        ratios[name] = {"times_as_fast": round(statistics.median(each), 3), "each": [round(one, 3) for one in each]}
    suites = {json.loads(data)["suite"]: name for name, data in found["one"].items() if name.endswith(".json")}
    report(
        "evaluators",
        {
            "images": arguments.images,
            "suites": list(suites),
            "seconds": seconds,
            "load_before": load,
            "against_one_process_of_one_thread": ratios,
            "results_of_two_processes_equal": True,
            "results_of_two_threads_that_differ": [
                suite for suite, name in suites.items() if found["two_threads"][name] != found["one"][name]
            ],
        },
    )


if __name__ == "__main__":
    main()
