"""What every benchmark says of where it ran, and how it says it: one JSON document on the last line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.runs import devices, manifest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs that are started here start as a person's do
devices.calm_threads()  # as every engine process does: this module is imported before torch

import torch  # noqa: E402


def device() -> torch.device:
    """The GPU if torch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def facts() -> dict[str, Any]:
    """Command, machine, versions, commit."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": ["python", *(Path(one).name if Path(one).is_absolute() else one for one in sys.argv)],
        "machine": {**manifest.machine(), "host": None, "gpu": gpu, "threads": torch.get_num_threads()},
        "versions": manifest.versions(),
        "source": manifest.source(),
    }


def report(name: str, results: dict[str, Any]) -> None:
    """Print the document: the facts and results."""
    print(json.dumps({"benchmark": name, **facts(), **results}))
