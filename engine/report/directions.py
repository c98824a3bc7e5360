"""Effects and explanations as JSON, Markdown and lines; and the tables in short, ours of every width beside the
published, for a page of a repository."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.report import effects, explained, formats, published, sources
from engine.report.effects import Effect, Finding, View
from engine.report.explained import Explanation
from engine.report.formats import md
from engine.report.networks import TABLE_PRESETS, Network
from engine.report.tables import Report, Table, title_of
from engine.results.corruptions import SEVERITIES, WITHOUT_FROST, corruption_name, mean_of
from engine.results.estimates import Estimate
from engine.results.measured import Measured
from engine.results.numbers import CLEAN, Number

_NO_FROST = tuple(name for name in PAPER_CORRUPTIONS if name != "frost")


def document(report: Report) -> dict[str, Any]:
    """Every effect with what was found, the rule, and the explanations that were tried; sizes as measured."""
    views = effects.views(report)
    return {
        "rule": list(effects.RULE),
        "sources": sources.document(report),
        "published_means_without_frost": {
            preset: one.value
            for preset, printed in published.TABLE_2.items()
            if (one := published.mean_beside(printed, (WITHOUT_FROST,)))
        },
        "means_without_frost": [
            {"width": network.width, "preset": network.preset, "severity_5": at_5.mean, "severities_1_to_5": over.mean}
            for networks in (report.networks, *(study.networks for study in report.studies))
            for network in networks.values()
            if (at_5 := network.over(partial(_without_frost, severities=(5,))))
            and (over := network.over(partial(_without_frost, severities=SEVERITIES)))
        ],
        "effects": [
            {
                "key": effect.key,
                "place": effect.place,
                "says": effect.says,
                "sign": effect.sign,
                "unit": effect.unit,
                "published": effect.size,
                "found": [_finding(effect, effects.found(effect, view), view) for view in views],
            }
            for effect in effects.effects()
        ],
        "explanations": [
            {
                "effect": one.effect.key,
                "view": one.view.title,
                "published": one.published,
                "found": _finding(one.effect, one.found, one.view),
                "verdict": one.verdict,
                "switches": [
                    {
                        "title": switch.title,
                        "found": _finding(one.effect, switch.found, one.view),
                        "moved": _finding(one.effect, switch.moved, one.view),
                        "explains": switch.explains,
                    }
                    for switch in one.switches
                ],
            }
            for one in explained.explanations(report)
        ],
    }


def _without_frost(run: Measured, severities: Sequence[int]) -> Number | None:
    return mean_of(_NO_FROST, run, severities)


def _finding(effect: Effect, one: Finding, view: View) -> dict[str, Any]:
    return {
        "width": view.width, "lambda": 1.0 if view.lambda_1 else 0.1, "verdict": one.verdict, "size": one.size,
        "low": one.low, "high": one.high, "by": one.basis, "runs": list(one.runs), "labels": list(one.labels),
        "published": effects.published_size(effect, one),
    }  # fmt: skip


def tallies(report: Report) -> Iterator[tuple[str, list[str]]]:
    """(where the paper states effects, how many of them are seen in each view)."""
    views, every = effects.views(report), effects.effects()
    for place in dict.fromkeys(effect.place for effect in every):
        there = [effect for effect in every if effect.place == place]
        yield place, [_tally([effects.found(effect, view) for effect in there]) for view in views]


def _tally(found: Sequence[Finding]) -> str:
    counts = Counter(one.verdict for one in found)
    measured = len(found) - counts[effects.NOT_MEASURED]
    said = [f"{counts[effects.SEEN]} of {measured} seen"] if measured else []
    said += [f"{counts[verdict]} {verdict}" for verdict in (effects.WITHIN, effects.NOT_SEEN) if counts[verdict]]
    return ", ".join(said) or effects.NOT_MEASURED


def markdown(report: Report) -> str:
    """Effects and explanations, for the report in Markdown."""
    parts = [
        tally_markdown(report),
        *effects_markdown(report),
        "## Explanations that were tried",
        explained_markdown(report),
    ]
    return "\n\n".join(["## Effects", *(md(one) for one in effects.RULE), *parts]) + "\n"


def tally_markdown(report: Report) -> str:
    """How many effects are seen, by place."""
    views = effects.views(report)
    return _grid(["stated in", *map(_titled, views)], ([place, *said] for place, said in tallies(report)))


def _titled(view: View) -> str:
    return view.title + ("" if view.width == 1 else ", not the paper's network")


def effects_markdown(report: Report) -> Iterator[str]:
    """A table of each place's effects; what nobody has measured is left to `tally_markdown`."""
    views, every = effects.views(report), effects.effects()
    for place in dict.fromkeys(effect.place for effect in every):
        rows, silent = [], []
        for effect in (one for one in every if one.place == place):
            found = [effects.found(effect, view) for view in views]
            if all(one.verdict == effects.NOT_MEASURED and not one.labels for one in found):
                silent.append(effect)
                continue
            sizes = dict.fromkeys(effects.published_size(effect, one) for one in found if one.size is not None)
            printed = " / ".join(effects.signed(effect, one) for one in sizes if one is not None)
            cells = [", ".join((f"{effects.size_of(effect, one)} {one.verdict}".strip(), *one.labels)) for one in found]
            rows.append([effect.says, printed or ("less" if effect.sign < 0 else "more"), *cells])
        if rows:
            yield f"### {place}"
            yield _grid(["effect", "published", *map(_titled, views)], rows)
            if silent:
                yield f"{len(silent)} further effects of {place} are not measured."


def explained_markdown(report: Report) -> str:
    """The three largest differences, with every switch that was turned."""
    parts = [explained.HOW]
    for one in explained.explanations(report):
        parts.append("\n".join([f"**{md(one.effect.says)}** ({one.effect.place}). {_sentence(one)}"]))
        if one.switches:
            rows = [
                [switch.title, effects.size_of(one.effect, switch.found), effects.size_of(one.effect, switch.moved),
                 "a part" if switch.explains else "nothing"]
                for switch in one.switches
            ]  # fmt: skip
            parts.append(_grid(["switch", "effect with it", "moved by", "explains"], rows))
    return "\n\n".join(parts if len(parts) > 1 else [*parts, "Nothing was measured yet."])


def _sentence(one: Explanation) -> str:
    printed, found = effects.signed(one.effect, one.published), effects.size_of(one.effect, one.found)
    return f"Published {printed}, found {md(found)} at {_titled(one.view)}. {one.verdict}."


def lines(report: Report) -> Iterator[tuple[str, str]]:
    """(text, style) for a terminal: how many effects are seen, those that are not, and what explains differences."""
    views = effects.views(report)
    for view in views:
        there = [(effect, effects.found(effect, view)) for effect in effects.effects()]
        if all(found.verdict == effects.NOT_MEASURED for _, found in there):
            continue
        yield f"{_titled(view)}: {_tally([found for _, found in there])}", "bold"
        for effect, found in there:
            if found.verdict in (effects.NOT_SEEN, effects.WITHIN):
                size = effects.size_of(effect, found)
                yield f"  {found.verdict}: {effect.says} ({effect.place}): {size}", "yellow"
    for one in explained.explanations(report):
        printed, found_size = effects.signed(one.effect, one.published), effects.size_of(one.effect, one.found)
        yield f"  {one.effect.says}: published {printed}, found {found_size}. {one.verdict}", ""


# Tables in short


def table_markdown(report: Report, table: Table) -> str:
    """A table of the paper: a line for the published numbers, and one for each width that has runs."""
    sets = [("width 1", report.networks), *((f"{one.width}*", one.networks) for one in report.studies)]
    if table.by_severity:
        return _corruptions(sets)
    rows = []
    for row in table.rows:
        cells = [row.cells[column.name] for column in table.columns]
        rows.append([row.title, "published", *(_printed(cell.published) for cell in cells)])
        for title, networks in sets:
            network = networks[row.network.preset]
            if network.runs:
                found = [network.estimate(column.metric) for column in table.columns]
                rows.append(["", title, *(_said(one) for one in found)])
    return _grid(["network", "", *(column.title for column in table.columns)], rows)


def _corruptions(sets: Sequence[tuple[str, dict[str, Network]]]) -> str:
    """Table 2, a line for each corruption; severity 5."""
    presets = list(published.TABLE_2)
    there = [
        (title, network)
        for title, networks in sets
        for network in (networks[preset] for preset in TABLE_PRESETS)
        if network.estimate(corruption_name("fog", 5))
    ]
    lines: list[tuple[str, Sequence[published.Published | None], Callable[[Network], Estimate | None]]] = [
        (name.replace("_", " "), [published.TABLE_2[preset][name] for preset in presets],
         lambda network, name=name: network.estimate(corruption_name(name, 5)))  # type: ignore[misc]
        for name in PAPER_CORRUPTIONS
    ]  # fmt: skip
    lines += [
        (title, [printed(published.TABLE_2[preset]) for preset in presets],
         lambda network, names=names: network.over(lambda run: mean_of(names, run, (5,))))  # type: ignore[misc]
        for title, names, printed in (
            ("mean of 16", PAPER_CORRUPTIONS, lambda one: one[published.MEAN]),
            ("mean without frost", _NO_FROST, lambda one: published.mean_beside(one, (WITHOUT_FROST,))),
        )
    ]  # fmt: skip
    lines.append(("clean", [published.TABLE_2[preset][published.CLEAN] for preset in presets],
                  lambda network: network.estimate(CLEAN)))  # fmt: skip
    # How each network was measured stands in its head, as most of its numbers share that.
    hows = [fog.labels for _, network in there if (fog := network.estimate(corruption_name("fog", 5)))]
    rows = [
        [what, *map(_printed, printed),
         *(_said(of(network), how) for (_, network), how in zip(there, hows, strict=True))]
        for what, printed, of in lines
    ]  # fmt: skip
    heads = [f"{title_of(preset)}, published" for preset in presets]
    heads += [
        ", ".join((title_of(network.preset), title, *how)) for (title, network), how in zip(there, hows, strict=True)
    ]
    return _grid(["", *heads], rows)


def _printed(one: published.Published | None) -> str:
    return formats.percent(one.value) if one else ""


def _said(one: Estimate | None, known: Sequence[str] = ()) -> str:
    """A number with how it was measured, but for what is ``known`` of it."""
    if one is None:
        return formats.NOTHING
    labels = [label for label in one.labels if label not in known]
    return formats.said(one) + (f" ({', '.join(labels)})" if labels else "")


def masking_markdown(report: Report) -> str:
    """The verdicts on masked gradients of every network that was checked, and the checks that are not clear."""
    rows = []
    for suspicion in report.every_suspicion:
        for run, masking in suspicion.found:
            doubts = [f"{check.name} {check.verdict}" for check in masking.checks if check.verdict != "clear"]
            said = ", ".join((*masking.labels, *doubts)) or f"all {len(masking.checks)} checks"
            rows.append([suspicion.title, run.run.id, masking.title, masking.verdict, said])
    return _grid(["network", "run", "at", "verdict", ""], rows) if rows else "No network was checked yet."


def sources_markdown(report: Report) -> str:
    """Every run and result file, how it was measured, and the commands that repeat it."""
    parts = []
    for run in sources.document(report):
        note = "" if run["width"] == 1 else f", width {run['width']:g}, not the paper's network"
        parts.append(f"**{md(run['run'])}**{note}: {md(run['trained'])}. `{run['command']}`")
        rows = [[one["suite"], one["how"], f"`{one['command']}`"] for one in run["results"] if one["file"]]
        parts.append(_grid(["", "how", "again"], rows, raw=(2,)))
    return "\n\n".join(parts)


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], raw: Sequence[int] = ()) -> str:
    lines = ["| " + " | ".join(map(md, heads)) + " |", "|---" * len(heads) + "|"]
    lines += [
        "| " + " | ".join(cell if place in raw else md(cell) for place, cell in enumerate(row)) + " |" for row in rows
    ]
    return "\n".join(lines)
