"""Tables 1, 2 and 3 as data: ours, mean and spread over seeds, beside the published numbers.

Accuracies are fractions 0..1; what is missing names the command that would fill it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.disk import read_json
from engine.experiment.datasets import CORRUPTION_GROUPS, PAPER_CORRUPTIONS
from engine.report import published
from engine.report.networks import BLOCKS_PRESETS, PRINTED, TABLE_PRESETS, Network, Study, find, width_title
from engine.report.published import CLEAN, L2, LINF, MCE, MEAN, NOISY, Published
from engine.results.corruptions import SEVERITIES, corruption_error, corruption_name, mean_of, mean_over
from engine.results.estimates import Estimate, best, estimate
from engine.results.measured import Measured  # fmt: skip
from engine.results.numbers import CLEAN as CLEAN_NAME
from engine.results.numbers import (
    ENOUGH,
    FROM_TRAINING,
    PAPER_ATTACKS,
    PAPER_EPS,
    PAPER_METHODS,
    Masking,
    attack_name,
    ball,
    noise_name,
    of_paper,
)
from engine.runs.layout import RunDirectory

TITLES = {
    "paper-standard": "Standard",
    "paper-adversarial": "Adversarial 8/255",
    "paper-hah": "HaH",
    "paper-hah-lambda-1": "HaH, lambda 1.0",
    "no-hah-loss": "No HaH loss",
    "batch-norm": "Batch norm instead",
    "batch-norm-lambda-1": "Batch norm instead, lambda 1.0",
    "no-threshold": "No thresholding",
    "no-threshold-lambda-1": "No thresholding, lambda 1.0",
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
    """One network."""

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
        return self.key.startswith("table-2")

    def best(self, column: str) -> set[str]:
        """Titles of the networks with the highest value of ours; nobody where there is nothing to compare."""
        ours = {row.title: cell.ours.mean for row in self.rows if (cell := row.cells[column]).ours}
        return {title for title, value in ours.items() if value == max(ours.values())} if len(ours) > 1 else set()


@dataclass(frozen=True)
class Suspicion:
    """The masked-gradient checks of a network's runs, in each norm that was measured."""

    title: str
    network: Network
    found: tuple[tuple[Measured, Masking], ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class StudyReport:
    """What was measured of the paper's networks at another width: the same tables without a published number, since
    none is of such a network. ``parameters``: how many its networks have, where their manifests say so."""

    study: Study
    tables: tuple[Table, ...]
    suspicions: tuple[Suspicion, ...]
    parameters: tuple[int, ...]

    @property
    def networks(self) -> dict[str, Network]:
        return self.study.networks

    @property
    def width(self) -> str:
        """'width 1/4'."""
        return width_title(self.study.width)

    @property
    def title(self) -> str:
        """What stands over its numbers wherever they are shown."""
        counts = (
            " to ".join(f"{one:,}" for one in dict.fromkeys((self.parameters[0], self.parameters[-1])))
            if (self.parameters)
            else ""
        )
        return f"{self.width}, not the paper's network" + (f" ({counts} parameters)" if counts else "")

    @property
    def suffix(self) -> str:
        """What tells its tables and files from the paper's."""
        return f"-width-{self.study.width:g}"


@dataclass(frozen=True)
class Report:
    """Everything `hah report paper` says, but for the figures."""

    networks: dict[str, Network]
    tables: tuple[Table, ...]
    suspicions: tuple[Suspicion, ...]
    remarks: tuple[str, ...]
    studies: tuple[StudyReport, ...] = ()

    @property
    def every_table(self) -> tuple[Table, ...]:
        """The paper's, then those of the studies."""
        return (*self.tables, *(table for study in self.studies for table in study.tables))

    @property
    def every_suspicion(self) -> tuple[Suspicion, ...]:
        """The paper's networks', then those of the studies."""
        return (*self.suspicions, *(one for study in self.studies for one in study.suspicions))


def paper(folders: Sequence[Path], chosen: Sequence[RunDirectory] = ()) -> Report:
    """The paper's tables from the runs of ``folders``, or from ``chosen`` only."""
    networks, studies, remarks = find(folders, chosen)
    return Report(
        networks, _tables(networks), tuple(_suspicions(networks)), tuple(remarks), tuple(map(_of_study, studies))
    )


def _tables(networks: dict[str, Network]) -> tuple[Table, ...]:
    return _accuracies("table-1", networks), _corruptions(networks), _accuracies("table-3", networks)


def _of_study(study: Study) -> StudyReport:
    """The tables of a study, of those networks that have runs."""
    counted = {read_json(run.run.manifest).get("network", {}).get("parameters") for run in study.runs}
    parameters = tuple(sorted(one for one in counted if type(one) is int and one > 0))
    bare = StudyReport(study, (), (), parameters)
    suspicions = tuple(
        replace(one, title=f"{one.title}, {bare.width}") for one in _suspicions(study.networks) if one.network.runs
    )
    tables = []
    for table in _tables(study.networks):
        rows = tuple(
            replace(row, cells={name: replace(cell, published=None) for name, cell in row.cells.items()})
            for row in table.rows
            if row.network.runs
        )
        number, _, title = table.title.partition(". ")
        head = f"{number} at {bare.title}. {title}"
        notes = table.notes[1:] if table.by_severity else table.notes
        tables += [replace(table, key=table.key + bare.suffix, title=head, rows=rows, notes=notes)] if rows else []
    return replace(bare, tables=tuple(tables), suspicions=suspicions)


def title_of(preset: str) -> str:
    """What tables and figures call the network of a preset."""
    if preset in TITLES or not preset.startswith("blocks-"):
        return TITLES.get(preset, preset)
    count = preset.removeprefix("blocks-")
    blocks, lambda_1 = count.removesuffix("-lambda-1"), count.endswith("-lambda-1")
    return f"{blocks} HaH blocks" + (", lambda 1.0" if lambda_1 else "")


def command(network: Network, name: str, suite: str) -> tuple[str, ...]:
    """What would measure a metric: a run where there is none, evaluations of the runs that lack it or have it measured
    in a weaker way than others."""
    if not network.runs:
        return (network.command,)
    lacking = network.without(name)
    return tuple(_evaluation(run, suite, name) for run in network.runs if run.run.id in lacking)


def _evaluation(run: Measured, suite: str, name: str = "", sets: Sequence[str] = ()) -> str:
    """The evaluation of a run that measures a metric well enough; ``sets``: settings of the suite, NAME=VALUE."""
    there = run.numbers.get(name)
    evaluated = there is not None and FROM_TRAINING not in there.labels
    if there and evaluated and f"epoch {run.state.epoch} of {run.state.epochs}" in there.labels:
        return f"hah resume {run.run.id}"  # it is measured as far as it is trained
    own = run.experiment["evaluate"] if run.experiment else {}
    changes = [*sets, *_changed(own.get(suite, {}), suite)]
    if own and name in _WANTED:
        _, setting, wanted, text = _WANTED[name]
        if not any(abs(value - wanted) < 1e-3 * wanted for value in own[suite][setting]):
            changes.append(f"{setting}={text}")
    changes = [f"{suite}.{change}" for change in changes]
    if evaluated and own.get("images"):
        changes.append("images=null")
    return f"hah eval {run.run.id} --suite {suite}" + "".join(
        f" --set {shlex.quote(f'evaluate.{change}')}" for change in changes
    )


def _changed(own: dict[str, Any], suite: str) -> Iterator[str]:
    """The changes to a run's own settings of a suite that are weaker than the defaults, or attacks not the paper's."""
    from engine.experiment.schema import MinimumNormSuite

    if suite == "attacks" and own:
        yield from (f"{setting}={usual}" for setting, usual in PAPER_ATTACKS.items() if own[setting] != usual)
        if set(own["methods"]) != set(PAPER_METHODS):
            yield f"methods=[{','.join(PAPER_METHODS)}]"
        return
    for setting, least in ENOUGH.get(suite, {}).items():
        if own.get(setting, least) < least:
            yield f"{setting}={least}"
    if own.get("trials") == 0:
        yield f"trials={MinimumNormSuite().trials}"


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
    for preset, printed in _variants(numbers):
        network = networks[preset]
        cells = {
            column.name: Cell(
                network.estimate(column.metric),
                printed[column.name],
                missing=command(network, column.metric, column.suite),
            )
            for column in ACCURACIES
        }
        title_here = title_of(preset)
        if key == "table-3" and preset in PRINTED["paper-hah"]:
            title_here = title_here.replace("HaH", "All included")
        rows.append(Row(title_here, network, cells))
    return Table(key, title, ACCURACIES, tuple(rows))


def _variants(numbers: dict[str, dict[str, Published]]) -> Iterator[tuple[str, dict[str, Published]]]:
    """Every preset that may be what a row of a table was printed of, with the row."""
    return ((preset, printed) for row, printed in numbers.items() for preset in PRINTED[row])


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
    rows = []
    for preset, printed in _variants(published.TABLE_2):
        network = networks[preset]
        cells: dict[str, Cell] = {}
        for name in PAPER_CORRUPTIONS:
            cells[name] = Cell(
                network.estimate(corruption_name(name, 5)),
                printed[name],
                estimate(mean_of([name], run, SEVERITIES) for run in network.runs),
                command(network, corruption_name(name, 5), "corruptions"),
            )
        cells[CLEAN] = Cell(
            network.estimate(CLEAN_NAME), printed[CLEAN], missing=command(network, CLEAN_NAME, "corruptions")
        )
        if cells["frost"].missing and cells["fog"].ours:  # its photographs are no part of the project
            cells["frost"] = replace(cells["frost"], missing=("hah data prepare cifar10-c", *cells["frost"].missing))
        means = [mean_over(run, (5,)) for run in network.runs]
        missing = tuple(
            _evaluation(run, "corruptions", corruption_name("fog", 5))
            for run, mean in zip(network.runs, means, strict=True)
            if mean not in best(means)
        )
        missing = missing if network.runs else command(network, "", "")
        at_5, over_all = estimate(means), estimate(mean_over(run, SEVERITIES) for run in network.runs)
        cells[MEAN] = Cell(at_5, published.mean_beside(printed, at_5.labels if at_5 else ()), over_all, missing)
        no_standard = command(standard, "", "") if not standard.runs else ()
        cells[MCE] = Cell(
            all_severities=estimate(corruption_error(run, standard.runs) for run in network.runs),
            missing=(*missing, *no_standard),
        )
        rows.append(Row(title_of(preset), network, cells))
    notes = (
        "The paper does not say which severity it shows; its numbers fit severity 5, which stands beside them.",
        "mCE: corruption error over severities 1 to 5 relative to the standard network's, mean over corruptions.",
    )
    return Table("table-2", "Table 2. Accuracy on corrupted images", columns, tuple(rows), notes)


def _corruption_title(name: str) -> str:
    return name.removesuffix("_noise").removesuffix("_blur").removesuffix("_transform")


def _suspicions(networks: dict[str, Network]) -> Iterator[Suspicion]:
    """The checks for masked gradients of every network that the tables praise or compare, and of Figure 6's others that
    have runs."""
    standard, seen = networks["paper-standard"], set[str]()
    for preset in (*TABLE_PRESETS, *BLOCKS_PRESETS):
        network = networks[preset]
        own = [run for run in network.runs if run.run.id not in seen]  # paper-hah's are blocks-6's too
        seen |= {run.run.id for run in own}
        if not own and preset in BLOCKS_PRESETS:
            continue
        found = tuple((run, masking) for run in network.runs for masking in run.maskings.values())
        source = standard.runs[0].run.id if standard.runs and preset != standard.preset else ""
        missing = tuple(one for run in network.runs for one in _checks(run, source))
        yield Suspicion(title_of(preset), network, found, missing if network.runs else command(network, "", ""))


def _checks(run: Measured, standard: str) -> Iterator[str]:
    """The evaluations that check a run in both norms, with the defaults' strength, with transfer from ``standard``."""
    own: dict[str, Any] = run.experiment["evaluate"]["masking"] if run.experiment else {"norm": "linf", "eps": 2 / 255}
    for norm, eps in PAPER_EPS.items():
        masking = run.maskings.get(norm)
        if masking and masking.sound and not (standard and masking.partial):
            continue
        sets = [] if own["norm"] == norm else [f"norm={norm}"]
        if sets or not of_paper(norm, own["eps"]):
            sets.append(f"eps={ball(norm, eps)}")
        yield _evaluation(run, "masking", sets=[*sets, *([f"standard={standard}"] if standard else [])])
