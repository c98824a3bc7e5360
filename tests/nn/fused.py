"""What fused blocks are tested against, on a GPU and in the interpreter: numbers, inputs and the plain composition."""

import torch
from torch.nn import functional as F

from engine.experiment.architecture import blocks, strongest, suppressed
from engine.nn import HaHBlock, divisive_norm
from engine.nn.equations import BlockNumbers


def numbers(N, H, W, **changes):
    made = {
        "sigma": 0.1,
        "pool": 3,
        "eps": 1e-7,
        "k": suppressed(0.2, H, W),
        "scale": None,
        "K": strongest(0.1, N),
        "lambda_": 0.1,
        "local": True,
    }
    return BlockNumbers(**{**made, **changes})


def draw(kind, B, H, W, N, seed=0):
    u = torch.randn(B, H, W, N, generator=torch.Generator().manual_seed(seed))
    match kind:
        case "tied":
            u = (2 * u).round()
        case "zero":
            u[0] = -u[0].abs()
        case "constant":
            u[:] = u[:, :1, :1]
        case "dead":
            u[..., N // 4 :] = -1
    return u


def reference(u, s):
    """The stages in float64, of u [B, H, W, N]: (y, z, o, cost) as [B, N, H, W]."""
    y = F.relu(u.double()).permute(0, 3, 1, 2)
    z = divisive_norm(y, s.sigma, s.pool, s.eps)
    return y, z


KINDS = ["random", "tied", "zero", "constant", "dead"]
# Every (map, filters) of VGG-11 to 19 at widths 1/8 to 2, and odd ones.
MET = sorted(
    {
        (block.size, block.filters)
        for name in ("vgg11", "vgg13", "vgg16", "vgg19")
        for width in (0.125, 0.25, 0.5, 1.0, 2.0)
        for block in blocks(name, width)
    }
)


def run_block(function, x, w, g, s, g_cost=-0.3):
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    o, cost = function(x, w, s)
    dx, dw = torch.autograd.grad((o.to(w.dtype) * g).sum() + g_cost * cost, (x, w))
    return o.detach(), cost.detach(), dx, dw


def composition(x, w, s):
    """The plain composition with the numbers of a fused one."""
    block = HaHBlock(x.shape[1], len(w), top_k=s.K / len(w) - 1e-9, lambda_=s.lambda_, kernels="reference")
    block.norm.sigma, block.norm.pool, block.norm.eps = s.sigma, s.pool, s.eps
    block.gradient = "local" if s.local else "full"
    if s.scale is not None:
        block.threshold.kind, block.threshold.scale = "mean", s.scale
    elif not s.k:
        block.threshold.kind = "none"
    block.conv.weight_norm = False
    block.conv.weight = torch.nn.Parameter(w) if not w.requires_grad else block.conv.weight
    object.__setattr__(block.conv, "used_weight", lambda: w)
    return block(x, cost=True)
