"""A HaH block on NVIDIA GPUs as one differentiable operation, in five Triton kernels around cuDNN's convolutions.

select     ReLU, the sum of the K strongest filters and of all at each location, the pooled mean over filters (Eqs. 1, 4
           and the field of Eq. 2), one pass over tiles of locations
normalize  divisive norm and the exact threshold (Eqs. 2 and 3), an image and a few filters at a time
project    the reduction of g * o over filters, which the divisor's gradient needs
share      the gradient of the field of Eq. 2, an image at a time
backward   everything element-wise of the backward pass, with the HaH mask

Two more divide the filters of any block by their norms, and give the gradient of that, a filter at a time.

Activations are channels-last. Selection is exact: the K-th largest activation and the k-th smallest of a map are found
bit by bit by counting, which gives what a sort would. All of it is float32 whatever the convolution's precision.
In reduced precision the HaH gradient has a product with the input of its own (a mask of three values, whose common
factor stays out of it), because it would drown in the sum with the rest.

Runs in Triton's interpreter too (TRITON_INTERPRET=1), where the tests check it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from triton.errors import TritonError

from engine.nn.convolution import convolution_backward
from engine.nn.equations import WEIGHT_EPS, BlockNumbers

LARGEST_BATCH = 1 << 31  # activations of a block, whose places are 32-bit numbers
LARGEST_MAP = 4096  # locations of an image that fit one program of `normalize`
# Activations in one program, chosen so that nothing spills out of the registers (`ptxas -v`, sm_90).
_TILE_ELEMENTS = 1024
_TILE_WARPS = 4
_MAP_ELEMENTS = 4096
_WARP_ELEMENTS = 1024  # of those of a map, for each warp
_CHUNK = 1024  # numbers of a filter at once


@triton.jit
def _select_kernel(
    u, strong, total, field, source,
    height, width, count, filters, K, pool: tl.constexpr, with_cost: tl.constexpr, bits: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    n = tl.arange(0, BLOCK)
    inside = (at < count)[:, None] & (n < filters)[None, :]
    y = _rectified(tl.load(u + at[:, None] * filters + n[None, :], mask=inside, other=0.0).to(tl.float32))
    if with_cost:
        kth = _kth_largest(y, K, bits)
        above = y > kth[:, None]
        missing = (K - tl.sum(above.to(tl.int32), 1)).to(tl.float32)
        top = tl.sum(tl.where(above, y, 0.0), 1) + missing * kth
        tl.store(strong + at, top, mask=at < count)
        tl.store(total + at, tl.sum(y, 1), mask=at < count)
    if pool == 1:
        best = y
    else:
        best = tl.full([TILE, BLOCK], -1.0, tl.float32)
        first = tl.zeros([TILE, BLOCK], tl.int32)
        column = at % width
        row = (at // width) % height
        for offset in tl.static_range(9):
            down = offset // 3 - 1
            right = offset % 3 - 1
            there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            there = there & (at < count)
            place = at + down * width + right
            seen = tl.load(
                u + place[:, None] * filters + n[None, :], mask=there[:, None] & (n < filters)[None, :], other=-1.0
            ).to(tl.float32)
            seen = tl.where(there[:, None], _rectified(seen), -1.0)
            better = (seen > best) | (seen != seen)
            best = tl.where(better, seen, best)
            first = tl.where(better, offset, first)
        tl.store(source + at[:, None] * filters + n[None, :], first.to(tl.uint8), mask=inside)
        best = tl.where((n < filters)[None, :], best, 0.0)
    tl.store(field + at, tl.sum(best, 1) / filters, mask=at < count)


@triton.jit
def _normalize_kernel(
    u, field, o,
    locations, filters, k, scale, sigma, rest, eps, mode: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    at = tl.arange(0, SIZE)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (at < locations)[:, None] & (n < filters)[None, :]
    place = (image * locations + at[:, None]) * filters + n[None, :]
    y = _rectified(tl.load(u + place, mask=inside, other=0.0).to(tl.float32))
    d = _divisor(tl.load(field + image * locations + at, mask=at < locations, other=0.0), sigma, rest, eps)
    z = tl.math.div_rn(y, tl.broadcast_to(d[:, None], [SIZE, BLOCK]))
    if mode == "fraction":
        # Padding is larger than everything, so it is never among the smallest.
        pattern = tl.where(inside, _pattern(z), 0x7FFFFFFF)
        tau_bits = tl.zeros([BLOCK], tl.int32)
        for step in range(31):
            candidate = tau_bits | (1 << (30 - step))
            smaller = tl.sum((pattern < candidate[None, :]).to(tl.int32), 0)
            tau_bits = tl.where(smaller < k, candidate, tau_bits)
        z = tl.where(z <= tau_bits.to(tl.float32, bitcast=True)[None, :], 0.0, z)
    elif mode == "mean":
        tau = scale * tl.math.div_rn(tl.sum(z, 0), tl.zeros([BLOCK], tl.float32) + locations)
        z = tl.where(z <= tau[None, :], 0.0, z)
    tl.store(o + place, z.to(o.dtype.element_ty), mask=inside)


@triton.jit
def _project_kernel(g, o, product, count, filters, TILE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    n = tl.arange(0, BLOCK)
    inside = (at < count)[:, None] & (n < filters)[None, :]
    place = at[:, None] * filters + n[None, :]
    both = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    both *= tl.load(o + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(product + at, tl.sum(both, 1), mask=at < count)


@triton.jit
def _share_kernel(product, field, divisor, g_field, locations, filters, sigma, rest, eps, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    place = tl.program_id(0) * locations + at
    values = tl.load(field + place, mask=at < locations, other=0.0)
    d = _divisor(values, sigma, rest, eps)
    g = tl.math.div_rn(-tl.load(product + place, mask=at < locations, other=0.0), d)
    peak = tl.argmax(values, 0, tie_break_left=True)
    share = rest * g + tl.where(at == peak, sigma * tl.sum(g, 0), 0.0)
    tl.store(divisor + place, d, mask=at < locations)
    tl.store(g_field + place, tl.math.div_rn(share, tl.zeros([SIZE], tl.float32) + filters), mask=at < locations)


@triton.jit
def _backward_kernel(
    u, o, g, divisor, g_field, source, g_cost, to_input, to_weight,
    height, width, count, filters, K, lambda_,
    pool: tl.constexpr, with_cost: tl.constexpr, split: tl.constexpr, local: tl.constexpr, bits: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    n = tl.arange(0, BLOCK)
    inside = (at < count)[:, None] & (n < filters)[None, :]
    place = at[:, None] * filters + n[None, :]
    y = _rectified(tl.load(u + place, mask=inside, other=0.0).to(tl.float32))
    kept = tl.load(o + place, mask=inside, other=0.0).to(tl.float32) > 0
    d = tl.load(divisor + at, mask=at < count, other=1.0)
    upstream = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.math.div_rn(tl.where(kept, upstream, 0.0), tl.broadcast_to(d[:, None], [TILE, BLOCK]))
    if pool == 1:
        gradient += tl.load(g_field + at, mask=at < count, other=0.0)[:, None]
    else:
        column = at % width
        row = (at // width) % height
        for offset in tl.static_range(9):
            # The window around (row - down, column - right) has this location as its entry ``offset``.
            down = offset // 3 - 1
            right = offset % 3 - 1
            there = (row - down >= 0) & (row - down < height) & (column - right >= 0) & (column - right < width)
            there = there & (at < count)
            window = at - down * width - right
            chosen = tl.load(
                source + window[:, None] * filters + n[None, :], mask=there[:, None] & (n < filters)[None, :], other=255
            )
            weight = tl.load(g_field + window, mask=there, other=0.0)
            gradient += tl.where(chosen == offset, tl.broadcast_to(weight[:, None], [TILE, BLOCK]), 0.0)
    active = y > 0
    gradient = tl.where(active, gradient, 0.0)
    if with_cost:
        kth = _kth_largest(y, K, bits)[:, None]
        above = y > kth
        equal = (y == kth) & inside
        quota = K - tl.sum(above.to(tl.int32), 1)
        top = above | (equal & (tl.cumsum(equal.to(tl.int32), 1) <= quota[:, None]))
        rest = -lambda_ * K / (filters - K)
        mask = tl.where(active, tl.where(top, 1.0, rest), 0.0)
        if split:
            tl.store(to_weight + place, mask.to(to_weight.dtype.element_ty), mask=inside)
        else:
            factor = tl.load(g_cost) / (K * 1.0 * count)
            tl.store(to_weight + place, (gradient + factor * mask).to(to_weight.dtype.element_ty), mask=inside)
            if not local:
                gradient += factor * mask
    tl.store(to_input + place, gradient.to(to_input.dtype.element_ty), mask=inside)


@triton.jit
def _unit_norm_kernel(weight, unit, norm, elements, eps, CHUNK: tl.constexpr):
    first, at = tl.program_id(0) * elements, tl.arange(0, CHUNK)
    total = tl.zeros([CHUNK], tl.float32)
    for start in range(0, elements, CHUNK):
        w = tl.load(weight + first + start + at, mask=start + at < elements, other=0.0)
        total += w * w
    n = tl.sqrt_rn(tl.sum(total, 0))
    tl.store(norm + tl.program_id(0), n)
    for start in range(0, elements, CHUNK):
        inside = start + at < elements
        w = tl.load(weight + first + start + at, mask=inside, other=0.0)
        tl.store(unit + first + start + at, tl.math.div_rn(w, tl.zeros([CHUNK], tl.float32) + (n + eps)), mask=inside)


@triton.jit
def _unit_norm_backward_kernel(gradient, weight, norm, to_weight, elements, eps, CHUNK: tl.constexpr):
    first, at = tl.program_id(0) * elements, tl.arange(0, CHUNK)
    along = tl.zeros([CHUNK], tl.float32)
    for start in range(0, elements, CHUNK):
        inside = start + at < elements
        g = tl.load(gradient + first + start + at, mask=inside, other=0.0)
        along += g * tl.load(weight + first + start + at, mask=inside, other=0.0)
    n = tl.load(norm + tl.program_id(0))
    d = n + eps
    back = tl.sum(along, 0) / (d * d * tl.where(n == 0, 1.0, n))  # a silent filter has no direction: 0
    for start in range(0, elements, CHUNK):
        inside = start + at < elements
        g = tl.load(gradient + first + start + at, mask=inside, other=0.0)
        w = tl.load(weight + first + start + at, mask=inside, other=0.0)
        tl.store(to_weight + first + start + at, g / d - back * w, mask=inside)


@triton.jit
def _rectified(u):
    return tl.where(u <= 0, 0.0, u)  # NaN stays NaN


@triton.jit
def _divisor(field, sigma, rest, eps):
    """`divisor_of` for the field of one image, with 0 where it is padded; NaN anywhere is NaN everywhere."""
    peak = tl.where(tl.max((field != field).to(tl.int32), 0) > 0, float("nan"), tl.max(field, 0))
    divisor = sigma * peak + rest * field + eps
    return tl.where(divisor == 0, 1.0, divisor)


@triton.jit
def _pattern(y):
    """The bits of non-negative numbers, which are ordered like the numbers; NaN above everything."""
    return y.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _kth_largest(y, K, bits: tl.constexpr):
    """The K-th largest along the second dimension, whose numbers have ``bits`` significant leading bits."""
    pattern = _pattern(y)
    found = tl.zeros([y.shape[0]], tl.int32)
    for step in range(bits):
        candidate = found | (1 << (30 - step))
        enough = tl.sum((pattern >= candidate[:, None]).to(tl.int32), 1) >= K
        found = tl.where(enough, candidate, found)
    return found.to(tl.float32, bitcast=True)


def hah_block(x: Tensor, weight: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor]:
    """The output [B, N, H, W] and HaH cost (scalar) of a block with the convolution ``weight`` [N, C, h, w].

    x: [B, C, H, W] on the GPU, float32 or bfloat16; the output has its dtype, the cost is float32.
    """
    output, cost = _HaHBlock.apply(x, weight, numbers)
    return output, cost


def failed(error: Exception) -> bool:
    """Whether a compiler or a launch said this: then the reference can run."""
    return isinstance(error, TritonError) or str(error).startswith("Triton Error")


def unit_norm(weight: Tensor) -> Tensor:
    """`convolution.unit_norm` of weight [N, C, h, w] on the GPU, float32."""
    normalized: Tensor = _UnitNorm.apply(weight)
    return normalized


class _UnitNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        layout = torch.contiguous_format  # in either, the numbers of a filter lie side by side
        if weight.is_contiguous(memory_format=torch.channels_last):
            layout = torch.channels_last
        weight = weight.contiguous(memory_format=layout)
        unit, norm, elements = torch.empty_like(weight), weight.new_empty(len(weight)), weight[0].numel()
        with torch.cuda.device_of(weight):
            _unit_norm_kernel[(len(weight),)](weight, unit, norm, elements, WEIGHT_EPS, CHUNK=_CHUNK)
        ctx.save_for_backward(weight, norm)
        ctx.layout = layout
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        weight, norm = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=ctx.layout)
        to_weight, elements = torch.empty_like(weight), weight[0].numel()
        with torch.cuda.device_of(weight):
            _unit_norm_backward_kernel[(len(weight),)](
                gradient, weight, norm, to_weight, elements, WEIGHT_EPS, CHUNK=_CHUNK
            )
        return to_weight


class _HaHBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        if len(x) * x.shape[2] * x.shape[3] * max(x.shape[1], len(weight)) >= LARGEST_BATCH:
            raise ValueError(
                f"a block of {len(weight)} filters takes fewer than 2^31 activations at once, got {len(x):,} images of "
                f"{x.shape[2]}x{x.shape[3]}; lower the batch size"
            )
        used = weight.to(x.dtype)
        u = F.conv2d(x, used, padding=weight.shape[2] // 2).permute(0, 2, 3, 1).contiguous()
        with torch.cuda.device_of(u):
            o, cost, field, source = forward(u, numbers)
        ctx.save_for_backward(x, used, u, o, field, source)
        ctx.numbers, ctx.dtype = numbers, weight.dtype
        return o.permute(0, 3, 1, 2), cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_o: Tensor, g_cost: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, u, o, field, source = ctx.saved_tensors
        numbers: BlockNumbers = ctx.numbers
        split = u.dtype != ctx.dtype
        g = g_o.permute(0, 2, 3, 1).contiguous()
        with torch.cuda.device_of(u):
            to_input, to_weight = backward(u, o, g, g_cost, field, source, numbers, split)
        dx = convolution_backward(to_input, x, weight, True) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            dw = convolution_backward(to_input if split else to_weight, x, weight, False).to(ctx.dtype)
        if split and numbers.K:  # the mask has products of its own, and its factor is applied in the weights' precision
            factor = g_cost / (numbers.K * (u.numel() // u.shape[3]))
            if dw is not None:
                dw = dw.addcmul_(factor, convolution_backward(to_weight, x, weight, False).to(ctx.dtype))
            if dx is not None and not numbers.local:
                dx = dx + (factor * convolution_backward(to_weight, x, weight, True)).to(dx.dtype)
        return dx, dw, None


def forward(u: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, HaH cost, and what the backward pass needs, of convolution outputs u [B, H, W, N].

    Returns (o [B, H, W, N] in u's dtype, the cost, the field of Eq. 2 [B, H * W], where its maxima came from).
    """
    sums, field, source = select(u, numbers)
    o = normalize(u, field, numbers)
    if not numbers.K:
        return o, field.new_zeros(()), field, source
    strong, total = sums.sum(1, dtype=torch.float64)
    rest, places = numbers.lambda_ / (u.shape[3] - numbers.K), field.numel()
    cost = torch.sub(strong * ((1 / numbers.K + rest) / places), total, alpha=rest / places).float()
    return o, cost, field, source


def select(u: Tensor, numbers: BlockNumbers) -> tuple[Tensor, Tensor, Tensor]:
    """Of convolution outputs u [B, H, W, N]: the sums of the K strongest filters and of all at each location
    [2, B * H * W] (empty without a cost), the field of Eq. 2 [B, H * W], and where its maxima came from."""
    B, H, W, N = u.shape
    count = B * H * W
    tile, block = _tiles(N)
    field = u.new_empty(B, H * W, dtype=torch.float32)
    sums = u.new_empty(2, count if numbers.K else 0, dtype=torch.float32)
    source = u.new_empty(u.shape if numbers.pool == 3 else 0, dtype=torch.uint8)
    _select_kernel[(triton.cdiv(count, tile),)](
        u, *sums, field, source, H, W, count, N, numbers.K,
        pool=numbers.pool, with_cost=numbers.K > 0, bits=_bits(u), TILE=tile, BLOCK=block, num_warps=_TILE_WARPS,
    )  # fmt: skip
    return sums, field, source


def normalize(u: Tensor, field: Tensor, numbers: BlockNumbers) -> Tensor:
    """Eqs. 2 and 3: the output [B, H, W, N] of convolution outputs u and the field of Eq. 2 [B, H * W]."""
    B, H, W, N = u.shape
    if H * W > LARGEST_MAP:  # a map too large for the registers of one program
        z = F.relu(u).float() / divisor_of(field, numbers).view(B, H, W, 1)
        if numbers.k:
            z = z * (z > z.flatten(1, 2).kthvalue(numbers.k, 1).values[:, None, None])
        elif numbers.scale is not None:
            z = z * (z > numbers.scale * z.mean((1, 2), keepdim=True))
        return z.to(u.dtype)
    o = torch.empty_like(u)
    mode = "fraction" if numbers.k else "none" if numbers.scale is None else "mean"
    size = triton.next_power_of_2(H * W)
    few = min(triton.next_power_of_2(N), max(1, _MAP_ELEMENTS // size))
    warps = min(16, max(1, size * few // _WARP_ELEMENTS))
    _normalize_kernel[(B, triton.cdiv(N, few))](
        u, field, o, H * W, N, numbers.k, numbers.scale or 0.0, numbers.sigma, 1 - numbers.sigma, numbers.eps,
        mode=mode, SIZE=size, BLOCK=few, num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return o


def backward(
    u: Tensor, o: Tensor, g: Tensor, g_cost: Tensor, field: Tensor, source: Tensor, numbers: BlockNumbers, split: bool
) -> tuple[Tensor, Tensor]:
    """(what reaches the input, what reaches the weights) of the gradient at u, both [B, H, W, N].

    With ``split`` the second is the HaH mask alone, its values 1 and -lambda * K / (N - K).
    """
    divisor, g_field = share(project(g, o), field, u.shape[3], numbers)
    return spread(u, o, g, divisor, g_field, source, g_cost, numbers, split)


def project(g: Tensor, o: Tensor) -> Tensor:
    """The sum of g * o over filters, both [B, H, W, N], at each location [B, H * W]."""
    B, H, W, N = o.shape
    count = B * H * W
    tile, block = _tiles(N)
    product = o.new_empty(B, H * W, dtype=torch.float32)
    _project_kernel[(triton.cdiv(count, tile),)](
        g, o, product, count, N, TILE=tile, BLOCK=block, num_warps=_TILE_WARPS
    )  # fmt: skip
    return product


def share(product: Tensor, field: Tensor, filters: int, numbers: BlockNumbers) -> tuple[Tensor, Tensor]:
    """Eq. 2's divisor and the gradient of its field, both [B, H * W], from the sums of g * o over filters."""
    if field.shape[1] > LARGEST_MAP:
        divisor = divisor_of(field, numbers)
        g = -product / divisor
        g_field = (1 - numbers.sigma) * g
        g_field.scatter_add_(1, field.max(1, keepdim=True).indices, numbers.sigma * g.sum(1, keepdim=True))
        return divisor, g_field / filters
    divisor, g_field = torch.empty_like(field), torch.empty_like(field)
    _share_kernel[(len(field),)](
        product, field, divisor, g_field, field.shape[1], filters, numbers.sigma, 1 - numbers.sigma, numbers.eps,
        SIZE=triton.next_power_of_2(field.shape[1]), enable_fp_fusion=False,
    )  # fmt: skip
    return divisor, g_field


def spread(
    u: Tensor, o: Tensor, g: Tensor, divisor: Tensor, g_field: Tensor, source: Tensor, g_cost: Tensor,
    numbers: BlockNumbers, split: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`backward` once the gradient of the field is known, g_field [B, H * W]."""
    B, H, W, N = u.shape
    count = B * H * W
    tile, block = _tiles(N)
    to_input, to_weight = torch.empty_like(u), torch.empty_like(u)
    _backward_kernel[(triton.cdiv(count, tile),)](
        u, o, g, divisor, g_field, source, g_cost, to_input, to_weight,
        H, W, count, N, numbers.K, numbers.lambda_,
        pool=numbers.pool, with_cost=numbers.K > 0, split=split, local=numbers.local, bits=_bits(u),
        TILE=tile, BLOCK=block, num_warps=_TILE_WARPS,
    )  # fmt: skip
    return to_input, to_weight if numbers.K else to_input


def divisor_of(field: Tensor, numbers: BlockNumbers) -> Tensor:
    """Eq. 2's divisor at each location, [B, H * W]."""
    peak = field.max(1, keepdim=True).values
    divisor = numbers.sigma * peak + (1 - numbers.sigma) * field + numbers.eps
    return divisor.masked_fill_(divisor == 0, 1)


def _tiles(filters: int) -> tuple[int, int]:
    block = triton.next_power_of_2(filters)
    return max(1, _TILE_ELEMENTS // block), block


def _bits(u: Tensor) -> int:
    """Leading bits that tell two non-negative numbers of this dtype apart as float32."""
    return 15 if u.dtype == torch.bfloat16 else 31
