"""An experiment being written: a preset or a run, and what a person has typed over it.

Nothing here knows a screen. What is typed is checked by the validation that `--set` goes through, all of it at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from engine.experiment import Experiment, Mistake, RequestError, presets
from engine.experiment.architecture import BlockPlan
from engine.experiment.document import Document, nested, value_of
from engine.experiment.fields import Field, differences, fields, flatten
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.runs.state import read_state

if TYPE_CHECKING:
    from engine.sweep.plan import Plan

BLOCKS = "model.hah_blocks"
PER_BLOCK = tuple(sorted(name for name, one in fields().items() if one.per_block))
_MOST_BLOCKS = 16


@dataclass
class Draft:
    """``base`` is the plain data of where it starts; ``texts`` what was typed, by dotted name; ``lists`` by block.

    ``experiment`` is what it comes to, None while anything is wrong; ``mistakes`` says what, by dotted name ('' for
    what belongs to none), those of the n-th block also under 'name[n]'. Where several values were typed for a setting
    that has one ("0.1, 1.0"), the experiment has the first and ``axes`` all of them.
    """

    origin: str  # the preset's name, or the run's id
    preset: str  # that it goes back to
    preset_path: str
    base: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    experiment: Experiment | None = None
    mistakes: dict[str, str] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._flat = flatten(self.base)
        self.check()

    @classmethod
    def of_preset(cls, name: str) -> Draft:
        """A draft that starts from a preset; raises RequestError."""
        found = presets.find(name)
        return cls(found.name, found.name, str(found.path), presets.load(name).dump())

    @classmethod
    def of_run(cls, run: RunDirectory) -> Draft:
        """A draft that starts from what a run is now; raises RequestError."""
        state = read_state(run)
        return cls(run.id, state.preset, str(run.config), store.experiment_of(run, state).dump())

    @classmethod
    def of_stored(cls, stored: dict[str, Any]) -> Draft:
        """A draft that was kept; raises RequestError where it is none."""
        base, texts, lists = (stored.get(name) for name in ("base", "texts", "lists"))
        if not (isinstance(base, dict) and isinstance(texts, dict) and isinstance(lists, dict)):
            raise RequestError("the draft that was kept cannot be read")
        names = fields()
        good = {name: text for name, text in texts.items() if name in names and isinstance(text, str)}
        rows = {
            name: [str(text) for text in row]
            for name, row in lists.items()
            if name in PER_BLOCK and isinstance(row, list) and len(row) == _MOST_BLOCKS
        }
        base = presets.parse(base).dump()
        facts = [str(stored.get(name, "")) for name in ("origin", "preset", "preset_path")]
        return cls(facts[0], facts[1], facts[2], base, good, rows)

    def dump(self) -> dict[str, Any]:
        """What is kept of it."""
        names = ("origin", "preset", "preset_path", "base", "texts", "lists")
        return {name: getattr(self, name) for name in names}

    # What is typed

    def text(self, name: str) -> str:
        """What stands in the form for a setting."""
        return self.texts[name] if name in self.texts else self.base_text(name)

    def base_text(self, name: str) -> str:
        """What stood there before anybody typed."""
        one = fields()[name]
        if one.kind == "section":
            return "true" if any(other.startswith(f"{name}.") for other in self._flat) else "false"
        return text_of(self._flat.get(name, one.default))

    def type(self, name: str, text: str) -> None:
        """Put a text into a field and check everything again."""
        if text == self.base_text(name):
            self.texts.pop(name, None)
        else:
            self.texts[name] = text
        self.check()

    def restore(self, name: str) -> None:
        """What the base says of a setting."""
        self.texts.pop(name, None)
        self.lists.pop(name, None)
        self.check()

    @property
    def hah_blocks(self) -> int:
        """How many HaH blocks there are, for as many rows; the base's number while the field is wrong."""
        for text in (self.text(BLOCKS), self.base_text(BLOCKS)):
            if text.strip().isdigit() and int(text) <= _MOST_BLOCKS:
                return int(text)
        return 0

    def row(self, name: str) -> list[str]:
        """The texts of a per-block setting for every block there could be; the last value goes on."""
        return self.lists[name] if name in self.lists else self._base_row(name)

    def _base_row(self, name: str) -> list[str]:
        texts = [text_of(value) for value in self._flat.get(name) or fields()[name].default]
        return texts + texts[-1:] * (_MOST_BLOCKS - len(texts))

    def type_block(self, name: str, number: int, text: str) -> None:
        """Put a text into a per-block setting of block ``number`` (from 1)."""
        row = list(self.row(name))
        row[number - 1] = text
        self.lists[name] = row
        if row == self._base_row(name):
            del self.lists[name]
        self.check()

    def off(self, name: str) -> bool:
        """Whether a setting belongs to an optional section that is switched off."""
        section = name.rpartition(".")[0]
        one = fields().get(section)
        return one is not None and one.kind == "section" and self.text(section) != "true"

    # What it comes to

    def check(self) -> None:
        """Bring ``experiment`` and ``mistakes`` up to date."""
        document, found = Document(self.base), list[Mistake]()
        known = fields()
        self.axes = {}
        for name, text in self.texts.items():
            if self.off(name):
                continue
            try:
                typed = alternatives(known[name], text)
                document = nested(name, typed[0]).over(document)
            except RequestError as error:
                found += [Mistake(f"{name}: {mistake.what}") for mistake in error.mistakes]
            else:
                self.axes |= {name: typed} if len(typed) > 1 else {}
        for name in PER_BLOCK:
            try:
                document = nested(name, self._block_values(name)).over(document)
            except RequestError as error:
                found += [Mistake(f"{name}: {mistake.what}") for mistake in error.mistakes]
        self.mistakes = {}
        try:
            self.experiment = presets.validated(document, found)
            for name, typed in self.axes.items():
                for other in typed[1:]:
                    presets.check(name, other, self.experiment)
        except RequestError as error:
            self.experiment = None
            for mistake in error.mistakes:
                name, colon, what = mistake.what.partition(": ")
                name, what = (name, what) if colon and name in known else ("", mistake.what)
                self.mistakes.setdefault(name, what)
                if name in PER_BLOCK and what.startswith("must have") and BLOCKS in self.mistakes:
                    del self.mistakes[name]  # the rows follow the number of blocks, once that is right
                item = re.search(r" \(item (\d+)\)$", what)
                if item and name in PER_BLOCK:
                    self.mistakes[f"{name}[{item[1]}]"] = what[: item.start()].replace(
                        " or a list of numbers, each", ""
                    )

    def _block_values(self, name: str) -> list[Any]:
        """The list of a per-block setting: one value where the base has one and all are the same."""
        base, count = self._flat.get(name) or fields()[name].default, self.hah_blocks
        if name not in self.lists and len(base) in (1, count):
            return list(base)
        texts = self.row(name)[:count]
        if (len(base) == 1 and len(set(texts)) == 1) or (not texts and name != "hah.alpha"):
            texts = self.row(name)[:1]
        found: list[Any] = []
        for number, text in enumerate(texts, 1):
            try:
                found.append(value_of(text) if text.strip() else "")
            except RequestError as error:
                raise RequestError(f"{error.mistakes[0].what} (item {number})") from None
        return found

    def plan(self, seeds: int) -> Plan:
        """The sweep of its axes with so many seeds from its own on; raises RequestError."""
        from engine.sweep import plan

        assert self.experiment is not None
        axes = dict(self.axes)
        first = axes.pop("seed", [self.experiment.seed])
        every = [*first, *range(max(first) + 1, max(first) + seeds)] if len(first) == 1 else first
        return plan.vary(self.experiment.name, self.experiment, axes, every)

    @property
    def several(self) -> int:
        """How many runs its axes make."""
        return prod(len(typed) for typed in self.axes.values())

    @property
    def wrong(self) -> list[str]:
        """The settings that are wrong, in the order of the form."""
        return [name for name in ("", *fields()) if name in self.mistakes]

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """{dotted name: (in the base, here)}; what is typed where it comes to nothing yet."""
        if self.experiment is not None:
            return differences(self.base, self.experiment.dump())
        changed = {name: (self._flat.get(name), text) for name, text in self.texts.items()}
        rows = {name: (self._flat.get(name), self.row(name)[: self.hah_blocks]) for name in self.lists}
        return {**changed, **rows}

    def sets(self) -> list[str]:
        """The `--set` arguments that make this of its preset; [] where the preset is not to be had."""
        assert self.experiment is not None
        try:
            start = presets.load(self.preset).dump()
        except RequestError:
            return []
        changed = differences(start, self.experiment.dump())
        found: list[str] = []
        for name, (_, now) in changed.items():
            section = name.rpartition(".")[0]
            if name in fields() and not (now is None and fields()[name].default is not None):
                found.append(f"{name}={json.dumps(now)}")
            elif section in fields() and fields()[section].kind == "section" and f"{section}=null" not in found:
                found.append(f"{section}=null")
        return found

    @property
    def made_from(self) -> Origin:
        """Where a run of it comes from."""
        return Origin(self.preset, self.preset_path, self.sets())

    def blocks(self) -> list[BlockPlan]:
        """The convolution blocks, as far as they are known."""
        if self.experiment is not None:
            return self.experiment.blocks()
        from engine.experiment import architecture

        try:
            return architecture.blocks(self.text("model.architecture"), float(self.text("model.width")))
        except (KeyError, ValueError, OverflowError):
            return []


def text_of(found: Any) -> str:
    """A value as it is typed; '' for null."""
    match found:
        case None:
            return ""
        case bool():
            return "true" if found else "false"
        case float():
            return f"{found:.10g}"
        case list():
            return ", ".join(map(text_of, found))
        case _:
            return str(found)


def alternatives(one: Field, text: str) -> list[Any]:
    """The values of a text in a field that has one: those between commas, each another run; raises RequestError."""
    if one.kind in ("number", "integer", "choice") and "," in text:
        return [value(one, part) for part in text.split(",") if part.strip()] or [""]
    return [value(one, text)]


def value(one: Field, text: str) -> Any:
    """The value a text stands for in a field; raises RequestError where it is no YAML."""
    text = text.strip()
    if one.kind == "text":
        return None if one.optional and not text else text
    if one.kind == "section":
        return {} if text == "true" else None
    if one.optional and text in ("", "null", "none", "~"):
        return None
    if one.kind in ("numbers", "integers", "texts", "choices"):
        if text.startswith("["):
            return value_of(text)
        words = [word for word in re.split(r"[,\s]+", text) if word]
        return words if one.kind in ("texts", "choices") else [value_of(word) for word in words]
    return value_of(text) if text else ""
