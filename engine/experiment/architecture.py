"""The VGG family as arithmetic: blocks, filters, map sizes, parameters and multiply-accumulates.

The schema, the form in the terminal and `engine.nn.vgg` all read the same plan, so what is told before a
launch is what is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

IMAGE_SIZE = 32

# Filters of each convolution; 0 is a 2x2 max-pool (Simonyan and Zisserman 2014, table 1).
PLANS: dict[str, tuple[int, ...]] = {
    "vgg11": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg13": (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg16": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    "vgg19": (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}


@dataclass(frozen=True)
class BlockPlan:
    """One convolution block: a 3x3 convolution without bias and what follows it, before any pooling."""

    number: int  # from 1
    in_channels: int
    filters: int
    size: int  # height = width of its maps
    pooled: bool  # a 2x2 max-pool follows

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution for one image."""
        return 9 * self.in_channels * self.filters * self.size**2


def blocks(architecture: str, width: float) -> list[BlockPlan]:
    """The convolution blocks of ``architecture`` with every filter count times ``width`` (at least 2)."""
    found: list[BlockPlan] = []
    in_channels, size = 3, IMAGE_SIZE
    plan = PLANS[architecture]
    for entry, following in zip(plan, (*plan[1:], None), strict=True):
        if entry == 0:
            size //= 2
            continue
        filters = max(2, round(entry * width))
        found.append(BlockPlan(len(found) + 1, in_channels, filters, size, pooled=following == 0))
        in_channels = filters
    return found


def strongest(top_k: float, filters: int) -> int:
    """K of Eq. 4: the authors' ceil(top_k * N)."""
    return math.ceil(top_k * filters)


def suppressed(keep: float, height: int, width: int) -> int:
    """k of the fraction threshold: the authors' floor((1 - keep) * H * W)."""
    return math.floor((1 - keep) * height * width)


def parameters(architecture: str, width: float, classes: int, affine_blocks: int) -> int:
    """Trainable parameters: convolutions, the affine BatchNorm of ``affine_blocks`` last blocks, the classifier."""
    plan = blocks(architecture, width)
    convolutions = sum(9 * block.in_channels * block.filters for block in plan)
    affine = sum(2 * block.filters for block in plan[len(plan) - affine_blocks :])
    return convolutions + affine + (plan[-1].filters + 1) * classes


def macs(architecture: str, width: float, classes: int) -> int:
    """Multiply-accumulates of one image's forward pass: convolutions and classifier."""
    plan = blocks(architecture, width)
    return sum(block.macs for block in plan) + plan[-1].filters * classes
