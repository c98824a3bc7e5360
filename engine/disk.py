"""The disk: where a person's folders are, and files that are read and written without surprises.

What is read is a file of bounded size, never a pipe that nobody writes to; JSON is strict, and its numbers fit into a
float. What is written appears whole or not at all, or is appended, and never through a symbolic link.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NoReturn

import platformdirs

NO_FILE = "is not a file"
_EXPONENT = re.compile(rb"[eE]\+?[0-9]{3}")  # of what may be beyond a float
_DIGITS = 150  # as many from one of their multiples on are in every number of twice as many


def find_home() -> None:
    """Where the system knows no home (some containers) it is a folder in HAH_RUNS, for this process and its children:
    what numba, Matplotlib, triton and torch compile or note is kept there too."""
    runs = os.environ.get("HAH_RUNS")
    if runs and not Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111 (Path.home raises)
        os.environ["HOME"] = str(Path(runs).absolute() / ".hah-tui")
        os.environ.setdefault("LOGNAME", str(os.getuid()))


def folder_of(kind: Literal["config", "data", "cache", "state"]) -> Path:
    """A person's folder of this program; raises OSError where the system knows no home."""
    try:
        path = Path(getattr(platformdirs, f"user_{kind}_path")("hah-tui"))
    except RuntimeError:
        path = Path()
    if not path.is_absolute():
        raise OSError(2, "there is no home folder here: set HOME, or HAH_RUNS to a folder for everything")
    return path


# Reading


def opened(path: Path) -> BinaryIO:
    """A file open for reading; raises OSError for what is none (a folder, a pipe)."""
    return _a_file(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path, "rb")


def _a_file(descriptor: int, path: Path, mode: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, NO_FILE, str(path))
    return os.fdopen(descriptor, mode)  # type: ignore[return-value]  # both modes are binary


def read_bytes(path: Path, limit: int) -> bytes:
    """What is in a file; raises OSError, also where there is more than ``limit``."""
    with opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(27, f"is larger than {limit:,} bytes", str(path))
    return data


def read_text(path: Path, limit: int = 4 << 20) -> str:
    """What is in a text file, bytes that are none replaced; raises OSError."""
    return read_bytes(path, limit).decode(errors="replace")


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object without NaN and infinities; raises ValueError for anything else."""
    decoder = _CAREFUL if _may_be_huge(data) else _PLAIN
    try:
        document = decoder.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def status(path: Path | str, fresh: bool = False) -> os.stat_result | None:
    """What stat says of a path, None where there is nothing. ``fresh``: not from what this host knew of a file on a
    network file system some seconds ago, but from where it lies, which is asked of whoever opens it (nfs(5))."""
    try:
        if not fresh:
            return os.stat(path)  # noqa: PTH116 (asked of thousands)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def read_json(path: Path, limit: int = 4 << 20) -> dict[str, Any]:
    """The JSON object in ``path``; an empty one where there is none or it cannot be read as one."""
    try:
        return parse_json(read_bytes(path, limit))
    except (OSError, ValueError):
        return {}


def _may_be_huge(data: bytes) -> bool:
    """Whether a number may be beyond a float. One expression for both takes longer than all of the decoding."""
    if _EXPONENT.search(data):
        return True
    return any(data[at : at + _DIGITS].isdigit() for at in range(0, len(data), _DIGITS))


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is beyond a float")
    return value


def _whole(text: str) -> int:
    if len(text) > 300:
        raise ValueError("a number is beyond a float")
    return int(text)


# Made once: `json.loads` would make one for each line of a log.
_PLAIN = json.JSONDecoder(parse_constant=_refuse)
_CAREFUL = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_whole)


# Writing


@contextmanager
def replacing(path: Path, mode: str = "wb", check: Callable[[], object] = lambda: None) -> Iterator[IO[Any]]:
    """Write ``path`` whole or not at all: a temporary file beside it, fsync, rename, fsync of the folder. ``check`` may
    raise at the last moment: to wait for a disk takes as long as it takes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_bytes(path: Path, data: bytes) -> None:
    """Write ``path`` whole or not at all, and durably."""
    with replacing(path) as file:
        file.write(data)


def replace_text(path: Path, text: str) -> None:
    """Write text to ``path`` whole or not at all, and durably."""
    replace_bytes(path, text.encode())


def replace_json(path: Path, document: Mapping[str, Any], durable: bool = True) -> None:
    """Write a JSON document to ``path`` whole or not at all; ``durable``: also on the disk before this returns."""
    text = json.dumps(document, allow_nan=False)
    if durable:
        replace_text(path, text)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "w"
    ) as file:
        file.write(text)
    temporary.replace(path)


def appending(path: Path) -> BinaryIO:
    """A file open for reading and appending, made where there is none; raises OSError where it is a link."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return _a_file(os.open(path, flags, 0o666), path, "r+b")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, whole or not at all; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        path.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename itself has happened
    finally:
        os.close(descriptor)


def clear_temporary(folder: Path) -> int:
    """Remove the temporary files that killed writers left in ``folder``; returns how many there were."""
    found = [path for path in folder.glob(".*.tmp") if not path.is_dir()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
