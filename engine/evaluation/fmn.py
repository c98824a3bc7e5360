"""The smallest perturbation that changes a prediction: FMN (Pintor et al. 2021) in L0, L1, L2 and Linf, our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.evaluation.attacks import Classifier, Scores, check_images
from engine.experiment.mistakes import RequestError
from engine.probes.observation import evaluating
from engine.training.adversarial import Norm, project, size

NORMS: tuple[Norm, ...] = ("l0", "l1", "l2", "linf")
_DUAL = {"l1": math.inf, "l2": 2.0, "linf": 1.0}

STEP = (1.0, 0.01)  # first and last length of a step, of the length that `_pace` gives
GROWTH = (0.2, 0.001)  # first and last relative change of eps
MOMENTUM = 0.8  # of the gradient's direction: thresholds make the loss rough
OVERSHOOT = 1.02  # of the distance to the boundary, else steps approach it forever and never cross
RETURNS = (0.5, 0.75)  # when, as parts of the steps, the search goes back to the best point
BISECTIONS = 10  # between the image and the best point, at the end


@dataclass(frozen=True)
class MinimumNorm:
    """Per image: ``norms`` [B] (0: misclassified without an attack; infinite: nothing adversarial found) and the
    ``adversarial`` images [B, C, H, W] of these norms (the original where there is none)."""

    norms: Tensor
    adversarial: Tensor


def minimum_norm(
    model: Classifier, x: Tensor, y: Tensor, norm: Norm, steps: int = 300, targets: int = 0
) -> MinimumNorm:
    """The smallest perturbations found of images x [B, C, H, W] in [0, 1] with labels y [B].

    Every step walks against the margin's gradient and is projected onto a ball whose radius eps shrinks while the
    image is adversarial and grows while it is not; before the first success eps is the distance to the boundary by
    the gradient's dual norm. Step and change of eps decay with a cosine. L0 counts tensor elements, not pixels.
    Fewer than 300 steps overstate the norms. ``targets`` adds as many searches, each towards one of the likeliest other
    classes; on a rough loss one search alone may overstate the norms of the strongest images. Nothing is random and
    images do not depend on each other. Each point that is returned was classified once more, lies in [0, 1], and its
    norm is measured on the image as returned.
    """
    check_images(x, y)
    if norm not in NORMS:
        raise RequestError(f"norm {norm!r} is none of {', '.join(NORMS)}")
    x = x.detach().float().contiguous()
    scores = Scores(model, x)
    with evaluating(scores):
        clean = scores.right(x, y)
        best = x.clone()
        if clean.any():
            best[clean] = _searches(scores, x[clean], y[clean], norm, steps, targets)
        adversarial = ~scores.right(best, y) & (best.amin((1, 2, 3)) >= 0) & (best.amax((1, 2, 3)) <= 1)
    norms = size(best.double() - x.double(), norm).masked_fill(~adversarial, math.inf).masked_fill(~clean, 0)
    return MinimumNorm(norms, torch.where(norms.isfinite().view(-1, 1, 1, 1), best, x))


def _searches(scores: Scores, x: Tensor, y: Tensor, norm: Norm, steps: int, targets: int) -> Tensor:
    """The smallest that a search away from the label and one towards each target find, the image itself where none
    does; [B, C, H, W]."""
    with torch.no_grad():
        likeliest = scores(x).scatter(1, y[:, None], -math.inf).argsort(1, descending=True)
    towards = [likeliest[:, index] for index in range(min(targets, scores.classes - 1))]
    best, smallest = x, torch.full_like(y, math.inf, dtype=x.dtype)
    for target in (None, *towards):
        met = _search(scores, x, y, norm, steps, target)
        met = met if norm == "l0" else _nearer(scores, x, y, met)
        now = size(met - x, norm).masked_fill(scores.right(met, y), math.inf)
        best = torch.where((now < smallest).view(-1, 1, 1, 1), met, best)
        smallest = torch.minimum(now, smallest)
    return best


def _search(scores: Scores, x: Tensor, y: Tensor, norm: Norm, steps: int, target: Tensor | None) -> Tensor:
    """The smallest adversarial image of each that a walk meets, the image itself where it meets none; [B, C, H, W]."""
    column = (-1, 1, 1, 1)
    at = best = x
    smallest = torch.full_like(y, math.inf, dtype=x.dtype)
    eps = torch.ones_like(smallest) if norm == "l0" else smallest
    direction = torch.zeros_like(x)
    for step in range(steps):
        decay = (1 + math.cos(math.pi * step / steps)) / 2
        length, growth = (last + (first - last) * decay for first, last in (STEP, GROWTH))
        margin, gradient, fooled = _margin(scores, at, y, target)
        now = size(at - x, norm)
        better = fooled & (now < smallest)
        smallest, best = torch.where(better, now, smallest), torch.where(better.view(column), at, best)
        found = smallest.isfinite()
        if norm == "l0":
            shrunk = torch.minimum(torch.minimum(eps - 1, (eps * (1 - growth)).floor()), smallest)
            grown = torch.maximum(eps + 1, (eps * (1 + growth)).floor())
        else:
            shrunk = torch.minimum(eps * (1 - growth), smallest)
            dual = torch.linalg.vector_norm(gradient.flatten(1), _DUAL[norm], dim=1)
            boundary = OVERSHOOT * (now + margin / dual.clamp_min(1e-12))
            grown = torch.where(found, eps * (1 + growth), boundary)
        eps = torch.where(fooled, shrunk, grown)
        direction = MOMENTUM * direction + (1 - MOMENTUM) * _unit(gradient)
        if step in [int(part * steps) for part in RETURNS]:
            at, eps = torch.where(found.view(column), best, at), torch.where(found, smallest, eps)
        moved = at - x - length * _pace(x, eps, norm).view(column) * _unit(direction)
        at = (x + project(moved, norm, eps)).clamp(0, 1)
    return best


def _pace(x: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The longest step in L2, [B]: in L2 and Linf a fifth of the ball's radius, in L1 and L0 as long as one element
    can be changed."""
    if norm in ("l0", "l1"):
        return torch.ones_like(eps)
    reach = eps * math.sqrt(x[0].numel()) if norm == "linf" else eps
    return (0.2 * reach).clamp_max(math.sqrt(x[0].numel()))


def _nearer(scores: Scores, x: Tensor, y: Tensor, best: Tensor) -> Tensor:
    """The point nearest to the image that bisection finds adversarial on the line to ``best``."""
    low = torch.zeros(len(x), 1, 1, 1, device=x.device)
    high, near = torch.ones_like(low), best
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        at = (x + middle * (best - x)).clamp(0, 1)
        right = scores.right(at, y).view(-1, 1, 1, 1)
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
        near = torch.where(right, near, at)
    return near


def _margin(scores: Scores, at: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(the right score minus the best wrong one, or the target's, [B], its gradient [B, C, H, W], whether it is
    misclassified [B])."""
    at = at.detach().requires_grad_()
    logits, own = scores(at), y[:, None]
    wrong = logits.scatter(1, own, -math.inf).amax(1) if target is None else logits.gather(1, target[:, None])[:, 0]
    margin = logits.gather(1, own)[:, 0] - wrong
    (gradient,) = torch.autograd.grad(margin.sum(), at)
    return margin.detach(), gradient.nan_to_num(0), logits.argmax(1) != y


def _unit(direction: Tensor) -> Tensor:
    return direction / size(direction, "l2").clamp_min(1e-12).view(-1, 1, 1, 1)


def curve(norms: Tensor, epsilons: Sequence[float]) -> list[tuple[float, float]]:
    """(eps, accuracy under a perturbation of at most eps) for each; norms [n] as `minimum_norm` gives them."""
    return [(eps, float(((norms > eps) & (norms > 0)).double().mean())) for eps in epsilons]


def summary(norms: Tensor) -> dict[str, float | int | None]:
    """Of norms [n]: "median" over all images, failures infinite (None where it is one); "mean" over the images that
    needed an attack and fell (None without any); "success_rate" of all images; "misclassified", how many are 0."""
    median = float(norms.double().quantile(0.5, interpolation="higher"))
    fell = norms[norms.isfinite() & (norms > 0)]
    return {
        "median": median if math.isfinite(median) else None,
        "mean": float(fell.double().mean()) if len(fell) else None,
        "success_rate": float(norms.isfinite().double().mean()),
        "misclassified": int((norms == 0).sum()),
    }
