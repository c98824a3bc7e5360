"""However the programs are ended, the terminal is left as it was."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.tui.made import made

RESET = [b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?2004l"]  # alternate screen, cursor, mouse, paste


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_the_terminal_after_a_signal_to_hah_tui(folder, terminal, name):
    made(folder, "one")
    screen = terminal(str(Path(sys.executable).with_name("hah-tui")))
    screen.expect("finished")
    os.kill(screen.process.pid, getattr(signal, name))
    assert screen.wait() == 128 + getattr(signal, name)
    for undone in RESET:
        done = undone[:-1] + (b"h" if undone.endswith(b"l") else b"l")
        assert screen.output.rfind(undone) > screen.output.rfind(done) >= 0
