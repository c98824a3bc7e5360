"""hah-tui in a pseudo-terminal beside an engine that writes 200 records a second: what it sends, and how it leaves."""

import sys
import time
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.tui import made as making
from tests.tui.scripted import Scripted

SECONDS = 3


@pytest.mark.parametrize(("columns", "lines", "ceiling"), [(160, 48, 20_000), (80, 24, 8_000)])
def test_a_live_run_sends_few_bytes(runs, columns, lines, ceiling):
    runs.mkdir()
    made = Scripted(runs, live=True, epochs=5000)
    made.records(8000)
    made.snapshot()
    terminal = Terminal([str(Path(sys.executable).with_name("hah-tui"))], columns, lines, {"COLORTERM": "truecolor"})
    try:
        terminal.expect("scripted-aaaa")
        terminal.send("\r")
        terminal.expect("Throughput" if columns == 160 else "Accuracy")
        terminal.read(1)
        before, began = len(terminal.output), time.monotonic()
        while time.monotonic() - began < SECONDS:
            made.records(10)
            made.snapshot()
            terminal.read(0.05)
        sent = (len(terminal.output) - before) / (time.monotonic() - began)
        assert 100 < sent < ceiling
        terminal.send("q")
        assert terminal.wait(10) == 0
    finally:
        terminal.close()
        made.die()


def test_a_sweep_opens_with_few_bytes(runs):
    """Everything there is to draw of 300 runs at 160x48; then nothing is sent while nothing changes."""
    sweep = making.sweep(runs, "base: quickstart\naxes: {hah.lambda: {from: 0.1, to: 1.0, count: 60}}\nseeds: 5\n")
    for place in range(60):
        for seed in sweep.seeds[:3]:
            making.trial(runs, sweep, place, seed)
    terminal = Terminal([str(Path(sys.executable).with_name("hah-tui"))], 160, 48, {"COLORTERM": "truecolor"})
    try:
        terminal.expect("-ab12")
        terminal.read(3)
        before = len(terminal.output)
        terminal.send("S")
        terminal.expect("90.0 ± 0.0")
        terminal.read(1)
        opened = len(terminal.output)
        assert 2_000 < opened - before < 30_000
        terminal.read(SECONDS)
        assert len(terminal.output) - opened < 200
        terminal.send("q")
        assert terminal.wait(10) == 0
    finally:
        terminal.close()
