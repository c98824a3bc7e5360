"""Put experiments and sweeps into the queue: what is new is made, what is there already is taken as it is or gone on
with, and what has finished is measured where that was not done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.experiment.mistakes import Mistake, RequestError
from engine.runs import making, manifest, submitted
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.runs.process import is_locked
from engine.runs.slurm import job_of
from engine.sweep import desk, queue, sites, sweeps
from engine.sweep.queue import Entry
from engine.sweep.sweeps import Sweep, Trial

if TYPE_CHECKING:
    from engine.experiment import Experiment

Act = Literal["make", "go on", "evaluate", ""]  # what is done with a trial


@dataclass(frozen=True)
class Asked:
    """What is asked of the queue for runs, as a person says it."""

    group: str | None = None
    priority: int | None = None
    after: tuple[str, ...] | None = None
    retries: int | None = None
    niceness: int | None = None

    def entry(self, experiment: Experiment, known: Entry | None = None) -> Entry:
        """The entry of an experiment; of what is None, as it was ``known`` before, else the default."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        kept = {}
        if known is not None:
            kept = {name: getattr(known, name) for name in ("position", *vars(self))}
        return replace(Entry.of(experiment, commit=commit()), **{**kept, **given})


@cache
def commit() -> str:
    """The commit of the checkout that queues, '-dirty' behind it where it was changed; '' for an installed wheel."""
    found = manifest.source()
    return f"{found['commit']}{'-dirty' if found['dirty'] else ''}" if found else ""


def add(experiment: Experiment, origin: Origin, folder: Path, asked: Asked) -> RunDirectory:
    """Make a run that waits in the queue; raises RequestError."""
    desk.check_host(folder)
    desk.made(folder)
    run, _, lock = making.make(experiment, origin, folder, "queued", asked.entry(experiment).write)
    lock.release()
    return run


def again(run: RunDirectory, experiment: Experiment, asked: Asked) -> None:
    """Let the queue go on with a run that is there, or change what was asked for one that waits.

    Raises RequestError.
    """
    desk.check_host(run.path.parent)
    known = queue.entry_of(run)
    entry = asked.entry(experiment, known)
    queue.check_after(run, entry.after)
    submitted.check_free(run)
    run.slurm.unlink(missing_ok=True)
    if known is not None and queue.item_of(run).standing == "ready":
        queue.put(run, replace(entry, queued=known.queued, updated=known.updated))
    else:
        queue.requeue(run, entry)


def check_group(folder: Path, sweep: Sweep) -> None:
    """Refuse a sweep that is not there yet and would take over, by its name, a group of other runs; raises
    RequestError."""
    if sweep.name in sweeps.names(folder):
        return
    mine = {trial.look.run.id for trial in sweeps.trials(sweep, [folder]) if trial.look is not None}
    others = [item.run.id for item in queue.at_work(folder) if item.entry.group == sweep.name]
    others = [name for name in others if name not in mine]
    if others:
        raise RequestError(
            f"name: {sweep.name} is the group of {len(others)} runs in the queue that are none of this sweep, such as "
            f"{others[0]}; its limits are theirs until they have ended. Give the sweep another name"
        )


def act_for(trial: Trial, failed: bool, at_slurm: Container[str] | None = None) -> Act:
    """What is to be done for a trial: *make*, *go on*, *evaluate*, or nothing (''); ``failed``: also of what failed.

    ``at_slurm``: ids of the jobs that Slurm has now, None where only `sweeps.told` may have asked; where nobody has, it
    is believed to have what waits.
    """
    note = job_of(trial.job.run) if trial.job is not None else None
    if trial.job is not None and note is not None:
        known = trial.job.slurm is not None
        believed = trial.job.taken if known else trial.status == "queued"
        if note.id in at_slurm if at_slurm is not None else believed:
            return ""
    if trial.status == "missing":
        return "make"
    if trial.status == "unevaluated":
        return "evaluate"
    if trial.status in ("stopped", "lost") or (failed and trial.status == "failed"):
        return "go on"
    if trial.status == "queued" and trial.look is not None and queue.entry_of(trial.look.run) is None:
        return "go on"  # whoever made it was killed before it was asked for, or it was taken out half
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
    desk.check_host(folder)
    counts: dict[Act, int] = {}
    mistakes: list[Mistake] = []
    with sweeps.alone(folder):  # two that submit at once would make everything twice
        # Seed by seed: the first tables are whole before the second begins.
        trials = sorted(sweeps.trials(sweep, [folder]), key=lambda trial: sweep.seeds.index(trial.seed))
        for trial in sweeps.told(trials):
            act = act_for(trial, failed)
            try:
                _do(folder, sweep, trial, act, asked)
            except RequestError as error:
                mistakes += error.mistakes
            counts[act] = counts.get(act, 0) + 1
            done()
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))
    return counts


def go(
    folder: Path, sweep: Sweep, nice: int | None = None, failed: bool = False, done: Callable[[], object] = lambda: None
) -> dict[Act, int]:
    """Have worked on what of a sweep is not done and not under way, where the sweep runs: by the queue, in a group with
    the plan's limits, or by Slurm. Returns how many of each act; raises RequestError."""
    if sweep.on == "slurm":
        return hand_over(folder, sweep, failed, done)
    desk.check_host(folder)
    limit, per_gpu = sweep.slots.get("limit"), sweep.slots.get("per_gpu", 1)
    desk.set_group(folder, sweep.name, limit=limit, per_gpu=per_gpu, paused=False, reason="", since=time.time())
    asked = Asked(sweep.name, sweep.slots.get("priority", 0), None, sweep.slots.get("retries", 0), nice)
    try:
        return submit(folder, sweep, asked, failed, done)
    finally:  # what is queued already is started, whatever ended this
        desk.ensure_dispatcher(folder)


def hand_over(
    folder: Path, sweep: Sweep, failed: bool = False, done: Callable[[], object] = lambda: None
) -> dict[Act, int]:
    """Hand to Slurm what is to be done of a sweep, in as few arrays as the site takes; returns how many of each act.

    Raises RequestError; what was handed over before stays so, the rest is as it was.
    """
    from engine.sweep import profiles
    from engine.sweep.handover import Handover

    profile = profiles.load(sites.find(sweep.profile))
    limit, retries = sweep.slots.get("limit"), sweep.slots.get("retries", 0)
    counts: dict[Act, int] = {}
    with sweeps.alone(folder), Handover(folder, sweep.name, profile, limit=limit, retries=retries) as handover:
        trials = sorted(sweeps.trials(sweep, [folder]), key=lambda trial: sweep.seeds.index(trial.seed))
        notes = [job_of(trial.job.run) for trial in trials if trial.job is not None]
        there = submitted.there([note for note in notes if note is not None])
        for trial in trials:
            act = act_for(trial, failed, there)
            experiment = sweeps.experiment_of(sweep, trial.point, trial.seed)
            if act == "make":
                handover.make(experiment, Origin(sweep.base, sweep.source, _sets(trial)))
            elif act == "evaluate" and trial.look is not None:
                handover.evaluate(trial.look.run, experiment)
            elif act and trial.job is not None:
                handover.again(trial.job.run)
            counts[act] = counts.get(act, 0) + 1
            done()
        try:
            handover.submit()
        except RequestError as error:
            if not (handed := handover.handed):
                raise
            still = (
                f"{len(handed)} runs were submitted before, the others were not: 'hah sweep resume {sweep.name}' does"
            )
            raise RequestError(f"{error}; {still}") from None
    return counts


def scripts(folder: Path, sweep: Sweep) -> list[str]:
    """What would be handed to Slurm of a sweep, a run that is not there yet by its name; raises RequestError."""
    from engine.sweep import handover, profiles

    profile = profiles.load(sites.find(sweep.profile))
    trials = [trial for trial in sweeps.trials(sweep, [folder]) if act_for(trial, failed=False)]
    runs = [
        trial.look.run.id if trial.look else f"{sweeps.experiment_of(sweep, trial.point, trial.seed).name}-xxxx"
        for trial in trials
    ]
    limit, retries = sweep.slots.get("limit"), sweep.slots.get("retries", 0)
    return handover.drawn(folder, sweep.name, runs, profile, limit=limit, retries=retries)


def extend(folder: Path, sweep: Sweep, seeds: int) -> Sweep:
    """Keep a sweep with so many seeds in all; raises RequestError where it has as many already."""
    if seeds <= len(sweep.seeds):
        raise RequestError(f"--seeds: {sweep.name} has {len(sweep.seeds)} already; say how many in all")
    longer = sweeps.extended(sweep, seeds)
    sweeps.write(folder, longer)
    return longer


def _do(folder: Path, sweep: Sweep, trial: Trial, act: Act, asked: Asked) -> None:
    if not act:
        return
    experiment = sweeps.experiment_of(sweep, trial.point, trial.seed)
    if trial.look is None:
        add(experiment, Origin(sweep.base, sweep.source, _sets(trial)), folder, asked)
    elif act == "evaluate":
        queue.evaluate(trial.look.run, experiment, asked.entry(experiment, queue.entry_of(trial.look.run)))
    else:
        again(trial.look.run, experiment, asked)


def _sets(trial: Trial) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in trial.point.differs.items()]


def disk_bytes(experiment: Experiment) -> int:
    """What a run needs at most: the last and the previous checkpoint with the optimizer's state, the best and those
    that are kept, and its record."""
    states = 1 if experiment.train.optimizer == "sgd" else 2
    copies = 2 * (1 + states) + 1 + len(experiment.checkpoints.keep)
    return 4 * copies * experiment.parameters() + (2 << 20)


def stop(trials: Sequence[Trial]) -> tuple[int, list[RunDirectory], str]:
    """Take what waits of a sweep, or is to be started again, out of the queue and of Slurm; returns how many, the jobs
    at work, which are to be asked, and a sentence where Slurm could not be. Raises RequestError.
    """
    withdrawn, problem = submitted.withdraw([trial.job for trial in trials if trial.job is not None])
    out = set(withdrawn)
    waiting, live = len(out), []
    for trial in trials:
        if trial.look is None or trial.job is None or trial.job.run in out:
            continue
        item = queue.item_of(trial.look.run)
        if queue.entry_of(item.run) is not None and item.standing == "ready":
            queue.leave(item.run)
            if is_locked(item.job.lock):  # somebody was faster, and its engine is about to show itself
                live.append(item.job)
            else:
                waiting += 1
        elif trial.job.live:
            live.append(trial.job.run)
    return waiting, live, problem


def facts(trial: Trial) -> dict[str, Any]:
    """A trial as a program reads it."""
    look = trial.job
    return {
        "case": trial.point.case,
        "differs": dict(trial.point.differs),
        "label": trial.point.label,
        "seed": trial.seed,
        "status": trial.status,
        "run": trial.look.run.id if trial.look else None,
        "epoch": trial.look.state.epoch if trial.look else None,
        "epochs": trial.point.epochs,
        "error": look.state.error if look and trial.status == "failed" else "",
        "slurm": look.slurm.facts() if look and look.slurm else None,
        "metrics": dict(trial.look.state.metrics) if trial.look else {},
    }
