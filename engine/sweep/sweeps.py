"""Sweeps of a runs folder: the plans that were made, and which run is whose, by fingerprint and seed.

`RUNS/.sweeps/<name>/plan.json` holds what was resolved, every point with its experiment, so that neither a preset nor
a plan edited later changes what a sweep is. Runs belong to it whoever made them.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.experiment.names import is_name
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.state import State
from engine.runs.watcher import Look

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.sweep.plan import Plan

_LARGEST = 256 << 20
_PATIENCE = 120.0  # seconds for which somebody else may submit a sweep
_BEST = ("finished", "running", "starting", "paused", "stopping", "stalled", "queued", "stopped", "lost", "failed")


@dataclass(frozen=True)
class StoredPoint:
    """A case at a point of the axes, as stored; ``label`` tells it from the others of its sweep."""

    case: str
    differs: Mapping[str, Any]
    group: str
    label: str
    experiment: Mapping[str, Any]

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """What is to be measured of its runs."""
        return dict(self.experiment["evaluate"])

    @property
    def epochs(self) -> int:
        """For how many epochs its runs train."""
        return int(self.experiment["train"]["epochs"])


@dataclass(frozen=True)
class Sweep:
    """A stored plan: every point with every seed."""

    name: str
    description: str
    base: str
    points: tuple[StoredPoint, ...]
    seeds: tuple[int, ...]
    created: float = 0.0
    source: str = ""  # the file it was read from
    slots: Mapping[str, int] = field(default_factory=dict)  # limit, per_gpu, priority, retries, where the plan has them

    @property
    def trials(self) -> list[tuple[StoredPoint, int]]:
        return [(point, seed) for point in self.points for seed in self.seeds]


@dataclass(frozen=True)
class Trial:
    """A point with a seed, and the run that there is of it. ``status``: the run's, *missing* without one, and
    *unevaluated* for one that has finished and was not measured as the sweep asks; ``job``: whose status it is."""

    point: StoredPoint
    seed: int
    look: Look | None = None
    status: str = "missing"
    job: Look | None = None


def folder_of(folder: Path) -> Path:
    """Where the sweeps of a runs folder lie."""
    return folder / ".sweeps"


def of_plan(plan: Plan) -> Sweep:
    """A plan as it is stored."""
    points = tuple(
        StoredPoint(one.case, dict(one.differs), one.group, one.label, one.experiment.dump()) for one in plan.points
    )
    source = str(plan.path.absolute()) if plan.path is not None else ""
    slots = {name: value for name, value in vars(plan.slots).items() if value is not None}
    return Sweep(
        plan.name, plan.description, plan.base, points, tuple(dict.fromkeys(plan.seeds)), time.time(), source, slots
    )


def write(folder: Path, sweep: Sweep) -> None:
    """Keep a sweep in place of what there was of that name; raises RequestError."""
    path = folder_of(folder) / sweep.name / "plan.json"
    points = [
        {"case": one.case, "differs": one.differs, "group": one.group, "label": one.label, "experiment": one.experiment}
        for one in sweep.points
    ]
    document = {
        "name": sweep.name, "description": sweep.description, "base": sweep.base, "created": sweep.created,
        "source": sweep.source, "slots": dict(sweep.slots), "seeds": list(sweep.seeds), "points": points,
    }  # fmt: skip
    try:
        place = made(folder)
        path.parent.mkdir(exist_ok=True)
        if path.parent.is_symlink():
            raise RequestError(f"{path.parent} is a symbolic link; nothing is written through one")
        disk.replace_json(path, document)
    except OSError as error:
        raise RequestError(f"{place} cannot be written: {error.strerror}") from None


def made(folder: Path) -> Path:
    """Where the sweeps lie, made; raises RequestError where it cannot be, or is a link."""
    place = folder_of(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{place} cannot be made: {error.strerror}") from None
    if place.is_symlink():
        raise RequestError(f"{place} is a symbolic link; nothing is written through one")
    return place


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else submits sweeps of a folder meanwhile; raises RequestError where somebody does for too long."""
    lock = Lock.take(made(folder) / "lock", patience=_PATIENCE)
    if lock is None:
        raise RequestError(f"another sweep of {folder} has been submitted for {_PATIENCE:.0f} s; try again")
    try:
        yield
    finally:
        lock.release()


def read(folder: Path, name: str) -> Sweep:
    """The sweep of a name; raises RequestError where it cannot be read."""
    path = folder_of(folder) / name / "plan.json"
    try:
        stored = disk.parse_json(disk.read_bytes(path, _LARGEST))
        points = tuple(
            StoredPoint(
                str(one["case"]), dict(one["differs"]), str(one["group"]), str(one["label"]), dict(one["experiment"])
            )
            for one in stored["points"]
        )
        seeds = tuple(dict.fromkeys(int(seed) for seed in stored["seeds"]))
        if not points or not seeds:
            raise ValueError("it has no runs")
        for point in points:
            if point.epochs < 0 or not isinstance(point.evaluation["suites"], list):
                raise ValueError("an experiment in it is none")
        facts = [str(stored.get(entry, "")) for entry in ("description", "base", "source")]
        slots = {str(part): int(value) for part, value in dict(stored.get("slots") or {}).items()}
        return Sweep(name, facts[0], facts[1], points, seeds, float(stored.get("created", 0.0)), facts[2], slots)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is no plan of a sweep: {error}; 'hah sweep run' writes it again") from None


def names(folder: Path) -> list[str]:
    """The sweeps of a runs folder, the latest first."""
    place = folder_of(folder)
    found = []
    for path in place.glob("*/plan.json") if place.is_dir() else []:
        if is_name(path.parent.name) and not path.parent.is_symlink():
            found.append((path.stat().st_mtime, path.parent.name))
    return [name for _, name in sorted(found, reverse=True)]


def resolve(reference: str, folder: Path) -> Sweep:
    """The sweep of a name, a unique beginning of one or @last; raises RequestError."""
    known = names(folder)
    if reference == "@last" and known:
        return read(folder, known[0])
    if reference in known:
        return read(folder, reference)
    begun = [name for name in known if name.startswith(reference)] if reference else []
    if len(begun) == 1:
        return read(folder, begun[0])
    if begun:
        raise RequestError(f"{reference!r} begins the names of {len(begun)} sweeps: {', '.join(begun[:5])}")
    close = difflib.get_close_matches(reference, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "'hah sweep ls' lists them"
    raise RequestError(f"no sweep is called {reference!r} in {folder}; {hint}")


def remove(folder: Path, name: str) -> None:
    """Forget a plan, also one that cannot be read; its runs stay. Raises RequestError."""
    path = made(folder) / name
    if path.is_symlink():
        raise RequestError(f"{path} is a symbolic link; nothing is deleted through one")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise RequestError(f"{path} cannot be deleted: {error.strerror}") from None


# Whose runs are whose


def runs_by_trial(folders: Iterable[Path], sweep: Sweep) -> dict[tuple[str, int], list[Look]]:
    """Looks at the runs of folders by group and seed, the newest first, but for those that equal no experiment."""
    found: dict[tuple[str, int], list[Look]] = {}
    ours = {point.group for point in sweep.points}
    for look in store.looks(store.runs_of(list(folders))):
        # What is stored as one of the sweep's is one; whether any other is of today's schema takes the schema to tell.
        same = look.state.group in ours and not store.changed_on_the_way(look.state)
        group = look.state.group if same else store.group_of(look.run, look.state)
        seed = seed_of(look.run, look.state)
        if group and seed is not None:
            found.setdefault((group, seed), []).append(look)
    return found


def seed_of(run: RunDirectory, state: State) -> int | None:
    """The seed of a run, also of before it was in its snapshot."""
    if state.seed is not None:
        return state.seed
    try:
        written = re.search(r"^seed: (\d{1,18})$", disk.read_text(run.config), re.MULTILINE)
    except OSError:
        return None
    return int(written[1]) if written else None


def trials(sweep: Sweep, folders: Sequence[Path]) -> list[Trial]:
    """Every trial of a sweep with its run; of several, the one that is furthest, then the newest."""
    known = runs_by_trial(folders, sweep)
    found = []
    for point, seed in sweep.trials:
        looks = known.get((point.group, seed), [])
        if not looks:
            found.append(Trial(point, seed))
            continue
        best = min(looks, key=lambda look: _BEST.index(look.status) if look.status in _BEST else len(_BEST))
        found.append(_trial(point, seed, best))
    return found


def _trial(point: StoredPoint, seed: int, look: Look) -> Trial:
    wanted, job = point.evaluation, look.run.evaluation
    if look.status != "finished" or not wanted["suites"]:
        return Trial(point, seed, look, look.status, look)
    if not job.config.exists():
        return Trial(point, seed, look, "unevaluated", look)
    evaluation = store.look(job)
    if not (evaluation.live or is_locked(job.lock)) and not _asks(job.config, wanted):
        return Trial(point, seed, look, "unevaluated", look)
    return Trial(point, seed, look, evaluation.status, evaluation)


def _asks(config: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether an evaluation is of what is wanted: the same images, and the same settings of every suite."""
    try:
        stored = json.loads(_evaluation_of(config, config.stat().st_mtime_ns))
    except (OSError, RequestError):
        return False
    suites = wanted.get("suites") or []
    same = all(stored.get(name) == wanted.get(name) for name in ("images", *suites))
    return same and set(suites) <= set(stored.get("suites") or [])


@lru_cache(maxsize=20_000)
def _evaluation_of(config: Path, _stamp: int) -> str:
    from engine.experiment import presets
    from engine.experiment.document import read as read_document

    return json.dumps(presets.validated(read_document(config)).dump()["evaluate"])


def experiment_of(sweep: Sweep, point: StoredPoint, seed: int) -> Experiment:
    """The experiment of a trial, from what was stored; raises RequestError."""
    from engine.experiment import presets
    from engine.sweep.plan import run_name

    several = len(sweep.seeds) > 1
    name = run_name(sweep.name, point.case, point.differs, seed if several else None)
    return presets.parse({**point.experiment, "seed": seed, "name": name, "tags": [sweep.name]})


def others_with(folder: Path, sweep: Sweep) -> set[tuple[str, int]]:
    """The trials of every other sweep of a folder; raises RequestError where one cannot be read."""
    found = set[tuple[str, int]]()
    for name in names(folder):
        if name != sweep.name:
            found |= {(point.group, seed) for point, seed in read(folder, name).trials}
    return found


def extended(sweep: Sweep, count: int) -> Sweep:
    """The same with so many seeds in all: those there are, and those that follow; raises RequestError."""
    from engine.sweep import plan

    seeds = list(sweep.seeds)
    while len(seeds) < count:
        seeds.append(max(seeds) + 1)
    plan.check_seeds(seeds, len(sweep.points))
    return replace(sweep, seeds=tuple(seeds))
