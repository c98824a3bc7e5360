"""A HaH block on the CPU as one differentiable operation: the fastest exact form that needs no compiler.

Images are worked through a few at a time, so that everything between the convolutions stays in the cache, and
selection is NumPy's vectorized sort, several times faster than torch.topk and torch.kthvalue and exact like them.
Only the activations, the output and one value a location are kept for the backward pass, which is written out:
the HaH gradient is a mask of three values, so dX = dgrad(g) and dW = wgrad(g + h).

The reference it is tested against is the plain composition in `engine.nn.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.nn.kernels import Settings

_CHUNK_ELEMENTS = 1 << 18  # of one chunk of activations: a few buffers of it fit a core's cache


def hah_block(x: Tensor, weight: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The output [B, N, H, W] and HaH cost (scalar) of a block with 3x3 convolution ``weight`` [N, C, 3, 3].

    x: [B, C, H, W], float32 or float64, on the CPU.
    """
    output, cost = _HaHBlock.apply(x, weight, settings)
    return output, cost


class _HaHBlock(torch.autograd.Function):
    # Inside, activations are [B, H, W, N]: filters lie side by side, as the convolution wants them.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, weight, padding=weight.shape[2] // 2).permute(0, 2, 3, 1).contiguous().relu_()
        B, H, W, N = y.shape
        o, divisor, peak = torch.empty_like(y), y.new_empty(B, H, W, 1), torch.empty(B, dtype=torch.long)
        kth = y.new_empty((B, H, W, 1) if settings.K else 0)
        strong = total = 0.0
        tied = False
        for part in _chunks(y):
            if settings.K:
                ordered = _sorted(y[part].clone())
                top, below = ordered[..., N - settings.K :], ordered[..., N - settings.K - 1]
                kth[part] = top[..., :1]
                tied = tied or bool(((top[..., 0] == below) & (below > 0)).any())
                strong += top.sum(dtype=torch.float64).item()
                total += ordered.sum(dtype=torch.float64).item()
            divisor[part], peak[part] = _divisor(y[part], settings)
            tau = _threshold(torch.div(y[part], divisor[part], out=o[part]), settings)
            if tau is not None:
                _where_positive(o[part], o[part] - tau, out=o[part])
        rest = settings.lambda_ / (N - settings.K)
        strengthen = 1 / settings.K + rest if settings.K else 0.0
        cost = y.new_tensor((strengthen * strong - rest * total) / (B * H * W))
        ctx.save_for_backward(x, weight, y, o, divisor, peak, kth)
        ctx.settings, ctx.tied = settings, tied
        return o.permute(0, 3, 1, 2), cost

    @staticmethod
    def backward(ctx: Any, g_o: Tensor, g_cost: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, y, o, divisor, peak, kth = ctx.saved_tensors
        settings: Settings = ctx.settings
        B, H, W, N = y.shape
        scale = float(g_cost) / (B * H * W)
        strong = y.new_tensor(scale / max(settings.K, 1))
        weak = y.new_tensor(-scale * settings.lambda_ / (N - settings.K))
        g_o = g_o.permute(0, 2, 3, 1)
        # g moves the block's input, g + h its weights; with the full gradient both are the sum.
        to_weight = torch.empty_like(y)
        separate = settings.local and ctx.needs_input_grad[0]
        to_input = torch.empty_like(y) if separate else to_weight
        for part in _chunks(y):
            g = _activation_gradient(g_o[part], y[part], o[part], divisor[part], peak[part], settings)
            if separate:
                _where_positive(g, y[part], out=to_input[part])
            if not settings.K:
                pass
            elif ctx.tied:
                g += torch.where(_strongest(y[part], kth[part], settings.K), strong, weak)
            else:
                g += _where_positive((weak - strong).expand_as(g), kth[part] - y[part]).add_(strong)
            _where_positive(g, y[part], out=to_weight[part])
        dx = _convolution_backward(to_input, x, weight, True) if ctx.needs_input_grad[0] else None
        dw = _convolution_backward(to_weight, x, weight, False) if ctx.needs_input_grad[1] else None
        return dx, dw, None


def _chunks(y: Tensor) -> Iterator[slice]:
    images = max(1, _CHUNK_ELEMENTS // y[0].numel())
    return (slice(start, start + images) for start in range(0, len(y), images))


def _sorted(rows: Tensor) -> Tensor:
    """``rows`` sorted in place along the last dimension."""
    rows.numpy().sort(axis=-1)
    return rows


def _divisor(y: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Eq. 2's divisor of y [b, H, W, N]: [b, H, W, 1], and the first location of M_max in each image: [b]."""
    field = _neighbour_max(_neighbour_max(y, 2), 1) if settings.pool == 3 else y
    M = field.mean(3, keepdim=True)
    M_max, peak = M.flatten(1).max(1)
    divisor = settings.sigma * M_max.view(-1, 1, 1, 1) + (1 - settings.sigma) * M + settings.eps
    return divisor.masked_fill_(divisor == 0, 1), peak


def _threshold(z: Tensor, settings: Settings) -> Tensor | None:
    """Eq. 3's tau of z [b, H, W, N]: [b, 1, 1, N], or None where everything is kept."""
    if settings.k:
        rows = _sorted(z.flatten(1, 2).mT.clone(memory_format=torch.contiguous_format))
        return rows[:, None, None, :, settings.k - 1].contiguous()
    return None if settings.scale is None else settings.scale * z.mean((1, 2), keepdim=True)


def _activation_gradient(
    g_o: Tensor, y: Tensor, o: Tensor, divisor: Tensor, peak: Tensor, settings: Settings
) -> Tensor:
    """The gradient of threshold and divisive norm with respect to y (Eqs. 2 and 3 backwards), [b, H, W, N]."""
    g_divisor = (g_o * o).sum(3, keepdim=True).div_(divisor).neg_()
    g_M = (1 - settings.sigma) * g_divisor
    at_peak = g_M.flatten(1)  # a view
    at_peak[torch.arange(len(y)), peak] += settings.sigma * g_divisor.flatten(1).sum(1)
    g_M /= y.shape[3]
    # tau >= 0, so what the threshold kept is positive in o; a zero it kept has no gradient through the ReLU.
    g = _where_positive(g_o, o).div_(divisor)
    if settings.pool == 1:
        return g.add_(g_M)
    rows = _neighbour_max(y, 2)
    field = _neighbour_max(rows, 1)
    g_rows = _to_first_maximum(g_M.expand_as(y), rows, field, 1)
    return g.add_(_to_first_maximum(g_rows, y, rows, 2))


def _neighbour_max(y: Tensor, dim: int) -> Tensor:
    """The maximum of each entry and its two neighbours along ``dim``."""
    n = y.shape[dim]
    out = y.clone()
    torch.maximum(out.narrow(dim, 1, n - 1), y.narrow(dim, 0, n - 1), out=out.narrow(dim, 1, n - 1))
    torch.maximum(out.narrow(dim, 0, n - 1), y.narrow(dim, 1, n - 1), out=out.narrow(dim, 0, n - 1))
    return out


def _to_first_maximum(g: Tensor, y: Tensor, maximum: Tensor, dim: int) -> Tensor:
    """`_neighbour_max` backwards: each entry of g goes to the first of the two or three entries that is the maximum."""
    n = y.shape[dim]
    out = torch.empty_like(y)
    # What the neighbour before does not take is left for the entry itself, and what that does not take, for the
    # neighbour after it.
    left = g.clone(memory_format=torch.contiguous_format)
    later = left.narrow(dim, 1, n - 1)
    taken = later.clone()
    _where_positive(taken, maximum.narrow(dim, 1, n - 1) - y.narrow(dim, 0, n - 1), out=later)
    taken -= later
    after = _where_positive(left, maximum - y)
    torch.sub(left, after, out=out)
    out.narrow(dim, 0, n - 1).add_(taken)
    out.narrow(dim, 1, n - 1).add_(after.narrow(dim, 0, n - 1))
    return out


def _where_positive(value: Tensor, condition: Tensor, out: Tensor | None = None) -> Tensor:
    """``value`` where ``condition`` > 0, else 0, in one pass (ReLU's own backward; a mask would cost a conversion)."""
    if out is None:
        return torch.ops.aten.threshold_backward(value, condition, 0)  # type: ignore[no-any-return]
    torch.ops.aten.threshold_backward.grad_input(value, condition, 0, grad_input=out)
    return out


def _strongest(y: Tensor, kth: Tensor, K: int) -> Tensor:
    """Which K filters are strongest at each location, the first ones where several are equal."""
    above, equal = y > kth, y == kth
    return above | (equal & (equal.cumsum(3) <= K - above.sum(3, keepdim=True)))


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, to_input: bool) -> Tensor:
    pad = weight.shape[2] // 2
    result = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2),
        x,
        weight,
        None,
        [1, 1],
        [pad, pad],
        [1, 1],
        False,
        [0, 0],
        1,
        [to_input, not to_input, False],
    )
    gradient: Tensor = result[0 if to_input else 1]
    return gradient
