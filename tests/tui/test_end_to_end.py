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


def retype(terminal, text):
    """Put a text into the field that has the cursor; letters overtake bindings, which bubble."""

    def empty(seen):  # a section's first field may get the cursor a moment after it is drawn
        terminal.press("C-u")
        return "got ''" in seen

    terminal.until(empty)
    terminal.write(text)


def test_open_change_alpha_launch_watch_detach_reopen_hang_up_stop_compare(tmux, runs):
    terminal = tmux()
    terminal.until("No runs yet")
    terminal.press("n")
    terminal.until("1,442 handwritten")
    terminal.press("Enter")
    terminal.until("seed")
    for section in ("dataset", "hah_blocks", "sigma"):
        terminal.press("C-n")
        terminal.until(section)
    retype(terminal, "0.09")
    terminal.until("0.09, 0.025, 0.013")  # among the differences
    for section in ("top_k", "batch_size"):
        terminal.press("C-n")
        terminal.until(section)
    retype(terminal, "400")  # epochs: enough to see it stop
    terminal.until("2 changes")
    terminal.press("C-r")
    terminal.until("is starting")
    run = store.all_runs(runs)[0]
    terminal.until(lambda seen: "running" in seen and "New run" not in seen)
    assert "0.09" in run.config.read_text()

    # Curves and per-block panels move.
    def blocks(seen):
        return [line for line in seen.splitlines() if "█" in line]

    terminal.until(lambda seen: "SNR" in seen and blocks(seen))
    seen = terminal.until(lambda seen: any("⠀" < letter <= "⣿" for letter in seen))
    terminal.until(lambda later: blocks(later) != blocks(seen))

    terminal.press("q")  # detach
    terminal.until("left with 0")
    step = read_state(run).step
    wait(lambda: read_state(run).step > step)

    terminal = tmux()
    terminal.until(run.id)
    terminal.press("Enter")
    terminal.until("SNR")
    terminal("kill-server")  # the connection is gone, and with it hah-tui
    step = read_state(run).step
    wait(lambda: read_state(run).step > step)

    terminal = tmux()
    terminal.until("running")
    terminal.press("s")
    wait(lambda: not store.look(run).live)
    assert read_state(run).status == "stopped"
    terminal.until("stopped")
    shutil.copytree(run.path, runs / "other-run")  # a second one, as somebody else would have left it
    terminal.until("other-run")
    terminal.press("*")
    terminal.until("2 selected")
    terminal.press("v")
    terminal.until(lambda seen: "Settings that differ" in seen and " other " in seen)
    terminal.press("q")
    terminal.until("left with 0")


def wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
