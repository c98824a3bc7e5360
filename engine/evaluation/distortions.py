"""The 19 corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019), made from test images.

The images equal the official ones in distribution, not in bits: those were drawn without a published seed. Here every
image has random numbers of its own, keyed by seed, corruption, severity and its place in the test set, so the bytes do
not depend on the batch. A draw is a word of Philox turned into a uniform number and put through an inverse distribution
function: nothing that a release of NumPy may change. NumPy, SciPy and Pillow; no torch.

Array shapes: images uint8 [n, 32, 32, 3], uniform draws float64 [n, words], layers of one channel [n, 32, 32].
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import sparse, special

from engine.evaluation.filters import (
    PIXELS,
    Bytes,
    Floats,
    Integers,
    disk,
    distance,
    equalized,
    filtered,
    gaussian,
    motion,
    plasma,
    rims,
    sampled,
    summed,
    zoomed,
    zooms,
)
from engine.evaluation.photographs import frost_folder, photographs
from engine.experiment.architecture import IMAGE_SIZE as SIZE
from engine.experiment.datasets import CORRUPTIONS
from engine.experiment.mistakes import RequestError

VERSION = 1  # of what `corrupt` makes: another number wherever a byte changes, so that nothing old is read from a cache
SEED = 2022  # the schema's default
CHUNK = 250  # images at once: the arrays of one step stay in the processor's caches

# Added (of 255) where a filter has rounded: what is a whole number in exact arithmetic must not be truncated to the one
# below it because a library adds in another order.
_TIE = 1e-9
_GREY = (0.299, 0.587, 0.114)


def corrupt(images: Bytes, name: str, severity: int, seed: int = SEED, first: int = 0) -> Bytes:
    """Images uint8 [n, 32, 32, 3] under a corruption; image i is number ``first + i`` of its test set."""
    if name not in CORRUPTIONS:
        raise RequestError(f"there is no corruption {name!r}; there is {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6):
        raise RequestError(f"severity {severity!r} of {name}: must be 1, 2, 3, 4 or 5")
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
        raise RequestError(f"images must be uint8 [n, {SIZE}, {SIZE}, 3], are {images.dtype} {list(images.shape)}")
    method, words, parameters = _METHODS[name]
    made = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        draws = uniform(f"{seed} {name} {severity}", first + start, len(part), words)
        made[start : start + CHUNK] = method(part, draws, *parameters[severity - 1])
    return made


def uniform(key: str, first: int, count: int, words: int) -> Floats:
    """Numbers in [0, 1) of the images first .. first + count - 1, [count, words]: a stretch of Philox for each."""
    blocks = -(-words // 4)  # Philox counts in blocks of four words
    secret = np.frombuffer(hashlib.sha256(key.encode()).digest()[:16], "<u8").astype(np.uint64)
    stream = np.random.Generator(np.random.Philox(key=secret, counter=first * blocks))
    return stream.random((count, blocks * 4))[:, :words]


def _normal(u: Floats) -> Floats:
    """Standard normal numbers by the inverse distribution function."""
    return np.asarray(special.ndtri(np.maximum(u, 2.0**-54)))


def _bytes(x: Floats, tie: float = 0.0) -> Bytes:
    """Values in [0, 1] as bytes, truncated."""
    return np.asarray(np.clip(x, 0, 1) * 255 + tie).astype(np.uint8)


# Noise.


def _gaussian_noise(images: Bytes, u: Floats, std: float) -> Bytes:
    return _bytes(images / 255 + (std * _normal(u)).reshape(images.shape))


def _speckle_noise(images: Bytes, u: Floats, std: float) -> Bytes:
    x = images / 255
    return _bytes(x + x * (std * _normal(u)).reshape(images.shape))


def _shot_noise(images: Bytes, u: Floats, rate: int) -> Bytes:
    """Poisson counts of mean x * rate by the inverse distribution function; those of rate and above are all white."""
    values = images.reshape(len(images), -1)
    counts = np.searchsorted(_poisson(rate), u + values) - values.astype(np.int64) * rate
    return _bytes(counts.reshape(images.shape) / rate)


@cache
def _poisson(rate: int) -> Floats:
    """P(count <= 0 .. rate - 1) of each grey value k, plus k: one increasing list [256 * rate]."""
    grey = np.arange(256.0)[:, None]
    return np.asarray(special.pdtr(np.arange(rate), grey / 255 * rate) + grey).ravel()


def _impulse_noise(images: Bytes, u: Floats, amount: float) -> Bytes:
    u = u.reshape(images.shape)
    return np.where(u < amount / 2, 255, np.where(u < amount, 0, images)).astype(np.uint8)


def _gaussian_blur(images: Bytes, _: Floats, sigma: float) -> Bytes:
    return _bytes(filtered(images, *gaussian(sigma)) / 255, _TIE)


def _defocus_blur(images: Bytes, _: Floats, radius: float, alias: float) -> Bytes:
    return _bytes(filtered(images, disk(radius, alias)) / 255, _TIE)


def _zoom_blur(images: Bytes, _: Floats, furthest: float) -> Bytes:
    return _bytes(filtered(images, zooms(furthest)) / 255, _TIE)


def _glass_blur(images: Bytes, u: Floats, sigma: float, iterations: int) -> Bytes:
    """Each pixel but the outermost takes the value of one that is 0 or 1 up and 0 or 1 left of it, between two blurs.

    The original means to swap, but assigns views of one array, so only one of the two pixels changes; and as it goes
    from the lower right to the upper left, each reads what has not changed yet: one gather.
    """
    x = _bytes(filtered(images, *gaussian(sigma)) / 255, _TIE)
    inner = np.arange(2, SIZE)
    for draws in np.split(u[:, : 2 * iterations * len(inner) ** 2], iterations, axis=1):
        up, left = (draws.reshape(len(x), 2, len(inner), len(inner)) < 0.5).transpose(1, 0, 2, 3)
        x[:, 2:, 2:] = x[np.arange(len(x))[:, None, None], inner[:, None] - up, inner - left]
    return _bytes(filtered(x, *gaussian(sigma)) / 255, _TIE)


def _motion_blur(images: Bytes, u: Floats, radius: int, sigma: float) -> Bytes:
    return motion(images, -45 + 90 * u[:, 0], radius, sigma)


# Weather.


def _snow(
    images: Bytes, u: Floats, mean: float, std: float, zoom: float, threshold: float, radius: int, sigma: float,
    blend: float,
) -> Bytes:  # fmt: skip
    flakes = (mean + std * _normal(u[:, :PIXELS])).reshape(-1, SIZE, SIZE)
    if zoom > 1:
        flakes = filtered(flakes, sparse.kron(zoomed(zoom), zoomed(zoom)))
    flakes = np.where(flakes < threshold, 0, flakes)
    blown = motion(_bytes(flakes)[..., None], -135 + 90 * u[:, PIXELS], radius, sigma) / 255
    x = images / 255
    pale = np.maximum(x, _weighted(x, _GREY)[..., None] * 1.5 + 0.5)
    return _bytes(blend * x + (1 - blend) * pale + blown + blown[:, ::-1, ::-1], _TIE)


def _weighted(x: Floats, weights: tuple[float, float, float]) -> Floats:
    return np.asarray(x[..., 0] * weights[0] + x[..., 1] * weights[1] + x[..., 2] * weights[2])


def _fog(images: Bytes, u: Floats, amount: float, decay: float) -> Bytes:
    x = images / 255
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return _bytes((x + amount * plasma(u, decay)[..., None]) * brightest / (brightest + amount))


def _frost(images: Bytes, u: Floats, weight: float, frost: float) -> Bytes:
    pictures = photographs(frost_folder())
    ice = np.empty(images.shape)
    chosen = (u[:, 0] * len(pictures)).astype(int)
    for number, picture in enumerate(pictures):
        draws = u[chosen == number]
        top, left = ((draws[:, 1 + i] * (picture.shape[i] - SIZE)).astype(int) for i in range(2))
        windows = sliding_window_view(picture, (SIZE, SIZE), axis=(0, 1))
        ice[chosen == number] = np.moveaxis(windows[top, left], 1, -1)
    return np.asarray(np.clip(weight * images + frost * ice, 0, 255)).astype(np.uint8)


# Colour.


def _brightness(images: Bytes, _: Floats, plus: float) -> Bytes:
    value, saturation, shade = _hsv(images)
    return _bytes(np.clip(value + plus, 0, 1) * (1 - saturation * shade))


def _saturate(images: Bytes, _: Floats, times: float, plus: float) -> Bytes:
    value, saturation, shade = _hsv(images)
    return _bytes(value * (1 - np.clip(saturation * times + plus, 0, 1) * shade))


def _hsv(images: Bytes) -> tuple[Floats, Floats, Floats]:
    """Value and saturation [n, 32, 32, 1], and what hue says of each channel [n, 32, 32, 3].

    A channel is value * (1 - saturation * shade): shade 0 for the largest, 1 for the smallest; of grey it is that of
    hue 0, red.
    """
    x = images / 255
    value = x.max(axis=-1, keepdims=True)
    spread = value - x.min(axis=-1, keepdims=True)
    grey = spread == 0
    shade = np.where(grey, [0.0, 1.0, 1.0], (value - x) / np.where(grey, 1, spread))
    return value, spread / np.where(value == 0, 1, value), shade


def _contrast(images: Bytes, _: Floats, factor: float) -> Bytes:
    mean = images.sum(axis=(1, 2), keepdims=True, dtype=np.int64) / (PIXELS * 255)
    return _bytes((images / 255 - mean) * factor + mean, _TIE)


# Resampling.


def _elastic_transform(images: Bytes, u: Floats, alpha: float, sigma: float, shift: float) -> Bytes:
    """An affine map that moves three points by up to ``shift``, then smooth displacements times alpha; of 32 pixels."""
    n = len(images)
    square = np.array([[26.0, 26], [26, 6], [6, 6]])  # (x, y): 10 pixels from the middle
    moved = square + (2 * u[:, :6].reshape(n, 3, 2) - 1) * shift * SIZE
    back = np.linalg.solve(np.concatenate([moved, np.ones((n, 3, 1))], axis=2), np.broadcast_to(square, (n, 3, 2)))
    y, x = np.divmod(np.arange(PIXELS), SIZE)
    at = np.floor(32 * (x[:, None] * back[:, :1] + y[:, None] * back[:, 1:2] + back[:, 2:]) + 0.5) / 32  # as OpenCV
    warped = sampled(images.astype(np.float64), at[..., 1], at[..., 0], "mirror")
    if alpha:
        field = (2 * u[:, 6:] - 1).reshape(n, 2, SIZE, SIZE).transpose(0, 2, 3, 1)
        field = filtered(field, *gaussian(sigma * SIZE, "reflect", 3)).reshape(n, PIXELS, 2) * (alpha * SIZE)
        warped = sampled(warped, y + field[..., 1], x + field[..., 0], "reflect")
    return _bytes(warped / 255, _TIE)


def _pixelate(images: Bytes, _: Floats, factor: float) -> Bytes:
    """Pillow's box filter, across and then down, on all images as one tall one: no box reaches over an edge."""
    few = int(SIZE * factor)
    tall = Image.fromarray(images.reshape(-1, SIZE, 3))
    for side in (few, SIZE):
        for size in ((side, tall.height), (side, side * len(images))):
            tall = tall.resize(size, Image.Resampling.BOX)
    return np.asarray(tall).reshape(images.shape)


def _jpeg_compression(images: Bytes, _: Floats, quality: int) -> Bytes:
    made = np.empty_like(images)
    for index, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        made[index] = np.asarray(Image.open(file))
    return made


# Spatter: OpenCV's filters, in their integers.


def _spatter(
    images: Bytes, u: Floats, mean: float, std: float, sigma: float, threshold: float, strength: float, kind: str
) -> Bytes:
    x = images / 255
    liquid = filtered((mean + std * _normal(u)).reshape(-1, SIZE, SIZE), *gaussian(sigma))
    liquid[liquid < threshold] = 0
    if kind == "mud":
        cover = filtered((liquid > threshold).astype(np.float64), *gaussian(strength))[..., None]
        cover[cover < 0.8] = 0
        return _bytes(x * (1 - cover) + cover * (np.array([63, 42, 20]) / 255), _TIE)
    drops = (liquid * 255).astype(np.int64) & 255  # a byte, as the original
    wet = (drops * _relief(drops)).astype(np.float64)[..., None]
    wet *= strength / np.maximum(wet.max(axis=(1, 2), keepdims=True), 1)
    return _bytes(x + wet * (np.array([175, 238, 238]) / 255), _TIE)


def _relief(drops: Integers) -> Integers:
    """Light and shadow by the distance from the rims of drops, [n, 32, 32] of 0..255."""
    far = np.minimum(distance(rims(drops)), 20 << 16)
    smooth = summed(far, np.ones((3, 3), int)) // (9 << 16)
    even = equalized(smooth)
    lit = np.clip(summed(even, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])), 0, 255)
    return (2 * summed(lit, np.ones((3, 3), int)) + 9) // 18


_Method = Callable[..., Bytes]
_ALL = 3 * PIXELS

# Hendrycks and Dietterich's parameters for CIFAR (not those of ImageNet-C) at severities 1 to 5: method, words of
# randomness an image, parameters.
_METHODS: dict[str, tuple[_Method, int, tuple[tuple[Any, ...], ...]]] = {
    "gaussian_noise": (_gaussian_noise, _ALL, ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,))),
    "shot_noise": (_shot_noise, _ALL, ((500,), (250,), (100,), (75,), (50,))),
    "speckle_noise": (_speckle_noise, _ALL, ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,))),
    "impulse_noise": (_impulse_noise, _ALL, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
    "snow": (
        _snow,
        PIXELS + 1,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "fog": (_fog, PIXELS - 1, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "frost": (_frost, 3, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "brightness": (_brightness, 0, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),
    "defocus_blur": (_defocus_blur, 0, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "gaussian_blur": (_gaussian_blur, 0, ((0.4,), (0.6,), (0.7,), (0.8,), (1,))),
    "motion_blur": (_motion_blur, 1, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, 0, ((1.05,), (1.10,), (1.15,), (1.20,), (1.25,))),
    "contrast": (_contrast, 0, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),
    "elastic_transform": (
        _elastic_transform,
        6 + 2 * PIXELS,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, 0, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))),
    "spatter": (
        _spatter,
        PIXELS,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, "water"),
            (0.65, 0.1, 0.8, 0.7, 0.5, "water"),
            (0.65, 0.3, 1, 0.69, 0.5, "water"),
            (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
            (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
        ),
    ),
    "glass_blur": (_glass_blur, 4 * 900, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),
    "saturate": (_saturate, 0, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
    "jpeg_compression": (_jpeg_compression, 0, ((80,), (65,), (58,), (50,), (40,))),
}
