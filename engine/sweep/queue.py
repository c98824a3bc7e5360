"""The queue of a runs folder: which run directories it is to start, in what order, and how each of them stands.

The directories are the truth: `queue.json` in a run says what a person asked for, its snapshot and its lock say how it
stands, and `RUNS/.queue` has the limits of groups and what is paused. Whoever starts what waits (`engine.sweep.
dispatcher`) keeps nothing that it could not read again.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import disk
from engine.disk import read_json, replace_json
from engine.experiment.mistakes import RequestError
from engine.experiment.names import is_name
from engine.runs import evaluations, store
from engine.runs.layout import EVALUATION, RunDirectory
from engine.runs.mounts import mount_of
from engine.runs.process import Lock
from engine.runs.state import State, read_state
from engine.runs.watcher import Look, Watcher
from engine.sweep import desk

if TYPE_CHECKING:
    from engine.experiment import Experiment

MOST_STARTS = 3  # of a run that is lost each time where it was the time before
MOST_ALIKE = 3  # failures of one kind, after which a group is paused
_KEPT_STARTS = 200

Standing = Literal["ready", "live", "done", "over"]
Watch = Callable[[RunDirectory], Look]  # looks at a job
_RANKS: dict[Standing, int] = {"live": 0, "ready": 1, "over": 2, "done": 3}


@dataclass(frozen=True)
class Entry:
    """What was asked for one run, and what its engine needs. ``position`` orders those of one priority, lowest first;
    ``after``: ids of runs that must have finished training; ``data``: HAH_DATA of who queued it, where ``dataset`` is;
    ``updated``: of the job's snapshot when it was queued."""

    group: str = desk.DEFAULT
    priority: int = 0
    position: float = 0.0
    after: tuple[str, ...] = ()
    retries: int = 0
    niceness: int = 0
    queued: float = 0.0
    device: str = "auto"
    gpus: int = 1
    threads: int | None = None  # of each process
    evaluators: int = 1
    evaluates: bool = False
    data: str = ""
    dataset: str = ""
    commit: str = ""
    updated: float = 0.0

    @classmethod
    def of(cls, experiment: Experiment, **asked: Any) -> Entry:
        """The entry of a run of an experiment, at the end of the queue."""
        now, compute = time.time(), experiment.compute
        return cls(
            queued=now, position=now, device=compute.device, gpus=compute.num_gpus, threads=compute.threads,
            evaluators=compute.evaluators, evaluates=bool(experiment.evaluate.suites),
            data=os.environ.get("HAH_DATA", ""), dataset=experiment.data.dataset, **asked,
        )  # fmt: skip

    def write(self, run: RunDirectory) -> None:
        replace_json(run.queue, {**asdict(self), "after": list(self.after)})


@dataclass(frozen=True)
class Start:
    """One start by the queue, of the request that was made at ``queued``. ``kind`` of job, and how much of it was
    ``done``; ``before``: its status then, with its ``error``, since ``ended``."""

    time: float = 0.0
    queued: float = 0.0
    kind: str = "training"
    done: int = 0
    before: str = ""
    error: str = ""
    ended: float = 0.0
    host: str = ""
    gpu: str = ""
    threads: int = 0


@dataclass(frozen=True)
class Item:
    """A run of the queue now. ``look`` is at the ``job`` that is to be done next: the run itself, then its evaluation;
    ``why`` says more of where it stands."""

    run: RunDirectory
    entry: Entry
    starts: tuple[Start, ...]
    job: RunDirectory
    look: Look
    standing: Standing
    why: str = ""

    @property
    def order(self) -> tuple[float, float, str]:
        return (-self.entry.priority, self.entry.position, self.run.id)

    @property
    def evaluates(self) -> bool:
        """Whether its evaluation is what is to be done next."""
        return self.job is not self.run or self.look.status == "finished"

    @property
    def status(self) -> str:
        """How it stands, in a word."""
        return "waiting" if self.standing == "ready" else self.look.status

    @property
    def failures(self) -> list[tuple[float, str]]:
        """(time, error) of every failure since it was queued."""
        found = [(start.ended, start.error) for start in self.starts[1:] if start.before == "failed"]
        if self.starts and self.look.status == "failed":
            found.append((self.look.state.updated, self.look.state.error))
        return found


def done(state: State) -> int:
    """How much of a job is done: steps of a training, pieces of an evaluation."""
    return state.step if state.kind == "training" else state.piece


def stuck(starts: Sequence[Start], state: State) -> int:
    """How many starts of this job there were since it last got further than ever before."""
    mine = [start.done for start in starts if start.kind == state.kind]
    if not mine or done(state) > max(mine):
        return 0
    return len(mine) - mine.index(max(mine))


def standing(entry: Entry, starts: Sequence[Start], look: Look, whole: bool) -> tuple[Standing, str]:
    """How a job stands for the queue, and why; ``whole``: nothing follows it when it has finished.

    What a person stopped is left alone; what a signal stopped, and what is lost, is gone on with, unless it was lost
    three times without getting further; what failed is tried again as often as was asked. What had ended when it was
    queued was queued to go on.
    """
    state = look.state
    if look.status == "finished":
        return ("done", "") if whole else ("ready", "its evaluation is to follow")
    if look.live and look.status != "queued":
        return "live", look.reason
    if look.status == "queued":
        return "ready", ""
    if not look.verified:
        return "live", look.reason
    untouched = not starts and state.updated == entry.updated
    if untouched and look.status in ("failed", "stopped"):
        return "ready", f"{look.status} before it was queued"
    if look.status == "failed":
        failed = len([start for start in starts[1:] if start.before == "failed"]) + 1
        if not starts or failed > entry.retries:
            return "over", f"failed: {state.error}"
        return "ready", f"failed, {failed} of {entry.retries + 1} tries"
    if look.status == "stopped" and state.stopped_by not in ("signal", "limit"):
        return "over", "stopped by a person"
    if (times := stuck(starts, state)) >= MOST_STARTS:
        return "over", f"{look.status} {times} times without getting further; {look.reason or 'see its engine.log'}"
    return "ready", f"{look.status}, goes on"


def normalized(error: str) -> str:
    """What failures of one kind have in common."""
    return re.sub(r"\d+", "#", error[:200])


class Queue:
    """Reads the queue of a folder, again and again; what has not changed is not read again. It is of the runs that are
    ``marked``, of which each is ``read`` with what looks at a job."""

    def __init__(
        self,
        folder: Path,
        marked: Callable[[RunDirectory], bool] | None = None,
        read: Callable[[RunDirectory, Watch], Item] | None = None,
    ) -> None:
        self.folder = folder
        self._marked, self._read = marked or is_queued, read or item_of
        self._stamp: tuple[int, int] | None = None
        self._runs: list[RunDirectory] = []
        self._far = mount_of(folder).locks != "disk"  # other hosts may write, too
        self._watchers: dict[RunDirectory, Watcher] = {}  # of what is at work: a second look may know more
        self._quiet: dict[str, tuple[tuple[int, ...], Item]] = {}  # waiting or ended, by id, with what it was read from

    def items(self) -> list[Item]:
        """Every run that is the queue's, in order."""
        stamp = desk.changed_stamp(self.folder)
        if stamp != self._stamp:
            self._runs = [run for run in store.all_runs(self.folder) if self._marked(run)]
            self._stamp = stamp
        found, quiet, known_watchers = [], {}, self._watchers
        self._watchers = {}

        def look(job: RunDirectory) -> Look:
            watcher = self._watchers[job] = known_watchers.get(job) or Watcher(job)
            return watcher.look()

        for run in self._runs:
            if not self._marked(run):
                continue
            stamps = stamps_of(run, self._far)
            known = self._quiet.get(run.id)
            item = known[1] if known is not None and known[0] == stamps else self._read(run, look)
            found.append(item)
            if item.standing in ("done", "over") or item.look.status == "queued":
                quiet[run.id] = (stamps, item)
                self._watchers.pop(run, None)
        self._quiet = quiet
        return sorted(found, key=lambda item: item.order)


def stamps_of(run: RunDirectory, fresh: bool = False) -> tuple[int, ...]:
    """What changes when anything is written of how a run stands; ``fresh``: as `disk.status` means it."""
    found: list[int] = []
    job = f"results/{run.id}{EVALUATION}"
    # Thousands of them: a Path for each costs more than what is asked.
    for name in ("queue.json", "slurm.json", "state.json", f"{job}/slurm.json", f"{job}/state.json"):
        status = disk.status(f"{run.path}/{name}", fresh)
        found += [status.st_mtime_ns, status.st_ino] if status is not None else [0, 0]
    return tuple(found)


def is_queued(run: RunDirectory) -> bool:
    """Whether a run is this queue's."""
    return os.path.exists(f"{run.path}/queue.json")  # noqa: PTH110 (thousands of them)


def entry_of(run: RunDirectory) -> Entry | None:
    """What was asked for a run, with the default for what cannot be; None where it is not the queue's."""
    stored = read_json(run.queue)
    if not stored:
        return None
    entry: Entry = desk.parsed(Entry, stored)
    return replace(
        entry,
        group=entry.group if is_name(entry.group) else desk.DEFAULT,
        device=entry.device if re.fullmatch(r"auto|cpu|cuda|cuda:\d{1,3}", entry.device) else "auto",
        data="" if "\0" in entry.data else entry.data,
        niceness=min(max(entry.niceness, 0), 19),
    )


def starts_of(run: RunDirectory, entry: Entry) -> tuple[Start, ...]:
    """The starts of a run since it was queued (the last time)."""
    stored = read_json(run.starts).get("starts")
    found = [desk.parsed(Start, one) for one in stored if isinstance(one, dict)] if isinstance(stored, list) else []
    return tuple(start for start in found if start.queued == entry.queued)


def add_start(run: RunDirectory, start: Start) -> None:
    """Note a start, before it happens."""
    stored = read_json(run.starts).get("starts")
    kept = stored[-_KEPT_STARTS:] if isinstance(stored, list) else []
    replace_json(run.starts, {"starts": [*kept, asdict(start)]})


def item_of(run: RunDirectory, watch: Callable[[RunDirectory], Look] = store.look, entry: Entry | None = None) -> Item:
    """How one run of the queue stands, or of whoever else asks that of it what ``entry`` says; ``watch`` looks at a
    job."""
    entry = entry or entry_of(run) or Entry()
    starts, job, look = starts_of(run, entry), run, watch(run)
    follows = run.evaluation
    evaluated = follows.config.exists()
    if look.status == "finished" and evaluated and (entry.evaluates or watch(follows).live):
        job, look = follows, watch(follows)
    found, why = standing(entry, starts, look, job is not run or not entry.evaluates)
    return Item(run, entry, starts, job, look, found, why)


def take(item: Item) -> tuple[Lock | None, State]:
    """The right to do the job of a run, with its snapshot under that lock; no lock where it has moved on."""
    if item.job is item.run and item.look.status == "finished":  # killed before it could describe its evaluation
        experiment = store.experiment_of(item.run, item.look.state)
        lock = evaluations.take(item.run)
        try:
            return lock, evaluations.prepare(item.run, experiment, "last")
        except BaseException:
            lock.release()
            raise
    taken = Lock.take(item.job.lock)
    if taken is None:
        return None, item.look.state
    state = read_state(item.job)
    if (state.status, state.updated) != (item.look.state.status, item.look.state.updated):
        taken.release()
        return None, state
    return taken, state


# What people ask


def put(run: RunDirectory, entry: Entry) -> None:
    """Make a run the queue's, or change what was asked of it; raises RequestError."""
    run.check()
    try:
        entry.write(run)
        desk.touch(run.path.parent)
    except OSError as error:
        raise RequestError(f"{run.queue} cannot be written: {error.strerror}") from None


def requeue(run: RunDirectory, entry: Entry) -> None:
    """Let the queue go on with a run from the beginning of its tries; raises RequestError."""
    put(run, replace(entry, queued=time.time(), updated=item_of(run).look.state.updated))


def evaluate(run: RunDirectory, experiment: Experiment, entry: Entry, checkpoint: str = "last") -> None:
    """Queue the evaluation of a run that has finished; raises RequestError."""
    desk.check_host(run.path.parent)
    look = store.look(run)
    if look.status != "finished":
        raise RequestError(f"{run.id} is {look.status}; only of a run that has finished can an evaluation be queued")
    lock = evaluations.take(run)
    try:
        replace(evaluations.prepare(run, experiment, checkpoint), status="queued").write(run.evaluation)
    finally:
        lock.release()
    put(run, replace(entry, evaluates=True))


def leave(run: RunDirectory) -> None:
    """Take a run out of the queue; what waits of it is *stopped* by a person from then on, what runs goes on.

    Raises RequestError.
    """
    run.check()
    try:
        for job in (run, run.evaluation):
            if job.state.exists():
                withdraw(job)
        run.queue.unlink(missing_ok=True)
        desk.touch(run.path.parent)
    except OSError as error:
        raise RequestError(f"{run.path} cannot be written: {error.strerror}") from None


def withdraw(run: RunDirectory) -> bool:
    """What is *queued* and has no engine is stopped by a person from now on; whether it was."""
    lock = Lock.take(run.lock)
    if lock is None:
        return False
    try:
        state = read_state(run)
        if state.status != "queued":
            return False
        replace(state, status="stopped", stopped_by="person", updated=time.time()).write(run)
        return True
    finally:
        lock.release()


def move(folder: Path, run: RunDirectory, first: bool = False, before: RunDirectory | None = None) -> None:
    """Put a waiting run first or last of its priority, or before another; raises RequestError."""
    waiting = [item for item in Queue(folder).items() if item.standing == "ready"]
    mine = next((item for item in waiting if item.run.id == run.id), None)
    if mine is None:
        raise RequestError(f"{run.id} does not wait in the queue")
    others = [item for item in waiting if item.run.id != run.id]
    entry = mine.entry
    if before is not None:
        at = next((index for index, item in enumerate(others) if item.run.id == before.id), None)
        if at is None:
            raise RequestError(f"{before.id} does not wait in the queue")
        below = others[at].entry
        above = others[at - 1].entry if at and others[at - 1].entry.priority == below.priority else None
        position = (above.position + below.position) / 2 if above else below.position - 1.0
        entry = replace(entry, priority=below.priority, position=position)
        if above is not None and not above.position < position < below.position:  # no number is left between them
            alike = [item for item in others if item.entry.priority == below.priority]
            for number, item in enumerate(alike):
                put(item.run, replace(item.entry, position=2.0 * number))
            entry = replace(entry, position=2.0 * [item.run.id for item in alike].index(before.id) - 1.0)
    elif others:
        ends = [item.entry.position for item in others if item.entry.priority == entry.priority] or [entry.position]
        entry = replace(entry, position=min(ends) - 1.0 if first else max(ends) + 1.0)
    put(run, entry)


def prioritize(folder: Path, group: str, priority: int) -> int:
    """Give every run of a group that waits or runs a priority; returns how many there are. Raises RequestError."""
    mine = [item for item in at_work(folder) if item.entry.group == group]
    for item in mine:
        put(item.run, replace(item.entry, priority=priority))
    return len(mine)


def at_work(folder: Path) -> list[Item]:
    """What runs and what waits, in order."""
    return [item for item in Queue(folder).items() if item.standing in ("live", "ready")]


@dataclass(frozen=True)
class Dependence:
    """What a run waits for before it may start; ``hopeless``: until somebody does something about it."""

    why: str
    hopeless: bool


def dependences(items: Iterable[Item]) -> dict[str, Dependence]:
    """By id, what holds back the runs that wait for others."""
    by_id = {item.run.id: item for item in items}
    found = {}
    for item in by_id.values():
        for name in item.entry.after if item.standing == "ready" else ():
            run, other = RunDirectory(item.run.path.with_name(name)), by_id.get(name)
            status = store.look(run).status if is_name(name) and run.config.exists() else ""
            if status == "finished":
                continue
            said = "is gone" if not status else f"has {status}" if status in ("failed", "stopped") else f"is {status}"
            ended = status in ("", "failed", "stopped", "lost") and (other is None or other.standing != "ready")
            found[item.run.id] = Dependence(f"after {name}, which {said}", ended)
            break
    return found


def check_after(run: RunDirectory, after: Iterable[str]) -> None:
    """Refuse that a run waits for itself, by whatever way; raises RequestError."""
    waiting, seen = list(after), set[str]()
    while waiting:
        name = waiting.pop()
        if name == run.id:
            raise RequestError(f"--after: {run.id} would wait for itself")
        if name not in seen:
            seen.add(name)
            entry = entry_of(RunDirectory(run.path.with_name(name)))
            waiting += entry.after if entry is not None else ()


def explained(folder: Path, items: Sequence[Item], others: Sequence[tuple[Item, str]] = ()) -> list[tuple[Item, str]]:
    """Each run with why it is where it is: what runs first, then what waits in order, then what has ended; of each,
    what Slurm has (as `told`) comes last."""
    known, held, everything = desk.groups(folder), dependences(items), desk.paused(folder)
    said = desk.waits(folder)
    running = Counter(item.entry.group for item in items if item.standing == "live")
    found: list[tuple[Item, str]] = []
    for item in items:
        why, group = item.why, known.get(item.entry.group, desk.Group())
        if item.standing == "ready":
            reasons = [held[item.run.id].why] if item.run.id in held else []
            reasons += ["the queue is paused"] if everything else []
            reasons += [f"group {group.name} is paused"] if group.paused else []
            full = group.limit is not None and running[item.entry.group] >= group.limit
            reasons += [f"{group.limit} of its group at once"] if full and not reasons else []
            why = "; ".join([*filter(None, [why]), *(reasons or [said.get(item.run.id, "for a device")])])
        found.append((item, why))
    return sorted([*found, *others], key=lambda one: _RANKS[one[0].standing])


def forget(folder: Path, name: str) -> None:
    """Remove the settings of a group that no run names any more."""
    if is_name(name) and name not in {item.entry.group for item in Queue(folder).items()}:
        (desk.made(folder) / "groups" / f"{name}.json").unlink(missing_ok=True)
