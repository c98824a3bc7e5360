"""Means over corruptions and severities, and mCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from engine.experiment.datasets import CORRUPTION_GROUPS, PAPER_CORRUPTIONS
from engine.results.estimates import estimate
from engine.results.measured import Measured
from engine.results.numbers import Number

SEVERITIES = (1, 2, 3, 4, 5)
WITHOUT_FROST = "15 of 16"  # of the paper's corruptions; of the group weather: "without frost"


def corruption_name(corruption: str, severity: int) -> str:
    """The metric under a corruption."""
    return f"eval/corruptions/{corruption}/{severity}"


def _present(run: Measured, names: Sequence[str] = PAPER_CORRUPTIONS) -> list[str]:
    """The corruptions that a mean over ``names`` goes over: all, or all but frost where it had no photographs, else
    none."""
    found = [name for name in names if corruption_name(name, 5) in run.numbers]
    return found if set(names) - set(found) <= {"frost"} else []


def mean_over(run: Measured, severities: Sequence[int], group: str = "") -> Number | None:
    """Mean accuracy over the paper's 16 corruptions, or those of a group, and severities; None where one is missing
    that is not frost."""
    names = CORRUPTION_GROUPS[group] if group else PAPER_CORRUPTIONS
    found = _present(run, names)
    mean = mean_of(found, run, severities)
    if mean is None or len(found) == len(names):
        return mean
    return replace(mean, labels=(*mean.labels, "without frost" if group else WITHOUT_FROST), rank=_below(mean.rank))


def mean_of(names: Sequence[str], run: Measured, severities: Sequence[int]) -> Number | None:
    """Mean accuracy over corruptions and severities; None where one is missing."""
    numbers = [run.numbers.get(corruption_name(name, severity)) for name in names for severity in severities]
    found = [number for number in numbers if number]
    if not found or len(found) < len(numbers):
        return None
    labels = dict.fromkeys(label for number in found for label in number.labels)
    over = min((number.over or 0 for number in found), default=0) or None
    value, rank = fmean(number.value for number in found), min(number.rank for number in found)
    return Number(value, tuple(labels), rank, over=over, file=found[0].file)


def _below(rank: tuple[float, ...]) -> tuple[float, ...]:
    """The rank of a mean without frost: a whole one is preferred."""
    return rank[0] - 0.5, *rank[1:]


def corruption_error(run: Measured, standards: Sequence[Measured]) -> Number | None:
    """mCE of a run: of each corruption its error, summed over severities, over that of the standard runs (their mean);
    then the mean over corruptions (Hendrycks and Dietterich 2019, section 4.2). 1 is the standard network's own."""
    ratios, labels, ranks, file = [], dict[str, None](), [], ""
    for name in _present(run):
        ours = mean_of([name], run, SEVERITIES)
        theirs = estimate(mean_of([name], other, SEVERITIES) for other in standards)
        if ours is None or theirs is None or theirs.mean == 1:
            return None
        ratios.append((1 - ours.value) / (1 - theirs.mean))
        labels.update(dict.fromkeys((*ours.labels, *theirs.labels)))
        ranks.append(ours.rank)
        file = ours.file
    if not ratios:
        return None
    if len(ratios) < len(PAPER_CORRUPTIONS):
        labels[WITHOUT_FROST] = None
        ranks.append(_below(min(ranks)))
    return Number(fmean(ratios), tuple(labels), min(ranks), file=file)
