"""What commands cost: CPU seconds of `hah --help`, and of lists of 1,000 and 5,000 runs.

    python benchmarks/commands.py [--rounds 5]

CPU seconds of whole processes (user and system), the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine import report

from engine.runs.layout import RunDirectory
from engine.runs.state import State

HAH = str(Path(sys.executable).with_name("hah"))


def cost(arguments: Sequence[str], rounds: int, env: dict[str, str]) -> dict[str, float]:
    cpu, wall = [], []
    for _ in range(rounds + 1):
        before, began = os.times(), time.perf_counter()
        subprocess.run([HAH, *arguments], env={**os.environ, **env}, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        wall.append(time.perf_counter() - began)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return {"cpu_seconds": statistics.median(cpu[1:]), "wall_seconds": statistics.median(wall[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        env = {"HAH_RUNS": temporary}
        results = {"help": cost(["--help"], arguments.rounds, env)}
        state = State(
            name="many", status="finished", epoch=3, epochs=3, created=time.time(), metrics={"test/accuracy": 0.9}
        )
        for n in range(5000):
            folder = Path(temporary) / f"many-{n:04}"
            folder.mkdir()
            (folder / "config.yaml").write_text("name: many\n")
            replace(state, id=folder.name).write(RunDirectory(folder), durable=False)
            if n + 1 in (1000, 5000):
                results[f"ls, first page of {n + 1}"] = cost(["ls"], arguments.rounds, env)
                results[f"ls --all of {n + 1}"] = cost(["ls", "--all"], arguments.rounds, env)
        for name, result in results.items():
            print(f"{name:<28} {result['cpu_seconds']:6.3f} s CPU  {result['wall_seconds']:6.3f} s")
        report("commands", {"rounds": arguments.rounds, "commands": results})


if __name__ == "__main__":
    main()
