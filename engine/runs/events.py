"""The event log: one JSON object a line, appended by one writer, followed by any number of readers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import disk

LOG_VERSION = 1
MOST_IN_A_RECORD = 1000  # numbers of a list; whoever has more writes several records
_LONGEST_LINE = 64 << 20  # that readers wait for the end of; what is longer was not written here

Event = dict[str, Any]


class EventLog:
    """The one writer. What an earlier writer left half-written is cut off before anything is appended.

    A record costs one write; only those marked ``durable`` (state changes) are waited for on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk.appending(path) as file:
            self._file = os.dup(file.fileno())
        self._torn = True
        if os.fstat(self._file).st_size == 0:
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
        self._file = -1  # another file may get its number

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
        if from_end:
            with suppress(OSError), disk.opened(path) as file:
                self._inode = os.fstat(file.fileno()).st_ino
                self._offset = _complete(file.fileno())

    @property
    def offset(self) -> int:
        """Bytes of the file that have been read."""
        return self._offset

    def read(self, limit: int = 1 << 20) -> list[Event]:
        """The records since the last call, reading about ``limit`` bytes, more where a line is longer; [] for none.

        Lines that are no record (NUL bytes, foreign text, the torn line of a crash) are passed over.
        """
        try:
            with disk.opened(self.path) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                data = file.read(max(limit, 4096))
                while not (end := data.rfind(b"\n") + 1) and (more := file.read(len(data) or 1)):
                    data += more
                    if len(data) > _LONGEST_LINE:
                        end = len(data)
                        break
        except OSError:
            return []
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
        with suppress(ValueError):
            record = disk.parse_json(line.strip(b"\0 \r"))
            if isinstance(record.get("kind"), str):
                yield record
