"""One result file: its numbers, its checks for masked gradients and what broke each image, or what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from engine.experiment.datasets import CORRUPTIONS
from engine.report.numbers import (
    CLEAN,
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
from engine.runs.state import State

_CHECKPOINT = re.compile(r"last|previous|best|epoch-\d{1,9}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}( [1-9]\d{0,2})?")  # "apgd-ce 2" is its second restart


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


def parsed(document: dict[str, Any], suite: str, state: State, written: float) -> Parsed:
    """What a result file of this suite holds, ``written`` at this time; raises ValueError with what is wrong."""
    if not document:
        raise ValueError("it is not a JSON object")
    if document.get("suite") != suite or type(document.get("schema_version")) is not int:
        raise ValueError(f"it does not say that it is a result of the suite {suite}")
    checkpoint, content = _part(document, "checkpoint", dict), _part(document, "result", dict)
    chosen, epoch = checkpoint.get("name"), _count(checkpoint, "epoch")
    if not isinstance(chosen, str) or not _CHECKPOINT.fullmatch(chosen):
        raise ValueError("checkpoint: its name is none")
    images, there = int(_number(document, "images", 1, 1e9)), _count(document, "test_images")
    labels: tuple[str, ...] = ()
    if images < there:
        labels += (f"first {images:,} images",)
    if chosen != "last":
        labels += (f"checkpoint {chosen}",)
    if epoch < state.epochs:
        labels += (f"epoch {epoch} of {state.epochs}",)
    clean = Number(_fraction(document, "clean_accuracy"), labels)
    numbers, masking, broken = _PARSERS[suite](content, document, labels)
    # The last checkpoint, and rather one that has trained to the end.
    position = float(chosen == "last" and epoch >= state.epoch) + float(epoch >= state.epochs)
    place = (position, float(images), float(epoch), written)
    placed = {
        name: replace(one, rank=(one.rank[0], *place[:-1], *one.rank[1:], place[-1]))
        for name, one in {CLEAN: clean, **numbers}.items()
    }
    same = (document.get(name) for name in ("run", "dataset", "weights", "test_set"))
    of = (chosen, epoch, images, there, *(str(one) for one in (checkpoint.get("step"), *same)))
    fell = [replace(one, of=of, labels=labels, rank=place[:-1]) for one in broken]
    return Parsed(placed, replace(masking, rank=(*masking.rank, *place)) if masking else None, fell)


def worst_cases(found: Collection[Broken]) -> dict[str, Number]:
    """Accuracy after everything that two or more results tried, at each size that one of them attacked with; only of
    checkpoints that no other comes before."""
    first = max((one.rank[0] for one in found), default=0.0)
    groups: dict[tuple[Any, ...], list[Broken]] = {}
    for one in found:
        if one.rank[0] == first:
            groups.setdefault((one.norm, *one.of), []).append(one)
    numbers: dict[str, Number] = {}
    for (norm, *_), group in sorted(groups.items(), key=lambda item: item[1][0].rank):
        if len(group) > 1:
            smallest = [min(each) for each in zip(*(one.smallest for one in group), strict=True)]
            labels = (*group[0].labels, " + ".join(sorted({one.what for one in group})))
            for eps in sorted({eps for one in group for eps in one.sizes}):
                left = sum(least > eps for least in smallest) / len(smallest)
                numbers[attack_name(norm, eps, "worst_case")] = Number(left, labels, group[0].rank)
    return numbers


def _noise(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    distribution = content.get("distribution")
    if distribution not in ("gaussian", "uniform"):
        raise ValueError("distribution: neither gaussian nor uniform")
    numbers = {}
    for level in _items(content, "levels"):
        std = _number(level, "std", 0, 100)
        start = noise_name(std, "") if distribution == "gaussian" else f"eval/noise/uniform-{std:g}/"
        accuracies, draws = level.get("accuracy"), None
        if isinstance(accuracies, list) and len(accuracies) > 1 and level.get("spread") is not None:
            draws = _fraction(level, "spread")
        numbers[f"{start}accuracy"] = Number(_fraction(level, "mean"), labels, draws=draws)
        for block, snr in _blocks(level, "snr_db", optional=True):
            if snr is not None:
                numbers[f"{start}snr_db/{block}"] = Number(finite(snr, "snr_db", -1e4, 1e4), labels)
    return Parsed(numbers)


def _sparsity(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    numbers = {}
    for block, values in _blocks(content, "blocks"):
        if not isinstance(values, dict):
            raise ValueError(f"blocks: {block} is no group of numbers")
        for name in ("hoyer", "active_fraction", "silent_fraction"):
            if values.get(name) is not None:  # a block that is silent everywhere has no Hoyer value
                curve = _density(content, values) if name == "hoyer" and "histogram" in values else ()
                numbers[f"eval/sparsity/{block}/{name}"] = Number(_fraction(values, name), labels, curve=curve)
    return Parsed(numbers)


def _density(content: dict[str, Any], values: dict[str, Any]) -> Curve:
    """The density of a histogram from each edge on, and 0 from the last; () of an empty one."""
    edges = [finite(edge, "edges", 0, 1) for edge in _part(content, "edges", list)]
    counts = [finite(count, "histogram", 0, 1e15) for count in _part(values, "histogram", list)]
    widths = [right - left for left, right in pairwise(edges)]
    if len(widths) != len(counts) or any(width <= 0 for width in widths):
        raise ValueError("histogram: not one count between each two of rising edges")
    total = sum(counts)
    densities = [count / total / width for count, width in zip(counts, widths, strict=True)] if total else []
    return tuple(zip(edges, [*densities, 0.0], strict=True)) if total else ()


def _corruptions(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    sources = {} if content.get("sources") is None else _part(content, "sources", dict)
    numbers = {}
    for name, severities in _part(content, "accuracy", dict).items():
        if name not in CORRUPTIONS or not isinstance(severities, dict):
            raise ValueError("accuracy: not a known corruption with its severities")
        source = set(str(sources.get(name, content.get("source"))).split("+"))
        if not source <= {GENERATED, "official"}:
            raise ValueError("source: neither generated nor official")
        said = (*labels, GENERATED) if GENERATED in source else labels
        for severity in severities:
            if severity not in ("1", "2", "3", "4", "5"):
                raise ValueError("accuracy: a severity is not from 1 to 5")
            accuracy = _fraction(severities, severity)
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


def _attacks(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    """The paper's protocol is APGD-CE, then targeted APGD, 100 iterations, once; every other says what it is."""
    numbers, images = {}, _count(document, "images")
    broken: dict[str, Broken] = {}
    for attack in _items(content, "attacks"):
        norm, eps = attack.get("norm"), _number(attack, "eps", 0, 1e4)
        if norm not in ("linf", "l2"):
            raise ValueError("attacks: norm is neither linf nor l2")
        methods = list(dict.fromkeys(_word(one, "name").partition(" ")[0] for one in _items(attack, "methods")))
        named, more = " + ".join(methods) or "no attack", _unusual(methods, document)
        weak = not strong(methods) or (methods != ["autoattack"] and bool(_weak(document, "attacks")))
        said = [] if set(methods) == set(PAPER_METHODS) else [named if strong(methods) else f"{named} only"]
        said += more
        rank = (float(not weak), float(not said))
        numbers[attack_name(norm, eps)] = Number(_fraction(attack, "robust_accuracy"), (*labels, *said), rank)
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


def _unusual(methods: list[str], document: dict[str, Any]) -> list[str]:
    """Iterations and restarts of attacks that are not the paper's, in words; AutoAttack has iterations of its own."""
    said = []
    for name, usual in PAPER_ATTACKS.items():
        value = _settings(document).get(name)
        if type(value) is int and value != usual and not (name == "steps" and methods == ["autoattack"]):
            said.append(f"{value} {name}")
            said += ["in one round"] if name == "steps" and value > 100 and _older(document, 3) else []
    return said


def _older(document: dict[str, Any], method: int) -> bool:
    """Whether a result is of a method before this one."""
    number = document.get("method")
    return type(number) is not int or number < method


def _minimum_norm(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    """Misclassified images as a fraction. An older FMN found larger norms, whatever its settings."""
    settings, images = _settings(document), _count(document, "images")
    older = _older(document, 2)
    weak = _weak(document, "minimum_norm")
    if settings.get("trials", settings.get("targets")) == 0:
        weak += ("no local search",)
    said = (*(["older FMN"] if older else []), *weak)
    labels += said
    rank = (2.0 * (not older) + (not weak),)
    numbers, broken = {}, []
    for norm, values in _part(content, "norms", dict).items():
        if norm not in ("l0", "l1", "l2", "linf") or not isinstance(values, dict):
            raise ValueError("norms: not one of l0, l1, l2, linf with its numbers")
        for name in ("median", "mean"):
            if values.get(name) is not None:  # a median of failures is infinite
                numbers[f"eval/minimum_norm/{norm}/{name}"] = Number(_number(values, name, 0, 1e6), labels, rank)
        if images and values.get("misclassified") is not None:
            fraction = _number(values, "misclassified", 0, images) / images
            numbers[f"eval/minimum_norm/{norm}/misclassified"] = Number(fraction, labels, rank)
        curve = []
        for pair in _part(values, "curve", list):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError("curve: not pairs of eps and accuracy")
            curve.append((finite(pair[0], "curve", 0, 1e6), finite(pair[1], "curve", 0, 1)))
        curve.sort(key=lambda pair: pair[0])
        fell = _fraction(values, "success_rate")
        numbers[f"eval/minimum_norm/{norm}/success_rate"] = Number(fell, labels, rank, curve=tuple(curve))
        every = values.get("values")
        if norm in PAPER_EPS and isinstance(every, list) and len(every) == images:
            found = (math.inf if value is None else finite(value, "values", 0, 1e6) for value in every)
            broken.append(Broken(norm, f"fmn ({', '.join(said)})" if said else "fmn", tuple(found)))
    return Parsed(numbers, broken=broken)


def _masking(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> Parsed:
    checks = []
    for check in _items(content, "checks"):
        verdict = check.get("verdict")
        if verdict not in ("clear", "suspect", "not run"):
            raise ValueError("checks: a verdict is none of clear, suspect, not run")
        checks.append(Check(_word(check, "name"), verdict, plain(check.get("words", ""))))
    norm, verdict = content.get("norm"), content.get("verdict")
    if norm not in ("linf", "l2"):
        raise ValueError("norm: neither linf nor l2")
    if verdict not in ("clear", "suspect", "incomplete"):
        raise ValueError("verdict: none of clear, suspect, incomplete")
    weak = _weak(document, "masking")
    found = Masking(norm, _number(content, "eps", 0, 1e4), verdict, tuple(checks), (*labels, *weak))
    # Older results are called clear where a check was not run, or no image was classified correctly.
    if verdict == "clear" and (found.partial or document["clean_accuracy"] == 0):
        found = replace(found, verdict="incomplete")
    rank = (float(not weak), float(of_paper(norm, found.eps)), float(not found.partial))
    return Parsed({}, replace(found, rank=rank))


_PARSERS = {
    "noise": _noise,
    "sparsity": _sparsity,
    "corruptions": _corruptions,
    "attacks": _attacks,
    "minimum_norm": _minimum_norm,
    "masking": _masking,
}


def is_block(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d?", text) is not None


def _part(document: dict[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name}: missing or of the wrong type")
    return value


def _items(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = _part(document, name, list)
    if not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{name}: an entry is no group of values")
    return list(items)


def _blocks(document: dict[str, Any], name: str, optional: bool = False) -> list[tuple[int, Any]]:
    """The entries of a mapping whose keys are block numbers."""
    entries = {} if optional and document.get(name) is None else _part(document, name, dict)
    if not all(is_block(key) for key in entries):
        raise ValueError(f"{name}: a key is no block number")
    return [(int(key), value) for key, value in entries.items()]


def _word(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{name}: not a name of lower-case letters, digits and '-'")
    return value


def _count(document: dict[str, Any], name: str) -> int:
    return int(_number(document, name, 0, 1e9))


def _fraction(document: dict[str, Any], name: str) -> float:
    return _number(document, name, 0, 1)


def _number(document: dict[str, Any], name: str, low: float, high: float) -> float:
    return finite(document.get(name), name, low, high)


def finite(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name}: not a number from {low:g} to {high:g}")
    return float(value)
