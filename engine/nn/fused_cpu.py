"""A HaH block on the CPU as one differentiable operation: loops that Numba compiles, so no compiler is needed.

Each thread takes a few images at a time from beginning to end, so that everything between the convolutions stays in
its cache and no thread waits for another. Selection is NumPy's vectorized sort, several times faster than torch.topk
and torch.kthvalue and exact like them. Only the activations, the output and two values a location are kept for the
backward pass, which is written out: the HaH gradient is a mask of three values, so dX = dgrad(g) and
dW = wgrad(g + h).

The reference it is tested against is the plain composition in `engine.nn.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.nn.kernels import Settings, convolution_backward

_PART_ELEMENTS = 1 << 18  # of the activations that a thread takes at a time
_APART = 16  # between maps, whose size is a power of two, so that their beginnings do not share a cache set

# Sums may be reordered (which is what lets them use vector instructions); nothing is assumed of NaN or infinities.
_compiled: Callable[[Callable[..., None]], Callable[..., None]] = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc"}
)


@_compiled
def _rectify(y, copy):
    """ReLU in place, and a copy of the result."""
    y, copy = y.reshape(-1), copy.reshape(-1)
    zero = y.dtype.type(0)
    for n in range(len(y)):
        value = zero if y[n] <= 0 else y[n]
        y[n] = value
        copy[n] = value


@_compiled
def _strengthen(ordered, K, kth, sums):
    """The K-th strongest activation at each location of ordered ones [b, L, N], and what Eq. 4 is made of.

    sums [b, 3]: of the K strongest, of all, and whether the K-th is equal to the next.
    """
    images, L, N = ordered.shape
    for i in range(images):
        strong, total, tied = 0.0, 0.0, False
        for place in range(L):
            top = every = ordered.dtype.type(0)
            for n in range(N - K, N):
                top += ordered[i, place, n]
            for n in range(N):
                every += ordered[i, place, n]
            least = ordered[i, place, N - K]
            tied = tied or (least > 0 and ordered[i, place, N - K - 1] == least)
            kth[i, place] = least
            strong += top
            total += every
        sums[i, 0], sums[i, 1], sums[i, 2] = strong, total, tied


@_compiled
def _normalize(y, z, maps, divisor, peak, height, width, sigma, eps, pool):
    """Eq. 2: z [b, L, N] of y, the divisor [b, L] and where its maximum is [b]; maps [b, N, L] are z transposed."""
    images, L, N = y.shape
    rows, field = np.empty((height + 2, width, N), y.dtype), np.empty(L, y.dtype)
    rows[0], rows[-1] = 0, 0
    for i in range(images):
        if pool == 3:
            _row_maxima(y[i], rows[1:-1])
        peak[i], largest = 0, -1.0
        for place in range(L):
            mean = y.dtype.type(0)
            if pool == 3:
                row, column = place // width, place % width
                for n in range(N):
                    mean += max(max(rows[row, column, n], rows[row + 1, column, n]), rows[row + 2, column, n])
            else:
                for n in range(N):
                    mean += y[i, place, n]
            mean /= N
            field[place] = mean
            if mean > largest:
                peak[i], largest = place, mean
        for place in range(L):
            d = y.dtype.type(sigma * field[peak[i]] + (1 - sigma) * field[place] + eps)
            if d == 0:  # every filter is silent everywhere
                d = y.dtype.type(1)
            divisor[i, place] = d
            for n in range(N):
                z[i, place, n] = y[i, place, n] / d
        if maps.size:
            _transpose(z[i], maps[i])


@_compiled
def _transpose(z, maps):
    """maps [N, L] of z [L, N], four locations at a time."""
    L, N = z.shape
    whole = L - L % 4
    for place in range(0, whole, 4):
        for n in range(N):
            first, second, third, fourth = z[place, n], z[place + 1, n], z[place + 2, n], z[place + 3, n]
            maps[n, place], maps[n, place + 1], maps[n, place + 2], maps[n, place + 3] = first, second, third, fourth
    for place in range(whole, L):
        for n in range(N):
            maps[n, place] = z[place, n]


@_compiled
def _cut(z, tau):
    """Eq. 3 in place: zero where z [b, L, N] is not above tau [b, N]."""
    images, L, N = z.shape
    zero = z.dtype.type(0)
    for i in range(images):
        for place in range(L):
            for n in range(N):
                z[i, place, n] = zero if z[i, place, n] <= tau[i, n] else z[i, place, n]


@_compiled
def _row_maxima(y, rows):
    """rows [H, W, N]: the maximum of each location of y [L, N] and its neighbours to the left and right."""
    height, width, N = rows.shape
    for row in range(height):
        for column in range(width):
            place = row * width + column
            left = place - (column > 0)
            right = place + (column < width - 1)
            for n in range(N):
                rows[row, column, n] = max(max(y[left, n], y[place, n]), y[right, n])


@_compiled
def _unpool(y, field, to_y, rows, line, spread, height, width):
    """The gradient of the 3x3 max-pool: field [L] goes to the first maximum of each neighbourhood.

    y, to_y: [L, N]. First to the first of three rows that holds the maximum, then to the first of its three columns.
    Working space: rows [H + 4, W, N], line [W + 4, N] and spread [W + 2, N], whose borders must be -1, -1 and 0.
    """
    N = y.shape[1]
    zero = y.dtype.type(0)
    _row_maxima(y, rows[2:-2])
    for row in range(height):
        for column in range(width):
            place = row * width + column
            here = field[place]
            above = field[place - width] if row > 0 else zero
            below = field[place + width] if row < height - 1 else zero
            before2, before = rows[row, column], rows[row + 1, column]
            after, after2 = rows[row + 3, column], rows[row + 4, column]
            own, share, copy = rows[row + 2, column], spread[column + 1], line[column + 2]
            for n in range(N):
                value = own[n]
                first, last = value > before[n], value >= after[n]
                share[n] = (
                    (here if first and last else zero)
                    + (above if first and value > before2[n] else zero)
                    + (below if last and value >= after2[n] else zero)
                )
            for n in range(N):
                copy[n] = y[place, n]
        for column in range(width):
            before2, before, own = line[column], line[column + 1], line[column + 2]
            after, after2 = line[column + 3], line[column + 4]
            left, here_, right = spread[column], spread[column + 1], spread[column + 2]
            target = to_y[row * width + column]
            for n in range(N):
                value = own[n]
                first, last = value > before[n], value >= after[n]
                target[n] = (
                    (here_[n] if first and last else zero)
                    + (left[n] if first and value > before2[n] else zero)
                    + (right[n] if last and value >= after2[n] else zero)
                )


@_compiled
def _backward(
    g, y, o, divisor, peak, kth, to_input, to_weight, height, width, K, sigma, pool, strong, weak, separate, tied
):
    """What reaches the block's input and its weights; arrays [b, L, N].

    Where they are not separate, to_weight and to_input are the same array.
    """
    images, L, N = y.shape
    zero = y.dtype.type(0)
    rows, line = np.full((height + 4, width, N), -1, y.dtype), np.full((width + 4, N), -1, y.dtype)
    spread, field = np.zeros((width + 2, N), y.dtype), np.empty(L, y.dtype)
    for i in range(images):
        whole = 0.0
        for place in range(L):
            product = zero
            for n in range(N):
                product += g[i, place, n] * o[i, place, n]
            g_divisor = -product / divisor[i, place]
            whole += g_divisor
            field[place] = (1 - sigma) * g_divisor
        field[peak[i]] += sigma * whole
        field /= N
        if pool == 3:
            _unpool(y[i], field, to_input[i], rows, line, spread, height, width)
        for place in range(L):
            d, least = divisor[i, place], kth[i, place]
            if pool != 3:
                to_input[i, place] = field[place]
            for n in range(N):
                gradient = to_input[i, place, n] + (g[i, place, n] if o[i, place, n] > 0 else zero) / d
                to_input[i, place, n] = gradient if y[i, place, n] > 0 else zero
            if K and separate:
                for n in range(N):
                    h = strong if y[i, place, n] >= least else weak
                    to_weight[i, place, n] = to_input[i, place, n] + (h if y[i, place, n] > 0 else zero)
            elif K:
                for n in range(N):
                    h = strong if y[i, place, n] >= least else weak
                    to_input[i, place, n] += h if y[i, place, n] > 0 else zero
            if tied:
                _settle_ties(y[i, place], least, K, to_weight[i, place], strong, weak)


@_compiled
def _settle_ties(y, kth, K, to_weight, strong, weak):
    """Of several filters that are equal to the K-th strongest, the first ones are strengthened, K in all."""
    at_least = 0
    for n in range(len(y)):
        at_least += y[n] >= kth
    surplus = at_least - K
    for n in range(len(y) - 1, -1, -1):
        if surplus <= 0 or kth <= 0:
            return
        if y[n] == kth:
            to_weight[n] += weak - strong
            surplus -= 1


def hah_block(x: Tensor, weight: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The output [B, N, H, W] and HaH cost (scalar) of a block with the convolution ``weight`` [N, C, h, w].

    x: [B, C, H, W], float32 or float64, on the CPU.
    """
    output, cost = _HaHBlock.apply(x, weight, settings)
    return output, cost


class _HaHBlock(torch.autograd.Function):
    # Inside, activations are [B, H * W, N]: filters lie side by side, as the convolution wants them.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        u = F.conv2d(x, weight, padding=weight.shape[2] // 2).permute(0, 2, 3, 1).contiguous()
        B, H, W, N = u.shape
        K, k, L = settings.K, settings.k, H * W
        y, o = u.view(B, L, N), torch.empty_like(u).view(B, L, N)
        divisor, peak = y.new_empty(B, L), torch.empty(B, dtype=torch.long)
        kth, sums = y.new_empty(B if K else 0, L), torch.zeros(B, 3, dtype=torch.float64)

        def work(part: slice) -> None:
            y_, o_, divisor_, peak_, kth_, sums_ = (a.numpy()[part] for a in (y, o, divisor, peak, kth, sums))
            scratch = np.empty((len(y_), N, L + _APART), y_.dtype)
            ordered, maps = scratch.reshape(-1)[: y_.size].reshape(y_.shape), scratch[: len(y_) if k else 0, :, :L]
            _rectify(y_, ordered)
            if K:
                ordered.sort(axis=2)
                _strengthen(ordered, K, kth_, sums_)
            _normalize(y_, o_, maps, divisor_, peak_, H, W, settings.sigma, settings.eps, settings.pool)
            if k:
                maps.sort(axis=2)
                _cut(o_, np.ascontiguousarray(maps[:, :, k - 1]))
            elif settings.scale is not None:
                _cut(o_, settings.scale * o_.mean(1))

        _each_part(y, work)
        strong, total, tied = sums.sum(0).tolist()
        rest = settings.lambda_ / (N - K)
        strengthen = 1 / K + rest if K else 0.0
        cost = y.new_tensor((strengthen * strong - rest * total) / (B * L))
        ctx.save_for_backward(x, weight, y, o, divisor, peak, kth)
        ctx.settings, ctx.size, ctx.tied = settings, (H, W), tied > 0
        return o.view(B, H, W, N).permute(0, 3, 1, 2), cost

    @staticmethod
    def backward(ctx: Any, g_o: Tensor, g_cost: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, y, o, divisor, peak, kth = ctx.saved_tensors
        settings: Settings = ctx.settings
        (H, W), (B, L, N), K = ctx.size, y.shape, settings.K
        factor = float(g_cost) / (B * L)
        kind = y.numpy().dtype.type
        strong, weak = kind(factor / max(K, 1)), kind(-factor * settings.lambda_ / (N - K))
        g = g_o.permute(0, 2, 3, 1).contiguous().view(B, L, N)
        # g moves the block's input, g + h its weights; with the full gradient both are the sum.
        to_weight = torch.empty_like(y)
        separate = settings.local and K > 0 and ctx.needs_input_grad[0]
        to_input = torch.empty_like(y) if separate else to_weight
        arrays = [tensor.numpy() for tensor in (g, y, o, divisor, peak, kth if K else divisor, to_input, to_weight)]
        numbers = (H, W, K, settings.sigma, settings.pool, strong, weak, separate, ctx.tied)
        _each_part(y, partial(_backward_part, arrays, numbers))
        del arrays, g, g_o  # what is not needed any more makes room for the convolutions
        size = (B, H, W, N)
        dw = convolution_backward(to_weight.view(size), x, weight, False) if ctx.needs_input_grad[1] else None
        del to_weight
        dx = convolution_backward(to_input.view(size), x, weight, True) if ctx.needs_input_grad[0] else None
        return dx, dw, None


def _backward_part(arrays: list[Any], numbers: tuple[Any, ...], part: slice) -> None:
    _backward(*(array[part] for array in arrays), *numbers)


def _each_part(y: Tensor, work: Callable[[slice], None]) -> None:
    """``work`` on a few of the images of y [B, L, N] at a time, spread over torch's number of threads."""
    threads = min(torch.get_num_threads(), len(y))
    images = max(1, min(_PART_ELEMENTS // y[0].numel(), -(-len(y) // threads)))
    parts = [slice(start, start + images) for start in range(0, len(y), images)]
    for _ in map(work, parts) if threads == 1 else _threads(threads).map(work, parts):
        pass


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "hah-block")
