"""What is in the result of each suite: numbers, checks for masked gradients and what broke each image.

A parser takes the result, the whole document around it and what has to be said of every number in it; it raises
ValueError with what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, NamedTuple

from engine.experiment.datasets import CORRUPTIONS, UNDIVIDED
from engine.results import checked
from engine.results.numbers import (
    ENOUGH,
    GENERATED,
    PAPER_ATTACKS,
    PAPER_EPS,
    PAPER_METHODS,
    Check,
    Curve,
    Masking,
    Number,
    attack_name,
    noise_name,
    of_paper,
    plain,
    strong,
)


@dataclass(frozen=True)
class Broken:
    """What one result knows of each image: the smallest perturbation that broke it, infinite where none did.

    ``what`` was measured; ``sizes`` are those of attacks; results ``of`` the same network and images make one worst
    case.
    """

    norm: str
    what: str
    smallest: tuple[float, ...]
    sizes: tuple[float, ...] = ()
    of: tuple[object, ...] = ()
    labels: tuple[str, ...] = ()
    rank: tuple[float, ...] = ()


class Parsed(NamedTuple):
    numbers: dict[str, Number]
    masking: Masking | None = None
    broken: Iterable[Broken] = ()


def noise(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    distribution = content.get("distribution")
    if distribution not in ("gaussian", "uniform"):
        raise ValueError("distribution: neither gaussian nor uniform")
    numbers = {}
    for level in checked.items(content, "levels"):
        std = checked.number(level, "std", 0, 100)
        start = noise_name(std, "") if distribution == "gaussian" else f"eval/noise/uniform-{std:g}/"
        accuracies, draws = level.get("accuracy"), None
        if isinstance(accuracies, list) and len(accuracies) > 1 and level.get("spread") is not None:
            draws = checked.fraction(level, "spread")
        numbers[f"{start}accuracy"] = Number(checked.fraction(level, "mean"), labels, draws=draws)
        for block, snr in checked.blocks(level, "snr_db", optional=True):
            if snr is not None:
                numbers[f"{start}snr_db/{block}"] = Number(checked.finite(snr, "snr_db", -1e4, 1e4), labels)
    return Parsed(numbers)


def sparsity(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    numbers = {}
    for block, values in checked.blocks(content, "blocks"):
        if not isinstance(values, dict):
            raise ValueError(f"blocks: {block} is no group of numbers")
        for name in ("hoyer", "active_fraction", "silent_fraction"):
            if values.get(name) is not None:  # a block that is silent everywhere has no Hoyer value
                curve = _density(content, values) if name == "hoyer" and "histogram" in values else ()
                numbers[f"eval/sparsity/{block}/{name}"] = Number(checked.fraction(values, name), labels, curve=curve)
    return Parsed(numbers)


def _density(content: dict[str, Any], values: dict[str, Any]) -> Curve:
    """The density of a histogram from each edge on, and 0 from the last; () of an empty one."""
    edges = [checked.finite(edge, "edges", 0, 1) for edge in checked.part(content, "edges", list)]
    counts = [checked.finite(count, "histogram", 0, 1e15) for count in checked.part(values, "histogram", list)]
    widths = [right - left for left, right in pairwise(edges)]
    if len(widths) != len(counts) or any(width <= 0 for width in widths):
        raise ValueError("histogram: not one count between each two of rising edges")
    total = sum(counts)
    densities = [count / total / width for count, width in zip(counts, widths, strict=True)] if total else []
    return tuple(zip(edges, [*densities, 0.0], strict=True)) if total else ()


def corruptions(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    sources = {} if content.get("sources") is None else checked.part(content, "sources", dict)
    numbers = {}
    for name, severities in checked.part(content, "accuracy", dict).items():
        if name not in CORRUPTIONS or not isinstance(severities, dict):
            raise ValueError("accuracy: not a known corruption with its severities")
        source = set(str(sources.get(name, content.get("source"))).split("+"))
        if not source <= {GENERATED, "official"}:
            raise ValueError("source: neither generated nor official")
        said = (*labels, GENERATED) if GENERATED in source else labels
        for severity in severities:
            if severity not in ("1", "2", "3", "4", "5"):
                raise ValueError("accuracy: a severity is not from 1 to 5")
            accuracy = checked.fraction(severities, severity)
            numbers[f"eval/corruptions/{name}/{severity}"] = Number(accuracy, said, (float(GENERATED not in source),))
    return Parsed(numbers)


def _weak(document: dict[str, Any], suite: str) -> tuple[str, ...]:
    """The settings that are weaker than the defaults, in words."""
    settings = _settings(document)
    found = ((name, settings.get(name), least) for name, least in ENOUGH[suite].items())
    return tuple(f"{value} {name}" for name, value, least in found if type(value) is int and value < least)


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    settings = document.get("settings")
    return settings if isinstance(settings, dict) else {}


def attacks(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    """The paper's protocol is APGD-CE, then targeted APGD, 100 iterations, once; every other says what it is."""
    numbers, images = {}, checked.count(document, "images")
    broken: dict[str, Broken] = {}
    for attack in checked.items(content, "attacks"):
        norm, eps = attack.get("norm"), checked.number(attack, "eps", 0, 1e4)
        if norm not in ("linf", "l2"):
            raise ValueError("attacks: norm is neither linf nor l2")
        methods = list(
            dict.fromkeys(checked.word(one, "name").partition(" ")[0] for one in checked.items(attack, "methods"))
        )
        named, more = " + ".join(methods) or "no attack", _unusual(methods, document)
        weak = not strong(methods) or (not _undivided(methods) and bool(_weak(document, "attacks")))
        said = [] if set(methods) == set(PAPER_METHODS) else [named if strong(methods) else f"{named} only"]
        said += more
        rank = (float(not weak), float(not said))
        numbers[attack_name(norm, eps)] = Number(checked.fraction(attack, "robust_accuracy"), (*labels, *said), rank)
        stands = attack.get("stands")
        if isinstance(stands, str) and len(stands) == images:
            if not re.fullmatch("[01]*", stands):
                raise ValueError("stands: not a verdict, 0 or 1, of each image")
            what = f"{named} ({', '.join(more)})" if more else named
            before = broken.get(norm) or Broken(norm, what, (math.inf,) * images)
            pairs = zip(stands, before.smallest, strict=True)
            smallest = tuple(min(least, eps) if one == "0" else least for one, least in pairs)
            broken[norm] = replace(before, smallest=smallest, sizes=(*before.sizes, eps))
    return Parsed(numbers, broken=broken.values())


def _undivided(methods: list[str]) -> bool:
    """Whether every attack has iterations of its own."""
    return bool(methods) and set(methods) <= set(UNDIVIDED)


def _unusual(methods: list[str], document: dict[str, Any]) -> list[str]:
    """Iterations and restarts of attacks that are not the paper's, in words; AutoAttack has iterations of its own."""
    said = []
    for name, usual in PAPER_ATTACKS.items():
        value = _settings(document).get(name)
        if type(value) is int and value != usual and not (name == "steps" and _undivided(methods)):
            said.append(f"{value} {name}")
            said += ["in one round"] if name == "steps" and value > 100 and _older(document, 3) else []
    return said


def _older(document: dict[str, Any], method: int) -> bool:
    """Whether a result is of a method before this one."""
    number = document.get("method")
    return type(number) is not int or number < method


def minimum_norm(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    """Misclassified images as a fraction. An older FMN found larger norms, whatever its settings."""
    settings, images = _settings(document), checked.count(document, "images")
    older = _older(document, 2)
    weak = _weak(document, "minimum_norm")
    if settings.get("trials", settings.get("targets")) == 0:
        weak += ("no local search",)
    said = (*(["older FMN"] if older else []), *weak)
    labels += said
    rank = (2.0 * (not older) + (not weak),)
    numbers, broken = {}, []
    for norm, values in checked.part(content, "norms", dict).items():
        if norm not in ("l0", "l1", "l2", "linf") or not isinstance(values, dict):
            raise ValueError("norms: not one of l0, l1, l2, linf with its numbers")
        for name in ("median", "mean"):
            if values.get(name) is not None:  # a median of failures is infinite
                value = checked.number(values, name, 0, 1e6)
                error = _error(values, value) if name == "mean" else None
                numbers[f"eval/minimum_norm/{norm}/{name}"] = Number(value, labels, rank, error=error)
        if images and values.get("misclassified") is not None:
            fraction = checked.number(values, "misclassified", 0, images) / images
            numbers[f"eval/minimum_norm/{norm}/misclassified"] = Number(fraction, labels, rank)
        curve = []
        for pair in checked.part(values, "curve", list):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError("curve: not pairs of eps and accuracy")
            curve.append((checked.finite(pair[0], "curve", 0, 1e6), checked.finite(pair[1], "curve", 0, 1)))
        curve.sort(key=lambda pair: pair[0])
        fell = checked.fraction(values, "success_rate")
        numbers[f"eval/minimum_norm/{norm}/success_rate"] = Number(fell, labels, rank, curve=tuple(curve))
        every = values.get("values")
        if norm in PAPER_EPS and isinstance(every, list) and len(every) == images:
            found = (math.inf if value is None else checked.finite(value, "values", 0, 1e6) for value in every)
            broken.append(Broken(norm, f"minimum norm ({', '.join(said)})" if said else "minimum norm", tuple(found)))
    return Parsed(numbers, broken=broken)


def _error(values: dict[str, Any], mean: float) -> float | None:
    """The standard error over images of a mean norm; None where the norms of each image do not say."""
    every = values.get("values")
    if not isinstance(every, list):
        return None
    fell = [float(one) for one in every if isinstance(one, int | float) and 0 < one < math.inf]
    if len(fell) < 2 or not math.isclose(fmean(fell), mean, rel_tol=1e-4):
        return None
    return stdev(fell) / math.sqrt(len(fell))


def masking(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    checks = []
    for check in checked.items(content, "checks"):
        verdict = check.get("verdict")
        if verdict not in ("clear", "suspect", "not run"):
            raise ValueError("checks: a verdict is none of clear, suspect, not run")
        checks.append(Check(checked.word(check, "name"), verdict, plain(check.get("words", ""))))
    norm, verdict = content.get("norm"), content.get("verdict")
    if norm not in ("linf", "l2"):
        raise ValueError("norm: neither linf nor l2")
    if verdict not in ("clear", "suspect", "incomplete"):
        raise ValueError("verdict: none of clear, suspect, incomplete")
    weak = _weak(document, "masking")
    found = Masking(norm, checked.number(content, "eps", 0, 1e4), verdict, tuple(checks), (*labels, *weak))
    # Older results are called clear where a check was not run, or no image was classified correctly.
    if verdict == "clear" and (found.partial or document["clean_accuracy"] == 0):
        found = replace(found, verdict="incomplete")
    rank = (float(not weak), float(of_paper(norm, found.eps)), float(not found.partial))
    return Parsed({}, replace(found, rank=rank))
