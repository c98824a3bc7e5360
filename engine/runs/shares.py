"""What further processes measure of an evaluation: each has a directory of its own in that of the job."""

from __future__ import annotations

import shutil
import time

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs.control import Inbox
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.state import State, read_state


def directory(whole: RunDirectory, number: int) -> RunDirectory:
    """Of process ``number`` of the evaluation ``whole``: like a run directory, with a status, a lock and an inbox."""
    return RunDirectory(whole.path / "shares" / f"{whole.id}-{number}")


def every(whole: RunDirectory) -> list[RunDirectory]:
    """Those there are, by number."""
    found = [RunDirectory(path) for path in (whole.path / "shares").glob(f"{whole.id}-*") if path.is_dir()]
    return sorted(found, key=lambda share: (len(share.id), share.id))


def take(whole: RunDirectory, number: int, processes: int, patience: float) -> tuple[RunDirectory, Lock]:
    """Describe what process ``number`` of ``processes`` is to do, and the right to do it; raises RequestError.

    ``patience``: seconds that a process of this number which is about to end has.
    """
    if not whole.config.exists() or disk.read_json(whole.manifest).get("kind") != "evaluation":
        raise RequestError(f"{whole.path} is no evaluation; one lies in a run's results, as RUN-evaluation")
    whole.check()
    share = directory(whole, number)
    try:
        share.path.mkdir(parents=True, exist_ok=True)
        share.check()
        share.control.mkdir(exist_ok=True)
        lock = Lock.take(share.lock, patience)
        if lock is None:
            raise RequestError(f"{share.id} is being run by process {read_state(share).engine.get('pid', '?')}")
        Inbox(share).clear()
        State(kind="share", name=read_state(whole).name, created=time.time()).write(share)
        disk.replace_json(share.manifest, {"kind": "share", "number": number, "processes": processes})
        disk.replace_text(share.config, disk.read_text(whole.config))
    except OSError as error:
        raise RequestError(f"{share.path} cannot be written: {error.strerror}") from None
    return share, lock


def clear(whole: RunDirectory) -> None:
    """Take away the directories of processes that are gone."""
    for share in every(whole):
        if not share.path.is_symlink() and not is_locked(share.lock):
            shutil.rmtree(share.path, ignore_errors=True)
