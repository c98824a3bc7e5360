"""What a person asks of an engine, for the command line and the screens alike: it is asked, and the answer awaited.

Everything here may take as long as the engine does; screens call it from a thread.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.experiment.mistakes import RequestError
from engine.runs import control, launch, store
from engine.runs.control import Verb
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.state import Look, read_state

if TYPE_CHECKING:
    from engine.experiment import Experiment

PATIENCE = 10.0  # seconds without an answer after which `waiting` is told


def ask(
    run: RunDirectory, verb: Verb, name: str = "", value: Any = None, waiting: Callable[[Look], None] = lambda _: None
) -> None:
    """Send a command and wait for its answer; raises RequestError if it is refused or nobody is there to answer."""
    look = store.look(run)
    if not look.live:
        raise RequestError(f"{run.id} is {look.status}: no engine to {verb}; {look.reason or 'nothing was sent'}")
    tail = Tail(run.events, from_end=True)
    try:
        command = control.send(run, verb, name, value)
    except OSError as error:
        raise RequestError(f"{run.path} cannot be written: {error.strerror}") from None
    told = time.monotonic()
    while (answer := control.acknowledgement(tail, command)) is None:
        look = store.look(run)
        if not look.live:
            if verb.startswith("stop"):
                return
            raise RequestError(f"{run.id} is {look.status} now and did not answer")
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            waiting(look)
        time.sleep(0.05)
    if not answer["ok"]:
        raise RequestError(str(answer["text"]))


def check_setting(run: RunDirectory, assignment: str) -> tuple[str, Any, Experiment]:
    """(name, value, the experiment as it would be) of KEY=VALUE; raises RequestError for what this run cannot have."""
    from engine.experiment import presets
    from engine.experiment.document import assigned

    name, value = assigned(assignment)
    return name, value, presets.check(name, value, store.experiment_of(run, read_state(run)))


def change(run: RunDirectory, assignment: str, waiting: Callable[[Look], None] = lambda _: None) -> tuple[str, Any]:
    """Change a hyperparameter of a running engine between two steps; returns name and value, raises RequestError."""
    name, value, _ = check_setting(run, assignment)
    ask(run, "set", name, value, waiting)
    return name, value


def resume(run: RunDirectory, epochs: int | None = None) -> subprocess.Popen[bytes] | None:
    """Continue a run exactly where it was: paused, stopped, failed, lost, or finished with ``epochs``.

    Returns the new engine, for `launch.await_start`, or None for a paused one, which goes on; raises RequestError.
    """
    from engine.experiment import presets

    if store.look(run).status == "paused":
        if epochs is not None:
            raise RequestError(f"{run.id} is paused, not ended: hah set {run.id} train.epochs={epochs}")
        ask(run, "resume")
        return None
    lock = launch.take(run)
    try:
        state = read_state(run)
        if state.status == "finished" and epochs is None:
            raise RequestError(f"{run.id} is finished; give --epochs N to train it further")
        if epochs is not None and epochs < state.epoch:
            raise RequestError(f"--epochs: {run.id} has trained {state.epoch} epochs already, got {epochs}")
        experiment = store.experiment_of(run, state)
        if epochs is not None:
            presets.check("train.epochs", epochs, experiment)
        launch.ask("probe", "--device", experiment.compute.device, "--dataset", experiment.data.dataset)
        control.Inbox(run).clear()
        return launch.start(run, lock, state, [] if epochs is None else ["--epochs", str(epochs)])
    finally:
        lock.release()  # the engine has it now; after a refusal nobody does
