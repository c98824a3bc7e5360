"""Every effect that the paper states, as data, and whether our runs show it, by one rule.

An effect is a difference between two networks in one quantity: its sign is published, its size where the tables print
both numbers. `RULE` says in words how a verdict is reached; `judged` is that rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.report import published
from engine.report.networks import BLOCKS_LAMBDA_1, BLOCKS_PRESETS, PRINTED, Network
from engine.report.published import MEAN
from engine.report.tables import ACCURACIES, Report
from engine.results.corruptions import WITHOUT_FROST, corruption_name, mean_over
from engine.results.estimates import best, measured_how
from engine.results.measured import Measured
from engine.results.numbers import CLEAN, Number, noise_name, of_paper, wilson

SEEN, NOT_SEEN, WITHIN, NOT_MEASURED = "seen", "not seen", "within the spread", "not measured"
SEEDS, IMAGES, SIGN = "seeds", "images", "sign"

RULE = (
    "An effect is seen where the whole 95% interval of our difference lies on the published side of zero, not seen "
    "where it lies on the other side, and within the spread where zero is in it.",
    "Where one of the two networks has several seeds, the interval is Student's t with the pooled variance of their "
    "numbers. Of one seed each it is that of the images: both 95% intervals (Wilson for fractions of images, mean and "
    "standard error for minimum norms), and the difference reaches from the lower end of one less the upper end of the "
    "other to the reverse. The images are the same for both networks, and which of them each had right is not kept of "
    "every quantity; this interval holds however the two go together, and is wider than a paired one.",
    "A mean over corruptions, draws or locations counts as many images as there were, not more: its interval is "
    "Wilson's too, the widest that a mean of numbers between 0 and 1 can have.",
    "SNR is kept without a spread over images: of one seed the sign alone decides, and it is said.",
    "Numbers that were measured in different ways, other than over a different number of images, are not compared.",
)

_T = (  # 97.5% quantiles of Student's t for 1, 2, ... degrees of freedom
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
_Z = 1.959963984540054
_MEAN_AT_5 = "mean over corruptions"
_EARLY = "SNR of blocks 2 to 6 above that of 7 to 13"
_MASKING = "masking"


@dataclass(frozen=True)
class Effect:
    """``one`` differs from ``other`` (rows of the paper's tables, or numbers of HaH blocks) by ``sign``, and by
    ``size`` where both numbers are printed (fractions); ``unit``: points are hundredths of an accuracy."""

    key: str
    place: str
    says: str
    metric: str
    one: str
    other: str
    sign: int
    size: float | None = None
    unit: str = "points"

    @property
    def scale(self) -> float:
        """From what is measured to its unit."""
        return 100.0 if self.unit == "points" else 1.0


@dataclass(frozen=True)
class Finding:
    """What runs say of an effect: ``size`` and the ends of its 95% interval as measured (fractions, dB, norms), by the
    ``basis`` seeds, images or sign; ``labels``: what has to be said of the numbers. ``runs``: of each network."""

    verdict: str = NOT_MEASURED
    size: float | None = None
    low: float | None = None
    high: float | None = None
    basis: str = ""
    labels: tuple[str, ...] = ()
    runs: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class View:
    """The networks that effects are looked for in: the paper's or a study's, with one lambda."""

    title: str
    networks: dict[str, Network]
    lambda_1: bool
    width: float = 1.0

    def network(self, name: str) -> Network:
        """The network of a row of a table, or with so many HaH blocks."""
        if name in PRINTED:
            return self.networks[PRINTED[name][0 if self.lambda_1 else -1]]
        return self.networks[(BLOCKS_LAMBDA_1 if self.lambda_1 else BLOCKS_PRESETS)[BLOCKS_PRESETS.index(name)]]


def views(report: Report) -> list[View]:
    """Width 1 with the lambda that probably acted, then every other lambda and width that HaH networks have runs of."""
    found = []
    for width, networks in ((1.0, report.networks), *((one.study.width, one.networks) for one in report.studies)):
        title = next((one.width for one in report.studies if one.study.width == width), "width 1")
        for lambda_1, preset in ((True, "paper-hah-lambda-1"), (False, "paper-hah")):
            first = lambda_1 and (width == 1 or not networks["paper-hah"].runs)
            if first or networks[preset].runs:
                found.append(View(f"{title}, lambda {'1.0' if lambda_1 else '0.1'}", networks, lambda_1, width))
    return found


_CALLED = {
    "paper-standard": "standard", "paper-adversarial": "adversarially trained", "paper-hah": "HaH",
    "no-hah-loss": "no HaH loss", "batch-norm": "batch norm", "no-threshold": "no threshold",
}  # fmt: skip


def effects() -> list[Effect]:
    """All of them, in the order of the paper."""
    return [*_of_table_1(), *_of_table_2(), *_of_table_3(), *_of_figures()]


def _of_table_1() -> Iterator[Effect]:
    for column in ACCURACIES:
        yield _printed("Table 1", published.TABLE_1, column.name, column.title, column.metric, "paper-hah",
                       "paper-standard")  # fmt: skip


def _of_table_2() -> Iterator[Effect]:
    pairs = (("paper-hah", "paper-standard"), ("paper-hah", "paper-adversarial"),
             ("paper-adversarial", "paper-standard"))  # fmt: skip
    for one, other in pairs:
        for name in (published.CLEAN, *PAPER_CORRUPTIONS, MEAN):
            metric = {published.CLEAN: CLEAN, MEAN: _MEAN_AT_5}.get(name) or corruption_name(name, 5)
            title = {MEAN: "mean of 16 corruptions"}.get(name, name.replace("_", " "))
            yield _printed("Table 2", published.TABLE_2, name, title, metric, one, other)


def _of_table_3() -> Iterator[Effect]:
    for other in ("no-hah-loss", "batch-norm", "no-threshold"):
        for column in ACCURACIES:
            yield _printed("Table 3", published.TABLE_3, column.name, column.title, column.metric, "paper-hah", other)


def _printed(
    place: str,
    table: dict[str, dict[str, published.Published]],
    name: str,
    title: str,
    metric: str,
    one: str,
    other: str,
) -> Effect:
    size = table[one][name].value - table[other][name].value
    says = f"{_CALLED[one]} {'more' if size > 0 else 'less'} accurate than {_CALLED[other]}: {title}"
    key = f"{place.lower().replace(' ', '-')}/{one}/{other}/{name}"
    return Effect(key, place, _capital(says), metric, one, other, 1 if size > 0 else -1, size)


def _of_figures() -> Iterator[Effect]:
    hah, standard = "paper-hah", "paper-standard"
    for block in range(1, 7):
        yield Effect(f"figure-2/{block}", "Figure 2", f"HaH sparser than standard in block {block}",
                     f"eval/sparsity/{block}/hoyer", hah, standard, -1, unit="Hoyer ratio")  # fmt: skip
    for block in range(2, 14):
        yield Effect(f"figure-3b/{block}", "Figure 3b", f"SNR of HaH higher at the input of block {block}",
                     noise_name(0.1, f"snr_db/{block}"), hah, standard, 1, unit="dB")  # fmt: skip
    says = "SNR of HaH higher above all in the first six blocks: inputs of blocks 2 to 6 against 7 to 13"
    yield Effect("figure-3b/early", "Figure 3b", says, _EARLY, hah, standard, 1, unit="dB")
    numbers = dict(published.STATEMENTS["figure-4"].numbers)
    yield Effect("figure-4/0.1", "Figure 4", "HaH more accurate than standard under noise 0.1", noise_name(0.1), hah,
                 standard, 1, numbers[hah] - numbers[standard])  # fmt: skip
    for norm, title in (("l0", "L0"), ("l1", "L1"), ("l2", "L2"), ("linf", "Linf")):
        yield Effect(f"figure-5/{norm}", "Figure 5", f"Mean minimum norm of HaH larger in {title}",
                     f"eval/minimum_norm/{norm}/mean", hah, standard, 1, unit=f"in {title}")  # fmt: skip
    for norm, title in (("linf", "Linf"), ("l2", "L2")):
        yield Effect(f"text/gradient-free/{norm}", "Text", f"Gradient-free attacks find no more than APGD in {title}",
                     f"{_MASKING}/{norm}", hah, hah, 1, unit="")  # fmt: skip
    for column in ACCURACIES:
        sign = -1 if column.name == published.CLEAN else 1
        for count in range(6):
            says = f"{count + 1} HaH blocks {'less' if sign < 0 else 'more'} accurate than {count}: {column.title}"
            yield Effect(f"figure-6/{column.name}/{count + 1}", "Figure 6", says, column.metric, f"blocks-{count + 1}",
                         f"blocks-{count}", sign)  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# The rule


def found(effect: Effect, view: View) -> Finding:
    """What the runs of a view say of an effect."""
    if effect.metric.startswith(_MASKING):
        return _gradient_free(effect, view.network(effect.one))
    return between(view.network(effect.one), view.network(effect.other), effect.metric, effect.sign)


def between(one: Network, other: Network, metric: str, sign: int) -> Finding:
    """The difference of two networks in a metric, and the verdict on a published ``sign``."""
    ours, theirs = (best(_number(run, metric) for run in network.runs) for network in (one, other))
    runs = len(ours), len(theirs)
    if not ours or not theirs:
        return Finding(runs=runs)
    how, other_how = measured_how(ours[0].labels), measured_how(theirs[0].labels)
    if how != other_how:
        said = f"{_listed(how)} against {_listed(other_how)}"
        return Finding(labels=("measured differently", said), runs=runs)
    labels = tuple(dict.fromkeys(label for number in (ours[0], theirs[0]) for label in number.labels))
    fraction = not any(one in metric for one in ("snr_db", "minimum_norm")) and metric != _EARLY
    return replace(judged(ours, theirs, sign, fraction), labels=labels, runs=runs)


def judged(ours: Sequence[Number], theirs: Sequence[Number], sign: int, fraction: bool = True) -> Finding:
    """The verdict on the difference of two means, one number of each seed: `RULE`. ``fraction``: they are means over
    images of something between 0 and 1."""
    a, b = [one.value for one in ours], [one.value for one in theirs]
    size = fmean(a) - fmean(b)
    freedom = len(a) + len(b) - 2
    if freedom:
        squares = sum((len(each) - 1) * variance(each) for each in (a, b) if len(each) > 1)
        reach = _t(freedom) * math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
        low, high, basis = size - reach, size + reach, SEEDS
    else:
        ends, others = interval(ours[0], fraction), interval(theirs[0], fraction)
        if ends is None or others is None:
            return Finding(_verdict(size, size, sign), size, basis=SIGN)
        low, high, basis = ends[0] - others[1], ends[1] - others[0], IMAGES
    return Finding(_verdict(low, high, sign), size, low, high, basis)


def apart(one: Finding, other: Finding, sign: int) -> Finding:
    """By how much an effect between two networks is another than that between two others, and the verdict on a
    ``sign``."""
    if one.size is None or other.size is None:
        return Finding()
    how, other_how = measured_how(one.labels), measured_how(other.labels)
    if how != other_how:
        return Finding(labels=("measured differently", f"{_listed(how)} against {_listed(other_how)}"))
    size = one.size - other.size
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Finding(_verdict(size, size, sign), size, basis=SIGN, labels=one.labels)
    low, high = one.low - other.high, one.high - other.low
    return Finding(_verdict(low, high, sign), size, low, high, one.basis, one.labels)


def _verdict(low: float, high: float, sign: int) -> str:
    if low <= 0 <= high:
        return WITHIN
    return SEEN if (low > 0) == (sign > 0) else NOT_SEEN


def interval(number: Number, fraction: bool) -> tuple[float, float] | None:
    """The 95% interval over images of one run's number; None of what is kept without a spread."""
    if number.error is not None:
        return number.value - _Z * number.error, number.value + _Z * number.error
    count = number.images or number.over
    return wilson(number.value, count) if fraction and count and 0 <= number.value <= 1 else None


def _t(freedom: int) -> float:
    """The 97.5% quantile, above twenty degrees of freedom that of twenty, which is a little more."""
    return _T[min(freedom, len(_T)) - 1]


def _number(run: Measured, metric: str) -> Number | None:
    if metric == _MEAN_AT_5:
        return mean_over(run, (5,))
    if metric != _EARLY:
        return run.numbers.get(metric)
    every = {block: run.numbers.get(noise_name(0.1, f"snr_db/{block}")) for block in range(2, 14)}
    there = {block: number for block, number in every.items() if number}
    if len(there) < len(every):
        return None
    early = fmean(number.value for block, number in there.items() if block <= 6)
    late = fmean(number.value for block, number in there.items() if block > 6)
    return replace(there[2], value=early - late)


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "the whole"


def _gradient_free(effect: Effect, network: Network) -> Finding:
    """By the check that attacks with scores only: one suspect run is enough."""
    norm = effect.metric.rpartition("/")[2]
    there = [run.maskings[norm] for run in network.runs if norm in run.maskings]
    there = [one for one in there if of_paper(norm, one.eps)]
    checks = [
        check.verdict for one in there for check in one.checks if check.name == "square" and check.verdict != "not run"
    ]
    labels = tuple(dict.fromkeys(label for one in there for label in one.labels))
    verdict = NOT_MEASURED if not checks else NOT_SEEN if "suspect" in checks else SEEN
    return Finding(verdict, labels=labels, runs=(len(checks), 0))


def published_size(effect: Effect, finding: Finding) -> float | None:
    """The published size of what was measured: of a mean without frost that of the same fifteen corruptions."""
    if effect.metric != _MEAN_AT_5 or WITHOUT_FROST not in finding.labels:
        return effect.size
    tables = (published.TABLE_2[name] for name in (effect.one, effect.other))
    one, other = (published.mean_beside(table, (WITHOUT_FROST,)) for table in tables)
    return one.value - other.value if one and other else None


def signed(effect: Effect, value: float) -> str:
    """A difference in its unit: '+37.4' points, '-0.499'."""
    form = {"points": "+.1f", "dB": "+.2f", "Hoyer ratio": "+.3f"}.get(effect.unit, "+.3g")
    return format(value * effect.scale, form)


def size_of(effect: Effect, one: Finding) -> str:
    """What was found of an effect: '+16.4 [14.4, 18.3]'; '' of nothing."""
    if one.size is None:
        return ""
    ends = (
        f" [{signed(effect, one.low)}, {signed(effect, one.high)}]"
        if one.low is not None and one.high is not None
        else (" (sign only)" if one.basis == SIGN else "")
    )
    unit = "" if effect.unit == "points" else f" {effect.unit}"
    return signed(effect, one.size) + unit + ends
