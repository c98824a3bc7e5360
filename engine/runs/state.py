"""state.json: the snapshot an engine leaves of its run, and what a reader may conclude from it."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from engine.runs.layout import RunDirectory, read_json, replace_json
from engine.runs.process import PATIENCE, boot_id, heartbeat_of, is_here, is_locked, process_state

Status = Literal[
    "queued", "starting", "running", "paused", "stalled", "stopping", "stopped", "finished", "failed", "lost"
]
ENDED = ("stopped", "finished", "failed")  # the engine said so itself
LIVE = ("queued", "starting", "running", "paused", "stalled", "stopping")
GONE_AFTER = 5.0  # seconds without a heartbeat after which a free lock is believed from another host


@dataclass(frozen=True)
class State:
    """One snapshot. ``metrics`` holds the latest value by metric name; times are Unix seconds."""

    id: str = ""
    name: str = ""
    preset: str = ""
    tags: list[str] = field(default_factory=list)
    status: str = "starting"
    phase: str = ""  # what the engine is doing: training, testing, probing, saving
    epoch: int = 0  # completed
    epochs: int = 0
    step: int = 0  # completed
    steps: int = 0
    device: str = ""
    created: float = 0.0
    started: float = 0.0  # when the present or last engine was started
    began: float = 0.0  # when it was ready to train; 0 until then
    updated: float = 0.0
    trained_seconds: float = 0.0  # over all engines of this run, pauses left out
    eta_seconds: float | None = None
    images_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)  # settings that differ from config.yaml, by dotted name
    error: str = ""
    engine: dict[str, Any] = field(default_factory=dict)  # Identity

    def write(self, run: RunDirectory, durable: bool = True) -> None:
        """Replace the run's state.json."""
        replace_json(run.state, asdict(self), durable)


def read_state(run: RunDirectory) -> State:
    """The stored snapshot; what is missing or of the wrong type has its default."""
    stored, state = read_json(run.state), State(name=run.id)
    good = {
        entry.name: stored[entry.name]
        for entry in fields(State)
        if _fits(stored.get(entry.name), getattr(state, entry.name))
    }
    state = replace(state, **{**good, "id": run.id})
    return replace(
        state,
        status=state.status if state.status in get_args(Status) else "starting",
        tags=[tag for tag in state.tags if isinstance(tag, str)],
        metrics={name: value for name, value in state.metrics.items() if isinstance(value, int | float)},
    )


def _fits(value: Any, default: Any) -> bool:
    if default is None or isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


@dataclass(frozen=True)
class Look:
    """A run as a reader sees it now: its snapshot, what its status really is, and whether that is certain."""

    run: RunDirectory
    state: State
    status: str
    verified: bool = True
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether an engine works on it, as far as can be known."""
        return self.status in LIVE


class Watcher:
    """Looks at one run, once or again and again; the second look may know more, by this reader's own clock."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._beat: tuple[float, float] | None = None
        self._since = -1.0  # when this reader first saw that heartbeat
        self._moved = False  # whether it changed while this reader watched

    def look(self) -> Look:
        """The run now."""
        state = read_state(self.run)
        if state.status in ENDED:
            return Look(self.run, state, state.status)
        beat, now = heartbeat_of(self.run.heartbeat), time.monotonic()
        if self._since < 0 or beat != self._beat:
            self._moved = self._since >= 0
            self._beat, self._since = beat, now
        quiet = now - self._since
        host = str(state.engine.get("host", ""))
        here = not host or state.engine.get("boot") == boot_id()
        elsewhere = f"last known, from {host}"
        if not is_locked(self.run.lock):
            if here or host == socket.gethostname() or quiet > GONE_AFTER:
                return self._lost()
            return Look(self.run, state, state.status, False, elsewhere)
        if not here:
            if quiet > (beat or (0, PATIENCE))[1]:
                return Look(self.run, state, "stalled", False, f"no sign of progress from {host} for {quiet:.0f} s")
            return Look(self.run, state, state.status, self._moved, "" if self._moved else elsewhere)
        letter = process_state(state.engine) if is_here(state.engine) else "R"
        if not letter and state.status != "starting":
            return self._lost()
        if letter in "Tt" and letter:
            return Look(self.run, state, "stalled", True, "stopped by a signal; SIGCONT continues it")
        if beat and now - beat[0] > beat[1]:
            return Look(self.run, state, "stalled", True, f"no progress for {now - beat[0]:.0f} s")
        return Look(self.run, state, state.status)

    def _lost(self) -> Look:
        state = read_state(self.run)  # an engine that ended between the two readings has said so
        if state.status in ENDED:
            return Look(self.run, state, state.status)
        return Look(self.run, state, "lost", True, "its engine is gone without a word; 'hah resume' continues it")
