"""The three largest differences between what was published and what was found, and what turning a switch does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.report import effects
from engine.report.effects import SEEN, Effect, Finding, View
from engine.report.networks import Network
from engine.report.tables import Report

MOST = 3
HOW = (
    "Of the effects of Tables 1 and 3, and of Table 2's mean of HaH against standard, these are the three whose "
    "published and found sizes are furthest apart. A switch is a network that differs from the HaH network in one "
    "setting of which the paper and its code leave some doubt; Table 3's ablations are none, and lambda, where the "
    "other network of an effect has it too, is turned in both. It explains a part where the effect with it is nearer "
    "to the published size, its interval not past that, and what it moves the effect by goes that way by the rule of "
    "the effects (of four networks: the interval of one effect less that of the other, end from opposite end). What no "
    "switch explains is unexplained."
)


@dataclass(frozen=True)
class Switch:
    """``found``: the effect where the networks with the switch turned stand for those without; ``moved``: by how much
    that is another than without, seen where it goes towards the published size."""

    title: str
    found: Finding
    moved: Finding
    nearer: bool  # to the published size, and not past it

    @property
    def explains(self) -> bool:
        return self.nearer and self.moved.verdict == SEEN


@dataclass(frozen=True)
class Explanation:
    """A difference between a ``published`` size (as measured: fractions) and the one found."""

    effect: Effect
    view: View
    published: float
    found: Finding
    switches: tuple[Switch, ...]

    @property
    def gap(self) -> float:
        """Found minus published."""
        return (self.found.size or 0.0) - self.published

    @property
    def verdict(self) -> str:
        """What explains it, in words: a sentence without its stop."""
        names = [switch.title for switch in self.switches if switch.explains]
        if names:
            return f"In part explained by {', '.join(names)}"
        return (
            "Unexplained: no switch that was turned moves it there"
            if self.switches
            else ("Unexplained: no switch was turned")
        )


def explanations(report: Report) -> list[Explanation]:
    """The largest differences of the first view that has any: width 1 before studies."""
    for view in effects.views(report):
        found = sorted(_differences(report, view), key=lambda one: (-abs(one.gap), one.effect.key))
        if found:
            return found[:MOST]
    return []


def _differences(report: Report, view: View) -> Iterator[Explanation]:
    for effect in effects.effects():
        if not _counts(effect):
            continue
        found = effects.found(effect, view)
        published = effects.published_size(effect, found)
        if found.size is not None and published is not None:
            switches = tuple(_switches(report, view, effect, published, found.size))
            yield Explanation(effect, view, published, found, switches)


def _counts(effect: Effect) -> bool:
    if effect.place == "Table 2":
        return effect.key == "table-2/paper-hah/paper-standard/mean"
    return effect.place in ("Table 1", "Table 3")


def _switches(report: Report, view: View, effect: Effect, published: float, size: float) -> Iterator[Switch]:
    hah, other = view.network(effect.one), view.network(effect.other)
    towards = 1 if published > size else -1
    for title, one, against in _turned(report, view, effect):
        found = effects.between(one, against, effect.metric, effect.sign)
        if found.size is not None:
            moved = (
                effects.between(one, hah, effect.metric, towards)
                if against is other
                else effects.apart(found, effects.between(hah, other, effect.metric, effect.sign), towards)
            )
            yield Switch(title, found, moved, _nearer(found, published, size))


def _nearer(found: Finding, published: float, size: float) -> bool:
    """Whether an effect is nearer to the published size than ``size`` is, and has not passed it for sure."""
    assert found.size is not None
    sure = found.low is None or found.high is None or not found.low <= published <= found.high
    passed = (found.size > published) != (size > published) and sure
    return abs(found.size - published) < abs(size - published) and not passed


def _turned(report: Report, view: View, effect: Effect) -> Iterator[tuple[str, Network, Network]]:
    """What a switch is called, the HaH network with it, and what an effect compares that with: its other network, with
    the other lambda where that is the switch and it has one."""
    hah, other = view.network(effect.one), view.network(effect.other)
    turned = replace(view, lambda_1=not view.lambda_1)
    one, against = turned.network(effect.one), turned.network(effect.other)
    if one.runs and against.runs:
        yield f"lambda {'1.0' if turned.lambda_1 else '0.1'}{' in both' if against is not other else ''}", one, against
    for study in report.studies:
        if study.study.width == view.width:
            for reference, network in study.study.switched:
                if reference == hah.name:
                    yield network.name, network, other
