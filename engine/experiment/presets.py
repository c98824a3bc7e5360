"""Presets: found by name or path, laid over what they extend, validated, dumped."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine import disk
from engine.experiment.document import Document, Key, assignment, nested, read
from engine.experiment.fields import fields, flatten
from engine.experiment.migrations import migrated, present
from engine.experiment.mistakes import Mistake, RequestError
from engine.experiment.names import NAME_FORMAT, is_name
from engine.experiment.schema import Experiment
from engine.experiment.version import SCHEMA_VERSION, VERSION

MOST_MISTAKES = 50  # of one request that are said one by one
_MOST_BASES = 20  # that extend one another
# What a preset says of itself, not of what extends it.
_NOT_INHERITED = ("name", "description", "tags")
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A preset file; ``shadows`` is the shipped file of the same name that it hides, if any."""

    name: str
    path: Path
    shipped: bool
    shadows: Path | None = None


def shipped_folder() -> Path:
    """Where the shipped presets lie: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).with_name("presets")
    return inside if inside.is_dir() else Path(__file__).parents[2] / "presets"


def own_folder() -> Path:
    """Where a person's own presets lie."""
    return disk.folder_of("config") / "presets"


def listed() -> list[Preset]:
    """Every preset that has a name: a person's own first, then the shipped ones that they do not shadow."""
    shipped = {path.stem: path for path in _files(shipped_folder())}
    own = {path.stem: path for path in _files(own_folder())}
    presets = [Preset(name, path, False, shipped.get(name)) for name, path in own.items()]
    return presets + [Preset(name, path, True) for name, path in shipped.items() if name not in own]


def find(reference: str, beside: Path | None = None, skip: Iterable[Path] = ()) -> Preset:
    """The preset of a name, or of a path (relative to the folder ``beside``, else to the current one).

    ``skip`` holds the files that are extending: a person's own `paper-hah` may extend the shipped one.
    Raises RequestError.
    """
    if "/" in reference or reference.endswith(_SUFFIXES):
        path = Path(os.path.expanduser(reference))  # noqa: PTH111 (Path.expanduser raises on an unknown user)
        path = path if beside is None else beside / path
        return Preset(path.stem, path, False)
    if not is_name(reference):
        raise RequestError(f"{reference!r} is not a preset: give a path to a .yaml file, or a name ({NAME_FORMAT})")
    skipped = {path.resolve() for path in skip}
    named = listed()
    shadowed = [Preset(preset.name, preset.shadows, True) for preset in named if preset.shadows]
    candidates = [preset for preset in named + shadowed if preset.name == reference]
    for preset in candidates:
        if preset.path.resolve() not in skipped:
            return preset
    if candidates:
        return candidates[-1]  # the cycle is told by the caller, who knows the way round
    names = [preset.name for preset in named]
    close = difflib.get_close_matches(reference, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names)) or 'none'}"
    raise RequestError(f"no preset is called {reference!r}; {hint}")


def load(reference: str, sets: Sequence[str] = (), name: str | None = None) -> Experiment:
    """The experiment of a preset name or file with ``--set`` assignments and a run's ``name`` laid over it.

    Raises RequestError with every mistake at once, each with the place it was written at.
    """
    document = assembled(find(reference))
    mistakes: list[Mistake] = []
    for text in sets:
        try:
            document = migrated(assignment(text)).over(document)
        except RequestError as error:
            mistakes += error.mistakes
    if name is not None:
        document = Document({"name": name}, {("name",): "--name"}).over(document)
    return validated(document, mistakes)


def assembled(preset: Preset, chain: tuple[Path, ...] = ()) -> Document:
    """The document of ``preset`` laid over everything it extends, named after its file where it has no name."""
    try:
        path = preset.path.resolve()
    except (OSError, RuntimeError):
        raise RequestError(f"{preset.path}: its symbolic links lead in a circle") from None
    if path in chain:
        way = " -> ".join(step.name for step in (*chain, path))
        raise RequestError(Mistake(f"extends itself: {way}", str(preset.path)))
    if len(chain) > _MOST_BASES:
        raise RequestError(Mistake(f"is the end of more than {_MOST_BASES} presets that extend one another", str(path)))
    document = migrated(read(preset.path))
    base = document.values.get("extends")
    if base is not None:
        place = document.origin(("extends",))
        if not isinstance(base, str):
            raise RequestError(Mistake("extends: must be the name of a preset or a path", place))
        try:
            below = find(base, beside=preset.path.parent, skip=(*chain, path))
        except RequestError as error:
            raise RequestError(Mistake(f"extends: {error.mistakes[0].what}", place)) from None
        document = document.over(assembled(below, (*chain, path)).without(*_NOT_INHERITED))
    document = document.without("extends")
    if not chain:
        document.values.setdefault("name", _name_of(preset.path))
        document.origins.setdefault(("name",), str(preset.path))
    return document


def validated(document: Document, mistakes: Sequence[Mistake] = ()) -> Experiment:
    """The experiment of a document of any version; raises RequestError with ``mistakes`` and every further one."""
    document, found = migrated(document), list(mistakes)
    try:
        experiment = Experiment.model_validate(document.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        found += [_mistake(document, detail) for detail in details[: MOST_MISTAKES - len(found)]]
        if len(details) > MOST_MISTAKES:
            raise RequestError(*found, f"and {len(details) - MOST_MISTAKES:,} more mistakes") from None
        # Checks that span fields run only on a whole tree: run them on what is left without the wrong fields,
        # and believe those that read none of them.
        wrong = [_key(document.values, detail["loc"]) for detail in details]
        names = {_dotted(key) for key in wrong}
        try:
            Experiment.model_validate(_pruned(document.values, wrong))
        except ValidationError as second:
            found += [_mistake(document, clash) for clash in second.errors() if names.isdisjoint(clash["ctx"]["reads"])]
    if found:
        raise RequestError(*dict.fromkeys(found))
    return experiment


def parse(values: dict[str, Any]) -> Experiment:
    """The experiment of plain data (a form, a stored run); raises RequestError."""
    return validated(Document(values))


def check(name: str, value: Any, experiment: Experiment) -> Experiment:
    """``experiment`` with one dotted setting changed; raises RequestError."""
    return validated(migrated(nested(name, value)).over(Document(experiment.dump())))


def change(name: str, value: Any, experiment: Experiment) -> Experiment:
    """``experiment`` with a dotted setting changed that may change while a run lives; raises RequestError."""
    name, value = present(name, value) or (name, value)
    changed, here = check(name, value, experiment), flatten(experiment.dump())
    live = [one.name for one in fields().values() if one.live and one.name in here]
    if name not in live:
        raise RequestError(f"{name} is fixed while a run lives; what can change: {', '.join(live)}")
    return changed


def stored(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment as plain data, with the version of the schema that it is of."""
    return {VERSION: SCHEMA_VERSION, **experiment.dump()}


def dumped(experiment: Experiment) -> str:
    """The same as YAML."""
    return str(yaml.safe_dump(stored(experiment), sort_keys=False, allow_unicode=True, width=100))


def write_own(name: str, base: str, sets: Sequence[str]) -> Path:
    """Write a person's own preset that extends ``base`` with assignments; raises RequestError."""
    if not is_name(name):
        raise RequestError(f"{name!r} cannot name a preset; allowed: {NAME_FORMAT}")
    path = own_folder() / f"{name}.yaml"
    document = Document({"extends": base})
    for text in sets:
        document = assignment(text).over(document)
    find(base)
    made = load(base, sets)
    said: dict[str, Any] = {"tags": list(made.tags), "description": made.description}  # which are not inherited
    document.values.update({entry: said[entry] for entry in said if said[entry] and entry not in document.values})
    if name in {preset.name for preset in listed() if preset.shipped}:
        raise RequestError(f"{name} is a shipped preset, which this would hide; choose another name")
    if path.exists():
        raise RequestError(f"{path} exists; choose another name or edit it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_new(path, yaml.safe_dump(document.values, sort_keys=False, allow_unicode=True).encode())
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix in _SUFFIXES and is_name(path.stem))
    return sorted(found, key=lambda path: (path.stem, path.suffix))


def _name_of(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-")[:80] or "experiment"


def _key(values: Any, loc: tuple[str | int, ...]) -> Key:
    """Where in the document a mistake is: pydantic's location without what is not written there."""
    key: Key = ()
    for part in loc:
        key = (*key, part)
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    return key


def _dotted(key: Key) -> str:
    return ".".join(part for part in key if isinstance(part, str))


def _pruned(values: dict[str, Any], wrong: Iterable[Key]) -> dict[str, Any]:
    """The document without what is wrong in it, so that defaults stand there; a list goes with any of its items."""
    pruned = copy.deepcopy(values)
    for key in wrong:
        *around, name = [part for part in key if isinstance(part, str)]
        section = pruned
        for part in around:
            section = section.get(part, {})
        section.pop(name, None)
    return pruned


def _mistake(document: Document, detail: ErrorDetails) -> Mistake:
    key = _key(document.values, detail["loc"])
    name = _dotted(key)
    field = fields().get(name)
    if detail["type"] == "together":
        what = detail["msg"]
    elif detail["type"] == "extra_forbidden":
        what = "unknown; " + _nearest(name)
    elif field is not None:
        item = next((f" (item {part + 1})" for part in key if isinstance(part, int)), "")
        what = f"must be {field.allowed()}, got {_shown(detail['input'])}{item}"
    else:
        what = f"must be a group of settings, got {_shown(detail['input'])}"
    return Mistake(f"{name}: {what}", document.origin(key))


def _nearest(name: str) -> str:
    known = list(fields())
    close = difflib.get_close_matches(name, known, n=1) or [
        other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]
    ]
    if close:
        return f"did you mean {close[0]}?"
    section = name.rpartition(".")[0]
    siblings = [
        n.removeprefix(f"{section}.").partition(".")[0] for n in known if n.startswith(f"{section}.") or not section
    ]
    return f"there is {', '.join(dict.fromkeys(siblings))}"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict) else "a group of settings"
    return text if len(text) <= 60 else f"{text[:57]}..."
