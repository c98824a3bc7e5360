"""YAML read safely, with the place every value was written at.

A document is plain data: mappings, lists, text, numbers, booleans, null. Aliases (a few bytes that expand to
gigabytes), tags (that construct objects), duplicate keys, deep nesting and large files are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from engine import disk
from engine.experiment.mistakes import Mistake, RequestError

try:
    from yaml import CSafeLoader as SafeLoader  # an eighth of the time
except ImportError:  # PyYAML was built where there is no libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"

Key = tuple[str | int, ...]


@dataclass
class Document:
    """Nested ``values`` and, for every mapping key and list item in them, where it was written."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    def origin(self, key: Key) -> str:
        """The place of ``key`` or of the nearest thing around it."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key, "")

    def without(self, *names: str) -> Document:
        """The document without these top-level keys."""
        return Document(
            {name: value for name, value in self.values.items() if name not in names},
            {key: place for key, place in self.origins.items() if not key or key[0] not in names},
        )

    def at(self, name: str) -> tuple[Any, str] | None:
        """The value of a dotted name and where it was written; None where it is not written."""
        value: Any = self.values
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value, self.origin(tuple(name.split(".")))

    def less(self, name: str) -> Document:
        """The document without a setting, by its dotted name."""
        *around, last = name.split(".")
        if self.at(name) is None:
            return self
        values = section = dict(self.values)
        for part in around:
            section[part] = section = dict(section[part])
        del section[last]
        gone = tuple(name.split("."))
        return Document(values, {key: place for key, place in self.origins.items() if key[: len(gone)] != gone})

    def over(self, base: Document) -> Document:
        """This document laid over ``base``: mappings are merged key by key, everything else is replaced."""
        merged = Document(_merge(base.values, self.values), {})
        # A base's place survives only where the base's value did.
        mine = [key for key in self.origins if not isinstance(_at(self.values, key), dict)]
        replaced = set(mine)
        for key, place in base.origins.items():
            if not any(key[:n] in replaced for n in range(1, len(key) + 1)):
                merged.origins[key] = place
        merged.origins.update(self.origins)
        return merged


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _at(values: Any, key: Key) -> Any:
    for part in key:
        values = values[part]
    return values


class _Loader(SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2: 1e-3 is a number; 1:30, 010, 2026-01-01, yes and off,
    which YAML 1.1 takes for 90, 8, a day, true and false, are text, and so refused where a number or a flag is due."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (so the base class has it)


for _kind, _looks_like, _begins in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?([0-9][0-9_]*(\.[0-9_]*|(?=[eE]))|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_looks_like})$"), _begins)


def read(path: Path) -> Document:
    """Read one YAML file whose top is a mapping; raises RequestError naming ``path`` and the line."""
    try:
        with disk.opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            what = f"is {size / 2**20:.0f} MiB, an experiment is at most {MAX_BYTES >> 20} MiB"
            raise RequestError(Mistake(what, str(path)))
        text = data.decode("utf-8")
    except OSError as error:
        what = disk.NO_FILE if error.strerror == disk.NO_FILE else f"cannot be read: {error.strerror}"
        raise RequestError(Mistake(what, str(path))) from None
    except UnicodeDecodeError as error:
        raise RequestError(Mistake(f"is not text in UTF-8 (byte {error.start})", str(path))) from None
    root = _compose(text, str(path))
    if root is None:
        raise RequestError(Mistake("is empty; an experiment has at least one setting", str(path)))
    if not isinstance(root, yaml.MappingNode):
        raise RequestError(Mistake("must be a mapping of settings, such as 'train: {epochs: 10}'", str(path)))
    document = Document()
    document.values = _plain(root, str(path), (), document.origins)
    return document


def assignment(text: str) -> Document:
    """The document of one ``--set KEY=VALUE``, VALUE being YAML; raises RequestError."""
    place = f"--set {text}" if len(text) <= 100 else f"--set {text[:97]}..."
    dotted, equals, value = text.partition("=")
    names = dotted.strip().split(".")
    if not equals or not all(names):
        raise RequestError(Mistake("must be KEY=VALUE, such as hah.lambda=0.1", place))
    if len(names) > MAX_DEPTH:
        raise RequestError(Mistake(f"names a setting deeper than {MAX_DEPTH} levels", place))
    node = _compose(value, place)
    inner: dict[Key, str] = {}
    document = nested(dotted.strip(), None if node is None else _plain(node, place, tuple(names), inner))
    every = [*inner, *(tuple(names[:depth]) for depth in range(1, len(names) + 1))]
    return Document(document.values, dict.fromkeys(every, place))


def nested(name: str, value: Any, place: str = "") -> Document:
    """The document in which the setting of a dotted name has a value, which was written at ``place``."""
    parts = name.split(".")
    for part in reversed(parts):
        value = {part: value}
    return Document(value, {tuple(parts): place} if place else {})


def assigned(text: str) -> tuple[str, Any]:
    """The dotted name and the value of one KEY=VALUE; raises RequestError."""
    value: Any = assignment(text).values
    name = text.partition("=")[0].strip()
    for part in name.split("."):
        value = value[part]
    return name, value


def value_of(text: str) -> Any:
    """A YAML value typed into a form field; raises RequestError."""
    node = _compose(text, "")
    return None if node is None else _plain(node, "", (), {})


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        _refuse_expansion(text, source)
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        deep = "nesting depth" in str(error.problem)  # libyaml looks ahead and has a limit of its own
        said = error if deep else _said(text, error)
        mark = said.problem_mark or said.context_mark
        what = _TOO_DEEP if deep else f"is not YAML: {said.problem or said.context}"
        raise RequestError(Mistake(what, _place(source, mark) if mark else source)) from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(Mistake(f"is not YAML: {str(error).splitlines()[0]}", source)) from None


def _said(text: str, error: yaml.MarkedYAMLError) -> yaml.MarkedYAMLError:
    """The error in the words of PyYAML's own parser, which name the character where libyaml's do not."""
    try:
        for _ in yaml.parse(text, Loader=yaml.SafeLoader):
            pass
    except yaml.MarkedYAMLError as plainer:
        return plainer
    except yaml.YAMLError:
        pass
    return error


def _refuse_expansion(text: str, source: str) -> None:
    """Walk the parser's events, which neither expand nor recurse, before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        assert event.start_mark is not None
        place = _place(source, event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RequestError(Mistake("anchors and aliases (& and *) are not allowed; use 'extends'", place))
        tag = getattr(event, "tag", None)
        if tag:
            raise RequestError(Mistake(f"tags are not allowed ({tag})", place))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise RequestError(Mistake(_TOO_DEEP, place))


def _plain(node: yaml.Node, source: str, key: Key, origins: dict[Key, str]) -> Any:
    """The plain value of ``node``, noting in ``origins`` where each part of it stands."""
    origins[key] = _place(source, node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, source, (*key, index), origins) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, source, key, origins))
    constructor = _Loader("")
    try:
        return constructor.construct_object(node)
    except (ValueError, yaml.YAMLError):  # the 45th of a month, a number of 5000 digits: the schema refuses the text
        return node.value
    finally:
        constructor.dispose()


def _items(node: yaml.MappingNode, source: str, key: Key, origins: dict[Key, str]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, str] = {}
    for name_node, value_node in node.value:
        place = _place(source, name_node.start_mark)
        if not isinstance(name_node, yaml.ScalarNode) or name_node.tag == "tag:yaml.org,2002:merge":
            raise RequestError(Mistake("a setting's name must be plain text", place))
        name = name_node.value
        if name in seen:
            dotted = ".".join(map(str, (*key, name)))
            raise RequestError(Mistake(f"{dotted}: written twice; first at {seen[name]}", place))
        seen[name] = place
        inner = (*key, name)
        value = _plain(value_node, source, inner, origins)
        origins[inner] = place
        yield name, value


def _place(source: str, mark: Any) -> str:
    return source if source.startswith("--set") or not source else f"{source}:{mark.line + 1}"
