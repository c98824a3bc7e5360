"""The suites of `hah eval`: how each turns a trained network and its settings into one result, piece by piece.

A piece is one batch, one corruption, or one attack or check on a batch; a part, which one process measures, is one
piece or the attacks on one batch. What is drawn belongs to images, so that no result depends on how many of them a
device takes at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.data.batches import to_images
from engine.evaluation import activations, attacks, masking, search
from engine.evaluation import corruptions as made
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import Cost, Measure, Result, Subject, correct, named
from engine.experiment.datasets import Suite
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import CorruptionSuite

PROBED = 50  # images that are made to estimate what all of them take


def clean(subject: Subject) -> list[Callable[[Pieces], int]]:
    """How many images of every batch are classified correctly as they are: parts of every suite."""

    def part(places: range, pieces: Pieces) -> int:
        return int(pieces.get(f"clean/{named(places)}", lambda: correct(subject.network, *subject.at(places))))

    return [partial(part, places) for places in subject.batches()]


_Count = tuple[str, int, str, int]  # corruption, severity, where its images came from, how many are correct


def _parts_of_corruptions(subject: Subject, settings: CorruptionSuite) -> list[Callable[[Pieces], _Count]]:
    """How many images are classified correctly under each corruption at each severity."""
    sources = made.sources(settings.names, subject.dataset, settings.source)

    def measure(name: str, severity: int) -> int:
        images, source = made.corrupted(
            name, severity, subject.archive.x_test, subject.archive.y_test, subject.dataset, settings.source,
            count=len(subject),
        )  # fmt: skip
        if source != sources[name]:  # files came or went meanwhile: the key is of what was there before
            raise RequestError(f"{name} is {source} now and was {sources[name]} when this began; start again")
        count = 0
        for places in subject.batches():
            part = torch.from_numpy(images[places.start : places.stop]).to(subject.test.labels.device)
            labels = subject.test.labels[places.start : places.stop]
            count += correct(subject.network, to_images(part.permute(0, 3, 1, 2)), labels)
        return count

    def part(name: str, severity: int, pieces: Pieces) -> _Count:
        count = pieces.get(f"corruptions/{name}/{severity}", partial(measure, name, severity))
        return name, severity, sources[name], int(count)

    there = [name for name in settings.names if sources[name] != "missing"]
    return [partial(part, name, severity) for name in there for severity in settings.severities]


def _corruptions(
    subject: Subject, settings: CorruptionSuite, measured: Sequence[_Count], _picture: Path | None
) -> Result:
    """Accuracy under each corruption at each severity, and where its images came from."""
    sources = {name: source for name, _, source, _ in measured}
    accuracy: dict[str, dict[str, float]] = {name: {} for name in sources}
    for name, severity, _, count in measured:
        accuracy[name][str(severity)] = count / len(subject)
    return {
        "source": "+".join(sorted(set(sources.values()))),
        "sources": sources,
        "missing": [name for name in settings.names if name not in sources],
        "accuracy": accuracy,
    }


def making(settings: CorruptionSuite, subject: Subject) -> float:
    """About how many seconds it takes to make the corrupted images that are not kept yet, from a few that are made."""
    seconds = 0.0
    for name, source in made.sources(settings.names, subject.dataset, settings.source).items():
        new = [n for n in settings.severities if not made.generated_path(subject.dataset, name, n).exists()]
        if source == "generated" and new:
            began = time.perf_counter()
            made.corrupt(subject.archive.x_test[:PROBED], name, new[-1])
            seconds += (time.perf_counter() - began) * len(new) * len(subject) / PROBED
    return seconds


def _cost_of_corruptions(settings: CorruptionSuite, subject: Subject) -> Cost:
    sets = len(settings.names) * len(settings.severities)
    return Cost(1 + sets, 0, len(subject.batches()) + sets, making(settings, subject))


def _made_of_corruptions(subject: Subject, settings: CorruptionSuite) -> dict[str, Any]:
    return {"sources": made.sources(settings.names, subject.dataset, settings.source), "version": made.VERSION}


MEASURES: dict[Suite, Measure[Any]] = {  # of every suite in `engine.results.suites`
    "noise": activations.NOISE,
    "sparsity": activations.SPARSITY,
    "corruptions": Measure(_parts_of_corruptions, _corruptions, _cost_of_corruptions, _made_of_corruptions),
    "attacks": attacks.ATTACKS,
    "minimum_norm": search.MINIMUM_NORM,
    "masking": masking.MASKING,
}
