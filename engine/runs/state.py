"""state.json: the snapshot an engine leaves of its run, read again from the record where it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from engine import disk
from engine.disk import replace_json
from engine.experiment.mistakes import RequestError
from engine.runs.events import Event, Tail
from engine.runs.layout import EVALUATION, RunDirectory
from engine.runs.process import Identity

Status = Literal[
    "queued", "starting", "running", "paused", "stalled", "stopping", "stopped", "finished", "failed", "lost"
]
ENDED = ("stopped", "finished", "failed")  # the engine said so itself
LIVE = ("queued", "starting", "running", "paused", "stalled", "stopping")
Kind = Literal["training", "evaluation", "share"]
_STATUSES, _KINDS = get_args(Status), get_args(Kind)
_LARGEST = 4 << 20  # bytes of a snapshot
_MOST = 1e12  # of times (Unix seconds), steps and seconds: what is beyond was not written here


@dataclass(frozen=True)
class State:
    """One snapshot. ``metrics`` holds the latest value by metric name; times are Unix seconds."""

    id: str = ""
    kind: str = "training"  # what the directory's engine does
    name: str = ""
    preset: str = ""
    tags: list[str] = field(default_factory=list)
    group: str = ""  # fingerprint of the experiment without its seed
    seed: int | None = None
    status: str = "starting"
    phase: str = ""  # what the engine is doing: training, testing, probing, saving
    epoch: int = 0  # completed
    epochs: int = 0
    step: int = 0  # completed
    steps: int = 0
    suite: int = 0  # of an evaluation: completed
    suites: int = 0
    piece: int = 0  # measured, of all suites
    pieces: int = 0
    processes: int = 1  # that measure them, on whatever machine
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
    before: str = ""  # the status before its engine was started, which a refusal gives back
    stopped_by: str = ""  # who made it stop: person, signal or limit; only what a person stopped is left alone
    engine: dict[str, Any] = field(default_factory=dict)  # Identity
    claim: int = 0  # its number; 0 where nobody has claimed the run

    @property
    def progress(self) -> float:
        """How much of the job is done, from 0 to 1."""
        trained = ((self.step, self.steps), (self.epoch, self.epochs))
        measured = ((self.piece, self.pieces), (self.suite, self.suites))
        pairs = trained if self.kind == "training" else measured
        return min(1.0, next((done / whole for done, whole in pairs if whole), 0.0))

    def write(self, run: RunDirectory, durable: bool = True) -> None:
        """Replace the run's state.json."""
        replace_json(run.state, asdict(self), durable)


def read_state(run: RunDirectory) -> State:
    """The stored snapshot; where it is damaged, what the record says, which is the truth of it."""
    try:
        stored = disk.parse_json(disk.read_bytes(run.state, _LARGEST))
        state = _parsed(stored if "kind" in stored else _with_kind(stored, run))
    except (OSError, ValueError):
        return recovered(run)
    return replace(state, id=run.id)


def recovered(run: RunDirectory) -> State:
    """The snapshot as the record has it."""
    return replace(_recovered(run, _stamp(run.events), _stamp(run.manifest)), id=run.id)


def _parsed(stored: dict[str, Any]) -> State:
    """A snapshot; raises ValueError where something in it cannot be, a missing entry has its default."""
    good = {}
    for entry in fields(State):
        if entry.name in stored:
            value = stored[entry.name]
            if not _FITS[str(entry.type)](value):
                raise ValueError(f"{entry.name} cannot be {value!r:.60}")
            good[entry.name] = value
    if good.get("status") not in _STATUSES:
        raise ValueError("it has no status")
    if good.get("kind", "training") not in _KINDS:
        raise ValueError("it has no kind")
    return State(**good)


def _with_kind(stored: dict[str, Any], run: RunDirectory) -> dict[str, Any]:
    """A snapshot of before kinds were written, when an evaluation counted suites as epochs and pieces as steps."""
    if "checkpoint" not in disk.read_json(run.manifest) and not run.id.endswith(EVALUATION):
        return stored
    now = {"epoch": "suite", "epochs": "suites", "step": "piece", "steps": "pieces"}
    return {"kind": "evaluation", **{now.get(name, name): value for name, value in stored.items()}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


_FITS: dict[str, Callable[[Any], bool]] = {  # by the type of a field as it is written
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and 0 <= value < _MOST,
    "int | None": lambda value: value is None or (type(value) is int and 0 <= value < _MOST),
    "float": lambda value: _is_number(value) and value >= 0,
    "float | None": lambda value: value is None or _is_number(value),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "dict[str, float]": lambda value: isinstance(value, dict) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in value.values()
    ),
    "dict[str, Any]": lambda value: isinstance(value, dict),
}  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _recovered(run: RunDirectory, *_stamps: tuple[int, int]) -> State:
    """The snapshot of a run by its record, manifest and config.yaml; a status without a word on how it ended is that of
    an engine that may be gone."""
    manifest, state = disk.read_json(run.manifest), State()
    known: dict[str, Any] = {name: manifest[name] for name in ("kind", "name", "preset", "created") if name in manifest}
    with suppress(ValueError):
        state = _parsed(_with_kind({"status": "starting", **known}, run))
    if not state.created:
        state = replace(state, created=_stamp(run.config)[0] / 1e9)
    with suppress(RequestError, ValueError, TypeError):
        state = _with_config(state, run)
    for event in Tail(run.events):
        with suppress(ValueError, TypeError, KeyError):
            state = _parsed({**asdict(state), **_after(state, event)})
    return state


def _with_config(state: State, run: RunDirectory) -> State:
    from engine.experiment.document import read
    from engine.experiment.migrations import migrated

    stored = migrated(read(run.config)).values
    train, evaluate = (stored[name] if isinstance(stored.get(name), dict) else {} for name in ("train", "evaluate"))
    known = {"name": stored.get("name"), "tags": stored.get("tags")}
    if state.kind == "evaluation":
        known["suites"] = len(evaluate.get("suites") or [])
    else:
        known["epochs"] = train.get("epochs")
    return _parsed({**asdict(state), **{name: value for name, value in known.items() if value is not None}})


def _after(state: State, event: Event) -> dict[str, Any]:
    """What an event changes in a snapshot."""
    changed: dict[str, Any] = {"updated": event["time"]}
    values = {name: value for name, value in (event.get("values") or {}).items() if value is not None}
    match event:
        case {"kind": "engine"}:
            who = {entry.name: event.get(entry.name) for entry in fields(Identity)}
            device = event.get("gpu") or event.get("device") or ""
            changed |= {"status": "running", "error": "", "engine": who, "device": device, "started": event["time"]}
            changed |= {"before": state.status}
        case {"kind": "refused"} if state.before:
            changed |= {"status": state.before}
        case {"kind": "position", "step": step, "epoch": epoch}:
            changed |= {"step": step, "epoch": epoch, "began": event["time"]}
        case {"kind": "train" | "epoch" as kind, "step": step, "epoch": epoch}:
            done = epoch if kind == "epoch" else epoch - 1
            changed |= {"step": step, "epoch": done, "metrics": {**state.metrics, **values}}
            changed |= {"steps": step * state.epochs // epoch} if kind == "epoch" and epoch else {}
        case {"kind": "result" | "already"}:
            changed |= {"suite": min(state.suites, state.suite + 1), "metrics": {**state.metrics, **values}}
        case {"kind": "set", "name": name, "new": new}:
            changed |= {"changed": {**state.changed, name: new}}
            changed |= {"epochs": new} if name == "train.epochs" else {}
        case {"kind": "finished" | "stopped" | "failed" as status}:
            changed |= {"status": status, "error": event.get("error") or event.get("text") or "", "phase": ""}
            changed |= {"stopped_by": event["by"]} if "by" in event else {}
    return changed
