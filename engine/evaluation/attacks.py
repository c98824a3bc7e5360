"""Robust accuracy of any classifier over images in [0, 1]: PGD, and APGD, FAB, Square, AutoAttack by pyautoattack."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from engine.adversarial.balls import Ball, drawn_start, project, size
from engine.adversarial.pgd import pgd
from engine.data.draws import Draw, ImageDraws
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import BATCH, Cost, Measure, Result, Subject, named
from engine.experiment.datasets import UNDIVIDED, Attack
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import AttackSuite
from engine.probes.measures import right
from engine.probes.observation import evaluating

Function = TypeVar("Function", bound=Callable[..., Any])
Classifier = Callable[[Tensor], Tensor]  # images [B, C, H, W] in [0, 1] -> logits [B, classes]
Method = Literal["pgd", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack"]

TOLERANCE = 1e-6  # how far outside its ball rounding may put an image
# The standard version of AutoAttack in Linf and L2: attacks in order, with their iterations or queries.
STANDARD: tuple[tuple[Method, int], ...] = (("apgd-ce", 100), ("apgd-t", 100), ("fab-t", 100), ("square", 5000))
ROUND = 100  # iterations; more are further rounds
SQUARE_BATCH = BATCH  # places whose images are attacked together: what it draws is for all of them
_UNDIVIDED: tuple[Method, ...] = ("square", *UNDIVIDED)
_METHODS: tuple[Method, ...] = get_args(Method)  # new ones at the end: what is drawn depends on the place
_BALLS: tuple[Ball, ...] = ("linf", "l2")
_MOST_TARGETS = 9

_quiet = logging.getLogger(f"{__name__}.pyautoattack")
_quiet.disabled = True  # its warnings are `masking`'s checks, made there


class Scores(nn.Module):
    """Logits of a classifier as fp32 [B, classes], in the precision of its own weights, whatever autocast is on; a
    batch without images has some too. Raises RequestError where it is on another device or gives none."""

    def __init__(self, model: Classifier, images: Tensor) -> None:
        super().__init__()
        self.model, self.dtype = model, images.dtype
        if isinstance(model, nn.Module):
            weights = [one for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()]
            if weights and weights[0].device != images.device:
                raise RequestError(f"the model is on {weights[0].device}, the images are on {images.device}")
            self.dtype = weights[0].dtype if weights else self.dtype
        with evaluating(self), torch.no_grad():
            logits = self._scores(images[:1])
        if logits.ndim != 2 or len(logits) != 1 or logits.shape[1] < 2:
            raise RequestError(f"a model gives logits [B, classes]; of one image it gave {list(logits.shape)}")
        self.classes = logits.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        return self._scores(images) if len(images) else images.new_zeros(0, self.classes)

    def _scores(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.model(images.to(self.dtype))
            return logits.float()

    def check(self, labels: Tensor) -> None:
        """Raise RequestError unless labels [B] are classes."""
        least, most = int(labels.min()), int(labels.max())
        if not 0 <= least <= most < self.classes:
            raise RequestError(f"labels must be from 0 to {self.classes - 1}, got {least} to {most}")

    @torch.no_grad()
    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """Whether each image is classified as its label, bool [B], by a forward pass of its own."""
        return right(self(images), labels)


def with_gradients(function: Function) -> Function:
    """A function that needs gradients, also where its caller has switched them off."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*arguments, **named)

    return cast("Function", called)


@with_gradients
def attack(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    method: Method,
    norm: Ball,
    eps: float,
    steps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    places: Sequence[int] | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """Adversarial images [B, C, H, W] for images ``x`` in [0, 1] and labels ``y`` [B].

    Every image that is returned lies in [0, 1] and within ``eps`` of its original, to 1e-6; where the attack failed it
    is the last one tried, for images that were misclassified from the start it is the original. ``norm`` is "linf" or
    "l2". ``steps`` are queries for "square"; "autoattack" is the standard version and has iterations of its own.
    Restart r attacks what still stands, so that restarts only add; ``first`` numbers the first of them. A module is
    attacked in evaluation mode and left as it was.

    What is drawn for an image depends on (seed, r, its place in the data set) alone; ``places`` [B] are 0 to B - 1
    where none are given. Only "square" draws for 100 places at a time, together.
    """
    _check(x, y, method, norm, eps, steps, restarts)
    # The library cannot attack images that are channels-last in memory.
    x, y = x.detach().float().clone(memory_format=torch.contiguous_format), y.clone().long()
    found, scores = x.clone(), Scores(model, x)
    scores.check(y)
    numbers = range(len(x)) if places is None else places
    with evaluating(scores):
        stands = scores.right(x, y)
        for restart in range(first, first + restarts):
            for stage, iterations in STANDARD if method == "autoattack" else ((method, steps),):
                chosen = stands.nonzero().flatten()
                if not len(chosen):
                    return found
                draws = ImageDraws(
                    x[chosen], [numbers[place] for place in chosen.tolist()],
                    seed, Draw.EVALUATION_ATTACK, restart, _BALLS.index(norm), _METHODS.index(stage),
                )  # fmt: skip
                candidate = _once(scores, x[chosen], y[chosen], stage, norm, eps, iterations, draws)
                found[chosen], stands[chosen] = verified(scores, x[chosen], y[chosen], candidate, norm, eps)
    return found


def verified(scores: Scores, x: Tensor, y: Tensor, candidate: Tensor, norm: Ball, eps: float) -> tuple[Tensor, Tensor]:
    """(the nearest images to ``candidate`` in the ball and in [0, 1], whether each still stands, bool [B]).

    Nothing that an attack claims is believed: an image falls only if it is inside its ball to 1e-6 after projection
    and a fresh forward pass misclassifies it. What is not a number becomes the original image.
    """
    delta = (candidate.detach().double() - x.double()).nan_to_num(0)
    inside = (x.double() + project(delta, norm, eps)).clamp(0, 1).float()
    if norm == "l2":  # rounding to float adds up over many elements: a little less, where it is too much
        over = (size(inside.double() - x.double(), norm) > eps + TOLERANCE / 2).view(-1, 1, 1, 1)
        inside = torch.where(over, (x.double() + project(delta, norm, eps - 1e-5 * eps)).clamp(0, 1).float(), inside)
    within = size(inside.double() - x.double(), norm) <= eps + TOLERANCE
    return inside, scores.right(inside, y) | ~within


@dataclass(frozen=True)
class Robustness:
    """What attacks left of one batch.

    ``clean`` bool [B]: correct without an attack. ``epsilons``: the E sizes, ascending. ``stages``: the S attacks in
    the order they ran ("apgd-ce", "apgd-t", "apgd-ce 2" for its second round, ...). ``stands`` bool [E, S, B]:
    correct after every attack up to this one, at this and every smaller size. ``adversarial`` [E, B, C, H, W]: an
    image that broke it, the original where nothing did.
    """

    clean: Tensor
    epsilons: list[float]
    stages: list[str]
    stands: Tensor
    adversarial: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Robust accuracy after each attack, [E, S]; misclassified images count as broken."""
        return self.stands.float().mean(2)


@with_gradients
def robust(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    methods: Sequence[Method],
    norm: Ball,
    epsilons: Sequence[float],
    steps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    places: Sequence[int] | None = None,
    *,
    kept: Callable[[str, Callable[[], list[int]]], list[int]] = lambda name, measure: measure(),
) -> Robustness:
    """Attacks in order, each only on what still stands (name the cheap ones first).

    Robust accuracy cannot rise with eps: sizes are tried from the smallest, and an image broken at one is broken at
    every larger one. It cannot rise with restarts: each is a further round of all sizes and attacks on what the
    rounds before left, so that more rounds begin with the very same ones. So are iterations beyond 100, in hundreds:
    how these attacks move depends on their length, and a longer one can leave more standing than a short one. Queries
    of "square" and the iterations of "autoattack" are one round.

    ``places`` [B] of the images in the data set say what is drawn for them, as in `attack`. ``kept(name, measure)``
    gives the images of the batch that one attack broke, by measuring them or from a run before; what was broken before
    has its original for ``adversarial``.
    """
    if not methods or not epsilons:
        raise RequestError("name at least one attack and one size")
    for method in methods:
        for eps in epsilons:
            _check(x, y, method, norm, eps, steps, restarts)
    sizes = sorted(set(epsilons))
    x, y = x.detach().float().clone(), y.clone().long()
    with evaluating(scores := Scores(model, x)):
        scores.check(y)
        clean = scores.right(x, y)
    numbers = range(len(x)) if places is None else places
    now = clean.expand(len(sizes), -1).clone()
    found = x.expand(len(sizes), *x.shape).clone()
    stages: list[str] = []
    stands: list[Tensor] = []

    def broken(chosen: Tensor, index: int, method: Method, number: int, length: int) -> list[int]:
        if not len(chosen):
            return []
        length = steps if method in _UNDIVIDED else length
        some = [numbers[place] for place in chosen.tolist()]
        images = attack(model, x[chosen], y[chosen], method, norm, sizes[index], length, 1, seed, some, first=number)
        with evaluating(scores):
            fell = ~scores.right(images, y[chosen])
        found[index, chosen[fell]] = images[fell]
        return list[int](chosen[fell].tolist())

    for number, (done, length) in enumerate(restarts * rounds(steps)):
        now_on = [method for method in methods if not (done and method in _UNDIVIDED)]
        left = torch.empty(len(sizes), len(now_on), len(x), dtype=torch.bool, device=x.device)
        for index in range(len(sizes)):
            if index:
                fell = now[index] & ~now[index - 1]
                found[index, fell], now[index, fell] = found[index - 1, fell], False
            for place, method in enumerate(now_on):
                chosen = now[index].nonzero().flatten()
                measure = partial(broken, chosen, index, method, number, length)
                now[index, kept(f"{number}/{index}/{place}", measure)] = False
                left[index, place] = now[index]
        stands.append(left)
        stages += [method if number == 0 else f"{method} {number + 1}" for method in now_on]
    return Robustness(clean, sizes, stages, torch.cat(stands, 1), found)


def rounds(steps: int) -> list[tuple[int, int]]:
    """(iterations done before, iterations) of every round of so many steps."""
    return [(done, min(ROUND, steps - done)) for done in range(0, steps, ROUND)]


def _once(
    scores: Scores, x: Tensor, y: Tensor, method: Method, norm: Ball, eps: float, steps: int, draws: ImageDraws
) -> Tensor:
    """What one run of an attack claims to be adversarial; nothing is drawn from the global random state."""
    if method == "pgd":
        start = drawn_start(norm, eps, draws)
        return pgd(scores, x, y, norm=norm, eps=eps, steps=steps, step_size=2.5 * eps / steps, start=start)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):  # the library seeds the global state
        if method in ("apgd-ce", "apgd-t"):
            return _apgd(scores, x, y, method, norm, eps, steps, draws)
        found = x.clone()
        groups = draws.groups(SQUARE_BATCH) if method == "square" else [(0, list(range(len(x))))]
        for number, group in groups:
            perturb = _library(scores, x, method, norm, eps, steps, draws.seed(number))
            found[group] = perturb(x[group], y[group])
        return found


def _apgd(
    scores: Scores, x: Tensor, y: Tensor, method: Method, norm: Ball, eps: float, steps: int, draws: ImageDraws
) -> Tensor:
    """APGD on the cross-entropy, or on the targeted DLR loss towards each of the nine likeliest other classes in turn,
    as pyautoattack's ``perturb`` has it, but from starts that are drawn for each image."""
    require(method)
    apgd = importlib.import_module("pyautoattack.autopgd_base")
    kind = apgd.APGDAttack if method == "apgd-ce" else apgd.APGDAttack_targeted
    made = kind(scores, **_common(x, norm, eps), n_iter=steps, logger=_quiet)
    if method == "apgd-t" and scores.classes < 4:  # the DLR loss needs four: the plain difference of logits instead
        made.dlr_loss_targeted = lambda logits, y: _pick(logits, made.y_target) - _pick(logits, y)
    made.init_hyperparam(x)
    found, stands = x.clone(), torch.ones_like(y, dtype=torch.bool)
    for target in (0,) if method == "apgd-ce" else range(2, min(_MOST_TARGETS, scores.classes - 1) + 2):
        direction = draws.uniform() if norm == "linf" else draws.normal()
        start, chosen = x + eps * made.normalize(direction), stands.nonzero().flatten()
        if not len(chosen):
            break
        if target:
            with torch.no_grad():
                made.y_target = scores(x[chosen]).sort(1).indices[:, -target]
        _, right, _, adversarial = made.attack_single_run(x[chosen], y[chosen], x_init=start[chosen])
        fell = right == 0
        found[chosen[fell]], stands[chosen[fell]] = adversarial[fell], False
    return found


def _library(
    scores: Scores, x: Tensor, method: Method, norm: Ball, eps: float, steps: int, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Square or targeted FAB (which draws nothing) of pyautoattack with AutoAttack's settings; its class of the same
    name, which looks for dynamic defences through sys.settrace and so ends coverage and debuggers, is not used."""
    require(method)
    made: Any
    common = {**_common(x, norm, eps), "seed": seed}
    if method == "square":
        square = importlib.import_module("pyautoattack.square")
        made = square.SquareAttack(scores, n_queries=steps, resc_schedule=False, **common)
    else:
        fab, targets = importlib.import_module("pyautoattack.fab_pt"), min(_MOST_TARGETS, scores.classes - 1)
        made = fab.FABAttack_PT(scores, n_iter=steps, targeted=True, n_target_classes=targets, **common)
        made.get_diff_logits_grads_batch_targeted = lambda *given: _difference(scores, *given)
    perturb: Callable[[Tensor, Tensor], Tensor] = made.perturb
    return perturb


def _common(x: Tensor, norm: Ball, eps: float) -> dict[str, Any]:
    return {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "device": x.device}


def require(method: str) -> None:
    """Raise RequestError where pyautoattack, which has this attack, is not installed."""
    if method == "pgd":
        return
    try:
        importlib.import_module("pyautoattack")
    except ImportError:
        raise RequestError(
            f"{method} needs pyautoattack, which is not installed: pip install 'hah-tui[attacks]' (pgd needs nothing)"
        ) from None


def _difference(scores: Scores, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """FAB's score difference and its gradient, [B, 1] and [B, 1, C, H, W]; the library's own backward pass would
    leave gradients in the weights."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = scores(x)
        difference = _pick(logits, target) - _pick(logits, y)
        (gradient,) = torch.autograd.grad(difference.sum(), x)
    return difference.detach()[:, None], gradient[:, None]


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


def _check(x: Tensor, y: Tensor, method: str, norm: str, eps: float, steps: int, restarts: int) -> None:
    check_images(x, y)
    if method not in _METHODS:
        raise RequestError(f"attack {method!r} is none of {', '.join(_METHODS)}")
    if norm not in _BALLS:
        raise RequestError(f"attacks of a given size are in linf or l2, not {norm}")
    if not (math.isfinite(eps) and eps >= 0):
        raise RequestError(f"eps must be a number of at least 0, got {eps}")
    if steps < 1 or restarts < 1:
        raise RequestError(f"steps and restarts must be at least 1, got {steps} and {restarts}")


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise RequestError unless x is floating-point [B, C, H, W] in [0, 1] and y its labels, whole numbers [B]."""
    if x.ndim != 4 or y.shape != (len(x),) or not len(x):
        raise RequestError(f"images [B, C, H, W] and labels [B] are needed, got {list(x.shape)} and {list(y.shape)}")
    if not x.is_floating_point() or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise RequestError(f"images are floating-point and labels whole numbers, got {x.dtype} and {y.dtype}")
    if x.device != y.device:
        raise RequestError(f"the images are on {x.device}, the labels are on {y.device}")
    if not (x.min() >= 0 and x.max() <= 1):
        raise RequestError("images must lie in [0, 1]; put normalization into the model")


_Stands = tuple[list[str], list[list[list[int]]]]  # stages, and by size and stage whether each image stands


def _norms(settings: AttackSuite) -> list[tuple[Ball, list[float]]]:
    norms: tuple[tuple[Ball, list[float]], ...] = (("linf", settings.linf), ("l2", settings.l2))
    return [(norm, sizes) for norm, sizes in norms if sizes]


def _parts(subject: Subject, settings: AttackSuite) -> list[Callable[[Pieces], _Stands]]:
    """`robust` of every norm and batch: each of its attacks begins with what those before it left."""

    def part(norm: Ball, sizes: list[float], places: range, pieces: Pieces) -> _Stands:
        seen = robust(
            subject.network, *subject.at(places), settings.methods, norm, sizes, settings.steps, settings.restarts,
            subject.seed, places,
            kept=lambda name, measure: pieces.get(f"attacks/{norm}/{named(places)}/{name}", measure),
        )  # fmt: skip
        return seen.stages, seen.stands.int().tolist()

    return [partial(part, norm, sizes, places) for norm, sizes in _norms(settings) for places in subject.batches()]


def _whole(subject: Subject, settings: AttackSuite, measured: Sequence[_Stands], _picture: Path | None) -> Result:
    """Accuracy that is left after attacks, each on what still stands, per norm and size."""
    found, parts = [], iter(measured)
    for norm, sizes in _norms(settings):
        stands: list[list[str]] = []
        stages: list[str] = []
        for stages, seen in islice(parts, len(subject.batches())):
            stands = stands or [[""] * len(stages) for _ in seen]
            for of_size, of_batch in zip(stands, seen, strict=True):
                of_size[:] = [before + "".join(map(str, new)) for before, new in zip(of_size, of_batch, strict=True)]
        for eps, of_size in zip(sorted(set(sizes)), stands, strict=True):
            left = [
                {"name": stage, "accuracy": verdict.count("1") / len(subject)}
                for stage, verdict in zip(stages, of_size, strict=True)
            ]
            robust_accuracy = left[-1]["accuracy"]
            found.append(
                {"norm": norm, "eps": eps, "methods": left, "robust_accuracy": robust_accuracy, "stands": of_size[-1]}
            )
    return {"attacks": found}


def _cost(settings: AttackSuite, subject: Subject) -> Cost:
    targets = min(_MOST_TARGETS, subject.classes - 1)
    each = [_cost_of(method, settings.steps, targets) for method in settings.methods]
    passes, gradients = sum(one[0] for one in each), sum(one[1] for one in each)
    sizes = len(set(settings.linf)) + len(set(settings.l2))
    attacks = sum(1 if method in _UNDIVIDED else len(rounds(settings.steps)) for method in settings.methods)
    pieces = len(subject.batches()) * (1 + sizes * settings.restarts * attacks)
    return Cost(2 + sizes * passes, sizes * gradients * settings.restarts, pieces)


def _cost_of(method: Attack, steps: int, targets: int) -> tuple[int, int]:
    """Forward passes and gradients of one run of an attack, for each image."""
    match method:
        case "pgd":
            return 1, steps
        case "apgd-ce":
            return 1, steps + len(rounds(steps))
        case "apgd-t":
            return 1, targets * (steps + len(rounds(steps)))
        case "autoattack":
            return 5000, (1 + 2 * targets) * 101


def _made_of(_subject: Subject, settings: AttackSuite) -> dict[str, Any]:
    # What Square draws is for so many images together.
    return {"square_batch": SQUARE_BATCH} if "autoattack" in settings.methods else {}


ATTACKS = Measure(_parts, _whole, _cost, _made_of)
