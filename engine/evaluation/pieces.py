"""Results that grow piece by piece: what a killed evaluation has measured is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import disk


class Pieces:
    """Measured pieces by name, one JSON line each, in a file that is appended to.

    A piece is plain data and a function of the evaluation's settings and seed alone, so it does not matter which
    process measured it. ``path`` None keeps them in memory. ``done`` is called with the number of pieces asked for so
    far.
    """

    def __init__(self, path: Path | None = None, done: Callable[[int], None] = lambda count: None) -> None:
        self._stored: dict[str, Any] = {}
        self._asked, self._done, self._file = 0, done, None
        if path is None:
            return
        self._file = disk.appending(path)
        self._file.seek(0)
        whole = 0
        for line in self._file:
            try:
                name, value = json.loads(line)
            except (ValueError, TypeError):  # the torn end that a kill left
                break
            if not line.endswith(b"\n"):
                break
            self._stored[name], whole = value, whole + len(line)
        self._file.truncate(whole)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The piece called ``name``: as stored, else measured now and stored."""
        if name not in self._stored:
            # Through JSON, so that a piece is the same thing measured or read again.
            line = json.dumps([name, measure()], allow_nan=False)
            self._stored[name] = json.loads(line)[1]
            if self._file is not None:
                self._file.write(line.encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
        self._asked += 1
        self._done(self._asked)
        return self._stored[name]

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
