"""Image filters on batches of 32x32 images, each as the library did it that made CIFAR-10-C.

Gaussians and zooms of SciPy as sparse matrices; the motion blur of ImageMagick; resampling, edges, distances and
histogram equalization of OpenCV in their integers. All count exactly, or in float64 in an order of their own.

Array shapes: images uint8 [n, 32, 32, c], layers of one channel [n, 32, 32].
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, sparse

from engine.experiment.architecture import IMAGE_SIZE as SIZE

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PIXELS = SIZE * SIZE


# Linear filters: sparse matrices on the 1,024 pixels of a channel.


def filtered(x: npt.NDArray[Any], *matrices: Any) -> Floats:
    """Each matrix [1024, 1024] in turn applied to x [n, 32, 32, ...]."""
    columns: Any = np.moveaxis(x.reshape(len(x), PIXELS, -1), 0, 1)
    shape = columns.shape
    columns = np.ascontiguousarray(columns, np.float64).reshape(PIXELS, -1)
    for matrix in matrices:
        columns = matrix @ columns
    return np.ascontiguousarray(np.moveaxis(columns.reshape(shape), 0, 1)).reshape(x.shape)


def inside(index: Any, kind: str) -> Integers:
    """Where an index outside an image reads: nearest (aa|ab), reflect (ba|ab) or mirror (cb|abc)."""
    index = np.asarray(index, np.int64)
    if kind == "nearest":
        return np.asarray(np.clip(index, 0, SIZE - 1))
    period = 2 * SIZE - (0 if kind == "reflect" else 2)
    index = index % period
    return np.asarray(np.minimum(index, 2 * SIZE - index - (1 if kind == "reflect" else 2)))


@cache
def gaussian(sigma: float, border: str = "nearest", truncate: float = 4) -> tuple[Any, ...]:
    """A Gaussian cut off at ``truncate`` sigmas, down and across."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    line = np.zeros((SIZE, SIZE))
    here = np.arange(SIZE)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(line, (here, inside(here + offset, border)), weight)
    return tuple(sparse.csr_array(sparse.kron(*pair)) for pair in ((line, np.eye(SIZE)), (np.eye(SIZE), line)))


@cache
def disk(radius: float, alias: float) -> Any:
    """A disk smoothed by a 3x3 Gaussian; 5x5 hold all of it here."""
    y, x = np.mgrid[-2:3, -2:3]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    side = math.exp(-0.5 / alias**2)
    line = np.array([side, 1, side]) / (1 + 2 * side)
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(line, line), mode="constant")
    matrix = np.zeros((PIXELS, PIXELS))
    here, (row, column) = np.arange(PIXELS), np.divmod(np.arange(PIXELS), SIZE)
    for (i, j), weight in np.ndenumerate(kernel):
        if weight > 1e-12:
            there = inside(row + i - 2, "mirror") * SIZE + inside(column + j - 2, "mirror")
            np.add.at(matrix, (here, there), weight)
    return sparse.csr_array(matrix)


@cache
def zoomed(factor: float) -> Any:
    """Linear interpolation of the middle, enlarged to cover the image, across one side [32, 32]."""
    crop = math.ceil(SIZE / factor)
    size = round(crop * factor)
    at = ((size - SIZE) // 2 + np.arange(SIZE)) * (crop - 1) / (size - 1)
    low = np.minimum(at.astype(int), crop - 2)
    line = np.zeros((SIZE, SIZE))
    here, there = np.arange(SIZE), (SIZE - crop) // 2 + low
    line[here, there] = 1 - (at - low)
    line[here, there + 1] = at - low
    return sparse.csr_array(line)


@cache
def zooms(furthest: float) -> Any:
    """The mean of the image and its zooms; arange's rounding makes them 7, 12, 16, 21 and 26."""
    factors = np.arange(1, furthest + 0.01, 0.01)
    total = sum((sparse.kron(zoomed(f), zoomed(f)) for f in factors), start=sparse.eye(PIXELS))
    return sparse.csr_array(total / (len(factors) + 1))


def motion(x: Bytes, degrees: Floats, radius: int, sigma: float) -> Bytes:
    """x [n, 32, 32, c] smeared along a line of half a Gaussian, in ImageMagick's arithmetic of 16-bit quanta."""
    n, channels, angle = len(x), x.shape[-1], np.radians(degrees)
    pad = 2 * radius
    weights = np.exp(-0.5 * (np.arange(pad + 1) / sigma) ** 2)
    within = inside(np.arange(-pad, SIZE + pad), "nearest")
    padded = x[:, within][:, :, within].reshape(n, SIZE + 2 * pad, -1)
    windows = sliding_window_view(padded, (SIZE, SIZE * channels), axis=(1, 2))
    total = np.zeros((n, SIZE, SIZE * channels))
    for step, weight in enumerate(weights / weights.sum()):
        if weight > 1e-12:
            down = np.ceil(step * np.sin(angle) - 0.5).astype(int) + pad
            right = np.ceil(step * np.cos(angle) - 0.5).astype(int) + pad
            total += weight * windows[np.arange(n), down, right * channels]
    return (np.floor(257 * total + 0.5).astype(np.int64) // 257).astype(np.uint8).reshape(x.shape)


def sampled(x: Floats, down: Floats, right: Floats, border: str) -> Floats:
    """x [n, 32, 32, 3] between its pixels at rows ``down`` and columns ``right`` [n, 1024], bilinear."""
    result = np.zeros((x.shape[0], PIXELS, 3))
    pixels, image = x.reshape(-1, 3), PIXELS * np.arange(len(x))[:, None]
    top, left = np.floor(down), np.floor(right)
    columns = [(inside(left + j, border), abs(1 - j - (right - left))) for j in (0, 1)]
    for i in (0, 1):
        row, height = image + SIZE * inside(top + i, border), abs(1 - i - (down - top))
        for column, width in columns:
            result += (height * width)[..., None] * pixels.take(row + column, axis=0)
    return result.reshape(x.shape)


def plasma(u: Floats, decay: float) -> Floats:
    """Diamond-square heights in [0, 1], [n, 32, 32], periodic; u [n, 1023] in the order of filling."""
    heights = np.zeros((len(u), SIZE, SIZE))
    step, wibble, taken = SIZE, 100.0, 0

    def filled(total: Floats) -> Floats:
        nonlocal taken
        count = total[0].size
        draws = u[:, taken : taken + count].reshape(total.shape)
        taken += count
        return total / 4 + wibble * (-wibble + 2 * wibble * draws)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        across = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = filled(across + np.roll(across, -1, 2))
        middles = heights[:, half::step, half::step]
        heights[:, ::step, half::step] = filled(middles + np.roll(middles, 1, 1) + (corners + np.roll(corners, -1, 2)))
        heights[:, half::step, ::step] = filled(middles + np.roll(middles, 1, 2) + (corners + np.roll(corners, -1, 1)))
        step, wibble = half, wibble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.asarray(heights / heights.max(axis=(1, 2), keepdims=True))


def summed(x: Integers, kernel: npt.NDArray[Any], border: str = "mirror") -> Integers:
    """Correlation with a 3x3 kernel of integers."""
    index = inside(np.arange(-1, SIZE + 1), border)
    wide = x[:, index][:, :, index]
    parts = (int(w) * wide[:, i : i + SIZE, j : j + SIZE] for (i, j), w in np.ndenumerate(kernel) if w)
    return np.asarray(sum(parts, start=np.zeros_like(x)))


def rims(x: Integers) -> npt.NDArray[np.bool_]:
    """Canny's edges with Sobel gradients, |dx| + |dy|, thresholds 50 and 150."""
    across = np.outer([1, 2, 1], [-1, 0, 1])
    dx, dy = summed(x, across, "nearest"), summed(x, across.T, "nearest")
    size = abs(dx) + abs(dy)
    wide = np.pad(size, ((0, 0), (1, 1), (1, 1)))

    def at(down: int, right: int) -> Integers:
        return wide[:, 1 + down : 1 + down + SIZE, 1 + right : 1 + right + SIZE]

    slope, tangent = abs(dy) << 15, abs(dx) * 13573  # tan 22.5 degrees in 15 bits; tan 67.5 is that plus 2
    level, steep = slope < tangent, slope > tangent + (abs(dx) << 16)
    peak = np.where(level, (size > at(0, -1)) & (size >= at(0, 1)), (size > at(-1, 0)) & (size >= at(1, 0)))
    falling, rising = (size > at(-1, -1)) & (size > at(1, 1)), (size > at(-1, 1)) & (size > at(1, -1))
    peak = np.where(level | steep, peak, np.where((dx ^ dy) < 0, rising, falling)) & (size > 50)
    within = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # neighbours in the same image
    parts, count = ndimage.label(peak, structure=within)
    strong = np.zeros(count + 1, bool)
    strong[parts[peak & (size > 150)]] = True
    return np.asarray(strong[parts])


def distance(rims: npt.NDArray[np.bool_]) -> Integers:
    """Distance to the nearest rim in 1/65536 pixel, by steps of 1 (straight), 1.4 (diagonal) and 2.1969 (knight)."""
    straight, diagonal, knight = round(65536 * 1.0), round(65536 * 1.4), round(65536 * 2.1969)
    far = np.where(rims, 0, 1 << 29)
    across = straight * np.arange(SIZE)
    for turn in (1, -1):  # down, then up: a half of the mask each
        far = far[:, ::turn]
        wide = np.pad(far, ((0, 0), (2, 0), (2, 2)), constant_values=1 << 29)
        for row in range(SIZE):
            below = wide[:, row + 2, 2:-2]
            for up, right, cost in (
                (1, 0, straight), (1, -1, diagonal), (1, 1, diagonal),
                (1, -2, knight), (1, 2, knight), (2, -1, knight), (2, 1, knight),
            ):  # fmt: skip
                np.minimum(below, wide[:, row + 2 - up, 2 + right : 2 + right + SIZE] + cost, out=below)
            np.minimum(below, np.minimum.accumulate(below - across, axis=1) + across, out=below)
            back = below[:, ::-1]
            np.minimum(back, np.minimum.accumulate(back - across, axis=1) + across, out=back)
        far = wide[:, 2:, 2:-2][:, ::turn]
    return far


def equalized(x: Integers) -> Integers:
    """Histogram equalization of each image; one of a single value stays as it is."""
    n, values = len(x), int(x.max()) + 1
    counts = np.bincount((np.arange(n)[:, None] * values + x.reshape(n, -1)).ravel(), minlength=n * values)
    below = np.cumsum(counts.reshape(n, values), axis=1)
    lowest = np.where(below > 0, below, PIXELS).min(axis=1, keepdims=True)  # how many have the smallest value
    scale = np.float32(255) / np.maximum(PIXELS - lowest, 1).astype(np.float32)
    table = np.rint(np.maximum(below - lowest, 0).astype(np.float32) * scale).astype(np.int64)
    table = np.where(lowest == PIXELS, np.arange(values), table)
    return np.take_along_axis(table, x.reshape(n, -1), axis=1).reshape(x.shape)
