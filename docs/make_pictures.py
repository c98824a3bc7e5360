"""Make the pictures of the README from a real run: python docs/make_pictures.py

Starts `hah run quickstart` in a folder of its own, captures what it shows half-way, and stops it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from engine.runs import store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from hah_tui.cli.watching import line, panel

HERE = Path(__file__).parent
HAH = str(Path(sys.executable).with_name("hah"))


def main() -> None:
    with tempfile.TemporaryDirectory() as runs:
        os.environ["HAH_RUNS"] = runs
        started = subprocess.run(
            [HAH, "run", "quickstart", "--detach", "--json"], capture_output=True, text=True, check=True
        )
        run = RunDirectory(Path(json.loads(started.stdout)["path"]))
        while store.look(run).state.epoch < 6:
            time.sleep(0.1)
        console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True, highlight=False)
        console.print("[bold]$ hah run quickstart[/bold]")
        for event in Tail(run.events):
            if event["kind"] == "engine":
                console.print(line(event, 0), markup=False)
        console.print(panel(store.look(run)))
        subprocess.run([HAH, "stop", run.id], check=True)
        console.save_svg(str(HERE / "session.svg"), title="hah run quickstart")


if __name__ == "__main__":
    main()
