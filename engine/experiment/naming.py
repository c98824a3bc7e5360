"""What tells experiments apart, in a few words: `lambda=1.0`, `no threshold`, `alpha x3`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from engine.experiment.fields import fields

MOST_WORDS, MOST_LETTERS = 2, 20  # settings in a name, and all of it, where other names would do


def short(name: str) -> str:
    """The last word of a setting's dotted name, with the one before it where other settings share it."""
    last = name.rpartition(".")[2]
    alike = [other for other in fields() if other.rpartition(".")[2] == last]
    return last if len(alike) <= 1 else ".".join(name.split(".")[-2:])


def names(
    settings: Sequence[Mapping[str, Any]], called: Sequence[str], ids: Sequence[str], seeds: Sequence[object] = ()
) -> list[str]:
    """A name for each of several experiments.

    ``settings`` are by dotted name, as of `fingerprint.settings`; ``called`` is what people called each ('' where its
    runs are called differently), ``ids`` stand in where nothing else tells them apart. The settings that differ name
    them where they are few, with the ``seeds`` where some are equal; else what they are called, without what all begin
    with.
    """
    if seeds and len(set(map(repr, settings))) < len(settings):
        settings = [{**one, "seed": seed} for one, seed in zip(settings, seeds, strict=True)]
    words = what_differs(settings)
    said = [" ".join(each) or name or "base" for each, name in zip(words, trimmed(called), strict=True)]
    few = all(len(each) <= MOST_WORDS and len(" ".join(each)) <= MOST_LETTERS for each in words)
    for candidate in ([said] if few else []), [trimmed(called)], [said]:
        for one in candidate:
            if all(one) and len(set(one)) == len(one):
                return one
    return list(ids)


def what_differs(settings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Of each experiment the settings in which it differs from the others, as words.

    Of a setting that most of three or more have alike, only the exceptions speak. Those that follow from another one,
    as the values of blocks that are not there, or that cannot act, say nothing.
    """
    found: list[list[tuple[str, str]]] = [[] for _ in settings]
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [one.get(name) if acts(name, one) else None for one in settings]
        if name in _PER_BLOCK:  # blocks that only some have are named by their number
            values = _shared_blocks(values)
        kinds = Counter(map(repr, (value for value in values if value is not None)))
        if len(kinds) < 2 and not (kinds and name in _ABSENT and None in values):
            continue
        usual, most = kinds.most_common(1)[0]
        silent = usual if len(settings) > 2 and 2 * most > len(settings) else ""
        typical = next(value for value in values if repr(value) == usual)
        for words, value in zip(found, values, strict=True):
            if value is not None and repr(value) != silent:
                words.append((name, _word(name, value, typical)))
    telling = [[word for name, word in each if name not in _MINOR] for each in found]
    return telling if len(set(map(tuple, telling))) == len(found) else [[word for _, word in each] for each in found]


_MINOR = ("model.batch_norm_momentum",)  # goes with the presets; speaks where nothing else does
_ABSENT = ("train.adversarial.eps",)  # of a section that may be missing, what speaks for all of it
_PER_BLOCK = ("hah.alpha", "model.divisive_norm.sigma")


def acts(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting can make a difference to a network with the other ``settings``."""
    section = name.rpartition(".")[0]
    if section in ("hah", "model.divisive_norm", "model.threshold") and settings.get("model.hah_blocks") == 0:
        return False
    if section == "hah" and name != "hah.lambda" and settings.get("hah.lambda") == 0:
        return False
    if section == "hah" and name != "hah.alpha" and not any(settings.get("hah.alpha") or [1]):
        return False
    if section == "model.divisive_norm" and not name.endswith(".enabled"):
        return bool(settings.get("model.divisive_norm.enabled", True))
    if section == "model.threshold":
        kind = settings.get("model.threshold.kind")
        return name.endswith(".kind") or (kind != "none" and (name.endswith(".keep") == (kind == "fraction")))
    return True


def _shared_blocks(values: Sequence[Any]) -> list[Any]:
    """Lists of one value a block, cut to the blocks that all of them have."""
    shared = min((len(value) for value in values if value), default=0)
    return [value[:shared] if value else None for value in values]


def _word(name: str, value: Any, typical: Any) -> str:
    if value is False or value == "none":
        return f"no {_spoken(name)}"
    if value is True:
        return _spoken(name)
    if isinstance(value, list) and value:
        return short(name) + _list(value, typical)
    return f"{short(name)}={text(value)}"


def _spoken(name: str) -> str:
    """The words of a setting that is there or not: of its section, where it is what switches that."""
    section, _, last = name.rpartition(".")
    return (section.rpartition(".")[2] if last in ("enabled", "kind") else last).replace("_", " ")


def _list(value: list[Any], typical: Any) -> str:
    if any(value) and value != typical and all(typical) and len(typical) == len(value):
        ratios = {f"{one / other:.4g}" for one, other in zip(value, typical, strict=True)}
        if len(ratios) == 1:
            return f" x{ratios.pop()}"
    shown = [text(one) for one in (value if len(set(map(repr, value))) > 1 else value[:1])]
    return "=" + ",".join(shown if len(shown) <= 3 else [*shown[:2], "..", shown[-1]])


def text(value: Any) -> str:
    """A value as it stands in names."""
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.6g}"
    return "null" if value is None else str(value)


def trimmed(called: Sequence[str]) -> list[str]:
    """Names without the words, between dashes, that all of them begin with; what is left begins with a letter."""
    if len(set(called)) < 2:
        return list(called)
    parts = [name.split("-") for name in called]
    shared = 0
    while len({part[shared] for part in parts}) == 1 and all(part[shared + 1 :][:1] for part in parts):
        if not all(part[shared + 1][:1].isalpha() for part in parts):
            break
        shared += 1
    return ["-".join(part[shared:]) for part in parts]
