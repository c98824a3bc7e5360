"""``hah``: the command line. One file for each group of commands; nothing heavy is imported before it is needed."""

from __future__ import annotations

import io
import os
import sys

import typer

from engine.experiment.mistakes import RequestError
from engine.runs.launch import LaunchError
from hah_tui.cli import evaluating, inspecting, keeping, preparing, reporting, running
from hah_tui.text import shown

app = typer.Typer(
    name="hah",
    help="Experiments with layer-wise Hebbian/anti-Hebbian (HaH) learning: train, watch, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
running.add_to(app)
evaluating.add_to(app)
inspecting.add_to(app)
keeping.add_to(app)
preparing.add_to(app)
reporting.add_to(app)


def main() -> None:
    """The entry point: a wrong request is one clear message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal's encoding has no ▲
    try:
        app()
    except RequestError as error:
        for mistake in error.mistakes:
            print(f"hah: {shown(mistake)}", file=sys.stderr)
        sys.exit(2)
    except LaunchError as error:
        print(f"hah: {shown(error, 20000)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
