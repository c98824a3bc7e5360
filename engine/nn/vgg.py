"""VGG networks whose first blocks are HaH blocks, built from an experiment or by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.experiment import Experiment
from engine.experiment.datasets import DATASETS
from engine.nn.blocks import DivisiveNorm, HaHBlock, StandardBlock, Threshold


class VGG(nn.Module):
    """A VGG over images in [0, 1]: [B, 3, 32, 32] -> logits [B, classes].

    ``blocks`` are its convolution blocks, in order; ``pooled[i]`` says whether a 2x2 max-pool follows block i. The
    mean and standard deviation of the data set are subtracted and divided inside, so that noise and attacks live in
    [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        blocks: Sequence[HaHBlock | StandardBlock],
        pooled: Sequence[bool],
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.pooled = tuple(pooled)
        self.classifier = nn.Linear(blocks[-1].conv.out_channels, classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> VGG:
        """The network of an experiment, initialized from PyTorch's random state."""
        model, hah = experiment.model, experiment.hah
        plan = experiment.blocks()
        blocks: list[HaHBlock | StandardBlock] = []
        kernels = experiment.compute.kernels
        for block in plan:
            is_hah = block.number <= model.hah_blocks
            weight_norm = model.weight_norm == "all" or (model.weight_norm == "hah-blocks" and is_hah)
            if not is_hah:
                momentum = model.batch_norm_momentum
                blocks.append(
                    StandardBlock(
                        block.in_channels, block.filters, weight_norm=weight_norm, momentum=momentum, kernels=kernels
                    )
                )
                continue
            norm: nn.Module = nn.BatchNorm2d(block.filters, momentum=model.batch_norm_momentum)
            if model.divisive_norm.enabled:
                norm = DivisiveNorm(experiment.sigmas[block.number - 1], model.divisive_norm.pool)
            threshold = Threshold(model.threshold.kind, model.threshold.keep, model.threshold.scale)
            blocks.append(
                HaHBlock(
                    block.in_channels,
                    block.filters,
                    norm=norm,
                    threshold=threshold,
                    top_k=hah.top_k,
                    lambda_=hah.lambda_,
                    gradient=hah.gradient,
                    weight_norm=weight_norm,
                    kernels=kernels,
                )
            )
        dataset = DATASETS[experiment.data.dataset]
        return cls(blocks, [block.pooled for block in plan], experiment.classes, dataset.mean, dataset.std)

    @overload
    def forward(self, images: Tensor, *, costs: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, *, costs: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, images: Tensor, *, costs: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(self, images: Tensor, *, costs: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of images in [0, 1], and with ``costs`` the HaH cost (Eq. 4) of each HaH block, [hah_blocks]."""
        self._check(images)
        x, found = (images - self.mean) / self.std, []
        for block, pooled in zip(self.blocks, self.pooled, strict=True):
            if costs and isinstance(block, HaHBlock):
                x, cost = block(x, cost=True)
                found.append(cost)
            else:
                x = block(x)
            if pooled:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(x.flatten(1))
        if not costs:
            return logits
        return logits, torch.stack(found) if found else logits.new_zeros(0)

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1] or not images.is_floating_point():
            wanted = f"floating-point images [B, {self.mean.shape[1]}, H, W]"
            raise ValueError(f"a VGG takes {wanted}, got {images.dtype} {list(images.shape)}")
        if min(images.shape[2:]) >> sum(self.pooled) != 1 or images.shape[2] != images.shape[3]:
            side = 2 ** sum(self.pooled)
            raise ValueError(f"this VGG takes images of {side}x{side}, got {images.shape[2]}x{images.shape[3]}")
