"""Values out of a document from a disk: each is what it should be, or a ValueError says what is wrong."""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}( [1-9]\d{0,2})?")  # "apgd-ce 2" is its second restart


def is_block(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d?", text) is not None


def part(document: dict[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name}: missing or of the wrong type")
    return value


def items(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = part(document, name, list)
    if not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{name}: an entry is no group of values")
    return list(items)


def blocks(document: dict[str, Any], name: str, optional: bool = False) -> list[tuple[int, Any]]:
    """The entries of a mapping whose keys are block numbers."""
    entries = {} if optional and document.get(name) is None else part(document, name, dict)
    if not all(is_block(key) for key in entries):
        raise ValueError(f"{name}: a key is no block number")
    return [(int(key), value) for key, value in entries.items()]


def word(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{name}: not a name of lower-case letters, digits and '-'")
    return value


def count(document: dict[str, Any], name: str) -> int:
    return int(number(document, name, 0, 1e9))


def fraction(document: dict[str, Any], name: str) -> float:
    return number(document, name, 0, 1)


def number(document: dict[str, Any], name: str, low: float, high: float) -> float:
    return finite(document.get(name), name, low, high)


def finite(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name}: not a number from {low:g} to {high:g}")
    return float(value)
