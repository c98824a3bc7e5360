"""A sweep as it is written: cases, axes and seeds over a base, resolved into trials, each the experiment of one run."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.experiment import Experiment, Mistake, RequestError, presets
from engine.experiment.document import Document, Key, assignment, nested, read
from engine.experiment.fields import fields
from engine.experiment.fingerprint import fingerprint
from engine.experiment.migrations import migrated
from engine.experiment.names import NAME_FORMAT, is_name
from engine.experiment.naming import short
from engine.sweep.desk import DEFAULT

MOST_TRIALS = 10_000
MOST_SEEDS = 1_000
_PARTS = ("name", "description", "base", "set", "cases", "axes", "combine", "seeds", "queue")
_NO_SETTINGS = ("name", "description", "tags", "seed", "extends")  # a sweep sets them itself


@dataclass(frozen=True)
class Slots:
    """How the runs of a sweep share this host. ``limit``: of them at once, None for as many as there are devices;
    ``per_gpu``: engines on one GPU."""

    limit: int | None = None
    per_gpu: int = 1
    priority: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Point:
    """A case at a point of the axes: what ``differs`` there, by dotted name, and the experiment, whatever its seed.

    ``group``: the fingerprint of the experiment without its seed.
    """

    case: str
    differs: Mapping[str, Any]
    experiment: Experiment
    group: str

    @property
    def label(self) -> str:
        """What tells it from the others of the sweep."""
        axes = [f"{short(name)}={_text(value)}" for name, value in self.differs.items()]
        return " ".join([*([self.case] if self.case else []), *axes])


@dataclass(frozen=True)
class Plan:
    """A sweep: every one of ``points`` (no two equal) with every seed. ``path``: where it was read."""

    name: str
    description: str
    base: str
    points: Sequence[Point]
    seeds: Sequence[int]
    slots: Slots = field(default_factory=Slots)
    path: Path | None = None


@dataclass(frozen=True)
class Shipped:
    """A sweep that has a name."""

    name: str
    path: Path


def shipped() -> list[Shipped]:
    """The sweeps that come with this program, and a person's own."""
    folders = (presets.own_folder() / "sweeps", presets.shipped_folder() / "sweeps")
    found: dict[str, Shipped] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
            found.setdefault(path.stem, Shipped(path.stem, path))
    return sorted(found.values(), key=lambda one: one.name)


def find(reference: str) -> Path:
    """The file of a sweep, by path or by name; raises RequestError."""
    if "/" in reference or reference.endswith((".yaml", ".yml")):
        return Path(reference).expanduser()
    known = {one.name: one.path for one in shipped()}
    if reference not in known:
        raise RequestError(
            f"no sweep is called {reference!r}; there is {', '.join(known)}; or give a path to a .yaml file"
        )
    return known[reference]


def load(path: Path, sets: Sequence[str] = ()) -> Plan:
    """Read a sweep, with ``--set`` assignments over every trial; raises RequestError with every mistake at once."""
    return _Reader(read(path), path, sets).plan()


def vary(name: str, experiment: Experiment, axes: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> Plan:
    """The plan of an experiment with lists for some of its settings (a form's); raises RequestError."""
    mistakes: list[Mistake] = []
    points = list(_combined([_Base("", Document(experiment.dump()))], _product(axes), mistakes))
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))
    return Plan(name, experiment.description, experiment.name, _different(points), seeds)


@dataclass(frozen=True)
class _Base:
    case: str
    document: Document


class _Reader:
    """Takes a document apart; goes on after a mistake, so that all are told at once."""

    def __init__(self, document: Document, path: Path, sets: Sequence[str]) -> None:
        self.document, self.path, self.sets = document, path, sets
        self.mistakes: list[Mistake] = []

    def plan(self) -> Plan:
        values = self.document.values
        for name in values:
            if name not in _PARTS:
                self._wrong((name,), f"{name}: unknown; a sweep has {', '.join(_PARTS)}")
        name, description = self._text("name") or self.path.stem, self._text("description")
        if not is_name(name) or name == DEFAULT:
            also = f" and not {DEFAULT}, the group of what names none" if name == DEFAULT else ""
            self._wrong(("name",), f"name: must be {NAME_FORMAT}{also}, got {name!r:.60}")
        bases = list(self._bases())
        steps = self._steps()
        seeds = self._seeds(bases[0].document.values.get("seed") if bases else None)
        slots = self._slots()
        points = list(_combined(bases, steps, self.mistakes))
        try:
            check_seeds(seeds, len(points))
        except RequestError as error:
            self._wrong(("seeds",), error.mistakes[0].what)
        if self.mistakes:
            raise RequestError(*dict.fromkeys(self.mistakes))
        return Plan(name, description, self._text("base"), _different(points), seeds, slots, self.path)

    def _wrong(self, key: Key, what: str) -> None:
        self.mistakes.append(Mistake(what, self.document.origin(key) or str(self.path)))

    def _text(self, name: str) -> str:
        value = self.document.values.get(name, "")
        if isinstance(value, str):
            return value
        self._wrong((name,), f"{name}: must be text, got {value!r:.60}")
        return ""

    def _mapping(self, *key: str) -> dict[str, Any]:
        value: Any = self.document.values
        for part in key:
            value = {} if (inner := value.get(part)) is None else inner
        if isinstance(value, dict):
            return value
        self._wrong(key, f"{'.'.join(key)}: must be a mapping, got {value!r:.60}")
        return {}

    def _settings(self, *key: str) -> Document:
        """The settings in a mapping, by dotted names or nested, with their places."""
        found = Document()
        for name, value in self._mapping(*key).items():
            parts = tuple(name.split("."))
            if parts[0] in _NO_SETTINGS:
                if name != "extends" or key[0] != "cases":
                    self._wrong((*key, name), f"{'.'.join((*key, name))}: a sweep sets that itself")
                continue
            inner = nested(name, value)
            depth = len(key)
            inner.origins = {
                (*parts, *at[depth + 1 :]): place
                for at, place in self.document.origins.items()
                if at[: depth + 1] == (*key, name)
            }
            found = inner.over(found)
        try:
            return migrated(found)
        except RequestError as error:
            self.mistakes += error.mistakes
            return Document()

    def _bases(self) -> Iterator[_Base]:
        """Every case laid over what it starts from."""
        common = self._settings("set")
        for text in self.sets:
            try:
                common = migrated(assignment(text)).over(common)
            except RequestError as error:
                self.mistakes += error.mistakes
        cases = self._mapping("cases") or {"": {}}
        base = self._assembled(("base",), self._text("base")) if "base" in self.document.values else None
        if base is None and "base" not in self.document.values and any(
            not isinstance(one, dict) or "extends" not in one for one in cases.values()
        ):  # fmt: skip
            self._wrong((), "base: is missing; name a preset or a file, or let every case extend one")
        for case in cases:
            if case and not is_name(case):
                self._wrong(("cases", case), f"cases.{case}: must be {NAME_FORMAT}")
            own = self._mapping("cases", case) if case else {}
            extends = own.get("extends")
            if extends is not None and not isinstance(extends, str):
                self._wrong(("cases", case, "extends"), f"cases.{case}.extends: must be the name of a preset or a path")
            below = self._assembled(("cases", case, "extends"), extends) if isinstance(extends, str) else base
            over = self._settings("cases", case) if case else Document()
            if below is not None:
                yield _Base(case, over.over(common.over(below)))

    def _assembled(self, key: Key, reference: str) -> Document | None:
        try:
            return presets.assembled(presets.find(reference, beside=self.path.parent))
        except RequestError as error:
            self.mistakes += [
                Mistake(one.what if one.where else f"{'.'.join(map(str, key))}: {one.what}", one.where or
                        self.document.origin(key)) for one in error.mistakes
            ]  # fmt: skip
            return None

    def _steps(self) -> list[Document]:
        """The steps of the axes, combined: what each lays over a case; its values are what differs."""
        axes: dict[str, Sequence[Any]] = {}
        for name, written in self._mapping("axes").items():
            key = ("axes", name)
            if name.partition(".")[0] in _NO_SETTINGS:
                self._wrong(key, f"axes.{name}: a sweep sets that itself{'; seeds: N' if name == 'seed' else ''}")
                continue
            try:
                axes[name] = _axis(written)
            except ValueError as error:
                self._wrong(key, f"axes.{name}: {error}")
        for name in axes:
            if inner := next((other for other in axes if other.startswith(f"{name}.")), None):
                self._wrong(("axes", inner), f"axes.{inner}: is a part of {name}, which is an axis too")
        places = {name: self.document.origin(("axes", name)) for name in axes}
        combine = self.document.values.get("combine", "product")
        if combine not in ("product", "zip"):
            self._wrong(("combine",), f"combine: must be product or zip, got {combine!r:.60}")
        if combine == "zip" and len({len(values) for values in axes.values()}) > 1:
            lengths = ", ".join(f"{name} has {len(values)}" for name, values in axes.items())
            self._wrong(("combine",), f"combine: zip needs axes of one length; {lengths}")
            return [Document()]
        if combine != "zip" and math.prod(map(len, axes.values())) > MOST_TRIALS:
            self._wrong(("axes",), f"axes: come to more than {MOST_TRIALS:,} combinations")
            return [Document()]
        return list(_zipped(axes, places) if combine == "zip" and axes else _product(axes, places))

    def _seeds(self, first: Any) -> list[int]:
        value = self.document.values.get("seeds", 1)
        first = first if type(first) is int else int(fields()["seed"].default)
        if type(value) is int and 1 <= value <= MOST_SEEDS:
            return list(range(first, first + value))
        whole = isinstance(value, list) and bool(value) and all(type(one) is int and one >= 0 for one in value)
        if whole and len(set(value)) == len(value) <= MOST_SEEDS:
            return list(value)
        what = f"a number of seeds from 1 to {MOST_SEEDS:,}, or a list of different whole numbers"
        self._wrong(("seeds",), f"seeds: must be {what}, got {value!r:.60}")
        return [first]

    def _slots(self) -> Slots:
        written = self._mapping("queue")
        least = {"slots": 1, "per_gpu": 1, "priority": -1000, "retries": 0}
        good: dict[str, int] = {}
        for name, value in written.items():
            if name not in least:
                self._wrong(("queue", name), f"queue.{name}: unknown; there is {', '.join(least)}")
            elif type(value) is not int or not least[name] <= value <= 1000:
                what = f"must be a whole number from {least[name]} to 1000, got {value!r:.60}"
                self._wrong(("queue", name), f"queue.{name}: {what}")
            else:
                good[name] = value
        limit = good.pop("slots", None)
        return Slots(limit, **good)


def check_seeds(seeds: Sequence[int], points: int) -> None:
    """Raise RequestError for a seed that is none, or too many runs."""
    largest = int(fields()["seed"].maximum or 0)
    if max(seeds) > largest:
        raise RequestError(f"seeds: must be whole numbers from 0 to {largest}, got {max(seeds)}")
    if points * len(seeds) > MOST_TRIALS:
        raise RequestError(f"seeds: come to {points * len(seeds):,} runs; at most {MOST_TRIALS:,}")


def _axis(written: Any) -> list[Any]:
    """The values of an axis; raises ValueError."""
    try:
        return _values(written)
    except OverflowError:
        raise ValueError("has numbers that are beyond a float") from None


def _values(written: Any) -> list[Any]:
    if isinstance(written, list):
        if not written:
            raise ValueError("must name a value")
        return written
    forms = "a list, {from, to, step} or {from, to, count, scale: linear or log}"
    if not isinstance(written, dict) or not {"from", "to"} <= set(written):
        raise ValueError(f"must be {forms}, got {written!r:.60}")
    ends = [written["from"], written["to"]]
    rest = set(written) - {"from", "to"}
    numbers = [*ends, *(written[name] for name in rest - {"scale"})]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        raise ValueError("from, to, step and count must be numbers")
    low, high = ends
    if rest == {"step"}:
        step = written["step"]
        count = math.floor((high - low) / step + 1e-9) + 1 if step else 0
        if count < 1:
            raise ValueError(f"never comes from {low} to {high} in steps of {step}")
        if count > MOST_TRIALS:
            raise ValueError(f"has more than {MOST_TRIALS:,} values")
        return [_rounded(low + index * step, [*ends, step]) for index in range(count)]
    if rest not in ({"count"}, {"count", "scale"}) or written.get("scale", "linear") not in ("linear", "log"):
        raise ValueError(f"must be {forms}")
    count, log = written["count"], written.get("scale") == "log"
    if type(count) is not int or not 2 <= count <= MOST_TRIALS:
        raise ValueError(f"count must be a whole number from 2 to {MOST_TRIALS:,}, got {count!r}")
    if log and (low <= 0 or high <= 0):
        raise ValueError("on a log scale from and to must be above 0")
    if log:
        ratio = high / low
        values = [_rounded(low * ratio ** (index / (count - 1)), [], 6) for index in range(count)]
        if len(set(values)) < count:
            raise ValueError(f"has {count} values that six digits do not tell apart")
        return values
    return [_rounded(low + (high - low) * index / (count - 1), ends) for index in range(count)]


def _rounded(value: float, whole: Sequence[Any], digits: int = 12) -> float | int:
    """A value as a person would write it: whole among whole numbers, without the noise of a sum."""
    if whole and all(type(one) is int for one in whole) and value == int(value):
        return int(value)
    return float(f"{value:.{digits}g}")


def _step(names: Sequence[str], values: Sequence[Any], places: Mapping[str, str]) -> Document:
    found = Document()
    for name, value in zip(names, values, strict=True):
        found = nested(name, value, places.get(name, "")).over(found)
    return found


def _product(axes: Mapping[str, Sequence[Any]], places: Mapping[str, str] | None = None) -> list[Document]:
    return [_step(list(axes), values, places or {}) for values in itertools.product(*axes.values())]


def _zipped(axes: Mapping[str, Sequence[Any]], places: Mapping[str, str]) -> list[Document]:
    return [_step(list(axes), values, places) for values in zip(*axes.values(), strict=True)]


def _combined(bases: Sequence[_Base], steps: Sequence[Document], mistakes: list[Mistake]) -> Iterator[Point]:
    """Every case at every step; what is wrong is added to ``mistakes``."""
    from engine.experiment.fields import flatten

    for base in bases:
        bare = Document(base.document.values)
        for step in steps:
            try:
                # Places cost more than the values: they are looked for where something is wrong.
                experiment = presets.validated(Document(step.values).over(bare))
            except RequestError:
                try:
                    presets.validated(step.over(base.document))
                except RequestError as error:
                    mistakes += error.mistakes
                if len(mistakes) > presets.MOST_MISTAKES:
                    return
                continue
            yield Point(base.case, flatten(step.values), experiment, fingerprint(experiment, seed=False))


def _different(points: Sequence[Point]) -> list[Point]:
    """Without those that equal an earlier one."""
    return list({point.group: point for point in reversed(points)}.values())[::-1]


def run_name(sweep: str, case: str, differs: Mapping[str, Any], seed: int | None) -> str:
    """What the run of a trial is called: what differs, and its ``seed`` where that does."""
    words = [case, *(f"{short(name)}-{_text(value)}" for name, value in differs.items())]
    words = [*(filter(None, words) if any(words) else [sweep]), *([f"s{seed}"] if seed is not None else [])]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).strip("-.")[:80]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)
