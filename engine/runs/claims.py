"""Whose a run is, without any lock: engines of one run are numbered, and one that finds a later number than its own
ends without another word.

The lock decides on one host, and on all hosts where locks are sound. Where they are not as they were believed to be,
or a server gave the lock of a host away that it had lost sight of, this keeps two engines from doing one run: a number
is a file that only one can make (O_EXCL), on every file system that hosts share.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import disk
from engine.runs.layout import RunDirectory
from engine.runs.process import identity

_KEPT = 3  # of the numbers


class TakenError(Exception):
    """Another engine has this run now."""


@dataclass(frozen=True)
class Claim:
    """The number of an engine of a run."""

    run: RunDirectory
    number: int

    def check(self) -> None:
        """Raise TakenError where another engine has begun since. Two stats: an engine may ask between any two steps."""
        place = f"{self.run.path}/claims/"
        next_is_there = os.path.lexists(f"{place}{self.number + 1}")
        # Who slept for long may find neither: the oldest go.
        if next_is_there or (not os.path.lexists(f"{place}{self.number}") and _numbers(self.run.claims)):
            who = latest(self.run)
            raise TakenError(f"{self.run.id} was taken over by process {who.get('pid', '?')} on {who.get('host', '?')}")

    def make(self) -> bool:
        """Make it this process's; False where somebody else was faster. Raises OSError."""
        folder = self.run.claims
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(40, "is a symbolic link", str(folder))
        try:
            disk.write_new(self._file(self.number), json.dumps(identity().dump()).encode())
        except FileExistsError:
            return False
        there = _numbers(folder)
        for number in there:  # the oldest go, so a late comer may find its number free, and must look for later ones
            if number <= max(there) - _KEPT:
                with suppress(OSError):
                    self._file(number).unlink()
        return max(there) == self.number

    def _file(self, number: int) -> Path:
        return self.run.claims / str(number)


def following(run: RunDirectory) -> Claim:
    """The number that comes next."""
    return Claim(run, max(_numbers(run.claims), default=0) + 1)


def latest(run: RunDirectory) -> dict[str, Any]:
    """The identity of the process that claimed a run last; empty where none did."""
    return disk.read_json(run.claims / str(max(_numbers(run.claims), default=0)))


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if re.fullmatch(r"[0-9]{1,9}", name)]  # noqa: PTH208
    except OSError:
        return []
