"""The corruptions of CIFAR-10-C image by image, from their published parameters: knows nothing of the package.

Every function takes one image uint8 [32, 32, 3], a severity 1..5 and uniform numbers in [0, 1), and follows the
original recipe step by step, with SciPy's own filters and loops over pixels where those were OpenCV's or ImageMagick's.
"""

import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage, stats


def to_bytes(x):
    """[0, 1] truncated to a byte; 1e-9 makes up for what SciPy's filters round."""
    return np.uint8(np.clip(x, 0, 1) * 255 + 1e-9)


def normal(u):
    return stats.norm.ppf(u)


def gaussian_noise(image, severity, u):
    sd = [0.04, 0.06, 0.08, 0.09, 0.10][severity - 1]
    return to_bytes(image / 255.0 + sd * normal(u).reshape(32, 32, 3))


def shot_noise(image, severity, u):
    rate = [500, 250, 100, 75, 50][severity - 1]
    return to_bytes(stats.poisson.ppf(u.reshape(32, 32, 3), image / 255.0 * rate) / rate)


def speckle_noise(image, severity, u):
    sd = [0.06, 0.1, 0.12, 0.16, 0.2][severity - 1]
    x = image / 255.0
    return to_bytes(x + x * sd * normal(u).reshape(32, 32, 3))


def impulse_noise(image, severity, u):
    amount = [0.01, 0.02, 0.03, 0.05, 0.07][severity - 1]
    out = image.copy()
    for place, draw in zip(np.ndindex(32, 32, 3), u, strict=True):
        if draw < amount:
            out[place] = 255 if draw < amount / 2 else 0
    return out


def blurred(x, sigma, mode="nearest", truncate=4.0):
    """scikit-image's gaussian: space only."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0)[: x.ndim], mode=mode, truncate=truncate)


def gaussian_blur(image, severity, u):
    return to_bytes(blurred(image / 255.0, [0.4, 0.6, 0.7, 0.8, 1][severity - 1]))


def glass_blur(image, severity, u):
    sigma, shift, iterations = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)][severity - 1]
    x = to_bytes(blurred(image / 255.0, sigma))
    for iteration in range(iterations):
        ups, lefts = u[1800 * iteration : 1800 * (iteration + 1)].reshape(2, 30, 30) < 0.5
        for h in range(32 - shift, shift, -1):
            for w in range(32 - shift, shift, -1):
                h2, w2 = h - int(ups[h - 2, w - 2]), w - int(lefts[h - 2, w - 2])
                x[h, w], x[h2, w2] = x[h2, w2], x[h, w]  # views: as in the original, only the first changes
    return to_bytes(blurred(x / 255.0, sigma))


def defocus_blur(image, severity, u):
    radius, alias = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    disk = np.array([[float(x * x + y * y <= radius**2) for x in range(-8, 9)] for y in range(-8, 9)])
    line = np.array([math.exp(-x * x / (2 * alias**2)) for x in (-1, 0, 1)])
    line /= line.sum()
    kernel = ndimage.correlate1d(ndimage.correlate1d(disk / disk.sum(), line, 0), line, 1)
    x = image / 255.0
    return to_bytes(np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], -1))


def smeared(x, radius, sigma, degrees):
    """ImageMagick's motion blur of one channel of bytes."""
    width = 2 * radius + 1
    weights = [math.exp(-i * i / (2 * sigma**2)) for i in range(width)]
    weights = [weight / sum(weights) for weight in weights]
    total = np.zeros((32, 32))
    for i, weight in enumerate(weights):
        across = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        for h in range(32):
            total[h] += weight * x[min(max(h + down, 0), 31), np.clip(np.arange(32) + across, 0, 31)]
    return (np.floor(257 * total + 0.5) // 257).astype(np.uint8)


def motion_blur(image, severity, u):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]
    return np.stack([smeared(image[..., c], radius, sigma, -45 + 90 * u[0]) for c in range(3)], -1)


def zoomed(x, factor):
    side = math.ceil(32 / factor)
    top = (32 - side) // 2
    factors = (factor, factor, 1)[: x.ndim]
    x = ndimage.zoom(x[top : top + side, top : top + side], factors, order=1, mode="nearest")
    trim = (len(x) - 32) // 2
    return x[trim : trim + 32, trim : trim + 32]


def zoom_blur(image, severity, u):
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], 0.01)
    assert len(factors) == [7, 12, 16, 21, 26][severity - 1]
    x = image / 255.0
    return to_bytes((x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1))


def snow(image, severity, u):
    mean, sd, zoom, threshold, radius, sigma, blend = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]
    layer = zoomed(mean + sd * normal(u[:1024]).reshape(32, 32), zoom)
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255)
    layer = smeared(layer, radius, sigma, -135 + 90 * u[1024])[..., None] / 255.0
    x = image / 255.0
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    x = blend * x + (1 - blend) * np.maximum(x, 1.5 * grey + 0.5)
    return to_bytes(x + layer + np.rot90(layer, 2))


def fog(image, severity, u):
    amount, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    draws = iter(u)
    height = np.zeros((32, 32))
    step, wibble = 32, 100.0

    def fill(places, neighbours):
        values = {}
        for h, w in places:
            total = sum(height[(h + dh) % 32, (w + dw) % 32] for dh, dw in neighbours)
            values[h, w] = total / 4 + wibble * (2 * next(draws) - 1) * wibble
        for place, value in values.items():
            height[place] = value

    while step >= 2:
        half = step // 2
        diagonal = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        at, between = range(0, 32, step), range(half, 32, step)
        fill([(h, w) for h in between for w in between], diagonal)
        fill([(h, w) for h in at for w in between], straight)
        fill([(h, w) for h in between for w in at], straight)
        step, wibble = half, wibble / decay
    height = (height - height.min()) / (height.max() - height.min())
    x = image / 255.0
    return to_bytes((x + amount * height[..., None]) * x.max() / (x.max() + amount))


def frost(image, severity, u, photographs):
    """``photographs``: whole ones, RGB."""
    weight, ice = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    photograph = photographs[int(5 * u[0])]
    height, width = round(photograph.shape[0] * 0.2), round(photograph.shape[1] * 0.2)
    small = np.zeros((height, width, 3), np.uint8)
    for h in range(height):  # OpenCV's linear resize without antialiasing: (index + 1/2) * 5 - 1/2 is a whole number
        for w in range(width):
            small[h, w] = photograph[int((h + 0.5) * 5 - 0.5), int((w + 0.5) * 5 - 0.5)]
    top, left = int(u[1] * (height - 32)), int(u[2] * (width - 32))
    return np.uint8(np.clip(weight * image + ice * small[top : top + 32, left : left + 32], 0, 255))


def hsv_changed(image, change):
    """Through hue, saturation and value, one pixel after the other, by the textbook's six sectors."""
    out = np.zeros((32, 32, 3))
    for place in np.ndindex(32, 32):
        r, g, b = image[place] / 255.0
        v, low = max(r, g, b), min(r, g, b)
        d = v - low
        if d == 0:
            hue, s = 0.0, 0.0
        else:
            s = d / v
            hue = (g - b) / d if v == r else 2 + (b - r) / d if v == g else 4 + (r - g) / d
            hue %= 6
        s, v = change(s, v)
        sector = math.floor(hue)
        f = hue - sector
        p, q, t = v * (1 - s), v * (1 - f * s), v * (1 - (1 - f) * s)
        out[place] = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][sector % 6]
    return np.uint8(np.clip(out, 0, 1) * 255)


def brightness(image, severity, u):
    plus = [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1]
    return hsv_changed(image, lambda s, v: (s, min(v + plus, 1)))


def saturate(image, severity, u):
    times, plus = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
    return hsv_changed(image, lambda s, v: (min(s * times + plus, 1), v))


def contrast(image, severity, u):
    factor = [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1]
    x = image / 255.0
    mean = x.mean(axis=(0, 1))
    return to_bytes((x - mean) * factor + mean)


def jpeg_compression(image, severity, u):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=[80, 65, 58, 50, 40][severity - 1])
    return np.asarray(Image.open(file))


def pixelate(image, severity, u):
    side = int(32 * [0.95, 0.9, 0.85, 0.75, 0.65][severity - 1])
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((32, 32), Image.Resampling.BOX))


def elastic_transform(image, severity, u):
    alpha, sigma, shift = [
        (32 * a, 32 * s, 32 * move)
        for a, s, move in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    ][severity - 1]
    points = np.array([[26.0, 26], [26, 6], [6, 6]])
    moved = points + (2 * u[:6].reshape(3, 2) - 1) * shift
    forth = np.linalg.solve(np.column_stack([points, np.ones(3)]), moved)  # [x, y, 1] @ forth = moved
    back = np.linalg.inv(np.column_stack([forth, [0, 0, 1]]))
    x = image / 255.0
    where = np.zeros((2, 32, 32))
    for h in range(32):
        for w in range(32):
            right, down, _ = np.array([w, h, 1]) @ back
            where[:, h, w] = [math.floor(32 * v + 0.5) / 32 for v in (down, right)]  # OpenCV resolves 1/32 pixel
    x = np.stack([ndimage.map_coordinates(x[..., c], where, order=1, mode="mirror") for c in range(3)], -1)
    across, down = (2 * u[6:].reshape(2, 32, 32) - 1) * alpha
    if alpha:
        across, down = (blurred(field, sigma, "reflect", 3.0) for field in (across, down))
        h, w = np.mgrid[:32, :32]
        x = np.stack(
            [ndimage.map_coordinates(x[..., c], [h + down, w + across], order=1, mode="reflect") for c in range(3)], -1
        )
    return to_bytes(x)


def spatter(image, severity, u):
    mean, sd, sigma, threshold, strength, mud = [
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ][severity - 1]
    x = image / 255.0
    layer = blurred(mean + sd * normal(u).reshape(32, 32), sigma)
    layer[layer < threshold] = 0
    if mud:
        cover = blurred((layer > threshold).astype(float), strength)
        cover[cover < 0.8] = 0
        return to_bytes(x * (1 - cover[..., None]) + cover[..., None] * np.array([63, 42, 20]) / 255.0)
    drops = (layer * 255).astype(int) % 256
    rims = list(zip(*np.nonzero(canny(drops)), strict=True))
    distance = np.full((32, 32), 20.0)
    h, w = np.mgrid[:32, :32]
    cost = np.array([[chamfer(a, b) for a in range(32)] for b in range(32)])
    for y, z in rims:
        distance = np.minimum(distance, cost[abs(h - y), abs(w - z)])
    box = np.ones((3, 3))
    smooth = np.floor(ndimage.correlate(distance, box, mode="mirror") / 9 + 1e-6).astype(int)
    counts = np.bincount(smooth.ravel(), minlength=256)
    lowest = smooth.min()
    if counts[lowest] < 1024:
        smooth = np.rint((np.cumsum(counts) - counts[lowest])[smooth] * 255 / (1024 - counts[lowest])).astype(int)
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(smooth, kernel, mode="mirror"), 0, 255)
    lit = np.rint(ndimage.correlate(lit.astype(float), box, mode="mirror") / 9)
    wet = drops * lit
    if wet.max() > 0:
        wet = wet * strength / wet.max()
    return to_bytes(x + wet[..., None] * np.array([175, 238, 238]) / 255.0)


def chamfer(a, b):
    """Cheapest way over a straight and b across by steps of 1, diagonals of 1.4 and knight's moves of 2.1969."""
    a, b = max(a, b), min(a, b)
    return 2.1969 * b + (a - 2 * b) if a >= 2 * b else 2.1969 * (a - b) + 1.4 * (2 * b - a)


def canny(x, low=50, high=150):
    """Canny's edges, following the gradient's direction in four sectors; chains grow from strong edges."""
    dx = ndimage.correlate(x, np.outer([1, 2, 1], [-1, 0, 1]), mode="nearest")
    dy = ndimage.correlate(x, np.outer([-1, 0, 1], [1, 2, 1]), mode="nearest")
    size = np.pad(abs(dx) + abs(dy), 1)
    peak = np.zeros((34, 34), bool)
    for h in range(32):
        for w in range(32):
            here = size[h + 1, w + 1]
            if here <= low:
                continue
            slope = math.inf if dx[h, w] == 0 else abs(dy[h, w] / dx[h, w])
            if slope < math.tan(math.pi / 8):
                good = here > size[h + 1, w] and here >= size[h + 1, w + 2]
            elif slope > math.tan(3 * math.pi / 8):
                good = here > size[h, w + 1] and here >= size[h + 2, w + 1]
            else:
                s = -1 if (dx[h, w] < 0) != (dy[h, w] < 0) else 1
                good = here > size[h, w + 1 - s] and here > size[h + 2, w + 1 + s]
            peak[h + 1, w + 1] = good
    edges = peak & (size > high)
    todo = list(zip(*np.nonzero(edges), strict=True))
    while todo:
        h, w = todo.pop()
        for y in range(h - 1, h + 2):
            for z in range(w - 1, w + 2):
                if peak[y, z] and not edges[y, z]:
                    edges[y, z] = True
                    todo.append((y, z))
    return edges[1:33, 1:33]
