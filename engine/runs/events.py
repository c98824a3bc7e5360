"""The event log: one JSON object a line, appended by one writer, followed by any number of readers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG_VERSION = 1
_LONGEST_LINE = 1 << 20

Event = dict[str, Any]


class EventLog:
    """The one writer. What an earlier writer left half-written is cut off before anything is appended.

    A record costs one write; only those marked ``durable`` (state changes) are waited for on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._torn = True
        if new or os.fstat(self._file).st_size == 0:
            self.append("log", durable=True, version=LOG_VERSION)

    def append(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Append one record; raises OSError where it cannot be written (a torn line is cut off by the next)."""
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, allow_nan=False) + "\n"
        if self._torn:
            self._repair()
        self._torn = True
        data = line.encode()
        if os.write(self._file, data) != len(data):
            raise OSError(28, "No space left on device", str(self.path))
        self._torn = False
        if durable:
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _repair(self) -> None:
        """Cut the file after its last complete line."""
        end = _complete(self._file)
        if end != os.fstat(self._file).st_size:
            os.ftruncate(self._file, end)


class Tail:
    """A reader that remembers where it is. A half-written last line is the end of the file for now."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self._offset = 0
        self._inode: int | None = None
        if from_end and path.exists():
            with path.open("rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                self._offset = _complete(file.fileno())

    @property
    def offset(self) -> int:
        """Bytes of the file that have been read."""
        return self._offset

    def read(self, limit: int = 1 << 20) -> list[Event]:
        """The records since the last call, reading at most about ``limit`` bytes; [] when there are none.

        Lines that are no record (NUL bytes, foreign text, the torn line of a crash) are passed over.
        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                data = file.read(max(limit, 4096))
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > _LONGEST_LINE:
            end = len(data)
        self._offset += end
        return list(_records(data[:end]))

    def __iter__(self) -> Iterator[Event]:
        """Every record from here to the present end."""
        while True:
            before = self._offset
            yield from self.read()
            if self._offset == before:
                return


def _complete(descriptor: int) -> int:
    """The size of an open file up to the end of its last complete line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _records(data: bytes) -> Iterator[Event]:
    for line in data.split(b"\n"):
        try:
            record = json.loads(line.strip(b"\0 \r"))
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("kind"), str):
            yield record
