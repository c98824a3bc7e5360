"""Projected gradient descent in a ball around images, for adversarial training and quick looks (Madry et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.probes.observation import evaluating


def pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Literal["linf", "l2"],
    eps: float,
    steps: int,
    step_size: float,
    draw: torch.Generator,
) -> Tensor:
    """Images [B, C, H, W] in [0, 1] within ``eps`` of the given ones that raise the cross-entropy.

    Starts at a random point of the ball. The network is attacked in evaluation mode (BatchNorm's running statistics),
    its parameters receive no gradient. Returns a tensor of the same shape, detached.
    """
    start = _random(images, norm, eps, draw)
    adversarial = (images + start).clamp(0, 1)
    with evaluating(network):
        for _ in range(steps):
            adversarial.requires_grad_()
            loss = F.cross_entropy(network(adversarial), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
            with torch.no_grad():
                moved = adversarial + step_size * _steepest(gradient, norm)
                adversarial = (images + project(moved - images, norm, eps)).clamp(0, 1)
    return adversarial.detach()


def project(delta: Tensor, norm: Literal["linf", "l2"], eps: float) -> Tensor:
    """The nearest perturbation of norm at most ``eps`` for each image; delta: [B, ...]."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length = _length(delta)
    return delta * (eps / length.clamp_min(1e-12)).clamp_max(1)


def _steepest(gradient: Tensor, norm: Literal["linf", "l2"]) -> Tensor:
    return gradient.sign() if norm == "linf" else gradient / _length(gradient).clamp_min(1e-12)


def _random(images: Tensor, norm: Literal["linf", "l2"], eps: float, draw: torch.Generator) -> Tensor:
    """A uniformly distributed point of each image's ball."""
    if norm == "linf":
        return torch.empty_like(images).uniform_(-eps, eps, generator=draw)
    direction = torch.empty_like(images).normal_(generator=draw)
    radius = torch.empty(len(images), *[1] * (images.ndim - 1), device=images.device).uniform_(generator=draw)
    return eps * radius ** (1 / images[0].numel()) * direction / _length(direction)


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
    return length
