"""The convolution of a block: filters of norm 1 (Eq. 1), and a HaH gradient that stays at home."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from engine.nn.equations import WEIGHT_EPS


class _UnitNorm(torch.autograd.Function):
    """w / (|w| + eps) for each filter; the backward pass takes half as many sweeps over w as autograd's."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
        ctx.save_for_backward(weight, norm)
        normalized: Tensor = weight / (norm + WEIGHT_EPS)
        return normalized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        weight, norm = ctx.saved_tensors
        divisor = norm + WEIGHT_EPS
        along = (gradient * weight).sum((1, 2, 3), keepdim=True)
        along.div_(divisor.square() * norm).masked_fill_(norm == 0, 0)  # a silent filter has no direction
        result: Tensor = (gradient / divisor).addcmul_(weight, along, value=-1)
        return result


def unit_norm(weight: Tensor) -> Tensor:
    """Each filter of weight [N, C, h, w] divided by its l2 norm + 1e-6."""
    normalized: Tensor = _UnitNorm.apply(weight)
    return normalized


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


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, to_input: bool) -> Tensor:
    """The gradient of x [B, C, H, W] or of weight [N, C, h, w] for that of the output, g [B, H, W, N], in x's dtype."""
    pad = weight.shape[2] // 2
    result = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2), x, weight.to(x.dtype), None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1,
        [to_input, not to_input, False],
    )  # fmt: skip
    gradient: Tensor = result[0 if to_input else 1]
    return gradient
