"""Noise and what it does inside a network: accuracy and SNR per block (Figures 3b and 4), sparsity (Figure 2).

For any PyTorch classifier over images in [0, 1]; ``blocks`` are the modules whose inputs (SNR) or outputs (sparsity)
are looked at, for a `engine.nn.VGG` its convolution blocks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.data.batches import to_images
from engine.data.draws import Draw, ImageDraws
from engine.disk import replace_bytes
from engine.evaluation.attacks import check_images
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import Cost, Measure, Result, Subject, named
from engine.experiment.mistakes import RequestError
from engine.experiment.schema import NoiseSuite, SparsitySuite
from engine.probes.measures import hoyer, right, snr_ratio
from engine.probes.observation import evaluating

Distribution = Literal["gaussian", "uniform"]


def noisy(images: Tensor, std: float, distribution: Distribution, draws: ImageDraws) -> Tensor:
    """Images [B, C, H, W] plus noise of standard deviation ``std``, clamped to [0, 1]."""
    noise = draws.normal().mul_(std) if distribution == "gaussian" else draws.uniform().mul_(3**0.5 * std)
    return (images + noise).clamp_(0, 1)


def noise_of(images: Tensor, seed: int, std: float, number: int, places: Sequence[int] | None = None) -> ImageDraws:
    """What draw ``number`` of the noise suite adds at a level to images that are ``places`` of the test set (the first
    ones for None)."""
    keys = (seed, Draw.EVALUATION_NOISE, round(std * 1e9), number)
    return ImageDraws(images, range(len(images)) if places is None else places, *keys)


@dataclass(frozen=True)
class UnderNoise:
    """One batch at one level: how many images are classified correctly, and the sums of Eq. 6's ratio per block."""

    correct: int
    ratios: list[float]
    counted: list[int]  # images whose ratio is finite


@torch.no_grad()
def under_noise(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    levels: Sequence[float],
    draws: int,
    *,
    distribution: Distribution = "gaussian",
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> list[list[UnderNoise]]:
    """Accuracy and SNR (Eq. 6) of images [B, C, H, W] at every level and draw: [level][draw].

    The clean forward pass is shared. The noise of an image depends on (seed, level, draw, its place in the test set)
    alone; ``places`` [B] are 0 to B - 1 where none are given.
    """
    check_images(images, labels)
    if draws < 1 or not all(math.isfinite(level) and level >= 0 for level in levels):
        raise RequestError(f"noise needs draws, and levels of at least 0, got {draws} and {list(levels)}")
    if distribution not in get_args(Distribution):
        raise RequestError(f"noise is {' or '.join(get_args(Distribution))}, got {distribution!r}")
    found: list[list[UnderNoise]] = []
    with evaluating(model):
        with _inputs(blocks) as clean:
            model(images)
        for level in levels:
            found.append([])
            for number in range(draws):
                noise = noise_of(images, seed, level, number, places)
                with _inputs(blocks) as seen:
                    logits = model(noisy(images, level, distribution, noise))
                ratios = [snr_ratio(a.double(), b.double()) for a, b in zip(clean, seen, strict=True)]
                finite = [ratio.isfinite() for ratio in ratios]
                found[-1].append(
                    UnderNoise(
                        int(right(logits, labels).sum()),
                        [float(ratio[good].sum()) for ratio, good in zip(ratios, finite, strict=True)],
                        [int(good.sum()) for good in finite],
                    )
                )
    return found


@dataclass(frozen=True)
class Sparsity:
    """Sums over one batch for one block; ``hoyer`` over the locations where a filter is active."""

    hoyer: float
    locations: int
    silent: int  # locations where every filter is silent
    active: int  # activations that are not zero
    activations: int
    histogram: list[int]  # of the normalized Hoyer values, in equal bins from 0 to 1


@torch.no_grad()
def sparsity(model: nn.Module, blocks: Sequence[nn.Module], images: Tensor, bins: int = 40) -> list[Sparsity]:
    """Normalized Hoyer sparsity of every block's output over filters, for images [B, C, H, W]."""
    if images.ndim != 4 or not len(images) or not images.is_floating_point() or bins < 1:
        raise RequestError(
            f"floating-point images [B, C, H, W] and bins are needed, got {images.dtype} {list(images.shape)}, {bins}"
        )
    outputs: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for block in blocks]
    try:
        with evaluating(model):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for output in outputs:
        values = hoyer(output.double()).flatten()
        there = values.isfinite()
        values = values[there].clamp(0, 1)
        counts = torch.histc(values.cpu(), bins, 0, 1)
        found.append(
            Sparsity(
                float(values.sum()),
                len(values),
                int((~there).sum()),
                int((output != 0).sum()),
                output.numel(),
                [int(count) for count in counts],
            )
        )
    return found


@contextmanager
def _inputs(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The inputs of modules during one pass, in the order they ran."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0].detach().clone())  # a block may work in place

    handles = [block.register_forward_pre_hook(hook) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _parts_of_noise(subject: Subject, settings: NoiseSuite) -> list[Callable[[Pieces], Any]]:
    """`under_noise` of every batch."""

    def measure(places: range) -> Any:
        found = under_noise(
            subject.network, subject.blocks, *subject.at(places), settings.levels, settings.draws,
            distribution=settings.distribution, seed=subject.seed, places=places,
        )  # fmt: skip
        return [[asdict(draw) for draw in level] for level in found]

    def part(places: range, pieces: Pieces) -> Any:
        return pieces.get(f"noise/{named(places)}", partial(measure, places))

    return [partial(part, places) for places in subject.batches()]


def _noise(subject: Subject, settings: NoiseSuite, measured: Sequence[Any], picture: Path | None) -> Result:
    """Accuracy and SNR per block at each level of noise; example images go to ``picture`` (a .png)."""
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


def _parts_of_sparsity(subject: Subject, settings: SparsitySuite) -> list[Callable[[Pieces], Any]]:
    """`sparsity` of every batch."""

    def measure(places: range) -> Any:
        images, _ = subject.at(places)
        return [asdict(block) for block in sparsity(subject.network, subject.blocks, images, settings.bins)]

    def part(places: range, pieces: Pieces) -> Any:
        return pieces.get(f"sparsity/{named(places)}", partial(measure, places))

    return [partial(part, places) for places in subject.batches()]


def _sparsity(subject: Subject, settings: SparsitySuite, measured: Sequence[Any], _picture: Path | None) -> Result:
    """Normalized Hoyer sparsity with its histogram, active and silent fractions, of every block."""
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


def _cost_of_noise(settings: NoiseSuite, subject: Subject) -> Cost:
    return Cost(2 + len(settings.levels) * settings.draws, 0, 2 * len(subject.batches()))


def _cost_of_sparsity(_settings: SparsitySuite, subject: Subject) -> Cost:
    return Cost(2, 0, 2 * len(subject.batches()))


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
        draws = noise_of(images, subject.seed, level, 0)
        rows.append(noisy(images, level, settings.distribution, draws))
    pixels = (torch.stack(rows) * 255).round().byte().permute(0, 3, 1, 4, 2).numpy()  # [row, H, image, W, 3]
    height, width = pixels.shape[0] * pixels.shape[1], pixels.shape[2] * pixels.shape[3]
    picture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.reshape(height, width, 3))).save(picture, format="png")
    replace_bytes(path, picture.getvalue())


NOISE = Measure(_parts_of_noise, _noise, _cost_of_noise)
SPARSITY = Measure(_parts_of_sparsity, _sparsity, _cost_of_sparsity)
