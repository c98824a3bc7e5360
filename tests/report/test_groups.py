"""Groups of runs that are equal but for their seed, intervals, and reports of one's own runs."""

import csv
import io
import json
import math
import xml.etree.ElementTree as ET

import pytest

from engine.experiment.mistakes import RequestError
from engine.report import compare, own
from engine.report.figures import draw
from engine.results.groups import grouped
from engine.results.measured import measured
from engine.results.numbers import wilson
from tests.report.conftest import attacks, corruptions, everything, noise, write


def level(accuracy):
    return {"noise": noise({0.1: accuracy})}


def quantity(found, title):
    [one] = [each for each in found.quantities if each.title == title]
    return one


@pytest.mark.parametrize(("fraction", "count"), [(0.969, 64), (0.969, 10_000), (0.0, 10), (1.0, 200), (0.5, 1)])
def test_wilson_is_where_the_score_test_just_fails(fraction, count):
    def score(p):
        return (fraction - p) ** 2 - 1.959963984540054**2 * p * (1 - p) / count

    def root(inside, outside):
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if score(middle) <= 0 else (inside, middle)
        return inside

    low, high = wilson(fraction, count)
    assert low == pytest.approx(root(fraction, 0.0), abs=1e-12)
    assert high == pytest.approx(root(fraction, 1.0), abs=1e-12)


def test_seeds_are_one_group_with_mean_and_sample_standard_deviation(made):
    values = [0.61, 0.64, 0.55]
    ours = [made("paper-hah", seed=seed, results=level(value)) for seed, value in enumerate(values)]
    others = [made("paper-hah", seed=0, sets=["hah.lambda=1"], results=level(0.7))]
    found = compare.compare([*ours, *others])
    assert [(group.name, group.seeds, group.missing) for group in found.groups] == [
        ("lambda=0.1", (0, 1, 2), ()),
        ("lambda=1.0", (0,), (1, 2)),
    ]
    first, second = quantity(found, "noise 0.1").numbers
    mean = sum(values) / 3
    assert first.mean == pytest.approx(mean, abs=1e-15)
    assert first.spread == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 2), abs=1e-15)
    assert (second.mean, second.spread) == (0.7, None)
    assert first.interval is None
    assert second.interval == wilson(0.7, 10_000)
    assert "lambda=1.0 has no seed 1, 2" in found.remarks
    assert found.differences == {"hah.lambda": [0.1, 1.0]}
    document = json.loads(json.dumps(compare.document(found)))
    assert document["groups"][0]["runs"] == [run.id for run in ours]
    assert document["results"][1]["values"][0]["n"] == 3


def test_what_must_not_enter_a_mean_is_left_out_and_said(made):
    whole = [made("paper-hah", seed=seed, results=level(0.6)) for seed in (1, 2)]
    half = made("paper-hah", seed=3, results=level(0.1), status="stopped", epoch=4)
    changed = made("paper-hah", seed=4, results=level(0.2), changed={"hah.lambda": 0.5})
    other_data = made("paper-hah", seed=5, sets=["data.train_limit=1000"], results=level(0.3))
    found = compare.compare([*whole, half, changed, other_data])
    assert [len(group.runs) for group in found.groups] == [2, 1, 1]
    assert [group.runs[0].run.id for group in found.groups] == [whole[0].id, changed.id, other_data.id]
    assert quantity(found, "noise 0.1").numbers[0].values == (0.6, 0.6)
    assert f"{half.id} is left out of its group's mean: stopped at epoch 4 of 100" in found.remarks
    assert f"{changed.id}: hah.lambda changed while it trained" in found.remarks


def test_a_number_that_not_all_seeds_have_says_so(made):
    runs = [made("paper-hah", seed=seed, results=level(0.5) if seed < 3 else None) for seed in (1, 2, 3)]
    other = made("paper-standard", results=level(0.4))
    found = compare.compare([*runs, other])
    first = quantity(found, "noise 0.1").numbers[0]
    assert found.groups[0].labels(first) == ["2 of 3 seeds"]
    assert "2 of 3 seeds" in own.markdown(found, [])


def test_runs_of_one_seed_are_not_averaged(made):
    twice = [made("paper-hah", seed=1, results=level(value), created=when) for value, when in ((0.4, 1.0), (0.6, 2.0))]
    third = made("paper-hah", seed=2, results=level(0.8))
    groups, remarks = grouped([measured(run) for run in (*twice, third)])
    assert [[run.run.id for run in group.runs] for group in groups] == [[twice[1].id, third.id]]
    assert remarks == [f"{twice[0].id} has the seed of {twice[1].id}, which stands for both"]


def test_without_several_seeds_each_run_stands_alone(made):
    runs = [made("quickstart"), made("quickstart"), made("paper-hah")]
    assert [group.runs[0].run.id for group in compare.compare(runs).groups] == [run.id for run in runs]
    alone = compare.compare([made("paper-hah", seed=seed) for seed in (1, 2)], by="run")
    assert [group.name for group in alone.groups] == ["seed=1", "seed=2"]


def test_any_setting_makes_groups_and_what_else_differs_is_said(made):
    runs = [
        made("paper-hah", seed=seed, sets=[f"hah.lambda={one}", f"train.lr={lr}"], results=level(lr * 100 + one / 10))
        for seed, one, lr in ((1, 0.1, 0.001), (1, 0.1, 0.002), (1, 1.0, 0.001))
    ]
    found = compare.compare(runs, by="hah.lambda")
    assert [(group.name, len(group.runs)) for group in found.groups] == [("hah.lambda=0.1", 2), ("hah.lambda=1.0", 1)]
    assert quantity(found, "noise 0.1").numbers[0].mean == pytest.approx((0.11 + 0.21) / 2)
    assert "the mean of hah.lambda=0.1 is over runs that differ in train.lr" in found.remarks
    with pytest.raises(RequestError, match="is no setting"):
        compare.compare(runs, by="lambada")


def test_few_images_do_not_take_the_place_of_many(made):
    many, few = made("paper-hah", results=level(0.96)), made("paper-standard")
    write(few, "noise", noise({0.1: 0.969}), images=64)
    best = quantity(compare.compare([many, few]), "noise 0.1")
    assert best.numbers[1].interval == wilson(0.969, 64)
    assert best.best == {0}
    write(few, "noise", noise({0.1: 0.969}), number=1)
    assert quantity(compare.compare([many, few]), "noise 0.1").best == {1}


def test_means_over_corruptions_have_no_interval(made):
    at_5 = dict.fromkeys(("fog", "snow", "brightness"), 0.5)
    runs = [made("paper-hah", results={"corruptions": corruptions(at_5)}) for _ in range(2)]
    found = compare.compare(runs)
    assert quantity(found, "weather corruptions, severity 1-5").numbers[0].interval is None
    assert quantity(found, "fog, severity 5").numbers[0].interval == wilson(0.5, 10_000)


@pytest.fixture
def lambdas(made):
    """Three values of lambda, three seeds of each."""
    return [
        made(
            "paper-hah",
            seed=seed,
            sets=[f"hah.lambda={value}"],
            results=everything(0.01 * seed - 0.02 * place)
            | {"attacks": attacks(("linf", 2 / 255, 0.3 + 0.1 * place + 0.01 * seed), ("linf", 4 / 255, 0.2))},
        )
        for place, value in enumerate((0.01, 0.1, 1.0))
        for seed in (1, 2, 3)
    ]


def test_a_numeric_setting_is_a_curve_with_its_spread(lambdas):
    found = compare.compare(lambdas)
    figures = {figure.key: figure for figure in own.figures(found)}
    axis = figures["lambda"]
    assert axis.log
    lines = {one.title: one for one in axis.series}
    assert [point.x for point in lines["Linf 2/255"].points] == [0.01, 0.1, 1.0]
    assert [point.y.mean for point in lines["Linf 2/255"].points] == pytest.approx([32, 42, 52])
    assert [point.y.spread for point in lines["Linf 2/255"].points] == pytest.approx([1, 1, 1])
    assert [point.x for point in figures["eps-linf"].series[0].points] == pytest.approx([0, 2 / 255, 4 / 255], abs=1e-4)
    for figure in figures.values():
        assert ET.fromstring(draw(figure, ["svg"])["svg"]).tag.endswith("svg")


def test_two_axes_are_a_figure_for_each_quantity_with_a_line_for_each_of_the_others(made):
    runs = [
        made("paper-hah", sets=[f"hah.lambda={one}", f"hah.top_k={top}"], results=level(0.5))
        for one in (0.1, 1.0)
        for top in (0.1, 0.2)
    ]
    figures = {figure.key: figure for figure in own.figures(compare.compare(runs))}
    assert [one.title for one in figures["lambda-noise-0.1"].series] == ["top_k=0.1", "top_k=0.2"]
    assert [one.title for one in figures["top_k-noise-0.1"].series] == ["lambda=0.1", "lambda=1.0"]


def test_every_format_has_every_number(lambdas):
    found = compare.compare(lambdas)
    figures = own.figures(found)
    rows = list(csv.DictReader(io.StringIO(own.csv_table(found))))
    [row] = [row for row in rows if row["group"] == "lambda=1.0" and row["quantity"] == "eval/noise/0.1/accuracy"]
    expected = quantity(found, "noise 0.1").numbers[2]
    assert (float(row["mean"]), float(row["spread"]), row["n"]) == (expected.mean, expected.spread, "3")
    assert len(rows) == 3 * (len(found.quantities) + sum(map(len, found.blocks.values())))
    shown = f"{100 * expected.mean:.1f} ± {100 * expected.spread:.1f}"
    assert shown in own.markdown(found, figures)
    assert "lambda=1.0 (3 seeds)" in own.markdown(found, figures)
    tex = own.latex(found)
    assert shown.replace(" ± ", r"{\tiny$\pm$") in tex
    assert tex.count("{") == tex.count("}")
    files = dict(own.files(found, figures))
    assert {"report.md", "report.json", "tables.csv", "tables.tex", "lambda.svg"} <= files.keys()
    assert json.loads(files["report.json"])["figures"][0]["key"] == "noise"
