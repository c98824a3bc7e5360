"""The report as Markdown, LaTeX (booktabs), CSV and JSON, and the lines of a table that terminals show too."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.report.figures import Figure, Point, Series
from engine.report.published import CLEAN, MCE
from engine.report.tables import Cell, Column, Report, Suspicion, Table
from engine.results.corruptions import WITHOUT_FROST
from engine.results.estimates import Estimate
from engine.results.numbers import GENERATED

NOTHING = "\N{EN DASH}"
NOTABLE = 0.01  # a difference of at least one point is marked
_MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Shown:
    """The text of a cell; ``mark``: letters of footnotes; ``moved``: +1 or -1 for a notable difference."""

    text: str
    best: bool = False
    mark: str = ""
    moved: int = 0


@dataclass(frozen=True)
class NetworkLines:
    """The lines of one network in a panel, each (what it is, its cells); ``said`` holds of every number of ours."""

    title: str
    said: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Shown, ...]], ...]


class Footnotes:
    """Letters for what has to be said of numbers, in the order they are used."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, labels: Sequence[str]) -> str:
        """The letters of these labels."""
        for label in labels:
            if label not in self.texts:
                self.texts.append(label)
        return ",".join(self._letter(label) for label in labels)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((self._letter(text), _EXPLAINED.get(text, text)) for text in self.texts)

    def _letter(self, text: str) -> str:
        place = self.texts.index(text)
        return _MARKS[place] if place < len(_MARKS) else str(place + 1)


_EXPLAINED = {
    GENERATED: "generated: made from the test images with the published parameters, not the official files",
    WITHOUT_FROST: "15 of 16: without frost, whose photographs were not there; the published mean is of the same 15",
}


def percent(fraction: float) -> str:
    """0.8734 as '87.3'."""
    return f"{100 * fraction:.1f}"


def signed(fraction: float) -> str:
    """A difference in points: '+1.2'."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def blocks(
    table: Table, columns: Sequence[Column], notes: Footnotes, intervals: bool = False
) -> Iterator[NetworkLines]:
    """A panel network by network: ours, of corruptions also over all severities, published, difference.

    ``intervals``: single runs with their 95% confidence intervals, for which the corruptions have no room.
    """
    for row in table.rows:
        cells = [row.cells[column.name] for column in columns]
        ours, over = [cell.ours for cell in cells], [cell.all_severities for cell in cells]
        measured = [number for number in (*ours, *over) if number]
        shared = [label for label in _labels(measured[:1]) if all(label in number.labels for number in measured)]
        seeds = max((len(number.values) for number in measured), default=0)
        best = [row.title in table.best(column.name) for column in columns]
        kinds = [("severity 5" if table.by_severity else "ours", ours, best, MCE)]
        if table.by_severity:
            kinds.append(("severity 1-5", over, [False] * len(columns), CLEAN))
        lines = []
        for what, numbers, marked, none in kinds:
            shown = [
                _number(number, star, shared, seeds, notes, intervals and not table.by_severity)
                if number
                else Shown("" if column.name == none else NOTHING)
                for column, number, star in zip(columns, numbers, marked, strict=True)
            ]
            lines.append((what, tuple(shown)))
        published = [
            Shown(percent(there.value), mark=notes.mark(there.labels)) if there else Shown("")
            for there in (cell.published for cell in cells)
        ]
        if any(cell.published for cell in row.cells.values()):
            lines += [("published", tuple(published)), ("difference", tuple(map(_difference, cells)))]
        said = ([f"{seeds} seeds"] if seeds > 1 else []) + shared
        yield NetworkLines(row.title, tuple(said), tuple(lines))


def _number(number: Estimate, best: bool, shared: Sequence[str], seeds: int, notes: Footnotes, interval: bool) -> Shown:
    labels = [label for label in number.labels if label not in shared]
    if len(number.values) < seeds:
        labels.append(f"{len(number.values)} of {seeds} seeds")
    return Shown(said(number, interval=interval), best, notes.mark(labels))


def said(number: Estimate, fraction: bool = True, interval: bool = True) -> str:
    """A mean with the spread of its runs, or the ``interval`` of a single one; a ``fraction`` in percent."""
    form = percent if fraction else "{:.3g}".format
    if number.spread is not None:
        return f"{form(number.mean)} ± {form(number.spread)}"
    if interval and number.interval:
        return f"{form(number.mean)} [{form(number.interval[0])}, {form(number.interval[1])}]"
    return form(number.mean)


def _labels(numbers: Sequence[Estimate]) -> list[str]:
    return list(dict.fromkeys(label for number in numbers for label in number.labels))


def _difference(cell: Cell) -> Shown:
    if cell.difference is None:
        return Shown("")
    moved = 0 if abs(cell.difference) < NOTABLE else 1 if cell.difference > 0 else -1
    return Shown(signed(cell.difference), moved=moved)


def arrow(shown: Shown) -> str:
    """A notable difference's arrow."""
    return {1: " ▲", -1: " ▼", 0: ""}[shown.moved]


def verdicts(suspicion: Suspicion) -> list[tuple[str, str, str, str]]:
    """(run, check, verdict, words) of a network's masked-gradient checks, the verdict over all in one norm first."""
    found = []
    for run, masking in suspicion.found:
        found.append((run.run.id, f"all checks, {masking.title}", masking.verdict, ", ".join(masking.labels)))
        found += [("", check.name, check.verdict, check.words) for check in masking.checks]
    return found


MASKING_TITLE = "Signs of masked gradients"


# Markdown


def markdown(report: Report, figures: Sequence[Figure], drawn: Sequence[str] = ()) -> str:
    """The whole report; ``drawn``: keys of the figures whose SVG lies beside it."""
    parts = ["# The paper's tables and figures, and ours", "Accuracies in percent. ▲ ▼: at least one point off."]
    parts += [markdown_table(table) for table in report.every_table]
    parts.append(f"## {MASKING_TITLE}")
    for suspicion in report.every_suspicion:
        found = verdicts(suspicion)
        if found:
            head = f"| {md(suspicion.title)} | check | verdict | |\n|---|---|---|---|"
            parts.append("\n".join([head, *("| " + " | ".join(map(md, row)) + " |" for row in found)]))
        if suspicion.missing:
            what = f"Missing of {suspicion.title}" if found else f"{suspicion.title} is not checked"
            parts.append(f"{md(what)}: {_commands(suspicion.missing)}")
    for figure in figures:
        parts.append(f"## {md(figure.heading)}")
        if figure.file in drawn:
            parts.append(f"![{md(figure.title)}]({figure.file}.svg)")
        parts += [f"- {md(sentence)}" for sentence in sentences(figure)]
        if figure.missing:
            parts.append(f"Missing: {_commands(figure.missing)}")
    if report.remarks:
        parts.append("## Remarks\n\n" + "\n".join(f"- {md(remark)}" for remark in report.remarks))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """One table with its notes."""
    notes, parts = Footnotes(), [f"## {table.title}"]
    for panel, columns in table.panels:
        rows = [f"| {md(panel)} | | " + " | ".join(md(column.title) for column in columns) + " |"]
        rows.append("|---|---|" + "---:|" * len(columns))
        for block in blocks(table, columns, notes, intervals=True):
            head = md(", ".join((block.title, *block.said)))
            for what, line in block.lines:
                rows.append(f"| {head} | {what} | " + " | ".join(map(markdown_cell, line)) + " |")
                head = ""
        parts.append("\n".join(rows))
    said = [f"<sup>{letter}</sup> {md(text)}" for letter, text in notes] + [md(note) for note in table.notes]
    if table.commands:
        said.append(f"Missing: {_commands(table.commands)}")
    return "\n\n".join((*parts, *said))


def markdown_cell(cell: Shown) -> str:
    """A cell of a table, the best in bold."""
    text = f"**{md(cell.text)}**" if cell.best else md(cell.text) + arrow(cell)
    return text + (f"<sup>{cell.mark}</sup>" if cell.mark else "")


def _commands(commands: Sequence[str]) -> str:
    return ", ".join(f"`{command}`" for command in commands)


def md(text: str) -> str:
    """A text as Markdown says it."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


# LaTeX

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", NOTHING: "--", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "…": r"\ldots{}",
    '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}",
}  # fmt: skip

_TEX_HEADS = {"Linf 2/255": r"$\ell_\infty$ 2/255", "L2 0.25": r"$\ell_2$ 0.25"}


def latex(table: Table) -> str:
    """One table for a document with \\usepackage{booktabs,amssymb}."""
    notes, body = Footnotes(), list[str]()
    panels = table.panels
    if table.by_severity:  # two groups side by side, in small print, fit on a page
        pairs = [panels[place : place + 2] for place in (0, 2, 4)]
        panels = [(", ".join(name for name, _ in pair), [one for _, many in pair for one in many]) for pair in pairs]
    width = max(len(columns) for _, columns in panels)
    small = "\\scriptsize\\setlength{\\tabcolsep}{1.8pt}\n" if table.by_severity else ""
    for panel, columns in panels:
        blank = " & " * (width - len(columns))
        body.append(r"\midrule" if body else r"\toprule")
        heads = (_TEX_HEADS.get(column.title) or tex(column.title) for column in columns)
        body.append(tex(panel) + " & " + " & ".join(heads) + blank + r" \\")
        body.append(r"\midrule")
        for block in blocks(table, columns, notes):
            body.append(rf"\multicolumn{{{width + 1}}}{{l}}{{{tex(', '.join((block.title, *block.said)))}}} \\")
            for what, line in block.lines:
                body.append(f"\\quad {tex(what)} & " + " & ".join(map(latex_cell, line)) + f"{blank} \\\\")
    said = [rf"\textsuperscript{{{letter}}} {tex(text)}" for letter, text in notes]
    said += [tex(note) for note in table.notes]
    under = "".join(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {text}}}" + "\n" for text in said)
    head, _, caption = table.title.partition(". ")
    apart = head.partition(" at ")[2]  # of a study, that it is not the paper's network
    caption += f", at {apart}" if apart else ""
    missing = "".join(f"% missing: {command}\n" for command in table.commands)
    return (
        f"\\begin{{table}}\n\\centering\n{small}"
        f"\\caption{{{tex(caption)} (percent)}}\n\\label{{tab:{table.key}}}\n"
        f"\\begin{{tabular}}{{l{'r' * width}}}\n" + "\n".join(body) + "\n\\bottomrule\n\\end{tabular}\n"
        f"{under}\\end{{table}}\n{missing}"
    )


def latex_cell(cell: Shown) -> str:
    """A cell of a table, the best in bold."""
    text = cell.text if not re.fullmatch(r"-\d.*", cell.text) else f"\N{MINUS SIGN}{cell.text[1:]}"
    text, _, spread = text.partition(" ± ")
    done = tex(text + arrow(cell)).replace("\N{MINUS SIGN}", "$-$")
    done += rf"{{\tiny$\pm${spread}}}" if spread else ""
    done = rf"\textbf{{{done}}}" if cell.best else done
    return done + (rf"\textsuperscript{{{cell.mark}}}" if cell.mark else "")


def tex(text: str) -> str:
    """A text as LaTeX says it."""
    return "".join(_TEX.get(letter, letter) for letter in text)


# CSV and JSON: every digit


def csv_table(tables: Sequence[Table]) -> str:
    """One line for each number; fractions, every digit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["table", "network", "preset", "quantity", "ours", "spread", "seeds", "published", "difference",
         "all_severities", "all_severities_spread", "labels", "missing"]
    )  # fmt: skip
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells[column.name]
                labels = dict.fromkeys(label for one in (cell.ours, cell.all_severities) if one for label in one.labels)
                writer.writerow(
                    [table.key, row.title, row.network.preset, column.name, *_digits(cell.ours),
                     len(cell.ours.values) if cell.ours else 0, cell.published.value if cell.published else "",
                     "" if cell.difference is None else cell.difference, *_digits(cell.all_severities),
                     "; ".join(labels), "; ".join(cell.missing)]
                )  # fmt: skip
    return file.getvalue()


def _digits(one: Estimate | None) -> tuple[object, object]:
    if one is None:
        return "", ""
    return one.mean, "" if one.spread is None else one.spread


def document(report: Report, figures: Sequence[Figure]) -> dict[str, Any]:
    """The report as one JSON document; accuracies are fractions 0..1, those of figures in percent as drawn."""
    return {
        "tables": [
            {
                "key": table.key,
                "title": table.title,
                "rows": [
                    {
                        "network": row.title,
                        "preset": row.network.preset,
                        "runs": row.runs,
                        "cells": {column.name: _cell(row.cells[column.name]) for column in table.columns},
                    }
                    for row in table.rows
                ],
                "notes": list(table.notes),
                "missing": table.commands,
            }
            for table in report.every_table
        ],
        "studies": [
            {
                "width": study.study.width,
                "title": study.title,
                "parameters": list(study.parameters),
                "runs": [run.run.id for run in study.study.runs],
            }
            for study in report.studies
        ],
        "masking": [
            {
                "network": suspicion.title,
                "runs": [
                    {
                        "run": run.run.id,
                        "norm": masking.norm,
                        "eps": masking.eps,
                        "verdict": masking.verdict,
                        "labels": list(masking.labels),
                        "checks": [
                            {"name": check.name, "verdict": check.verdict, "words": check.words}
                            for check in masking.checks
                        ],
                    }
                    for run, masking in suspicion.found
                ],
                "missing": list(suspicion.missing),
            }
            for suspicion in report.every_suspicion
        ],
        "figures": [figure_document(figure) for figure in figures],
        "remarks": list(report.remarks),
    }


def figure_document(figure: Figure) -> dict[str, Any]:
    """The data of a figure."""
    statement = figure.statement
    return {
        "key": figure.file,
        "title": figure.title,
        "where": figure.where,
        "x": figure.x_label,
        "y": figure.y_label,
        "series": [_series(series) for series in figure.series],
        "curves": {key: [_series(series) for series in drawn] for key, drawn in figure.curves},
        "notes": list(figure.notes),
        "statement": statement and {"text": statement.text, "place": statement.place, "ours": figure.ours},
        "missing": list(figure.missing),
    }


def json_bytes(document: dict[str, Any]) -> bytes:
    """A document as a file."""
    return (json.dumps(document, indent=2) + "\n").encode()


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "ours": _estimate(cell.ours),
        "all_severities": _estimate(cell.all_severities),
        "published": cell.published and {"value": cell.published.value, "place": cell.published.place},
        "difference": cell.difference,
        "missing": list(cell.missing),
    }


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    interval = list(one.interval) if one.interval else None
    return {
        "mean": one.mean, "spread": one.spread, "interval": interval, "values": list(one.values),
        "labels": list(one.labels),
    }  # fmt: skip


def _series(series: Series) -> dict[str, Any]:
    return {"title": series.title, "labels": series.labels, "points": [_point(point) for point in series.points]}


def _point(point: Point) -> dict[str, Any]:
    """``draws``: of each run, where there were several draws of the noise, the standard deviation over them."""
    drawn = {"draws": list(point.y.draws)} if point.y.draws else {}
    interval = {"interval": list(point.y.interval)} if point.y.interval else {}
    return {"x": point.x, "mean": point.y.mean, "spread": point.y.spread, **interval, **drawn}


def sentences(figure: Figure) -> list[str]:
    """What the text states of a figure and where, how ours fares, and what else has to be said."""
    return figure.sentences(f" ({figure.statement.place})" if figure.statement else "")
