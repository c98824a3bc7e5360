"""The schema as a flat list of fields: what a form, a reference page or an error message says of each."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.experiment.schema import PER_BLOCK, Experiment

Kind = Literal["integer", "number", "flag", "choice", "text", "numbers", "integers", "texts", "choices", "section"]


@dataclass(frozen=True)
class Field:
    """One setting: its dotted ``name`` as written, what it may be, and what it is for."""

    name: str
    kind: Kind
    help: str
    default: Any
    unit: str = ""
    live: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()
    format: str = ""  # of text, in words
    per_block: bool = False  # one value, or one for each HaH block
    above: float | None = None  # exclusive
    minimum: float | None = None
    maximum: float | None = None
    below: float | None = None  # exclusive

    @property
    def section(self) -> str:
        """The first part of the name, or '' for the experiment's own fields."""
        return self.name.partition(".")[0] if "." in self.name else ""

    def allowed(self) -> str:
        """What the field may be, as the end of 'must be ...'."""
        bounds = self._bounds()
        match self.kind:
            case "choice":
                what = "one of " + ", ".join(map(str, self.choices))
            case "choices":
                what = "a list of " + ", ".join(map(str, self.choices))
            case "flag":
                what = "true or false"
            case "text":
                what = self.format or "text"
            case "texts":
                what = "a list of words"
            case "section":
                what = "a group of settings"
            case "integer" | "number":
                what = {"integer": "a whole number", "number": "a number"}[self.kind]
                what += f" {bounds}" if bounds else ""
            case "integers" | "numbers":
                what = "a list of whole numbers" if self.kind == "integers" else "a list of numbers"
                what = "a number or a list of numbers" if self.per_block else what
                what += f", each {bounds}" if bounds else ""
        return f"{what}, or null" if self.optional else what

    def _bounds(self) -> str:
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum:.10g} to {self.maximum:.10g}"
        limits = {"above": self.above, "at least": self.minimum, "below": self.below, "at most": self.maximum}
        return " and ".join(f"{word} {limit:.10g}" for word, limit in limits.items() if limit is not None)


@cache
def fields() -> dict[str, Field]:
    """Every setting of an experiment by its dotted name, in the order of the schema."""
    return {field.name: field for field in _walk(Experiment, "")}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data as {dotted name: value}, sections dissolved; an optional section that is null stays."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{dotted name: (value in a, value in b)} for the settings that differ; a missing one is None."""
    flat_a, flat_b = flatten(a), flatten(b)
    names = dict.fromkeys([*flat_a, *flat_b])
    return {name: (flat_a.get(name), flat_b.get(name)) for name in names if flat_a.get(name) != flat_b.get(name)}


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Field]:
    for attribute, info in model.model_fields.items():
        name = f"{prefix}{info.alias or attribute}"
        annotation, optional = _without_none(info.annotation)
        if typing.get_origin(annotation) is None and issubclass(annotation, BaseModel):
            if optional:
                yield Field(name, "section", info.description or "", None, optional=True)
            yield from _walk(annotation, f"{name}.")
        else:
            yield _field(name, annotation, optional, info)


def _field(name: str, annotation: Any, optional: bool, info: FieldInfo) -> Field:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    metadata = list(info.metadata)
    choices: tuple[Any, ...] = ()
    kind: Kind
    if typing.get_origin(annotation) is Literal:
        kind, choices = "choice", typing.get_args(annotation)
    elif typing.get_origin(annotation) is list:
        item = typing.get_args(annotation)[0]
        inner = getattr(item, "__origin__", item) if hasattr(item, "__metadata__") else item
        if typing.get_origin(inner) is Literal:
            kind, choices = "choices", typing.get_args(inner)
        else:
            kind = {float: "numbers", int: "integers", str: "texts"}[inner]  # type: ignore[assignment]
        for entry in getattr(item, "__metadata__", ()):
            metadata += entry.metadata if isinstance(entry, FieldInfo) else [entry]
    else:
        kind = {bool: "flag", int: "integer", float: "number", str: "text"}[annotation]  # type: ignore[assignment]
    bounds: dict[str, Any] = {}
    for entry in metadata:
        match entry:
            case Gt(gt):
                bounds["above"] = gt
            case Ge(ge):
                bounds["minimum"] = ge
            case Le(le):
                bounds["maximum"] = le
            case Lt(lt):
                bounds["below"] = lt
            case MinLen() | MaxLen():
                pass
    return Field(
        name,
        kind,
        info.description or "",
        info.get_default(call_default_factory=True),
        str(extra.get("unit", "")),
        bool(extra.get("live", False)),
        optional,
        choices,
        str(extra.get("format", "")),
        any(entry is PER_BLOCK for entry in info.metadata),
        **bounds,
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        return rest[0], True
    return annotation, False
