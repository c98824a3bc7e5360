"""A new run of an experiment: its directory with everything in it that is there before its engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs import layout, manifest
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock
from engine.runs.state import State, Status

if TYPE_CHECKING:
    from engine.experiment import Experiment


@dataclass(frozen=True)
class Origin:
    """Where an experiment comes from: a preset, its file, and the `--set` arguments laid over it."""

    preset: str
    path: Path | str = ""
    sets: Sequence[str] = ()


def make(
    experiment: Experiment,
    origin: Origin,
    folder: Path,
    status: Status = "starting",
    add: Callable[[RunDirectory], object] = lambda made: None,
) -> tuple[RunDirectory, State, Lock]:
    """Make a run; returns it, its snapshot and its lock, which is held. Raises RequestError.

    ``add`` may put more into the directory before it appears.
    """
    from engine.experiment import presets
    from engine.experiment.fingerprint import fingerprint

    state = State(
        name=experiment.name,
        preset=origin.preset,
        tags=list(experiment.tags),
        group=fingerprint(experiment, seed=False),
        seed=experiment.seed,
        status=status,
        created=time.time(),
        epochs=experiment.train.epochs,
    )
    facts = {
        "kind": state.kind,
        "name": experiment.name,
        "preset": origin.preset,
        "preset_path": str(origin.path),
        "sets": list(origin.sets),
        "command": sys.argv,
        "created": state.created,
        **_machine(),
    }
    with layout.creating(folder, experiment.name) as (run, made):
        disk.replace_text(made.config, presets.dumped(experiment))
        disk.replace_json(made.manifest, {"id": run.id, **facts})
        state.write(made)
        add(made)
        lock = Lock.take(made.lock)
        if lock is None:
            raise RequestError(f"{run.id} has been taken up by another process while it was made")
    return run, state, lock


@cache
def _machine() -> dict[str, Any]:
    return manifest.machine()
