"""Any runs side by side, those that are equal but for their seed as one: results with the best marked, per-block
numbers, and only the settings that differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.experiment.datasets import CORRUPTION_GROUPS
from engine.experiment.mistakes import RequestError
from engine.results.corruptions import SEVERITIES, corruption_error, mean_over
from engine.results.estimates import Estimate
from engine.results.groups import RUN, SEED, Group, grouped
from engine.results.measured import Measured, measured
from engine.results.numbers import CLEAN, PAPER_EPS, Masking, Number, found_for, natural, noise_name
from engine.results.suites import LISTED, suite_title
from engine.runs.layout import RunDirectory

BLOCK_TITLES = {"hoyer": "Hoyer sparsity", "snr_db": "SNR in dB, noise 0.1", "active_fraction": "active fraction"}
_NORM = re.compile(r"eval/minimum_norm/(l0|l1|l2|linf)/mean")
ACCURACY, CORRUPTED, EACH_CORRUPTION, NORMS, OTHER = (
    "Accuracy", "Corruptions", "Each corruption at severity 5", "Minimum norms", "Other suites"
)  # fmt: skip
_WORST = ("clear", "incomplete", "suspect")


@dataclass(frozen=True)
class Quantity:
    """One result of every group; ``percent``: a fraction; ``lower``: is better; ``panel``: what it belongs with."""

    name: str
    title: str
    percent: bool
    numbers: tuple[Estimate | None, ...]
    lower: bool = False
    panel: str = ""

    @property
    def best(self) -> set[int]:
        """Places of the best, if any; what was counted over fewer images than others is it only by the near end of its
        interval."""
        there = {place: number for place, number in enumerate(self.numbers) if number}
        if len(there) < 2:
            return set()
        most = max((number.images or 0 for number in there.values()), default=0)
        values = {
            place: number.interval[0] if number.interval and (number.images or 0) < most else number.mean
            for place, number in there.items()
        }
        first = (min if self.lower else max)(values.values())
        return {place for place, value in values.items() if value == first}


@dataclass(frozen=True)
class Comparison:
    """``blocks``: {quantity: {block: a number of each group}}; ``differences``: {setting: a value of each group};
    ``masking``: {norm: the checks of each group, of several runs the worst}."""

    groups: tuple[Group, ...]
    quantities: tuple[Quantity, ...]
    blocks: dict[str, dict[int, list[Estimate | None]]]
    differences: dict[str, list[Any]]
    masking: dict[str, list[Masking | None]]
    remarks: list[str]

    @property
    def runs(self) -> list[Measured]:
        """Every run that is in it."""
        return [run for group in self.groups for run in group.runs]


def compare(runs: Sequence[RunDirectory], by: str = "", titles: Mapping[str, str] | None = None) -> Comparison:
    """Runs side by side; raises RequestError for fewer than two.

    ``by`` and ``titles`` are `grouped`'s; '' groups by seed where that makes groups of several runs, of which there
    are two or more, and else leaves every run alone.
    """
    runs = list(dict.fromkeys(runs))
    if len(runs) < 2:
        raise RequestError("give at least two different runs to compare")
    found = [measured(run) for run in runs]
    groups, left_out = grouped(found, by or SEED, titles)
    if not by and (len(groups) < 2 or all(len(group.runs) == 1 for group in groups)):
        groups, left_out = grouped(found, RUN, titles)
    masking = {norm: [_masking(group, norm) for group in groups] for norm in PAPER_EPS}
    return Comparison(
        tuple(groups),
        tuple(quantities(groups)),
        {name: rows for name in BLOCK_TITLES if (rows := blocks(groups, name))},
        _differences(groups),
        {norm: checks for norm, checks in masking.items() if any(checks)},
        list(
            dict.fromkeys(
                [
                    *(remark for run in found for remark in run.remarks),
                    *(
                        f"{run.run.id}: {', '.join(run.changed)} changed while it trained"
                        for run in found
                        if run.changed
                    ),
                    *left_out,
                    *(
                        f"{group.name} has no seed {', '.join(map(str, group.missing))}"
                        for group in groups
                        if group.missing
                    ),
                ]
            )
        ),
    )


def _masking(group: Group, norm: str) -> Masking | None:
    found = [run.maskings[norm] for run in group.runs if norm in run.maskings]
    return max(found, key=lambda one: _WORST.index(one.verdict) if one.verdict in _WORST else 0, default=None)


def quantities(groups: Sequence[Group]) -> list[Quantity]:
    """What was measured of the runs, in the order a reader looks for it; mCE is relative to the first group."""
    every = [run for group in groups for run in group.runs]
    names = list(dict.fromkeys(name for run in every for name in sorted(run.numbers, key=natural)))
    found: list[Quantity] = []

    def add(
        panel: str,
        title: str,
        name: str,
        of: Callable[[Measured], Number | None] | None = None,
        *,
        percent: bool = True,
        lower: bool = False,
    ) -> None:
        numbers = tuple(group.over(of or (lambda run: run.numbers.get(name))) for group in groups)
        if any(numbers):
            found.append(Quantity(name, title, percent, numbers, lower, panel))

    add(ACCURACY, "clean", CLEAN)
    for name in names:
        match name.split("/"):
            case ["eval", "noise", level, "accuracy"]:
                add(ACCURACY, f"noise {level}", name)
    for name in names:
        match name.split("/"):
            case ["eval", "attacks", attack, what]:
                norm, _, eps = attack.partition("-")
                title = {"robust_accuracy": "robust", "worst_case": "worst case"}.get(what, what)
                add(ACCURACY, f"{title} {norm.capitalize()} {eps}", name)
    for severities, title in (((5,), "corruptions, severity 5"), (SEVERITIES, "corruptions, severity 1-5")):
        mean = partial(mean_over, severities=severities)
        add(CORRUPTED, title, f"eval/corruptions/mean/{severities[-1]}", mean)
    error = partial(corruption_error, standards=groups[0].runs)
    add(CORRUPTED, "mCE relative to the first", "eval/corruptions/mce", error, percent=False, lower=True)
    for group in CORRUPTION_GROUPS:
        mean = partial(mean_over, severities=SEVERITIES, group=group)
        add(CORRUPTED, f"{group} corruptions, severity 1-5", f"eval/corruptions/{group}", mean)
    for name in names:
        match name.split("/"):
            case ["eval", "corruptions", corruption, "5"]:
                add(EACH_CORRUPTION, f"{corruption.replace('_', ' ')}, severity 5", name)
    for name in names:
        if match := _NORM.fullmatch(name):
            norm = match[1]
            add(NORMS, f"mean minimum norm {norm.capitalize()}", name, partial(_mean_norm, norm=norm), percent=False)
    for name in names:
        match name.split("/"):
            case ["eval", suite, *rest] if rest and suite not in LISTED:
                add(OTHER, f"{suite_title(suite)} {' '.join(rest)}".replace("_", " "), name)
    return found


def _mean_norm(run: Measured, norm: str) -> Number | None:
    """The mean over the images that are classified correctly and fell, with the share that a norm was found for."""
    mean, rate = (run.numbers.get(f"eval/minimum_norm/{norm}/{of}") for of in ("mean", "success_rate"))
    return replace(mean, labels=(*mean.labels, *found_for(rate.value))) if mean and rate else mean


def blocks(groups: Sequence[Group], what: str) -> dict[int, list[Estimate | None]]:
    """A number of each group for every block that has any; ``what`` is of `BLOCK_TITLES`."""
    rows = {n: [group.estimate(of_block(what, n)) for group in groups] for n in range(1, 100)}
    return {n: numbers for n, numbers in rows.items() if any(numbers)}


def of_block(what: str, n: int) -> str:
    """The metric that such a number is."""
    return noise_name(0.1, f"snr_db/{n}") if what == "snr_db" else f"eval/sparsity/{n}/{what}"


def _differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The settings in which the first runs of groups differ; the seed only where every group is one run."""
    from engine.experiment.fields import differences, flatten

    runs = [group.runs[0] for group in groups]
    silent = {"name", "description", "tags", *(["seed"] if any(len(group.runs) > 1 for group in groups) else [])}
    flat = [flatten(run.experiment) for run in runs]
    names = dict.fromkeys(name for run in runs[1:] for name in differences(runs[0].experiment, run.experiment))
    return {name: [one.get(name) for one in flat] for name in names if name not in silent}


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON document; lists are in the order of the groups, accuracies fractions 0..1.

    A ``value`` is a mean over ``n`` runs with their sample standard deviation as ``spread``; the ``interval`` (Wilson,
    95%) is of one run's accuracy.
    """

    def number(one: Estimate | None) -> dict[str, Any] | None:
        if one is None:
            return None
        interval = list(one.interval) if one.interval else None
        return {
            "value": one.mean, "spread": one.spread, "n": len(one.values), "interval": interval,
            "labels": list(one.labels),
        }  # fmt: skip

    return {
        "groups": [
            {
                "name": group.name,
                "runs": [run.run.id for run in group.runs],
                "seeds": list(group.seeds),
                "missing_seeds": list(group.missing),
            }
            for group in comparison.groups
        ],
        "runs": [
            {"id": run.run.id, "preset": run.state.preset, "status": run.state.status, "seed": run.seed}
            for run in comparison.runs
        ],
        "results": [
            {
                "name": quantity.name,
                "title": quantity.title,
                "values": [number(one) for one in quantity.numbers],
                "best": sorted(quantity.best),
            }
            for quantity in comparison.quantities
        ],
        "blocks": {
            name: {str(n): [number(one) for one in numbers] for n, numbers in blocks.items()}
            for name, blocks in comparison.blocks.items()
        },
        "masking": {
            norm: [one and {"eps": one.eps, "verdict": one.verdict, "labels": list(one.labels)} for one in checks]
            for norm, checks in comparison.masking.items()
        },
        "differences": comparison.differences,
        "remarks": comparison.remarks,
    }
