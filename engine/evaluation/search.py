"""The smallest perturbation that changes a prediction: FMN (Pintor et al. 2021) in L0, L1, L2 and Linf, our own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.adversarial.balls import Norm, project, size, steepest
from engine.evaluation.attacks import Classifier, Scores, check_images, with_gradients
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import Cost, Measure, Result, Subject, named
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import MinimumNormSuite
from engine.probes.observation import evaluating

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

SMALLER = 0.98  # trials look within this part of the smallest norm so far
GUIDED = 10  # trials for each gradient; every second one follows it
SHARE = {"l0": (3e-4, 1e-3), "l1": (3e-4, 1e-3), "l2": (0.02, 1.0), "linf": (0.002, 0.2)}  # of the elements, changed
LENGTH = (0.02, 1.0)  # of a change in L2, of the norm


@dataclass(frozen=True)
class MinimumNorm:
    """Per image: ``norms`` [B] (0: misclassified without an attack; infinite: nothing adversarial found) and the
    ``adversarial`` images [B, C, H, W] of these norms (the original where there is none)."""

    norms: Tensor
    adversarial: Tensor


@with_gradients
def minimum_norm(model: Classifier, x: Tensor, y: Tensor, norm: Norm, steps: int = 300, trials: int = 4) -> MinimumNorm:
    """The smallest perturbations found of images x [B, C, H, W] in [0, 1] with labels y [B].

    Every step walks against the margin's gradient and is projected onto a ball whose radius eps shrinks while the
    image is adversarial and grows while it is not; before the first success eps is the distance to the boundary by
    the gradient's dual norm. Step and change of eps decay with a cosine, anew in every walk of 50 steps; a walk begins
    near the smallest perturbation that those before it met. Walks come in pairs, away from the label and towards one
    other class, the classes taking turns, the likeliest first. After a pair, ``trials`` changes for each of its steps
    are tried of the smallest perturbation, made a little smaller, and kept where the margin falls: thresholds make the
    network jump between neighbouring images, which no gradient sees. More steps never find larger norms (in multiples
    of 50), fewer than 300 overstate them. L0 counts tensor elements, not pixels.

    The noise is the same at every call, and images do not depend on each other. Each point that is returned was
    classified once more, lies in [0, 1], and its norm is measured on the image as returned.
    """
    check_images(x, y)
    if norm not in NORMS:
        raise RequestError(f"norm {norm!r} is none of {', '.join(NORMS)}")
    if steps < 1 or trials < 0:
        raise RequestError(f"steps must be at least 1 and trials at least 0, got {steps} and {trials}")
    x, y = x.detach().float().clone(memory_format=torch.contiguous_format), y.clone().long()
    scores = Scores(model, x)
    scores.check(y)
    with evaluating(scores):
        clean = scores.right(x, y)
        best = x.clone()
        if clean.any():
            best[clean] = _search(scores, x[clean], y[clean], norm, steps, trials)
        adversarial = ~scores.right(best, y) & (best.amin((1, 2, 3)) >= 0) & (best.amax((1, 2, 3)) <= 1)
    norms = size(best.double() - x.double(), norm).masked_fill(~adversarial, math.inf).masked_fill(~clean, 0)
    return MinimumNorm(norms, torch.where(norms.isfinite().view(-1, 1, 1, 1), best, x))


def _search(scores: Scores, x: Tensor, y: Tensor, norm: Norm, steps: int, trials: int) -> Tensor:
    """The smallest that walks and trials find, the image itself where there is none; [B, C, H, W]."""
    with torch.no_grad():
        likeliest = scores(x).scatter(1, y[:, None], -math.inf).argsort(1, descending=True)
    turns = cycle([likeliest[:, index] for index in range(scores.classes - 1)])
    known = _Best(x, torch.full_like(y, math.inf, dtype=x.dtype))
    draw = torch.Generator().manual_seed(0)
    for walked in range(0, steps, WALK):
        length = min(WALK, steps - walked)
        for target in (None, next(turns, None)):
            noise = torch.randn(x.shape[1:], generator=draw).to(x)  # one for all: images do not depend on each other
            met = _walk(scores, x, y, norm, length, target, known, noise)
            met = (_fewer if norm == "l0" else _nearer)(scores, x, y, met)
            known = known.or_smaller(met, size(met - x, norm).masked_fill(scores.right(met, y), math.inf))
        known = _try(scores, x, y, norm, trials * length, known, draw)
    return known.at


@dataclass(frozen=True)
class _Best:
    """The smallest perturbations so far: the images ``at`` [B, C, H, W] and their norms [B], infinite for none."""

    at: Tensor
    norm: Tensor

    def or_smaller(self, at: Tensor, norm: Tensor) -> _Best:
        """These, or those ``at`` with norms [B] where they are smaller."""
        smaller = norm < self.norm
        return _Best(torch.where(smaller.view(-1, 1, 1, 1), at, self.at), torch.minimum(norm, self.norm))


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
        if norm == "l0":  # an element counts as what it can give, and gives no more
            gradient = gradient * torch.where(gradient > 0, x, 1 - x)
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
        if norm == "l0":  # what the box cuts off must not use up the elements that are allowed
            moved = (x + moved).clamp(0, 1) - x
        at = (x + project(moved, norm, eps)).clamp(0, 1)
    return best


def _pace(x: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The longest step, [B]: of every element in Linf, in L2 else. In L1 and L0 it is several elements' whole range,
    as the projection leaves only the elements that moved most."""
    if norm in ("l0", "l1"):
        return torch.full_like(eps, 10.0 if norm == "l0" else 3.0)
    return (0.9 * eps).clamp_max(1) if norm == "linf" else (0.6 * eps).clamp_max(math.sqrt(x[0].numel()))


def _try(scores: Scores, x: Tensor, y: Tensor, norm: Norm, trials: int, known: _Best, draw: torch.Generator) -> _Best:
    """The known ones, or smaller ones met by changing a few elements at a time within a smaller ball, where each change
    that does not raise the margin stays."""
    column = (-1, 1, 1, 1)
    at, eps = _within(x, norm, known)
    gradient, margin = torch.zeros_like(x), known.norm
    for trial in range(trials):
        if trial % GUIDED == 0:
            margin, gradient, _ = _margin(scores, at, y, None)
            # The same for all images, which do not depend on each other; drawn and brought to the device at once.
            noises = torch.randn(GUIDED, *x.shape[1:], generator=draw).to(x)
            waits = torch.empty(GUIDED, *x.shape[1:]).exponential_(generator=draw).to(x)
            parts = torch.rand(GUIDED, 2, generator=draw).tolist()
        noise, wait, part = noises[trial % GUIDED], waits[trial % GUIDED], parts[trial % GUIDED]
        changed = (x + _changed(x, at - x, gradient if trial % 2 else None, norm, eps, noise, wait, part)).clamp(0, 1)
        with torch.no_grad():
            then = _lead(scores(changed), y)
        stays = then <= margin
        at, margin = torch.where(stays.view(column), changed, at), torch.where(stays, then, margin)
        fell = (margin < 0) & (size(at - x, norm) < known.norm)
        if fell.any():
            known = known.or_smaller(at, size(at - x, norm).masked_fill(~fell, math.inf))
            smaller, smaller_eps = _within(x, norm, known)
            at, eps = torch.where(fell.view(column), smaller, at), torch.where(fell, smaller_eps, eps)
            with torch.no_grad():
                margin = margin.index_put((fell,), _lead(scores(at[fell]), y[fell]))
    return known


def _within(x: Tensor, norm: Norm, known: _Best) -> tuple[Tensor, Tensor]:
    """The best points brought into a smaller ball [B, C, H, W], and its eps [B]; the image and 0 where nothing is
    known."""
    eps = (known.norm - 1 if norm == "l0" else SMALLER * known.norm).nan_to_num(posinf=0)
    return (x + project(known.at - x, norm, eps)).clamp(0, 1), eps


def _changed(
    x: Tensor, delta: Tensor, gradient: Tensor | None, norm: Norm, eps: Tensor, noise: Tensor, wait: Tensor,
    part: list[float],
) -> Tensor:  # fmt: skip
    """Perturbations ``delta`` [B, C, H, W] with some elements changed, of norm ``eps`` [B] at most: those where the
    margin's gradient is large, likelier the larger, against it; without one any, at random.

    Drawn were ``noise``, normal, and ``wait``, exponential, [C, H, W], and ``part``: how many elements and how far, as
    parts of the way between bounds on a logarithmic scale.
    """
    count, noise = round(_between(SHARE[norm], part[0]) * x[0].numel()), noise.expand_as(x)
    towards, weight = (noise, 1 / wait.expand_as(x)) if gradient is None else (-gradient, gradient.abs() / wait)
    chosen = weight.flatten(1).topk(max(1, count)).indices
    some = torch.zeros_like(weight.flatten(1), dtype=torch.bool).scatter(1, chosen, True).view_as(x)
    if norm == "linf":
        return project(torch.where(some, eps.view(-1, 1, 1, 1) * towards.sign(), delta), norm, eps)
    if norm == "l2":
        length = _between(LENGTH, part[1]) * eps.view(-1, 1, 1, 1)
        return project(delta + length * _unit(towards * some), norm, eps)
    whole = torch.where(some, torch.where(towards > 0, 1 - x, -x), delta)  # as far as [0, 1] goes
    if norm == "l1":
        return project(whole, norm, eps)
    order = torch.where(some, 1e9, (delta != 0) * noise.abs())  # the new ones stay, others at random
    return whole * (project(order, norm, eps) != 0)


def _between(bounds: tuple[float, float], part: float) -> float:
    return math.exp((1 - part) * math.log(bounds[0]) + part * math.log(bounds[1]))


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
    logits = scores(at)
    margin = _lead(logits, y, target)
    (gradient,) = torch.autograd.grad(margin.sum(), at)
    return margin.detach(), gradient.nan_to_num(0), logits.argmax(1) != y


def _lead(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """The right score minus the best wrong one, or the target's, [B]."""
    own = y[:, None]
    wrong = logits.scatter(1, own, -math.inf).amax(1) if target is None else logits.gather(1, target[:, None])[:, 0]
    return logits.gather(1, own)[:, 0] - wrong


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


def _parts(subject: Subject, settings: MinimumNormSuite) -> list[Callable[[Pieces], list[float | None]]]:
    """The norms of `minimum_norm`, None for infinite ones, of every norm and batch."""

    def search(norm: Norm, places: range) -> list[float | None]:
        found = minimum_norm(subject.network, *subject.at(places), norm, settings.steps, settings.trials).norms.tolist()
        return [value if math.isfinite(value) else None for value in found]

    def part(norm: Norm, places: range, pieces: Pieces) -> Any:
        return pieces.get(f"minimum_norm/{norm}/{named(places)}", partial(search, norm, places))

    return [partial(part, norm, places) for norm in settings.norms for places in subject.batches()]


def _whole(
    subject: Subject, settings: MinimumNormSuite, measured: Sequence[list[float | None]], _picture: Path | None
) -> Result:
    """The smallest perturbation that changes each prediction, and the accuracy against eps that follows from it."""
    norms, parts = {}, iter(measured)
    for norm in settings.norms:
        batches = islice(parts, len(subject.batches()))
        values = [math.inf if value is None else value for found in batches for value in found]
        every = torch.tensor(values, dtype=torch.float64)
        reached = [0.0, *sorted({value for value in values if 0 < value < math.inf})]
        sizes = sorted({reached[round(place * (len(reached) - 1) / 99)] for place in range(100)})  # a hundred at most
        norms[norm] = {
            **summary(every),
            "curve": curve(every, sizes),
            "values": [value if math.isfinite(value) else None for value in values],
        }
    return {"norms": norms}


def _cost(settings: MinimumNormSuite, subject: Subject) -> Cost:
    norms, walks = len(settings.norms), 2 * math.ceil(settings.steps / WALK)
    ends = walks * (max(BISECTIONS, REMOVALS) + 2)
    trials = settings.steps * settings.trials
    passes, gradients = 2 + ends + 1.2 * trials, 2 * settings.steps + trials / GUIDED
    return Cost(norms * passes, norms * gradients, len(subject.batches()) * (1 + norms))


MINIMUM_NORM = Measure(_parts, _whole, _cost)
