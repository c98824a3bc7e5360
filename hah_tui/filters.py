"""What a list of runs is narrowed to: `clean>0.9 lambda=1 status:finished -tag:old second`, parsed once."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engine.experiment.mistakes import RequestError
from engine.runs.state import ENDED, LIVE
from hah_tui import attributes
from hah_tui.attributes import Attribute
from hah_tui.listing import ListedRun
from hah_tui.text import shown_line

Fits = Callable[[ListedRun], bool]

_COMPARISON = re.compile(r"([^<>=!:]+)(<=|>=|!=|=|<|>)(.*)")
_NUMBER = re.compile(r"([-+]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:e[-+]?\d{1,2})?)([a-z%]*)")
_TIMES = {"s": 1, "": 1, "min": 60, "h": 3600, "d": 86400}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_BEGINNINGS: dict[str, Callable[[ListedRun], Iterable[str]]] = {
    "status": lambda run: (run.look.status,),
    "tag": lambda run: run.tags,
    "preset": lambda run: (run.look.state.preset,),
}


@dataclass(frozen=True)
class Filter:
    """A ``text`` and what it means: a run fits where all ``terms`` do; they compare ``attributes``."""

    text: str = ""
    terms: tuple[Fits, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    def fits(self, run: ListedRun) -> bool:
        return all(fits(run) for fits in self.terms)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Terms with blanks between them, each of which must hold, or must not where a '-' is before it:

        a word of the id, preset, tags, device or note; status:, tag: and preset: with what they begin with, any of
        several of one kind; an attribute, one of = != < <= > >=, and a value. Raises RequestError.
        """
        terms: list[Fits] = []
        any_of: dict[str, list[str]] = {}
        used: list[Attribute] = []
        for written in text.split():
            negated, term = written.startswith("-") and len(written) > 1, written.lower()
            term = term[1:] if negated else term
            key, colon, value = term.partition(":")
            if colon and key in _BEGINNINGS:
                if key == "status" and not any(status.startswith(value) for status in (*LIVE, *ENDED, "lost")):
                    known = ", ".join((*LIVE, *ENDED, "lost"))
                    raise RequestError(f"No status begins with '{shown_line(value, 40)}': {known}")
                if negated:
                    terms.append(_not(_begins(key, [value])))
                else:
                    any_of.setdefault(key, []).append(value)
                continue
            if match := _COMPARISON.fullmatch(term):
                try:
                    attribute = attributes.found(match[1])
                    used.append(attribute)
                    fits = _compares(attribute, match[2], match[3])
                except RequestError as error:
                    raise RequestError(f"{shown_line(written, 60)}: {error}") from None
            else:
                fits = _says(term)
            terms.append(_not(fits) if negated else fits)
        terms += [_begins(key, values) for key, values in any_of.items()]
        return cls(text, tuple(terms), tuple(used))


def _not(fits: Fits) -> Fits:
    return lambda run: not fits(run)


def _says(word: str) -> Fits:
    return lambda run: word in run.words


def _begins(key: str, values: list[str]) -> Fits:
    of = _BEGINNINGS[key]
    return lambda run: any(have.lower().startswith(value) for have in of(run) for value in values)


def _compares(attribute: Attribute, sign: str, written: str) -> Fits:
    """A run that has no such value fits no comparison, != included."""
    of, field, name = attribute.of, None, attribute.title
    if attribute.kind == "setting":
        from engine.experiment.fields import fields

        field, name = fields()[attribute.name], attribute.name
    number = attribute.is_number or (field is not None and field.kind in ("integer", "number"))
    if not written:
        raise RequestError(f"a value must follow, such as {name}{sign}{_example(attribute) if number else 'x'}")
    if number and not (field is not None and field.optional and written == "null"):
        value, step = _number(attribute, written)
        step = 1e-9 * abs(value) if field else step  # what is measured is shown rounded: = asks for the digits written
        if attribute.kind == "moment":
            of = _age_of(of)
        if sign in _ORDERS:
            compare = _ORDERS[sign]
            return lambda run: _is_number(have := of(run)) and compare(have, value)
        return lambda run: _is_number(have := of(run)) and (abs(have - value) <= step) == (sign == "=")
    if sign in _ORDERS:
        raise RequestError(f"{name} is no number: = and != compare it, {sign} does not")
    choices = ("true", "false") if field and field.kind == "flag" else tuple(map(str, field.choices)) if field else ()
    if field and field.kind in ("flag", "choice") and written not in (*choices, *["null"] * field.optional):
        raise RequestError(f"{name} is one of {', '.join(choices)}")
    wanted = [_plain(part) for part in written.split(",")]

    def equals(value: Any) -> bool:  # one value stands for a list of nothing else
        have = [_plain(attribute.said(part)) for part in (value if isinstance(value, list) else [value])]
        return have == (wanted * len(have) if len(wanted) == 1 else wanted)

    return lambda run: (field is None or run.has(attribute.name)) and equals(of(run)) == (sign == "=")


def _age_of(moment: Callable[[ListedRun], Any]) -> Callable[[ListedRun], Any]:
    return lambda run: None if (value := moment(run)) is None else time.time() - value


def _number(attribute: Attribute, written: str) -> tuple[float, float]:
    """A written number, and half a unit of its last digit; per cent are hundredths, times are in seconds."""
    units = _TIMES if attribute.kind in ("moment", "seconds") else {"%": 0.01, "": 1}
    match = _NUMBER.fullmatch(written)
    if match is None or match[2] not in units:
        kind = "a time" if units is _TIMES else "a number"
        raise RequestError(f"'{shown_line(written, 40)}' is not {kind}: write, for example, {_example(attribute)}")
    size, digits = units[match[2]], Decimal(match[1])
    if attribute.kind == "fraction" and size == 1 and abs(digits) > 1:
        raise RequestError(f"{attribute.title} is at most 1: write {match[1]}% or {float(digits) / 100:g}")
    return float(digits) * size, 0.5001 * 10.0 ** int(digits.as_tuple().exponent) * size


def _example(attribute: Attribute) -> str:
    match attribute.kind:
        case "fraction":
            return "0.9 or 90%"
        case "moment" | "seconds":
            return "90s, 10min, 2h or 3d"
    return "0.1"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(text: str) -> str:
    """A value as it is compared: 1, 1.0 and 1e0 are one number."""
    text = "null" if text in ("-", "none", "null") else text.lower()
    try:
        return repr(float(text))
    except ValueError:
        return text
