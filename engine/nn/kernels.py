"""Which implementation of a HaH block runs: the plain composition or a fused twin, by device and shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kernels = Literal["auto", "reference", "fused"]


@dataclass(frozen=True)
class Settings:
    """What a fused HaH block needs to know besides tensors (Eqs. 2 to 4)."""

    sigma: float
    pool: int
    eps: float
    k: int  # of the fraction threshold: tau is the k-th smallest location; 0: no such threshold
    scale: float | None  # of the mean threshold; None: no such threshold
    K: int  # filters strengthened at each location; 0: no cost is wanted
    lambda_: float
    local: bool  # the HaH gradient reaches this block's weights only


Fused = Callable[[Tensor, Tensor, Settings], tuple[Tensor, Tensor]]


def fused(device: torch.device, dtype: torch.dtype) -> tuple[str, Fused] | None:
    """The fused block for convolutions in ``dtype`` on ``device``: its name and function, or None.

    The function takes x [B, C, H, W], the weight its convolution uses [N, C, h, w] and settings, and returns the
    output [B, N, H, W] and the HaH cost, a scalar.
    """
    if device.type == "cpu" and dtype in (torch.float32, torch.float64):
        from engine.nn import fused_cpu

        return "fused-cpu", fused_cpu.hah_block
    return None
