"""Tables and figures of one's own runs: what was measured of each group of them, and curves over what differs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.experiment import naming
from engine.experiment.fingerprint import settings
from engine.report import compare, formats
from engine.report.compare import Comparison, Quantity
from engine.report.figures import Figure, Point, Series, draw, mean_curve, numbered, series_of
from engine.report.formats import Footnotes, Shown, latex_cell, markdown_cell, md, tex
from engine.report.tables import ACCURACIES
from engine.results.corruptions import SEVERITIES, mean_over
from engine.results.groups import Group
from engine.results.numbers import CLEAN, noise_name

HOW = "Accuracies in percent: mean ± sample standard deviation of seeds, or [95% interval] of one run."
SMALLEST = "by minimum norms"
_LOG = 20.0  # an axis whose ends are further apart than this factor is logarithmic


@dataclass(frozen=True)
class GroupTable:
    """One panel of quantities: a row for each group, a cell for each quantity."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shown, ...]], ...]
    notes: tuple[tuple[str, str], ...]


def tables(comparison: Comparison) -> list[GroupTable]:
    """What was measured, panel by panel, and the numbers of blocks."""
    found = []
    panels = dict.fromkeys(quantity.panel for quantity in comparison.quantities)
    for panel in panels:
        found.append(_table(panel, [one for one in comparison.quantities if one.panel == panel], comparison.groups))
    for name, blocks in comparison.blocks.items():
        every = [Quantity("", f"block {n}", False, tuple(numbers)) for n, numbers in blocks.items()]
        found.append(_table(_capital(compare.BLOCK_TITLES[name]), every, comparison.groups))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(title: str, quantities: Sequence[Quantity], groups: Sequence[Group]) -> GroupTable:
    notes, rows = Footnotes(), []
    for place, group in enumerate(groups):
        cells = [_cell(one, place, group, notes) for one in quantities]
        seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
        rows.append((group.name + seeds, tuple(cells)))
    return GroupTable(title, tuple(one.title for one in quantities), tuple(rows), tuple(notes))


def _cell(quantity: Quantity, place: int, group: Group, notes: Footnotes) -> Shown:
    """A group's number in percent or as it is, with the spread of runs or the interval of one."""
    number = quantity.numbers[place]
    if number is None:
        return Shown(formats.NOTHING)
    best = place in quantity.best and bool(quantity.name)
    return Shown(formats.said(number, quantity.percent), best, notes.mark(group.labels(number)))


def markdown(comparison: Comparison, figures: Sequence[Figure], drawn: Sequence[str] = ()) -> str:
    """Every table, the settings that differ, and the figures whose SVG lies beside it (``drawn``: their keys)."""
    parts = ["# Runs side by side", HOW]
    for table in tables(comparison):
        lines = [f"## {md(table.title)}", ""]
        lines.append("| | " + " | ".join(map(md, table.heads)) + " |")
        lines.append("|---|" + "---:|" * len(table.heads))
        lines += [f"| {md(name)} | " + " | ".join(map(markdown_cell, cells)) + " |" for name, cells in table.rows]
        parts.append("\n".join(lines))
        parts += [f"<sup>{letter}</sup> {md(text)}" for letter, text in table.notes]
    if comparison.differences:
        names = [md(group.name) for group in comparison.groups]
        lines = ["## Settings that differ", "", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for setting, values in comparison.differences.items():
            lines.append(f"| {md(setting)} | " + " | ".join(md(naming.text(value)) for value in values) + " |")
        parts.append("\n".join(lines))
    for figure in figures:
        if figure.key in drawn:
            parts.append(f"## {md(figure.title)}\n\n![{md(figure.title)}]({figure.key}.svg)")
    runs = [f"- {md(group.name)}: {', '.join(md(run.run.id) for run in group.runs)}" for group in comparison.groups]
    parts.append("## Runs\n\n" + "\n".join(runs))
    if comparison.remarks:
        parts.append("## Remarks\n\n" + "\n".join(f"- {md(remark)}" for remark in comparison.remarks))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """Every table for a document with \\usepackage{booktabs}."""
    return "\n".join(_latex(table) for table in tables(comparison))


def _latex(table: GroupTable) -> str:
    body = [" & " + " & ".join(map(tex, table.heads)) + r" \\", r"\midrule"]
    body += [f"{tex(name)} & " + " & ".join(map(latex_cell, cells)) + r" \\" for name, cells in table.rows]
    under = [rf"\textsuperscript{{{letter}}} {tex(text)}" for letter, text in table.notes]
    said = "".join(rf"\par\smallskip\footnotesize {text}" + "\n" for text in under)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{tex(table.title)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(table.heads)}}}\n\\toprule\n" + "\n".join(body) + "\n\\bottomrule\n"
        f"\\end{{tabular}}\n{said}\\end{{table}}\n"
    )


def csv_table(comparison: Comparison) -> str:
    """One line for each number; fractions, every digit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["group", "quantity", "mean", "spread", "n", "low", "high", "images", "labels"])
    blocks = [
        Quantity(f"{name}/{n}", "", False, tuple(numbers))
        for name, rows in comparison.blocks.items()
        for n, numbers in rows.items()
    ]
    for quantity in (*comparison.quantities, *blocks):
        for group, number in zip(comparison.groups, quantity.numbers, strict=True):
            if number is not None:
                spread = "" if number.spread is None else number.spread
                ends = number.interval or ("", "")
                writer.writerow(
                    [group.name, quantity.name, number.mean, spread, len(number.values), *ends, number.images or "",
                     "; ".join(number.labels)]
                )  # fmt: skip
    return file.getvalue()


def document(comparison: Comparison, figures: Sequence[Figure]) -> dict[str, Any]:
    """The comparison as one JSON document, with the data of the figures."""
    return compare.document(comparison) | {"figures": [formats.figure_document(figure) for figure in figures]}


def files(comparison: Comparison, figures: Sequence[Figure]) -> Iterator[tuple[str, bytes]]:
    """The report as files: name and content."""
    drawn = {figure.key: draw(figure) for figure in figures}
    yield "report.md", markdown(comparison, figures, [key for key, made in drawn.items() if made]).encode()
    yield "report.json", formats.json_bytes(document(comparison, figures))
    yield "tables.csv", csv_table(comparison).encode()
    yield "tables.tex", latex(comparison).encode()
    for key, made in drawn.items():
        for kind, content in made.items():
            yield f"{key}.{kind}", content


# Figures


def figures(comparison: Comparison) -> list[Figure]:
    """The curves of what was measured, and those over a setting that differs."""
    return [*curves(comparison.groups), *_with_lines(axes(comparison.groups))]


def curves(groups: Sequence[Group]) -> list[Figure]:
    """Accuracy against noise, eps and severity, SNR and sparsity by block."""
    found = [
        _of_each("noise", "Accuracy under Gaussian noise", "standard deviation of the noise", groups, _noise),
        *(
            _of_each(f"eps-{norm}", f"Accuracy under {norm.capitalize()} attacks", f"eps ({norm.capitalize()})", groups,
                     partial(_attacked, norm=norm))
            for norm in ("linf", "l2", "l1", "l0")
        ),
        _of_each("severity", "Accuracy by severity of corruptions", "severity", groups, _severities),
        _of_each("snr", "SNR at each block's input, noise 0.1", "block", groups, _snr, "SNR in dB"),
        _of_each("sparsity", "Sparsity of each block's output", "block", groups, _sparsity, "Hoyer sparsity"),
    ]  # fmt: skip
    return _with_lines(found)


def _with_lines(found: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in found if any(len(one.points) > 1 for one in figure.series)]


def _of_each(
    key: str, title: str, x: str, groups: Sequence[Group], of: Callable[[Group], Series], y: str = "accuracy in %"
) -> Figure:
    found = tuple(one for group in groups if (one := of(group)).points)
    return Figure(key, title, x, y, found)


def _noise(group: Group) -> Series:
    return series_of(group.name, group, [(0.0, CLEAN), *numbered(group, "eval/noise/", "/accuracy")], 100)


def _attacked(group: Group, norm: str) -> Series:
    """Robust accuracy at every eps that was attacked with; where none was, the curve of the minimum norms."""
    sizes = numbered(group, f"eval/attacks/{norm}-", "/robust_accuracy")
    if sizes:
        return series_of(group.name, group, [(0.0, CLEAN), *sizes], 100)
    curve = mean_curve(group.name, group, f"eval/minimum_norm/{norm}/success_rate", 100)
    return Series(curve.title, tuple(Point(one.x, replace(one.y, labels=(SMALLEST,))) for one in curve.points))


def _severities(group: Group) -> Series:
    means = [(severity, group.over(partial(mean_over, severities=(severity,)))) for severity in SEVERITIES]
    return Series(group.name, tuple(Point(float(severity), mean.scaled(100)) for severity, mean in means if mean))


def _snr(group: Group) -> Series:
    return series_of(group.name, group, numbered(group, noise_name(0.1, "snr_db/")))


def _sparsity(group: Group) -> Series:
    return series_of(group.name, group, numbered(group, "eval/sparsity/", "/hoyer"))


def axes(groups: Sequence[Group]) -> Iterator[Figure]:
    """Accuracies as curves over a number in which the groups differ; a line for each of what else differs."""
    every = [settings(group.runs[0].experiment) if group.runs[0].experiment else {} for group in groups]
    for name in dict.fromkeys(name for one in every for name in one):
        values = [one.get(name) if naming.acts(name, one) else None for one in every]
        numeric = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(set(numeric)) < 2 or len(numeric) < len(values):
            continue
        rest = [{key: value for key, value in one.items() if key != name} for one in every]
        others = [" ".join(words) for words in naming.what_differs(rest)]
        yield from _over(name, [float(value) for value in numeric], others, groups)


def _over(name: str, values: Sequence[float], others: Sequence[str], groups: Sequence[Group]) -> Iterator[Figure]:
    places = range(len(groups))
    alone = len(set(others)) == 1
    if not alone and max(map(list(others).count, others)) < 2:
        return  # no line would have two points
    if not alone and len({(value, other) for value, other in zip(values, others, strict=True)}) < len(groups):
        return
    log = min(values) > 0 and max(values) / min(values) > _LOG
    lines: list[Series] = []
    for column in ACCURACIES:
        curves = [
            _along(other or "base", [(values[n], groups[n]) for n in places if others[n] == other], column.metric)
            for other in dict.fromkeys(others)
        ]
        if alone:
            lines += [Series(column.title, curves[0].points)] if curves[0].points else []
            continue
        key = f"{naming.short(name)}-{column.name}"
        yield Figure(
            key, f"{column.title} against {name}", name, "accuracy in %", tuple(filter(_drawn, curves)), log=log
        )
    if alone:
        yield Figure(naming.short(name), f"Accuracy against {name}", name, "accuracy in %", tuple(lines), log=log)


def _drawn(one: Series) -> bool:
    return bool(one.points)


def _along(title: str, groups: Iterable[tuple[float, Group]], metric: str) -> Series:
    rising = sorted(groups, key=lambda pair: pair[0])
    return Series(title, tuple(Point(x, one.scaled(100)) for x, group in rising if (one := group.estimate(metric))))
