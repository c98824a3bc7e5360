"""The stages of a HaH block (Eqs. 1 to 3) as functions and modules, and the two kinds of blocks made of them."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.experiment.architecture import suppressed
from engine.nn import kernels
from engine.nn.cost import check_maps, hah_cost, local_conv2d, strengthened

_Kernels = kernels.Kernels
WEIGHT_EPS = 1e-6  # added to a filter's norm, as in the authors' code
DIVISOR_EPS = 1e-7  # added to the divisor of Eq. 2, as in the authors' code


def divisive_norm(y: Tensor, sigma: float = 0.1, pool: int = 3, eps: float = DIVISOR_EPS) -> Tensor:
    """Eq. 2: y / (sigma * M_max + (1 - sigma) * M + eps).

    y: [B, N, H, W] non-negative. M is the mean over filters at each location, after a ``pool`` x ``pool`` max-pool
    of stride 1 (1: Eq. 2 as printed; 3: the authors' code); M_max its maximum over the image. Returns [B, N, H, W].
    With eps = 0 the result does not change when y is scaled. A silent image stays zero.
    """
    check_maps(y)
    _check_norm(sigma, pool, eps)
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


class NormalizedConv2d(nn.Conv2d):
    """A 3x3 convolution without bias whose output is divided by each filter's l2 norm + 1e-6 (Eq. 1 before ReLU).

    x: [B, C, H, W] -> [B, N, H, W]. ``weight_norm=False`` leaves the weights as they are.
    """

    def __init__(self, in_channels: int, filters: int, weight_norm: bool = True, kernel_size: int = 3) -> None:
        super().__init__(in_channels, filters, kernel_size, padding=kernel_size // 2, bias=False)
        self.weight_norm = weight_norm

    def used_weight(self) -> Tensor:
        """The weight the convolution uses, [N, C, h, w]: normalizing it costs less than normalizing the output."""
        weight: Tensor = self.weight
        if not self.weight_norm:
            return weight
        normalized: Tensor = _UnitNorm.apply(weight)
        return normalized

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self._conv_forward(x, self.used_weight(), None)
        return u


def _check_norm(sigma: float, pool: int, eps: float) -> None:
    if not 0 <= sigma <= 1:
        raise ValueError(f"sigma must be from 0 to 1, got {sigma}")
    if pool % 2 == 0 or pool < 1:
        raise ValueError(f"pool must be odd, got {pool}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be at least 0, got {eps}")


class DivisiveNorm(nn.Module):
    """`divisive_norm` as a module."""

    def __init__(self, sigma: float = 0.1, pool: int = 3, eps: float = DIVISOR_EPS) -> None:
        super().__init__()
        _check_norm(sigma, pool, eps)
        self.sigma, self.pool, self.eps = sigma, pool, eps

    def forward(self, y: Tensor) -> Tensor:
        return divisive_norm(y, self.sigma, self.pool, self.eps)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, pool={self.pool}"


class Threshold(nn.Module):
    """`threshold_fraction`, `threshold_mean`, or nothing, as a module."""

    def __init__(
        self, kind: Literal["fraction", "mean", "none"] = "fraction", keep: float = 0.2, scale: float = 1.0
    ) -> None:
        super().__init__()
        if kind not in ("fraction", "mean", "none"):
            raise ValueError(f"the kind of a threshold is fraction, mean or none, got {kind!r}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale must be at least 0, got {scale}")
        self.kind, self.keep, self.scale = kind, keep, scale

    def forward(self, z: Tensor) -> Tensor:
        if self.kind == "fraction":
            return threshold_fraction(z, self.keep)
        return threshold_mean(z, self.scale) if self.kind == "mean" else z

    def extra_repr(self) -> str:
        return {"fraction": f"keep={self.keep}", "mean": f"scale={self.scale}", "none": ""}[self.kind] or "none"


class HaHBlock(nn.Module):
    """Convolution with implicit weight norm -> ReLU -> divisive norm -> threshold (Fig. 1, Eqs. 1 to 3).

    x: [B, C, H, W] -> [B, filters, H, W]. In training, `forward_with_cost` also returns Eq. 4 of this block, a scalar
    to be maximized: ``loss = cross_entropy - alpha * cost``. With ``gradient="local"`` its gradient reaches this
    block's weights only; with "full" it flows on, as Eq. 5 says. ``norm`` may be any module on [B, N, H, W]
    (a BatchNorm2d for the paper's ablation). Raises ValueError for settings or an x that cannot be.

    NaN stays in its image, which becomes NaN as a whole, and the cost is NaN. ``ran`` is what ran last: "reference", or
    the name of a fused twin. Twins run 3x3 (any odd size) convolutions of stride 1, the reference any stride.
    """

    ran = ""

    def __init__(
        self,
        in_channels: int,
        filters: int,
        *,
        norm: nn.Module | None = None,
        threshold: Threshold | None = None,
        top_k: float = 0.1,
        lambda_: float = 0.1,
        gradient: Literal["local", "full"] = "local",
        weight_norm: bool = True,
        kernels: _Kernels = "auto",
    ) -> None:
        super().__init__()
        if gradient not in ("local", "full"):
            raise ValueError(f"the gradient of a HaH cost is local or full, got {gradient!r}")
        if not 0 < top_k < 1:
            raise ValueError(f"top_k is a fraction of the filters above 0 and below 1, got {top_k}")
        if not 0 <= lambda_ < math.inf:
            raise ValueError(f"lambda must be at least 0, got {lambda_}")
        if kernels not in get_args(_Kernels):
            raise ValueError(f"kernels are {', '.join(get_args(_Kernels))}, got {kernels!r}")
        self.conv = NormalizedConv2d(in_channels, filters, weight_norm)
        self.norm = DivisiveNorm() if norm is None else norm
        self.threshold = Threshold() if threshold is None else threshold
        self.top_k, self.lambda_, self.gradient, self.kernels = top_k, lambda_, gradient, kernels

    def activations(self, x: Tensor) -> Tensor:
        """Eq. 1: y = ReLU(<w, x> / |w|), [B, N, H, W], in the precision of the weights."""
        return F.relu(self.conv(x).to(self.conv.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        fused = self.run_fused(x, self.conv.used_weight(), with_cost=False)
        if fused is not None:
            return fused[0]
        output: Tensor = self.threshold(self.norm(self.activations(x)))
        return output

    def forward_with_cost(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output and the HaH cost (Eq. 4) from one convolution."""
        self._check(x)
        if not len(x):
            raise ValueError("a batch without images has no HaH cost")
        weight, dtype = self.conv.used_weight(), _convolution_dtype(x)
        fused = self.run_fused(x, weight, with_cost=True)
        if fused is not None:
            return fused
        with torch.autocast(x.device.type, enabled=False):
            u, u_hah = local_conv2d(x.to(dtype), weight, self.conv.stride, self.conv.padding)
            if self.gradient == "full":
                u_hah = u
            # Selection, costs and normalization are float32 also where the convolution is not.
            cost = hah_cost(F.relu(u_hah.to(weight.dtype)), self.top_k, self.lambda_)
            return self.threshold(self.norm(F.relu(u.to(weight.dtype)))), cost

    def _check(self, x: Tensor) -> None:
        conv = self.conv
        if x.ndim != 4 or x.shape[1] != conv.in_channels or 0 in x.shape[2:] or not x.is_floating_point():
            raise ValueError(
                f"a block takes floating-point numbers [B, {conv.in_channels}, H, W], got {x.dtype} {list(x.shape)}"
            )
        if conv.dilation != (1, 1) or conv.groups != 1 or conv.bias is not None or conv.padding_mode != "zeros":
            raise ValueError("a block's convolution has neither dilation, groups, a bias nor padding other than zeros")

    def _fused(self, x: Tensor, dtype: torch.dtype) -> kernels.Twin | None:
        """The twin that runs on x, if one does."""
        conv, norm = self.conv, self.norm
        if self.kernels == "reference" or not len(x) or not isinstance(norm, DivisiveNorm) or norm.pool not in (1, 3):
            return None
        size = conv.kernel_size[0]
        if conv.stride != (1, 1) or conv.kernel_size != (size, size) or conv.padding != (size // 2, size // 2):
            return None
        return kernels.fused(x.device.type, dtype)

    def run_fused(self, x: Tensor, weight: Tensor, with_cost: bool) -> tuple[Tensor, Tensor] | None:
        """Output and cost of the fused twin, or None where the reference runs."""
        dtype = _convolution_dtype(x)
        twin = self._fused(x, dtype)
        self.ran = twin.name if twin else "reference"
        if twin is None:
            return None
        settings = self._settings(x, with_cost)
        try:
            with torch.autocast(x.device.type, enabled=False):
                result: tuple[Tensor, Tensor] = twin.code.hah_block(x.to(dtype), weight, settings)
                return result
        except Exception as error:
            if not twin.code.failed(error):
                raise
            kernels.give_up(twin, error)
            self.ran = "reference"
            return None

    def _settings(self, x: Tensor, with_cost: bool) -> kernels.Settings:
        assert isinstance(self.norm, DivisiveNorm)
        threshold, N = self.threshold, self.conv.out_channels
        return kernels.Settings(
            sigma=self.norm.sigma,
            pool=self.norm.pool,
            eps=self.norm.eps,
            k=suppressed(threshold.keep, x.shape[2], x.shape[3]) if threshold.kind == "fraction" else 0,
            scale=threshold.scale if threshold.kind == "mean" else None,
            K=strengthened(self.top_k, N) if with_cost else 0,
            lambda_=self.lambda_,
            local=self.gradient == "local",
        )

    def extra_repr(self) -> str:
        return f"top_k={self.top_k}, lambda={self.lambda_}, gradient={self.gradient}"


class StandardBlock(nn.Module):
    """Convolution (with implicit weight norm) -> ReLU -> affine BatchNorm: [B, C, H, W] -> [B, filters, H, W]."""

    def __init__(self, in_channels: int, filters: int, *, weight_norm: bool = True, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv = NormalizedConv2d(in_channels, filters, weight_norm)
        self.norm = nn.BatchNorm2d(filters, momentum=momentum)

    def activations(self, x: Tensor) -> Tensor:
        """Eq. 1: y = ReLU(<w, x> / |w|), [B, N, H, W]."""
        return F.relu(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(self.activations(x))
        return output


def _convolution_dtype(x: Tensor) -> torch.dtype:
    """The precision in which a convolution of x runs here."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
