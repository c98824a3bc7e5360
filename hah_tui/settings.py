"""What the terminal remembers of a person: a JSON file in the platform's config folder, and the draft of a form."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.disk import folder_of, read_json, replace_json
from engine.experiment.names import is_path
from hah_tui.themes import SERIES


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


_ALLOWED: dict[str, Any] = {
    "theme": lambda name: name in SERIES,
    "frames_per_second": lambda rate: 0.25 <= rate <= 20,
    "sort": is_path,
    "group": lambda name: not name or is_path(name),
    "columns": lambda names: all(map(is_path, names.split())) and len(names) < 2000,
}


def settings_path() -> Path:
    """Where the settings lie."""
    return folder_of("config") / "terminal.json"


def draft_path() -> Path:
    """Where the form's unfinished work lies; it is written at every change, for Textual dies of a hang-up."""
    return folder_of("state") / "draft.json"


def save_draft(draft: dict[str, Any] | None) -> None:
    """Keep a draft, or forget it (None); raises OSError."""
    path = draft_path()
    if draft is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_json(path, {**draft, "written": time.time()}, durable=False)


def stored_draft() -> dict[str, Any]:
    """The draft that was kept; {} for none."""
    return read_json(draft_path())
