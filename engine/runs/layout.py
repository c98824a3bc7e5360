"""The run directory: where everything of one run lies, and how files in it are replaced."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from engine.experiment.mistakes import RequestError

LAYOUT_VERSION = 1
EVALUATION = "-evaluation"  # follows the run's id in the id of the job that evaluates it
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what is easily misread


def runs_folder(chosen: Path | None = None) -> Path:
    """Where runs live: ``chosen`` (--runs-dir), else HAH_RUNS, else the platform's data folder."""
    if chosen is not None:
        return chosen.absolute()
    named = os.environ.get("HAH_RUNS")
    return Path(named).absolute() if named else platformdirs.user_data_path("hah-tui") / "runs"


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
    def evaluates(self) -> bool:
        """Whether this is the job that evaluates a run."""
        return self.path.parent.name == "results" and self.id.endswith(EVALUATION)

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
    def heartbeat(self) -> Path:
        """The engine's monotonic clock at its last sign of progress, and how long it may take to the next."""
        return self.path / "heartbeat"

    def check(self) -> None:
        """Refuse a run directory that is or contains a symbolic link: nothing is written through one."""
        for entry in (self.path, *sorted(self.path.iterdir())):
            if entry.is_symlink():
                raise RequestError(f"{entry} is a symbolic link; a run directory must not lead elsewhere")


def create(folder: Path, name: str, config: str) -> RunDirectory:
    """Make RUNS/<id>/ with its config.yaml, under an id nobody has: the run's name and four letters or digits.

    Raises RequestError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            run = RunDirectory(folder / f"{name}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}")
            try:
                run.path.mkdir()
                break
            except FileExistsError:
                continue
        for part in (run.control, run.checkpoints, run.results, run.tensorboard):
            part.mkdir()
        replace_text(run.config, config)
    except OSError as error:
        raise RequestError(f"{folder}: a run cannot be made there: {error.strerror}") from None
    return run


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write ``path`` whole or not at all: a temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write text to ``path`` whole or not at all, and durably."""
    with replacing(path) as file:
        file.write(text.encode())


def replace_json(path: Path, document: Mapping[str, Any], durable: bool = True) -> None:
    """Write a JSON document to ``path`` whole or not at all; ``durable``: also on the disk before this returns."""
    text = json.dumps(document, allow_nan=False)
    if durable:
        replace_text(path, text)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path, limit: int = 4 << 20) -> dict[str, Any]:
    """The JSON object in ``path``; an empty one where there is none or it cannot be read as one."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return {}
            document = json.loads(file.read(limit))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename itself has happened
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove the temporary files that killed writers left in ``folder``; returns how many there were."""
    found = [path for path in folder.glob(".*.tmp") if not path.is_dir()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
