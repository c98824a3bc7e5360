"""What was measured of a run: its result files and, where they are silent, the last test of its training.

Numbers go by metric names: eval/clean_accuracy, eval/noise/0.1/accuracy, eval/noise/0.1/snr_db/3,
eval/sparsity/3/hoyer, eval/corruptions/fog/5, eval/attacks/linf-0.00784/robust_accuracy, eval/minimum_norm/linf/mean.
eval/attacks/linf-0.00784/worst_case is what stands after all attacks and minimum norms measured of one checkpoint.
Each carries, in words, what a reader has to know of it: "first 1,000 images", "generated". Accuracies are fractions.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

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
ENOUGH = {  # fewer are weaker than the defaults, and said
    "attacks": {"steps": 100},
    "minimum_norm": {"steps": 300},
    "masking": {"steps": 100, "queries": 1000},
}
PAPER_EPS = {"linf": 2 / 255, "l2": 0.25}

Curve = tuple[tuple[float, float], ...]  # (x, y) of a step function, x rising


@dataclass(frozen=True)
class Number:
    """A measured value and what has to be said of it; of two numbers of one metric the higher ``rank`` is preferred.

    Numbers with the same labels were measured in the same way. ``draws``: the standard deviation over draws of the
    noise. ``curve``: of a success rate, accuracy against eps; of a Hoyer sparsity, its density over locations.
    """

    value: float
    labels: tuple[str, ...] = ()
    rank: tuple[float, ...] = (0.0,)
    draws: float | None = None
    curve: Curve = ()


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


@dataclass(frozen=True)
class Measured:
    """Everything known of one run; ``experiment`` is plain data, empty where it cannot be read; ``maskings``: by norm,
    Linf first."""

    run: RunDirectory
    state: State
    experiment: dict[str, Any]
    numbers: dict[str, Number]
    maskings: dict[str, Masking]
    remarks: tuple[str, ...] = ()

    @property
    def masking(self) -> Masking | None:
        """The checks in Linf, else in the norm that was measured."""
        return next(iter(self.maskings.values()), None)

    @property
    def seed(self) -> int | None:
        seed = self.experiment.get("seed")
        return seed if isinstance(seed, int) else None


def noise_name(std: float, what: str = "accuracy") -> str:
    """The metric under Gaussian noise of this standard deviation."""
    return f"eval/noise/{std:g}/{what}"


def attack_name(norm: str, eps: float, what: str = "robust_accuracy") -> str:
    """The metric of robust accuracy at eps, rounded to three digits so that 0.00784 is 2/255."""
    return f"eval/attacks/{norm}-{eps:.3g}/{what}"


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


def measured(run: RunDirectory) -> Measured:
    """Read a run: of each number the preferred evaluation's, that is in this order the paper's protocol before a weaker
    one, official corruptions before generated, the last checkpoint, more images, the later one; of masking checks,
    before the checkpoint, those at the paper's eps and those that all ran.
    """
    state, remarks = read_state(run), []
    experiment: dict[str, Any] = {}
    try:
        experiment = store.experiment_of(run, state).dump()
    except RequestError as error:
        remarks.append(f"{run.id}: its config.yaml cannot be read: {plain(error.mistakes[0])}")
    numbers = dict(_of_training(state, experiment))
    found: list[Masking] = []
    broken: list[_Broken] = []
    for file in _files(run, remarks):
        try:
            new, masking, fell = _result(run, file, state)
        except ValueError as error:
            remarks.append(f"{run.id}: results/{file} is no result and was left out: {plain(error)}")
            continue
        numbers |= {name: one for name, one in new.items() if name not in numbers or one.rank >= numbers[name].rank}
        found += [masking] if masking else []
        broken += fell
    numbers |= _worst_cases(broken)
    by_norm = {one.norm: one for one in sorted(found, key=lambda one: one.rank)}
    maskings = {norm: by_norm[norm] for norm in PAPER_EPS if norm in by_norm}
    return Measured(run, state, experiment, numbers, maskings, tuple(remarks))


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


def _result(run: RunDirectory, name: str, state: State) -> _Parsed:
    """The numbers of one result file and its checks for masked gradients; raises ValueError with what is wrong."""
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
    place = (position, float(images), float(epoch), (run.results / name).stat().st_mtime)
    placed = {
        name: replace(one, rank=(one.rank[0], *place[:-1], *one.rank[1:], place[-1]))
        for name, one in {CLEAN: clean, **numbers}.items()
    }
    same = (document.get(name) for name in ("run", "dataset", "weights", "test_set"))
    of = (chosen, epoch, images, there, *(str(one) for one in (checkpoint.get("step"), *same)))
    fell = [replace(one, of=of, labels=labels, rank=place[:-1]) for one in broken]
    return _Parsed(placed, replace(masking, rank=(*masking.rank, *place)) if masking else None, fell)


@dataclass(frozen=True)
class _Broken:
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


class _Parsed(NamedTuple):
    numbers: dict[str, Number]
    masking: Masking | None = None
    broken: Iterable[_Broken] = ()


def _worst_cases(found: Collection[_Broken]) -> dict[str, Number]:
    """Accuracy after everything that two or more results tried, at each size that one of them attacked with; only of
    checkpoints that no other comes before."""
    first = max((one.rank[0] for one in found), default=0.0)
    groups: dict[tuple[Any, ...], list[_Broken]] = {}
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


def _noise(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
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
                numbers[f"{start}snr_db/{block}"] = Number(_finite(snr, "snr_db", -1e4, 1e4), labels)
    return _Parsed(numbers)


def _sparsity(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    numbers = {}
    for block, values in _blocks(content, "blocks"):
        if not isinstance(values, dict):
            raise ValueError(f"blocks: {block} is no group of numbers")
        for name in ("hoyer", "active_fraction", "silent_fraction"):
            if values.get(name) is not None:  # a block that is silent everywhere has no Hoyer value
                curve = _density(content, values) if name == "hoyer" and "histogram" in values else ()
                numbers[f"eval/sparsity/{block}/{name}"] = Number(_fraction(values, name), labels, curve=curve)
    return _Parsed(numbers)


def _density(content: dict[str, Any], values: dict[str, Any]) -> Curve:
    """The density of a histogram from each edge on, and 0 from the last; () of an empty one."""
    edges = [_finite(edge, "edges", 0, 1) for edge in _part(content, "edges", list)]
    counts = [_finite(count, "histogram", 0, 1e15) for count in _part(values, "histogram", list)]
    widths = [right - left for left, right in pairwise(edges)]
    if len(widths) != len(counts) or any(width <= 0 for width in widths):
        raise ValueError("histogram: not one count between each two of rising edges")
    total = sum(counts)
    densities = [count / total / width for count, width in zip(counts, widths, strict=True)] if total else []
    return tuple(zip(edges, [*densities, 0.0], strict=True)) if total else ()


def _corruptions(content: dict[str, Any], _document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
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
    return _Parsed(numbers)


def strong(methods: Collection[str]) -> bool:
    """Whether attacks are the paper's (APGD-CE and targeted APGD) or AutoAttack, which has both."""
    return "autoattack" in methods or {"apgd-ce", "apgd-t"} <= set(methods)


def _weak(document: dict[str, Any], suite: str) -> tuple[str, ...]:
    """The settings that are weaker than the defaults, in words."""
    settings = _settings(document)
    found = ((name, settings.get(name), least) for name, least in ENOUGH[suite].items())
    return tuple(f"{value} {name}" for name, value, least in found if type(value) is int and value < least)


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    settings = document.get("settings")
    return settings if isinstance(settings, dict) else {}


def _attacks(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
    """The paper's protocol is APGD-CE, then targeted APGD, 100 iterations, once; every other says what it is."""
    numbers, images = {}, _count(document, "images")
    broken: dict[str, _Broken] = {}
    for attack in _items(content, "attacks"):
        norm, eps = attack.get("norm"), _number(attack, "eps", 0, 1e4)
        if norm not in ("linf", "l2"):
            raise ValueError("attacks: norm is neither linf nor l2")
        methods = list(dict.fromkeys(_word(one, "name").partition(" ")[0] for one in _items(attack, "methods")))
        named, more = " + ".join(methods) or "no attack", _unusual(methods, document)
        weak = not strong(methods) or (methods != ["autoattack"] and bool(_weak(document, "attacks")))
        said = [] if set(methods) == {"apgd-ce", "apgd-t"} else [named if strong(methods) else f"{named} only"]
        said += more
        rank = (float(not weak), float(not said))
        numbers[attack_name(norm, eps)] = Number(_fraction(attack, "robust_accuracy"), (*labels, *said), rank)
        stands = attack.get("stands")
        if isinstance(stands, str) and len(stands) == images:
            if not re.fullmatch("[01]*", stands):
                raise ValueError("stands: not a verdict, 0 or 1, of each image")
            what = f"{named} ({', '.join(more)})" if more else named
            before = broken.get(norm) or _Broken(norm, what, (math.inf,) * images)
            pairs = zip(stands, before.smallest, strict=True)
            smallest = tuple(min(least, eps) if one == "0" else least for one, least in pairs)
            broken[norm] = replace(before, smallest=smallest, sizes=(*before.sizes, eps))
    return _Parsed(numbers, broken=broken.values())


def _unusual(methods: list[str], document: dict[str, Any]) -> list[str]:
    """Iterations and restarts of attacks that are not the paper's, in words; AutoAttack has iterations of its own."""
    settings = _settings(document)
    steps, restarts = (value if type(value) is int else None for value in map(settings.get, ("steps", "restarts")))
    said = []
    if steps not in (None, 100) and methods != ["autoattack"]:
        said.append(f"{steps} steps")
        said += ["in one round"] if steps > 100 and _older(document, 3) else []
    return said + ([f"{restarts} restarts"] if restarts not in (None, 1) else [])


def _older(document: dict[str, Any], method: int) -> bool:
    """Whether a result is of a method before this one."""
    number = document.get("method")
    return type(number) is not int or number < method


def _minimum_norm(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
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
            curve.append((_finite(pair[0], "curve", 0, 1e6), _finite(pair[1], "curve", 0, 1)))
        curve.sort(key=lambda pair: pair[0])
        fell = _fraction(values, "success_rate")
        numbers[f"eval/minimum_norm/{norm}/success_rate"] = Number(fell, labels, rank, curve=tuple(curve))
        every = values.get("values")
        if norm in PAPER_EPS and isinstance(every, list) and len(every) == images:
            found = (math.inf if value is None else _finite(value, "values", 0, 1e6) for value in every)
            broken.append(_Broken(norm, f"fmn ({', '.join(said)})" if said else "fmn", tuple(found)))
    return _Parsed(numbers, broken=broken)


def _masking(content: dict[str, Any], document: dict[str, Any], labels: tuple[str, ...]) -> _Parsed:
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
    return _Parsed({}, replace(found, rank=rank))


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
    rank = (-1.0, float(state.status == "finished"), float(state.epoch))
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
            yield ours, Number(_finite(value, name, low, high), said, rank)


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
