"""Commands to call when a run or a group of the queue has ended.

They lie in the person's own state folder: nothing that a runs folder holds is ever executed. What they are about comes
in their environment, never in their words.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from engine.disk import folder_of, read_json, replace_json
from engine.experiment.mistakes import RequestError
from engine.runs.launch import log_end
from engine.sweep.queue import Item

_MOST_TEXT = 16_000  # characters in an environment


def words_of(command: str) -> list[str]:
    """A command split into words as a shell would; raises RequestError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise RequestError(f"--notify {command}: {error}") from None
    if not words or "\0" in command:
        raise RequestError("--notify: must name a command")
    return words


def ask(about: Path, words: Sequence[str]) -> None:
    """Call a command once when the run (its directory) or group (`RUNS/.queue/groups/NAME`) has ended.

    No shell runs it. Raises RequestError.
    """
    path = _path(about)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_json(path, {"about": str(about), "command": list(words)})
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None


def any_of(folder: Path) -> bool:
    """Whether anything is to be called at all."""
    place = _path(folder).parent
    return place.is_dir() and any(place.iterdir())


def take(about: Path) -> list[str]:
    """The command for something, which is not called again; [] for none."""
    path = _path(about)
    words = read_json(path).get("command")
    try:
        path.unlink()
    except OSError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


def facts(item: Item) -> dict[str, str]:
    """What a command is told of a run."""
    state = item.look.state
    return {
        "HAH_RUN": item.run.id,
        "HAH_PATH": str(item.run.path),
        "HAH_GROUP": item.entry.group,
        "HAH_STATUS": item.look.status,
        "HAH_ERROR": state.error[:_MOST_TEXT].replace("\0", ""),
        "HAH_LOG": log_end(item.job)[-_MOST_TEXT:].replace("\0", ""),
    }


def sums(name: str, members: Sequence[Item]) -> dict[str, str]:
    """What a command is told of a group."""
    done = sum(item.standing == "done" for item in members)
    return {
        "HAH_GROUP": name,
        "HAH_PATH": str(members[0].run.path.parent),
        "HAH_STATUS": "finished" if done == len(members) else "failed",
        "HAH_FINISHED": str(done),
        "HAH_FAILED": str(len(members) - done),
    }


def _path(about: Path) -> Path:
    return folder_of("state") / "notices" / f"{hashlib.sha256(str(about).encode()).hexdigest()[:32]}.json"
