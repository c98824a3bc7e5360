"""The suites of `hah eval`: how each turns a trained network and its settings into one result, piece by piece.

A piece is one batch, one corruption, or one attack or check on a batch. What is drawn belongs to images, so that no
result depends on how many of them a device takes at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.data.batches import to_images
from engine.evaluation import activations, attacks, masking, search
from engine.evaluation import corruptions as made
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import Cost, Result, Subject, batches, correct, named
from engine.experiment.datasets import Suite
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import CorruptionSuite

PROBED = 50  # images that are made to estimate what all of them take


def clean(subject: Subject, pieces: Pieces) -> float:
    """Accuracy on the images as they are."""
    count = 0
    for places, images, labels in subject.batches():
        count += pieces.get(f"clean/{named(places)}", partial(correct, subject.network, images, labels))
    return count / len(subject)


def corruptions(subject: Subject, settings: CorruptionSuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """Accuracy under each corruption at each severity, and where its images came from."""
    sources = made.sources(settings.names, subject.dataset, settings.source)
    names = [name for name in settings.names if sources[name] != "missing"]
    accuracy: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        for severity in settings.severities:

            def measure(name: str = name, severity: int = severity) -> Any:
                images, source = made.corrupted(
                    name, severity, subject.archive.x_test, subject.archive.y_test, subject.dataset, settings.source,
                    count=len(subject),
                )  # fmt: skip
                if source != sources[name]:  # files came or went meanwhile: the key is of what was there before
                    raise RequestError(f"{name} is {source} now and was {sources[name]} when this began; start again")
                count = 0
                for start in range(0, len(images), subject.batch):
                    part = torch.from_numpy(images[start : start + subject.batch]).to(subject.test.labels.device)
                    labels = subject.test.labels[start : start + subject.batch]
                    count += correct(subject.network, to_images(part.permute(0, 3, 1, 2)), labels)
                return count

            found = pieces.get(f"corruptions/{name}/{severity}", measure)
            accuracy[name][str(severity)] = found / len(subject)
    return {
        "source": "+".join(sorted({sources[name] for name in names})),
        "sources": {name: sources[name] for name in names},
        "missing": [name for name in settings.names if name not in names],
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
    return Cost(1 + sets, 0, batches(subject) + sets, making(settings, subject))


def _made_of_corruptions(subject: Subject, settings: CorruptionSuite) -> dict[str, Any]:
    return {"sources": made.sources(settings.names, subject.dataset, settings.source), "version": made.VERSION}


@dataclass(frozen=True)
class Measure:
    """How a suite is measured, with its section of the experiment as settings, and where example images may go.

    ``made_of``: what its result depends on beside the network, the test images and the settings; raises RequestError
    where it cannot be had.
    """

    measure: Callable[[Subject, Any, Pieces, Path | None], Result]
    cost: Callable[[Any, Subject], Cost]
    made_of: Callable[[Subject, Any], dict[str, Any]] = lambda subject, settings: {}


MEASURES: dict[Suite, Measure] = {  # of every suite in `engine.results.suites`
    "noise": Measure(activations.measure_noise, activations.cost_of_noise),
    "sparsity": Measure(activations.measure_sparsity, activations.cost_of_sparsity),
    "corruptions": Measure(corruptions, _cost_of_corruptions, _made_of_corruptions),
    "attacks": Measure(attacks.measure, attacks.cost, attacks.made_of),
    "minimum_norm": Measure(search.measure, search.cost),
    "masking": Measure(masking.measure, masking.cost, masking.made_of),
}
