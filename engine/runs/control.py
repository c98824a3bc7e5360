"""Commands to a live engine: one file each, renamed into control/, acknowledged as an event."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from engine import disk
from engine.disk import replace_text
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory

Verb = Literal["stop", "stop-now", "pause", "resume", "set"]
MAX_DEPTH = 20  # of a value
_LARGEST = 1 << 20
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*\.json")


@dataclass(frozen=True)
class Command:
    """What is asked of the engine; ``id`` is the name of its file and orders commands by time. ``problem``: why it is
    no command, in which case it only has an id."""

    id: str
    verb: Verb | Literal[""]
    name: str = ""  # of a setting
    value: Any = None
    problem: str = ""


def send(run: RunDirectory, verb: Verb, name: str = "", value: Any = None) -> str:
    """Put a command before the engine and return its id; raises OSError where the run cannot be written."""
    command = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    run.control.mkdir(exist_ok=True)
    if run.control.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(run.control))
    replace_text(run.control / f"{command}.json", json.dumps({"verb": verb, "name": name, "value": value}))
    return command


class Inbox:
    """The engine's side: a look costs one listing of an empty folder."""

    def __init__(self, run: RunDirectory) -> None:
        self._folder = run.control

    def read(self) -> list[Command]:
        """Commands that wait, oldest first; each stays until `done`."""
        commands = []
        try:
            entries = sorted(os.listdir(self._folder))  # noqa: PTH208 (a Path for each costs four times as much)
        except FileNotFoundError:  # somebody took the folder away; who sends a command makes it
            return []
        for entry in entries:
            if not _NAME.fullmatch(entry) or self._folder.is_symlink():
                continue
            command = _parsed(self._folder / entry)
            if command is not None:
                commands.append(command)
        return commands

    def done(self, command: Command) -> None:
        """Take a command away, after its acknowledgement is in the record."""
        (self._folder / f"{command.id}.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Take away what was left for an engine that is gone."""
        for path in [] if self._folder.is_symlink() else self._folder.glob("[!.]*.json"):
            with suppress(IsADirectoryError, FileNotFoundError):
                path.unlink()


def _parsed(path: Path) -> Command | None:
    """The command in a file; None for a folder, which nobody can take away as one file."""
    try:
        stored = disk.parse_json(disk.read_bytes(path, _LARGEST))
    except ValueError as error:
        return Command(path.stem, "", problem=f"no command: {error}")
    except OSError as error:
        there = path.exists() and not path.is_dir()
        return Command(path.stem, "", problem=f"no command: {error.strerror}") if there else None
    verb: Any
    verb, name, value = stored.get("verb"), stored.get("name", ""), stored.get("value")
    if verb not in get_args(Verb):
        return Command(path.stem, "", problem=f"unknown: {verb!r:.60}; there is {', '.join(get_args(Verb))}")
    if not isinstance(name, str) or len(name) > 200 or not is_shallow(value):
        return Command(path.stem, "", problem="no command: its name or value cannot be one")
    return Command(path.stem, verb, name, value)


def is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether plain data nests no deeper than a setting may."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(is_shallow(one, depth - 1) for one in inner)


def withdraw(run: RunDirectory, command: str) -> bool:
    """Take back a command that nobody has answered; whether it was still there."""
    try:
        (run.control / f"{command}.json").unlink()
    except OSError:
        return False
    return True


def acknowledgement(tail: Tail, command: str) -> dict[str, Any] | None:
    """The event that answers ``command`` among the new records of ``tail``, if it has come."""
    return next((e for e in tail if e["kind"] == "command" and e.get("id") == command), None)
