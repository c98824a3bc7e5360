"""The Hebbian/anti-Hebbian cost of a block (Eq. 4), and the convolution that keeps its gradient at home."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from engine.experiment.architecture import strongest


def hah_cost(y: Tensor, top_k: float = 0.1, lambda_: float = 0.1) -> Tensor:
    """Eq. 4: the mean of the K strongest filters minus lambda times the mean of the others, to be maximized.

    y: [B, N, H, W] activations after ReLU, before divisive normalization. K = ceil(top_k * N). Returns a scalar,
    the mean over images and locations. Its gradient takes three values: 1/K, -lambda/(N - K), both over B*H*W.
    Subtract alpha times it from the loss (Eq. 5).
    """
    check_maps(y)
    if not len(y):
        raise ValueError("a batch without images has no HaH cost")
    if not 0 <= lambda_ < math.inf:
        raise ValueError(f"lambda must be at least 0, got {lambda_}")
    N = y.shape[1]
    K = strengthened(top_k, N)
    # Only the sum of the strongest and the sum of all are needed: one selection, no sorting.
    strong = y.topk(K, dim=1, sorted=False).values.sum(1).mean()
    total = y.sum(1).mean()
    return (1 / K + lambda_ / (N - K)) * strong - lambda_ / (N - K) * total


def check_maps(y: Tensor) -> None:
    """Raise ValueError unless y is floating-point [B, N, H, W] with filters and locations."""
    if y.ndim != 4 or not y.is_floating_point() or 0 in y.shape[1:]:
        raise ValueError(f"activations are floating-point [B, N, H, W], got {y.dtype} {list(y.shape)}")


def strengthened(top_k: float, N: int) -> int:
    """K of N filters; raises ValueError where that is none or every one."""
    K = strongest(top_k, N)
    if not 0 < K < N:
        raise ValueError(f"top_k = {top_k} takes {K} of {N} filters; it must take at least one and leave at least one")
    return K


def local_conv2d(x: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 1) -> tuple[Tensor, Tensor]:
    """One convolution, given out twice: the same values, but the second's gradient reaches ``weight`` only.

    x: [B, C, H, W]; weight: [N, C, h, w]. What is computed from the second output (the HaH cost) moves this
    block's weights and not the blocks before it, which is the authors' local rule, in one forward and one backward.
    """
    first, second = _LocalConv2d.apply(x, weight, stride, padding)
    return first, second


class _LocalConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        ctx.set_materialize_grads(False)
        u = F.conv2d(x, weight.to(x.dtype), None, stride, padding)
        return u, u.view_as(u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        g, h = gradients
        dx = dw = None
        if g is not None and ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, weight.to(x.dtype), g, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            parts = [part for part in (g, h) if part is not None]
            if len(parts) == 2 and x.dtype == weight.dtype:
                parts = [parts[0] + parts[1]]
            # Below the weights' precision (bfloat16) the HaH gradient would drown in a sum of the two, so there each
            # has a product of its own.
            for part in parts:
                product = conv2d_weight(x, weight.shape, part, ctx.stride, ctx.padding).to(weight.dtype)
                dw = product if dw is None else dw + product
        return dx, dw, None, None
