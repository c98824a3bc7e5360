"""The two kinds of blocks, and their stages (Eqs. 1 to 3) as modules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.experiment.architecture import suppressed
from engine.nn import kernels
from engine.nn.convolution import local_conv2d
from engine.nn.equations import (
    DIVISOR_EPS,
    BlockNumbers,
    check_norm,
    divisive_norm,
    hah_cost,
    strengthened,
    threshold_fraction,
    threshold_mean,
)
from engine.nn.kernels import Kernels


class NormalizedConv2d(nn.Conv2d):
    """A 3x3 convolution without bias whose output is divided by each filter's l2 norm + 1e-6 (Eq. 1 before ReLU).

    x: [B, C, H, W] -> [B, N, H, W]. ``weight_norm=False`` leaves the weights as they are. ``ran`` is what divided them
    last: "reference", or the name of a fused twin.
    """

    ran = ""

    def __init__(
        self,
        in_channels: int,
        filters: int,
        weight_norm: bool = True,
        kernel_size: int = 3,
        *,
        kernels: Kernels = "auto",
    ) -> None:
        super().__init__(in_channels, filters, kernel_size, padding=kernel_size // 2, bias=False)
        self.weight_norm, self.kernels = weight_norm, kernels

    def used_weight(self) -> Tensor:
        """The weight the convolution uses, [N, C, h, w]: normalizing it costs less than normalizing the output."""
        weight: Tensor = self.weight
        if not self.weight_norm:
            return weight
        normalized, self.ran = kernels.unit_norm(weight, self.kernels)
        return normalized

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self._conv_forward(x, self.used_weight(), None)
        return u

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any


class DivisiveNorm(nn.Module):
    """`divisive_norm` as a module."""

    def __init__(self, sigma: float = 0.1, pool: int = 3, eps: float = DIVISOR_EPS) -> None:
        super().__init__()
        check_norm(sigma, pool, eps)
        self.sigma, self.pool, self.eps = sigma, pool, eps

    def forward(self, y: Tensor) -> Tensor:
        return divisive_norm(y, self.sigma, self.pool, self.eps)

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any

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

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any

    def extra_repr(self) -> str:
        return {"fraction": f"keep={self.keep}", "mean": f"scale={self.scale}", "none": ""}[self.kind] or "none"


class HaHBlock(nn.Module):
    """Convolution with implicit weight norm -> ReLU -> divisive norm -> threshold (Fig. 1, Eqs. 1 to 3).

    x: [B, C, H, W] -> [B, filters, H, W]. In training, ``block(x, cost=True)`` gives Eq. 4 of this block too, a scalar
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
        kernels: Kernels = "auto",
    ) -> None:
        super().__init__()
        if gradient not in ("local", "full"):
            raise ValueError(f"the gradient of a HaH cost is local or full, got {gradient!r}")
        if not 0 < top_k < 1:
            raise ValueError(f"top_k is a fraction of the filters above 0 and below 1, got {top_k}")
        if not 0 <= lambda_ < math.inf:
            raise ValueError(f"lambda must be at least 0, got {lambda_}")
        if kernels not in get_args(Kernels):
            raise ValueError(f"kernels are {', '.join(get_args(Kernels))}, got {kernels!r}")
        self.conv = NormalizedConv2d(in_channels, filters, weight_norm, kernels=kernels)
        self.norm = DivisiveNorm() if norm is None else norm
        self.threshold = Threshold() if threshold is None else threshold
        self.top_k, self.lambda_, self.gradient, self.kernels = top_k, lambda_, gradient, kernels

    def activations(self, x: Tensor) -> Tensor:
        """Eq. 1: y = ReLU(<w, x> / |w|), [B, N, H, W], in the precision of the weights."""
        return F.relu(self.conv(x).to(self.conv.weight.dtype))

    @overload
    def forward(self, x: Tensor, *, cost: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, *, cost: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, x: Tensor, *, cost: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, *, cost: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The output, and with ``cost`` the HaH cost (Eq. 4) from the same convolution."""
        self._check(x)
        if cost and not len(x):
            raise ValueError("a batch without images has no HaH cost")
        weight = self.conv.used_weight()
        fused = self.run_fused(x, weight, cost)
        if fused is not None:
            return fused if cost else fused[0]
        if not cost:
            return self.threshold(self.norm(self.activations(x)))
        dtype = _convolution_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            u, u_hah = local_conv2d(x.to(dtype), weight, self.conv.stride, self.conv.padding)
            if self.gradient == "full":
                u_hah = u
            # Selection, costs and normalization are float32 also where the convolution is not.
            hah = hah_cost(F.relu(u_hah.to(weight.dtype)), self.top_k, self.lambda_)
            return self.threshold(self.norm(F.relu(u.to(weight.dtype)))), hah

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any

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
        numbers = self._numbers(x, with_cost)
        try:
            with torch.autocast(x.device.type, enabled=False):
                result: tuple[Tensor, Tensor] = twin.code.hah_block(x.to(dtype), weight, numbers)
                return result
        except Exception as error:
            if not twin.code.failed(error):
                raise
            kernels.give_up(twin, error)
            self.ran = "reference"
            return None

    def _numbers(self, x: Tensor, with_cost: bool) -> BlockNumbers:
        assert isinstance(self.norm, DivisiveNorm)
        threshold, N = self.threshold, self.conv.out_channels
        return BlockNumbers(
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

    def __init__(
        self,
        in_channels: int,
        filters: int,
        *,
        weight_norm: bool = True,
        momentum: float = 0.1,
        kernels: Kernels = "auto",
    ) -> None:
        super().__init__()
        self.conv = NormalizedConv2d(in_channels, filters, weight_norm, kernels=kernels)
        self.norm = nn.BatchNorm2d(filters, momentum=momentum)

    def activations(self, x: Tensor) -> Tensor:
        """Eq. 1: y = ReLU(<w, x> / |w|), [B, N, H, W]."""
        return F.relu(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(self.activations(x))
        return output

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module gives Any


def _convolution_dtype(x: Tensor) -> torch.dtype:
    """The precision in which a convolution of x runs here."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
