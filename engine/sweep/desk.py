"""What a queue has beside its runs, in `RUNS/.queue`: limits of groups, what is paused, and who attends to it.

Each host has devices of its own, so several may attend to one folder, where all of them see each other's locks: then it
is one lock that says who has a run. Where that is not so, one host attends, the folder's home: the first that did, or
the one that a person has named since.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from engine import disk
from engine.disk import read_json, replace_json
from engine.experiment.mistakes import RequestError
from engine.experiment.names import NAME_FORMAT, is_name
from engine.runs import launch
from engine.runs.mounts import Mount, mount_of
from engine.runs.process import Lock, identity, is_locked

DEFAULT = "default"  # the group of what names none
Wish = Literal["needed", "always", "never"]
WISHES: tuple[Wish, ...] = get_args(Wish)
_TELLING = 5.0  # seconds for which a dispatcher that has just begun may not have told of itself

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
        for path in (place, place / "groups", place / "hosts"):
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
        status = disk.status(path, fresh=True)
        found.append(status.st_mtime_ns if status is not None else 0)
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


# Who starts what waits


@dataclass(frozen=True)
class Host:
    """A host as its dispatcher has told of itself: how it sees the folder (``kind`` of file system, its ``locks``),
    what devices it has, and the commit it runs. ``attends``: its dispatcher is seen here, by its lock."""

    name: str = ""
    boot: str = ""
    pid: int = 0
    kind: str = ""
    locks: str = "unknown"
    gpus: int = 0
    threads: int = 0
    commit: str = ""
    attends: bool = False


def this_host() -> str:
    """The name of this host, fit for a file's."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", os.uname().nodename)[:80] or "host"


def dispatcher_lock(folder: Path, host: str = "") -> Path:
    """Held by a host's dispatcher of a folder (this one's) for as long as it lives."""
    return folder_of(folder) / f"dispatcher-{host or this_host()}.lock"


def dispatcher_log(folder: Path) -> Path:
    return folder_of(folder) / f"dispatcher-{this_host()}.log"


def waits_file(folder: Path, host: str = "") -> Path:
    """Why runs wait, by id, as a host's dispatcher (this one's) has found at its last look."""
    return folder_of(folder) / f"waits-{host or this_host()}.json"


def has_dispatcher(folder: Path) -> bool:
    """Whether somebody on this host starts what waits in a folder."""
    return is_locked(dispatcher_lock(folder))


def hosts(folder: Path) -> list[Host]:
    """Every host that has ever attended to a folder."""
    place = folder_of(folder) / "hosts"
    found = []
    for path in sorted(place.glob("*.json")) if place.is_dir() else []:
        host: Host = parsed(Host, read_json(path))
        found.append(replace(host, name=path.stem, attends=is_locked(dispatcher_lock(folder, path.stem))))
    return found


def others(folder: Path) -> list[Host]:
    """Every other host that has."""
    return [one for one in hosts(folder) if one.name != this_host()]


def waits(folder: Path) -> dict[str, str]:
    """For what each run waits, by id, as those who attend say; by host, where they say different things."""
    mine = [this_host()] if has_dispatcher(folder) else []
    attending = [*mine, *(host.name for host in others(folder) if host.attends)]
    said: dict[str, dict[str, str]] = {}
    for host in attending:
        for name, why in read_json(waits_file(folder, host)).items():
            said.setdefault(name, {})[host] = str(why)
    one = {name: next(iter(why.values())) for name, why in said.items() if len(set(why.values())) == 1}
    return {name: one.get(name) or "; ".join(f"{on}: {of}" for on, of in why.items()) for name, why in said.items()}


def wish(folder: Path) -> Wish:
    """When this host is to attend: while it is *needed*, *always* or *never*."""
    stored = read_json(_wish(folder)).get("attend")
    return next((one for one in WISHES if one == stored), "needed")


def set_wish(folder: Path, wanted: Wish) -> None:
    """Say when this host is to attend; raises RequestError."""
    made(folder)
    _write(_wish(folder), {"attend": wanted})
    touch(folder)


def home(folder: Path) -> str:
    """The host that starts what waits where only one may; '' for none yet."""
    return str(read_json(_home(folder)).get("host", ""))


def set_home(folder: Path) -> None:
    """Make this host the one; the others tell of themselves again when they look. Raises RequestError."""
    place, mount = made(folder) / "hosts", mount_of(folder)
    _write(_home(folder), {"host": this_host()})
    for path in place.glob("*.json"):
        path.unlink(missing_ok=True)
    _write(place / f"{this_host()}.json", asdict(Host(this_host(), kind=mount.kind, locks=mount.locks)))
    touch(folder)


def register(folder: Path, gpus: int, threads: int, commit: str) -> str:
    """Tell of this host, as its dispatcher; returns `refusal`. Raises OSError."""
    place = made(folder) / "hosts"
    with suppress(FileExistsError):  # another was the first, or this one long ago
        disk.write_new(_home(folder), f'{{"host": "{this_host()}"}}'.encode())
    who, mount = identity(), mount_of(folder)
    # A lock of another host that is seen here proves more than any table; seen once, it is kept.
    known = _told(folder)
    seen = mount.locks == "unknown" and (known.locks == "shared" or any(one.attends for one in others(folder)))
    locks = "shared" if seen else mount.locks
    me = Host(this_host(), who.boot, who.pid, mount.kind, locks, gpus, threads, commit)
    if me != known:
        replace_json(place / f"{me.name}.json", asdict(me))
    return refusal(folder)


def refusal(folder: Path) -> str:
    """Why this host may not start what waits in a folder, in a sentence; '' where it may."""
    mount, more = mount_of(folder), others(folder)
    own = next((one.locks for one in hosts(folder) if one.name == this_host()), mount.locks)
    first = home(folder) or this_host()
    if first == this_host() or _same_locks(mount, own, more):
        return ""
    odd = next((one for one in more if one.locks != own), None)
    seen = f"{odd.name} sees it as {odd.kind}, and neither the other's locks; " if odd and mount.believed else ""
    return (
        f"{folder} is on {mount.words}; {seen}{first} starts what waits there, and only one host may. "
        "'hah queue resume --here' makes it this one"
    )


def _same_locks(mount: Mount, own: str, more: Sequence[Host]) -> bool:
    """Whether this host and the others see each other's locks, as far as is known."""
    if not more:
        return mount.believed
    views = {own, *(one.locks for one in more)}
    return views in ({"shared"}, {"disk"}) or all(one.attends for one in more)


@contextmanager
def starting(folder: Path) -> Iterator[bool]:
    """Whether this process is the only one that counts what runs and starts something, until the end of the block."""
    lock = Lock.take(made(folder) / "starting.lock", patience=1.0)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def ensure_dispatcher(folder: Path) -> bool:
    """Have this host attend, unless it does, or is never to; whether a dispatcher was started. Raises RequestError."""
    if has_dispatcher(folder):
        _check_name(folder)
        return False
    if wish(folder) == "never":
        return False
    check_host(folder)
    made(folder)
    try:
        launch.background([*launch.module("engine.sweep"), str(folder)], dispatcher_log(folder))
    except OSError as error:
        raise RequestError(f"{folder_of(folder)}: no dispatcher can be started: {error.strerror}") from None
    return True


def check_host(folder: Path) -> None:
    """Raise RequestError where this host may not start what waits."""
    if why := refusal(folder):
        raise RequestError(why)


def _check_name(folder: Path) -> None:
    """Raise RequestError where the dispatcher of this host is one of another that is called like it."""
    deadline = time.monotonic() + _TELLING
    while _told(folder).boot not in ("", identity().boot):
        if time.monotonic() > deadline:
            raise RequestError(
                f"{folder}: another machine that is called {this_host()}, too, starts what waits there; each needs a "
                "name of its own"
            )
        time.sleep(0.1)


def _told(folder: Path) -> Host:
    """What this host's last dispatcher has told of it."""
    return parsed(Host, read_json(folder_of(folder) / "hosts" / f"{this_host()}.json"))


def _wish(folder: Path) -> Path:
    return folder_of(folder) / f"attend-{this_host()}.json"


def _home(folder: Path) -> Path:
    return folder_of(folder) / "home.json"


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        replace_json(path, document)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
