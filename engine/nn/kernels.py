"""Which implementation of a HaH block runs: the plain composition or a fused twin, by device and shape."""

from __future__ import annotations

import warnings
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
    if device.type == "cuda" and dtype in (torch.float32, torch.bfloat16) and not _broken:
        try:
            from engine.nn import fused_triton

            fused_triton.check(device)
        except Exception as error:  # no Triton, no compiler, a driver it does not like, or a wrong result
            give_up(error)
            return None
        return "triton", fused_triton.hah_block
    return None


_broken = False  # whether a Triton kernel could not be compiled here


def give_up(error: Exception) -> None:
    """Remember that the Triton kernels do not run here, and say so once: the reference runs in their place."""
    global _broken
    _broken = True
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"the fused kernels cannot run, the reference does: {reason}", RuntimeWarning, stacklevel=2)
