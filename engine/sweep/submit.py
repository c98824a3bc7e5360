"""Put experiments and sweeps into the queue: what is new is made, what is there already is taken as it is or gone on
with, and what has finished is measured where that was not done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.experiment.mistakes import RequestError
from engine.runs import making, manifest
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.sweep import queue, sweeps
from engine.sweep.queue import Entry
from engine.sweep.sweeps import Sweep, Trial

if TYPE_CHECKING:
    from engine.experiment import Experiment

Act = str  # what is done with a trial: make, go on, evaluate, nothing


@dataclass(frozen=True)
class Asked:
    """What is asked of the queue for runs, as a person says it."""

    group: str = queue.DEFAULT
    priority: int = 0
    after: tuple[str, ...] = ()
    retries: int = 0
    niceness: int = 0

    def entry(self, experiment: Experiment) -> Entry:
        return Entry.of(
            experiment, group=self.group, priority=self.priority, after=self.after, retries=self.retries,
            niceness=self.niceness, commit=commit(),
        )  # fmt: skip


@cache
def commit() -> str:
    """The commit of the checkout that queues, '-dirty' behind it where it was changed; '' for an installed wheel."""
    found = manifest.source()
    return f"{found['commit']}{'-dirty' if found['dirty'] else ''}" if found else ""


def add(experiment: Experiment, origin: Origin, folder: Path, asked: Asked) -> RunDirectory:
    """Make a run that waits in the queue; raises RequestError."""
    run, _, lock = making.make(experiment, origin, folder, asked.entry(experiment).write)
    lock.release()
    queue.touch(folder)
    return run


def again(run: RunDirectory, experiment: Experiment, asked: Asked) -> None:
    """Let the queue go on with a run that is there; raises RequestError."""
    old, new = queue.entry_of(run), asked.entry(experiment)
    queue.put(run, replace(new, position=old.position) if old is not None else new)


def act_for(trial: Trial, failed: bool) -> Act:
    """What is to be done for a trial: *make*, *go on*, *evaluate*, or nothing (''); ``failed``: also of what failed."""
    if trial.status in ("missing", "unevaluated"):
        return {"missing": "make", "unevaluated": "evaluate"}[trial.status]
    if trial.status in ("stopped", "lost") or (failed and trial.status == "failed"):
        return "go on"
    return ""


def submit(
    folder: Path,
    sweep: Sweep,
    asked: Asked,
    failed: bool = False,
    done: Callable[[], object] = lambda: None,
) -> dict[Act, int]:
    """Queue everything of a sweep that is not done and not under way; returns how many of each act.

    ``done`` is called after each. Raises RequestError.
    """
    counts: dict[Act, int] = {}
    # Seed by seed: the first tables are whole before the second begins.
    for trial in sorted(sweeps.trials(sweep, [folder]), key=lambda trial: sweep.seeds.index(trial.seed)):
        act = act_for(trial, failed)
        _do(folder, sweep, trial, act, asked)
        counts[act] = counts.get(act, 0) + 1
        done()
    return counts


def _do(folder: Path, sweep: Sweep, trial: Trial, act: Act, asked: Asked) -> None:
    if not act:
        return
    experiment = sweeps.experiment_of(sweep, trial.group, trial.seed)
    if trial.look is None:
        add(experiment, Origin(sweep.base, sweep.source, _sets(trial)), folder, asked)
    elif act == "evaluate":
        queue.evaluate(trial.look.run, experiment, asked.entry(experiment))
    else:
        again(trial.look.run, experiment, asked)


def _sets(trial: Trial) -> list[str]:
    return [f"{name}={value}" for name, value in trial.group.differs.items()]


def disk_bytes(experiment: Experiment) -> int:
    """What a run needs at most: the last and the previous checkpoint with the optimizer's state, the best and those
    that are kept, and its record."""
    states = 1 if experiment.train.optimizer == "sgd" else 2
    copies = 2 * (1 + states) + 1 + len(experiment.checkpoints.keep)
    return 4 * copies * experiment.parameters() + (2 << 20)


def stop(folder: Path, trials: Sequence[Trial]) -> tuple[int, list[RunDirectory]]:
    """Take what waits of a sweep out of the way; returns how many, and the runs that are at work and are to be asked.

    Raises RequestError.
    """
    waiting, live = 0, []
    for trial in trials:
        if trial.job is None or not trial.job.live:
            continue
        try:
            withdrawn = trial.job.status == "queued" and queue.withdraw(trial.job.run)
        except OSError as error:
            raise RequestError(f"{trial.job.run.path} cannot be written: {error.strerror}") from None
        if withdrawn:
            waiting += 1
        else:
            live.append(trial.job.run)
    queue.touch(folder)
    return waiting, live


def facts(trial: Trial) -> dict[str, Any]:
    """A trial as a program reads it."""
    look = trial.job
    return {
        "case": trial.group.case,
        "differs": dict(trial.group.differs),
        "label": trial.group.label,
        "seed": trial.seed,
        "status": trial.status,
        "run": trial.look.run.id if trial.look else None,
        "epoch": trial.look.state.epoch if trial.look else None,
        "epochs": trial.group.experiment["train"]["epochs"],
        "error": look.state.error if look and trial.status == "failed" else "",
        "metrics": dict(trial.look.state.metrics) if trial.look else {},
    }
