"""Results that grow piece by piece: what a killed evaluation has measured is not measured again, by whatever process.

The pieces of a result called NAME lie beside it in `.NAME.pieces`, those that other processes measured in
`.NAME.2.pieces` and so on: each process appends to a file of its own and reads those of all. `.NAME.claims` says which
parts are being measured; `.NAME.batch` how many images at once, where that was chosen.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine import disk
from engine.runs.process import Lock


class Pieces:
    """Measured pieces by name, one JSON line each, in a file that is appended to.

    A piece is plain data and a function of the evaluation's settings and seed alone, so it does not matter which
    process measured it. ``path`` None keeps them in memory. ``done`` is called with the number of pieces that are
    known, after each that was asked for.
    """

    def __init__(self, path: Path | None = None, done: Callable[[int], None] = lambda count: None) -> None:
        self.known: dict[str, Any] = {}
        self.measured = 0  # by this process
        self._done, self._path, self._file = done, path, None
        self._read: dict[Path, int] = {}  # how many bytes of the files of others are read
        if path is None:
            return
        self._file = disk.appending(path)
        self._file.seek(0)
        found, whole = _whole(self._file.read())
        self._file.truncate(whole)
        self.known.update(found)
        self.look()

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The piece called ``name``: as stored, else measured now and stored."""
        if name not in self.known:
            # Through JSON, so that a piece is the same thing measured or read again.
            line = json.dumps([name, measure()], allow_nan=False)
            self.known[name] = json.loads(line)[1]
            self.measured += 1
            if self._file is not None:
                self._file.write(line.encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
        self._done(len(self.known))
        return self.known[name]

    def look(self) -> int:
        """Read what other processes have measured since the last look; returns how many pieces are known."""
        if self._path is None:
            return len(self.known)
        stem = re.sub(r"(\.\d+)?\.pieces$", "", self._path.name)
        for path in (self._path.with_name(f"{stem}.pieces"), *sorted(self._path.parent.glob(f"{stem}.*.pieces"))):
            if path == self._path:
                continue
            try:
                with disk.opened(path) as file:
                    file.seek(self._read.get(path, 0))
                    found, whole = _whole(file.read())
            except OSError:  # there is none, or it is gone again: the result has just been written
                continue
            self._read[path] = self._read.get(path, 0) + whole
            self.known.update({name: value for name, value in found.items() if name not in self.known})
        return len(self.known)

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


def _whole(data: bytes) -> tuple[Mapping[str, Any], int]:
    """The pieces in lines up to the first that is none, such as the torn end that a kill left; and how many bytes
    those are."""
    found: dict[str, Any] = {}
    whole = 0
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            name, value = json.loads(line)
            found[name] = value
        except (ValueError, TypeError):
            break
        whole += len(line)
    return found, whole


class Claims:
    """Which parts of a result processes are measuring: a locked byte of a file for each, so that the kernel gives back
    what a dead process had.

    A claim saves work and promises nothing: two processes that measure the same part find the same pieces. So a file
    system without such locks costs time only.
    """

    def __init__(self, path: Path) -> None:
        self._file = disk.appending(path)

    def take(self, part: int) -> bool:
        """Whether the part with this number is this process's now; it is until these claims are closed."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def agreed(path: Path, choose: Callable[[], int]) -> int:
    """The number that the first process to ask has chosen, for all that ask later."""
    lock = Lock.take(path, patience=60)
    try:
        before = disk.read_text(path).strip()
        if before.isdecimal() and int(before) > 0:
            return int(before)
        number = choose()
        with disk.appending(path) as file:
            file.truncate(0)
            file.write(f"{number}\n".encode())
        return number
    finally:
        if lock is not None:
            lock.release()
