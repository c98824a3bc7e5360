"""Any runs side by side: results with the best marked, per-block numbers, and only the settings that differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.experiment.datasets import CORRUPTION_GROUPS
from engine.experiment.mistakes import RequestError
from engine.results.corruptions import SEVERITIES, corruption_error, mean_over
from engine.results.measured import Measured, measured
from engine.results.numbers import CLEAN, PAPER_EPS, Masking, Number, found_for, natural, noise_name
from engine.results.suites import LISTED, suite_title
from engine.runs.layout import RunDirectory

BLOCK_TITLES = {"hoyer": "Hoyer sparsity", "snr_db": "SNR in dB, noise 0.1", "active_fraction": "active fraction"}
_NORM = re.compile(r"eval/minimum_norm/(l0|l1|l2|linf)/mean")


@dataclass(frozen=True)
class Quantity:
    """One result of every run; ``percent``: a fraction; ``lower``: is better; ``best``: places of the best, if any."""

    name: str
    title: str
    percent: bool
    numbers: tuple[Number | None, ...]
    lower: bool = False

    @property
    def best(self) -> set[int]:
        values = {place: number.value for place, number in enumerate(self.numbers) if number}
        if len(values) < 2:
            return set()
        first = (min if self.lower else max)(values.values())
        return {place for place, value in values.items() if value == first}


@dataclass(frozen=True)
class Comparison:
    """``blocks``: {quantity: {block: a number of each run}}; ``differences``: {setting: a value of each run};
    ``masking``: {norm: the checks of each run}."""

    runs: tuple[Measured, ...]
    quantities: tuple[Quantity, ...]
    blocks: dict[str, dict[int, list[Number | None]]]
    differences: dict[str, list[Any]]
    masking: dict[str, list[Masking | None]]
    remarks: list[str]


def compare(runs: Sequence[RunDirectory]) -> Comparison:
    """Two or more runs side by side; raises RequestError for fewer."""
    runs = list(dict.fromkeys(runs))
    if len(runs) < 2:
        raise RequestError("give at least two different runs to compare")
    found = tuple(measured(run) for run in runs)
    masking = {norm: [run.maskings.get(norm) for run in found] for norm in PAPER_EPS}
    return Comparison(
        found,
        tuple(_quantities(found)),
        {name: blocks for name in BLOCK_TITLES if (blocks := _blocks(found, name))},
        _differences(found),
        {norm: checks for norm, checks in masking.items() if any(checks)},
        [
            *(remark for run in found for remark in run.remarks),
            *(f"{run.run.id}: {', '.join(run.changed)} changed while it trained" for run in found if run.changed),
        ],
    )


def _quantities(runs: Sequence[Measured]) -> list[Quantity]:
    """What was measured of the runs, in the order a reader looks for it; mCE is relative to the first run."""
    names = list(dict.fromkeys(name for run in runs for name in sorted(run.numbers, key=natural)))
    rows = [(CLEAN, "clean")]
    for name in names:
        match name.split("/"):
            case ["eval", "noise", level, "accuracy"]:
                rows.append((name, f"noise {level}"))
    for name in names:
        match name.split("/"):
            case ["eval", "attacks", attack, what]:
                norm, _, eps = attack.partition("-")
                title = {"robust_accuracy": "robust", "worst_case": "worst case"}.get(what, what)
                rows.append((name, f"{title} {norm.capitalize()} {eps}"))
    quantities = [Quantity(name, title, True, tuple(run.numbers.get(name) for run in runs)) for name, title in rows]
    for severities, title in (((5,), "corruptions, severity 5"), (SEVERITIES, "corruptions, severity 1-5")):
        means = tuple(mean_over(run, severities) for run in runs)
        quantities.append(Quantity(f"eval/corruptions/mean/{severities[-1]}", title, True, means))
    errors = tuple(corruption_error(run, runs[:1]) for run in runs)
    quantities.append(Quantity("eval/corruptions/mce", "mCE relative to the first", False, errors, lower=True))
    for group in CORRUPTION_GROUPS:
        means = tuple(mean_over(run, SEVERITIES, group) for run in runs)
        quantities.append(Quantity(f"eval/corruptions/{group}", f"{group} corruptions, severity 1-5", True, means))
    for name in names:
        match name.split("/"):
            case ["eval", "corruptions", corruption, "5"]:
                numbers = tuple(run.numbers.get(name) for run in runs)
                quantities.append(Quantity(name, f"{corruption.replace('_', ' ')}, severity 5", True, numbers))
    for name in names:
        if match := _NORM.fullmatch(name):
            norms = tuple(_mean_norm(run, match[1]) for run in runs)
            quantities.append(Quantity(name, f"mean minimum norm {match[1].capitalize()}", False, norms))
    for name in names:
        match name.split("/"):
            case ["eval", suite, *rest] if rest and suite not in LISTED:
                title = f"{suite_title(suite)} {' '.join(rest)}".replace("_", " ")
                quantities.append(Quantity(name, title, True, tuple(run.numbers.get(name) for run in runs)))
    return [quantity for quantity in quantities if any(quantity.numbers)]


def _mean_norm(run: Measured, norm: str) -> Number | None:
    """The mean over the images that are classified correctly and fell, with the share that a norm was found for."""
    mean, rate = (run.numbers.get(f"eval/minimum_norm/{norm}/{of}") for of in ("mean", "success_rate"))
    return replace(mean, labels=(*mean.labels, *found_for(rate.value))) if mean and rate else mean


def _blocks(runs: Sequence[Measured], what: str) -> dict[int, list[Number | None]]:
    start, end = (noise_name(0.1, "snr_db/"), "") if what == "snr_db" else ("eval/sparsity/", f"/{what}")
    rows = {n: [run.numbers.get(f"{start}{n}{end}") for run in runs] for n in range(1, 100)}
    return {n: numbers for n, numbers in rows.items() if any(numbers)}


def _differences(runs: Sequence[Measured]) -> dict[str, list[Any]]:
    from engine.experiment.fields import differences, flatten

    flat = [flatten(run.experiment) for run in runs]
    names = dict.fromkeys(name for run in runs[1:] for name in differences(runs[0].experiment, run.experiment))
    return {name: [one.get(name) for one in flat] for name in names if name not in ("name", "description", "tags")}


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON document; lists are in the order of the runs, accuracies fractions 0..1."""

    def number(one: Number | None) -> dict[str, Any] | None:
        return None if one is None else {"value": one.value, "labels": list(one.labels)}

    return {
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
