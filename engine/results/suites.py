"""The table of suites: what there is to measure of a trained network, by the name of its section in `evaluate`.

What each costs and how it is measured is the torch wing's (`engine.evaluation.suites`), under the same names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from engine.experiment.datasets import WITHOUT_PACKAGE, Suite
from engine.experiment.mistakes import RequestError
from engine.results import parsers
from engine.results.numbers import Number
from engine.results.parsers import Parsed

if TYPE_CHECKING:
    from engine.experiment import Experiment

Numbers = Mapping[str, Number]  # by metric name
ATTACKS = "pyautoattack"


@dataclass(frozen=True)
class SuiteFacts:
    """``parse`` reads a result; ``shown`` are the numbers of it that panels and TensorBoard have room for, by name.

    ``method`` is raised wherever a result would change, so that no older one answers for it. ``needs`` names the
    packages that settings of the suite's section need beyond those that are always there. ``listed``: its numbers have
    a place of their own in lists; those of others stand at the end.
    """

    method: int
    title: str
    parse: Callable[[dict[str, Any], dict[str, Any], tuple[str, ...]], Parsed]
    shown: Callable[[Numbers], dict[str, float]]
    needs: Callable[[Any], tuple[str, ...]] = lambda section: ()
    listed: bool = False


def _ending(*ends: str) -> Callable[[Numbers], dict[str, float]]:
    return lambda numbers: {name: one.value for name, one in numbers.items() if name.endswith(ends)}


def _mean(numbers: Numbers) -> dict[str, float]:
    """Over every corruption and severity."""
    return {"eval/corruptions/mean_accuracy": fmean(one.value for one in numbers.values())} if numbers else {}


SUITES: dict[Suite, SuiteFacts] = {  # in the order they run
    "noise": SuiteFacts(3, "noise", parsers.noise, _ending("/accuracy"), listed=True),
    "sparsity": SuiteFacts(2, "sparsity", parsers.sparsity, _ending("/hoyer"), listed=True),
    "corruptions": SuiteFacts(2, "corruptions", parsers.corruptions, _mean, listed=True),
    "attacks": SuiteFacts(
        4, "attacks", parsers.attacks, _ending("/robust_accuracy"),
        lambda section: () if set(section.methods) <= set(WITHOUT_PACKAGE) else (ATTACKS,), listed=True,
    ),
    "minimum_norm": SuiteFacts(4, "minimum norms", parsers.minimum_norm, _ending("/median"), listed=True),
    "masking": SuiteFacts(3, "masking", parsers.masking, _ending(), lambda section: (ATTACKS,), listed=True),
}  # fmt: skip


LISTED = [name for name, suite in SUITES.items() if suite.listed]


def suite_title(name: str) -> str:
    """What a suite is called; the name itself of an unknown one."""
    return next((suite.title for known, suite in SUITES.items() if known == name), name)


def check_packages(experiment: Experiment) -> None:
    """Raises RequestError where what is to be measured needs a package that is not installed."""
    sections = {name: getattr(experiment.evaluate, name) for name in experiment.evaluate.suites}
    lacking: dict[str, list[str]] = {}
    for name, section in sorted(sections.items()):
        for package in SUITES[name].needs(section):
            if importlib.util.find_spec(package) is None:
                lacking.setdefault(package, []).append(name)
    for package, names in lacking.items():
        raise RequestError(f"{' and '.join(names)} need {package}: pip install 'hah-tui[attacks]'")
