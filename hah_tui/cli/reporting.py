"""Commands that report: the paper's tables and figures beside ours, and runs side by side."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.experiment.mistakes import RequestError
from engine.runs import kept, layout, store
from hah_tui.cli import output
from hah_tui.cli.output import Json, RunsDir, note, print_json, print_table
from hah_tui.text import number, percent, shown, shown_line

if TYPE_CHECKING:
    from engine.report.compare import Comparison
    from engine.report.figures import Figure
    from engine.report.tables import Report, Table
    from engine.results.estimates import Estimate
    from engine.runs.layout import RunDirectory

report_app = typer.Typer(help="Reports: the paper's tables and figures from your runs.", no_args_is_help=True)

_WIDE = 120  # columns from which intervals are shown
_TITLES = 34  # columns that the names of quantities take

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
Form = Annotated[Format | None, typer.Option("--format", help="How the tables are printed.")]
To = Annotated[
    Path | None, typer.Option("--to", help="Write tables (all formats) and figures (SVG, PNG) into this folder.")
]
Forms = dict[Format, Callable[[], str | dict[str, Any]]]  # of a report, made when asked for
Runs = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN|SWEEP]...", autocompletion=output.complete_run_or_sweep)
]
Compared = Annotated[list[str], typer.Argument(metavar="RUN|SWEEP...", autocompletion=output.complete_run_or_sweep)]
By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="SETTING",
        help="What makes runs one group: 'seed' (runs equal but for it), 'run' (none), or any setting.",
    ),
]
Results = Annotated[
    list[Path] | None,
    typer.Option(
        "--results", metavar="DIR", help="Also runs that 'hah export --results' has kept in DIR, or in its folders."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(report_app, name="report")
    app.command()(compare)


@report_app.callback()
def report_group() -> None:
    """Reports: the paper's tables and figures from your runs."""


@report_app.command()
def paper(
    references: Runs = None,
    form: Form = None,
    to: To = None,
    results: Results = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """The paper's Tables 1 to 3 and Figures 2 to 6 from your runs, beside the published numbers.

    Runs are found by their presets; naming some restricts it to those. What is missing names the command for it.
    """
    from engine.report import figures, files, formats, tables

    folders = _folders(runs_dir, results)
    report = tables.paper(folders, list(_chosen(references or [], folders)[0]))
    drawn = figures.every(report)
    forms: Forms = {
        "json": lambda: files.document(report, drawn),
        "markdown": lambda: files.markdown(report, drawn),
        "latex": lambda: "\n".join(formats.latex(table) for table in report.every_table),
        "csv": lambda: formats.csv_table(report.every_table),
    }
    if not _delivered("json" if json else form, forms, to, files.of_paper(report, drawn)):
        _print_report(report, drawn)


def compare(
    references: Compared,
    by: By = "",
    results: Results = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Compare runs: results with the best marked, block by block, and the settings that differ.

    Runs that are equal but for their seed are one column, the mean of those that finished.
    """
    from engine.report import compare as comparing

    found = _compared(references, by, _folders(runs_dir, results))
    if json:
        print_json(comparing.document(found))
    else:
        _print_comparison(found)


@report_app.command()
def runs(
    references: Compared,
    by: By = "",
    form: Form = None,
    to: To = None,
    results: Results = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Tables and figures of your own runs and sweeps: mean and spread over seeds, and curves over what differs."""
    from engine.report import own

    found = _compared(references, by, _folders(runs_dir, results))
    drawn = own.figures(found)
    forms: Forms = {
        "json": lambda: own.document(found, drawn),
        "markdown": lambda: own.markdown(found, drawn),
        "latex": lambda: own.latex(found),
        "csv": lambda: own.csv_table(found),
    }
    if not _delivered("json" if json else form, forms, to, own.files(found, drawn)):
        _print_comparison(found)
        if drawn:
            print("\nfigures (--to DIR draws them): " + ", ".join(figure.title for figure in drawn))


def _delivered(form: Format | None, forms: Forms, to: Path | None, contents: Iterator[tuple[str, bytes]]) -> bool:
    """Write the files of a report into a folder, print one of its forms; whether that was all that was asked for."""
    from engine.report import files

    written = [] if to is None else [str(path) for path in files.write(contents, to.absolute())]
    if form in forms:
        text = forms[form]()
        if isinstance(text, str):
            print(shown(text, 1 << 20), end="")
        else:
            print_json(text | ({"files": written} if written else {}))
    elif form is None and to is not None:
        print("\n".join(shown_line(path, 4096) for path in written))
    return form in forms or (form is None and to is not None)


def _compared(references: Sequence[str], by: str, folders: Sequence[Path]) -> Comparison:
    """The runs of ids and of sweeps, side by side; a sweep's are called as it calls them."""
    from engine.report import compare as comparing

    chosen, titles = _chosen(references, folders)
    return comparing.compare(list(chosen), by, titles)


def _chosen(references: Sequence[str], folders: Sequence[Path]) -> tuple[dict[RunDirectory, None], dict[str, str]]:
    """The runs of ids and of sweeps, and what sweeps call them, by fingerprint."""
    from engine.sweep import sweeps

    chosen: dict[RunDirectory, None] = {}
    titles: dict[str, str] = {}
    known = sweeps.names(folders[0])
    for reference in references:
        if reference in known:
            trials = sweeps.trials(sweeps.read(folders[0], reference), folders)
            titles |= {trial.point.group: trial.point.label or reference for trial in trials}
            there = [trial.look.run for trial in trials if trial.look is not None]
            if not there:
                raise RequestError(f"the sweep {reference} has no runs yet; 'hah sweep resume {reference}' queues them")
            chosen |= dict.fromkeys(there)
        else:
            chosen[store.resolve(reference, *folders, sweeps=known)] = None
    return chosen, titles


def write_of_sweep(name: str, folder: Path, to: Path) -> list[Path]:
    """Write the report of a sweep: the paper's where its runs are the paper's networks, also at another width, else
    that of its own runs."""
    from engine.report import compare as comparing
    from engine.report import figures, files, own, tables

    chosen, titles = _chosen([name], [folder])
    report = tables.paper([folder], list(chosen))
    if report.studies or any(network.runs for network in report.networks.values()):
        return files.write(files.of_paper(report, figures.every(report)), to.absolute())
    found = comparing.compare(list(chosen), "", titles)
    return files.write(own.files(found, own.figures(found)), to.absolute())


def _folders(runs_dir: Path | None, results: Sequence[Path] | None) -> list[Path]:
    """The runs folder, and those in which results of runs are kept; raises RequestError where one holds none."""
    return [layout.runs_folder(runs_dir), *(folder for one in results or () for folder in kept.folders(one.absolute()))]


def _print_report(report: Report, figures: Sequence[Figure]) -> None:
    from engine.report import directions
    from engine.report.formats import MASKING_TITLE, sentences, verdicts

    paint = _Paint()
    for table in report.every_table:
        _print_table_of_paper(table, paint)
    paint(f"{MASKING_TITLE}", "bold")
    for suspicion in report.every_suspicion:
        first = ""
        for run, check, verdict, words in verdicts(suspicion):
            style = {"suspect": "yellow", "incomplete": "yellow", "clear": "green"}.get(verdict, "dim")
            if run:
                paint(f"{suspicion.title}, {run}, {check}: {verdict}{f', {words}' if words else ''}", style)
                first = first or run
                whole = run == first
            elif whole or verdict == "suspect":  # of further runs only what is suspect
                paint(f"  {check}: {verdict}. {words}", style)
        if not suspicion.found:
            paint(f"{suspicion.title}: not checked")
    _missing([c for suspicion in report.every_suspicion for c in suspicion.missing], paint)
    print()
    paint("Figures (--to DIR draws them)", "bold")
    for figure in figures:
        state = "" if figure.series else " (no data yet)"
        paint(f"{figure.heading}{state}")
        for sentence in sentences(figure):
            paint(f"  {sentence}", "dim" if sentence.startswith("The paper") else "")
        _missing(figure.missing, paint)
    if said := list(directions.lines(report)):
        print()
        paint("Effects that the paper states", "bold")
        for text, style in said:
            paint(text, style)
    for remark in report.remarks:
        note(shown_line(remark, 600))


def _print_table_of_paper(table: Table, paint: _Paint) -> None:
    from engine.report.formats import Footnotes, arrow, blocks

    notes = Footnotes()
    paint(f"{table.title}, percent", "bold")
    for panel, columns in table.panels:
        found = list(blocks(table, columns, notes, intervals=_room() >= _WIDE))
        rows = [
            [(what, [(cell, cell.text + arrow(cell) + (f" {cell.mark}" if cell.mark else "")) for cell in cells])
             for what, cells in block.lines]
            for block in found
        ]  # fmt: skip
        first = max(len(what) for block in rows for what, _ in block) + 2
        widths = [
            max(len(column.title), *(len(cells[place][1]) for block in rows for _, cells in block))
            for place, column in enumerate(columns)
        ]
        titles = "  ".join(column.title.rjust(width) for column, width in zip(columns, widths, strict=True))
        paint(f"{panel:<{first}}  {titles}", "dim")
        for block, lines in zip(found, rows, strict=True):
            paint(", ".join((block.title, *block.said)))
            for what, cells in lines:
                styles = ["dim" if what == "published" else "bold" if cell.best else "" for cell, _ in cells]
                texts = [text.rjust(width) for (_, text), width in zip(cells, widths, strict=True)]
                pieces = [
                    (f"  {what:<{first - 2}}", "dim"),
                    *((f"  {t}", s) for t, s in zip(texts, styles, strict=True)),
                ]
                paint.line(pieces)
    for letter, text in notes:
        paint(f"{letter} {text}", "dim")
    for text in table.notes:
        paint(text, "dim")
    _missing(table.commands, paint)
    print()


def _missing(commands: Sequence[str], paint: _Paint) -> None:
    """What would fill the gaps, a command a line."""
    for place, command in enumerate(dict.fromkeys(commands)):
        paint(f"{'missing:' if place == 0 else '        '} {command}", "yellow")


def _print_comparison(found: Comparison) -> None:
    from engine.report.compare import BLOCK_TITLES
    from engine.results.numbers import ball

    ids = [group.name + (f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else "") for group in found.groups]
    room = _room()
    whose = [" ".join(run.run.id for run in group.runs) for group in found.groups]
    letters = [_letter(place).upper() for place in range(len(ids))]
    short = _TITLES + sum(len(id) + 2 for id in ids) <= room
    if not short or ids != whose:
        for letter, id, runs in zip(letters, ids, whose, strict=True):
            print(shown_line(("" if short else f"{letter} ") + id + ("" if runs == id else f": {runs}"), 1000))
        print()
    ids = ids if short else letters  # the names are above
    rows: list[list[str]] = []
    said: dict[str, str] = {}

    def marks(labels: Sequence[str]) -> str:
        letters = [said.setdefault(label, _letter(len(said))) for label in labels]
        return f" {','.join(letters)}" if letters else ""

    for quantity in found.quantities:
        cells = []
        for place, one in enumerate(quantity.numbers):
            text = "-" if one is None else _said(one, quantity.percent, room)
            star = "*" if place in quantity.best else " "
            cells.append(f"{text}{star}{marks(found.groups[place].labels(one) if one else ())}")
        rows.append([quantity.title, *cells])
    for norm, checks in found.masking.items():
        cells = [f"{one.verdict} at {ball(norm, one.eps)}{marks(one.labels)}" if one else "-" for one in checks]
        rows.append([f"masked gradients, {norm.capitalize()}", *cells])
    if rows:
        print_table(["", *ids], rows, range(1, len(ids) + 1))
        for label, letter in said.items():
            print(f"{letter} {shown_line(label)}")
        print("* the best")
    else:
        print("nothing has been measured of these runs; 'hah eval RUN' does")
    for name, blocks in found.blocks.items():
        top = max(one.mean for numbers in blocks.values() for one in numbers if one)
        print(f"\n{BLOCK_TITLES[name]}")
        width = max(2, min(12, (room - 6) // len(ids) - 10))
        lines = [
            [n, *("-" if one is None else f"{_bar(one.mean, top, width)} {one.mean:6.3g}" for one in numbers)]
            for n, numbers in blocks.items()
        ]
        print_table(["block", *ids], lines, (0,))
    print("\nsettings that differ" if found.differences else "\nthe settings do not differ")
    if found.differences:
        print_table(["", *ids], [[name, *map(str, values)] for name, values in found.differences.items()])
    for remark in found.remarks:
        note(shown_line(remark, 600))


def _room() -> int:
    """How many columns there are to write in."""
    return shutil.get_terminal_size().columns if output.is_terminal() else 10_000


def _said(one: Estimate, fraction: bool, room: int) -> str:
    """A number with the spread of runs, or with the interval of one where the screen is wide."""
    form = percent if fraction else number
    if one.spread is not None:
        return f"{form(one.mean)} ± {form(one.spread)}"
    if one.interval and room >= _WIDE:
        low, high = one.interval
        return f"{form(one.mean)} [{100 * low:.1f}, {100 * high:.1f}]"
    return form(one.mean)


def _letter(place: int) -> str:
    """a, b, ..., z, a1, b1, ..."""
    return chr(ord("a") + place % 26) + (str(place // 26) if place >= 26 else "")


def _bar(value: float, top: float, width: int) -> str:
    """A bar of text, full at ``top``."""
    eighths = round(8 * width * max(0.0, value) / top) if top > 0 else 0
    if (sys.stdout.encoding or "").lower().startswith("utf"):
        return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).strip().ljust(width)
    return ("#" * round(eighths / 8)).ljust(width)


class _Paint:
    """Prints lines, in colour on a terminal."""

    def __init__(self) -> None:
        self._console: Any = None
        if output.is_terminal():
            from rich.console import Console

            self._console = Console(highlight=False)

    def __call__(self, text: str, style: str = "") -> None:
        self.line([(text, style)])

    def line(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Print pieces of text, each with its style, as one line."""
        cleaned = [(shown_line(text, 700), style) for text, style in pieces]
        if self._console is None:
            print("".join(text for text, _ in cleaned).rstrip())
            return
        from rich.text import Text

        self._console.print(Text.assemble(*cleaned))
