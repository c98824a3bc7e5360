"""What was measured of a run: its result files and, where they are silent, the last test of its training.

Numbers go by metric names: eval/clean_accuracy, eval/noise/0.1/accuracy, eval/noise/0.1/snr_db/3,
eval/sparsity/3/hoyer, eval/corruptions/fog/5, eval/attacks/linf-0.00784/robust_accuracy, eval/minimum_norm/linf/mean.
Each carries, in words, what a reader has to know of it: "first 1,000 images", "generated". Accuracies are fractions.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.experiment.datasets import CORRUPTIONS, DATASETS, SUITES
from engine.experiment.mistakes import RequestError
from engine.runs import store
from engine.runs.layout import RunDirectory, read_json
from engine.runs.state import State, read_state

LARGEST = 64 << 20  # bytes of a result file: verdicts and norms of 10,000 images take about one million
MOST_FILES = 500  # of one run, the newest
_FILE = re.compile(rf"({'|'.join(SUITES)})-[0-9a-f]{{8}}\.json")
_CHECKPOINT = re.compile(r"last|previous|best|epoch-\d{1,9}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}( [1-9]\d{0,2})?")  # "apgd-ce 2" is its second restart
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")

CLEAN = "eval/clean_accuracy"
GENERATED = "generated"  # corruptions made from the test images instead of the official files
FROM_TRAINING = "last test of the training"

Curve = tuple[tuple[float, float], ...]  # (eps, accuracy), eps rising


@dataclass(frozen=True)
class Number:
    """A measured value and what has to be said of it."""

    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One check for masked gradients; ``verdict`` is clear, suspect or not run."""

    name: str
    verdict: str
    words: str


@dataclass(frozen=True)
class Masking:
    """The checks of one evaluation, and the verdict over all of them."""

    verdict: str
    checks: tuple[Check, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One finished evaluation: numbers by metric name, curves by norm, checks; a higher ``rank`` is preferred."""

    suite: str
    numbers: dict[str, Number]
    curves: dict[str, Curve] = field(default_factory=dict)
    masking: Masking | None = None
    rank: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Everything known of one run; ``experiment`` is plain data, empty where it cannot be read."""

    run: RunDirectory
    state: State
    experiment: dict[str, Any]
    numbers: dict[str, Number]
    curves: dict[str, Curve]
    masking: Masking | None
    remarks: tuple[str, ...] = ()

    @property
    def seed(self) -> int | None:
        seed = self.experiment.get("seed")
        return seed if isinstance(seed, int) else None


def noise_name(std: float, what: str = "accuracy") -> str:
    """The metric under Gaussian noise of this standard deviation."""
    return f"eval/noise/{std:g}/{what}"


def attack_name(norm: str, eps: float) -> str:
    """The metric of robust accuracy at eps, rounded to three digits so that 0.00784 is 2/255."""
    return f"eval/attacks/{norm}-{eps:.3g}/robust_accuracy"


def measured(run: RunDirectory) -> Measured:
    """Read a run: of each number the preferred evaluation's, that is in this order the paper's protocol before a weaker
    one, official corruptions before generated, the last checkpoint, more images, the later one.
    """
    state, remarks = read_state(run), []
    experiment: dict[str, Any] = {}
    try:
        experiment = store.experiment_of(run, state).dump()
    except RequestError as error:
        remarks.append(f"{run.id}: its config.yaml cannot be read: {plain(error.mistakes[0])}")
    results = []
    for name in _files(run, remarks):
        try:
            results.append(_result(run, name, state))
        except ValueError as error:
            remarks.append(f"{run.id}: results/{name} is no result and was left out: {plain(error)}")
    numbers = dict(_of_training(state, experiment))
    curves: dict[str, Curve] = {}
    masking = None
    for result in sorted(results, key=lambda one: one.rank):
        curves.update(result.curves)
        masking = result.masking or masking
        numbers.update(result.numbers)
    # The clean accuracy over the most images, whichever suite measured it.
    clean = [(result.rank[1:], result.numbers[CLEAN]) for result in results]
    if clean:
        numbers[CLEAN] = max(clean, key=lambda pair: pair[0])[1]
    return Measured(run, state, experiment, numbers, curves, masking, tuple(remarks))


def plain(text: object, limit: int = 300) -> str:
    """Text from a file on one line without control characters, cut to ``limit``."""
    clean = _UNSAFE.sub(" ", str(text)).strip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _files(run: RunDirectory, remarks: list[str]) -> list[str]:
    """Names of the run's result files, the newest last; links and what is not called like one are passed over."""
    found = []
    try:
        if not stat.S_ISDIR(os.lstat(run.results).st_mode):
            raise ValueError("results is no folder of its own and was not read")
        with os.scandir(run.results) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name):
                    facts = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(facts.st_mode):
                        remarks.append(f"{run.id}: results/{entry.name} is no file and was left out")
                    elif facts.st_size > LARGEST:
                        remarks.append(f"{run.id}: results/{entry.name} is over {LARGEST >> 20} MiB and was left out")
                    else:
                        found.append((facts.st_mtime_ns, entry.name))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        remarks.append(f"{run.id}: {getattr(error, 'strerror', None) or error}")
        return []
    if len(found) > MOST_FILES:
        remarks.append(f"{run.id}: only the newest {MOST_FILES} of {len(found):,} result files were read")
    return [name for _, name in sorted(found)[-MOST_FILES:]]


def _result(run: RunDirectory, name: str, state: State) -> Result:
    """One result file; raises ValueError with what is wrong with it."""
    document = read_json(run.results / name, LARGEST)
    if not document:
        raise ValueError("it is not a JSON object")
    suite = name.rpartition("-")[0]
    if document.get("suite") != suite or type(document.get("schema_version")) is not int:
        raise ValueError(f"it does not say that it is a result of the suite {suite}")
    checkpoint, content = _part(document, "checkpoint", dict), _part(document, "result", dict)
    chosen, epoch = checkpoint.get("name"), _count(checkpoint, "epoch")
    if not isinstance(chosen, str) or not _CHECKPOINT.fullmatch(chosen):
        raise ValueError("checkpoint: its name is none")
    images, there = _count(document, "images"), _count(document, "test_images")
    settings = document.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    labels = []
    if images < there:
        labels.append(f"first {images:,} images")
    if chosen != "last":
        labels.append(f"checkpoint {chosen}")
    if epoch < state.epochs:
        labels.append(f"epoch {epoch} of {state.epochs}")
    parsed, curves, masking, merit = _PARSERS[suite](content, settings, tuple(labels))
    clean = Number(_fraction(document, "clean_accuracy"), tuple(labels))
    current = chosen == "last" and epoch >= state.epoch
    written = (run.results / name).stat().st_mtime
    rank = (merit, float(current), float(images), float(epoch), written)
    return Result(suite, {CLEAN: clean, **parsed}, curves, masking, rank)


_Parsed = tuple[dict[str, Number], dict[str, Curve], "Masking | None", float]


def _noise(content: dict[str, Any], _settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    distribution = content.get("distribution")
    if distribution not in ("gaussian", "uniform"):
        raise ValueError("distribution: neither gaussian nor uniform")
    numbers = {}
    for level in _items(content, "levels"):
        std = _number(level, "std", 0, 100)
        start = noise_name(std, "") if distribution == "gaussian" else f"eval/noise/uniform-{std:g}/"
        numbers[f"{start}accuracy"] = Number(_fraction(level, "mean"), labels)
        for block, snr in _blocks(level, "snr_db", optional=True):
            if snr is not None:
                numbers[f"{start}snr_db/{block}"] = Number(_finite(snr, "snr_db", -1e4, 1e4), labels)
    return numbers, {}, None, 0.0


def _sparsity(content: dict[str, Any], _settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    numbers = {}
    for block, values in _blocks(content, "blocks"):
        if not isinstance(values, dict):
            raise ValueError(f"blocks: {block} is no group of numbers")
        for name in ("hoyer", "active_fraction", "silent_fraction"):
            if values.get(name) is not None:  # a block that is silent everywhere has no Hoyer value
                numbers[f"eval/sparsity/{block}/{name}"] = Number(_fraction(values, name), labels)
    return numbers, {}, None, 0.0


def _corruptions(content: dict[str, Any], _settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    sources = set(str(content.get("source")).split("+"))
    if not sources <= {GENERATED, "official"}:
        raise ValueError("source: neither generated nor official")
    if GENERATED in sources:
        labels = (*labels, GENERATED)
    numbers = {}
    for name, severities in _part(content, "accuracy", dict).items():
        if name not in CORRUPTIONS or not isinstance(severities, dict):
            raise ValueError("accuracy: not a known corruption with its severities")
        for severity in severities:
            if severity not in ("1", "2", "3", "4", "5"):
                raise ValueError("accuracy: a severity is not from 1 to 5")
            numbers[f"eval/corruptions/{name}/{severity}"] = Number(_fraction(severities, severity), labels)
    return numbers, {}, None, float(GENERATED not in sources)


def _attacks(content: dict[str, Any], settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    """The paper's protocol is APGD-CE, then targeted APGD, 100 iterations; what is weaker says so."""
    numbers, merit = {}, 1.0
    for attack in _items(content, "attacks"):
        norm = attack.get("norm")
        if norm not in ("linf", "l2"):
            raise ValueError("attacks: norm is neither linf nor l2")
        methods = list(dict.fromkeys(_word(one, "name").partition(" ")[0] for one in _items(attack, "methods")))
        said = list(labels)
        if "autoattack" not in methods and not {"apgd-ce", "apgd-t"} <= set(methods):
            said.append(f"{' + '.join(methods) or 'no attack'} only")
            merit = 0.0
        steps = settings.get("steps")
        if type(steps) is int and steps < 100 and methods != ["autoattack"]:
            said.append(f"{steps} steps")
            merit = 0.0
        name = attack_name(norm, _number(attack, "eps", 0, 1e4))
        numbers[name] = Number(_fraction(attack, "robust_accuracy"), tuple(said))
    return numbers, {}, None, merit


def _minimum_norm(content: dict[str, Any], settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    steps = settings.get("steps")
    short = type(steps) is int and steps < 300
    if short:
        labels = (*labels, f"{steps} steps")
    numbers, curves = {}, {}
    for norm, values in _part(content, "norms", dict).items():
        if norm not in ("l0", "l1", "l2", "linf") or not isinstance(values, dict):
            raise ValueError("norms: not one of l0, l1, l2, linf with its numbers")
        for name in ("median", "mean"):
            if values.get(name) is not None:  # a median of failures is infinite
                numbers[f"eval/minimum_norm/{norm}/{name}"] = Number(_number(values, name, 0, 1e6), labels)
        numbers[f"eval/minimum_norm/{norm}/success_rate"] = Number(_fraction(values, "success_rate"), labels)
        curve = []
        for pair in _part(values, "curve", list):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError("curve: not pairs of eps and accuracy")
            curve.append((_finite(pair[0], "curve", 0, 1e6), _finite(pair[1], "curve", 0, 1)))
        curves[norm] = tuple(sorted(curve, key=lambda pair: pair[0]))
    return numbers, curves, None, float(not short)


def _masking(content: dict[str, Any], _settings: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    checks = []
    for check in _items(content, "checks"):
        verdict = check.get("verdict")
        if verdict not in ("clear", "suspect", "not run"):
            raise ValueError("checks: a verdict is none of clear, suspect, not run")
        checks.append(Check(_word(check, "name"), verdict, plain(check.get("words", ""))))
    verdict = content.get("verdict")
    if verdict not in ("clear", "suspect"):
        raise ValueError("verdict: neither clear nor suspect")
    return {}, {}, Masking(verdict, tuple(checks), labels), 0.0


_PARSERS = {
    "noise": _noise,
    "sparsity": _sparsity,
    "corruptions": _corruptions,
    "attacks": _attacks,
    "minimum_norm": _minimum_norm,
    "masking": _masking,
}


def _of_training(state: State, experiment: dict[str, Any]) -> Iterator[tuple[str, Number]]:
    """What training tested last, under the names of evaluations; its noise is observe.noise_std, clamped."""
    if not experiment:
        return
    labels: tuple[str, ...] = (FROM_TRAINING,)
    if state.status != "finished" and state.epochs:
        labels = (*labels, f"epoch {state.epoch} of {state.epochs}")
    std, probed = experiment["observe"]["noise_std"], experiment["observe"]["images"]
    data = experiment["data"]
    tested = min(DATASETS[data["dataset"]].test_images, data["test_limit"] or 10**9)
    of_blocks = (*labels, f"first {probed:,} images") if probed < tested else labels
    for name, value in state.metrics.items():
        match name.split("/"):
            case ["test", "accuracy"]:
                ours, low, high, said = CLEAN, 0.0, 1.0, labels
            case ["test", "noisy_accuracy"]:
                ours, low, high, said = noise_name(std), 0.0, 1.0, labels
            case ["block", n, "sparsity"] if _is_block(n):
                ours, low, high, said = f"eval/sparsity/{n}/hoyer", 0.0, 1.0, of_blocks
            case ["block", n, "active_fraction"] if _is_block(n):
                ours, low, high, said = f"eval/sparsity/{n}/active_fraction", 0.0, 1.0, of_blocks
            case ["block", n, "snr_db"] if _is_block(n):
                ours, low, high, said = noise_name(std, f"snr_db/{n}"), -1e4, 1e4, of_blocks
            case _:
                continue
        with contextlib.suppress(ValueError):
            yield ours, Number(_finite(value, name, low, high), said)


def _is_block(text: str) -> bool:
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
    if not all(_is_block(key) for key in entries):
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
    return _finite(document.get(name), name, low, high)


def _finite(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name}: not a number from {low:g} to {high:g}")
    return float(value)
