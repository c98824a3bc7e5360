"""The report as files: one page, tables in every format, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.disk import replacing
from engine.experiment.mistakes import RequestError
from engine.report import directions, formats
from engine.report.figures import Figure, draw
from engine.report.page import page
from engine.report.tables import Report


def write(files: Iterable[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Write files of these names and contents into a folder; returns them, raises RequestError where it cannot be."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            with replacing(folder / name) as file:
                file.write(content)
            written.append(folder / name)
    except OSError as error:
        raise RequestError(f"{folder}: the report cannot be written there: {error.strerror}") from None
    return written


def document(report: Report, figures: Sequence[Figure]) -> dict[str, Any]:
    """Everything as one JSON document: tables and figures, effects and explanations."""
    return formats.document(report, figures) | directions.document(report)


def markdown(report: Report, figures: Sequence[Figure], drawn: Sequence[str] = ()) -> str:
    """Everything as Markdown; ``drawn``: the figures whose SVG lies beside it."""
    return formats.markdown(report, figures, drawn) + "\n" + directions.markdown(report)


def of_paper(report: Report, figures: Sequence[Figure]) -> Iterator[tuple[str, bytes]]:
    """index.html, report.md, report.json, tables.csv, a .tex of each table and a .svg and .png of each figure that has
    data."""
    yield "index.html", page(report, figures).encode()
    drawn = {figure.file: draw(figure) for figure in figures}
    keys = [key for key, files in drawn.items() if files]
    yield "report.md", markdown(report, figures, keys).encode()
    yield "report.json", formats.json_bytes(document(report, figures))
    yield "tables.csv", formats.csv_table(report.every_table).encode()
    for table in report.every_table:
        yield f"{table.key}.tex", formats.latex(table).encode()
    for key, files in drawn.items():
        for kind, content in files.items():
            yield f"{key}.{kind}", content
