"""Tables 1, 2 and 3 as data: ours, mean and spread over seeds, beside the published numbers.

Accuracies are fractions 0..1; what is missing names the command that would fill it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from engine.experiment.datasets import CORRUPTION_GROUPS, PAPER_CORRUPTIONS
from engine.report import published
from engine.report.networks import Estimate, Network, estimate, find
from engine.report.published import CLEAN, L2, LINF, MCE, MEAN, NOISY, Published
from engine.report.results import CLEAN as CLEAN_NAME
from engine.report.results import Masking, Measured, Number, attack_name, noise_name
from engine.runs.layout import RunDirectory

SEVERITIES = (1, 2, 3, 4, 5)
WITHOUT_FROST = "15 of 16"
TITLES = {
    "paper-standard": "Standard",
    "paper-adversarial": "Adversarial 8/255",
    "paper-hah": "HaH",
    "no-hah-loss": "No HaH loss",
    "batch-norm": "Batch norm instead",
    "no-threshold": "No thresholding",
}


@dataclass(frozen=True)
class Column:
    """One quantity; ``panel`` is the group it is shown in, ``metric`` the name it is measured under if it has one."""

    name: str
    title: str
    suite: str
    metric: str = ""
    panel: str = ""


@dataclass(frozen=True)
class Cell:
    """Ours beside the published number; ``all_severities``: the mean over severities 1 to 5 of a corruption.

    ``missing`` holds the commands that would fill it, or measure what stands in from the training.
    """

    ours: Estimate | None = None
    published: Published | None = None
    all_severities: Estimate | None = None
    missing: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        return self.ours.mean - self.published.value if self.ours and self.published else None


@dataclass(frozen=True)
class Row:
    """One network; ``changed``: what its runs have otherwise than the preset."""

    title: str
    network: Network
    cells: dict[str, Cell]

    @property
    def runs(self) -> list[str]:
        return [run.run.id for run in self.network.runs]


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def panels(self) -> list[tuple[str, list[Column]]]:
        """The columns in the groups they are shown in."""
        return [(panel, list(group)) for panel, group in groupby(self.columns, key=lambda column: column.panel)]

    @property
    def commands(self) -> list[str]:
        """What would fill the missing cells."""
        return list(dict.fromkeys(c for row in self.rows for cell in row.cells.values() for c in cell.missing))

    @property
    def by_severity(self) -> bool:
        """Whether its numbers are of corruptions, each with five severities."""
        return self.key == "table-2"

    def best(self, column: str) -> set[str]:
        """Titles of the networks with the highest value of ours; nobody where there is nothing to compare."""
        ours = {row.title: cell.ours.mean for row in self.rows if (cell := row.cells[column]).ours}
        return {title for title, value in ours.items() if value == max(ours.values())} if len(ours) > 1 else set()


@dataclass(frozen=True)
class Suspicion:
    """The masked-gradient checks of a network's runs."""

    title: str
    network: Network
    found: tuple[tuple[Measured, Masking], ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything `hah report paper` says, but for the figures."""

    networks: dict[str, Network]
    tables: tuple[Table, ...]
    suspicions: tuple[Suspicion, ...]
    remarks: tuple[str, ...]


def paper(folder: Path, chosen: Sequence[RunDirectory] = ()) -> Report:
    """The paper's tables from the runs of ``folder``, or from ``chosen`` only."""
    networks, remarks = find(folder, chosen)
    tables = (_accuracies("table-1", networks), _corruptions(networks), _accuracies("table-3", networks))
    return Report(networks, tables, tuple(_suspicions(networks)), tuple(remarks))


def title_of(preset: str) -> str:
    """What tables and figures call the network of a preset."""
    return TITLES.get(preset) or f"{preset.removeprefix('blocks-')} HaH blocks"


def command(network: Network, name: str, suite: str) -> tuple[str, ...]:
    """What would measure a metric: a run where there is none, evaluations of the runs that lack it."""
    if not network.runs:
        return (f"hah run {network.preset}",)
    lacking = network.without(name)
    return tuple(
        f"hah eval {run.run.id} --suite {suite}{_setting(run, name)}" for run in network.runs if run.run.id in lacking
    )


def _setting(run: Measured, name: str) -> str:
    """What has to be set so that an evaluation of the run measures this, where its own settings would not."""
    if name not in _WANTED or not run.experiment:
        return ""
    suite, setting, wanted, text = _WANTED[name]
    if any(abs(value - wanted) < 1e-3 * wanted for value in run.experiment["evaluate"][suite][setting]):
        return ""
    return f" --set 'evaluate.{suite}.{setting}={text}'"


ACCURACIES = (
    Column(CLEAN, "clean", "attacks", CLEAN_NAME),
    Column(NOISY, "noise 0.1", "noise", noise_name(0.1)),
    Column(LINF, "Linf 2/255", "attacks", attack_name("linf", 2 / 255)),
    Column(L2, "L2 0.25", "attacks", attack_name("l2", 0.25)),
)
_WANTED = {
    noise_name(0.1): ("noise", "levels", 0.1, "[0.1]"),
    attack_name("linf", 2 / 255): ("attacks", "linf", 2 / 255, "[2/255]"),
    attack_name("l2", 0.25): ("attacks", "l2", 0.25, "[0.25]"),
}


def _accuracies(key: str, networks: dict[str, Network]) -> Table:
    """Tables 1 and 3."""
    title, numbers = {
        "table-1": ("Table 1. Accuracy against noise and adversarial attacks", published.TABLE_1),
        "table-3": ("Table 3. Accuracy without one component at a time", published.TABLE_3),
    }[key]
    rows = []
    for preset, printed in numbers.items():
        network = networks[preset]
        cells = {
            column.name: Cell(
                network.estimate(column.metric),
                printed[column.name],
                missing=command(network, column.metric, column.suite),
            )
            for column in ACCURACIES
        }
        title_here = "All included" if key == "table-3" and preset == "paper-hah" else title_of(preset)
        rows.append(Row(title_here, network, cells))
    return Table(key, title, ACCURACIES, tuple(rows))


def _corruptions(networks: dict[str, Network]) -> Table:
    """Table 2. The paper does not say which severity it shows; its numbers fit severity 5."""
    groups = {name: group for group, names in CORRUPTION_GROUPS.items() for name in names}
    columns = (
        *(Column(name, _corruption_title(name), "corruptions", panel=groups[name]) for name in PAPER_CORRUPTIONS),
        Column(CLEAN, "clean", "corruptions", CLEAN_NAME, "all"),
        Column(MEAN, "mean of 16", "corruptions", panel="all"),
        Column(MCE, "mCE", "corruptions", panel="all"),
    )
    standard = networks["paper-standard"]
    rows, short = [], set()
    for preset, printed in published.TABLE_2.items():
        network = networks[preset]
        cells: dict[str, Cell] = {}
        for name in PAPER_CORRUPTIONS:
            cells[name] = Cell(
                network.estimate(_name(name, 5)),
                printed[name],
                estimate(_over([name], run, SEVERITIES) for run in network.runs),
                command(network, _name(name, 5), "corruptions"),
            )
        cells[CLEAN] = Cell(
            network.estimate(CLEAN_NAME), printed[CLEAN], missing=command(network, CLEAN_NAME, "corruptions")
        )
        if cells["frost"].missing and cells["fog"].ours:  # its photographs are no part of the project
            cells["frost"] = replace(cells["frost"], missing=("hah data prepare cifar10-c", *cells["frost"].missing))
        names = {run.run.id: _present(run) for run in network.runs}
        lacking = [run for run, found in names.items() if not found]
        short |= {tuple(found) for found in names.values() if 0 < len(found) < len(PAPER_CORRUPTIONS)}
        missing = tuple(f"hah eval {run} --suite corruptions" for run in lacking)
        missing = missing if network.runs else command(network, "", "")
        at_5, over_all = (estimate(mean_over(run, s) for run in network.runs) for s in ((5,), SEVERITIES))
        cells[MEAN] = Cell(at_5, printed[MEAN], over_all, missing)
        no_standard = command(standard, "", "") if not standard.runs else ()
        cells[MCE] = Cell(
            all_severities=estimate(corruption_error(run, standard.runs) for run in network.runs),
            missing=(*missing, *no_standard),
        )
        rows.append(Row(title_of(preset), network, cells))
    notes = [
        "The paper does not say which severity it shows; its numbers fit severity 5, which stands beside them.",
        "mCE: corruption error over severities 1 to 5 relative to the standard network's, mean over corruptions.",
    ]
    for found in sorted(short):
        left_out = [name for name in PAPER_CORRUPTIONS if name not in found]
        same = ", ".join(
            f"{title_of(preset)} {100 * sum(printed[name].value for name in found) / len(found):.1f}"
            for preset, printed in published.TABLE_2.items()
        )
        notes.append(f"{len(found)} of 16: without {', '.join(left_out)}; the published means of these are {same}.")
    return Table("table-2", "Table 2. Accuracy on corrupted images", columns, tuple(rows), tuple(notes))


def _corruption_title(name: str) -> str:
    return name.removesuffix("_noise").removesuffix("_blur").removesuffix("_transform")


def _name(corruption: str, severity: int) -> str:
    return f"eval/corruptions/{corruption}/{severity}"


def _present(run: Measured) -> list[str]:
    """The corruptions that a mean goes over: the paper's 16, or 15 where there were no frost photographs, else none."""
    found: list[str] = [name for name in PAPER_CORRUPTIONS if _name(name, 5) in run.numbers]
    return found if set(PAPER_CORRUPTIONS) - set(found) <= {"frost"} else []


def mean_over(run: Measured, severities: Sequence[int], group: str = "") -> Number | None:
    """Mean accuracy over the paper's 16 corruptions (15 without frost), or those of a group, and severities; None where
    one is missing."""
    names = [name for name in _present(run) if not group or name in CORRUPTION_GROUPS[group]]
    mean = _over(names, run, severities)
    if mean is None or "frost" in names or group not in ("", "weather"):
        return mean
    return replace(mean, labels=(*mean.labels, WITHOUT_FROST))


def _over(names: Sequence[str], run: Measured, severities: Sequence[int]) -> Number | None:
    numbers = [run.numbers.get(_name(name, severity)) for name in names for severity in severities]
    found = [number for number in numbers if number]
    if not found or len(found) < len(numbers):
        return None
    labels = dict.fromkeys(label for number in found for label in number.labels)
    return Number(sum(number.value for number in found) / len(found), tuple(labels))


def corruption_error(run: Measured, standards: Sequence[Measured]) -> Number | None:
    """mCE of a run: of each corruption its error, summed over severities, over that of the standard runs (their mean);
    then the mean over corruptions (Hendrycks and Dietterich 2019, section 4.2). 1 is the standard network's own."""
    ratios, labels = [], dict[str, None]()
    for name in _present(run):
        ours = _over([name], run, SEVERITIES)
        theirs = estimate(_over([name], other, SEVERITIES) for other in standards)
        if ours is None or theirs is None or theirs.mean == 1:
            return None
        ratios.append((1 - ours.value) / (1 - theirs.mean))
        labels.update(dict.fromkeys((*ours.labels, *theirs.labels)))
    if not ratios:
        return None
    if len(ratios) < len(PAPER_CORRUPTIONS):
        labels[WITHOUT_FROST] = None
    return Number(sum(ratios) / len(ratios), tuple(labels))


def _suspicions(networks: dict[str, Network]) -> Iterator[Suspicion]:
    """The checks for masked gradients of every network that the tables praise or compare."""
    for preset in ("paper-standard", "paper-hah", "no-hah-loss", "batch-norm", "no-threshold"):
        network = networks[preset]
        found = tuple((run, run.masking) for run in network.runs if run.masking)
        missing = tuple(f"hah eval {run.run.id} --suite masking" for run in network.runs if not run.masking)
        yield Suspicion(title_of(preset), network, found, missing or (() if found else command(network, "", "")))
