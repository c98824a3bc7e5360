"""Tests of a real GPU; without CUDA every one of them is skipped, and nothing else is."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import hah_tui.engines
from engine.experiment import presets
from engine.runs import control, launch, store
from engine.runs.making import Origin
from engine.runs.state import read_state

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(skip)


class Engines:
    """Real engines in a runs folder; none outlives its test."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def begin(self, *sets, preset="quickstart", name=None):
        found = presets.find(preset)
        experiment = presets.load(preset, sets, name)
        run, process = hah_tui.engines.begin(experiment, Origin(found.name, found.path, sets), self.folder)
        launch.answer_signals()
        self.processes.append(process)
        return run, process

    def run(self, *sets, preset="quickstart"):
        run, process = self.begin(*sets, preset=preset)
        process.wait(300)
        return run

    def resume(self, run):
        process = hah_tui.engines.resume(run)
        launch.answer_signals()
        self.processes.append(process)
        process.wait(300)

    def stop_after(self, run, process, step):
        """Stop a run once it has done so many steps."""
        launch.await_start(run, process)
        while read_state(run).step < step:
            assert store.look(run).live
            time.sleep(0.01)
        control.send(run, "stop")
        process.wait(60)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def engines(tmp_path):
    made = Engines(tmp_path / "runs")
    yield made
    made.end()


@pytest.fixture
def hog():
    """hog(GiB left): a process that holds all other memory of the GPU."""
    held = []

    def hold(left):
        code = f"""
import torch, time
free, _ = torch.cuda.mem_get_info()
taken = torch.empty(int(free - {left} * 2**30 - 2**29), dtype=torch.uint8, device="cuda")
print("holding", flush=True)
time.sleep(600)
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        held.append(process)
        assert process.stdout.readline() == "holding\n"

    yield hold
    for process in held:
        process.kill()
        process.wait()
