"""What is evaluated, and what measuring it costs: what every suite has to do with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from engine.data.archives import Images
from engine.data.batches import Split, to_images
from engine.evaluation.pieces import Pieces
from engine.probes.measures import right

BATCH = 100  # images at once on a CPU, and those that Square attacks together; on a GPU a multiple of it

Result = dict[str, Any]
Found = TypeVar("Found")


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

    def batches(self) -> list[range]:
        """The places of the images of every batch."""
        return [range(start, min(start + self.batch, len(self))) for start in range(0, len(self), self.batch)]

    def at(self, places: range) -> tuple[Tensor, Tensor]:
        """(images in [0, 1], labels) at these places."""
        part = slice(places.start, places.stop)
        return to_images(self.test.pixels[part]), self.test.labels[part]

    def __len__(self) -> int:
        return len(self.test)


@dataclass(frozen=True)
class Cost:
    """At most so many forward passes and gradients an image, seconds beside them, and the number of pieces."""

    passes: float
    gradients: float
    pieces: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Measure(Generic[Found]):
    """How a suite is measured, with its section of the experiment as settings.

    ``parts`` do not depend on each other, so that processes can share them; each asks for its pieces in order and
    returns what it found. ``whole`` makes the result of what all parts found, in their order, and may draw example
    images to a path. ``made_of``: what the result depends on beside the network, the test images and the settings;
    raises RequestError where it cannot be had.
    """

    parts: Callable[[Subject, Any], Sequence[Callable[[Pieces], Found]]]
    whole: Callable[[Subject, Any, Sequence[Found], Path | None], Result]
    cost: Callable[[Any, Subject], Cost]
    made_of: Callable[[Subject, Any], dict[str, Any]] = lambda subject, settings: {}

    def measure(self, subject: Subject, settings: Any, pieces: Pieces, picture: Path | None = None) -> Result:
        """The result, of pieces that are known and others that are measured now."""
        return self.whole(subject, settings, [part(pieces) for part in self.parts(subject, settings)], picture)


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
