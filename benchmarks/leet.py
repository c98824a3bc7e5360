"""The monitor beside W&B LEET: CPU of both while each follows a run that is written at 200 records a second.

    python benchmarks/leet.py [--seconds 20] [--rounds 5] [--size 160x48]

Needs wandb (PyPI), which nothing else here does; where it is missing that is said and nothing is measured. Both
programs stand in pseudo-terminals of one size at the same time, so that what else the machine does hits both. CPU
seconds are those of a program and all it has started; the bar is a quarter of LEET's.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from terminal import LOG_EVERY, PER_EPOCH, RATE, Terminal, made, observed, record


def write(folder: Path) -> None:
    """An offline run of wandb with all values of the scripted engine's records, until it is killed."""
    import wandb

    quiet = wandb.Settings(console="off", silent=True)
    run = wandb.init(project="scripted", mode="offline", dir=str(folder), settings=quiet)
    began, written = time.monotonic(), 0
    while True:
        due = LOG_EVERY * int(RATE * (time.monotonic() - began))
        for step in range(written + LOG_EVERY, due + 1, LOG_EVERY):
            epoch, whole = divmod(step, PER_EPOCH)
            run.log(record(step, epoch)["values"] | ({} if whole else observed(step, epoch)["values"]))
        written = due
        time.sleep(0.01)


def tree_seconds(process: int) -> float:
    """CPU seconds of a process and of those that it has started, with what of them has ended and was waited for."""
    children: dict[int, list[int]] = {}
    spent: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        spent[number] = sum(map(int, fields[11:15]))
    waiting, ticks = [process], 0
    while waiting:
        number = waiting.pop()
        ticks += spent.get(number, 0)
        waiting += children.get(number, [])
    return ticks / os.sysconf("SC_CLK_TCK")


def read(terminals: list[Terminal], seconds: float) -> None:
    """Take what is written to any of them within so many seconds."""
    end, owners = time.monotonic() + seconds, {terminal.master: terminal for terminal in terminals}
    while (left := end - time.monotonic()) > 0:
        for master in select.select(list(owners), [], [], left)[0]:
            owners[master].output += os.read(master, 1 << 16)


def beside(folder: Path, size: tuple[int, int], seconds: float, rounds: int) -> dict[str, Any]:
    """Both at once; of each the share of a core and the bytes a second, a number a round."""
    runs, theirs = folder / "runs", folder / "theirs"
    runs.mkdir()
    theirs.mkdir()
    run = made(runs, 0, "running", 400_000)
    engine = Path(__file__).with_name("terminal.py")
    writers = [
        subprocess.Popen([sys.executable, str(engine), "--write", str(run.path)]),
        subprocess.Popen([sys.executable, __file__, "--write", str(theirs)], stdout=subprocess.DEVNULL),
    ]
    terminals: list[Terminal] = []
    try:
        end = time.monotonic() + 60
        while not (found := list(theirs.glob("wandb/offline-run-*"))) or not list(found[0].glob("*.wandb")):
            if time.monotonic() > end or writers[1].poll() is not None:
                raise RuntimeError("wandb writes no run")
            time.sleep(0.2)
        leet = [sys.executable, "-m", "wandb", "leet", "run", str(found[0])]
        terminals = [
            Terminal(runs, size, folder / "settings"),
            Terminal(runs, size, folder / "settings-of-leet", leet),
        ]
        terminals[0].until(run.id[:12])
        terminals[0].press("\r")
        read(terminals, 15)
        if b"Loss" not in terminals[0].output or b"hah_cost" not in terminals[1].output:
            raise RuntimeError("one of them shows no curves")
        shares: list[list[float]] = [[], []]
        sent: list[list[int]] = [[], []]
        for _ in range(rounds):
            before = [(tree_seconds(one.process.pid), len(one.output)) for one in terminals]
            began = time.monotonic()
            read(terminals, seconds)
            passed = time.monotonic() - began
            for place, one in enumerate(terminals):
                spent = tree_seconds(one.process.pid) - before[place][0]
                shares[place].append(round(100 * spent / passed, 1))
                sent[place].append(round((len(one.output) - before[place][1]) / passed))
        ratios = [ours / leets for ours, leets in zip(*shares, strict=True)]
        return {
            "cpu_percent": {"hah-tui": shares[0], "wandb leet": shares[1]},
            "bytes_per_second": {"hah-tui": sent[0], "wandb leet": sent[1]},
            "ratio": round(statistics.median(ratios), 3),
        }
    finally:
        for one in terminals:
            one.close()
        for writer in writers:
            writer.kill()
            writer.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="160x48")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("wandb") is None:
        print("leet: wandb is not installed, so there is nothing to compare with; pip install wandb")
        return
    if arguments.write:
        write(arguments.write)
    columns, lines = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        found = beside(Path(temporary), (columns, lines), arguments.seconds, arguments.rounds)
    from importlib.metadata import version

    from machine import report  # only now: it imports torch

    load = round(os.getloadavg()[0], 1)
    report(
        "leet", {"wandb": version("wandb"), "size": arguments.size, "records_per_second": RATE, "load": load, **found}
    )


if __name__ == "__main__":
    main()
