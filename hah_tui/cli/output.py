"""What every command shares: its options, and how facts leave it: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.runs import layout, store
from engine.runs.layout import RunDirectory
from engine.runs.submitted import allocation
from hah_tui.text import shown_line

RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Where runs live (else HAH_RUNS, else the data folder).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def complete_run(incomplete: str) -> list[str]:
    """Ids of runs for shell completion, the newest first."""
    return [run.id for run in store.all_runs(layout.runs_folder()) if run.id.startswith(incomplete)][:50]


def complete_run_or_sweep(incomplete: str) -> list[str]:
    """Names of sweeps and ids of runs for shell completion, the newest first."""
    from engine.sweep import sweeps

    known = sweeps.names(layout.runs_folder())
    return [*(name for name in known if name.startswith(incomplete)), *complete_run(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets for shell completion."""
    from engine.experiment import presets

    return [preset.name for preset in presets.listed() if preset.name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Names of settings for shell completion."""
    from engine.experiment.fields import fields

    return [f"{name}=" for name in fields() if name.startswith(incomplete)]


def complete_live(incomplete: str) -> list[str]:
    """Names of settings that may change while a run lives, for shell completion."""
    from engine.experiment.fields import fields

    return [f"{name}=" for name, field in fields().items() if field.live and name.startswith(incomplete)]


RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="An id, the beginning of one, or @last.", autocompletion=complete_run),
]


def resolve(reference: str, runs_dir: Path | None) -> RunDirectory:
    """The run that a command's RUN means; raises RequestError."""
    return store.resolve(reference, layout.runs_folder(runs_dir))


def is_terminal() -> bool:
    """Whether standard output understands more than plain lines."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def discard(descriptor: int = 1) -> None:
    """Nobody reads standard output (or error) any more: what is still said goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def print_json(document: Any) -> None:
    """The one document of a ``--json`` command."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Rows under headers; ``right`` lists the columns that are numbers. Plain aligned text where no terminal is."""
    cells = [[shown_line(cell, 120) for cell in row] for row in rows]
    if is_terminal():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, header in enumerate(headers):
            table.add_column(header, justify="right" if index in right else "left", no_wrap=index == 0)
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(len(line[index]) for line in [list(headers), *cells]) for index in range(len(headers))]
    for line in [list(headers), *cells]:
        padded = (
            text.rjust(width) if index in right else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(padded).rstrip())


def note_allocation() -> None:
    """Say it where what is left to itself ends with the job of Slurm that this is part of."""
    if said := allocation():
        note(f"{said}; --on slurm submits a job of its own")


def note(text: str) -> None:
    """A remark that belongs to no document: standard error, where that can take it."""
    try:
        print(f"hah: {text}", file=sys.stderr)
    except OSError:
        discard(2)
