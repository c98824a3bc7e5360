"""Which implementation runs, of a HaH block and of the weight norm: plain operations or a fused twin, by device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.nn import convolution
from engine.nn.equations import BlockNumbers, divisive_norm, hah_cost

Kernels = Literal["auto", "reference", "fused"]
Fused = Callable[[Tensor, Tensor, BlockNumbers], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Twin:
    """Fused operations: their name, the module they are in, the precisions in which they run (a block: of its
    convolution; the weight norm: of the weights), and how they are tried on a device: that raises whatever a compiler
    says, and RuntimeError for a result that is not the reference's.

    The module has ``hah_block``, which takes x [B, C, H, W], the weight its convolution uses [N, C, h, w] and the
    block's numbers, and returns the output [B, N, H, W] and the HaH cost, a scalar, or ``unit_norm``, the twin of
    `convolution.unit_norm`, or both; and ``failed``, which tells what a compiler or a launch says from what is wrong
    with the input.
    """

    name: str
    module: str
    dtypes: tuple[torch.dtype, ...]
    tried: Callable[[Any, torch.device], None]

    @property
    def code(self) -> Any:
        return import_module(self.module)


def fused(kind: str, dtype: torch.dtype) -> Twin | None:
    """The fused block for convolutions in ``dtype`` on a kind of device (cpu, cuda), or None where there is none or it
    does not run here; on first use it is compiled and compared with the plain operations."""
    return _working(TWINS, kind, dtype)


def unit_norm(weight: Tensor, wanted: Kernels) -> tuple[Tensor, str]:
    """`convolution.unit_norm`, by a twin where there is one and the reference is not wanted, and what ran."""
    twin = _working(UNIT_NORMS, weight.device.type, weight.dtype) if wanted != "reference" else None
    if twin is not None:
        try:
            return twin.code.unit_norm(weight), twin.name
        except Exception as error:
            if not twin.code.failed(error):
                raise
            give_up(twin, error)
    return convolution.unit_norm(weight), "reference"


def _working(twins: dict[str, Twin], kind: str, dtype: torch.dtype) -> Twin | None:
    twin = twins.get(kind)
    if twin is None or dtype not in twin.dtypes:
        return None
    if twin.name not in _works:
        _works[twin.name] = True
        try:
            twin.tried(twin.code, torch.device(kind))
        except torch.OutOfMemoryError:
            del _works[twin.name]
            raise
        except Exception as error:  # no compiler, a driver or a version it does not like, or a wrong result
            give_up(twin, error)
    return twin if _works[twin.name] else None


def give_up(twin: Twin, error: Exception) -> None:
    """Remember that these fused operations do not run here, and say so once: the reference runs in their place."""
    _works[twin.name] = False
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(
        f"{twin.name}: the fused operations cannot run, the reference does: {reason}", RuntimeWarning, stacklevel=2
    )


def _try_block(code: Any, device: torch.device) -> None:
    for precision in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
        for K in (3, 0):
            check(code.hah_block, device, precision, K)


def check(block: Fused, device: torch.device, dtype: torch.dtype, K: int) -> None:
    """Compile a fused block and compare a small one, convolutions in ``dtype``, with the plain operations.

    Raises whatever a compiler says, and RuntimeError for a result that is not the reference's.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        draw = torch.Generator().manual_seed(0)
        x, w = torch.randn(2, 4, 6, 6, generator=draw).to(device), torch.randn(24, 4, 3, 3, generator=draw).to(device)
        x = x.to(dtype)
        x.requires_grad_(), w.requires_grad_()
        numbers = BlockNumbers(sigma=0.1, pool=3, eps=1e-7, k=28, scale=None, K=K, lambda_=0.5, local=False)
        o, cost = block(x, w, numbers)
        ours = (o, cost, *torch.autograd.grad(o.float().square().sum() - cost, (x, w)))
        y = F.relu(F.conv2d(x, w.to(dtype), padding=1).float())
        z = divisive_norm(y)
        cost = hah_cost(y, 0.1, 0.5) if K else y.new_zeros(())
        o = z * (o.detach() > 0)  # the same locations, whatever rounding chose
        wanted = (o, cost, *torch.autograd.grad(o.square().sum() - cost, (x, w)))
    tolerance = 1e-2 if dtype != torch.bfloat16 else 5e-2  # tensor cores may round inputs
    for a, b in zip(ours, wanted, strict=True):
        scale = float(b.detach().abs().max())
        if not torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance * scale):
            raise RuntimeError("its result is not the reference's")


def check_unit_norm(code: Any, device: torch.device) -> None:
    """The same of a weight norm, filter by filter: one is zero, and one has a gradient a million times as large."""
    for shape, layout in (((5, 3, 3, 3), torch.contiguous_format), ((3, 130, 3, 3), torch.channels_last)):
        with torch.inference_mode(False), torch.enable_grad():
            draw = torch.Generator().manual_seed(0)
            w, g = (torch.randn(shape, generator=draw).to(device) for _ in range(2))
            w[1] = 0
            w = w.contiguous(memory_format=layout).requires_grad_()
            ours, wanted = code.unit_norm(w), convolution.unit_norm(w)
            gradients = [torch.autograd.grad((one * g).sum(), w)[0] for one in (ours, wanted)]
        for a, b in zip([*ours.detach(), *gradients[0]], [*wanted.detach(), *gradients[1]], strict=True):
            if not torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max())):
                raise RuntimeError("its weight norm is not the reference's")


_TRITON = "engine.nn.fused_triton"
TWINS = {  # of a HaH block, by kind of device
    "cpu": Twin("fused-cpu", "engine.nn.fused_cpu", (torch.float32, torch.float64), _try_block),
    "cuda": Twin("triton", _TRITON, (torch.float32, torch.bfloat16), _try_block),
}
UNIT_NORMS = {"cuda": Twin("triton weight norm", _TRITON, (torch.float32,), check_unit_norm)}  # the same
_works: dict[str, bool] = {}  # twins by name, as far as they have been tried in this process
