"""Real engines on digits, small enough that a test takes seconds; none outlives its test."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from tests.once import once

# With plain PyTorch an engine starts in three quarters of the time; test_run has one on the fused twins.
TINY = [
    "model.width=0.0625", "model.hah_blocks=2", "hah.alpha=[0.09, 0.05]", "hah.top_k=0.3", "data.train_limit=150",
    "data.test_limit=60", "train.batch_size=32", "train.epochs=3", "train.milestones=[2]", "observe.images=40",
    "observe.log_every=2", "compute.threads=1", "compute.kernels=reference",
]  # fmt: skip
LONG = [*TINY, "train.epochs=100000", "train.milestones=[]"]


def settings(values):
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="session")
def program():
    """The path of the installed `hah`."""
    return str(Path(sys.executable).with_name("hah"))


# What many tests begin with, made once in a session by real engines: what `hah` is told, and what it goes on from.
KEPT = {
    "finished": ("", [["run", "quickstart", *settings(TINY)]]),
    "evaluated": ("finished", [["eval", "@last", "--suite", "sparsity", "--images", "20"], ["tag", "@last", "good"]]),
    "stopped": ("", [["run", "quickstart", "--detach", *settings(LONG)], ["stop", "@last"]]),
}  # fmt: skip


@pytest.fixture(scope="session")
def kept(tmp_path_factory, program):
    """kept("finished") -> the RunDirectory that was made once: to read and to copy, not to write to."""

    def find(name):
        before, commands = KEPT[name]

        def make(folder):
            if before:
                shutil.copytree(find(before).path.parent, folder, dirs_exist_ok=True)
            elsewhere = {f"XDG_{kind}_HOME": str(folder.with_name("nobody")) for kind in ("CONFIG", "DATA", "CACHE")}
            env = {**os.environ, **elsewhere, "HAH_RUNS": str(folder)}
            for arguments in commands:
                subprocess.run([program, *arguments], check=True, capture_output=True, env=env)

        (run,) = store.all_runs(once(tmp_path_factory, name, make))
        return run

    return find


@pytest.fixture
def copied(kept, runs):
    """copied("finished") -> a copy of that run in the runs folder of this test."""

    def copy(name):
        run = kept(name)
        return RunDirectory(Path(shutil.copytree(run.path, runs / run.id)))

    return copy


@pytest.fixture(autouse=True)
def no_engine_survives(runs):
    yield
    for run in store.all_runs(runs):
        kill(run, signal.SIGCONT)
        kill(run, signal.SIGKILL)


NVML = """
class NVMLError(Exception): pass
class Memory: total = free = 80 << 30
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return "570.1"
def nvmlDeviceGetCount(): return {gpus}
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetMemoryInfo(index): return Memory
def nvmlDeviceGetUUID(index): return f"GPU-{{index}}"
def nvmlDeviceGetName(index): return "Fake H200"
def nvmlDeviceGetUtilizationRates(index): raise NVMLError("NotSupported")
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """driver(4): every process from now on is told of so many GPUs. They are made up, so an engine holds one and
    computes on the CPU, as where torch cannot use what the driver shows."""

    def answer(gpus):
        (tmp_path / "driver").mkdir()
        (tmp_path / "driver" / "pynvml.py").write_text(NVML.format(gpus=gpus))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "driver"))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return answer


@pytest.fixture
def detached(hah):
    """Start a run in the background: detached(*settings) -> RunDirectory."""

    def start(*values, preset="quickstart"):
        answer = json.loads(hah("run", preset, "--detach", "--json", *settings(values)).stdout)
        return RunDirectory(Path(answer["path"]))

    return start


def kill(run, number=signal.SIGKILL):
    pid = read_state(run).engine.get("pid")
    if pid and store.look(run).live:
        os.kill(pid, number)


def eventually(condition, seconds=30):
    """Wait until a condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


def status(run):
    return store.look(run).status
