"""What the paper measures of a block's activations: Hoyer sparsity (Figure 2) and SNR (Eq. 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hoyer(o: Tensor) -> Tensor:
    """Sparsity of each location over filters: (l1 / l2 - 1) / (sqrt(N) - 1), from 0 (one filter) to 1 (all alike).

    o: [B, N, ...] -> [B, ...]; lower is sparser (Hoyer 2004, normalized to [0, 1] as in Figure 2). NaN where every
    filter is silent: such a location has no ratio and belongs in no mean.
    """
    N = o.shape[1]
    if N < 2:
        raise ValueError(f"sparsity over filters needs at least two of them, got {N}")
    l1 = o.abs().sum(1)
    l2: Tensor = torch.linalg.vector_norm(o, dim=1)
    return (l1 / l2 - 1) / (math.sqrt(N) - 1)


def snr_ratio(clean: Tensor, noisy: Tensor) -> Tensor:
    """|f(x)|^2 / |f(x + w) - f(x)|^2 of each image: the ratio inside the mean of Eq. 6.

    clean, noisy: [B, ...] -> [B]. Infinite or NaN where noise changed nothing; such images belong in no mean.
    """
    power = clean.flatten(1).square().sum(1)
    error = (noisy - clean).flatten(1).square().sum(1)
    return power / error


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified as its label, bool [B]; scores that are no numbers classify nothing.

    logits: [B, classes].
    """
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


def decibel(ratio: float) -> float:
    """10 log10 of a power ratio."""
    return 10 * math.log10(ratio)
