"""Projected gradient descent in a norm ball (Madry et al. 2018), for training and quick looks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.adversarial.balls import Ball, project, steepest
from engine.probes.observation import evaluating


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Ball,
    eps: float,
    steps: int,
    step_size: float,
    start: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor] = _cross_entropy,
    mode: Literal["eval", "train"] = "eval",
) -> Tensor:
    """Images [B, C, H, W] in [0, 1] within ``eps`` of the given ones that raise the ``loss`` of (logits, labels).

    Begins at the perturbation ``start`` [B, C, H, W], a point of the ball. The network is attacked in evaluation mode
    (BatchNorm's running statistics), or with ``mode`` "train" as it is, a network in training (the batch's, and the
    running ones move); its parameters receive no gradient. Returns a tensor of the same shape, detached.
    """
    adversarial = (images + start).clamp(0, 1)
    with evaluating(network) if mode == "eval" else nullcontext():
        for _ in range(steps):
            adversarial.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(network(adversarial), labels), adversarial)
            with torch.no_grad():
                moved = adversarial + step_size * steepest(gradient, norm)
                adversarial = (images + project(moved - images, norm, eps)).clamp(0, 1)
    return adversarial.detach()
