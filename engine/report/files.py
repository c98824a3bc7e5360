"""The report as files: tables in every format, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.disk import replacing
from engine.experiment.mistakes import RequestError
from engine.report import formats
from engine.report.figures import Figure, draw
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


def of_paper(report: Report, figures: Sequence[Figure]) -> Iterator[tuple[str, bytes]]:
    """report.md, report.json, tables.csv, a .tex of each table and a .svg and .png of each figure that has data."""
    drawn = {figure.file: draw(figure) for figure in figures}
    keys = [key for key, files in drawn.items() if files]
    yield "report.md", formats.markdown(report, figures, keys).encode()
    yield "report.json", formats.json_bytes(formats.document(report, figures))
    yield "tables.csv", formats.csv_table(report.every_table).encode()
    for table in report.every_table:
        yield f"{table.key}.tex", formats.latex(table).encode()
    for key, files in drawn.items():
        for kind, content in files.items():
            yield f"{key}.{kind}", content
