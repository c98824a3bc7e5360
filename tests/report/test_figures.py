"""The figures: valid files, with the data in them, the same bytes for the same data."""

import io
import pickle
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from engine.report import figures, formats, networks, tables
from engine.report.figures import Point, Series, draw
from engine.results.estimates import Estimate
from tests.report.conftest import attacks, everything, minimum_norm, noise, sparsity, write

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawn(runs, made):
    """{key: figure} of two seeds of both networks and two more numbers of HaH blocks."""
    for seed in (1, 2):
        made("paper-hah", seed=seed, results=everything(0.01 * seed))
        made("paper-standard", seed=seed, results=everything(0.01 * seed, hah=False))
    for blocks in (1, 4):
        made(f"blocks-{blocks}", results={"attacks": attacks(("linf", 2 / 255, 0.1 + 0.01 * blocks))})
    return {figure.key: figure for figure in figures.figures(networks.find([runs])[0])}


def path_of(svg, gid):
    """The points of the drawn line or bar with this id, in pixels."""
    root = ElementTree.fromstring(svg)
    group = next(element for element in root.iter(f"{SVG}g") if element.get("id") == gid)
    drawing = group.find(f"{SVG}path").get("d")
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", drawing)]


def is_linear(pixels, values):
    """Whether pixels are one linear function of values."""
    low, high = min(range(len(values)), key=values.__getitem__), max(range(len(values)), key=values.__getitem__)
    scale = (pixels[high] - pixels[low]) / (values[high] - values[low])
    return scale != 0 and all(
        abs(pixels[low] + scale * (value - values[low]) - pixel) < 0.02
        for pixel, value in zip(pixels, values, strict=True)
    )


@pytest.mark.parametrize("key", ["figure-2", "figure-3b", "figure-4", "figure-6"])
def test_the_lines_are_the_data(drawn, key):
    figure = drawn[key]
    svg = draw(figure, ["svg"])["svg"]
    ys, means = [], []
    for series in figure.series:
        points = path_of(svg, f"{key}/{series.title}")
        assert is_linear([x for x, _ in points], [point.x for point in series.points])
        ys += [y for _, y in points]
        means += [point.y.mean for point in series.points]
    assert is_linear(ys, means)  # all on one axis


def test_the_data_are_the_results(drawn):
    hah = {figure.key: next(s for s in figure.series if s.title in ("HaH", "clean")) for figure in drawn.values()}
    assert [point.y.mean for point in hah["figure-2"].points] == pytest.approx(
        [0.2 + 0.01 * n for n in range(1, 7)] + [0.7 + 0.01 * n for n in range(7, 14)]
    )
    assert hah["figure-3b"].points[12].y.mean == pytest.approx(19.6)
    assert [point.x for point in hah["figure-4"].points] == [0, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert hah["figure-4"].points[5].y.mean == pytest.approx(62 + 1.5)
    assert hah["figure-4"].points[5].y.spread == pytest.approx(0.5**0.5)
    assert {point.x: point.y.mean for point in hah["figure-5"].points} == pytest.approx(
        {"l0": 12, "l1": 2.4, "l2": 0.18, "linf": 0.006}
    )
    linf = next(series for series in drawn["figure-6"].series if series.title == "Linf 2/255")
    assert {point.x: point.y.mean for point in linf.points} == pytest.approx({0: 11.5, 1: 11, 4: 14, 6: 21.5})


def test_bars_and_curves_of_minimum_norms(drawn):
    figure = drawn["figure-5"]
    svg = draw(figure, ["svg"])["svg"]
    for norm in ("l0", "l1", "l2", "linf"):
        heights = {}
        for title in ("Standard", "HaH"):
            ys = [y for _, y in path_of(svg, f"figure-5/{norm}/{title}")]
            heights[title] = max(ys) - min(ys)
            points = path_of(svg, f"figure-5/curve/{norm}/{title}")
            series = next(one for one in dict(figure.curves)[norm] if one.title == title)
            assert is_linear([y for _, y in points], [point.y.mean for point in series.points][: len(points)])
        assert heights["HaH"] / heights["Standard"] == pytest.approx(2, rel=1e-3)


def test_the_mean_of_step_curves_by_hand(runs, made):
    for seed, curve in ((1, [[0.0, 0.9], [0.2, 0.5]]), (2, [[0.0, 0.8], [0.1, 0.6], [0.3, 0.0]])):
        content = minimum_norm({"l2": 0.1})
        content["norms"]["l2"]["curve"] = curve
        made("paper-hah", seed=seed, results={"minimum_norm": content})
    figure = figures.figures(networks.find([runs])[0])[3]
    [(norm, [series])] = figure.curves
    assert norm == "l2"
    assert [(point.x, pytest.approx(point.y.mean)) for point in series.points] == [
        (0.0, 85.0), (0.1, 75.0), (0.2, 55.0), (0.3, 25.0)
    ]  # fmt: skip


def test_curves_of_weaker_searches_are_not_in_the_mean(runs, made):
    made("paper-hah", seed=1, results={"minimum_norm": minimum_norm({"l2": 0.1})})
    older = made("paper-hah", seed=2)
    write(older, "minimum_norm", minimum_norm({"l2": 0.9}), method=1)
    figure = figures.figures(networks.find([runs])[0])[3]
    [(_, [series])] = figure.curves
    assert series.points[-1].x == 0.2  # twice the first run's mean
    assert [point.y.values for point in figure.series[0].points] == [(0.1,)]
    assert f"hah eval {older.id} --suite minimum_norm" in figure.missing


def test_mean_norms_say_which_images_they_are_of(runs, made):
    for seed, success in ((1, 0.9), (2, 0.8)):
        means = minimum_norm({"l0": 3.0, "l2": 0.1, "linf": 0.01}, success)
        means["norms"]["l0"]["success_rate"] = 1.0
        made("paper-hah", seed=seed, results={"minimum_norm": means})
    made("paper-standard", results={"minimum_norm": minimum_norm({"l2": 0.1})})
    figure = figures.figures(networks.find([runs])[0])[3]
    assert {series.title: series.labels for series in figure.series} == {
        "Standard": [], "HaH": ["L2, Linf found for 85% of images"]
    }  # fmt: skip
    said = "Means are over the images that are classified correctly and fell, of all images"
    said += " Standard 90.0%, HaH 75.0% to 90.0%."
    assert said in formats.sentences(figure)
    svg = draw(figure, ["svg"])["svg"].decode()
    assert said in svg
    assert "HaH (2 seeds, L2, Linf found for 85% of images)" in svg


def test_old_results_without_the_number_of_misclassified_images(runs, made):
    made("paper-hah", results={"minimum_norm": minimum_norm({"l2": 0.1}, misclassified=None)})
    figure = figures.figures(networks.find([runs])[0])[3]
    assert figure.notes == ("Means are over the images that are classified correctly and fell",)


def test_the_spread_over_draws_is_in_the_data_of_figure_4(runs, made):
    for seed, spread in ((1, 0.002), (2, 0.004)):
        made("paper-hah", seed=seed, results={"noise": noise({0.1: 0.6}, spread=spread)})
    report = tables.paper([runs])
    document = formats.document(report, figures.figures(report.networks))
    [series] = next(figure for figure in document["figures"] if figure["key"] == "figure-4")["series"]
    clean, noisy = series["points"]
    assert noisy["draws"] == pytest.approx([0.2, 0.4])  # in percent, as the figure
    assert noisy["spread"] == 0  # that over seeds
    assert "draws" not in clean


def test_densities_of_the_hah_blocks_by_hand(runs, made):
    for seed, histogram in ((1, [4, 0]), (2, [1, 1, 1, 1])):  # of different numbers of bins
        made("paper-hah", seed=seed, results={"sparsity": sparsity([0.2] * 7, histogram)})
    made("paper-standard", results={"sparsity": sparsity([0.7] * 2, [0, 0, 0, 4])})
    figure = figures.figures(networks.find([runs])[0])[0]
    assert [(block, [one.title for one in pair]) for block, pair in figure.curves] == [
        *((block, ["Standard", "HaH"]) for block in "12"), *((block, ["HaH"]) for block in "3456")
    ]  # fmt: skip
    hah = dict(figure.curves)["1"][1]
    # 2 up to a half from the first, 1 everywhere from the second.
    assert [(point.x, point.y.mean) for point in hah.points] == [
        (0, 1.5), (0.25, 1.5), (0.5, 0.5), (0.75, 0.5), (1, 0)
    ]  # fmt: skip
    svg = draw(figure, ["svg"])["svg"]
    points = path_of(svg, "figure-2/density/1/HaH")
    assert is_linear([x for x, _ in points], [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1])
    assert is_linear([y for _, y in points], [1.5, 1.5, 1.5, 1.5, 0.5, 0.5, 0.5, 0.5, 0])
    assert b"locations where a filter is active" in svg


def test_the_same_data_is_the_same_bytes_in_another_process_and_any_matplotlibrc(drawn, tmp_path):
    figure = drawn["figure-4"]
    one = draw(figure)
    assert one == draw(figure)
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\nsvg.fonttype: path\n")
    code = (
        "import pickle, sys; from engine.report.figures import draw\n"
        "sys.stdout.buffer.write(draw(pickle.loads(sys.stdin.buffer.read()))['svg'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(figure), capture_output=True, cwd=tmp_path, check=True
    )
    assert done.stdout == one["svg"]
    assert b"date" not in one["svg"].lower()


def test_the_picture_opens_and_is_not_blank(drawn):
    image = Image.open(io.BytesIO(draw(drawn["figure-5"], ["png"])["png"]))
    image.load()
    assert image.size[0] >= 900
    assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_what_the_text_states_is_written_on_them(drawn):
    svg = draw(drawn["figure-4"], ["svg"])["svg"].decode()
    assert "64% against 26%" in svg
    assert "Ours: 63.5% against 33.5%." in svg
    pixels = {title: path_of(svg, f"figure-4/{title}") for title in ("Standard", "HaH")}
    root = ElementTree.fromstring(svg)
    crosses = {
        title: next(g for g in root.iter(f"{SVG}g") if g.get("id") == f"figure-4/published/{title}") for title in pixels
    }
    for title, published in (("Standard", 26.0), ("HaH", 64.0)):
        ours = {point.x: point.y.mean for s in drawn["figure-4"].series if s.title == title for point in s.points}
        use = next(crosses[title].iter(f"{SVG}use"))
        ys = [y for _, y in pixels[title]]
        assert is_linear([*ys, float(use.get("y"))], [*ours.values(), published])
        assert float(use.get("x")) == pytest.approx(pixels[title][-1][0], abs=0.01)  # at 0.1


def test_the_ends_of_figure_6_are_beside_table_1(drawn):
    svg = draw(drawn["figure-6"], ["svg"])["svg"]
    series = next(one for one in drawn["figure-6"].series if one.title == "Linf 2/255")
    crosses = next(
        g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if g.get("id") == "figure-6/published/Linf 2/255"
    )
    ends = [(float(use.get("x")), float(use.get("y"))) for use in crosses.iter(f"{SVG}use")]
    ours = path_of(svg, "figure-6/Linf 2/255")
    assert is_linear([y for _, y in [*ours, *ends]], [*(point.y.mean for point in series.points), 10.4, 21.5])
    assert is_linear([x for x, _ in [*ours, *ends]], [*(point.x for point in series.points), 0, 6])


def test_how_the_statements_fare(drawn):
    ours = {key: figure.ours for key, figure in drawn.items()}
    assert ours["figure-2"] == "sparser in block 1, 2, 3, 4, 5, 6"
    assert ours["figure-3b"] == "higher in block 2, 3, 4, 5, 6"  # the input of block 1 is the image
    assert ours["figure-5"] == "higher for L0, L1, L2, Linf"
    assert ours["figure-6"] == "clean fell in 0 of 1 steps, Linf 2/255 rose in 0 of 1 steps"  # of one block


def test_a_statement_that_fails_says_where(runs, made):
    made("paper-hah", results={"sparsity": sparsity([0.2, 0.9, 0.2]), "noise": noise({0.1: 0.2})})
    made("paper-standard", results={"sparsity": sparsity([0.5, 0.5, 0.5])})
    found = {figure.key: figure for figure in figures.figures(networks.find([runs])[0])}
    assert found["figure-2"].ours == "sparser in block 1, 3; not in 2"
    assert found["figure-4"].ours == ""  # nothing to compare with


def test_runs_that_are_not_the_presets_are_in_no_figure(runs, made):
    made("paper-hah", sets=["model.width=0.5"], results={"sparsity": sparsity([0.6, 0.6])})
    made("paper-standard", results={"sparsity": sparsity([0.5, 0.5])})
    figure = figures.figures(networks.find([runs])[0])[0]
    assert [series.title for series in figure.series] == ["Standard"]
    assert figure.ours == ""


def test_both_lambdas_stand_beside_the_standard_network(runs, made):
    made("paper-standard", results={"sparsity": sparsity([0.5, 0.5])})
    made("paper-hah", results={"sparsity": sparsity([0.6, 0.4])})
    made("paper-hah-lambda-1", results={"sparsity": sparsity([0.3, 0.3])})
    figure = figures.figures(networks.find([runs])[0])[0]
    assert [series.title for series in figure.series] == ["Standard", "HaH, lambda 1.0", "HaH"]
    assert figure.ours == "HaH, lambda 1.0 sparser in block 1, 2; HaH sparser in block 2; not in 1"
    svg = draw(figure, ["svg"])["svg"]
    for title in ("Standard", "HaH, lambda 1.0", "HaH"):
        assert len(path_of(svg, f"figure-2/{title}")) == 2


def test_without_data_nothing_is_drawn(runs):
    for figure in figures.figures(networks.find([runs])[0]):
        assert figure.series == ()
        assert draw(figure) == {}
        assert figure.missing


def test_labels_reach_the_legend(runs, made):
    made("paper-hah", metrics={f"block/{n}/sparsity": 0.2 for n in range(1, 14)})
    figure = figures.figures(networks.find([runs])[0])[0]
    svg = draw(figure, ["svg"])["svg"].decode()
    assert "HaH (last test of the training, first 512 images)" in svg


def test_single_points_and_long_labels_fit(runs, made):
    run = made("paper-hah", metrics={"test/accuracy": 0.9}, epoch=7, status="stopped")
    write(run, "noise", noise({0.1: 0.5}), images=10, checkpoint={"name": "epoch-3", "epoch": 3, "step": 1})
    write(run, "minimum_norm", minimum_norm({"l2": 0.2}, 0.5, 1), images=10, settings={"steps": 3})
    write(run, "sparsity", sparsity([0.2]), images=10)
    for figure in figures.figures(networks.find([runs])[0]):
        assert set(draw(figure, ["svg"])) == {"svg"}  # and no warning of a layout that does not fit


def test_importing_the_report_does_not_import_matplotlib():
    code = (
        "import sys, engine.report.files, engine.report.compare\n"
        "print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "False False\n"


def test_what_was_measured_differently_is_not_compared():
    def series(title, *labels):
        return Series(title, (Point(1.0, Estimate((0.3 if title == "Standard" else 0.2,), labels)),))

    def said(*labels):
        return figures._compared([series("Standard"), series("HaH", *labels)], (1.0,), True, "sparser in block")

    assert said() == said("first 512 images") == "sparser in block 1"
    assert said("last test of the training") == ""
