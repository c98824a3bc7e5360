"""Which implementation of a HaH block runs: the plain composition or a fused twin, by device and shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, to_input: bool) -> Tensor:
    """The gradient of x [B, C, H, W] or of weight [N, C, h, w] for that of the output, g [B, H, W, N], in x's dtype."""
    pad = weight.shape[2] // 2
    result = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2), x, weight.to(x.dtype), None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1,
        [to_input, not to_input, False],
    )  # fmt: skip
    gradient: Tensor = result[0 if to_input else 1]
    return gradient


def fused(device: torch.device, dtype: torch.dtype) -> tuple[str, Fused] | None:
    """The fused block for convolutions in ``dtype`` on ``device``: its name and function, or None.

    The function takes x [B, C, H, W], the weight its convolution uses [N, C, h, w] and settings, and returns the
    output [B, N, H, W] and the HaH cost, a scalar.
    """
    if device.type == "cpu" and dtype in (torch.float32, torch.float64):
        name = "fused-cpu"
    elif device.type == "cuda" and dtype in (torch.float32, torch.bfloat16):
        name = "triton"
    else:
        return None
    if name in _broken:
        return None
    try:
        if name == "fused-cpu":
            from engine.nn.fused_cpu import hah_block
        else:
            from engine.nn.fused_triton import hah_block
        check(hah_block, device)
    except Exception as error:  # no compiler, a driver or a version it does not like, or a wrong result
        give_up(name, error)
        return None
    return name, hah_block


_broken: set[str] = set()  # what could not be compiled here


def give_up(name: str, error: Exception) -> None:
    """Remember that this fused block does not run here, and say so once: the reference runs in its place."""
    _broken.add(name)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"{name}: the fused block cannot run, the reference does: {reason}", RuntimeWarning, stacklevel=2)


@cache
def check(block: Fused, device: torch.device) -> None:
    """Compile a fused block on ``device`` and compare a small one with the plain operations, once in a process.

    Raises whatever a compiler says, and RuntimeError for a result that is not the reference's.
    """
    from engine.nn.cost import hah_cost
    from engine.nn.layers import divisive_norm

    with torch.inference_mode(False), torch.enable_grad():
        draw = torch.Generator().manual_seed(0)
        x, w = torch.randn(2, 4, 6, 6, generator=draw).to(device), torch.randn(24, 4, 3, 3, generator=draw).to(device)
        x.requires_grad_(), w.requires_grad_()
        settings = Settings(sigma=0.1, pool=3, eps=1e-7, k=28, scale=None, K=3, lambda_=0.5, local=False)
        o, cost = block(x, w, settings)
        ours = (o, cost, *torch.autograd.grad(o.square().sum() - cost, (x, w)))
        y = F.relu(F.conv2d(x, w, padding=1))
        z = divisive_norm(y)
        o, cost = z * (o.detach() > 0), hah_cost(y, 0.1, 0.5)  # the same locations, whatever rounding chose
        wanted = (o, cost, *torch.autograd.grad(o.square().sum() - cost, (x, w)))
    for a, b in zip(ours, wanted, strict=True):
        scale = float(b.detach().abs().max())
        if not torch.allclose(a, b, rtol=1e-2, atol=1e-2 * scale):  # tensor cores may round inputs
            raise RuntimeError("its result is not the reference's")
