"""Runs that are the paper's networks but for the width: found by what they are, and never beside a published number."""

import csv
import io
import json

import pytest

from engine.report import figures, files, formats, networks, tables
from engine.report.published import NOISY
from tests.report.conftest import cell, everything, noise

NARROW = ["model.width=0.25"]


@pytest.fixture
def study(made):
    """Standard and HaH at a quarter of the width, one from a preset of the study, one from the paper's by hand."""
    return (made("study-standard", results=everything(hah=False)),
            made("paper-hah-lambda-1", sets=NARROW, results=everything()))  # fmt: skip


def test_a_study_is_found_by_what_its_runs_are(runs, made, study):
    odd = made("study-lambda-1", sets=["hah.top_k=0.2", "hah.lambda=0.3"], results=everything())  # two switches
    switched = made("study-alpha-3", results={"noise": noise({0.1: 0.6})})
    other = made("paper-standard", sets=["model.width=0.5"], results=everything())
    live = made("study-lambda-1", results=everything(), changed={"hah.lambda": 1.0})
    fewer = made("study-lambda-1", sets=["data.train_limit=1000"], results=everything())
    found = networks.find([runs])
    assert [one.width for one in found.studies] == [0.5, 0.25]
    [half, quarter] = found.studies
    assert [run.run.id for run in half.runs] == [other.id]
    assert {preset: [run.run.id for run in network.runs] for preset, network in quarter.networks.items()
            if network.runs} == {"paper-standard": [study[0].id], "blocks-0": [study[0].id],
                                 "paper-hah-lambda-1": [study[1].id]}  # fmt: skip
    [(reference, network)] = quarter.switched
    assert (reference, network.name, [run.run.id for run in network.runs]) == (
        "paper-hah-lambda-1", "alpha x3", [switched.id])  # fmt: skip
    assert not {odd.id, live.id, fewer.id} & {run.run.id for run in quarter.runs}
    assert not any(network.runs for network in found.networks.values())
    assert "3 runs of width 1/4 instead of 1 stand apart: not the paper's network" in found.remarks


def test_chosen_runs_make_a_study_too(runs, study):
    found = networks.find([runs], [study[1]])
    assert [run.run.id for run in found.studies[0].runs] == [study[1].id]


def test_a_studys_numbers_stand_apart_in_every_form(runs, made, study):
    made("paper-standard", results={"noise": noise({0.1: 0.2719})})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah-lambda-1", NOISY).ours is None
    assert cell(report, "table-1", "paper-standard", NOISY).ours.mean == 0.2719
    narrow = [table for table in report.every_table if table.key.endswith("-width-0.25")]
    assert [table.key for table in narrow] == ["table-1-width-0.25", "table-2-width-0.25", "table-3-width-0.25"]
    for table in narrow:
        assert "width 1/4, not the paper's network" in table.title
        assert all(one.published is None and one.difference is None for row in table.rows for one in row.cells.values())
        assert "published" not in formats.markdown_table(table).replace("published parameters", "")
        assert "not the paper" in formats.latex(table)
    drawn = figures.every(report)
    assert [one.file for one in drawn if one.where] == [f"figure-{n}-width-0.25" for n in ("2", "3b", "4", "5")]
    svg = figures.draw(next(one for one in drawn if one.file == "figure-4-width-0.25"), ["svg"])["svg"].decode()
    assert "not the paper" in svg
    assert "published" not in svg  # no cross of the paper's network
    rows = list(csv.DictReader(io.StringIO(formats.csv_table(report.every_table))))
    assert {row["published"] for row in rows if row["table"].endswith("-width-0.25")} == {""}
    document = files.document(report, drawn)
    assert json.dumps(document)
    assert [(one["width"], len(one["runs"])) for one in document["studies"]] == [(0.25, 2)]
    found = {(one["width"], one["lambda"]) for effect in document["effects"] for one in effect["found"]}
    assert found == {(1.0, 1.0), (0.25, 1.0)}


def test_what_a_study_lacks_is_asked_for_at_its_width(runs, study):
    report = tables.paper([runs])
    missing = [command for one in figures.every(report) if one.where for command in one.missing]
    assert "hah run paper-hah --set model.width=0.25" in missing
    [study_report] = report.studies
    assert study_report.networks["blocks-2-lambda-1"].command == (
        "hah run blocks-2 --set hah.lambda=1.0 --set model.width=0.25"
    )


def test_parameters_are_those_of_the_manifests(runs, study):
    for run, count in zip(study, (923130, 922682), strict=True):
        run.manifest.write_text(json.dumps({"network": {"parameters": count}}))
    [one] = tables.paper([runs]).studies
    assert one.title == "width 1/4, not the paper's network (922,682 to 923,130 parameters)"


def test_figure_6_takes_the_lambda_of_which_there_are_more_runs(runs, made):
    for count in (1, 2, 3):
        made(f"blocks-{count}", sets=["hah.lambda=1.0"], results={"noise": noise({0.1: count / 10})})
    made("blocks-1", results={"noise": noise({0.1: 0.9})})
    figure = figures.figures(tables.paper([runs]).networks)[-1]
    [at_noise] = [one for one in figure.series if one.title == "noise 0.1"]
    assert [(point.x, point.y.mean) for point in at_noise.points] == [(1, 10), (2, 20), (3, pytest.approx(30))]
    assert figure.notes == ("HaH networks with lambda 1.0",)
    assert "hah run blocks-4 --set hah.lambda=1.0" in figure.missing
