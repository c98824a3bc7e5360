"""Every test has folders of its own: nothing of the person's is read, nothing is written outside."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runs.process import STOPPING
from tests.inside import call
from tests.terminal import Terminal

# Networks here are tiny and tests run side by side: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes are started: what one of them has compiled the others read.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items):
    """What waits for Slurm comes first, so that it does not wait alone in the end."""
    items.sort(key=lambda item: "slurm" not in item.path.parts)


def pytest_collection_finish():
    """What is imported by now stays: Python need not look for garbage in it, a tenth of a second each time."""
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Fresh runs, presets and state folders; HAH_DATA stays, for the tests that read a real archive."""
    monkeypatch.setenv("HAH_RUNS", str(tmp_path / "runs"))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(autouse=True)
def own_signals():
    """What a test lets this process do with signals is undone: processes of the next one inherit what it ignores."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, *STOPPING)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def runs(tmp_path):
    """The runs folder of this test (not made yet)."""
    return tmp_path / "runs"


@pytest.fixture
def own_presets(tmp_path):
    """The folder of a person's own presets."""
    folder = tmp_path / "xdg_config_home" / "hah-tui" / "presets"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hah():
    """Run the real `hah` as a process, away from the checkout: hah("ls", "--json") -> CompletedProcess."""

    def call(*arguments, check=True, env=None, timeout=120, cwd="/"):
        command = [str(Path(sys.executable).with_name("hah")), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            check=False,
        )
        if done.returncode != 1:  # a run that failed is shown with the last lines of its engine's log
            assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    return call


@pytest.fixture
def here():
    """As ``hah``, in this process: for commands whose words are looked at, and which start no engine that stays."""

    def run(*arguments, check=True):
        done = subprocess.CompletedProcess(arguments, *call(*arguments))
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def terminal():
    """terminal(command...) in a pseudo-terminal, closed at the end."""
    opened = []

    def start(*command, **options):
        opened.append(Terminal(list(command), **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
