"""The suites of `hah eval`: each turns a trained network and its settings into one result, piece by piece.

A piece is one batch, one corruption, or one attack or check on a batch. What is drawn belongs to images, so that no
result depends on how many of them a device takes at once.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.adversarial.balls import Ball, Norm
from engine.data.archives import Images
from engine.data.batches import Split, to_images
from engine.disk import replace_bytes
from engine.evaluation import activations, search
from engine.evaluation import corruptions as made
from engine.evaluation import masking as masks
from engine.evaluation.attacks import SQUARE_BATCH, robust, rounds
from engine.evaluation.masking import PROBES, Probe, judge, probe
from engine.evaluation.pieces import Pieces
from engine.experiment.datasets import Suite
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import (
    AttackSuite,
    CorruptionSuite,
    MaskingSuite,
    MinimumNormSuite,
    NoiseSuite,
    SparsitySuite,
)
from engine.probes.measures import right

BATCH = SQUARE_BATCH  # images at once on a CPU; on a GPU a multiple of it
MOST_AT_ONCE = 4000
PROBED = 50  # images that are made to estimate what all of them take
_NO_NUMBER = 1e300  # what a probe that found no number is kept as: JSON has no NaN
PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "triton",
    "scipy",
    "pillow",
    "pyautoattack",
)  # whose versions results may depend on

Result = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a classifier over images in [0, 1], its blocks, and the test images.

    ``network`` may be any module; ``test`` is the first part of ``archive``'s test images; ``standard`` is the
    network that transfer attacks start from, ``standard_run`` the id of its run. ``batch``: images at once.
    """

    network: nn.Module
    blocks: list[nn.Module]
    test: Split
    archive: Images
    dataset: str
    seed: int
    classes: int = 10
    standard: nn.Module | None = None
    standard_run: str = ""
    batch: int = BATCH

    def batches(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        """(places of the images, images in [0, 1], labels) of every batch."""
        for number, (images, labels) in enumerate(self.test.batches(self.batch)):
            start = number * self.batch
            yield range(start, start + len(labels)), images, labels

    def __len__(self) -> int:
        return len(self.test)


def at_once(network: nn.Module, test: Split) -> int:
    """How many images to take at once: 100 on a CPU, on a GPU what fits half of its free memory where each is copied
    eight times (`masking`) and a gradient is taken, by what 100 of ``test`` take."""
    device = test.labels.device
    if device.type != "cuda":
        return BATCH
    images, _ = next(test.batches(BATCH))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    torch.autograd.grad(network(images.requires_grad_()).sum(), images)
    each = (torch.cuda.max_memory_allocated(device) - before) / len(images)
    fits = int(torch.cuda.mem_get_info(device)[0] / 2 / masks.SMOOTHING_DRAWS / max(each, 1))
    return max(BATCH, min(MOST_AT_ONCE, fits // BATCH * BATCH))


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def clean(subject: Subject, pieces: Pieces) -> float:
    """Accuracy on the images as they are."""
    correct = 0
    for places, images, labels in subject.batches():
        correct += pieces.get(f"clean/{_named(places)}", partial(_correct, subject.network, images, labels))
    return correct / len(subject)


def noise(subject: Subject, settings: NoiseSuite, pieces: Pieces, picture: Path | None = None) -> Result:
    """Accuracy and SNR per block at each level of noise; example images go to ``picture`` (a .png)."""
    measured = []
    for places, images, labels in subject.batches():

        def measure(x: Tensor = images, y: Tensor = labels, places: range = places) -> Any:
            found = activations.under_noise(
                subject.network, subject.blocks, x, y, settings.levels, settings.draws,
                distribution=settings.distribution, seed=subject.seed, places=places,
            )  # fmt: skip
            return [[asdict(draw) for draw in level] for level in found]

        measured.append(pieces.get(f"noise/{_named(places)}", measure))
    levels = []
    for index, std in enumerate(settings.levels):
        batches = [found[index] for found in measured]
        accuracies = [sum(found[draw]["correct"] for found in batches) / len(subject) for draw in range(settings.draws)]
        every = [draw for found in batches for draw in found]
        snr = {}
        for block in range(len(subject.blocks)):
            ratio, counted = sum(draw["ratios"][block] for draw in every), sum(draw["counted"][block] for draw in every)
            if counted and ratio > 0:
                snr[str(block + 1)] = 10 * math.log10(ratio / counted)
        mean, spread = _mean_and_spread(accuracies)
        levels.append({"std": std, "accuracy": accuracies, "mean": mean, "spread": spread, "snr_db": snr})
    drawn = picture is not None and settings.examples > 0
    if picture is not None and drawn:
        _examples(subject, settings, picture)
    examples = picture.name if picture is not None and drawn else None
    return {"distribution": settings.distribution, "levels": levels, "examples": examples}


def sparsity(subject: Subject, settings: SparsitySuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """Normalized Hoyer sparsity with its histogram, active and silent fractions, of every block."""
    measured = []
    for places, images, _ in subject.batches():

        def measure(x: Tensor = images) -> Any:
            return [asdict(block) for block in activations.sparsity(subject.network, subject.blocks, x, settings.bins)]

        measured.append(pieces.get(f"sparsity/{_named(places)}", measure))
    blocks = {}
    for index in range(len(subject.blocks)):
        parts = [found[index] for found in measured]
        total = {name: sum(part[name] for part in parts) for name in parts[0] if name != "histogram"}
        blocks[str(index + 1)] = {
            "hoyer": total["hoyer"] / total["locations"] if total["locations"] else None,
            "active_fraction": total["active"] / total["activations"],
            "silent_fraction": total["silent"] / (total["silent"] + total["locations"]),
            "histogram": [sum(counts) for counts in zip(*(part["histogram"] for part in parts), strict=True)],
        }
    return {"edges": [edge / settings.bins for edge in range(settings.bins + 1)], "blocks": blocks}


def corruptions(subject: Subject, settings: CorruptionSuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """Accuracy under each corruption at each severity, and where its images came from."""
    sources = made.sources(settings.names, subject.dataset, settings.source)
    names = [name for name in settings.names if sources[name] != "missing"]
    accuracy: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        for severity in settings.severities:

            def measure(name: str = name, severity: int = severity) -> Any:
                images, source = made.corrupted(
                    name, severity, subject.archive.x_test, subject.archive.y_test, subject.dataset, settings.source,
                    count=len(subject),
                )  # fmt: skip
                if source != sources[name]:  # files came or went meanwhile: the key is of what was there before
                    raise RequestError(f"{name} is {source} now and was {sources[name]} when this began; start again")
                correct = 0
                for start in range(0, len(images), subject.batch):
                    part = torch.from_numpy(images[start : start + subject.batch]).to(subject.test.labels.device)
                    labels = subject.test.labels[start : start + subject.batch]
                    correct += _correct(subject.network, to_images(part.permute(0, 3, 1, 2)), labels)
                return correct

            correct = pieces.get(f"corruptions/{name}/{severity}", measure)
            accuracy[name][str(severity)] = correct / len(subject)
    return {
        "source": "+".join(sorted({sources[name] for name in names})),
        "sources": {name: sources[name] for name in names},
        "missing": [name for name in settings.names if name not in names],
        "accuracy": accuracy,
    }


def attacks(subject: Subject, settings: AttackSuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """Accuracy that is left after attacks, each on what still stands, per norm and size."""
    norms: tuple[tuple[Ball, list[float]], ...] = (("linf", settings.linf), ("l2", settings.l2))
    found = []
    for norm, sizes in norms:
        if not sizes:
            continue
        stands: list[list[str]] = []
        stages: list[str] = []
        for places, images, labels in subject.batches():

            def kept(name: str, measure: Any, norm: Ball = norm, places: range = places) -> Any:
                return pieces.get(f"attacks/{norm}/{_named(places)}/{name}", measure)

            seen = robust(
                subject.network, images, labels, settings.methods, norm, sizes, settings.steps, settings.restarts,
                subject.seed, places, kept=kept,
            )  # fmt: skip
            stages = seen.stages
            stands = stands or [[""] * len(stages) for _ in seen.epsilons]
            for size, of_batch in zip(stands, seen.stands.int().tolist(), strict=True):
                size[:] = [before + "".join(map(str, new)) for before, new in zip(size, of_batch, strict=True)]
        for eps, size in zip(sorted(set(sizes)), stands, strict=True):
            left = [
                {"name": stage, "accuracy": verdict.count("1") / len(subject)}
                for stage, verdict in zip(stages, size, strict=True)
            ]
            robust_accuracy = left[-1]["accuracy"]
            found.append(
                {"norm": norm, "eps": eps, "methods": left, "robust_accuracy": robust_accuracy, "stands": size[-1]}
            )
    return {"attacks": found}


def minimum_norm(subject: Subject, settings: MinimumNormSuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """The smallest perturbation that changes each prediction, and the accuracy against eps that follows from it."""
    norms = {}
    for norm in settings.norms:
        values: list[float] = []
        for places, images, labels in subject.batches():

            def measure(x: Tensor = images, y: Tensor = labels, norm: Norm = norm) -> Any:
                found = search.minimum_norm(subject.network, x, y, norm, settings.steps, settings.trials).norms.tolist()
                return [value if math.isfinite(value) else None for value in found]

            found = pieces.get(f"minimum_norm/{norm}/{_named(places)}", measure)
            values += [math.inf if value is None else value for value in found]
        every = torch.tensor(values, dtype=torch.float64)
        reached = [0.0, *sorted({value for value in values if 0 < value < math.inf})]
        sizes = sorted({reached[round(place * (len(reached) - 1) / 99)] for place in range(100)})  # a hundred at most
        norms[norm] = {
            **search.summary(every),
            "curve": search.curve(every, sizes),
            "values": [value if math.isfinite(value) else None for value in values],
        }
    return {"norms": norms}


def masking(subject: Subject, settings: MaskingSuite, pieces: Pieces, _picture: Path | None = None) -> Result:
    """The checks for masked gradients, with a verdict on each (`engine.evaluation.masking`)."""
    found: dict[str, Tensor] = {}
    for name in PROBES:
        columns = []
        for places, images, labels in subject.batches():

            def measure(name: Probe = name, x: Tensor = images, y: Tensor = labels, places: range = places) -> Any:
                seen = probe(
                    name, subject.network, x, y, norm=settings.norm, eps=settings.eps, steps=settings.steps,
                    queries=settings.queries, seed=subject.seed, places=places, standard=subject.standard,
                )  # fmt: skip
                return seen.double().nan_to_num(nan=_NO_NUMBER, posinf=_NO_NUMBER, neginf=-_NO_NUMBER).tolist()

            columns.append(torch.tensor(pieces.get(f"masking/{name}/{_named(places)}", measure), dtype=torch.float64))
        found[name] = torch.cat(columns)
    return judge(found, settings.norm, settings.eps)


def making(settings: CorruptionSuite, subject: Subject) -> float:
    """About how many seconds it takes to make the corrupted images that are not kept yet, from a few that are made."""
    seconds = 0.0
    for name, source in made.sources(settings.names, subject.dataset, settings.source).items():
        new = [n for n in settings.severities if not made.generated_path(subject.dataset, name, n).exists()]
        if source == "generated" and new:
            began = time.perf_counter()
            made.corrupt(subject.archive.x_test[:PROBED], name, new[-1])
            seconds += (time.perf_counter() - began) * len(new) * len(subject) / PROBED
    return seconds


def _correct(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int(right(network(images), labels).sum())


def _named(places: range) -> str:
    return f"{places.start}-{places.stop}"


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for a single value)."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _examples(subject: Subject, settings: NoiseSuite, path: Path) -> None:
    """A picture: the first images in columns, clean in the first row, then one row for each level."""
    images = to_images(subject.test.pixels[: settings.examples]).cpu()
    rows = [images]
    for level in settings.levels:
        draws = activations.noise_of(images, subject.seed, level, 0)
        rows.append(activations.noisy(images, level, settings.distribution, draws))
    pixels = (torch.stack(rows) * 255).round().byte().permute(0, 3, 1, 4, 2).numpy()  # [row, H, image, W, 3]
    height, width = pixels.shape[0] * pixels.shape[1], pixels.shape[2] * pixels.shape[3]
    picture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.reshape(height, width, 3))).save(picture, format="png")
    replace_bytes(path, picture.getvalue())


@dataclass(frozen=True)
class Cost:
    """At most so many forward passes and gradients an image, seconds beside them, and the number of pieces."""

    passes: float
    gradients: float
    pieces: int
    seconds: float = 0.0


def _batches(subject: Subject) -> int:
    return math.ceil(len(subject) / subject.batch)


def _cost_of_noise(settings: NoiseSuite, subject: Subject) -> Cost:
    return Cost(2 + len(settings.levels) * settings.draws, 0, 2 * _batches(subject))


def _cost_of_sparsity(_settings: SparsitySuite, subject: Subject) -> Cost:
    return Cost(2, 0, 2 * _batches(subject))


def _cost_of_corruptions(settings: CorruptionSuite, subject: Subject) -> Cost:
    sets = len(settings.names) * len(settings.severities)
    return Cost(1 + sets, 0, _batches(subject) + sets, making(settings, subject))


def _cost_of_attacks(settings: AttackSuite, subject: Subject) -> Cost:
    steps, targets = settings.steps + len(rounds(settings.steps)), min(9, subject.classes - 1)
    one = {
        "pgd": (1, settings.steps * settings.restarts),
        "apgd-ce": (1, steps * settings.restarts),
        "apgd-t": (1, targets * steps * settings.restarts),
        "autoattack": (5000, (1 + 2 * targets) * 101 * settings.restarts),
    }
    sizes = len(set(settings.linf)) + len(set(settings.l2))
    passes = sum(one[method][0] for method in settings.methods)
    gradients = sum(one[method][1] for method in settings.methods)
    each = sum(1 if method == "autoattack" else len(rounds(settings.steps)) for method in settings.methods)
    return Cost(2 + sizes * passes, sizes * gradients, _batches(subject) * (1 + sizes * settings.restarts * each))


def _cost_of_minimum_norm(settings: MinimumNormSuite, subject: Subject) -> Cost:
    norms, walks = len(settings.norms), 2 * math.ceil(settings.steps / search.WALK)
    ends = walks * (max(search.BISECTIONS, search.REMOVALS) + 2)
    trials = settings.steps * settings.trials
    passes, gradients = 2 + ends + 1.2 * trials, 2 * settings.steps + trials / search.GUIDED
    return Cost(norms * passes, norms * gradients, _batches(subject) * (1 + norms))


def _cost_of_masking(settings: MaskingSuite, subject: Subject) -> Cost:
    gradients = (3 + min(9, subject.classes - 1) + 8 / 5) * settings.steps + 140
    return Cost(settings.queries + 40, gradients, _batches(subject) * (1 + len(PROBES)))


def _made_of_corruptions(subject: Subject, settings: CorruptionSuite) -> dict[str, Any]:
    return {"sources": made.sources(settings.names, subject.dataset, settings.source), "version": made.VERSION}


def _made_of_attacks(_subject: Subject, settings: AttackSuite) -> dict[str, Any]:
    # What Square draws is for so many images together.
    return {"square_batch": SQUARE_BATCH} if "autoattack" in settings.methods else {}


def _made_of_masking(subject: Subject, _settings: MaskingSuite) -> dict[str, Any]:
    found: dict[str, Any] = {"square_batch": SQUARE_BATCH}
    if subject.standard is not None:
        found |= {"standard": subject.standard_run, "weights": fingerprint(subject.standard)}
    return found


@dataclass(frozen=True)
class Measure:
    """How a suite is measured, with its section of the experiment as settings, and where example images may go.

    ``made_of``: what its result depends on beside the network, the test images and the settings; raises RequestError
    where it cannot be had.
    """

    measure: Callable[[Subject, Any, Pieces, Path | None], Result]
    cost: Callable[[Any, Subject], Cost]
    made_of: Callable[[Subject, Any], dict[str, Any]] = lambda subject, settings: {}


MEASURES: dict[Suite, Measure] = {  # of every suite in `engine.results.suites`
    "noise": Measure(noise, _cost_of_noise),
    "sparsity": Measure(sparsity, _cost_of_sparsity),
    "corruptions": Measure(corruptions, _cost_of_corruptions, _made_of_corruptions),
    "attacks": Measure(attacks, _cost_of_attacks, _made_of_attacks),
    "minimum_norm": Measure(minimum_norm, _cost_of_minimum_norm),
    "masking": Measure(masking, _cost_of_masking, _made_of_masking),
}
