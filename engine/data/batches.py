"""Batches of a data set that lives on the device as uint8: every order and every crop is a function of the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.data.draws import Draw, generator

PADDING = 4  # pixels on each side before a random crop


def to_images(pixels: Tensor) -> Tensor:
    """uint8 pixels [B, 3, H, W] as float32 images in [0, 1]."""
    return pixels.float().div_(255)


@dataclass(frozen=True)
class Split:
    """Images of one split on the device: ``pixels`` uint8 [n, 3, H, W] in channels-last order, ``labels`` int64 [n]."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], device: torch.device) -> Split:
        """A split of NHWC archive arrays."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
        return cls(pixels, torch.from_numpy(labels.astype(np.int64)).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first ``count`` images (all of them for None)."""
        return Split(self.pixels[:count], self.labels[:count])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order: (images in [0, 1], labels)."""
        for start in range(0, len(self), size):
            yield to_images(self.pixels[start : start + size]), self.labels[start : start + size]


def split_off(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """(the rest, ``count`` images drawn with the seed), both in their original order."""
    order = torch.randperm(len(split), generator=generator("cpu", seed, Draw.VALIDATION)).to(split.labels.device)
    rest, off = order[count:].sort().values, order[:count].sort().values
    return Split(split.pixels[rest], split.labels[rest]), Split(split.pixels[off], split.labels[off])


class Epoch:
    """One pass over the training images: its order, crops and flips follow from (seed, epoch).

    ``augment`` "crop-flip": a random crop after padding by 4 black pixels, then a horizontal flip with probability
    1/2, both in one gather. The last partial batch is kept.
    """

    def __init__(
        self, split: Split, batch_size: int, augment: Literal["crop-flip", "none"], seed: int, epoch: int
    ) -> None:
        self._split, self._batch_size, self._augment = split, batch_size, augment
        draw, device = generator("cpu", seed, Draw.ORDER, epoch), split.labels.device
        count = len(split)
        self._order = torch.randperm(count, generator=draw).to(device)
        if augment == "crop-flip":
            shifts = torch.randint(0, 2 * PADDING + 1, (2, count), generator=draw)
            flips = torch.randint(0, 2, (count,), generator=draw)
            self._shifts, self._flips = shifts.to(device), flips.bool().to(device)

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch ``index``: (uint8 pixels [B, 3, H, W], labels [B])."""
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        chosen = self._order[part]
        pixels, labels = self._split.pixels[chosen], self._split.labels[chosen]
        if self._augment == "crop-flip":
            pixels = crop_flip(pixels, self._shifts[0, part], self._shifts[1, part], self._flips[part])
        return pixels, labels


def crop_flip(pixels: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Each image padded by 4 zeros, cropped back at (down, right) in 0..8 and mirrored where ``flip``.

    pixels: [B, 3, H, W]; down, right: int64 [B]; flip: bool [B].
    """
    B, _, H, W = pixels.shape
    padded = torch.nn.functional.pad(pixels, (PADDING,) * 4).permute(0, 2, 3, 1)  # [B, H + 8, W + 8, 3]
    rows = down[:, None] + torch.arange(H, device=pixels.device)
    along = torch.arange(W, device=pixels.device)
    columns = right[:, None] + torch.where(flip[:, None], W - 1 - along, along)
    image = torch.arange(B, device=pixels.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
