"""What a person asks of an engine, for the command line and the screens alike: it is asked, and the answer awaited.

Everything here may take as long as the engine does; screens call it from a thread.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import disk
from engine.experiment.datasets import DATASETS, SUITE_NAMES
from engine.experiment.mistakes import Mistake, RequestError
from engine.results.suites import check_packages
from engine.runs import control, evaluations, launch, making, slurm, store, submitted
from engine.runs.control import Verb
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.runs.process import is_locked
from engine.runs.state import State, read_state
from engine.runs.watcher import Look, Watcher
from engine.sweep import desk, queue, sites, submit, sweeps

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.sweep.handover import Handed
    from engine.sweep.plan import Plan
    from engine.sweep.profiles import Profile
    from engine.sweep.sweeps import Sweep

LONGEST = 180.0  # seconds for which the answer of another host, which sees a folder late, may be on its way
PATIENCE = 10.0  # seconds without an answer after which `waiting` is told
_PLACE = ("compute.device", "compute.threads", "compute.evaluators")  # what an evaluation may have of its own
SILENCE = 30.0  # seconds after which an engine of another host that shows no sign of life is not waited for


def ask(
    run: RunDirectory, verb: Verb, name: str = "", value: Any = None, waiting: Callable[[Look], None] = lambda _: None
) -> None:
    """Send a command and wait for its answer; raises RequestError if it is refused or nobody is there to answer."""
    watcher = Watcher(run)
    look = watcher.settled()
    if verb.startswith("stop") and _taken_out(run, look):
        return
    look = _begun(watcher, watcher.look())
    if look.status == "queued":
        job = slurm.job_of(run)
        where = "in the queue" if job is None else f"in Slurm as job {job.id}"
        raise RequestError(f"{run.id} waits {where}, and has no engine to {verb} yet")
    if not look.live or look.deaf:
        raise RequestError(f"{run.id} is {look.status}: no engine to {verb}; {look.reason or 'nothing was sent'}")
    tail = Tail(run.events, from_end=True)
    try:
        command = control.send(run, verb, name, value)
    except OSError as error:
        raise RequestError(f"{run.path} cannot be written: {error.strerror}") from None
    began = told = time.monotonic()
    while (answer := control.acknowledgement(tail, command)) is None:
        look, now = watcher.look(), time.monotonic()
        if not look.live:
            if verb.startswith("stop"):
                return
            raise RequestError(f"{run.id} is {look.status} now and did not answer")
        # An engine of this host that is alive answers in the end; of another host, silence is all that can be seen.
        silent = look.deaf or (not look.verified and now - began > SILENCE)
        late = now - began > LONGEST and bool(look.elsewhere)
        if (silent or late) and control.withdraw(run, command):
            raise RequestError(f"{run.id} does not answer, {look.reason or 'and shows no sign of life'}; withdrawn")
        if now - told > PATIENCE:
            told = now
            waiting(look)
        time.sleep(0.05)
    if not answer["ok"]:
        raise RequestError(str(answer["text"]))


def _taken_out(run: RunDirectory, look: Look) -> bool:
    """Whether a run, or the evaluation of one, waited in the queue, or was to be started again, and no longer does."""
    trained = RunDirectory(run.path.parents[1]) if look.state.kind == "evaluation" else run
    if queue.entry_of(trained) is not None and (item := queue.item_of(trained)).standing == "ready":
        queue.leave(trained)
        return not is_locked(item.job.lock)  # else somebody was faster, and its engine is about to show itself
    if slurm.job_of(run) is not None:
        waited, problem = submitted.withdraw([look])
        if problem:
            raise RequestError(problem)
        return bool(waited)
    return look.status == "queued" and queue.withdraw(run)


def _begun(watcher: Watcher, look: Look) -> Look:
    """A run of which somebody has taken the lock to start its engine, when that has shown itself."""
    deadline = time.monotonic() + PATIENCE
    while look.status in ("queued", "stopped", "lost") and is_locked(look.run.lock) and time.monotonic() < deadline:
        time.sleep(0.05)
        look = watcher.look()
    return look


def stop(run: RunDirectory, now: bool = False, waiting: Callable[[Look], None] = lambda _: None) -> Look:
    """Save a run and stop it (``now``: without saving), and wait until it has ended; raises RequestError."""
    ask(run, "stop-now" if now else "stop", waiting=waiting)
    watcher, began = Watcher(run), time.monotonic()
    while (look := watcher.look()).live:
        if look.deaf or (not look.verified and time.monotonic() - began > SILENCE):
            raise RequestError(f"{run.id} said it would stop, then {look.reason or 'nothing more'}")
        time.sleep(0.05)
    return look


def stop_sweep(folder: Path, sweep: Sweep) -> tuple[int, int, list[Mistake]]:
    """Save and stop what runs of a sweep and start nothing more of it: how many no longer wait, how many stopped, and
    what those said that refused; raises RequestError."""
    waiting, live, problem = submit.stop(sweeps.trials(sweep, [folder]))
    for one in live:
        control.send(one, "stop")  # all at once; then each is waited for
    refused: dict[RunDirectory, Sequence[Mistake]] = {}
    for one in live:
        try:
            stop(one)
        except RequestError as error:
            if store.look(one).live:
                refused[one] = error.mistakes
    said = [mistake for mistakes in refused.values() for mistake in mistakes]
    return waiting, len(live) - len(refused), [*said, *([Mistake(problem)] if problem else [])]


def meant(run: RunDirectory) -> RunDirectory:
    """Whom a command to ``run`` is for: the job that evaluates it, where training has ended and the job has not."""
    job = run.evaluation
    if not job.config.exists() or (look := store.look(run)).live:
        return run
    evaluation = store.look(job)
    return job if evaluation.live or (look.status == "finished" != evaluation.status) else run


def check_setting(run: RunDirectory, assignment: str) -> tuple[str, Any, Experiment]:
    """(name, value, the experiment as it would be) of KEY=VALUE; raises RequestError for what this run cannot have."""
    from engine.experiment import presets
    from engine.experiment.document import assigned

    name, value = assigned(assignment)
    return name, value, presets.change(name, value, store.experiment_of(run, read_state(run)))


def change(
    run: RunDirectory, assignment: str, waiting: Callable[[Look], None] = lambda _: None
) -> tuple[str, Any, Experiment]:
    """Change a hyperparameter of a running engine between two steps; returns name, value and what the experiment is
    now, raises RequestError."""
    name, value, experiment = check_setting(run, assignment)
    ask(run, "set", name, value, waiting)
    return name, value, experiment


def check_place(*experiments: Experiment) -> None:
    """Raise RequestError where packages, the device or the data of experiments are not there."""
    for experiment in experiments:
        check_packages(experiment)
    for device, dataset in dict.fromkeys((one.compute.device, one.data.dataset) for one in experiments):
        _probe(device, dataset)


def _probe(device: str, dataset: str) -> None:
    """Raise RequestError where a device or the images of a data set are not there."""
    if device.startswith("cuda") or DATASETS[dataset].download:  # else there is nothing that could be missing
        launch.ask("probe", "--device", device, "--dataset", dataset)


def begin(experiment: Experiment, origin: Origin, folder: Path) -> tuple[RunDirectory, subprocess.Popen[bytes]]:
    """Make a run of an experiment and start its engine, once device and data are known to be there.

    Returns the run and its engine, for `launch.await_start`; raises RequestError.
    """
    check_place(experiment)
    run, state, lock = making.make(experiment, origin, folder)
    try:
        return run, launch.start(run, lock, state)
    except BaseException as error:  # a run that has no engine is none
        shutil.rmtree(run.path, ignore_errors=True)
        lock.release()
        if isinstance(error, OSError):
            raise RequestError(f"{folder}: a run cannot be started there: {error.strerror}") from None
        raise


def enqueue(experiment: Experiment, origin: Origin, folder: Path) -> RunDirectory:
    """Make a run of an experiment that the queue starts when a device is free; raises RequestError."""
    check_place(experiment)
    run = submit.add(experiment, origin, folder, submit.Asked())
    desk.ensure_dispatcher(folder)
    return run


def enqueue_sweep(plan: Plan, folder: Path) -> str:
    """Queue what is new of a sweep; says what came of it. Raises RequestError."""
    check_place(*(point.experiment for point in plan.points))
    sweep = _named_freely(sweeps.of_plan(plan), folder)
    sweeps.write(folder, sweep)
    counts = submit.submit(folder, sweep, submit.Asked(sweep.name))
    desk.ensure_dispatcher(folder)
    return f"sweep {sweep.name}: {_counted(counts, 'wait in the queue')}"


def _named_freely(sweep: Sweep, folder: Path) -> Sweep:
    """A sweep of a form, numbered where there is one of its name."""
    known = {*sweeps.names(folder), *(item.entry.group for item in queue.at_work(folder))}
    free = (f"{sweep.name}-{number}" for number in range(2, 10_000))
    return sweep if sweep.name not in known else replace(sweep, name=next(one for one in free if one not in known))


def _counted(counts: Mapping[submit.Act, int], what: str) -> str:
    there = f", {counts['']} there already" if "" in counts else ""
    return f"{sum(counts.values()) - counts.get('', 0)} runs {what}{there}"


def resume(
    run: RunDirectory, sets: Mapping[str, Any] | None = None, without: Sequence[str] = (), take_over: bool = False
) -> subprocess.Popen[bytes] | None:
    """Continue a run exactly where it was: paused, stopped, failed, lost, or finished with more train.epochs.

    ``sets``: settings to change first, as `hah set` would have; ``without``: settings whose changes after the last
    checkpoint are not taken up again; ``take_over``: also where it cannot be known whether another host's engine lives.
    Returns the new engine, for `launch.await_start`, or None for a paused one, which
    goes on; raises RequestError.
    """
    from engine.experiment import presets

    look = Watcher(run).settled()
    unsure = not look.verified and not is_locked(run.lock)
    if look.live and look.status not in ("paused", "queued") and not (take_over and unsure):
        who = look.state.engine
        reason = look.reason or f"process {who.get('pid', '?')} on {who.get('host', 'an unknown host')}"
        way = f"'hah stop {run.id}' stops it"
        if unsure:
            way = f"go on with it there or, if its engine is gone or may go, 'hah resume {run.id} --take-over'"
        raise RequestError(f"{run.id} is {look.status} ({reason}); {way}")
    sets = sets or {}
    if look.status == "paused":
        if sets or without:
            raise RequestError(f"{run.id} is paused, not ended: 'hah set {run.id} KEY=VALUE' changes a setting")
        ask(run, "resume")
        return None
    submitted.check_free(run)
    if look.state.kind != "training" and (sets or without):
        raise RequestError(f"{run.id} is of the kind {look.state.kind}, whose settings are fixed")
    if look.state.kind == "evaluation":
        checkpoint = str(disk.read_json(run.manifest).get("checkpoint", "last"))
        return evaluate(RunDirectory(run.path.parents[1]), presets.load(str(run.config)), checkpoint)
    if look.state.kind != "training":
        return launch.start(run, launch.take(run), look.state)
    lock = launch.take(run)
    try:
        state = read_state(run)
        written = store.experiment_of(run, State())
        for name, value in sets.items():
            presets.change(name, value, written)
        kept = {name: value for name, value in state.changed.items() if name not in without}
        experiment = store.experiment_of(run, replace(state, changed={**kept, **sets}))
        epochs = experiment.train.epochs
        if "train.epochs" in sets and epochs < state.epoch:
            raise RequestError(f"train.epochs: {run.id} has trained {state.epoch} epochs already, got {epochs}")
        if state.status == "finished" and epochs <= state.epoch:
            raise RequestError(f"{run.id} is finished; give --epochs N to train it further")
        _probe(experiment.compute.device, experiment.data.dataset)
        control.Inbox(run).clear()
        changes = [f"--set={name}={json.dumps(value)}" for name, value in sets.items()]
        return launch.start(run, lock, state, [*changes, *(f"--without-set={name}" for name in without)])
    finally:
        lock.release()  # the engine has it now; after a refusal nobody does


def evaluation(experiment: Experiment, suites: Sequence[str], images: int | None, sets: Sequence[str]) -> Experiment:
    """A run's experiment with what is to be measured of it; raises RequestError.

    ``suites`` empty: those the experiment names; ``sets``: KEY=VALUE of its evaluate section and of what it runs on.
    """
    from engine.experiment import presets
    from engine.experiment.document import assigned

    changes: list[tuple[str, Any]] = [assigned(assignment) for assignment in sets]
    for name, _ in changes:
        if not name.startswith("evaluate.") and name not in _PLACE:
            raise RequestError(f"{name}: an evaluation has the settings evaluate.*, {', '.join(_PLACE)} only")
    if suites:
        changes.append(("evaluate.suites", [suite.replace("-", "_") for suite in suites]))
    if images is not None:
        changes.append(("evaluate.images", images))
    for name, value in changes:
        experiment = presets.check(name, value, experiment)
    if not experiment.evaluate.suites:
        raise RequestError(f"the run names no evaluate.suites; give --suite (one of {', '.join(SUITE_NAMES)})")
    return experiment


def checkpoints(run: RunDirectory) -> list[str]:
    """The names of a run's checkpoints that can be evaluated."""
    return sorted(path.stem for path in run.checkpoints.glob("[!.]*.pt") if path.stem != "damaged")


def forecast(run: RunDirectory, experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """How long the evaluation of a checkpoint takes at most, by suite, from a few passes that are timed."""
    document = json.dumps(experiment.dump())
    found: dict[str, Any] = launch.ask("forecast", str(run.path), "--experiment", document, "--checkpoint", checkpoint)
    return found


def evaluate(run: RunDirectory, experiment: Experiment, checkpoint: str) -> subprocess.Popen[bytes]:
    """Start the evaluation of a run's checkpoint, for `launch.await_start`; what is measured already stays."""
    _check_evaluation(run, experiment, checkpoint)
    lock = evaluations.take(run)
    try:
        return launch.start(run.evaluation, lock, evaluations.prepare(run, experiment, checkpoint))
    finally:
        lock.release()


def enqueue_evaluation(run: RunDirectory, experiment: Experiment, checkpoint: str) -> None:
    """Have the queue evaluate a run's checkpoint when a device is free; raises RequestError."""
    _check_evaluation(run, experiment, checkpoint)
    queue.evaluate(run, experiment, submit.Asked().entry(experiment, queue.entry_of(run)), checkpoint)
    desk.ensure_dispatcher(run.path.parent)


def _check_evaluation(run: RunDirectory, experiment: Experiment, checkpoint: str) -> None:
    submitted.check_free(run.evaluation)
    check_packages(experiment)
    _check_checkpoint(run, experiment, checkpoint)
    _probe(experiment.compute.device, experiment.data.dataset)


def _check_checkpoint(run: RunDirectory, experiment: Experiment, checkpoint: str) -> None:
    if "masking" in experiment.evaluate.suites and experiment.evaluate.masking.standard:
        store.another(experiment.evaluate.masking.standard, run, "evaluate.masking.standard")
    if not (run.checkpoints / f"{checkpoint}.pt").is_file():
        there = ", ".join(checkpoints(run)) or "none yet"
        raise RequestError(f"{run.id} has no checkpoint {checkpoint!r}; there is {there}")


# Slurm


def hand_over(experiment: Experiment, origin: Origin, folder: Path, site: str | None) -> list[Handed]:
    """Make a run of an experiment as a job of a Slurm site; raises RequestError, and nothing was made."""
    from engine.sweep.handover import Handover

    profile = _site_for(site, experiment)
    with Handover(folder, experiment.name, profile) as handover:
        handover.make(experiment, origin)
        return handover.submit()


def hand_over_sweep(plan: Plan, folder: Path, site: str | None) -> str:
    """Hand what is new of a sweep to a Slurm site; says what came of it. Raises RequestError."""
    check_site(site, *(point.experiment for point in plan.points))
    sweep = replace(_named_freely(sweeps.of_plan(plan), folder), on="slurm", profile=site)
    sweeps.write(folder, sweep)
    try:
        return f"sweep {sweep.name}: {_counted(submit.go(folder, sweep), 'handed to Slurm')}"
    except RequestError:
        trials = sweeps.trials(sweep, [folder])
        if not any(trial.job is not None and slurm.job_of(trial.job.run) is not None for trial in trials):
            sweeps.remove(folder, sweep.name)  # as nothing of it was handed over
        raise


def hand_over_evaluation(run: RunDirectory, experiment: Experiment, checkpoint: str, site: str | None) -> list[Handed]:
    """Evaluate a run's checkpoint in a job of a Slurm site, as many tasks as compute.evaluators says; raises
    RequestError."""
    from engine.sweep.handover import Handover

    _check_checkpoint(run, experiment, checkpoint)
    profile, parts = _site_for(site, experiment), experiment.compute.evaluators
    with Handover(run.path.parent, run.id, profile, only_evaluation=True, parts=parts) as over:
        submitted.check_free(run.evaluation)
        over.evaluate(run, experiment, checkpoint)
        return over.submit()


def hand_over_again(runs: Sequence[RunDirectory], site: str | None) -> tuple[list[Handed], list[Mistake]]:
    """Go on in jobs of a Slurm site with runs of a folder, or evaluations, that have ended or wait: runs in as few
    arrays as the site takes, each evaluation in one of its own. Returns what was handed over, and what was refused of
    the others; raises RequestError where nothing can be handed over at all."""
    from engine.sweep.handover import Handover

    refused: list[Mistake] = []
    trained: list[RunDirectory] = []
    measured: dict[RunDirectory, Experiment] = {}
    experiments: list[Experiment] = []
    for run in runs:
        try:
            state = _goes_on(run)
            experiments.append(store.experiment_of(run, state))
            if state.kind == "evaluation":
                measured[run] = experiments[-1]
            else:
                trained.append(run)
        except RequestError as error:
            refused += error.mistakes
    if not experiments:
        raise RequestError(*refused)
    profile = _site_for(site, *experiments)
    handed: list[Handed] = []
    together = [(trained, 1)] if trained else []
    for some, parts in [*together, *(([run], one.compute.evaluators) for run, one in measured.items())]:
        evaluates = some[0] in measured
        first = RunDirectory(some[0].path.parents[1]) if evaluates else some[0]
        over = None
        try:
            with Handover(first.path.parent, first.id, profile, only_evaluation=evaluates, parts=parts) as over:
                for run in some:
                    try:
                        _goes_on(run)  # somebody else may have handed it over meanwhile
                        submitted.check_free(run)
                        over.again(run)
                    except RequestError as error:
                        refused += error.mistakes
                over.submit()
        except RequestError as error:  # what was handed over before stays so
            refused += error.mistakes
        except OSError as error:
            refused.append(Mistake(f"{error.filename or first.path.parent}: {error.strerror}"))
        handed += over.handed if over is not None else []
    return handed, refused


def _goes_on(run: RunDirectory) -> State:
    """The state of a run, or an evaluation, of which something is left and nobody does it; raises RequestError."""
    look = Watcher(run).settled()
    if (look.live and look.status != "queued") or look.status == "finished":
        why = f" ({look.reason})" if look.reason else ""
        raise RequestError(f"{run.id} is {look.status}{why}; nothing to go on with")
    return look.state


def scripts(folder: Path, name: str, run: str, site: str | None, evaluation: Experiment | None = None) -> list[str]:
    """What would be submitted for a run of this id under a name, or for its ``evaluation``; raises RequestError."""
    from engine.sweep import handover, profiles

    profile = profiles.load(sites.find(site))
    parts = evaluation.compute.evaluators if evaluation is not None else 1
    return handover.drawn(folder, name, [run], profile, only_evaluation=evaluation is not None, parts=parts)


def check_site(site: str | None, *experiments: Experiment) -> None:
    """Raise RequestError where a profile is wrong, or packages or data are not there, so far as this host can tell."""
    _site_for(site, *experiments)


def _site_for(site: str | None, *experiments: Experiment) -> Profile:
    from engine.sweep import profiles

    profile = profiles.load(sites.find(site))
    for experiment in experiments if profile.python is None else ():
        check_packages(experiment)
    # The device is the node's to say; data in a place of the nodes' own cannot be looked for here.
    for dataset in dict.fromkeys(one.data.dataset for one in experiments if profile.data is None):
        _probe("cpu", dataset)
    return profile
