"""Which Slurm sites a person has described, by the profiles in the config folder; `profiles` reads one."""

from __future__ import annotations

from pathlib import Path

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.experiment.names import is_name


def folder() -> Path:
    """Where profiles lie: slurm.yaml, and slurm/NAME.yaml."""
    return disk.folder_of("config")


def known() -> dict[str, Path]:
    """The profiles there are, by name; that of slurm.yaml is *slurm*."""
    paths = [folder() / "slurm.yaml", *sorted((folder() / "slurm").glob("*.yaml"))]
    found: dict[str, Path] = {}
    for path in paths:
        if is_name(path.stem) and path.is_file():
            found.setdefault(path.stem, path)
    return found


def find(name: str | None) -> Path:
    """The file of a profile; without a name slurm.yaml, or the only one there is. Raises RequestError."""
    there = known()
    if not there:
        raise RequestError(
            f"no profile says how runs reach Slurm; 'hah slurm-profile --write' puts an example at "
            f"{folder() / 'slurm.yaml'}, to be filled in"
        )
    if name is None:
        if "slurm" in there or len(there) == 1:
            return there.get("slurm") or next(iter(there.values()))
        raise RequestError(f"--profile: say which; there is {', '.join(there)}")
    if name not in there:
        raise RequestError(f"--profile: no profile is called {name!r:.80} in {folder()}; there is {', '.join(there)}")
    return there[name]
