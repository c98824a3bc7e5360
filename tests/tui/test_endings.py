"""However the programs are ended, the terminal is left as it was."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from engine.runs.slurm import job_of
from tests.tui.made import made

PROGRAM = str(Path(sys.executable).with_name("hah-tui"))
RESET = [b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?2004l"]  # alternate screen, cursor, mouse, paste
PAGE_DOWN, PAGE_UP, CTRL_Q = "\x1b[6~", "\x1b[5~", "\x11"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_the_terminal_after_a_signal_to_hah_tui(folder, terminal, name):
    made(folder, "one")
    screen = terminal(PROGRAM)
    screen.expect("finished")
    os.kill(screen.process.pid, getattr(signal, name))
    assert screen.wait() == 128 + getattr(signal, name)
    for undone in RESET:
        done = undone[:-1] + (b"h" if undone.endswith(b"l") else b"l")
        assert screen.output.rfind(undone) > screen.output.rfind(done) >= 0


@pytest.mark.parametrize("how", ["once", "twice", "interrupted", "hang up"])
def test_an_end_while_something_is_handed_to_slurm(folder, terminal, monkeypatch, tmp_path, how):
    """The terminal is free at once, the job is noted all the same."""
    run, programs = made(folder, "one", status="stopped", epoch=1), tmp_path / "programs"
    (run.checkpoints / "last.pt").write_bytes(b"x")
    programs.mkdir()
    for name, script in (
        ("squeue", 'if [ "$1" = --version ]; then echo slurm 24.11.5; fi'), ("sinfo", ""),
        ("scontrol", "echo ClusterName = ci"), ("sbatch", f"touch {programs}/called; sleep 5; echo 70"),
    ):  # fmt: skip
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    profile = tmp_path / "xdg_config_home" / "hah-tui" / "slurm.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text("cpus: 1\n")
    screen = terminal(PROGRAM)
    screen.expect("stopped")
    screen.send("\x1bOR")  # f3
    deadline = time.monotonic() + 60
    while not (programs / "called").exists():
        assert time.monotonic() < deadline
        screen.read(0.05)
    if how == "hang up":
        screen.hang_up()
        code = signal.SIGHUP
    else:
        os.kill(screen.process.pid, code := signal.SIGTERM)
        screen.expect(RESET[0].decode(), 3)
        if how != "once":
            time.sleep(0.5)
            os.kill(screen.process.pid, signal.SIGTERM if how == "twice" else signal.SIGINT)
    assert job_of(run) is None
    assert screen.process.wait(30) == 128 + code
    assert job_of(run).id == "70"
    assert b"Traceback" not in screen.output


def form(terminal):
    """The new-run form in a terminal."""
    screen = terminal(PROGRAM, columns=80, lines=24)
    screen.expect("new")
    screen.send("n")
    screen.expect("handwritten")
    screen.send("\r")
    screen.expect("seed")
    return screen


def frozen(terminal):
    """A terminal that takes nothing, and an app with more pictures for it than those that it keeps waiting (30)."""
    screen = form(terminal)
    screen.fill()
    for _ in range(40):
        screen.send(PAGE_DOWN)
        screen.send(PAGE_UP)
        time.sleep(0.06)
    return screen


def test_a_hang_up_in_the_middle_of_a_picture(folder, terminal):
    """It once waited for ever, one core busy."""
    screen = frozen(terminal)
    screen.hang_up()
    assert screen.wait(30) == 128 + signal.SIGHUP


def test_a_signal_when_the_terminal_takes_nothing(folder, terminal):
    screen = frozen(terminal)
    os.kill(screen.process.pid, signal.SIGTERM)
    assert screen.process.wait(30) == 128 + signal.SIGTERM
    screen.read(1)
    assert RESET[0] not in screen.output  # it could not be told


def test_page_down_held_down_in_the_form(folder, terminal):
    """It once ended the app without a word: fields were taken away while they were being mounted."""
    screen = form(terminal)
    for _ in range(20):
        screen.send(PAGE_DOWN)
        screen.read(0.03)
    screen.read(1)
    assert screen.process.poll() is None
    screen.send(CTRL_Q)
    assert screen.wait() == 0
