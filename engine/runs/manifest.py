"""manifest.json: everything besides the experiment that a result may depend on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import engine
from engine import disk
from engine.runs.layout import RunDirectory

_PACKAGES = (
    "hah-tui", "torch", "torchvision", "numpy", "numba", "triton", "scipy", "pillow", "tensorboard", "pydantic",
    "pyautoattack",
)  # fmt: skip


_SECTIONS = ("versions", "source", "device", "dataset", "network", "arithmetic")


def read(run: RunDirectory) -> dict[str, Any]:
    """The manifest of a run; a group of facts that is none is left out."""
    stored = disk.read_json(run.manifest)
    return {name: value for name, value in stored.items() if name not in _SECTIONS or _is_facts(value)}


def _is_facts(value: Any) -> bool:
    return isinstance(value, dict) and all(one is None or isinstance(one, str | int | float) for one in value.values())


def versions() -> dict[str, str]:
    """Installed versions of what a result may depend on; a missing package is left out."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def source() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this program runs from; None for an installed wheel."""
    root = Path(engine.__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "engine/__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("--no-optional-locks", "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """The host, its system and its processor."""
    return {"host": platform.node(), "system": platform.platform(), "cpu": _cpu()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
