"""The whole way in a real terminal with a real engine on digits, in tmux: what a person does in their first minutes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runs import store
from engine.runs.events import Tail
from engine.runs.state import read_state

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """A terminal of its own tmux server; `screen` is what stands in it."""

    def __init__(self, socket, command, columns=120, lines=40):
        self.socket = str(socket)
        self("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), command)

    def __call__(self, *arguments):
        # readline, which pytest imports, puts COLUMNS and LINES where os.environ does not see them
        command, env = ["tmux", "-S", self.socket, *arguments], dict(os.environ)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        return done.stdout

    @property
    def screen(self):
        return self("capture-pane", "-p")

    def press(self, *keys):
        self("send-keys", *keys)

    def write(self, text):
        self("send-keys", "-l", text)

    def until(self, condition, seconds=60):
        """Wait until something is on the screen, a text or a condition on it."""
        deadline = time.monotonic() + seconds
        while True:
            seen = self.screen
            if condition in seen if isinstance(condition, str) else condition(seen):
                return seen
            assert time.monotonic() < deadline, f"{condition} is not there:\n{seen}"
            time.sleep(0.1)


@pytest.fixture
def tmux(tmp_path, runs):
    program = Path(sys.executable).with_name("hah-tui")
    opened = []

    def start():
        command = f"{program} --runs-dir {runs}; echo left with $?; sleep 60"
        opened.append(Tmux(tmp_path / f"tmux{len(opened)}", command))
        return opened[-1]

    yield start
    for one in opened:
        one("kill-server")
    for run in store.all_runs(runs):
        pid = read_state(run).engine.get("pid")
        if pid and store.look(run).live:
            os.kill(pid, signal.SIGKILL)


def test_open_change_alpha_launch_watch_detach_reopen_stop_compare(tmux, runs):
    terminal = tmux()
    terminal.until("No runs yet")
    terminal.press("n")
    terminal.until("1,442 handwritten")
    terminal.press("Enter")
    terminal.until("ctrl+r run")
    terminal.until("seed")
    for _ in range(3):
        terminal.press("C-n")
        time.sleep(0.3)
    terminal.until("32x32 ")
    terminal.until(lambda seen: "alpha" in seen and "sigma" in seen)
    terminal.press("C-u")  # what is in the field of block 1
    terminal.press("C-k")
    terminal.write("0.09")
    terminal.until("0.09, 0.025, 0.013")  # among the differences
    terminal.press("C-r")
    terminal.until("is starting", 60)
    run = store.all_runs(runs)[0]
    terminal.until(lambda seen: "running" in seen and "New run" not in seen, 90)
    moved = terminal.until(lambda seen: any("⠀" < letter <= "⣿" for letter in seen), 90)  # a curve
    terminal.until(lambda seen: seen != moved, 30)
    epochs = [event for event in Tail(run.events) if event["kind"] == "epoch"]
    terminal.until(lambda _: len([e for e in Tail(run.events) if e["kind"] == "epoch"]) > len(epochs), 90)
    assert "sparsity" in terminal.until("SNR").lower()
    terminal.press("q")  # detach
    terminal.until("left with 0", 20)
    assert store.look(run).live or store.look(run).status == "finished"
    step = read_state(run).step

    terminal = tmux()
    terminal.until(run.id)
    assert "0.09" in run.config.read_text()
    terminal.press("s")
    deadline = time.monotonic() + 60
    while store.look(run).live:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    state = read_state(run)
    assert state.status in ("stopped", "finished")
    assert state.step >= step
    terminal.until(state.status)

    other = runs / "other-run"  # a second one, as it would have been left by somebody else
    shutil.copytree(run.path, other)
    terminal.until("other-run", 20)
    terminal.press("*")
    terminal.until("2 selected")
    terminal.press("v")
    terminal.until(lambda seen: "Settings that differ" in seen and "other-run" in seen, 30)
    terminal.press("q")
    terminal.until("left with 0", 20)


def test_a_hang_up_leaves_the_engine_alive(tmux, runs):
    terminal = tmux()
    terminal.until("No runs yet")
    terminal.press("n")
    terminal.until("1,442 handwritten")
    terminal.press("Enter")
    terminal.until("seed")
    terminal.press("C-r")
    terminal.until("is starting", 60)
    terminal.until(lambda seen: "running" in seen and "New run" not in seen, 90)
    run = store.all_runs(runs)[0]
    step = read_state(run).step
    terminal("kill-server")  # the terminal is gone, and with it hah-tui
    deadline = time.monotonic() + 60
    while read_state(run).step <= step and store.look(run).status != "finished":
        assert time.monotonic() < deadline
        assert store.look(run).status in ("running", "finished")
        time.sleep(0.1)
