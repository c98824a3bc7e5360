"""A slow, independent transcription of the paper's equations and the authors' rules, in NumPy float64 and loops.

Forward and backward passes are written out by hand from the equations; nothing here uses autograd or the package
under test. Shapes: images x [B, C, H, W], filters w [N, C, 3, 3].
"""

import math

import numpy as np


def normalized(w):
    """Eq. 1: each filter over its l2 norm, the authors' 1e-6 added."""
    return np.stack([f / (math.sqrt((f**2).sum()) + 1e-6) for f in w])


def normalized_backward(w, g):
    """Gradient with respect to w of <g, normalized(w)>."""
    out = np.empty_like(w)
    for n, f in enumerate(w):
        norm = math.sqrt((f**2).sum())
        s = norm + 1e-6
        out[n] = g[n] / s - f * ((g[n] * f).sum() / (norm * s * s))
    return out


def convolution(x, w):
    """3x3, stride 1, padding 1, no bias."""
    B, C, H, W = x.shape
    padded = np.zeros((B, C, H + 2, W + 2))
    padded[:, :, 1:-1, 1:-1] = x
    u = np.zeros((B, len(w), H, W))
    for n, f in enumerate(w):
        for i in range(H):
            for j in range(W):
                u[:, n, i, j] = (padded[:, :, i : i + 3, j : j + 3] * f).sum((1, 2, 3))
    return u


def convolution_backward(x, w, g):
    """(gradient for x, gradient for w)."""
    B, C, H, W = x.shape
    padded = np.zeros((B, C, H + 2, W + 2))
    padded[:, :, 1:-1, 1:-1] = x
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for n, f in enumerate(w):
        for i in range(H):
            for j in range(W):
                at = g[:, n, i, j][:, None, None, None]
                dx[:, :, i : i + 3, j : j + 3] += at * f
                dw[n] += (at * padded[:, :, i : i + 3, j : j + 3]).sum(0)
    return dx[:, :, 1:-1, 1:-1], dw


def strongest(top_k, N):
    return math.ceil(top_k * N)


def cost(y, top_k, lam):
    """Eq. 4, averaged over images and locations."""
    B, N, H, W = y.shape
    K = strongest(top_k, N)
    total = 0.0
    for b in range(B):
        for i in range(H):
            for j in range(W):
                ordered = sorted(y[b, :, i, j], reverse=True)
                total += sum(ordered[:K]) / K - lam * sum(ordered[K:]) / (N - K)
    return total / (B * H * W)


def cost_backward(y, top_k, lam):
    """Gradient of Eq. 4 with respect to y: 1/K for the K strongest (the first of equal ones), -lambda/(N-K) else."""
    B, N, H, W = y.shape
    K = strongest(top_k, N)
    g = np.empty_like(y)
    for b in range(B):
        for i in range(H):
            for j in range(W):
                order = sorted(range(N), key=lambda n: (-y[b, n, i, j], n))
                for place, n in enumerate(order):
                    g[b, n, i, j] = 1 / K if place < K else -lam / (N - K)
    return g / (B * H * W)


def _window(i, j, H, W, pool):
    r = pool // 2
    return [(a, b) for a in range(i - r, i + r + 1) for b in range(j - r, j + r + 1) if 0 <= a < H and 0 <= b < W]


def field(y, pool):
    """The mean over filters of the max-pooled activations, and where each maximum came from (the first, row by row)."""
    B, N, H, W = y.shape
    M, source = np.zeros((B, H, W)), {}
    for b in range(B):
        for i in range(H):
            for j in range(W):
                for n in range(N):
                    best = None
                    for place in _window(i, j, H, W, pool):
                        if best is None or y[(b, n, *place)] > y[(b, n, *best)]:
                            best = place
                    source[b, n, i, j] = best
                    M[b, i, j] += y[(b, n, *best)] / N
    return M, source


def divisive(y, sigma, pool, eps):
    """Eq. 2."""
    M, _ = field(y, pool)
    z = np.zeros_like(y)
    for b in range(len(y)):
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                divisor = sigma * M[b].max() + (1 - sigma) * M[b, i, j] + eps
                z[b, :, i, j] = y[b, :, i, j] / divisor if divisor > 0 else 0
    return z


def divisive_backward(y, g, sigma, pool, eps):
    """Gradient with respect to y of <g, divisive(y)>; the maxima are differentiated at their first location."""
    B, N, H, W = y.shape
    M, source = field(y, pool)
    out = np.zeros_like(y)
    for b in range(B):
        first = np.unravel_index(np.argmax(M[b]), (H, W))
        gM = np.zeros((H, W))
        for i in range(H):
            for j in range(W):
                divisor = sigma * M[b].max() + (1 - sigma) * M[b, i, j] + eps
                if divisor == 0:
                    continue
                out[b, :, i, j] += g[b, :, i, j] / divisor
                gd = -(g[b, :, i, j] * y[b, :, i, j]).sum() / divisor**2
                gM[i, j] += (1 - sigma) * gd
                gM[first] += sigma * gd
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    out[(b, n, *source[b, n, i, j])] += gM[i, j] / N
    return out


def kept(z, keep):
    """Eq. 3 by the authors' rule: True where z > the k-th smallest of its filter and image, k = floor((1-keep)HW)."""
    B, N, H, W = z.shape
    k = math.floor((1 - keep) * H * W)
    mask = np.ones(z.shape, bool)
    if k:
        for b in range(B):
            for n in range(N):
                tau = sorted(z[b, n].ravel())[k - 1]
                mask[b, n] = z[b, n] > tau
    return mask


def block(x, w, sigma=0.1, pool=3, keep=0.2, eps=1e-7, weight_norm=True):
    """A HaH block's output and what its backward pass needs."""
    u = convolution(x, normalized(w) if weight_norm else w)
    y = np.maximum(u, 0)
    z = divisive(y, sigma, pool, eps)
    mask = kept(z, keep)
    return z * mask, (x, w, y, mask, sigma, pool, eps, weight_norm)


def block_backward(saved, g):
    """(gradient for x, gradient for w) of <g, block(x)>."""
    x, w, y, mask, sigma, pool, eps, weight_norm = saved
    g_u = divisive_backward(y, g * mask, sigma, pool, eps) * (y > 0)
    return _to_input_and_weight(x, w, g_u, weight_norm)


def _to_input_and_weight(x, w, g_u, weight_norm):
    dx, dw = convolution_backward(x, normalized(w) if weight_norm else w, g_u)
    return dx, normalized_backward(w, dw) if weight_norm else dw


def cost_of_block_backward(saved, top_k, lam):
    """(gradient for x, gradient for w) of the block's HaH cost. The local rule uses the second only."""
    x, w, y, *_, weight_norm = saved
    g_u = cost_backward(y, top_k, lam) * (y > 0)
    return _to_input_and_weight(x, w, g_u, weight_norm)
