"""Figures 2, 3b, 4, 5 and 6: their data, what the text states of each beside ours, and drawings as SVG and PNG.

The paper has its figures as pictures only, so ours are drawn alone. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.report.networks import BLOCKS_LAMBDA_1, BLOCKS_PRESETS, PRINTED, Network
from engine.report.published import STATEMENTS, TABLE_1, Statement
from engine.report.tables import ACCURACIES, Report, StudyReport, command, title_of
from engine.results.estimates import Estimate, measured_how
from engine.results.groups import Group
from engine.results.numbers import CLEAN, found_for, noise_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

HAH_BLOCKS = range(1, 7)  # what the text speaks of; the input of block 1 is the image, the same for every network
NORMS = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "Linf"}
_SHOWN = ("paper-standard", *PRINTED["paper-hah"])
# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes say the same without colour.
_STYLES = {
    "Standard": ("#555555", "s", (0, (4, 2))),
    "HaH": ("#D55E00", "o", "solid"),
    "HaH, lambda 1.0": ("#0072B2", "^", (0, (4, 1, 1, 1))),
    "clean": ("#000000", "s", "solid"),
    "noise 0.1": ("#0072B2", "^", (0, (1, 1))),
    "Linf 2/255": ("#D55E00", "o", (0, (4, 2))),
    "L2 0.25": ("#009E73", "D", (0, (4, 1, 1, 1))),
}
_OTHERS = tuple(  # Okabe and Ito's again, for networks that the paper has not
    (colour, "os^Dv<>P"[place % 8], dash)
    for dash in ("solid", (0, (4, 2)), (0, (1, 1)))
    for place, colour in enumerate(
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
    )
)
_LOCATIONS = "Each density is over all images and those locations where a filter is active"
_CURVE_POINTS = 1001  # at most: the edges of the most bins a histogram can have


@dataclass(frozen=True)
class Point:
    """One place of a series: ``x`` is a block, a standard deviation, a norm, a number of blocks or an eps."""

    x: float | str
    y: Estimate


@dataclass(frozen=True)
class Series:
    """The points of one network or one quantity, all in one unit."""

    title: str
    points: tuple[Point, ...]

    @property
    def labels(self) -> list[str]:
        """What has to be said of the numbers."""
        return list(dict.fromkeys(label for point in self.points for label in point.y.labels))

    @property
    def legend(self) -> str:
        """The title, and in words what has to be said."""
        counts = sorted({len(point.y.values) for point in self.points})
        seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"
        said = ", ".join(([seeds] if counts[-1] > 1 else []) + self.labels)
        return "\n".join(textwrap.wrap(f"{self.title} ({said})" if said else self.title, 60))


@dataclass(frozen=True)
class Figure:
    """A figure with our data, the paper's or one's own; ``ours``: how the text's statement fares, if
    anybody can tell.

    ``curves``: step functions, of Figure 5 accuracy against eps by norm, of Figure 2 the density of Hoyer ratios by
    block. ``notes``: sentences about all its numbers. ``where``: what stands over a study's, and ``suffix`` in the name
    of its files.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    ours: str = ""
    missing: tuple[str, ...] = ()
    curves: tuple[tuple[str, tuple[Series, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    log: bool = False  # the x axis
    where: str = ""
    suffix: str = ""

    @property
    def heading(self) -> str:
        """Its title, of a study with what stands over it: 'Figure 2 at width 1/4, not ... . Sparsity ...'."""
        number, _, title = self.title.partition(". ")
        return f"{number} at {self.where}. {title}" if self.where else self.title

    @property
    def file(self) -> str:
        """What its files are called."""
        return self.key + self.suffix

    @property
    def statement(self) -> Statement | None:
        """What the paper's text says of it; nothing of a figure that is not the paper's."""
        return STATEMENTS.get(self.key)

    def sentences(self, where: str = "") -> list[str]:
        """What the text states, and ``where``, how ours fares, and what else has to be said."""
        said = [f"The paper: {self.statement.text}{where}"] if self.statement else []
        said += [f"{self.where.partition(',')[0].capitalize() or 'Ours'}: {self.ours}"] if self.ours else []
        return [f"{text}." for text in (*said, *self.notes)]


def figures(networks: dict[str, Network]) -> list[Figure]:
    """The data of every figure; series without any point are left out."""
    return [_sparsity(networks), _snr(networks), _noise(networks), _minimum_norms(networks), _blocks(networks)]


def of_study(study: StudyReport) -> list[Figure]:
    """The same figures of a study, as far as there is anything to draw."""
    every = (replace(one, where=study.title, suffix=study.suffix) for one in figures(study.networks))
    return [one for one in every if one.series and (one.key != "figure-6" or len(one.series[0].points) > 2)]


def every(report: Report) -> list[Figure]:
    """The paper's figures, then those of the studies."""
    return [*figures(report.networks), *(one for study in report.studies for one in of_study(study))]


def series_of(title: str, group: Group, names: Iterable[tuple[float | str, str]], scale: float = 1.0) -> Series:
    """A group's metrics in the order given, as far as they are measured."""
    points = []
    for x, name in names:
        found = group.estimate(name)
        if found:
            points.append(Point(x, found.scaled(scale)))
    return Series(title, tuple(points))


def _each(
    networks: dict[str, Network], names: Callable[[Network], list[tuple[float | str, str]]], scale: float = 1.0
) -> tuple[Series, ...]:
    found = (series_of(title_of(preset), networks[preset], names(networks[preset]), scale) for preset in _SHOWN)
    return tuple(one for one in found if one.points)


def numbered(group: Group, start: str, end: str = "") -> list[tuple[float | str, str]]:
    """(n, name) of every metric start<n>end of the group's runs, n rising."""
    names = {name for run in group.runs for name in run.numbers if name.startswith(start) and name.endswith(end)}
    middles = {name[len(start) : len(name) - len(end)]: name for name in names}
    numbers = {}
    for middle, name in middles.items():
        try:
            numbers[float(middle)] = name
        except ValueError:  # another metric that starts like it
            continue
    return sorted(numbers.items())


def _missing(networks: dict[str, Network], names: Sequence[str], suite: str) -> tuple[str, ...]:
    commands = [c for preset in _SHOWN for name in names for c in command(networks[preset], name, suite)]
    return tuple(dict.fromkeys(commands))


def _sparsity(networks: dict[str, Network]) -> Figure:
    series = _each(networks, lambda network: numbered(network, "eval/sparsity/", "/hoyer"))
    curves = _curves(networks, {str(n): f"eval/sparsity/{n}/hoyer" for n in HAH_BLOCKS}, 1)
    return Figure(
        "figure-2", "Figure 2. Sparsity of each block's output", "block", "Hoyer ratio l1/l2, normalized to [0, 1]",
        series, _compared(series, HAH_BLOCKS, lower=True, what="sparser in block"),
        _missing(networks, ["eval/sparsity/1/hoyer"], "sparsity"),
        curves, (_LOCATIONS,) if curves else (),
    )  # fmt: skip


def _snr(networks: dict[str, Network]) -> Figure:
    series = _each(networks, lambda network: numbered(network, noise_name(0.1, "snr_db/")))
    return Figure(
        "figure-3b", "Figure 3b. SNR at each block's input, noise 0.1", "block", "SNR in dB",
        series, _compared(series, HAH_BLOCKS[1:], lower=False, what="higher in block"),
        _missing(networks, [noise_name(0.1, "snr_db/1")], "noise"),
    )  # fmt: skip


def _noise(networks: dict[str, Network]) -> Figure:
    def levels(network: Network) -> list[tuple[float | str, str]]:
        return [(0.0, CLEAN), *numbered(network, "eval/noise/", "/accuracy")]

    series = tuple(one for one in _each(networks, levels, 100) if len(one.points) > 1)
    at = {one.title: point.y for one in series for point in one.points if point.x == 0.1}
    standard = at.pop("Standard", None)
    ours = _of_each({
        title: f"{value.mean:.1f}% against {standard.mean:.1f}%"
        for title, value in at.items() if standard and _alike(value, standard)
    })  # fmt: skip
    return Figure(
        "figure-4", "Figure 4. Accuracy under Gaussian noise", "standard deviation of the noise", "accuracy in %",
        series, ours, _missing(networks, [noise_name(0.1)], "noise"),
    )  # fmt: skip


def _minimum_norms(networks: dict[str, Network]) -> Figure:
    names = [(norm, f"eval/minimum_norm/{norm}/mean") for norm in NORMS]
    found = {preset: series_of("", networks[preset], names).points for preset in _SHOWN}
    series = tuple(
        Series(title_of(preset), tuple(_found_for(networks[preset], points)))
        for preset, points in found.items()
        if points
    )
    shares = ", ".join(said for preset in _SHOWN if (said := _in_the_mean(networks[preset])))
    note = "Means are over the images that are classified correctly and fell"
    note += f", of all images {shares}" if shares else ""
    return Figure(
        "figure-5", "Figure 5. Smallest perturbation that changes the prediction", "norm", "mean minimum norm",
        series, _compared(series, tuple(NORMS), lower=False, what="higher for"),
        _missing(networks, [name for _, name in names], "minimum_norm"),
        _curves(networks, {norm: f"eval/minimum_norm/{norm}/success_rate" for norm in NORMS}, 100),
        (note,) if series else (),
    )  # fmt: skip


def _found_for(network: Network, points: Sequence[Point]) -> Iterator[Point]:
    """Mean norms with the share of images that one was found for, where that is not all: 'L0, L1 found for 90%...'."""
    rates = {point: network.estimate(f"eval/minimum_norm/{point.x}/success_rate") for point in points}
    said = {point: found_for(rate.mean) if rate else () for point, rate in rates.items()}
    for point in points:
        norms = ", ".join(NORMS[str(other.x)] for other in points if said[other] == said[point])
        yield replace(point, y=replace(point.y, labels=(*point.y.labels, *(f"{norms} {one}" for one in said[point]))))


def _in_the_mean(network: Network) -> str:
    """Which part of the images the mean norms of a network are over; '' where that is not known."""
    shares = []
    for norm in NORMS:
        fell, wrong = (network.estimate(f"eval/minimum_norm/{norm}/{of}") for of in ("success_rate", "misclassified"))
        if fell and wrong:
            shares.append(100 * (fell.mean - wrong.mean))
    low_to_high = dict.fromkeys(f"{of(shares):.1f}%" for of in (min, max)) if shares else ()
    return f"{title_of(network.preset)} {' to '.join(low_to_high)}" if shares else ""


def _curves(
    networks: dict[str, Network], names: dict[str, str], scale: float
) -> tuple[tuple[str, tuple[Series, ...]], ...]:
    """The mean curve of each metric in every network, by the keys of ``names``, as far as there are any."""
    found = []
    for key, name in names.items():
        each = (mean_curve(title_of(preset), networks[preset], name, scale) for preset in _SHOWN)
        if drawn := tuple(one for one in each if one.points):
            found.append((key, drawn))
    return tuple(found)


def mean_curve(title: str, group: Group, name: str, scale: float) -> Series:
    """The mean over runs of a metric's step functions at every x of any of them, thinned out to a thousand."""
    curves = [number.curve for number in group.best(name) if number.curve]
    grid = sorted({x for curve in curves for x, _ in curve})
    if len(grid) > _CURVE_POINTS:
        grid = [grid[round(place * (len(grid) - 1) / (_CURVE_POINTS - 1))] for place in range(_CURVE_POINTS)]
    points = []
    for x in grid:
        places = [(curve, bisect_right(curve, x, key=lambda pair: pair[0]) - 1) for curve in curves]
        begun = tuple(scale * curve[place][1] for curve, place in places if place >= 0)  # before, a curve says nothing
        points.append(Point(x, Estimate(begun)))
    return Series(title, tuple(points))


def _blocks(networks: dict[str, Network]) -> Figure:
    series = []
    there = {presets: sum(bool(networks[one].runs) for one in presets) for presets in (BLOCKS_PRESETS, BLOCKS_LAMBDA_1)}
    presets = max(there, key=lambda one: there[one])  # as printed, unless there are more runs with lambda 1.0
    for column in ACCURACIES:
        points = []
        for count, preset in enumerate(presets):
            found = networks[preset].estimate(column.metric)
            if found:
                points.append(Point(float(count), found.scaled(100)))
        if points:
            series.append(Series(column.title, tuple(points)))
    missing = [c for preset in presets for col in ACCURACIES for c in command(networks[preset], col.metric, col.suite)]
    return Figure(
        "figure-6", "Figure 6. Accuracy against the number of HaH blocks", "HaH blocks", "accuracy in %",
        tuple(series), _steps(series), tuple(dict.fromkeys(missing)),
        notes=("HaH networks with lambda 1.0",) if presets == BLOCKS_LAMBDA_1 else (),
    )  # fmt: skip


def _steps(series: Sequence[Series]) -> str:
    """How often another block raised robust accuracy and lowered clean accuracy."""
    said = []
    for one in series:
        if one.title in ("clean", "Linf 2/255"):
            steps = [(a, b) for a, b in itertools.pairwise(one.points) if float(b.x) - float(a.x) == 1]
            pairs = [(a.y.mean, b.y.mean) for a, b in steps if _alike(a.y, b.y)]
            moved = sum(b < a if one.title == "clean" else b > a for a, b in pairs)
            if pairs:
                said.append(
                    f"{one.title} {'fell' if one.title == 'clean' else 'rose'} in {moved} of {len(pairs)} steps"
                )
    return ", ".join(said)


def _compared(series: Sequence[Series], where: Sequence[float | str], lower: bool, what: str) -> str:
    """Where the means of each HaH network lie on the stated side of the standard network's."""
    found = {one.title: {point.x: point.y for point in one.points} for one in series}
    standard = found.pop("Standard", {})

    def listed(places: Sequence[float | str]) -> str:
        return ", ".join(NORMS[x] if isinstance(x, str) else f"{x:g}" for x in places)

    said = {}
    for title, ours in found.items():
        both = [x for x in where if x in standard and x in ours and _alike(ours[x], standard[x])]
        holds = [x for x in both if (ours[x].mean < standard[x].mean) == lower and ours[x].mean != standard[x].mean]
        fails = [x for x in both if x not in holds]
        if holds:
            said[title] = f"{what} {listed(holds)}" + (f"; not in {listed(fails)}" if fails else "")
        elif fails:
            said[title] = f"not {what} {listed(fails)}"
    return _of_each(said)


def _alike(one: Estimate, other: Estimate) -> bool:
    """Whether two numbers were measured in the same way, so that they may be compared."""
    return measured_how(one.labels) == measured_how(other.labels)


def _of_each(said: dict[str, str]) -> str:
    """What is said of each HaH network, its title first where there are several."""
    return "; ".join(f"{title} {text}" if len(said) > 1 else text for title, text in said.items())


def draw(figure: Figure, kinds: Sequence[str] = ("svg", "png")) -> dict[str, bytes]:
    """The figure as files by kind; {} of one without data. The same data gives the same bytes."""
    if not figure.series:
        return {}
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a person's matplotlibrc says
        matplotlib.rcParams.update(
            {"svg.hashsalt": "hah", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
             "axes.spines.right": False, "legend.frameon": False, "axes.grid": True, "grid.color": "#E5E5E5",
             "grid.linewidth": 0.6, "axes.axisbelow": True, "text.parse_math": False}
        )  # fmt: skip
        wide, panels = figure.key == "figure-5", figure.key == "figure-2" and figure.curves
        drawing = Drawing(figsize=(9.0, 4.8) if wide else (6.0, 6.6) if panels else (6.0, 3.8), layout="constrained")
        FigureCanvasAgg(drawing)
        room = 145 if wide else 98
        said = "\n".join(line for sentence in figure.sentences() for line in textwrap.wrap(sentence, room))
        (_draw_norms if wide else _draw_lines)(drawing, figure, said)
        title = f"{figure.title}\n{figure.where}" if figure.where else figure.title
        drawing.suptitle(title, fontsize=10.5, fontweight="bold")
        files = {}
        for kind in kinds:
            file = io.BytesIO()
            no_date: dict[str, Any] = {"Creator": None, "Date": None} if kind == "svg" else {"Software": None}
            drawing.savefig(file, format=kind, dpi=160, metadata=no_date)
            files[kind] = file.getvalue()
    return files


def _draw_lines(drawing: Drawing, figure: Figure, said: str) -> None:
    if figure.curves:
        rows = math.ceil(len(figure.curves) / 3)
        grid = drawing.add_gridspec(1 + rows, 3, height_ratios=[2.2, *[1.0] * rows])
        axes = drawing.add_subplot(grid[0, :])
        _densities(
            [drawing.add_subplot(grid[1 + place // 3, place % 3]) for place in range(len(figure.curves))], figure
        )
    else:
        axes = drawing.subplots()
    drawing.supxlabel(said, fontsize=7.5, color="#333333")
    _lines(axes, figure.series, figure.key)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    places = sorted({point.x for series in figure.series for point in series.points if not isinstance(point.x, str)})
    if figure.key in ("figure-2", "figure-3b"):
        axes.axvspan(0.5, 6.5, color="#F0E442", alpha=0.18, linewidth=0, gid="hah-blocks")
        axes.text(3.5, 1.0, "HaH blocks", transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=7.5)
        last = max(6, round(max(places)))
        axes.set_xlim(0.5, last + 0.5)
        axes.set_xticks(range(1, last + 1))
    elif figure.key == "figure-6":
        axes.set_xticks(places)
        for column in () if figure.where else ACCURACIES:  # what is published is of no such network
            if any(one.title == column.title for one in figure.series):
                ends = [100 * TABLE_1[preset][column.name].value for preset in ("paper-standard", "paper-hah")]
                axes.plot((0, 6), ends, "x", color=_STYLES[column.title][0], markersize=7,
                          markeredgewidth=1.6, gid=f"{figure.key}/published/{column.title}")  # fmt: skip
        if not figure.where:
            axes.plot((), (), "kx", label="the paper's Table 1")
    if figure.key == "figure-2":
        axes.set_ylim(0, 1)
    if figure.y_label.endswith("%"):
        axes.set_ylim(0, 100)
    if figure.log:
        axes.set_xscale("log")
    if figure.key == "figure-4" and not figure.where:
        for preset, value in figure.statement.numbers if figure.statement else ():
            title = title_of(preset)
            axes.plot(0.1, 100 * value, "x", color=_STYLES[title][0], markersize=7, markeredgewidth=1.6,
                      label=f"{title}, the paper's text", gid=f"{figure.key}/published/{title}")  # fmt: skip
    handles, names = axes.get_legend_handles_labels()
    ours_first = sorted(range(len(names)), key=lambda place: "the paper's" in names[place])
    axes.legend([handles[place] for place in ours_first], [names[place] for place in ours_first], fontsize=7.5)


def _densities(panels: Sequence[Axes], figure: Figure) -> None:
    """A small panel for each block: the density of its Hoyer ratios, of every network."""
    for axes, (block, every) in zip(panels, figure.curves, strict=True):
        for one in every:
            colour, _, dash = _STYLES[one.title]
            x, y = [point.x for point in one.points], [point.y.mean for point in one.points]
            axes.fill_between(x, y, step="post", color=colour, alpha=0.25, linewidth=0)
            axes.step(x, y, where="post", color=colour, linestyle=dash, linewidth=1.1,
                      gid=f"{figure.key}/density/{block}/{one.title}")  # fmt: skip
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.set_ylim(bottom=0)
        axes.set_title(f"block {block}", fontsize=8, pad=2)
        axes.tick_params(labelsize=7)
    for axes in panels[::3]:
        axes.set_ylabel("density", fontsize=8)
    for axes in panels[-3:]:
        axes.set_xlabel("Hoyer ratio", fontsize=8)


def _lines(axes: Axes, series: Sequence[Series], key: str, marked: bool = True) -> None:
    for place, one in enumerate(series):
        colour, marker, dash = _STYLES.get(one.title) or _OTHERS[place % len(_OTHERS)]
        ends = [_ends(point.y) for point in one.points] if marked else []
        axes.errorbar(
            [point.x for point in one.points],
            [point.y.mean for point in one.points],
            yerr=[[low for low, _ in ends], [high for _, high in ends]] if marked else None,
            color=colour, marker=marker if marked else "", markersize=4.5, linestyle=dash, linewidth=1.4, capsize=2.5,
            label=one.legend,
        )[0].set_gid(f"{key}/{one.title}")  # fmt: skip


def _ends(one: Estimate) -> tuple[float, float]:
    """How far the bar of an error reaches below and above: the spread of runs, else the interval of one."""
    if one.spread is not None:
        return one.spread, one.spread
    return (one.mean - one.interval[0], one.interval[1] - one.mean) if one.interval else (0.0, 0.0)


def _draw_norms(drawing: Drawing, figure: Figure, said: str) -> None:
    """Bars of each norm above, since their scales differ; accuracy against eps below."""
    norms = [norm for norm in NORMS if any(point.x == norm for one in figure.series for point in one.points)]
    rows = drawing.subplots(2, len(norms), squeeze=False)
    curves = dict(figure.curves)
    for column, norm in enumerate(norms):
        above, below = rows[0][column], rows[1][column]
        for place, one in enumerate(figure.series):
            for point in one.points:
                if point.x == norm:
                    bar = above.bar(
                        place, point.y.mean, 0.65, yerr=point.y.spread, color=_STYLES[one.title][0], capsize=3,
                        hatch="//" if one.title == "Standard" else "", edgecolor="white", label=one.legend,
                    )  # fmt: skip
                    bar[0].set_gid(f"{figure.key}/{norm}/{one.title}")
                    above.annotate(f"{point.y.mean:.3g}", (place, point.y.mean), xytext=(0, 5), ha="center",
                                   textcoords="offset points", fontsize=7.5)  # fmt: skip
        above.set(title=NORMS[norm], xticks=[], xlim=(-0.7, max(1, len(figure.series) - 1) + 0.7))
        above.margins(y=0.2)
        _lines(below, curves.get(norm, ()), f"{figure.key}/curve/{norm}", marked=False)
        below.set(xlabel=f"eps ({NORMS[norm]})", ylim=(0, 100))
        below.set_xlim(left=0)
        below.locator_params(axis="x", nbins=4)
    rows[0][0].set_ylabel(figure.y_label)
    rows[1][0].set_ylabel("accuracy in %")
    handles, names = rows[0][0].get_legend_handles_labels()
    drawing.legend(handles, names, fontsize=7.5, loc="outside lower center", ncols=2, title=said, title_fontsize=7.5)
