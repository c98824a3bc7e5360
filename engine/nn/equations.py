"""The equations of a HaH block after its convolution as functions: Eq. 2, Eq. 3 and the cost, Eq. 4."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from engine.experiment.architecture import strongest, suppressed

WEIGHT_EPS = 1e-6  # added to a filter's norm, as in the authors' code
DIVISOR_EPS = 1e-7  # added to the divisor of Eq. 2, as in the authors' code


@dataclass(frozen=True)
class BlockNumbers:
    """What Eqs. 2 to 4 need of a block on maps of one size besides tensors: what a fused block is given."""

    sigma: float
    pool: int
    eps: float
    k: int  # of the fraction threshold: tau is the k-th smallest location; 0: no such threshold
    scale: float | None  # of the mean threshold; None: no such threshold
    K: int  # filters strengthened at each location; 0: no cost is wanted
    lambda_: float
    local: bool  # the HaH gradient reaches this block's weights only


def divisive_norm(y: Tensor, sigma: float = 0.1, pool: int = 3, eps: float = DIVISOR_EPS) -> Tensor:
    """Eq. 2: y / (sigma * M_max + (1 - sigma) * M + eps).

    y: [B, N, H, W] non-negative. M is the mean over filters at each location, after a ``pool`` x ``pool`` max-pool
    of stride 1 (1: Eq. 2 as printed; 3: the authors' code); M_max its maximum over the image. Returns [B, N, H, W].
    With eps = 0 the result does not change when y is scaled. A silent image stays zero.
    """
    check_maps(y)
    check_norm(sigma, pool, eps)
    field = y if pool == 1 else F.max_pool2d(y, pool, stride=1, padding=pool // 2)
    M = field.mean(1, keepdim=True)
    M_max = M.flatten(1).max(1).values.view(-1, 1, 1, 1)  # max(dim): the gradient goes to the first maximum
    divisor = sigma * M_max + (1 - sigma) * M + eps
    # Where the divisor is 0 (eps = 0, or it underflowed) every filter is silent and 0 / 1 is the answer.
    return y / divisor.masked_fill(divisor == 0, 1)


def threshold_fraction(z: Tensor, keep: float = 0.2) -> Tensor:
    """Eq. 3 with tau the k-th smallest of each filter's locations in each image, k = floor((1 - keep) * H * W).

    z: [B, N, H, W]. Kept where z > tau, so at most H*W - k locations, fewer at ties; everything is kept where k = 0.
    No gradient flows through tau. Returns [B, N, H, W].
    """
    check_maps(z)
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    k = suppressed(keep, z.shape[2], z.shape[3])
    if k == 0:
        return z
    tau = z.detach().flatten(2).kthvalue(k, dim=2).values[:, :, None, None]
    return z * (z > tau)


def threshold_mean(z: Tensor, scale: float = 1.0) -> Tensor:
    """Eq. 3 with tau = scale * the mean of each filter's locations in each image. z: [B, N, H, W]."""
    check_maps(z)
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale must be at least 0, got {scale}")
    tau = scale * z.detach().mean((2, 3), keepdim=True)
    return z * (z > tau)


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


def check_norm(sigma: float, pool: int, eps: float) -> None:
    if not 0 <= sigma <= 1:
        raise ValueError(f"sigma must be from 0 to 1, got {sigma}")
    if pool % 2 == 0 or pool < 1:
        raise ValueError(f"pool must be odd, got {pool}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be at least 0, got {eps}")
