"""Norm balls around images: sizes of perturbations, projections into a ball, points of it to start from."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from engine.data.draws import ImageDraws

Ball = Literal["linf", "l2"]  # the norms that attacks of a given size are in
Norm = Literal["l0", "l1", "l2", "linf"]
_ORDER = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}


def size(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each image's perturbation, [B]; l0 counts the elements that are not 0. delta: [B, ...]."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), _ORDER[norm], dim=1)
    return length


def project(delta: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
    """The nearest perturbation (in L2) of norm at most ``eps``, a number or one per image [B]; delta: [B, ...]."""
    radius = (eps if isinstance(eps, Tensor) else delta.new_full((1,), eps)).view(-1, *[1] * (delta.ndim - 1))
    if norm == "linf":
        return delta.clamp(-radius, radius)
    if norm == "l2":
        return delta * (radius / _length(delta).clamp_min(1e-12)).clamp_max(1)
    flat = delta.flatten(1)
    radius = radius.flatten(1)
    largest, order = flat.abs().sort(1, descending=True)
    rank = torch.arange(flat.shape[1], device=delta.device)
    if norm == "l0":  # the eps largest elements
        kept = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, (rank < radius).expand_as(flat))
        return delta * kept.view_as(delta)
    excess = (largest.cumsum(1) - radius) / (rank + 1)  # l1: every element shrinks by the same amount, down to 0
    last = (largest > excess).sum(1, keepdim=True).clamp_min(1) - 1
    shrunk = (flat.abs() - excess.gather(1, last).clamp_min(0)).clamp_min(0)
    return (flat.sign() * shrunk).view_as(delta)


def steepest(gradient: Tensor, norm: Ball) -> Tensor:
    """The direction of norm 1 that raises the loss most, to first order; gradient: [B, ...]."""
    return gradient.sign() if norm == "linf" else gradient / _length(gradient).clamp_min(1e-12)


def random_start(images: Tensor, norm: Ball, eps: float, draw: torch.Generator) -> Tensor:
    """A uniformly distributed point of each image's ball, drawn for the whole batch."""
    if norm == "linf":
        return torch.empty_like(images).uniform_(-eps, eps, generator=draw)
    direction = torch.empty_like(images).normal_(generator=draw)
    radius = torch.empty(len(images), *[1] * (images.ndim - 1), device=images.device).uniform_(generator=draw)
    return eps * radius ** (1 / images[0].numel()) * direction / _length(direction)


def drawn_start(norm: Ball, eps: float, draws: ImageDraws) -> Tensor:
    """A uniformly distributed point of each image's ball, drawn for each image."""
    if norm == "linf":
        return eps * draws.uniform()
    direction = draws.normal()
    radius = (draws.uniform(1, 1, 1) + 1) / 2
    return eps * radius ** (1 / direction[0].numel()) * direction / _length(direction)


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
    return length
