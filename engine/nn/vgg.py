"""VGG networks whose first blocks are HaH blocks, built from an experiment or by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.experiment import Experiment
from engine.experiment.datasets import DATASETS
from engine.nn.layers import DivisiveNorm, HaHBlock, StandardBlock, Threshold


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
        for block in plan:
            is_hah = block.number <= model.hah_blocks
            weight_norm = model.weight_norm == "all" or (model.weight_norm == "hah-blocks" and is_hah)
            if not is_hah:
                momentum = model.batch_norm_momentum
                blocks.append(
                    StandardBlock(block.in_channels, block.filters, weight_norm=weight_norm, momentum=momentum)
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
                    kernels=experiment.compute.kernels,
                )
            )
        dataset = DATASETS[experiment.data.dataset]
        return cls(blocks, [block.pooled for block in plan], experiment.classes, dataset.mean, dataset.std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        return self._run(images, None)

    def forward_with_costs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the HaH cost (Eq. 4) of each HaH block, [hah_blocks], in one pass."""
        costs: list[Tensor] = []
        logits = self._run(images, costs)
        return logits, torch.stack(costs) if costs else logits.new_zeros(0)

    def _run(self, images: Tensor, costs: list[Tensor] | None) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1] or not images.is_floating_point():
            wanted = f"floating-point images [B, {self.mean.shape[1]}, H, W]"
            raise ValueError(f"a VGG takes {wanted}, got {images.dtype} {list(images.shape)}")
        if min(images.shape[2:]) >> sum(self.pooled) != 1 or images.shape[2] != images.shape[3]:
            side = 2 ** sum(self.pooled)
            raise ValueError(f"this VGG takes images of {side}x{side}, got {images.shape[2]}x{images.shape[3]}")
        x = (images - self.mean) / self.std
        for block, pooled in zip(self.blocks, self.pooled, strict=True):
            if costs is not None and isinstance(block, HaHBlock):
                x, cost = block.forward_with_cost(x)
                costs.append(cost)
            else:
                x = block(x)
            if pooled:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits
