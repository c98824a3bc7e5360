"""Sweeps of a runs folder: the plans that were made, and which run is whose, by fingerprint and seed.

`RUNS/.sweeps/<name>/plan.json` holds what was resolved, every point with its experiment, so that neither a preset nor
a plan edited later changes what a sweep is. Runs belong to it whoever made them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.experiment.names import is_name
from engine.runs import store, submitted
from engine.runs.layout import EVALUATION, RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.state import ENDED, State
from engine.runs.submitted import AskSlurm
from engine.runs.watcher import Look

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.sweep.plan import Plan

Where = Literal["local", "slurm"]  # where runs are worked on
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
    on: Where = "local"
    profile: str | None = None  # of the Slurm site, where it has a name

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

    @property
    def taken(self) -> bool:
        """Whether Slurm has it, or may have, as far as it was asked."""
        return self.job is not None and self.job.taken

    @property
    def abandoned(self) -> bool:
        """Whether it waits for a job of Slurm that is gone."""
        return self.job is not None and self.job.abandoned


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
        "source": sweep.source, "slots": dict(sweep.slots), "seeds": list(sweep.seeds), "on": sweep.on,
        "profile": sweep.profile, "points": points,
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
        on: Where = "slurm" if stored.get("on") == "slurm" else "local"
        profile = stored.get("profile") if is_name(str(stored.get("profile"))) else None
        created = float(stored.get("created", 0.0))
        return Sweep(name, facts[0], facts[1], points, seeds, created, facts[2], slots, on, profile)
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


class Reader:
    """Finds the runs of sweeps in folders, again and again; of what has not changed only the dates are looked at."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._listed: tuple[int, ...] = ()  # dates of the folders as they were listed
        self._looks: dict[RunDirectory, tuple[tuple[int, ...], Look]] = {}  # with the dates of what was read, or ()
        self._index: tuple[Sweep, dict[tuple[str, int], list[RunDirectory]]] | None = None
        self._trials: dict[tuple[str, int], tuple[list[tuple[int, ...]], Trial]] = {}

    def looks(self, sweep: Sweep) -> dict[tuple[str, int], list[Look]]:
        """Looks at the runs of a sweep by group and seed, the newest first, but for those that equal no experiment."""
        return {
            key: looks
            for key, runs in self._runs(sweep).items()
            if (looks := [look for run in runs for _, look in self._look(run)])
        }

    def trials(self, sweep: Sweep) -> list[Trial]:
        """Every trial of a sweep with its run; of several, the one that is furthest, then the newest. A trial of which
        nothing has changed is the same object as the last time."""
        runs, known, self._trials = self._runs(sweep), self._trials, {}
        found = []
        for point, seed in sweep.trials:
            key = (point.group, seed)
            looked = [pair for run in runs.get(key, ()) for pair in self._look(run)]
            stamps = [stamp for stamp, _ in looked]
            before = known.get(key)
            if before is not None and before[0] == stamps and all(stamps) and before[1].point is point:
                trial = before[1]
            else:
                trial = _trial(point, seed, [look for _, look in looked])
                if before is not None and trial == before[1]:
                    trial = before[1]
            job = trial.job
            if job is not None and ((job.live and job.status != "queued") or not job.verified):
                stamps = [()]  # an engine is at work: it is looked at every time
            self._trials[key] = stamps, trial
            found.append(trial)
        return found

    def _runs(self, sweep: Sweep) -> dict[tuple[str, int], list[RunDirectory]]:
        listed = tuple(_date(folder) for folder in self._folders)
        if listed != self._listed:
            there = store.runs_of(self._folders)
            self._looks = {run: self._looks[run] for run in there if run in self._looks}
            for run in there:
                self._look(run)
            # A date says nothing of what happens within its own grain.
            self._listed = listed if time.time_ns() - max(listed, default=0) > 10**9 else ()
            self._index = None
        if self._index is None or self._index[0] is not sweep:
            self._index = sweep, self._indexed(sweep)
        return self._index[1]

    def _indexed(self, sweep: Sweep) -> dict[tuple[str, int], list[RunDirectory]]:
        found: dict[tuple[str, int], list[RunDirectory]] = {}
        ours = {point.group for point in sweep.points}
        for run, (_, look) in self._looks.items():
            # What is stored as one of the sweep's is one; whether any other is of today's schema takes the schema.
            group = look.state.group if look.state.group in ours else store.group_of(run, look.state)
            if group in ours and (seed := seed_of(run, look.state)) is not None:
                found.setdefault((group, seed), []).append(run)
        return found

    def _look(self, run: RunDirectory) -> list[tuple[tuple[int, ...], Look]]:
        """A look at a run with what it stands on, () where that cannot be told from dates; [] for one that equals no
        experiment any more."""
        known, stamp = self._looks.get(run), _stamp_of(run)
        if known is None or not known[0] or known[0] != stamp:
            look = store.look(run)
            quiet = look.status in (*ENDED, "queued") or (look.status == "lost" and look.verified)
            known = self._looks[run] = (stamp if quiet else (), look)
        return [] if store.changed_on_the_way(known[1].state) else [known]


def told(trials: Sequence[Trial], now: AskSlurm | None = None) -> list[Trial]:
    """Trials with what Slurm knows of their jobs, asked once for all; ``now``: as `submitted.told` has it."""
    looks = iter(submitted.told([trial.job for trial in trials if trial.job is not None], now))
    return [trial if trial.job is None else replace(trial, job=next(looks)) for trial in trials]


def _date(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _stamp_of(run: RunDirectory) -> tuple[int, ...]:
    """What changes when anything is written of how a run and its evaluation stand."""
    found, job = [], f"{run.path}/results/{run.id}{EVALUATION}"
    for path in (f"{run.path}/state.json", f"{job}/state.json", f"{job}/config.yaml"):
        try:
            status = os.stat(path)  # noqa: PTH116 (a Path for each costs more than what is asked)
        except OSError:
            found += [0, 0]
        else:
            found += [status.st_mtime_ns, status.st_ino]
    return tuple(found)


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
    """Every trial of a sweep with its run, as `Reader.trials` finds them."""
    return Reader(folders).trials(sweep)


def _trial(point: StoredPoint, seed: int, looks: Sequence[Look]) -> Trial:
    if not looks:
        return Trial(point, seed)
    look = min(looks, key=lambda one: _BEST.index(one.status) if one.status in _BEST else len(_BEST))
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
