"""The smallest perturbation that changes a prediction: FMN (Pintor et al. 2021) in L0, L1, L2 and Linf, our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor

from engine.evaluation.attacks import Classifier, Scores, check_images
from engine.experiment.mistakes import RequestError
from engine.probes.observation import evaluating
from engine.training.adversarial import Norm, project, size, steepest

NORMS: tuple[Norm, ...] = ("l0", "l1", "l2", "linf")
_DUAL = {"l1": math.inf, "l2": 2.0, "linf": 1.0}

STEP = (1.0, 0.01)  # first and last length of a step, of the length that `_pace` gives
GROWTH = (0.2, 0.001)  # first and last relative change of eps
MOMENTUM = 0.8  # of the gradient's direction: thresholds make the loss rough
OVERSHOOT = 1.02  # of the distance to the boundary, else steps approach it forever and never cross
RETURNS = (0.5, 0.75)  # when, as parts of a walk, it goes back to the best point
WALK = 50  # steps of a walk: on a loss as rough as thresholds make it, many short walks meet more than a long one
NEARER, SHAKE = 0.9, 0.5  # where a walk begins: so far along the way to the best point, and so much noise, of its norm
BISECTIONS = 10  # between the image and the best point, at the end of a walk
REMOVALS = 30  # of changed elements, at the end of a walk, in L0


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
    the gradient's dual norm. Step and change of eps decay with a cosine, anew in every walk of 50 steps; a walk begins
    near the smallest perturbation that those before it met. After each walk away from the label ``targets`` adds so
    many towards one other class each, the classes taking turns, the likeliest first. More steps never find larger
    norms (in multiples of 50), fewer than 300 overstate them. L0 counts tensor elements, not pixels.

    The noise is the same at every call, and images do not depend on each other. Each point that is returned was
    classified once more, lies in [0, 1], and its norm is measured on the image as returned.
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
    """The smallest that walks away from the label and towards other classes find, the image itself where none does;
    [B, C, H, W]."""
    with torch.no_grad():
        likeliest = scores(x).scatter(1, y[:, None], -math.inf).argsort(1, descending=True)
    others = [likeliest[:, index] for index in range(scores.classes - 1)]
    best, smallest = x, torch.full_like(y, math.inf, dtype=x.dtype)
    draw, turns = torch.Generator().manual_seed(0), cycle(others)
    for walked in range(0, steps, WALK):
        for target in (None, *islice(turns, min(targets, len(others)))):
            noise = torch.randn(x.shape[1:], generator=draw).to(x)  # one for all: images do not depend on each other
            met = _walk(scores, x, y, norm, min(WALK, steps - walked), target, _Best(best, smallest), noise)
            met = (_fewer if norm == "l0" else _nearer)(scores, x, y, met)
            now = size(met - x, norm).masked_fill(scores.right(met, y), math.inf)
            best = torch.where((now < smallest).view(-1, 1, 1, 1), met, best)
            smallest = torch.minimum(now, smallest)
    return best


@dataclass(frozen=True)
class _Best:
    """The smallest perturbations so far: the images ``at`` [B, C, H, W] and their norms [B], infinite for none."""

    at: Tensor
    norm: Tensor


def _beginning(x: Tensor, norm: Norm, known: _Best, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Where a walk begins [B, C, H, W] and its first eps [B]: the image where nothing is known yet, else a point near
    the best one, shaken."""
    had = known.norm.isfinite()
    if norm == "l0":  # noise that other elements can outgrow
        eps, shaken = torch.where(had, known.norm, 1), SHAKE * noise.expand_as(x)
    else:
        eps, away = NEARER * known.norm, noise.sign() if norm == "linf" else noise
        shaken = away * (SHAKE * known.norm / size(away[None], norm)).masked_fill(~had, 0).view(-1, 1, 1, 1)
    at = (x + project(NEARER * (known.at - x) + shaken, norm, eps)).clamp(0, 1)
    return torch.where(had.view(-1, 1, 1, 1), at, x), eps


def _walk(
    scores: Scores, x: Tensor, y: Tensor, norm: Norm, steps: int, target: Tensor | None, known: _Best, noise: Tensor
) -> Tensor:
    """The smallest adversarial image of each, the known ones and those that a walk meets, the image itself where there
    is none; [B, C, H, W]."""
    column = (-1, 1, 1, 1)
    best, smallest = known.at, known.norm
    at, eps = _beginning(x, norm, known, noise)
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
            fast = torch.where(found, growth, GROWTH[0])  # within one walk to every element
            grown = torch.maximum(eps + 1, (eps * (1 + fast)).floor())
        else:
            shrunk = torch.minimum(eps * (1 - growth), smallest)
            dual = torch.linalg.vector_norm(gradient.flatten(1), _DUAL[norm], dim=1)
            boundary = OVERSHOOT * (now + margin / dual.clamp_min(1e-12))
            grown = torch.where(found, eps * (1 + growth), boundary)
        eps = torch.where(fooled, shrunk, grown)
        direction = MOMENTUM * direction + (1 - MOMENTUM) * _unit(gradient)
        if step in [int(part * steps) for part in RETURNS]:
            at, eps = torch.where(found.view(column), best, at), torch.where(found, smallest, eps)
        walk = steepest(direction, "linf" if norm == "linf" else "l2")
        moved = at - x - length * _pace(x, eps, norm).view(column) * walk
        at = (x + project(moved, norm, eps)).clamp(0, 1)
    return best


def _pace(x: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The longest step, [B]: of every element in Linf, in L2 else. In L1 and L0 it is several elements' whole range,
    as the projection leaves only the elements that moved most."""
    if norm in ("l0", "l1"):
        return torch.full_like(eps, 10.0 if norm == "l0" else 3.0)
    return (0.9 * eps).clamp_max(1) if norm == "linf" else (0.6 * eps).clamp_max(math.sqrt(x[0].numel()))


def _fewer(scores: Scores, x: Tensor, y: Tensor, best: Tensor) -> Tensor:
    """``best`` without the changed elements, tried from the least changed on, that it stays adversarial without."""
    change = (best - x).flatten(1).abs()
    order = change.masked_fill(change == 0, math.inf).argsort(1)
    for rank in range(min(REMOVALS, int((change > 0).sum(1).max()))):
        element = order[:, rank : rank + 1]
        at = best.flatten(1).scatter(1, element, x.flatten(1).gather(1, element)).view_as(x)
        best = torch.where(scores.right(at, y).view(-1, 1, 1, 1), best, at)
    return best


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
