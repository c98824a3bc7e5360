"""The report as one HTML page that loads nothing: tables, figures, effects and how each number was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import NamedTuple

from engine.experiment.datasets import CORRUPTION_GROUPS, PAPER_CORRUPTIONS
from engine.report import charts, effects, explained, formats, published
from engine.report.effects import Effect, Finding, View
from engine.report.figures import Figure
from engine.report.networks import TABLE_PRESETS, Network, width_title
from engine.report.published import Published
from engine.report.sources import Sources, files_of, runs_of, trained, training, width
from engine.report.tables import Report, Suspicion, Table, title_of
from engine.results.corruptions import SEVERITIES, WITHOUT_FROST, corruption_error, corruption_name, mean_of
from engine.results.estimates import best
from engine.results.measured import Measured
from engine.results.numbers import CLEAN, Number, plain

TITLE = "Layer-wise Hebbian learning: the paper, and what was found"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NOTHING = f"<span class=quiet>{formats.NOTHING}</span>"
_NO_FROST = tuple(name for name in PAPER_CORRUPTIONS if name != "frost")
_CHIPS = {effects.SEEN: "seen", effects.NOT_SEEN: "unseen", effects.WITHIN: "within", effects.NOT_MEASURED: "none"}


class Pick(NamedTuple):
    """How a number is found in a run; ``signless``: it is no fraction."""

    of: Callable[[Measured], Number | None]
    fraction: bool = True


@dataclass(frozen=True)
class Columns:
    """A group of columns under one head; ``kind``: published, ours or study."""

    head: str
    kind: str
    columns: tuple[tuple[str, tuple[str, ...]], ...]


def page(report: Report, figures: Sequence[Figure]) -> str:
    """The whole page."""
    sources = Sources()
    seen = effects.views(report)
    found = {(effect.key, view.title): effects.found(effect, view) for effect in effects.effects() for view in seen}
    sections = [
        ("Effects", "effects", _effects(seen, found)),
        *((table.title, table.key, _of_table(report, table, sources)) for table in report.tables),
        *_figures(report, figures, sources),
        ("Explanations that were tried", "explanations", _explanations(report)),
        (formats.MASKING_TITLE, "masking", _masking(report, sources)),
        ("How it was measured", "measured", _measured(report, sources)),
        ("What is missing, and remarks", "missing", _missing(report, figures)),
    ]
    short = {
        "explanations": "Explanations",
        "masking": "Masked gradients",
        "measured": "Measured",
        "missing": "Missing",
    }
    names = [(key, short.get(key) or title.partition(".")[0]) for title, key, _ in sections]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name in names)
    body = "".join(
        f'<section id="{key}"><h2>{escape(title)}</h2>{content}</section>' for title, key, content in sections
    )
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(TITLE)}</title><style>{style}</style></head>\n"
        f"<body><header><h1>{escape(TITLE)}</h1>{_lead(report)}<nav>{links}</nav></header>\n"
        f"<main>{body}</main></body></html>\n"
    )


def _e(text: object, limit: int = 1000) -> str:
    """A text as HTML says it, whatever it is."""
    return escape(plain(text, limit))


def _n(text: str) -> str:
    """A text of numbers, with real minus signs."""
    return _e(text).replace("-", "\N{MINUS SIGN}")


def lead(report: Report) -> list[str]:
    """What was run and what was not, in sentences."""
    own = {run.run.id: run for preset in report.networks for run in report.networks[preset].runs}
    if own:
        trained = [preset for preset in TABLE_PRESETS if report.networks[preset].runs]
        said = [f"Of the paper's own networks {len(own)} runs are here ({'; '.join(map(title_of, trained))})."]
    else:
        said = [
            "No network of the paper's own size was trained here, so none of its numbers is reproduced or contradicted."
        ]
    what = "Beside them" if own else "What was trained"
    for study in report.studies:
        count = f"{study.parameters[-1]:,} parameters" if study.parameters else "fewer parameters"
        seeds = {run.seed for run in study.study.runs}
        said.append(
            f"{what} is the same recipe at {study.width} of the filters ({count}): another network, in "
            f"{len(study.study.runs)} runs, {'one seed' if len(seeds) == 1 else f'{len(seeds)} seeds'}. It says which "
            "way effects go, not how large they are in the paper's network."
        )
    return said


def _lead(report: Report) -> str:
    paper = (
        "Cekic, Bakiskan, Madhow: <cite>Layerwise Hebbian/anti-Hebbian (HaH) Learning in Deep Networks</cite> (2022), "
        "Tables 1 to 3 and Figures 2 to 6, beside what <code>hah</code> measured."
    )
    return f'<p class="lead">{paper}</p>' + "".join(f'<p class="lead">{_e(one)}</p>' for one in lead(report))


# Effects


def _effects(views: Sequence[View], found: dict[tuple[str, str], Finding]) -> str:
    every = effects.effects()
    places = list(dict.fromkeys(effect.place for effect in every))
    heads = "".join(f"<th scope=col>{_view(view)}</th>" for view in views)
    rows = []
    for place in places:
        there = [effect for effect in every if effect.place == place]
        cells = "".join(f"<td>{_tally([found[one.key, view.title] for one in there])}</td>" for view in views)
        rows.append(f"<tr><th scope=row>{_e(place)}</th>{cells}</tr>")
    top = f"<thead><tr><th scope=col>stated in</th>{heads}</tr></thead>"
    parts = [
        _scroll(f"<table class=tally>{top}<tbody>{''.join(rows)}</tbody></table>"),
        "<details><summary>The rule</summary>",
    ]
    parts += [f"<p>{_e(one)}</p>" for one in effects.RULE]
    parts.append("</details>")
    for place in places:
        lines = [_effect(effect, views, found) for effect in every if effect.place == place]
        head = f"<thead><tr><th scope=col>effect</th><th scope=col class=published>published</th>{heads}</tr></thead>"
        table = _scroll(f"<table class=effects>{head}<tbody>{''.join(lines)}</tbody></table>")
        shown = " open" if place == places[0] else ""
        count = "1 effect" if len(lines) == 1 else f"{len(lines)} effects"
        parts.append(f"<details{shown}><summary>{_e(place)}: {count}</summary>{table}</details>")
    return "".join(parts)


def _view(view: View) -> str:
    width, _, rest = view.title.partition(", ")
    note = "the paper's network" if view.width == 1 else "not the paper's network"
    return f"{_e(width)}<small>{_e(rest)}</small><small>{note}</small>"


def _tally(found: Sequence[Finding]) -> str:
    counts = Counter(one.verdict for one in found)
    measured = len(found) - counts[effects.NOT_MEASURED]
    if not measured:
        return "<span class=quiet>not measured</span>"
    bar = "".join(
        f'<i class="{_CHIPS[verdict]}" style="flex-grow:{counts[verdict]}"></i>'
        for verdict in _CHIPS
        if counts[verdict]
    )
    said = [f"{counts[effects.SEEN]} of {measured} seen"]
    said += [f"{counts[verdict]} {verdict}" for verdict in (effects.WITHIN, effects.NOT_SEEN) if counts[verdict]]
    left = counts[effects.NOT_MEASURED]
    return f"<span class=bar>{bar}</span>{', '.join(said)}" + (f"<small>{left} not measured</small>" if left else "")


def _effect(effect: Effect, views: Sequence[View], found: dict[tuple[str, str], Finding]) -> str:
    cells = []
    for view in views:
        one = found[effect.key, view.title]
        chip = f'<span class="chip {_CHIPS[one.verdict]}">{one.verdict}</span>'
        cells.append(f"<td>{chip}{_n(effects.size_of(effect, one))}{_small(one.labels)}</td>")
    sizes = {effects.published_size(effect, found[effect.key, view.title]) for view in views} - {None}
    printed = " / ".join(
        effects.signed(effect, one) for one in sorted(sizes, key=lambda one: one or 0) if one is not None
    )
    printed = printed or ("less" if effect.sign < 0 else "more")
    return f"<tr><th scope=row>{_e(effect.says)}</th><td class=published>{_n(printed)}</td>{''.join(cells)}</tr>"


def _small(labels: Sequence[str]) -> str:
    return f"<small>{_e(', '.join(labels))}</small>" if labels else ""


# Tables


def _of_table(report: Report, table: Table, sources: Sources) -> str:
    groups = _by_corruption(report, table, sources) if table.by_severity else _by_network(report, table, sources)
    rows = list(_corruption_rows()) if table.by_severity else [_e(row.title) for row in table.rows]
    notes = "".join(f"<p class=note>{_e(note)}</p>" for note in table.notes)
    said = "Percent. Below a number is its 95% interval over images (one run), or ± the spread of seeds; the raised "
    said += "number leads to how it was measured."
    if any(row.network.preset == "paper-hah" for row in table.rows):
        notes += "<p class=note>HaH without more is lambda 0.1, as the paper prints it; 1.0 probably acted there.</p>"
    return _table("corruption" if table.by_severity else "network", rows, groups) + f"<p class=note>{said}</p>{notes}"


def _by_network(report: Report, table: Table, sources: Sources) -> list[Columns]:
    """Rows are networks: published, ours at width 1, each study."""
    picks = [Pick(partial(_number, name=column.metric)) for column in table.columns]
    printed = tuple(
        (column.title, tuple(_published(row.cells[column.name].published) for row in table.rows))
        for column in table.columns
    )
    groups = [Columns("Published", "published", printed)]
    sets: list[tuple[str, str, dict[str, Network]]] = [("Ours, the paper's network", "ours", report.networks)]
    sets += [(_study_head(study.title), "study", study.networks) for study in report.studies]
    for head, kind, networks in sets:
        there = [networks[row.network.preset] for row in table.rows]
        if not any(network.runs for network in there):
            groups.append(_not_run(head, kind, len(there)))
            continue
        columns = tuple(
            (column.title, tuple(_cell(network, pick, sources) for network in there))
            for column, pick in zip(table.columns, picks, strict=True)
        )
        groups.append(Columns(head, kind, columns))
    return groups


def _study_head(title: str) -> str:
    width, _, rest = title.partition(", ")
    return f"{width[:1].upper()}{width[1:]}: {rest}"


def _not_run(head: str, kind: str, count: int) -> Columns:
    return Columns(head, kind, (("not run", (_NOTHING,) * count),))


def _corruption_rows() -> Iterator[str]:
    for group, names in list(CORRUPTION_GROUPS.items())[:4]:
        for place, name in enumerate(names):
            over = f"<em>{_e(group)}</em>" if place == 0 else ""
            yield over + _e(name.removesuffix(f"_{group}").removesuffix("_transform").replace("_", " "))
    yield "<em>all of them</em>mean of 16"
    yield "mean without frost"
    yield "clean"
    yield "mCE"


def _by_corruption(report: Report, table: Table, sources: Sources) -> list[Columns]:
    """Rows are corruptions: published, ours at width 1, each study."""
    rows = {row.network.preset: row for row in table.rows}
    printed = tuple(
        (title_of(preset), tuple(_published(one) for one in _printed_column(published.TABLE_2[preset])))
        for preset in published.TABLE_2
    )
    groups = [Columns("Published", "published", printed)]
    sets: list[tuple[str, str, dict[str, Network]]] = [("Ours, the paper's network", "ours", report.networks)]
    sets += [(_study_head(study.title), "study", study.networks) for study in report.studies]
    for head, kind, networks in sets:
        there = [networks[preset] for preset in (*rows, *TABLE_PRESETS) if networks[preset].runs]
        there = list(
            {network.preset: network for network in there if network.preset in rows or kind == "study"}.values()
        )
        columns = tuple(
            column
            for network in there
            if kind == "ours" or network.estimate(corruption_name("fog", 5))
            for column in _corrupted(network, networks["paper-standard"], sources)
        )
        groups.append(Columns(head, kind, columns) if columns else _not_run(head, kind, len(PAPER_CORRUPTIONS) + 4))
    return groups


def _printed_column(printed: dict[str, Published]) -> list[Published | None]:
    without = published.mean_beside(printed, (WITHOUT_FROST,))
    return [*(printed[name] for name in PAPER_CORRUPTIONS), printed[published.MEAN], without,
            printed[published.CLEAN], None]  # fmt: skip


def _corrupted(network: Network, standard: Network, sources: Sources) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Two columns of a network, at severity 5 and over all severities: each corruption, means, clean accuracy, mCE."""
    means = (PAPER_CORRUPTIONS, _NO_FROST)
    at_5 = [Pick(partial(_number, name=corruption_name(name, 5))) for name in PAPER_CORRUPTIONS]
    at_5 += [Pick(partial(_mean, names=names, severities=(5,))) for names in means]
    cells = [_cell(network, pick, sources) for pick in (*at_5, Pick(partial(_number, name=CLEAN)))]
    yield title_of(network.preset), (*cells, "")
    over = [Pick(partial(_mean, names=names, severities=SEVERITIES))
            for names in (*((name,) for name in PAPER_CORRUPTIONS), *means)]  # fmt: skip
    error = Pick(partial(corruption_error, standards=standard.runs), fraction=False)
    yield "1 to 5", (*(_cell(network, pick, sources) for pick in over), "", _cell(network, error, sources))


def _number(run: Measured, name: str) -> Number | None:
    return run.numbers.get(name)


def _mean(run: Measured, names: Sequence[str], severities: Sequence[int]) -> Number | None:
    return mean_of(names, run, severities)


def _published(one: Published | None) -> str:
    return f'<span title="{_e(one.place)}">{formats.percent(one.value)}</span>' if one else ""


def _cell(network: Network, pick: Pick, sources: Sources) -> str:
    """A number of ours with its interval or spread, what has to be said of it, and its sources."""
    each = [(run, pick.of(run)) for run in network.runs]
    chosen = best(number for _, number in each)
    pairs = [(run, number) for run, number in each if number is not None and number in chosen]
    found = network.over(pick.of)
    if found is None or not pairs:
        return _NOTHING
    form = formats.percent if pick.fraction else "{:.3f}".format
    ends = ""
    if found.spread is not None:
        ends = f"± {form(found.spread)}, {len(found.values)} seeds"
    elif found.interval:
        ends = f"{form(found.interval[0])} to {form(found.interval[1])}"
    first, *more = sources.places(pairs)  # of seeds, which were measured alike, the first
    every = ", ".join(map(str, (first, *more)))
    links = f'<a href="#m{first}" title="{every}">{first}{"…" if more else ""}</a>'
    title = _e(", ".join(network.labels(found)) or "all test images")
    return f'<b title="{title}">{form(found.mean)}</b><sup>{links}</sup>' + (f"<small>{ends}</small>" if ends else "")


def _table(corner: str, rows: Sequence[str], groups: Sequence[Columns]) -> str:
    spans = "".join(
        f'<th scope=colgroup colspan={len(group.columns)} class="{group.kind} first">{_e(group.head)}</th>'
        for group in groups
    )
    flat = [(group.kind + (" first" if place == 0 else ""), head, cells)
            for group in groups for place, (head, cells) in enumerate(group.columns)]  # fmt: skip
    heads = "".join(f'<th scope=col class="{kind}">{_e(head)}</th>' for kind, head, _ in flat)
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(f'<td class="{kind}">{cells[place]}</td>' for kind, _, cells in flat)
        over, _, title = row.rpartition("</em>")
        if over:
            blank = "".join(f'<td class="{kind}"></td>' for kind, _, _ in flat)
            lines.append(f"<tr class=opens><th>{over}</em></th>{blank}</tr>")
        lines.append(f"<tr><th scope=row>{title}</th>{cells}</tr>")
    head = f"<thead><tr><th rowspan=2 scope=col>{_e(corner)}</th>{spans}</tr><tr>{heads}</tr></thead>"
    return _scroll(f"<table class=numbers>{head}<tbody>{''.join(lines)}</tbody></table>")


def _scroll(table: str) -> str:
    return f'<div class="scroll" tabindex="0">{table}</div>'


# Figures, explanations, checks


_MEASURED_BY = {  # the names of the numbers of a figure begin so
    "figure-2": ("eval/sparsity/",), "figure-3b": ("eval/noise/",), "figure-4": ("eval/noise/", CLEAN),
    "figure-5": ("eval/minimum_norm/",), "figure-6": (CLEAN, "eval/noise/0.1/", "eval/attacks/"),
}  # fmt: skip


def _figures(report: Report, figures: Sequence[Figure], sources: Sources) -> Iterator[tuple[str, str, str]]:
    for figure in (one for one in figures if not one.where):
        statement = figure.statement
        parts = [f"<p>The paper: {_e(statement.text)} <small>({_e(statement.place)})</small>.</p>"] if statement else []
        for one in (other for other in figures if other.key == figure.key):
            head = _study_head(one.where) if one.where else "Ours, the paper's network"
            kind = "study" if one.where else "ours"
            parts.append(f'<div class="panel {kind}"><h3>{_e(head)}</h3>')
            if one.series:
                drawn = "".join(f"<figure>{svg}</figure>" for svg in charts.charts(one))
                parts.append(f'{charts.legend(one)}<div class="charts {figure.key}">{drawn}</div>')
                said = [text for text in one.sentences() if not text.startswith("The paper")]
                parts += [f"<p class=note>{_e(text)}</p>" for text in said]
                study = [other for other in report.studies if other.title == one.where]
                parts.append(_links(_places(one, study[0].networks if study else report.networks, sources)))
            else:
                parts.append("<p class=quiet>not run</p>")
            parts.append("</div>")
        yield figure.title, figure.key, "".join(parts)


def _places(figure: Figure, networks: dict[str, Network], sources: Sources) -> list[int]:
    """The sources of the numbers of a figure."""
    titles = {one.title for one in figure.series}
    drawn = [one for preset, one in networks.items() if figure.key == "figure-6" or title_of(preset) in titles]
    pairs = [
        (run, number)
        for network in drawn
        for run in network.runs
        for name, number in run.numbers.items()
        if name.startswith(_MEASURED_BY[figure.key])
    ]
    return sources.places(pairs)


def _links(places: Sequence[int]) -> str:
    """Where numbers were measured."""
    links = ", ".join(f'<a href="#m{place}">{place}</a>' for place in sorted(places))
    return f"<p class=note>Measured as in {links}.</p>"


def _explanations(report: Report) -> str:
    parts = [f"<p>{_e(explained.HOW)}</p>"]
    for one in explained.explanations(report):
        effect = one.effect
        lines = [f"<tr><th scope=row>as it is</th><td>{_n(effects.size_of(effect, one.found))}</td><td></td></tr>"]
        lines += [
            f"<tr><th scope=row>{_e(switch.title)}</th><td>{_n(effects.size_of(effect, switch.found))}</td>"
            f"<td>{_n(effects.size_of(effect, switch.moved))} {'explains a part' if switch.explains else ''}</td></tr>"
            for switch in one.switches
        ]
        head = (
            "<thead><tr><th scope=col>HaH network</th><th scope=col>effect</th><th scope=col>moved by</th></tr></thead>"
        )
        printed = _n(effects.signed(effect, one.published))
        parts.append(
            f"<h3>{_e(effect.says)} ({_e(effect.place)})</h3><p>Published {printed}, found "
            f"{_n(effects.size_of(effect, one.found))} at {_e(one.view.title)}. {_e(one.verdict)}.</p>"
            + (_scroll(f"<table class=numbers>{head}<tbody>{''.join(lines)}</tbody></table>") if one.switches else "")
        )
    return "".join(parts) if len(parts) > 1 else parts[0] + "<p class=quiet>nothing was measured yet</p>"


def _masking(report: Report, sources: Sources) -> str:
    parts = []
    for suspicion in report.every_suspicion:
        parts += list(_suspicion(suspicion, sources))
    unchecked = [suspicion.title for suspicion in report.every_suspicion if not suspicion.found]
    if unchecked:
        parts.append(f"<p class=quiet>Not checked: {_e(', '.join(unchecked))}.</p>")
    return "".join(parts)


def _suspicion(suspicion: Suspicion, sources: Sources) -> Iterator[str]:
    for run, masking in suspicion.found:
        lines = "".join(
            f"<tr><th scope=row>{_e(check.name)}</th><td>{_e(check.verdict)}</td>"
            f"<td class=words>{_e(check.words)}</td></tr>"
            for check in masking.checks
        )
        title = f"{suspicion.title}, {run.run.id}, {masking.title}: {masking.verdict}"
        place = sources.place(run, masking.file)
        yield (f"<details><summary>{_e(title)}</summary>{_small(masking.labels)}{_links([place])}"
               + _scroll(f"<table class=checks><tbody>{lines}</tbody></table>") + "</details>")  # fmt: skip


# How it was measured


def _measured(report: Report, sources: Sources) -> str:
    parts = [
        "<p>Each run with the command that trains it again, and each result with the command that measures it again in "
        "that run. The numbers are those behind the numbers of the tables.</p>"
    ]
    for run in runs_of(report):
        for file in files_of(run):
            sources.key(run, file)  # what no table needs: sparsity, SNR, minimum norms
        note = "" if width(run) == 1 else f", {width_title(width(run))}: not the paper's network"
        parts.append(
            f"<h3>{_e(run.run.id)}{_e(note)}</h3><p>{_e(trained(run))}</p><pre><code>{_e(training(run))}</code></pre><dl>"
        )
        for place, one in sources.of(run.run.id):
            parts.append(f'<dt id="m{place}">{place}. {_e(one.title)}</dt><dd>{_e(one.how)}'
                         f"<pre><code>{_e(one.command)}</code></pre></dd>")  # fmt: skip
        parts.append("</dl>")
    return "".join(parts)


def _missing(report: Report, figures: Sequence[Figure]) -> str:
    commands = [command for table in report.every_table for command in table.commands]
    commands += [command for figure in figures for command in figure.missing]
    commands += [command for suspicion in report.every_suspicion for command in suspicion.missing]
    lines = "\n".join(_e(command) for command in dict.fromkeys(commands))
    said = "".join(f"<li>{_e(remark)}</li>" for remark in report.remarks)
    whole = "<p>Everything of the paper, with its report at the end: <code>hah sweep run paper --report DIR</code>.</p>"
    return (
        whole
        + (f"<details><summary>Single commands</summary><pre><code>{lines}</code></pre></details>" if lines else "")
        + (f"<ul>{said}</ul>" if said else "")
    )
