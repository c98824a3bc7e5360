"""The life of an engine process: what it says when it starts, works, is stopped, refuses or fails."""

from __future__ import annotations

import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.experiment import presets
from engine.experiment.mistakes import RequestError
from engine.runs import launch
from engine.runs.claims import TakenError
from engine.runs.layout import RunDirectory
from engine.runs.process import STOPPING, Heartbeat, identity
from engine.runs.state import State, read_state

if TYPE_CHECKING:
    import torch

    from engine.experiment import Experiment
    from engine.job.record import Record
    from engine.job.work import Job, Work
    from engine.runs.claims import Claim
    from engine.runs.devices import Choice

START_PATIENCE = 300.0  # seconds until torch is imported and the images are read, on a slow file system


class Signals:
    """Signals that ask an engine to save and stop; ``asked`` is the name of the last one. A hang-up is nothing to an
    engine. Those that came since it was launched have waited for this."""

    def __init__(self) -> None:
        self.asked = ""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in STOPPING:
            signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = signal.Signals(number).name


def live(
    directory: RunDirectory,
    signals: Signals,
    make: Callable[[Job, Experiment], Work],
    hold: Callable[[Experiment], tuple[torch.device, Choice]],
    claim: Claim,
) -> int:
    """Be the engine of ``directory``, whose lock is held, from *starting* to its end; returns the exit code.

    ``hold`` gives its device; ``make`` the work to do, once torch may be imported. Raises TakenError where another
    engine has followed the ``claim``, and leaves what there is to that one.
    """
    state = replace(
        read_state(directory), status="starting", error="", engine=identity().dump(), claim=claim.number,
        started=time.time(),
    )  # fmt: skip
    claim.check()
    Heartbeat(directory.heartbeat).beat(START_PATIENCE)
    state.write(directory)
    record: Record | None = None
    work: Work | None = None
    shows = warnings.showwarning
    try:
        experiment = presets.load(str(directory.config))

        from engine.job.record import Record
        from engine.job.work import Job, Place, Stopped

        place = Place(*hold(experiment))
        record = Record(directory, replace(state, device=place.name), claim.check)
        gpu = place.choice.gpu and place.choice.gpu.name
        record.event("engine", **identity().dump(), device=str(place.device), gpu=gpu, why=place.choice.why)
        if place.choice.warning:
            record.warning(place.choice.warning)
        warnings.showwarning = lambda message, *_: record.warning(str(message))
        work = make(Job(record, place, lambda: signals.asked), experiment)
        try:
            work.prepare()
            work()
            record.end("finished", **work.position())
            return 0
        except Stopped as stopped:
            record.end("stopped", by=stopped.by, signal=stopped.signal, saved=stopped.save, **work.position())
            return 130
    except TakenError:
        raise
    except BaseException as error:
        claim.check()
        return _failed(error, state, directory, record, work)
    finally:
        warnings.showwarning = shows


def _failed(
    error: BaseException, state: State, directory: RunDirectory, record: Record | None, work: Work | None
) -> int:
    """Say what went wrong. A request that was wrong, found before anything was done, leaves the directory as it was."""
    wrong = isinstance(error, RequestError) and not (record and record.state.began)
    text = work.explained(error) if work else str(error) if wrong else f"{type(error).__name__}: {error}"
    if not isinstance(error, RequestError):
        traceback.print_exc()
    if wrong and state.before not in ("", "starting", "queued"):
        if record is not None:
            record.event("refused", text=str(error))
            record.close()
        print(error, flush=True)
        replace(state, status=state.before, error=text if state.before == "failed" else "").write(directory)
        return launch.REFUSED
    if record is None:
        replace(state, status="failed", error=text).write(directory)
    else:
        record.end("failed", error=text, text=text)
    return 1
