"""What the terminal remembers of a person: a JSON file in the platform's config folder, and the drafts of forms."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.disk import folder_of, read_json, replace_json
from engine.experiment.names import is_path
from hah_tui.themes import SERIES

DRAFTS = 100  # that are listed, the newest


@dataclass(frozen=True)
class Settings:
    """Every setting has a default, so that a missing or bad file is the defaults."""

    theme: str = "hah-dark"
    ascii: bool = False
    frames_per_second: float = 4.0
    sort: str = "created"
    reverse: bool = False
    columns: str = ""  # of the list, by the names of attributes; '' for the usual ones
    group: str = ""  # what runs of the list are grouped by: seed (equal but for it), a setting, or '' for nothing
    reference: str = ""  # the run that others are drawn over
    axis: str = "step"  # of charts
    smoothing: int = 0  # steps of it
    panels: dict[str, str] = field(default_factory=dict)  # by place/panel, what was chosen of: hidden log curves
    metrics: list[str] = field(default_factory=list)  # that have a panel of their own in the monitor

    @classmethod
    def load(cls) -> tuple[Settings, str]:
        """The stored settings, and one sentence about what of them could not be used ('' if all could)."""
        path = settings_path()
        stored, default = read_json(path), cls()
        if not stored:
            return default, f"{path} cannot be read; defaults are used" if path.exists() else ""
        good: dict[str, Any] = {}
        for entry in fields(cls):
            value = stored.get(entry.name, getattr(default, entry.name))
            value = float(value) if entry.name == "frames_per_second" and type(value) is int else value
            if type(value) is type(getattr(default, entry.name)) and _ALLOWED.get(entry.name, lambda _: True)(value):
                good[entry.name] = value
        bad = [entry.name for entry in fields(cls) if entry.name in stored and entry.name not in good]
        said = f"{path}: {', '.join(bad)} cannot be what is written there; defaults are used" if bad else ""
        return replace(default, **good), said

    def save(self) -> None:
        """Write the settings; raises OSError."""
        path = settings_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_json(path, asdict(self), durable=False)


def nameable(metric: str) -> bool:
    """Whether a metric's name is one that can be kept and shown."""
    return 0 < len(metric) <= 120 and metric.isprintable()


_ALLOWED: dict[str, Any] = {
    "theme": lambda name: name in SERIES,
    "frames_per_second": lambda rate: 0.25 <= rate <= 20,
    "sort": is_path,
    "group": lambda name: not name or is_path(name),
    "columns": lambda names: all(map(is_path, names.split())) and len(names) < 2000,
    "axis": lambda axis: axis in ("step", "epoch", "time"),
    "smoothing": lambda steps: 0 <= steps < 8,
    "panels": lambda panels: all(isinstance(words, str) for words in panels.values()),
    "metrics": lambda names: (
        len(names) <= 20 and all(isinstance(one, str) and nameable(one) and names.count(one) == 1 for one in names)
    ),
}


def settings_path() -> Path:
    """Where the settings lie."""
    return folder_of("config") / "terminal.json"


def drafts_folder() -> Path:
    """Where the form's unfinished work lies; it is written at every change, for Textual dies of a hang-up."""
    return folder_of("state") / "drafts"


def new_draft_name() -> str:
    """A name that no draft has."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def save_draft(name: str, draft: dict[str, Any] | None) -> None:
    """Keep a draft, or forget it (None); raises OSError."""
    path = drafts_folder() / f"{name}.json"
    if draft is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_json(path, {**draft, "written": time.time()}, durable=False)


def stored_drafts() -> dict[str, dict[str, Any]]:
    """The drafts that were kept, by name, the one written last first; those that cannot be read are left out."""
    folder = drafts_folder()
    old = folder.with_name("draft.json")  # when there was only one
    if old.is_file() and not old.is_symlink():
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            old.rename(folder / f"{new_draft_name()}.json")
    try:
        paths = sorted(folder.glob("*.json"), reverse=True)[:DRAFTS]
    except OSError:
        paths = []
    found = {path.stem: stored for path in paths if (stored := read_json(path))}
    return dict(sorted(found.items(), key=lambda one: written_at(one[1]), reverse=True))


def written_at(draft: dict[str, Any]) -> float:
    """The Unix time at which a stored draft was written, 0 where it does not say."""
    when = draft.get("written")
    return float(when) if isinstance(when, int | float) else 0.0
