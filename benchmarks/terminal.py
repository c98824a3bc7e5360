"""What the terminal costs: hah-tui in a pseudo-terminal, with a scripted engine that writes 200 records a second.

    python benchmarks/terminal.py [--seconds 20] [--steps 1000000] [--only CASE,...]

Cases: live, idle, list, groups, form, keys, results, sweep, compare. A key has settled when nothing was written for
0.4 s after the first of it; the median of several is told, and what it wrote.
CPU seconds are those of the hah-tui process (/proc), bytes what it wrote to the terminal, memory its resident set.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from engine.experiment import presets
from engine.experiment.fingerprint import fingerprint
from engine.runs.layout import RunDirectory, create
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State, read_state

RATE, LOG_EVERY, PER_EPOCH, BLOCKS = 200, 10, 3910, 13
SIZES = {"160x48": (160, 48), "80x24": (80, 24)}


class Terminal:
    """hah-tui, or another ``command``, in a pseudo-terminal of a size."""

    def __init__(self, runs: Path, size: tuple[int, int], settings: Path, command: Sequence[str] = ()) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = {
            **os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "HAH_RUNS": str(runs),
            **{f"XDG_{name}_HOME": str(settings) for name in ("CONFIG", "STATE", "CACHE", "DATA")},
        }  # fmt: skip
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles everything, and so do screens
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command or [str(Path(sys.executable).with_name("hah-tui"))], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env=environment,
        )  # fmt: skip
        os.close(slave)
        self.output = bytearray()

    def read(self, seconds: float) -> None:
        """Take what is written within so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self.output += os.read(self.master, 1 << 16)

    def until(self, text: str, seconds: float = 120.0) -> float:
        """The seconds since the start at which ``text`` had been written."""
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} was not written")
            if select.select([self.master], [], [], 0.5)[0]:
                self.output += os.read(self.master, 1 << 16)
        return time.monotonic() - self.began

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def over(self, seconds: float) -> dict[str, float]:
        """CPU share, bytes a second and memory over so many seconds."""
        self.read(0.2)
        cpu, written, began = self.cpu(), len(self.output), time.monotonic()
        self.read(seconds)
        passed = time.monotonic() - began
        return {
            "cpu_percent": round(100 * (self.cpu() - cpu) / passed, 1),
            "bytes_per_second": round((len(self.output) - written) / passed),
            "memory_mb": round(self.memory_mb(), 1),
        }

    def close(self) -> None:
        self.press("q")
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def record(step: int, epoch: int) -> dict[str, Any]:
    """A training record as the engine writes it, of curves that tremble."""
    noise = [((step + n) * 7919 % 997) / 997 for n in range(LOG_EVERY)]
    loss = [2.3 / (1 + (step + n) / 5000) + 0.3 * noise[n] for n in range(LOG_EVERY)]
    mean = sum(loss) / LOG_EVERY
    values = {
        "train/loss": mean, "train/cross_entropy": mean + 0.05, "train/accuracy": min(1.0, 0.5 + 0.1 * noise[0]),
        "train/hah_cost": 0.05 + 0.01 * noise[1], "train/lr": 1e-3, "train/images_per_second": 9000 + 900 * noise[2],
    }  # fmt: skip
    return {"time": 1.79e9 + step / 70, "kind": "train", "step": step, "epoch": epoch, "losses": loss, "values": values}


def observed(step: int, epoch: int) -> dict[str, Any]:
    """What is said at the end of an epoch."""
    values = {"test/loss": 0.5, "test/accuracy": 1 - 1 / (2 + epoch), "test/noisy_accuracy": 1 - 1 / (1.5 + epoch)}
    for n in range(1, BLOCKS + 1):
        noise = ((epoch + n) * 7919 % 97) / 97
        values |= {f"block/{n}/sparsity": 0.2 + 0.04 * n + 0.02 * noise, f"block/{n}/snr_db": 20 - n + noise,
                   f"block/{n}/hah_cost": 1 + 0.1 * n + 0.1 * noise}  # fmt: skip
    return {"time": 1.79e9 + step / 70, "kind": "epoch", "step": step, "epoch": epoch, "values": values}


def written(first: int, last: int) -> str:
    """The records of steps first + 1 to last."""
    lines = []
    for step in range(first + LOG_EVERY, last + 1, LOG_EVERY):
        lines.append(json.dumps(record(step, 1 + (step - 1) // PER_EPOCH)))
        if step % PER_EPOCH == 0:
            lines.append(json.dumps(observed(step, step // PER_EPOCH)))
    return "\n".join(lines) + "\n" if lines else ""


def made(folder: Path, steps: int, status: str, total: int) -> RunDirectory:
    """A run of so many steps, in ``status``."""
    experiment = presets.load("paper-hah", [f"train.epochs={max(1, total // PER_EPOCH)}", "train.milestones=[]"])
    run = create(folder, "scripted", presets.dumped(experiment))
    run.events.write_text('{"time": 1, "kind": "log", "version": 1}\n' + written(0, steps))
    values = record(max(LOG_EVERY, steps), 1)["values"] | observed(steps, max(1, steps // PER_EPOCH))["values"]
    State(
        name="scripted", preset="paper-hah", status=status, phase="training" if status == "running" else "",
        epoch=steps // PER_EPOCH, epochs=experiment.train.epochs, step=steps, steps=total, device="cpu",
        created=time.time(), trained_seconds=steps / 70, images_per_second=9000.0, metrics=values,
        engine=identity().dump(),
    ).write(run, durable=False)  # fmt: skip
    return run


def write(paths: Sequence[Path]) -> None:
    """The scripted engines: 200 records a second in all, state.json twice a second, until it is killed."""
    runs = [RunDirectory(path) for path in paths]
    locks = [Lock.take(run.lock) for run in runs]
    assert all(lock is not None for lock in locks)
    beats = [Heartbeat(run.heartbeat) for run in runs]
    states = [replace(read_state(run), engine=identity().dump()) for run in runs]
    steps, said = [state.step for state in states], 0.0
    began, rate = time.monotonic(), RATE / len(runs)
    with ExitStack() as stack:
        files = [stack.enter_context(run.events.open("a")) for run in runs]
        while True:
            now = time.monotonic()
            for n, (file, state) in enumerate(zip(files, states, strict=True)):
                due = state.step + LOG_EVERY * int(rate * (now - began))
                for line in written(steps[n], due).splitlines(keepends=True) if due > steps[n] else ():
                    file.write(line)
                    file.flush()  # the engine writes a record at a time
                steps[n] = max(steps[n], due)
            if now - said > 0.5:
                said = now
                for run, beat, state, step in zip(runs, beats, states, steps, strict=True):
                    beat.beat()
                    epoch, eta = step // PER_EPOCH, max(0.0, (state.steps - step) / 2000)
                    replace(state, step=step, epoch=epoch, images_per_second=9000 + step % 777, eta_seconds=eta).write(
                        run, False
                    )
            time.sleep(0.01)


def live(folder: Path, settings: Path, size: tuple[int, int], steps: int, seconds: float) -> dict[str, Any]:
    """A live run that has ``steps`` steps behind it."""
    run = made(folder, steps, "running", max(2 * steps, 400_000))
    writer = subprocess.Popen([sys.executable, __file__, "--write", str(run.path)])
    terminal = Terminal(folder, size, settings)
    try:
        terminal.until(run.id[:12])
        terminal.read(1.5)
        terminal.press("\r")
        terminal.until("Loss")
        opened = time.monotonic()
        idle = 0
        while idle < 3 and time.monotonic() - opened < 300:  # until what was there is read
            cpu = terminal.cpu()
            terminal.read(2)
            idle = idle + 1 if terminal.cpu() - cpu < 0.6 else 0
        return {**terminal.over(seconds), "steps_before": steps}
    finally:
        terminal.close()
        writer.kill()
        writer.wait()


def compared(folder: Path, settings: Path, count: int, steps: int, seconds: float) -> dict[str, Any]:
    """So many live runs over each other."""
    runs = [made(folder, steps, "running", 2 * steps) for _ in range(count)]
    writer = subprocess.Popen([sys.executable, __file__, "--write", *(str(run.path) for run in runs)])
    terminal = Terminal(folder, SIZES["160x48"], settings)
    try:
        terminal.until(runs[-1].id[:12])
        terminal.read(4)
        terminal.press("*")
        terminal.read(1)
        terminal.press("v")
        terminal.until("Loss")
        terminal.read(15)
        return {**terminal.over(seconds), "runs": count, "steps_before": steps}
    finally:
        terminal.close()
        writer.kill()
        writer.wait()


def finished(folder: Path, settings: Path, seconds: float) -> dict[str, Any]:
    """A finished run, open and left alone."""
    run = made(folder, 100 * PER_EPOCH, "finished", 100 * PER_EPOCH)
    terminal = Terminal(folder, SIZES["160x48"], settings)
    try:
        terminal.until(run.id[:12])
        terminal.read(1.5)
        terminal.press("\r")
        terminal.until("Loss")
        terminal.read(12)
        return terminal.over(seconds)
    finally:
        terminal.close()


def listed(folder: Path, settings: Path, count: int, seconds: float) -> dict[str, Any]:
    """A list of so many runs: first paint, first rows, and what it costs to keep open."""
    config = presets.dumped(presets.load("quickstart"))
    for n in range(count):
        run = create(folder, f"run{n:05}", config)
        State(name=run.id, preset="quickstart", status="finished", epoch=12, epochs=12, step=276, steps=276,
              device="cpu", created=time.time(), metrics={"test/accuracy": 0.9}).write(run, durable=False)  # fmt: skip
    last = run.id
    times = []
    for _ in range(3):
        terminal = Terminal(folder, SIZES["80x24"], settings)
        try:
            painted, rows = terminal.until("hah-tui"), terminal.until(last[:12])
            times.append((painted, rows))
            terminal.read(20 if count > 1000 else 8)
            kept = terminal.over(seconds / 2)
        finally:
            terminal.close()
    painted, rows = min(times)
    return {
        "first_paint_seconds": round(painted, 2),
        "first_rows_seconds": round(rows, 2),
        **kept,
    }


def grouped(folder: Path, settings: Path, seconds: float) -> dict[str, Any]:
    """The list of 5,000 runs in 200 groups of 25 seeds: first rows, when the groups are there, and at rest."""
    with mock.patch.object(os, "fsync"):  # a quarter of an hour of waiting for a busy disk
        for point in range(200):
            experiment = presets.load("quickstart", [f"hah.lambda={0.1 + point / 1000}"])
            config, group = presets.dumped(experiment), fingerprint(experiment, seed=False)
            for seed in range(25):
                run = create(folder, "trial", re.sub(r"^seed: \d+$", f"seed: {seed}", config, flags=re.MULTILINE))
                State(name="trial", preset="quickstart", group=group, seed=seed, status="finished", epoch=12,
                      epochs=12, created=time.time() - 7200,
                      metrics={"test/accuracy": 0.9 + seed / 1000}).write(run, False)  # fmt: skip
    kept = settings / "hah-tui"
    kept.mkdir(parents=True)
    (kept / "terminal.json").write_text('{"group": "seed"}')
    terminal = Terminal(folder, SIZES["160x48"], settings)
    try:
        rows = terminal.until("trial")
        groups = terminal.until("in 200 groups")
        terminal.read(10)
        opened = len(terminal.output)
        return {
            "first_rows_seconds": round(rows, 2),
            "groups_seconds": round(groups, 1),
            "opening_kB": round(opened / 1000, 1),
            **terminal.over(seconds),
        }
    finally:
        terminal.close()


def results_of(folder: Path, settings: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Settled latencies of the results of a run that was tested against noise and evaluated with nothing more."""
    run = made(folder, PER_EPOCH, "finished", PER_EPOCH)
    terminal = Terminal(folder, size, settings)
    try:
        terminal.until(run.id[:12])
        terminal.read(4)
        found = {}
        for name, key in {"results": "R", "esc to runs": "\x1b", "results again": "R", "down": "j"}.items():
            found[name] = settled(terminal, key)
            terminal.read(2)
        return found
    finally:
        terminal.close()


def form(folder: Path, settings: Path) -> dict[str, Any]:
    """CPU milliseconds of a key press in a field of the form."""
    terminal = Terminal(folder, SIZES["160x48"], settings)
    try:
        terminal.until("hah-tui")
        terminal.read(2)
        terminal.press("n")
        terminal.read(3)
        terminal.press("\r")  # take the preset: the form
        terminal.read(3)
        terminal.press("\t5")  # into a field, and it takes what is typed
        terminal.read(1)
        before = len(terminal.output)
        terminal.press("777")
        terminal.read(2)
        if b"7" not in terminal.output[before:]:
            raise RuntimeError("the form has no field in focus")
        cpu = terminal.cpu()
        terminal.read(5)
        idle, cpu = (terminal.cpu() - cpu) / 5, terminal.cpu()
        presses, began = 60, time.monotonic()
        for n in range(presses):
            terminal.press("5" if n % 2 == 0 else "\x7f")
            terminal.read(0.1)
        spent = terminal.cpu() - cpu - idle * (time.monotonic() - began)
        return {"key_press_ms": round(1000 * spent / presses, 1)}
    finally:
        terminal.close()


def settled(terminal: Terminal, keys: Sequence[str], times: int = 1) -> dict[str, int]:
    """Medians over all ``keys``, each ``times``: ms from the press to what was written last, ms of CPU, bytes."""
    found = []
    for key in [*keys] * times:
        terminal.read(0.3)
        cpu, written, pressed = terminal.cpu(), len(terminal.output), time.monotonic()
        last = pressed
        terminal.press(key)
        while time.monotonic() - last < (0.4 if last > pressed else 3.0) and time.monotonic() - pressed < 10:
            if select.select([terminal.master], [], [], 0.02)[0]:
                data = os.read(terminal.master, 1 << 16)
                terminal.output += data
                if len(data) > 120 or pressed < last < pressed + 0.3:  # less, first or late, is of the cursor
                    last = time.monotonic()
        found.append((last - pressed, terminal.cpu() - cpu, len(terminal.output) - written))
    wall, cpu, written = (sorted(column)[len(found) // 2] for column in zip(*found, strict=True))
    return {"ms": round(1000 * wall), "cpu_ms": round(1000 * cpu), "bytes": written}


def keys(folder: Path, settings: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Settled latencies in the form, and in the monitor of a finished run of 1,000 epochs of 20 steps."""
    global PER_EPOCH
    before, PER_EPOCH = PER_EPOCH, 20
    run = made(folder, 1000 * PER_EPOCH, "finished", 1000 * PER_EPOCH)
    PER_EPOCH = before
    terminal = Terminal(folder, size, settings)
    try:
        terminal.until(run.id[:12])
        terminal.read(4)
        found = {"presets": settled(terminal, "n"), "form": settled(terminal, "\r")}
        found["esc from a form as it was"] = settled(terminal, "\x1b")
        terminal.press("\r")
        terminal.read(1)
        found["letter"] = settled(terminal, ["5", "\x7f"], 4)
        found["next field"] = settled(terminal, "\t", 4)
        found["section"] = settled(terminal, "\x0e", 6)
        found["esc to presets"] = settled(terminal, "\x1b")
        found["esc to runs"] = settled(terminal, "\x1b")
        found["presets again"] = settled(terminal, "n")
        terminal.press("\x1b")
        terminal.read(1)
        found["monitor"] = settled(terminal, "\r")
        found["cursor"], found["zoom"] = settled(terminal, "h", 6), settled(terminal, "][", 3)
        found["next panel"] = settled(terminal, "\t", 6)
        return found
    finally:
        terminal.close()


def swept(folder: Path, settings: Path, seconds: float) -> dict[str, Any]:
    """What a sweep of 1,000 runs costs to open, and then at rest; it is run seed by seed, and half of it is done."""
    from engine.sweep import plan, sweeps

    path = folder.parent / "thousand.yaml"
    path.write_text("base: quickstart\naxes: {hah.lambda: {from: 0.1, to: 1.0, count: 200}}\nseeds: 5\n")
    sweep = sweeps.of_plan(plan.load(path))
    sweeps.write(folder, sweep)
    config = presets.dumped(presets.load("quickstart"))
    for number, (seed, point) in enumerate((seed, point) for seed in sweep.seeds for point in sweep.points):
        done, metrics = number < 500, {"test/accuracy": 0.9 + 0.0001 * (number % 97), "test/noisy_accuracy": 0.8}
        State(
            name="trial", preset="quickstart", group=point.group, seed=seed, created=time.time(), updated=time.time(),
            status="finished" if done else "queued", epoch=12 * done, epochs=12, metrics=metrics if done else {},
        ).write(create(folder, "trial", config), durable=False)  # fmt: skip
    terminal = Terminal(folder, SIZES["160x48"], settings)
    try:
        terminal.until("hah-tui")
        before = -1
        while before != len(terminal.output):  # the list is read
            before = len(terminal.output)
            terminal.read(3)
        began = time.monotonic()
        terminal.press("S")
        while b"lambda=0.1" not in terminal.output[before:] and time.monotonic() - began < 60:
            terminal.read(0.005)
        rows = time.monotonic() - began
        while b"90." not in terminal.output[before:] and time.monotonic() - began < 60:
            terminal.read(0.01)
        means = time.monotonic() - began
        terminal.read(5)
        opened = len(terminal.output) - before
        return {
            "first_rows_ms": round(1000 * rows), "means_ms": round(1000 * means),
            "opening_kB": round(opened / 1000, 1), **terminal.over(seconds),
        }  # fmt: skip
    finally:
        terminal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--only", default="live,idle,list,groups,form,keys,results,sweep,compare")
    parser.add_argument("--write", type=Path, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write)
    results: dict[str, Any] = {}

    def measure(name: str, work: Callable[[Path, Path], dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            runs, settings = Path(temporary, "runs"), Path(temporary, "settings")
            runs.mkdir()
            results[name] = work(runs, settings)
            print(f"{name:<28} " + "  ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)
            shutil.rmtree(runs, ignore_errors=True)

    seconds, asked = arguments.seconds, arguments.only.split(",")
    if "live" in asked:
        for name, size in SIZES.items():
            measure(f"live {name}", lambda runs, settings, size=size: live(runs, settings, size, 200_000, seconds))
        measure("live 160x48 long", lambda r, s: live(r, s, SIZES["160x48"], arguments.steps, seconds))
    if "idle" in asked:
        measure("finished", lambda runs, settings: finished(runs, settings, seconds))
    if "list" in asked:
        for count in (10, 1000, 5000):
            measure(f"list of {count}", lambda runs, settings, count=count: listed(runs, settings, count, seconds))
    if "groups" in asked:
        measure("5000 runs in 200 groups", lambda runs, settings: grouped(runs, settings, seconds))
    if "results" in asked:
        for name, size in SIZES.items():
            measure(f"results {name}", lambda runs, settings, size=size: results_of(runs, settings, size))
    if "form" in asked:
        measure("form", form)
    if "compare" in asked:
        measure("compare 13", lambda runs, settings: compared(runs, settings, 13, 40_000, seconds))
    if "keys" in asked:
        for name, size in SIZES.items():
            measure(f"keys {name}", lambda runs, settings, size=size: keys(runs, settings, size))
    if "sweep" in asked:
        measure("sweep of 1000", lambda runs, settings: swept(runs, settings, seconds))
    from machine import report  # only now: it imports torch

    report("terminal", {"records_per_second": RATE, "frames_per_second": 4, "results": results})


if __name__ == "__main__":
    main()
