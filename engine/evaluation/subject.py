"""What is evaluated, and what measuring it costs: what every suite has to do with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.archives import Images
from engine.data.batches import Split
from engine.probes.measures import right

BATCH = 100  # images at once on a CPU, and those that Square attacks together; on a GPU a multiple of it

Result = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a classifier over images in [0, 1], its blocks, and the test images.

    ``network`` may be any module; ``test`` is the first part of ``archive``'s test images; ``standard`` is the
    network that transfer attacks start from, ``standard_run`` the id of its run. ``batch``: images at once.
    """

    network: nn.Module
    blocks: list[nn.Module]
    test: Split
    archive: Images
    dataset: str
    seed: int
    classes: int = 10
    standard: nn.Module | None = None
    standard_run: str = ""
    batch: int = BATCH

    def batches(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        """(places of the images, images in [0, 1], labels) of every batch."""
        for number, (images, labels) in enumerate(self.test.batches(self.batch)):
            start = number * self.batch
            yield range(start, start + len(labels)), images, labels

    def __len__(self) -> int:
        return len(self.test)


@dataclass(frozen=True)
class Cost:
    """At most so many forward passes and gradients an image, seconds beside them, and the number of pieces."""

    passes: float
    gradients: float
    pieces: int
    seconds: float = 0.0


def batches(subject: Subject) -> int:
    """How many batches its images are."""
    return math.ceil(len(subject) / subject.batch)


def named(places: range) -> str:
    """Places of images in the name of a piece."""
    return f"{places.start}-{places.stop}"


def correct(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many images are classified as their labels."""
    with torch.no_grad():
        return int(right(network(images), labels).sum())


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
