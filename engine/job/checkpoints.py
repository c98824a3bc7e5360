"""Checkpoints: written whole or not at all, checked when read, never executed.

A checkpoint is what torch.save writes (torch.load reads it) with a SHA-256 of everything before it in the archive's
comment, so data and checksum arrive in one rename.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine import disk
from engine.disk import replacing
from engine.experiment.mistakes import RequestError
from engine.runs.layout import RunDirectory

FORMAT = 1
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64

Checkpoint = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def write(path: Path, checkpoint: Checkpoint, check: Callable[[], object] = lambda: None) -> None:
    """Write ``checkpoint`` to ``path`` durably; raises OSError where it cannot be, and what ``check`` raises before it
    is there."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, buffer)
    data = buffer.getbuffer()
    # The last two bytes of the zip archive are the length of its comment: the checksum becomes that comment.
    data[-2:] = _COMMENT.to_bytes(2, "little")
    if path.parent.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path.parent))
    with replacing(path, check=check) as file:
        file.write(data)
        file.write(_MARK + hashlib.sha256(data).hexdigest().encode())


def read(path: Path) -> Checkpoint:
    """The checkpoint in ``path``, its tensors on the CPU; raises DamagedError, or OSError where there is none."""
    with disk.opened(path) as file:
        data = memoryview(file.read())
    content, comment = data[:-_COMMENT], data[-_COMMENT:]
    if bytes(comment) != _MARK + hashlib.sha256(content).hexdigest().encode():
        raise DamagedError(f"{path.name} is damaged: its checksum does not match")
    try:
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file makes the unpickler say
        raise DamagedError(f"{path.name} is not a checkpoint: {error}") from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise DamagedError(f"{path.name} is not a checkpoint of this version")
    return checkpoint


def rotate(run: RunDirectory, checkpoint: Checkpoint, check: Callable[[], object] = lambda: None) -> None:
    """Make ``checkpoint`` the last one and the last one the previous; at every moment there is a last one."""
    last, previous = run.checkpoints / "last.pt", run.checkpoints / "previous.pt"
    if last.exists():
        also = run.checkpoints / f".previous.{os.getpid()}.tmp"
        also.unlink(missing_ok=True)
        try:
            also.hardlink_to(last)
        except OSError:  # a file system without hard links
            shutil.copyfile(last, also)
        try:
            check()
            also.replace(previous)
        finally:
            also.unlink(missing_ok=True)
    write(last, checkpoint, check)


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint that is whole, and what was wrong with a newer one."""

    checkpoint: Checkpoint
    warnings: list[str]


def newest(run: RunDirectory) -> Newest | None:
    """The newest whole checkpoint to continue from, or None where there is none at all.

    A damaged last one is put aside, so that it never takes the previous one's place. Raises RequestError where there
    are checkpoints and every one is damaged; then all stay where they are.
    """
    damaged: dict[Path, str] = {}
    found: Checkpoint | None = None
    for path in (run.checkpoints / "last.pt", run.checkpoints / "previous.pt"):
        try:
            found = read(path)
            break
        except FileNotFoundError:
            continue
        except DamagedError as error:
            damaged[path] = str(error)
        except OSError as error:
            damaged[path] = f"{path.name}: {error.strerror}"
    if found is None and damaged:
        raise RequestError(f"{run.id} has no whole checkpoint: {'; '.join(damaged.values())}")
    for path in damaged:
        path.replace(run.checkpoints / "damaged.pt")
    return None if found is None else Newest(found, list(damaged.values()))


def named(run: RunDirectory, name: str) -> Path:
    """The file of ``last``, ``best`` or ``epoch-N``; raises RequestError naming those there are."""
    path = run.checkpoints / f"{name}.pt"
    there = sorted(_names(run))
    if name not in there:
        raise RequestError(f"{run.id} has no checkpoint {name!r}; there is {', '.join(there) or 'none yet'}")
    return path


def _names(run: RunDirectory) -> Iterator[str]:
    return (path.stem for path in run.checkpoints.glob("[!.]*.pt") if path.stem != "damaged")
