"""``hah``: the command line. One file for each group of commands; nothing heavy is imported before it is needed."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from typing import Annotated

import typer

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs.launch import LaunchError
from engine.runs.process import end
from hah_tui.cli import (
    evaluating,
    inspecting,
    organizing,
    output,
    preparing,
    queueing,
    reporting,
    running,
    submitting,
    sweeping,
)
from hah_tui.text import shown, shown_line

app = typer.Typer(
    name="hah",
    help="Experiments with layer-wise Hebbian/anti-Hebbian (HaH) learning: train, watch, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"hah-tui {metadata.version('hah-tui')}")
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


running.add_to(app)
evaluating.add_to(app)
inspecting.add_to(app)
organizing.add_to(app)
preparing.add_to(app)
reporting.add_to(app)
sweeping.add_to(app)
queueing.add_to(app)
submitting.add_to(app)


def main() -> None:
    """The entry point: a wrong request is one clear message and exit code 2."""
    gc.set_threshold(10_000, 5, 5)  # most commands end before there is garbage
    for number in (signal.SIGTERM, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_DFL:  # a terminal is left as it was
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    disk.find_home()
    for name in ("stdin", "stdout", "stderr"):  # closed by whoever started this
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal's encoding has no ▲
    _drop_all_but(sys.argv[1:2])
    try:
        code = _exit_code()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        output.discard()
        code = 0
    if isinstance(code, str):
        output.note(code)
        code = 1
    end(code or 0)


def _drop_all_but(asked: list[str]) -> None:
    """Keep only what is asked for, if it is there: the parsers of all commands take a tenth of a short one's time."""
    commands = [one for one in app.registered_commands if (one.name or getattr(one.callback, "__name__", "")) in asked]
    groups = [one for one in app.registered_groups if one.name in asked]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def _exit_code() -> int | str | None:
    try:
        app()
    except SystemExit as done:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click's word for a reader who has seen enough
            raise BrokenPipeError from None
        return done.code
    except RequestError as error:
        for mistake in error.mistakes:
            output.note(shown(mistake))
        return 2
    except LaunchError as error:
        output.note(shown(error, 20000))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder that is no more: whatever was half done has been taken back
        where = f"{shown_line(error.filename)}: " if error.filename else ""
        output.note(f"{where}{error.strerror or error}")
        return 2
    return 0
