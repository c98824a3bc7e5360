"""Make the pictures of the README from real runs: python docs/make_pictures.py

Trains two networks on digits, one HaH and one standard, evaluates them, and captures the command line and the screens
of hah-tui looking at them.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from engine.runs import store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from hah_tui.app import HahApp
from hah_tui.cli.watching import panel
from hah_tui.event_line import event_line
from hah_tui.widgets.picture import placed

HERE = Path(__file__).parent
HAH = str(Path(sys.executable).with_name("hah"))
SIZE = (132, 40)
EVALUATION = ["--suite", "noise", "--suite", "sparsity", "--suite", "attacks", "--images", "100"]


def start(*settings: str) -> RunDirectory:
    command = [HAH, "run", "quickstart", "--detach", "--json", *settings]
    started = subprocess.run(command, capture_output=True, text=True, check=True)
    return RunDirectory(Path(json.loads(started.stdout)["path"]))


def wait(run: RunDirectory, condition: Callable[[store.Look], bool]) -> None:
    while not condition(store.look(run)):
        time.sleep(0.1)


def session(run: RunDirectory) -> None:
    """`hah run` half-way."""
    wait(run, lambda look: look.state.epoch >= 6)
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print("[bold]$ hah run quickstart[/bold]")
    for event in Tail(run.events):
        if event["kind"] == "engine":
            console.print(event_line(event, 0), markup=False)
    console.print(panel(store.look(run)))
    (HERE / "session.svg").write_text(placed(console.export_svg(title="hah run quickstart")), encoding="utf-8")


async def capture(folder: Path, name: str, *keys: str, before: Callable[[HahApp], None] = lambda app: None) -> None:
    """The app on a runs folder after some keys."""
    app = HahApp(folder)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(2)
        before(app)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(1)
        await pilot.pause(2)
        (HERE / f"{name}.svg").write_text(placed(app.export_screenshot(title=f"hah-tui: {name}")), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        os.environ["HOME"] = temporary  # pictures show ~/runs, not a path of this machine
        os.environ["HAH_RUNS"] = str(folder)
        os.environ["XDG_CONFIG_HOME"] = str(folder.with_name(".config"))
        standard = start("--name", "standard", "--set", "model.hah_blocks=0", "--set", "hah.alpha=0")
        wait(standard, lambda look: not look.live)
        run = start("--name", "hah")
        session(run)
        wait(run, lambda look: not look.live)
        for one in (run, standard):
            subprocess.run([HAH, "eval", one.id, *EVALUATION], check=True)
        live = start("--name", "hah-more-alpha", "--set", "hah.alpha=[0.09, 0.05, 0.026]", "--set", "train.epochs=60")
        wait(live, lambda look: look.state.epoch >= 4)
        asyncio.run(capture(folder, "runs"))
        asyncio.run(capture(folder, "monitor", "down", "enter", "p", "down", "down", "enter"))
        subprocess.run([HAH, "stop", live.id], check=True)
        asyncio.run(capture(folder, "compare", "down", "space", "down", "space", "v"))
        asyncio.run(capture(folder, "new-run", "n", "enter"))
        asyncio.run(capture(folder, "results", "down", "R"))


if __name__ == "__main__":
    main()
