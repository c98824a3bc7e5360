"""Commands to a live engine: one file each, renamed into control/, acknowledged as an event."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.runs.events import Tail
from engine.runs.layout import RunDirectory, read_json, replace_text

Verb = Literal["stop", "stop-now", "pause", "resume", "set"]


@dataclass(frozen=True)
class Command:
    """What is asked of the engine; ``id`` is the name of its file and orders commands by time."""

    id: str
    verb: Verb
    name: str = ""  # of a setting
    value: Any = None


def send(run: RunDirectory, verb: Verb, name: str = "", value: Any = None) -> str:
    """Put a command before the engine and return its id; raises OSError where the run cannot be written."""
    command = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    run.control.mkdir(exist_ok=True)
    replace_text(run.control / f"{command}.json", json.dumps({"verb": verb, "name": name, "value": value}))
    return command


class Inbox:
    """The engine's side: a look costs one listing of an empty folder."""

    def __init__(self, run: RunDirectory) -> None:
        self._folder = run.control

    def read(self) -> list[Command]:
        """Commands that wait, oldest first; each stays until `done`."""
        commands = []
        for entry in sorted(os.listdir(self._folder)):  # noqa: PTH208 (a Path for each entry costs four times as much)
            if entry.startswith(".") or not entry.endswith(".json"):
                continue
            path = self._folder / entry
            stored = read_json(path)
            if stored.get("verb") in get_args(Verb):
                commands.append(Command(path.stem, stored["verb"], str(stored.get("name", "")), stored.get("value")))
            else:
                path.unlink(missing_ok=True)
        return commands

    def done(self, command: Command) -> None:
        """Take a command away, after its acknowledgement is in the record."""
        (self._folder / f"{command.id}.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Take away what was left for an engine that is gone."""
        for path in self._folder.glob("[!.]*.json"):
            path.unlink(missing_ok=True)


def acknowledgement(tail: Tail, command: str) -> dict[str, Any] | None:
    """The event that answers ``command`` among the new records of ``tail``, if it has come."""
    return next((e for e in tail if e["kind"] == "command" and e.get("id") == command), None)
