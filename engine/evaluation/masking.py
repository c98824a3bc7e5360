"""Whether robustness is real or gradients are masked: probes of a classifier, and a verdict on each in words.

After Athalye, Carlini and Wagner (2018), Carlini et al. (2019) and the alarms of AutoAttack. `probe` looks at one
batch; `judge` turns what the probes of all batches found into checks and one verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.adversarial.balls import Ball, drawn_start, size, steepest
from engine.adversarial.pgd import pgd
from engine.data.draws import Draw, ImageDraws
from engine.evaluation.attacks import (
    SQUARE_BATCH,
    Classifier,
    Scores,
    attack,
    check_images,
    robust,
    verified,
    with_gradients,
)
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import Cost, Measure, Result, Subject, named, weights_digest
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import MaskingSuite
from engine.probes.observation import evaluating

Probe = Literal[
    "outputs", "gradient", "noise", "one-step", "iterative", "loss", "smoothed", "unbounded", "square", "transfer"
]
PROBES: tuple[Probe, ...] = get_args(Probe)

NOISE_DRAWS = 20
SMOOTHING_DRAWS = 8
LOSS_STEPS = 20
MULTIPLES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of eps, where the loss is looked at

ZERO_GRADIENT = 0.01  # of the correct images may have none
FELL_ONLY = 0.002  # of the images, and one of them, may fall to a weaker attack alone (AutoAttack's alarm is .2% too)
UNBOUNDED = 0.01  # accuracy that an attack without bound may leave
DIP = 0.02  # of its whole rise is how much the loss may fall as eps grows
NO_NUMBER = 1e300  # what a probe that found no number is kept as: JSON has no NaN
RANDOMISED = 1e-4  # relative difference of two passes over the same images (AutoAttack's)


@with_gradients
def probe(
    name: Probe,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    norm: Ball,
    eps: float,
    steps: int = 100,
    queries: int = 1000,
    seed: int = 0,
    places: Sequence[int] | None = None,
    standard: Classifier | None = None,
) -> Tensor:
    """What one probe finds in a batch of images x [B, C, H, W] in [0, 1] with labels y [B]: a tensor [B, k].

    "outputs": correct (1 or 0), looks like probabilities (1 or 0), relative difference of two passes. "gradient": norm
    of the cross-entropy's gradient. "loss": cross-entropy under PGD at each of MULTIPLES of eps. All others: whether
    the image stands (1 or 0) under 20 draws of sign noise, one gradient step, APGD-CE and APGD-T, PGD through a margin
    smoothed over 8 noisy copies, PGD without a bound that matters, Square, and images made with PGD on ``standard``
    (left empty, [B, 0], without one). What is drawn for an image depends on (seed, its place in the data set) alone, as
    in `attack`; neither the model nor random state is disturbed.
    """
    check_images(x, y)
    if name not in PROBES:
        raise RequestError(f"probe {name!r} is none of {', '.join(PROBES)}")
    if not (math.isfinite(eps) and eps >= 0) or norm not in ("linf", "l2") or steps < 1 or queries < 1:
        given = f"{eps}, {norm}, {steps}, {queries}"
        raise RequestError(f"a probe needs a size in linf or l2, steps and queries, got {given}")
    x, y = x.detach().float().clone(), y.clone().long()
    scores = Scores(model, x)
    scores.check(y)
    numbers = range(len(x)) if places is None else places
    draws = ImageDraws(x, numbers, seed, Draw.MASKING, PROBES.index(name))
    with evaluating(scores):
        correct = scores.right(x, y)

        def under(candidate: Tensor, norm: Ball = norm, eps: float = eps) -> Tensor:
            return (verified(scores, x, y, candidate, norm, eps)[1] & correct).float()[:, None]

        def descended(network: nn.Module, eps: float, steps: int, norm: Ball = norm, **loss: Any) -> Tensor:
            step_size, start = 2.5 * eps / steps, drawn_start(norm, eps, draws)
            return pgd(network, x, y, norm=norm, eps=eps, steps=steps, step_size=step_size, start=start, **loss)

        match name:
            case "outputs":
                with torch.no_grad():
                    first, second = scores(x), scores(x)
                alike = (first.amin(1) >= 0) & (first.amax(1) <= 1 + 1e-5) & ((first.sum(1) - 1).abs() < 1e-5)
                difference = (second - first).norm(dim=1) / first.norm(dim=1).clamp_min(1e-10)
                return torch.stack([correct.float(), alike.float(), difference], 1)
            case "gradient":
                return size(_gradient(scores, x, y), "l2")[:, None]
            case "noise":
                stands = under(x)
                for _ in range(NOISE_DRAWS):
                    stands = stands * under(x + eps * steepest(draws.normal(), norm))
                return stands
            case "one-step":
                return under(x + eps * steepest(_gradient(scores, x, y), norm))
            case "iterative":
                left = robust(model, x, y, ("apgd-ce", "apgd-t"), norm, [eps], steps, 1, seed, numbers)
                return left.stands[0, -1].float()[:, None]
            case "loss":
                reached = [descended(scores, eps * multiple, LOSS_STEPS) if multiple else x for multiple in MULTIPLES]
                with torch.no_grad():
                    return torch.stack([F.cross_entropy(scores(at), y, reduction="none") for at in reached], 1)
            case "smoothed":
                std = eps / 2 if norm == "linf" else eps / 2 / math.sqrt(x[0].numel())
                return under(descended(_Smoothed(scores, std, draws), eps, math.ceil(steps / 5), loss=_margin))
            case "unbounded":
                far = 0.5 if norm == "linf" else 0.5 * math.sqrt(x[0].numel())  # every image can become grey
                return under(descended(scores, far, steps), eps=far)
            case "square":
                return under(attack(model, x, y, "square", norm, eps, queries, 1, seed, numbers))
            case "transfer":
                if standard is None:
                    return x.new_zeros(len(x), 0)
                return under(descended(Scores(standard, x), eps, steps))


def judge(found: Mapping[str, Tensor], norm: str, eps: float) -> dict[str, Any]:
    """The verdict on what the probes found: {"norm", "eps", "checks": [...], "verdict": "clear", "suspect" or
    "incomplete"}.

    found: what `probe` gave, by its name, batches joined along the first dimension. A check is {"name", "values"
    (numbers by name; accuracies are fractions of all images), "verdict" ("clear", "suspect" or "not run"), "words"}.
    The verdict is "incomplete" where nothing is suspect but a check was not run or no image is classified correctly.
    """
    outputs = found["outputs"].double()
    correct, total = outputs[:, 0] > 0, len(outputs)
    stands = {
        name: (values[:, 0] > 0) & correct
        for name, values in found.items()
        if name not in ("outputs", "gradient", "loss") and values.shape[1]
    }
    accuracy = {name: float(one.double().mean()) for name, one in stands.items()}
    iterative = stands["iterative"]
    fell_only = {name: int((iterative & ~one).sum()) for name, one in stands.items()}
    too_many = max(1, math.floor(FELL_ONLY * total))
    at = f"{norm} {eps:.4g}"
    checks = []

    def check(name: str, suspect: bool, words: str, **values: float) -> None:
        checks.append({"name": name, "values": values, "verdict": "suspect" if suspect else "clear", "words": words})

    def against(name: str, what: str) -> None:
        count, strong = fell_only[name], accuracy["iterative"]
        suspect = count > too_many
        words = (
            f"{what} leaves {accuracy[name]:.1%} at {at}, APGD {strong:.1%}; "
            f"{_images(count)} {'falls' if count <= 1 else 'fall'} to it and not to APGD"
        )
        words += ", so APGD misses what a weaker attack finds" if suspect else ""
        check(name, suspect, words + ".", accuracy=accuracy[name], iterative=strong, fell_only=count)

    zero = int(((found["gradient"][:, 0] == 0) & correct).sum())
    share = zero / max(1, int(correct.sum()))
    words = f"{_images(zero).capitalize()} of {int(correct.sum())} that are classified correctly"
    words += f" {'has' if zero <= 1 else 'have'} a gradient of zero."
    check("zero-gradient", share > ZERO_GRADIENT, words, images=zero, fraction=share)
    against("noise", f"Random {'sign ' if norm == 'linf' else ''}noise, {NOISE_DRAWS} draws,")
    against("one-step", "One gradient step")
    curve = found["loss"][correct].double().mean(0).tolist() if correct.any() else [0.0] * len(MULTIPLES)
    rise, dip = curve[-1] - curve[0], max(a - b for a, b in pairwise(curve))
    named = {f"loss at {multiple:g} eps": loss for multiple, loss in zip(MULTIPLES, curve, strict=True)}
    steady = rise > 0 and dip <= DIP * rise
    words = f"The loss {'rises steadily' if steady else 'does not rise steadily'} with eps: "
    words += ", ".join(f"{loss:.3g}" for loss in curve) + f" at {', '.join(f'{m:g}' for m in MULTIPLES)} times {at}."
    check("loss", bool(correct.any()) and not steady, words, **named)
    against("smoothed", f"PGD through a margin smoothed over {SMOOTHING_DRAWS} noisy copies")
    left = accuracy["unbounded"]
    words = f"An attack without a bound leaves {left:.1%}; it should leave nothing."
    check("unbounded", left > UNBOUNDED, words, accuracy=left)
    against("square", "Square, which sees scores only,")
    if "transfer" in stands:
        against("transfer", "Transfer from the standard network")
    else:
        words = "No standard network was named to transfer attacks from."
        checks.append({"name": "transfer", "values": {}, "verdict": "not run", "words": words})
    alike = bool((outputs[:, 1] > 0).all())
    words = "look like probabilities: attack the logits, a softmax hides gradients." if alike else "are logits."
    check("probabilities", alike, f"The outputs {words}")
    most = float(outputs[:, 2].nan_to_num(math.inf).max())
    words = f"Two passes over the same images differ by up to {most:.1g} of the scores"
    words += ": the network is randomised, and these attacks do not average over that." if most > RANDOMISED else "."
    check("randomised", most > RANDOMISED, words, difference=most)
    verdicts = {one["verdict"] for one in checks}
    clear = "clear" if correct.any() and "not run" not in verdicts else "incomplete"
    verdict = "suspect" if "suspect" in verdicts else clear
    return {"norm": norm, "eps": eps, "checks": checks, "verdict": verdict}


class _Smoothed(nn.Module):
    """Mean logits over noisy copies of each image."""

    def __init__(self, scores: Scores, std: float, draws: ImageDraws) -> None:
        super().__init__()
        self.scores, self._std, self._draws = scores, std, draws

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.cat([self._draws.normal() for _ in range(SMOOTHING_DRAWS)])
        logits: Tensor = self.scores(images.repeat(SMOOTHING_DRAWS, 1, 1, 1) + self._std * noise)
        return logits.view(SMOOTHING_DRAWS, len(images), -1).mean(0)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best wrong score minus the right one, summed."""
    own = labels[:, None]
    return (logits.scatter(1, own, -math.inf).amax(1) - logits.gather(1, own)[:, 0]).sum()


def _gradient(scores: Scores, x: Tensor, y: Tensor) -> Tensor:
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(scores(at), y, reduction="sum"), at)
    return gradient


def _images(count: int) -> str:
    return "no image" if count == 0 else "1 image" if count == 1 else f"{count} images"


def _parts(subject: Subject, settings: MaskingSuite) -> list[Callable[[Pieces], Any]]:
    """What every probe finds in every batch."""

    def look(name: Probe, places: range) -> Any:
        seen = probe(
            name, subject.network, *subject.at(places), norm=settings.norm, eps=settings.eps, steps=settings.steps,
            queries=settings.queries, seed=subject.seed, places=places, standard=subject.standard,
        )  # fmt: skip
        return seen.double().nan_to_num(nan=NO_NUMBER, posinf=NO_NUMBER, neginf=-NO_NUMBER).tolist()

    def part(name: Probe, places: range, pieces: Pieces) -> Any:
        return pieces.get(f"masking/{name}/{named(places)}", partial(look, name, places))

    return [partial(part, name, places) for name in PROBES for places in subject.batches()]


def _whole(subject: Subject, settings: MaskingSuite, measured: Sequence[Any], _picture: Path | None) -> Result:
    """The checks for masked gradients, with a verdict on each (`judge`)."""
    parts = (torch.tensor(found, dtype=torch.float64) for found in measured)
    found: dict[str, Tensor] = {name: torch.cat(list(islice(parts, len(subject.batches())))) for name in PROBES}
    return judge(found, settings.norm, settings.eps)


def _cost(settings: MaskingSuite, subject: Subject) -> Cost:
    gradients = (3 + min(9, subject.classes - 1) + 8 / 5) * settings.steps + 140
    return Cost(settings.queries + 40, gradients, len(subject.batches()) * (1 + len(PROBES)))


def _made_of(subject: Subject, _settings: MaskingSuite) -> dict[str, Any]:
    found: dict[str, Any] = {"square_batch": SQUARE_BATCH}
    if subject.standard is not None:
        found |= {"standard": subject.standard_run, "weights": weights_digest(subject.standard)}
    return found


MASKING = Measure(_parts, _whole, _cost, _made_of)
