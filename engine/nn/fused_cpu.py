"""A HaH block on the CPU as one differentiable operation: loops that Numba compiles, so no compiler is needed.

Each thread takes whole images from beginning to end, so that everything between the convolutions stays in its cache
and no thread waits for another. What Eqs. 3 and 4 select is found by counting instead of sorting (`_select`), exactly,
ties included. Only the activations, the output and two values a location are kept for the backward pass, which is
written out: the HaH gradient is a mask of three values, so dX = dgrad(g) and dW = wgrad(g + h).

Inner loops run over slices from 0, because Numba tests an index that may be negative, and a test keeps a loop from
becoming vector instructions; counts are floating-point numbers for the same reason.

The reference it is tested against is the plain composition in `engine.nn.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from engine.nn.convolution import convolution_backward
from engine.nn.equations import BlockNumbers

_APART = 16  # between maps, whose size is a power of two, so that their beginnings do not share a cache set
_PARTS = 4  # that each thread takes one after the other, so that a thread that was held up leaves some to others


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Sums may be reordered (which is what lets them use vector instructions); nothing is assumed of NaN or infinities.
    compiled = numba.njit(nogil=True, fastmath={"reassoc"})(function)
    with suppress(RuntimeError):  # neither the folder of this file nor a home can be written: anew in each process
        compiled.enable_caching()
    return compiled


@_compiled
def _forward(y, o, divisor, peak, cut, sums, height, width, K, k, mean_scale, sigma, eps, pool):
    """From convolutions in y [b, L, N] to activations in y and the block's output in o [b, L, N].

    divisor [b, L] and the place of its maximum, peak [b], are Eq. 2's. Filters above cut [b, L] are the K strongest of
    a location, and sums [b, 3] what Eq. 4 is made of: the sum of the K strongest, of all, and whether a location has
    more than K that could be meant. k: the fraction threshold's; mean_scale: the mean threshold's, else negative.
    An image with NaN in it becomes NaN as a whole; peak and cut must be 0 before.
    """
    images, L, N = y.shape
    rows, line = np.zeros((height + 2, width * N), y.dtype), np.empty(width * N, y.dtype)
    maps, tau = np.empty((N, L + _APART), y.dtype), np.empty(N, y.dtype)
    low, waiting = np.empty(max(L, N), y.dtype), np.empty(max(L, N), np.int64)
    for i in range(images):
        if _rectify(y[i].reshape(-1)):
            o[i], divisor[i], sums[i, 0], sums[i, 1] = np.nan, np.nan, np.nan, np.nan
            continue
        if K:
            _select(y[i], N, N - K, cut[i], low, waiting)
            _strengthen(y[i], K, cut[i], sums[i])
        peak[i] = _divisors(y[i], divisor[i], rows, line, sigma, eps, pool)
        _divide(y[i], divisor[i], o[i])
        if k:
            _transpose(o[i], maps)
            _select(maps, L, k, tau, low, waiting)
            _cut(o[i], tau)
        elif mean_scale >= 0:
            _means(o[i], mean_scale, tau)
            _cut(o[i], tau)


@_compiled
def _select(values, n, k, tau, low, waiting):
    """tau [m] of values [m, n and more], none negative: k values of a row are not above it (more where some are equal).

    tau lies between the k-th smallest and the next. At most (n - k) values exceed sum / (n - k), where the search
    begins; each pass over a row counts what is not above three points between the bounds, the lower of which has fewer
    than k. Rows that are found wait no longer. Working space: low and waiting, of m and more.
    """
    m, kind = len(values), values.dtype.type
    zero, one, wanted, slack = kind(0), kind(1), kind(k), kind(1.0001 / (n - k))
    for i in range(m):
        total, row = zero, values[i, :n]
        for j in range(n):
            total += row[j]
        low[i], tau[i], waiting[i] = zero, total * slack, i
    rows, first, second, third = m, zero, kind(0.25), kind(0.5)  # many rows have k zeros
    while rows:
        left = 0
        for place in range(rows):
            i = waiting[place]
            row, below, above = values[i, :n], low[i], tau[i]
            span = above - below
            a, b, c = below + first * span, below + second * span, below + third * span
            to_a = to_b = to_c = zero
            for j in range(n):
                value = row[j]
                to_a += one if value <= a else zero
                to_b += one if value <= b else zero
                to_c += one if value <= c else zero
            below = a if to_a <= wanted else below
            below = b if to_b <= wanted else below
            below = c if to_c <= wanted else below
            above = c if to_c >= wanted else above
            above = b if to_b >= wanted else above
            above = a if to_a >= wanted else above
            low[i], tau[i], waiting[left] = below, above, i
            middle = below + kind(0.5) * (above - below)
            left += (below < middle) & (middle < above)  # else they are equal, or next to each other
        rows, first, second, third = left, kind(0.25), kind(0.5), kind(0.75)


@_compiled
def _rectify(y):
    """ReLU in place; returns whether there is NaN, which stays."""
    zero, is_nan = y.dtype.type(0), False
    for n in range(len(y)):
        value = y[n]
        is_nan |= value != value
        y[n] = zero if value <= 0 else value
    return is_nan


@_compiled
def _strengthen(y, K, cut, sums):
    """Add up the K strongest activations of each location of y [L, N] and all of them; see `_forward`."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    strong, total = 0.0, 0.0
    for place in range(len(y)):
        row, least = y[place], cut[place]
        top = every = above = zero
        for n in range(len(row)):
            value = row[n]
            every += value
            top += value if value > least else zero
            above += one if value > least else zero
        strong += top + (K - above) * least  # several are equal to the K-th
        total += every
        if above != K and least > 0:
            sums[2] = 1
    sums[0], sums[1] = strong, total


@_compiled
def _divisors(y, divisor, rows, line, sigma, eps, pool):
    """Eq. 2's divisor [L] of y [L, N]; returns the place of its maximum.

    Working space: rows [H + 2, W * N], whose first and last must be 0, and line [W * N].
    """
    L, N = y.shape
    height, width = len(rows) - 2, len(line) // N
    lines = y.reshape(height, -1)
    if pool == 3:
        for row in range(height):
            _maxima_of_three(lines[row], rows[row + 1], N)
    for row in range(height):
        if pool == 3:
            above, own, below = rows[row], rows[row + 1], rows[row + 2]
            for j in range(len(line)):
                line[j] = max(max(above[j], own[j]), below[j])
        else:
            values = lines[row]
            for j in range(len(line)):
                line[j] = values[j]
        for column in range(width):
            values, mean = line[column * N : (column + 1) * N], y.dtype.type(0)
            for n in range(N):
                mean += values[n]
            divisor[row * width + column] = mean / N
    peak, largest = 0, -1.0
    for place in range(L):
        if divisor[place] > largest:
            peak, largest = place, divisor[place]
    for place in range(L):
        d = y.dtype.type(sigma * largest + (1 - sigma) * divisor[place] + eps)
        divisor[place] = d if d != 0 else y.dtype.type(1)  # 0: every filter is silent everywhere
    return peak


@_compiled
def _maxima_of_three(values, maxima, apart):
    """maxima [W * apart]: of each value and those ``apart`` before and behind it, where there are such."""
    size = len(values)
    if size == apart:
        maxima[:] = values
        return
    first, second, begin = values[:apart], values[apart : 2 * apart], maxima[:apart]
    for j in range(apart):
        begin[j] = max(first[j], second[j])
    before, own, behind = values[: size - 2 * apart], values[apart : size - apart], values[2 * apart :]
    middle = maxima[apart : size - apart]
    for j in range(len(middle)):
        middle[j] = max(max(before[j], own[j]), behind[j])
    last, one_before, end = values[size - apart :], values[size - 2 * apart : size - apart], maxima[size - apart :]
    for j in range(apart):
        end[j] = max(one_before[j], last[j])


@_compiled
def _divide(y, divisor, z):
    """Eq. 2: z [L, N] of y [L, N] and divisor [L]."""
    for place in range(len(y)):
        values, quotients, d = y[place], z[place], divisor[place]
        for n in range(len(values)):
            quotients[n] = values[n] / d


@_compiled
def _transpose(z, maps):
    """maps [N, L and more] of z [L, N], four locations at a time."""
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
def _means(z, scale, tau):
    """tau [N]: ``scale`` times the mean of each filter of z [L, N]."""
    sums = np.zeros(len(tau))
    for place in range(len(z)):
        values = z[place]
        for n in range(len(values)):
            sums[n] += values[n]
    for n in range(len(tau)):
        tau[n] = scale * sums[n] / len(z)


@_compiled
def _cut(z, tau):
    """Eq. 3 in place: zero where z [L, N] is not above tau [N]."""
    zero = z.dtype.type(0)
    for place in range(len(z)):
        values = z[place]
        for n in range(len(values)):
            values[n] = zero if values[n] <= tau[n] else values[n]


@_compiled
def _unpool(y, field, to_y, rows, line, shares):
    """The gradient of the 3x3 max-pool: field [L] goes to the first maximum of each neighbourhood.

    y, to_y: [L, N]. First to the first of three rows that holds the maximum, then to the first of its three columns.
    Working space: rows [H + 4, W * N], line [(W + 4) * N] and shares [(W + 2) * N], whose borders (two rows, two and
    one columns) must be -1, -1 and 0.
    """
    N, zero = y.shape[1], y.dtype.type(0)
    height, length = len(rows) - 4, rows.shape[1]
    width, lines, targets = length // N, y.reshape(height, length), to_y.reshape(height, length)
    for row in range(height):
        _maxima_of_three(lines[row], rows[row + 2], N)
    before2, before, middle = line[:length], line[N : N + length], line[2 * N : 2 * N + length]
    behind, behind2 = line[3 * N : 3 * N + length], line[4 * N :]
    from_before, from_here, from_behind = shares[:length], shares[N : N + length], shares[2 * N :]
    for row in range(height):
        for column in range(width):
            place, begin, end = row * width + column, column * N, (column + 1) * N
            here = field[place]
            above = field[place - width] if row > 0 else zero
            below = field[place + width] if row < height - 1 else zero
            above2_, above_, own = rows[row, begin:end], rows[row + 1, begin:end], rows[row + 2, begin:end]
            below_, below2_, share = rows[row + 3, begin:end], rows[row + 4, begin:end], from_here[begin:end]
            for n in range(N):
                value = own[n]
                of_here = here if value > above_[n] else zero
                of_above = above if value > above_[n] else zero
                of_below = below if value >= below_[n] else zero
                of_here = of_here if value >= below_[n] else zero
                of_above = of_above if value > above2_[n] else zero
                of_below = of_below if value >= below2_[n] else zero
                share[n] = of_here + of_above + of_below
        values, target = lines[row], targets[row]
        for j in range(length):
            middle[j] = values[j]
        for j in range(length):
            value = middle[j]
            first, last = value > before[j], value >= behind[j]
            target[j] = (
                (from_here[j] if first & last else zero)
                + (from_before[j] if first & (value > before2[j]) else zero)
                + (from_behind[j] if last & (value >= behind2[j]) else zero)
            )


@_compiled
def _backward(
    g, y, o, divisor, peak, cut, to_input, to_weight, height, width, K, sigma, pool, strong, weak, separate, tied
):
    """What reaches the block's input and its weights; arrays [b, L, N].

    Where they are not separate, to_weight and to_input are the same array.
    """
    images, L, N = y.shape
    zero = y.dtype.type(0)
    rows, line = np.full((height + 4, width * N), -1, y.dtype), np.full((width + 4) * N, -1, y.dtype)
    shares, field = np.zeros((width + 2) * N, y.dtype), np.empty(L, y.dtype)
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
            _unpool(y[i], field, to_input[i], rows, line, shares)
        for place in range(L):
            d = divisor[i, place]
            least = cut[i, place] if K else zero
            if pool != 3:
                to_input[i, place] = field[place]
            for n in range(N):
                gradient = to_input[i, place, n] + (g[i, place, n] if o[i, place, n] > 0 else zero) / d
                to_input[i, place, n] = gradient if y[i, place, n] > 0 else zero
            if K and separate:
                for n in range(N):
                    h = strong if y[i, place, n] > least else weak
                    to_weight[i, place, n] = to_input[i, place, n] + (h if y[i, place, n] > 0 else zero)
            elif K:
                for n in range(N):
                    h = strong if y[i, place, n] > least else weak
                    to_input[i, place, n] += h if y[i, place, n] > 0 else zero
            if tied:
                _settle_ties(y[i, place], least, K, to_weight[i, place], strong, weak)


@_compiled
def _settle_ties(y, cut, K, to_weight, strong, weak):
    """Of several filters that are equal to the K-th strongest, the first ones are strengthened, K in all."""
    missing = K
    for n in range(len(y)):
        missing -= y[n] > cut
    for n in range(len(y)):
        if missing > 0 and cut > 0 and y[n] == cut:
            to_weight[n] += strong - weak
            missing -= 1


def hah_block(x: Tensor, weight: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor]:
    """The output [B, N, H, W] and HaH cost (scalar) of a block with the convolution ``weight`` [N, C, h, w].

    x: [B, C, H, W], float32 or float64, on the CPU.
    """
    output, cost = _HaHBlock.apply(x, weight, numbers)
    return output, cost


def failed(error: Exception) -> bool:
    """Whether a compiler said this: then the reference can run."""
    return isinstance(error, numba.core.errors.NumbaError)


class _HaHBlock(torch.autograd.Function):
    # Inside, activations are [B, H * W, N]: filters lie side by side, as the convolution wants them.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        u = F.conv2d(x, weight, padding=weight.shape[2] // 2).permute(0, 2, 3, 1).contiguous()
        B, H, W, N = u.shape
        K, k, L = numbers.K, numbers.k, H * W
        y, o = u.view(B, L, N), torch.empty_like(u).view(B, L, N)
        divisor, peak, cut = y.new_empty(B, L), torch.zeros(B, dtype=torch.long), y.new_zeros(B, L if K else 0)
        sums = torch.zeros(B, 3, dtype=torch.float64)
        mean_scale = -1.0 if numbers.scale is None else numbers.scale
        scalars = (H, W, K, k, mean_scale, numbers.sigma, numbers.eps, numbers.pool)
        _each_part(_forward, (y, o, divisor, peak, cut, sums), scalars)
        strong, total, tied = sums.sum(0).tolist()
        rest = numbers.lambda_ / (N - K)
        strengthen = 1 / K + rest if K else 0.0
        cost = y.new_tensor((strengthen * strong - rest * total) / (B * L))
        ctx.save_for_backward(x, weight, y, o, divisor, peak, cut)
        ctx.numbers, ctx.size, ctx.tied = numbers, (H, W), tied > 0
        return o.view(B, H, W, N).permute(0, 3, 1, 2), cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_o: Tensor, g_cost: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, y, o, divisor, peak, cut = ctx.saved_tensors
        numbers: BlockNumbers = ctx.numbers
        (H, W), (B, L, N), K = ctx.size, y.shape, numbers.K
        factor = float(g_cost) / (B * L)
        kind = y.numpy().dtype.type
        strong, weak = kind(factor / max(K, 1)), kind(-factor * numbers.lambda_ / (N - K))
        g = g_o.permute(0, 2, 3, 1).contiguous().view(B, L, N)
        # g moves the block's input, g + h its weights; with the full gradient both are the sum.
        to_weight = torch.empty_like(y)
        separate = numbers.local and K > 0 and ctx.needs_input_grad[0]
        to_input = torch.empty_like(y) if separate else to_weight
        scalars = (H, W, K, numbers.sigma, numbers.pool, strong, weak, separate, ctx.tied)
        _each_part(_backward, (g, y, o, divisor, peak, cut, to_input, to_weight), scalars)
        del g, g_o  # what is not needed any more makes room for the convolutions
        size = (B, H, W, N)
        dw = convolution_backward(to_weight.view(size), x, weight, False) if ctx.needs_input_grad[1] else None
        del to_weight
        dx = convolution_backward(to_input.view(size), x, weight, True) if ctx.needs_input_grad[0] else None
        return dx, dw, None


def _each_part(work: Callable[..., None], tensors: tuple[Tensor, ...], scalars: tuple[Any, ...]) -> None:
    """``work`` on some of the images of the tensors [B, ...] at a time, spread over torch's number of threads."""
    arrays, images = [tensor.numpy() for tensor in tensors], len(tensors[0])
    threads = min(torch.get_num_threads(), images)
    size = -(-images // (threads * _PARTS))

    def part(start: int) -> None:
        work(*(array[start : start + size] for array in arrays), *scalars)

    starts = range(0, images, size)
    for _ in map(part, starts) if threads == 1 else _threads(threads).map(part, starts):
        pass


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "hah-block")
