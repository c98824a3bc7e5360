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
        """Raise TakenError where another engine has begun since, as far as this host knows: a network file system may
        tell of another one's files half a minute later."""
        if followed(self.run, self.number):
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


def followed(run: RunDirectory, number: int) -> bool:
    """Whether an engine with a later number than this has begun. Two stats: it may be asked between any two steps."""
    place = f"{run.path}/claims/"
    if os.path.lexists(f"{place}{number + 1}"):
        return True
    # Who slept for long may find neither: the oldest go.
    return not os.path.lexists(f"{place}{number}") and max(_numbers(run.claims), default=0) > number


def latest(run: RunDirectory) -> dict[str, Any]:
    """The identity of the process that claimed a run last; empty where none did."""
    return disk.read_json(run.claims / str(max(_numbers(run.claims), default=0)))


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if re.fullmatch(r"[0-9]{1,9}", name)]  # noqa: PTH208
    except OSError:
        return []
