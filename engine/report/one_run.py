"""Everything measured of one run as a list, beside what the paper prints of its network; and as curves, over another
run's."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.experiment.datasets import CORRUPTION_GROUPS, CORRUPTIONS
from engine.report import networks, own, published
from engine.report.figures import Figure, Series, series_of
from engine.report.published import Published
from engine.report.tables import ACCURACIES
from engine.results.corruptions import SEVERITIES, WITHOUT_FROST, corruption_error, corruption_name, mean_over
from engine.results.estimates import best
from engine.results.groups import Group, grouped
from engine.results.measured import Measured, measured
from engine.results.numbers import FROM_TRAINING, Number, natural
from engine.results.suites import LISTED, suite_title
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state


@dataclass(frozen=True)
class Entry:
    """One quantity: measured and published as fractions (``percent``) or plain numbers; ``title`` alone heads a group.

    ``verdict`` stands in place of the number of a check. ``note`` says what a reader has to know of the measured one,
    or where the published one is printed. ``interval`` (95%) and ``images`` are those of a measured accuracy.
    """

    title: str
    ours: float | None = None
    published: float | None = None
    percent: bool = True
    note: str = ""
    heads: bool = False
    verdict: str = ""
    interval: tuple[float, float] | None = None
    images: int | None = None


@dataclass(frozen=True)
class RunResults:
    """Everything measured of a run; ``files``: name and time (Unix seconds) of each result file.

    ``figures`` and ``corruptions`` (the accuracy in % by severity under each) have the series of the run, by its id,
    and of what is ``behind`` it, by that group's name. ``whole``: what other runs of its folder say is in it.
    """

    entries: list[Entry]
    files: list[tuple[str, float]]
    remarks: list[str]
    known: Measured | None = None
    behind: Group | None = None
    figures: tuple[Figure, ...] = ()
    corruptions: tuple[tuple[str, tuple[Series, ...]], ...] = ()
    whole: bool = False


def read(run: RunDirectory, pinned: str = "") -> RunResults:
    """Everything measured of a run, beside what the paper prints of its preset and what other runs of its folder have;
    ``pinned``: the reference run's id."""
    return beside(alone(run), pinned)


def alone(run: RunDirectory) -> RunResults:
    """What can be said without the other runs of its folder."""
    known = measured(run)
    files = [
        (path.name, path.stat().st_mtime) for path in sorted(run.results.glob("[!.]*.json"), key=lambda path: path.name)
    ]
    remarks = list(known.remarks)
    if known.state.preset in networks.TABLE_PRESETS and known.experiment and not networks.printed_as(known):
        remarks.append(f"beside no published numbers: {networks.why_not(known)}")
    return RunResults(entries(known), files, remarks, known, **_drawn(known, []))


def beside(found: RunResults, pinned: str = "") -> RunResults:
    """The same with mCE, and with the curves of what is behind: the pinned run, else the folder's paper-standard, else
    the mean of the run's own group."""
    known = found.known
    if known is None:
        return found
    of_mce, of_curves = itertools.tee(_standards(known.run, pinned))
    behind = _behind(known, of_curves)
    rows = entries(known, _corruption_error(known, of_mce), "neither has these corruptions yet")
    return replace(found, entries=rows, behind=behind, whole=True, **_drawn(known, [behind] if behind else []))


def _drawn(known: Measured, behind: Sequence[Group]) -> dict[str, Any]:
    """Figures, and accuracies under each corruption."""
    groups = (Group(known.run.id, (known,)), *behind)
    each = []
    for name in CORRUPTIONS:
        levels: list[tuple[float | str, str]] = [(float(one), corruption_name(name, one)) for one in SEVERITIES]
        series = (series_of(group.name, group, levels, 100) for group in groups)
        if found := tuple(one for one in series if one.points):
            each.append((name.replace("_", " "), found))
    return {"figures": tuple(own.curves(groups)), "corruptions": tuple(each)}


def entries(known: Measured, mce: Number | None = None, why_none: str = "") -> list[Entry]:
    """The table, in the order of the paper: accuracy and robustness, corruptions, noise, norms, blocks, checks;
    ``why_none``: why there is no mCE."""
    preset, numbers = networks.printed_as(known), known.numbers
    printed = {**published.TABLE_3.get(preset, {}), **published.TABLE_1.get(preset, {})}
    corrupted = published.TABLE_2.get(preset, {})
    groups: dict[str, list[Entry]] = {
        "Accuracy": [
            line
            for column in ACCURACIES
            for line in (
                *_line(
                    column.title, numbers.get(column.metric), printed.get(column.name) or corrupted.get(column.name)
                ),
                *_line(f"{column.title}, worst case", numbers.get(_worst_case(column.metric))),
            )
        ],
        "Corruptions, severity 5": _severity_5(known, corrupted),
        "Corruptions, severity 1-5": _all_severities(known, mce, why_none),
        "Noise": [],
        "Attacks": [],
        "Minimum norms": [],
        "SNR at noise 0.1, dB": [],
        "Hoyer sparsity": [],
        "Active fraction": [],
        "Silent fraction": [],
    }
    above = {name for column in ACCURACIES for name in (column.metric, _worst_case(column.metric))}
    for name in sorted(numbers.keys() - above, key=natural):
        number = numbers[name]
        match name.split("/"):
            case ["eval", "noise", level, "accuracy"]:
                groups["Noise"] += _line(level.replace("-", " "), number)
            case ["eval", "attacks", attack, what]:
                title = attack.replace("-", " ", 1).capitalize()
                groups["Attacks"] += _line(title if what == "robust_accuracy" else f"{title}, worst case", number)
            case ["eval", "minimum_norm", norm, what]:
                title = f"{norm.capitalize()} {what.replace('_', ' ')}"
                groups["Minimum norms"] += _line(title, number, percent=what not in ("mean", "median"))
            case ["eval", "noise", "0.1", "snr_db", block]:
                groups["SNR at noise 0.1, dB"] += _line(f"block {block}", number, percent=False)
            case ["eval", "sparsity", block, "hoyer"]:
                groups["Hoyer sparsity"] += _line(f"block {block}", number, percent=False)
            case ["eval", "sparsity", block, ("active_fraction" | "silent_fraction") as what]:
                groups[what.replace("_", " ").capitalize()] += _line(f"block {block}", number)
            case ["eval", suite, *rest] if rest and suite not in LISTED:
                others = groups.setdefault(suite_title(suite).capitalize(), [])
                others += _line(" ".join(rest).replace("_", " "), number)
    found = [line for title, lines in groups.items() if lines for line in (Entry(title, heads=True), *lines)]
    for masking in known.maskings.values():
        found.append(Entry(f"Masking, {masking.title}", heads=True))
        found.append(Entry("all checks", verdict=masking.verdict, note="; ".join(masking.labels)))
        found += [Entry(check.name, verdict=check.verdict, note=check.words) for check in masking.checks]
    return found


def _worst_case(metric: str) -> str:
    """The metric of the worst case beside a robust accuracy; no metric's name beside any other."""
    start, _, what = metric.rpartition("/")
    return f"{start}/worst_case" if what == "robust_accuracy" else ""


def _line(title: str, number: Number | None, there: Published | None = None, percent: bool = True) -> list[Entry]:
    """The line of a quantity that is measured or published; none of one that is neither."""
    if number is None and there is None:
        return []
    notes = list(number.labels) if number else ["not measured yet"]
    if there:
        notes.append(there.place.partition(",")[0] + (" without frost" if WITHOUT_FROST in there.labels else ""))
    theirs, note = there.value if there else None, "; ".join(notes)
    if number is None:
        return [Entry(title, None, theirs, percent, note)]
    return [Entry(title, number.value, theirs, percent, note, interval=number.interval, images=number.images)]


def _means(known: Measured, severities: Sequence[int], there: Published | None = None) -> list[Entry]:
    """Mean accuracy over corruptions, and over those of each group."""
    lines = _line("mean", mean_over(known, severities), there)
    for group in CORRUPTION_GROUPS:
        lines += _line(f"mean of {group}", mean_over(known, severities, group))
    return lines


def _severity_5(known: Measured, printed: dict[str, Published]) -> list[Entry]:
    """Means and every corruption at the severity that the published numbers fit."""
    mean = mean_over(known, (5,))
    lines = _means(known, (5,), published.mean_beside(printed, mean.labels if mean else ()))
    for name in CORRUPTIONS:
        lines += _line(name.replace("_", " "), known.numbers.get(corruption_name(name, 5)), printed.get(name))
    return lines


def _all_severities(known: Measured, mce: Number | None, why_none: str) -> list[Entry]:
    """Means over severities 1 to 5, and mCE."""
    lines = [*_means(known, SEVERITIES), *_line("mCE", mce)]
    if mce is None and mean_over(known, SEVERITIES):
        relative = "relative to a pinned run or paper-standard"
        lines.append(Entry("mCE", note=f"{relative}; {why_none}" if why_none else relative))
    return lines


def _corruption_error(known: Measured, candidates: Iterable[Group]) -> Number | None:
    """mCE relative to the first that has what it takes; None where nothing has."""
    if mean_over(known, SEVERITIES) is None:
        return None
    for runs in (group.runs for group in candidates):
        means = {run.run.id: mean_over(run, SEVERITIES) for run in runs if _dataset(run) == _dataset(known)}
        standards = [run for run in runs if means.get(run.run.id) in best(means.values())]
        error = corruption_error(known, standards)
        if error is not None:
            whose = f"relative to {', '.join(run.run.id for run in standards)}"
            return replace(error, labels=(*error.labels, whose))
    return None


def _standards(run: RunDirectory, pinned: str) -> Iterator[Group]:
    """The pinned run, then the standard runs of the paper's size."""
    folder = run.path.parent
    if pinned not in ("", run.id):
        yield Group(f"{pinned}, pinned", (measured(RunDirectory(folder / pinned)),))
    standard = [other for other in store.all_runs(folder) if read_state(other).preset == "paper-standard"]
    if standard:
        runs = networks.find([folder], standard).networks["paper-standard"].runs
        name = f"mean of {len(runs)} seeds" if len(runs) > 1 else "".join(run.run.id for run in runs)
        yield Group(f"{name}, standard", runs)


def _behind(known: Measured, candidates: Iterable[Group]) -> Group | None:
    """The first of the candidates that is another network with results of the same data, else the run's group."""
    for group in candidates:
        runs = tuple(run for run in group.runs if _dataset(run) == _dataset(known) and _evaluated(run))
        if runs and known.run.id not in [run.run.id for run in runs]:
            return replace(group, runs=runs)
    same, here = store.group_of(known.run, known.state), known.run.path.parent
    seeds = [run for run in store.all_runs(here) if same and store.group_of(run, read_state(run)) == same]
    if len(seeds) > 1:
        means = [group for group in grouped([measured(run) for run in seeds])[0] if len(group.runs) > 1]
        return replace(means[0], name=f"mean of its {len(means[0].runs)} seeds") if means else None
    return None


def _evaluated(run: Measured) -> bool:
    return any(FROM_TRAINING not in number.labels for number in run.numbers.values())


def _dataset(known: Measured) -> str:
    return str(known.experiment.get("data", {}).get("dataset"))
