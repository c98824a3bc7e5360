"""`hah` called in this process, which takes a tenth of the time."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from unittest.mock import patch

import typer

from hah_tui import cli


@cache
def _command():
    """What ``cli.app()`` makes of its functions at every call, 17 ms each, and then calls."""
    return typer.main.get_command(cli.app)


def call(*arguments):
    """(exit code, standard output, standard error) of `hah` called in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    argv, command = ["hah", *map(str, arguments)], _command()
    with patch.object(sys, "argv", argv), patch.object(cli, "app", command), redirect_stdout(out), redirect_stderr(err):
        code = cli._exit_code()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return code or 0, *texts
