"""Everything measured of one run as a list, beside what the paper prints of its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.experiment.datasets import CORRUPTION_GROUPS, CORRUPTIONS
from engine.report import networks, published
from engine.report.published import Published
from engine.report.tables import ACCURACIES
from engine.results.corruptions import SEVERITIES, WITHOUT_FROST, corruption_error, corruption_name, mean_over
from engine.results.estimates import best
from engine.results.measured import Measured, measured
from engine.results.numbers import Number, natural
from engine.results.suites import LISTED, suite_title
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state


@dataclass(frozen=True)
class Entry:
    """One quantity: measured and published as fractions (``percent``) or plain numbers; ``title`` alone heads a group.

    ``verdict`` stands in place of the number of a check. ``note`` says what a reader has to know of the measured one,
    or where the published one is printed.
    """

    title: str
    ours: float | None = None
    published: float | None = None
    percent: bool = True
    note: str = ""
    heads: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class RunResults:
    """Everything measured of a run; ``files``: name and time (Unix seconds) of each result file."""

    entries: list[Entry]
    files: list[tuple[str, float]]
    remarks: list[str]


def read(run: RunDirectory, pinned: str = "") -> RunResults:
    """Everything measured of a run, beside what the paper prints of its preset; ``pinned``: the reference run's id."""
    known = measured(run)
    files = [
        (path.name, path.stat().st_mtime) for path in sorted(run.results.glob("[!.]*.json"), key=lambda path: path.name)
    ]
    remarks = list(known.remarks)
    if known.state.preset in networks.TABLE_PRESETS and known.experiment and not networks.printed_as(known):
        remarks.append(f"beside no published numbers: {networks.why_not(known)}")
    return RunResults(entries(known, _corruption_error(known, pinned)), files, remarks)


def entries(known: Measured, mce: Number | None = None) -> list[Entry]:
    """The table, in the order of the paper: accuracy and robustness, corruptions, noise, norms, blocks, checks."""
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
        "Corruptions, severity 1-5": _all_severities(known, mce),
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
    ours, theirs = number.value if number else None, there.value if there else None
    return [Entry(title, ours, theirs, percent, "; ".join(notes))]


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


def _all_severities(known: Measured, mce: Number | None) -> list[Entry]:
    """Means over severities 1 to 5, and mCE."""
    lines = [*_means(known, SEVERITIES), *_line("mCE", mce)]
    if mce is None and mean_over(known, SEVERITIES):
        lines.append(Entry("mCE", note="relative to a pinned run or paper-standard; neither has these corruptions yet"))
    return lines


def _corruption_error(known: Measured, pinned: str) -> Number | None:
    """mCE relative to the pinned run, else to the folder's paper-standard; None where what it takes is not measured."""
    if mean_over(known, SEVERITIES) is None:
        return None
    for runs in _standards(known.run, pinned):
        means = {run.run.id: mean_over(run, SEVERITIES) for run in runs if _dataset(run) == _dataset(known)}
        standards = [run for run in runs if means.get(run.run.id) in best(means.values())]
        error = corruption_error(known, standards)
        if error is not None:
            whose = f"relative to {', '.join(run.run.id for run in standards)}"
            return replace(error, labels=(*error.labels, whose))
    return None


def _standards(run: RunDirectory, pinned: str) -> Iterator[Sequence[Measured]]:
    """The pinned run, then the standard runs of the paper's size."""
    folder = run.path.parent
    if pinned not in ("", run.id):
        yield [measured(RunDirectory(folder / pinned))]
    standard = [other for other in store.all_runs(folder) if read_state(other).preset == "paper-standard"]
    if standard:
        yield networks.find([folder], standard)[0]["paper-standard"].runs


def _dataset(known: Measured) -> str:
    return str(known.experiment.get("data", {}).get("dataset"))
