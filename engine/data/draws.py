"""Random numbers that depend on keys alone: of a step of the training, or of an image wherever it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import numpy as np
import torch
from torch import Tensor


class Draw(IntEnum):
    """What random numbers are drawn for; part of their key, so that no two purposes share any."""

    VALIDATION = 1
    ORDER = 2
    TRAINING_NOISE = 3
    ATTACK_START = 4
    PROBE_NOISE = 5
    EVALUATION_NOISE = 6
    EVALUATION_ATTACK = 7
    MASKING = 8


def generator(device: torch.device | str, *keys: int) -> torch.Generator:
    """A generator on ``device`` that depends on the numbers ``keys`` alone.

    Random numbers of a run are keyed by (seed, purpose, epoch or step), so that a resumed run needs no stored random
    state: it draws again what the interrupted one drew.
    """
    seed = int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(seed)


class ImageDraws:
    """Random numbers for each image of a batch, [B, ...] float32 on its device.

    Those of an image depend on ``keys`` (seed, purpose, ...), its number in the data set, ``places`` [B], and how many
    were drawn here before; neither on the other images of the batch nor on the device. Each image has a stream of its
    own (Philox, its counter begun at the image's number).
    """

    def __init__(self, images: Tensor, places: Sequence[int], *keys: int) -> None:
        self._images, self._places, self._keys, self._drawn = images, places, keys, 0
        self._key = np.random.SeedSequence(keys).generate_state(2, np.uint64)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers; ``shape``: of one image, its own where none is given."""
        return self._draw("normal", shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from [-1, 1)."""
        return self._draw("uniform", shape).mul_(2).sub_(1)

    def groups(self, size: int) -> list[tuple[int, list[int]]]:
        """The images in groups of ``size`` places: (number of the group, its images as numbers in the batch)."""
        found: dict[int, list[int]] = {}
        for number, place in enumerate(self._places):
            found.setdefault(place // size, []).append(number)
        return sorted(found.items())

    def seed(self, *keys: int) -> int:
        """A number for a random state that is seeded, from the keys and further ones."""
        return int(np.random.SeedSequence([*self._keys, *keys]).generate_state(1, np.uint32)[0])

    def _draw(self, what: Literal["normal", "uniform"], shape: tuple[int, ...]) -> Tensor:
        found = np.empty((len(self._places), *(shape or self._images.shape[1:])), np.float32)
        for place, numbers in zip(self._places, found, strict=True):
            stream = np.random.Generator(np.random.Philox(key=self._key, counter=[0, self._drawn, place, 0]))
            if what == "normal":
                stream.standard_normal(out=numbers, dtype=np.float32)
            else:
                stream.random(out=numbers, dtype=np.float32)
        self._drawn += 1
        return torch.from_numpy(found).to(self._images.device)
