"""The runs folder as a list that is kept up to date in pieces: which runs there are, how they are, who fits a filter.

Nothing here knows a screen. One thread calls `Listing.update` again and again; each piece of it is short.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.results.means import Candidate
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.slurm import Job
from engine.runs.squeue import Answer
from engine.runs.store import Labels
from engine.runs.submitted import AskSlurm, job_for
from engine.runs.watcher import Look, Watcher
from hah_tui import run_facts
from hah_tui.run_facts import Configured

Wants = Literal["group", "settings", "results"]  # what is read of a run only where somebody wants it
FIRST = 100  # runs in the first piece: as many as a table has slots
PIECE = 100
SETTLING = 4  # updates after a change of the folder in which it is listed again: config.yaml follows mkdir
EVERY = 60  # updates after which it is listed anyway


@dataclass(frozen=True)
class ListedRun:
    """A run as the list shows it, with the job that evaluates it while it is at work; ``configured`` is None and
    ``results`` empty where nobody wanted them too."""

    look: Look
    labels: Labels
    configured: Configured | None = None
    results: Mapping[str, float] = field(default_factory=dict)
    evaluation: Look | None = None

    @cached_property
    def id(self) -> str:
        return self.look.run.id

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Those of the experiment and those a person put on it."""
        return tuple(dict.fromkeys([*self.look.state.tags, *self.labels.tags]))

    @cached_property
    def created(self) -> float:
        return self.look.state.created

    @property
    def seed(self) -> int | None:
        return self.look.state.seed if self.configured is None else self.configured.seed

    @property
    def candidate(self) -> Candidate:
        """It for a mean; of a seed the newest stands."""
        changed, group = store.changed_on_the_way(self.look.state), self.configured.group if self.configured else ""
        return Candidate(self.look.status, bool(changed), group, self.seed, (self.created,))

    def has(self, setting: str) -> bool:
        """Whether its experiment, as far as it is read, has a setting of this dotted name."""
        return self.configured is not None and setting in self.configured.shared.settings

    def setting(self, name: str) -> Any:
        """The value of a setting; None where there is none, or none was read."""
        return None if self.configured is None else self.configured.shared.settings.get(name)

    @cached_property
    def words(self) -> str:
        """What plain words of a filter are looked for in."""
        state = self.look.state
        return "\n".join((self.id, state.name, state.preset, state.device, self.labels.note, *self.tags)).lower()


class Listing:
    """The runs of a folder; ``version`` counts changes, ``problem`` says why the folder cannot be read ('' if it can).

    Runs with an engine and those on the screen are looked at in every update, the others in turn. ``wants`` is what is
    to be read of each beside its snapshot; whoever changes it gets that in the next update. ``slurm`` is asked, without
    being waited for, of those that Slurm may have.
    """

    def __init__(self, folder: Path, slurm: AskSlurm | None = None) -> None:
        self.folder, self._ask = folder, slurm
        self.rows: dict[str, ListedRun] = {}
        self.version = 0
        self.problem = ""
        self.wants: frozenset[Wants] = frozenset()
        self.has: frozenset[Wants] = frozenset()  # of what is wanted, of every run
        self._watchers: dict[str, Watcher] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._known: list[RunDirectory] = []
        self._folder_stamp: tuple[int, ...] | None = None
        self._unsettled: dict[str, None] = {}  # those that live, or may
        self._updates, self._settled, self._turn = 0, 0, 0
        self._jobs: dict[str, Job] = {}  # of those that Slurm may have
        self._answer = Answer()

    def update(self, visible: Collection[str] = ()) -> Iterator[None]:
        """One round, in short pieces; the caller shows what has come after each."""
        wants, behind = self.wants, not self.wants <= self.has
        yield from self._list()
        names = dict.fromkeys([*(name for name in visible if name in self.rows), *self._unsettled])
        turn = self._known if behind else self._known[self._turn : self._turn + PIECE]
        self._turn = self._turn + PIECE if self._turn + PIECE < len(self._known) else 0
        names.update(dict.fromkeys(run.id for run in turn))
        for index, name in enumerate(names, 1):
            self._look(RunDirectory(self.folder / name))
            if index % PIECE == 0:
                yield
        self._updates += 1
        self.has = wants
        self._ask_slurm()
        yield

    def _list(self) -> Iterator[None]:
        """Which runs there are, where that may have changed; new ones are looked at, the newest first."""
        try:
            status = self.folder.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_nlink)
            os.scandir(self.folder).close()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            if self._folder_stamp is not None or not missing:  # before the first run there is no folder
                self._problem(f"{self.folder} {'has disappeared' if missing else f'cannot be read: {error.strerror}'}")
            self._forget(self.rows)
            self._known = []
            return
        self._problem("")
        if not self._known:
            self._settled = self._updates + SETTLING
        if stamp != self._folder_stamp:
            self._folder_stamp, self._settled = stamp, self._updates + SETTLING
        elif self._updates > self._settled and self._updates % EVERY:
            return
        self._known = store.all_runs(self.folder)
        names = {run.id for run in self._known}
        self._forget(self.rows.keys() - names)
        new = [run for run in self._known if run.id not in self.rows]
        for index, run in enumerate(new, 1):
            self._look(run, hasty=index <= FIRST < len(new))
            if index == FIRST or index % PIECE == 0:
                yield

    def _look(self, run: RunDirectory, hasty: bool = False) -> None:
        """Bring a row up to date; ``hasty``: with no more than its snapshot, so that there is something to be seen."""
        known, wants = self.rows.get(run.id), frozenset[Wants]() if hasty else self.wants
        stamp = _stamp(run, wants)
        rests = known is not None and _settled(known.look) and known.evaluation is None
        if rests and stamp == self._stamps.get(run.id):
            return
        watcher = self._watchers.setdefault(run.id, Watcher(run))
        look = watcher.look()
        if self._ask is not None and (job := job_for(look)) is not None:
            self._jobs[run.id] = job
            look = replace(look, slurm=self._answer.of(job))
        else:
            self._jobs.pop(run.id, None)
        row = read(look, wants, known)
        if not hasty and not look.live and run.evaluation.state.exists():
            evaluation = store.look(run.evaluation)
            row = replace(row, evaluation=evaluation if evaluation.live else None)
        self._stamps[run.id] = stamp
        if row.evaluation is not None or (not _settled(row.look) and row.look.status != "lost"):
            self._unsettled[run.id] = None
        else:
            self._unsettled.pop(run.id, None)
        if row != known:
            self.rows[run.id] = row
            self.version += 1

    def _ask_slurm(self) -> None:
        """Bring the rows that Slurm may have up to date with what it says."""
        if self._ask is None or (answer := self._ask(self._jobs.values())) is self._answer:
            return
        self._answer = answer
        for name, job in self._jobs.items():
            row = self.rows[name]
            told = replace(row, look=replace(row.look, slurm=answer.of(job)))
            if told != row:
                self.rows[name] = told
                self.version += 1

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            del self.rows[name]
            self._watchers.pop(name, None)
            self._stamps.pop(name, None)
            self._unsettled.pop(name, None)
            self._jobs.pop(name, None)
            self.version += 1

    def _problem(self, text: str) -> None:
        if text != self.problem:
            self.problem = text
            self.version += 1


def read(look: Look, wants: Collection[Wants], known: ListedRun | None = None) -> ListedRun:
    """A run with what is wanted of it; what was ``known`` of its settings and has not changed is not read again."""
    configured = None if known is None else known.configured
    same = known is not None and known.look.state.changed == look.state.changed
    whole = "settings" in wants
    enough = configured is not None and same and (configured.shared.settings or not whole)
    if (whole or "group" in wants) and not enough:
        configured = None  # stays, where it cannot be read
        with suppress(OSError, ValueError, RequestError):
            configured = (run_facts.configured if whole else run_facts.in_group)(look.run, look.state)
    results = run_facts.evaluated(look.run) if "results" in wants else {}
    return ListedRun(look, store.labels(look.run), configured, results)


def _settled(look: Look) -> bool:
    """Whether its snapshot says all until that is replaced: nobody writes it, or it waits to be taken up."""
    return look.status == "queued" or (not look.live and look.verified and look.status != "lost")


def _stamp(run: RunDirectory, wants: Collection[Wants]) -> tuple[int, ...]:
    """What changes when state.json (also that of its evaluation), labels.json or slurm.json is replaced, a result is
    written, or more is wanted."""
    found = [len(wants)]
    more = (run.results,) if "results" in wants else ()
    for path in (run.state, run.labels, run.slurm, run.evaluation.state, *more):
        try:
            status = os.stat(path)  # noqa: PTH116 (5,000 of them)
            found += (status.st_mtime_ns, status.st_ino)
        except OSError:
            found += (0, 0)
    return tuple(found)


_LOSS = re.compile(rb'"train/loss": (-?\d[0-9.eE+-]*)')


def sampled_losses(path: Path, samples: int = 16, chunk: int = 4096) -> list[float]:
    """The training loss at ``samples`` places of an event log, however long that is; [] where there is none."""
    try:
        with disk.opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= samples * chunk:
                pieces = [file.read(samples * chunk)]
            else:
                pieces = [
                    os.pread(file.fileno(), chunk, index * (size - chunk) // (samples - 1)) for index in range(samples)
                ]
    except OSError:
        return []
    losses: list[float] = []
    for piece in pieces:
        found = _LOSS.findall(piece)
        for number in found if len(pieces) == 1 else found[:1]:
            with suppress(ValueError):
                losses.append(float(number))
    return [loss for loss in losses if math.isfinite(loss)]
