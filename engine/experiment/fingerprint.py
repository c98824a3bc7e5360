"""When two experiments are the same: the settings that a trained network depends on, and one short word for them."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.experiment import Experiment

SECTIONS = ("data", "model", "hah", "train")
_ROUNDING = ("train.compile", "train.precision")  # no result depends on them beyond rounding
_PER_BLOCK = ("hah.alpha", "model.divisive_norm.sigma")


def settings(experiment: dict[str, Any]) -> dict[str, Any]:
    """What the network of a dumped experiment depends on beside the seed, by dotted name; per-block values in full."""
    from engine.experiment.fields import flatten  # brings the schema, which a list of runs need not wait for

    flat = flatten({section: experiment.get(section) for section in SECTIONS})
    kept = {name: value for name, value in flat.items() if name not in _ROUNDING}
    for name in _PER_BLOCK:
        kept[name] = kept[name] * kept["model.hah_blocks"] if len(kept[name]) == 1 else kept[name]
    return kept


def fingerprint(experiment: Experiment, seed: bool = True) -> str:
    """The same text for the same experiment: with the ``seed`` that is a run, without it a group of runs.

    It begins with a word for the names of the settings that were looked at.
    """
    found: dict[str, Any] = settings(experiment.dump())
    if seed:
        found["seed"] = experiment.seed
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return f"{_names()}-{digest[:16]}"


def is_current(text: str) -> bool:
    """Whether a stored fingerprint looked at the settings that there are now; else it is to be made again."""
    return text.startswith(f"{_names()}-")


@cache
def _names() -> str:
    from engine.experiment.fields import fields

    names = sorted(name for name in fields() if name.partition(".")[0] in SECTIONS and name not in _ROUNDING)
    return hashlib.sha256(" ".join((*names, *_PER_BLOCK)).encode()).hexdigest()[:6]
