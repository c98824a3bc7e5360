"""What the record costs a training step: events, snapshots, heartbeat, a look for commands, TensorBoard.

    python benchmarks/record.py [--steps 20000] [--log-every 10]

Microseconds of the training thread's CPU time for each part, over so many steps of a record that trains nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import report

from engine.experiment import presets
from engine.job.record import Record
from engine.runs.control import Inbox
from engine.runs.layout import create
from engine.runs.state import State

NAMES = ("train/loss", "train/cross_entropy", "train/hah_cost", "train/accuracy", "train/lr", "train/images_per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--log-every", type=int, default=10)
    arguments = parser.parse_args()
    experiment = presets.load("paper-hah")
    every, steps = arguments.log_every, arguments.steps
    with tempfile.TemporaryDirectory() as temporary:

        def record(tensorboard: bool) -> tuple[Record, Inbox]:
            run = create(Path(temporary), "record", presets.dumped(experiment))
            made = Record(run, State(name="record", metrics={f"block/{n}/sparsity": 0.1 for n in range(52)}))
            if tensorboard:
                made.open_tensorboard(experiment, 0)
            return made, Inbox(run)

        def spent(work: Callable[[int], object], made: Record) -> float:
            began = time.thread_time()
            for step in range(1, steps + 1):
                work(step)
            used = time.thread_time() - began
            made.close()
            return 1e6 * used / steps

        def logged(made: Record) -> Callable[[int], None]:
            values = {name: 0.123456789 * (n + 1) for n, name in enumerate(NAMES)}

            def work(step: int) -> None:
                if step % every == 0:
                    made.train(1, step - every + 1, [0.1 * step] * every, values)

            return work

        plain, _ = record(False)
        with_tensorboard, _ = record(True)
        beating, _ = record(False)
        attending, inbox = record(False)
        results = {
            "events_and_snapshots": spent(logged(plain), plain),
            "with_tensorboard": spent(logged(with_tensorboard), with_tensorboard),
            "heartbeat": spent(lambda _: beating.beat(), beating),
            "look_for_commands": spent(lambda _: inbox.read(), attending),
        }
    results["total"] = results["with_tensorboard"] + results["heartbeat"] + results["look_for_commands"]
    for name, value in results.items():
        print(f"{name:<22} {value:7.1f} microseconds a step")
    report("record", {"steps": steps, "log_every": every, "microseconds_per_step": results})


if __name__ == "__main__":
    main()
