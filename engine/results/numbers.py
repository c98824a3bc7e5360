"""Measured numbers, what has to be said of them, and the names that they go by.

Metric names: eval/clean_accuracy, eval/noise/0.1/accuracy, eval/noise/0.1/snr_db/3, eval/sparsity/3/hoyer,
eval/corruptions/fog/5, eval/attacks/linf-0.00784/robust_accuracy, eval/minimum_norm/linf/mean.
eval/attacks/linf-0.00784/worst_case is what stands after all attacks and minimum norms measured of one checkpoint.
Each number carries, in words, what a reader has to know of it: "first 1,000 images", "generated". Accuracies are
fractions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")

CLEAN = "eval/clean_accuracy"
GENERATED = "generated"  # corruptions made from the test images instead of the official files
FROM_TRAINING = "last test of the training"
ENOUGH = {  # fewer are weaker than the defaults, and said
    "attacks": {"steps": 100},
    "minimum_norm": {"steps": 300},
    "masking": {"steps": 100, "queries": 1000},
}
PAPER_EPS = {"linf": 2 / 255, "l2": 0.25}
PAPER_METHODS = ("apgd-ce", "apgd-t")
PAPER_ATTACKS = {"steps": 100, "restarts": 1}

Curve = tuple[tuple[float, float], ...]  # (x, y) of a step function, x rising


@dataclass(frozen=True)
class Number:
    """A measured value and what has to be said of it; of two numbers of one metric the higher ``rank`` is preferred.

    Numbers with the same labels were measured in the same way. ``draws``: the standard deviation over draws of the
    noise. ``curve``: of a success rate, accuracy against eps; of a Hoyer sparsity, its density over locations.
    ``images``: how many distinct images an accuracy was counted over; None of what is no count, as a mean over
    corruptions. ``over``: how many images were looked at, whatever was measured. ``error``: the standard error over
    images of a mean that is no fraction. ``file``: the name of the result file that it is from.
    """

    value: float
    labels: tuple[str, ...] = ()
    rank: tuple[float, ...] = (0.0,)
    draws: float | None = None
    curve: Curve = ()
    images: int | None = None
    over: int | None = None
    error: float | None = None
    file: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% confidence interval of an accuracy over images that were drawn; None of anything else."""
        return wilson(self.value, self.images) if self.images else None


def wilson(fraction: float, count: int) -> tuple[float, float]:
    """The 95% interval of a fraction of ``count`` independent draws (Wilson 1927), within 0..1."""
    z = 1.959963984540054
    spread = z * math.sqrt(fraction * (1 - fraction) / count + z * z / (4 * count * count))
    centre, scale = fraction + z * z / (2 * count), 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True)
class Check:
    """One check for masked gradients; ``verdict`` is clear, suspect or not run."""

    name: str
    verdict: str
    words: str


@dataclass(frozen=True)
class Masking:
    """The checks of one evaluation, and the verdict over all of them: clear, suspect or incomplete."""

    norm: str
    eps: float
    verdict: str
    checks: tuple[Check, ...]
    labels: tuple[str, ...] = ()
    rank: tuple[float, ...] = ()
    file: str = ""

    @property
    def title(self) -> str:
        """Norm and eps: 'Linf 2/255', 'L2 0.25'."""
        return f"{self.norm.capitalize()} {ball(self.norm, self.eps)}"

    @property
    def sound(self) -> bool:
        """Whether its settings are no weaker than the defaults, at the paper's eps."""
        return self.rank[:2] == (1, 1)

    @property
    def partial(self) -> bool:
        """Whether a check was not run."""
        return any(check.verdict == "not run" for check in self.checks)


def noise_name(std: float, what: str = "accuracy") -> str:
    """The metric under Gaussian noise of this standard deviation."""
    return f"eval/noise/{std:g}/{what}"


def attack_name(norm: str, eps: float, what: str = "robust_accuracy") -> str:
    """The metric of robust accuracy at eps, rounded to three digits so that 0.00784 is 2/255."""
    return f"eval/attacks/{norm}-{eps:.3g}/{what}"


def strong(methods: Collection[str]) -> bool:
    """Whether attacks are the paper's (APGD-CE and targeted APGD) or AutoAttack, which has both."""
    return "autoattack" in methods or set(PAPER_METHODS) <= set(methods)


def found_for(success_rate: float) -> tuple[str, ...]:
    """What has to be said of a mean norm where the attack failed on some images."""
    return (f"found for {min(100 * success_rate, 99.9):.3g}% of images",) if success_rate < 1 else ()


def of_paper(norm: str, eps: float) -> bool:
    """Whether this eps is the paper's, to three digits."""
    return attack_name(norm, eps) == attack_name(norm, PAPER_EPS[norm])


def ball(norm: str, eps: float) -> str:
    """An eps in words: '2/255' in Linf, '0.25' in L2."""
    whole = round(255 * eps)
    return f"{whole}/255" if norm == "linf" and f"{whole / 255:.3g}" == f"{eps:.3g}" else f"{eps:.3g}"


def plain(text: object, limit: int = 300) -> str:
    """Text from a file on one line without control characters, cut to ``limit``."""
    clean = _UNSAFE.sub(" ", str(text)).strip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def natural(name: str) -> list[tuple[float, str]]:
    """Parts of a metric name, numbers by size."""
    parts = []
    for part in name.split("/"):
        try:
            parts.append((float(part), ""))
        except ValueError:
            parts.append((float("inf"), part))
    return parts
