"""What a queue has beside its runs, in `RUNS/.queue`: limits of groups, what is paused, and who attends to it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from engine.disk import read_json, replace_json
from engine.experiment.mistakes import RequestError
from engine.experiment.names import NAME_FORMAT, is_name
from engine.runs import launch
from engine.runs.process import is_locked

DEFAULT = "default"  # the group of what names none

T = TypeVar("T")


def parsed(kind: type[T], stored: Mapping[str, Any]) -> T:
    """A dataclass of plain values; what is missing or cannot be has its default."""
    types: dict[str, Any] = {
        "str": str, "int": int, "float": (int, float), "bool": bool, "int | None": (int, type(None)),
        "tuple[str, ...]": list,
    }  # fmt: skip
    good: dict[str, Any] = {}
    for one in fields(kind):  # type: ignore[arg-type]  # a dataclass
        value, fits = stored.get(one.name), types[str(one.type)]
        if one.name in stored and isinstance(value, fits) and isinstance(value, bool) <= (fits is bool):
            good[one.name] = tuple(map(str, value)) if isinstance(value, list) else value
    return kind(**good)


@dataclass(frozen=True)
class Group:
    """Runs that share a limit. ``limit``: of them at once, None for as many as there are devices; ``since``: when it
    was last set going, before which no failure counts."""

    name: str = DEFAULT
    limit: int | None = None
    per_gpu: int = 1
    paused: bool = False
    reason: str = ""
    since: float = 0.0


def folder_of(folder: Path) -> Path:
    """Where a runs folder keeps what is no run's."""
    return folder / ".queue"


def made(folder: Path) -> Path:
    """That place, made; raises RequestError where it cannot be, or where there is a link in its place."""
    place = folder_of(folder)
    try:
        for path in (place, place / "groups"):
            if path.is_symlink():
                raise RequestError(f"{path} is a symbolic link; nothing is written through one")
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{place} cannot be made: {error.strerror}") from None
    return place


def touch(folder: Path) -> None:
    """Tell whoever starts what waits that something has changed."""
    replace_json(made(folder) / "changed", {"time": time.time()}, durable=False)


def changed_stamp(folder: Path) -> tuple[int, int]:
    """What changes when anything was asked, or a run was made or removed."""
    found = []
    for path in (folder_of(folder) / "changed", folder):
        try:
            found.append(path.stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return found[0], found[1]


def groups(folder: Path) -> dict[str, Group]:
    """Every group that somebody has set something of."""
    found = {DEFAULT: Group()}
    place = folder_of(folder) / "groups"
    for path in sorted(place.glob("*.json")) if place.is_dir() else []:
        if is_name(path.stem):
            found[path.stem] = replace(parsed(Group, read_json(path)), name=path.stem)
    return found


def group_of(folder: Path, name: str) -> Group:
    """A group; one that nobody has set anything of has no limit. Raises RequestError for what is no name."""
    if not is_name(name):
        raise RequestError(f"{name!r:.80} cannot name a group; allowed: {NAME_FORMAT}")
    path = folder_of(folder) / "groups" / f"{name}.json"
    return replace(parsed(Group, read_json(path)), name=name)


def set_group(folder: Path, name: str, **settings: Any) -> Group:
    """Change a group; raises RequestError."""
    place = made(folder) / "groups"
    group = replace(group_of(folder, name), **settings)
    try:
        replace_json(place / f"{name}.json", asdict(group))
        touch(folder)
    except OSError as error:
        raise RequestError(f"{place} cannot be written: {error.strerror}") from None
    return group


def paused(folder: Path) -> bool:
    """Whether nothing new is to be started."""
    return (folder_of(folder) / "paused").exists()


def pause(folder: Path, on: bool) -> None:
    """Start nothing new, or go on; raises RequestError."""
    path = made(folder) / "paused"
    try:
        if on:
            replace_json(path, {"time": time.time()})
        else:
            path.unlink(missing_ok=True)
        touch(folder)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None


# The one who starts what waits


def dispatcher_lock(folder: Path) -> Path:
    """Held by this host's dispatcher of a folder for as long as it lives."""
    return folder_of(folder) / f"dispatcher-{_host()}.lock"


def dispatcher_log(folder: Path) -> Path:
    return folder_of(folder) / f"dispatcher-{_host()}.log"


def waits_file(folder: Path) -> Path:
    """Why runs wait, by id, as this host's dispatcher has found at its last look."""
    return folder_of(folder) / f"waits-{_host()}.json"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", os.uname().nodename)[:80] or "host"


def has_dispatcher(folder: Path) -> bool:
    """Whether somebody on this host starts what waits in a folder."""
    return is_locked(dispatcher_lock(folder))


def ensure_dispatcher(folder: Path) -> bool:
    """Start this host's dispatcher of a folder, unless there is one; whether it was. Raises RequestError."""
    if has_dispatcher(folder):
        return False
    made(folder)
    try:
        launch.background([*launch.module("engine.sweep"), str(folder)], dispatcher_log(folder))
    except OSError as error:
        raise RequestError(f"{folder_of(folder)}: no dispatcher can be started: {error.strerror}") from None
    return True
