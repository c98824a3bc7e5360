"""The run directory: where everything of one run lies."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.disk import folder_of, replace_text, sync_folder
from engine.experiment.mistakes import RequestError

LAYOUT_VERSION = 1
EVALUATION = "-evaluation"  # follows the run's id in the id of the job that evaluates it
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what is easily misread


def runs_folder(chosen: Path | None = None) -> Path:
    """Where runs live: ``chosen`` (--runs-dir), else HAH_RUNS, else the platform's data folder."""
    if chosen is not None:
        return chosen.absolute()
    named = os.environ.get("HAH_RUNS")
    return Path(named).absolute() if named else folder_of("data") / "runs"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run; the directory's name is the run's id."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Command line, versions, host, device, data fingerprint: what a result depends on."""
        return self.path / "manifest.json"

    @property
    def events(self) -> Path:
        """The append-only record."""
        return self.path / "events.jsonl"

    @property
    def state(self) -> Path:
        """A small snapshot for lists."""
        return self.path / "state.json"

    @property
    def labels(self) -> Path:
        """Tags and the note a person put on the run; written by commands, never by the engine."""
        return self.path / "labels.json"

    @property
    def control(self) -> Path:
        """Commands to the engine."""
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """One JSON document for each evaluation."""
        return self.path / "results"

    @property
    def evaluation(self) -> RunDirectory:
        """The job that evaluates this run: a run directory of its own among the results."""
        return RunDirectory(self.results / f"{self.id}{EVALUATION}")

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """Standard output and error of the engine."""
        return self.path / "engine.log"

    @property
    def lock(self) -> Path:
        """Held by whoever runs this directory, for as long as it lives."""
        return self.path / "lock"

    @property
    def queue(self) -> Path:
        """What a person asked of the queue for this run; a run that has it is the queue's to start."""
        return self.path / "queue.json"

    @property
    def starts(self) -> Path:
        """Every start by the queue: when, on what, and how it stood before."""
        return self.path / "starts.json"

    @property
    def slurm(self) -> Path:
        """The job of a Slurm cluster that it was submitted as."""
        return self.path / "slurm.json"

    @property
    def heartbeat(self) -> Path:
        """The engine's monotonic clock at its last sign of progress, and how long it may take to the next."""
        return self.path / "heartbeat"

    @property
    def claims(self) -> Path:
        """The numbers of its engines: the last is the one that may write."""
        return self.path / "claims"

    def check(self) -> None:
        """Refuse a run directory that is or contains a symbolic link: nothing is written through one."""
        for entry in (self.path, *sorted(self.path.iterdir())):
            if entry.is_symlink():
                raise RequestError(f"{entry} is a symbolic link; a run directory must not lead elsewhere")


@contextmanager
def creating(folder: Path, name: str) -> Iterator[tuple[RunDirectory, RunDirectory]]:
    """Make a run whole or not at all, under an id nobody has: the run's name and four letters or digits.

    Yields the run and, in a place that no list shows, the directory to fill; when the block ends it is there at once.
    Raises RequestError where the folder cannot be written.
    """
    run = made = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while run is None or run.path.exists():
            run = RunDirectory(folder / f"{name}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}")
        made = RunDirectory(folder / f".{run.id}.new")
        made.path.mkdir()
        for part in (made.control, made.checkpoints, made.results, made.tensorboard):
            part.mkdir()
        yield run, made
        made.path.rename(run.path)
        sync_folder(folder)
    except OSError as error:
        raise RequestError(f"{folder}: a run cannot be made there: {error.strerror}") from None
    finally:
        if made is not None:
            shutil.rmtree(made.path, ignore_errors=True)


def create(folder: Path, name: str, config: str) -> RunDirectory:
    """Make RUNS/<id>/ with its config.yaml; raises RequestError where the folder cannot be written."""
    with creating(folder, name) as (run, made):
        replace_text(made.config, config)
    return run
