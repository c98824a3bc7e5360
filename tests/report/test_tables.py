"""Tables 1 to 3: means and spreads over seeds, what is missing, and every format with the same numbers."""

import csv
import io
import json
import re

import pytest

from engine.experiment import RequestError
from engine.experiment.datasets import CORRUPTION_GROUPS, PAPER_CORRUPTIONS
from engine.report import figures, files, formats, tables
from engine.report.published import CLEAN, L2, LINF, MCE, MEAN, NOISY
from engine.results.measured import measured
from tests.report.conftest import all_formats, attacks, cell, corruptions, everything, masking, noise, table, write


def test_mean_and_spread_over_seeds_by_hand(runs, made):
    for seed, accuracy in ((1, 0.60), (2, 0.62), (3, 0.67)):
        made("paper-hah", seed=seed, results={"noise": noise({0.1: accuracy})})
    found = cell(tables.paper([runs]), "table-1", "paper-hah", NOISY)
    assert found.ours.values == (0.60, 0.62, 0.67)
    assert found.ours.mean == pytest.approx(0.63)
    assert found.ours.spread == pytest.approx((0.0026 / 2) ** 0.5)  # deviations -.03, -.01, .04
    assert found.published.value == 0.64
    assert found.difference == pytest.approx(-0.01)


def test_a_single_seed_has_no_spread(runs, made):
    made("paper-hah", results={"noise": noise({0.1: 0.6})})
    found = cell(tables.paper([runs]), "table-1", "paper-hah", NOISY)
    assert (found.ours.mean, found.ours.spread) == (0.6, None)
    text = formats.markdown_table(table(tables.paper([runs]), "table-1"))
    assert r"60.0 \[59.0, 61.0\] |" in text  # of 10,000 images


def test_every_number_of_all_suites_arrives_in_every_format(runs, made):
    numbers = {"paper-standard": 0.10111, "paper-hah": 0.20222, "no-hah-loss": 0.3033, "batch-norm": 0.4044}
    for preset, value in numbers.items():
        made(preset, results={"attacks": attacks(("linf", 2 / 255, value), ("l2", 0.25, value + 0.05))})
    report = tables.paper([runs])
    markdown, latex, text, document = all_formats(report)
    rows = list(csv.DictReader(io.StringIO(text)))
    for preset, value in numbers.items():
        for column, expected in ((LINF, value), (L2, value + 0.05)):
            keys = {"table-1": ("paper-standard", "paper-hah"), "table-3": tuple(numbers)[1:]}
            keys = [key for key, presets in keys.items() if preset in presets]
            for key in keys:
                [row] = [r for r in rows if (r["table"], r["preset"], r["quantity"]) == (key, preset, column)]
                assert float(row["ours"]) == expected
                there = next(t for t in json.loads(document)["tables"] if t["key"] == key)
                there = next(r for r in there["rows"] if r["preset"] == preset)["cells"][column]
                assert there["ours"]["mean"] == expected
                assert there["difference"] == expected - there["published"]["value"] == float(row["difference"])
            assert f"{100 * expected:.1f}" in markdown
            assert f"{100 * expected:.1f}" in latex


LESS = {"epoch": 20, "status": "stopped"}


@pytest.mark.parametrize(
    ("options", "state", "sets", "says"),
    [
        ({"methods": ("pgd",), "settings": {"steps": 5}, "images": 64}, {}, [], "eval {} --suite attacks"),
        ({"settings": {"steps": 99}}, {}, [], "eval {} --suite attacks"),
        ({"images": 9999}, {}, [], "eval {} --suite attacks"),
        ({"checkpoint": {"name": "best", "epoch": 90}}, {}, [], "eval {} --suite attacks"),
        ({"methods": ("pgd",)}, {}, ["evaluate.attacks.methods=[pgd]", "evaluate.attacks.steps=5"],
         "eval {} --suite attacks --set evaluate.attacks.steps=100"
         " --set 'evaluate.attacks.methods=[apgd-ce,apgd-t]'"),
        ({"images": 64}, {}, ["evaluate.images=64"], "eval {} --suite attacks --set evaluate.images=null"),
        ({"checkpoint": {"name": "last", "epoch": 20}}, LESS, [], "resume {}"),
    ],
)  # fmt: skip
def test_a_weaker_measurement_is_not_averaged_with_a_better_one(runs, made, options, state, sets, says):
    made("paper-hah", seed=1, results={"attacks": attacks(("linf", 2 / 255, 0.2))})
    weak, options = made("paper-hah", seed=2, sets=sets, **state), dict(options)
    content = attacks(("linf", 2 / 255, 0.9), methods=options.pop("methods", ("apgd-ce", "apgd-t")))
    write(weak, "attacks", content, clean_accuracy=0.5, **options)
    report = tables.paper([runs])
    found = cell(report, "table-1", "paper-hah", LINF)
    assert (found.ours.values, found.ours.labels) == ((0.2,), ())
    assert found.missing == (f"hah {says.format(weak.id)}",)


def test_what_is_as_weak_is_averaged_and_its_labels_stay(runs, made):
    for seed, value in ((1, 0.8), (2, 0.9)):
        run = made("paper-hah", seed=seed)
        content = attacks(("linf", 2 / 255, value), methods=("pgd",))
        write(run, "attacks", content, images=64, settings={"steps": 5})
    found = cell(tables.paper([runs]), "table-1", "paper-hah", LINF)
    assert found.ours.mean == pytest.approx(0.85)
    assert found.ours.labels == ("first 64 images", "pgd only", "5 steps")


def test_a_fully_trained_network_on_few_images_comes_before_half_of_one_on_all(runs, made):
    run = made("paper-hah", seed=1)
    write(run, "noise", noise({0.1: 0.6}), images=1000)
    half = made("paper-hah", seed=2, **LESS)
    write(half, "noise", noise({0.1: 0.3}), checkpoint={"name": "last", "epoch": 20})
    assert cell(tables.paper([runs]), "table-1", "paper-hah", NOISY).ours.values == (0.6,)


def test_training_is_not_averaged_with_evaluations(runs, made):
    made("paper-hah", seed=1, results={"noise": noise({0.1: 0.6})})
    other = made("paper-hah", seed=2, metrics={"test/noisy_accuracy": 0.1, "test/accuracy": 0.2})
    found = cell(tables.paper([runs]), "table-1", "paper-hah", NOISY)
    assert found.ours.values == (0.6,)
    assert found.missing == (f"hah eval {other.id} --suite noise",)


def test_means_over_corruptions_are_averaged_over_alike_runs_only(runs, made):
    at_5 = dict.fromkeys(PAPER_CORRUPTIONS, 0.5)
    made("paper-hah", seed=1, results={"corruptions": corruptions(at_5)})
    worse = dict.fromkeys(PAPER_CORRUPTIONS, 0.1)
    without = made("paper-hah", seed=2, results={"corruptions": corruptions(worse, missing=["frost"])})
    generated = made("paper-hah", seed=3, results={"corruptions": corruptions(worse, source="generated")})
    report = tables.paper([runs])
    mean = cell(report, "table-2", "paper-hah", MEAN)
    assert (mean.ours.mean, mean.ours.labels, len(mean.ours.values)) == (pytest.approx(0.5), (), 1)
    assert mean.missing == tuple(f"hah eval {run.id} --suite corruptions" for run in (without, generated))
    assert cell(report, "table-2", "paper-hah", "fog").ours.values == (0.5, 0.1)  # that one was measured alike
    assert mean.published.value == 0.677


def test_table_2_shows_severity_5_and_the_mean_of_severities(runs, made):
    made("paper-hah", results={"corruptions": corruptions(dict.fromkeys(PAPER_CORRUPTIONS, 0.5), step=0.1)})
    report = tables.paper([runs])
    fog, mean = (cell(report, "table-2", "paper-hah", name) for name in ("fog", MEAN))
    for one in (fog, mean):
        assert one.ours.mean == pytest.approx(0.5)
        assert one.all_severities.mean == pytest.approx(0.7)  # .5 .6 .7 .8 .9
    assert fog.published.value == 0.633
    assert mean.difference == pytest.approx(0.5 - 0.677)
    assert fog.missing == mean.missing == ()


def test_mce_is_relative_to_the_standard_network_by_hand(runs, made):
    error = {name: 0.8 if name == "fog" else 0.4 for name in PAPER_CORRUPTIONS}
    made("paper-standard", results={"corruptions": corruptions({n: 1 - e for n, e in error.items()}, step=0)})
    made("paper-hah", results={"corruptions": corruptions(dict.fromkeys(PAPER_CORRUPTIONS, 0.8), step=0)})
    report = tables.paper([runs])
    # errors of .2 against .8 once and .4 fifteen times
    expected = (0.2 / 0.8 + 15 * 0.2 / 0.4) / 16
    assert cell(report, "table-2", "paper-hah", MCE).all_severities.mean == pytest.approx(expected)
    assert cell(report, "table-2", "paper-standard", MCE).all_severities.mean == pytest.approx(1.0)


def test_mce_without_a_standard_run_names_the_run_that_is_missing(runs, made):
    made("paper-hah", results={"corruptions": corruptions(dict.fromkeys(PAPER_CORRUPTIONS, 0.8), step=0)})
    found = cell(tables.paper([runs]), "table-2", "paper-hah", MCE)
    assert found.all_severities is None
    assert found.missing == ("hah run paper-standard",)


def test_generated_and_15_of_16_stand_wherever_such_a_number_is_shown(runs, made):
    at_5 = dict.fromkeys(PAPER_CORRUPTIONS, 0.5)
    made("paper-hah", results={"corruptions": corruptions(at_5, 0, source="generated", missing=["frost"])})
    report = tables.paper([runs])
    mean = cell(report, "table-2", "paper-hah", MEAN)
    assert mean.ours.labels == ("generated", "15 of 16")
    frost = cell(report, "table-2", "paper-hah", "frost")
    assert frost.ours is None
    assert frost.missing[0] == "hah data prepare cifar10-c"
    markdown, latex, text, document = all_formats(report)
    for heading in ("HaH, generated |", "15 of 16: without frost"):
        assert heading in markdown
    assert "HaH, generated}" in latex
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["table"] == "table-2" and row["ours"]]
    assert all("generated" in row["labels"] for row in rows if row["quantity"] != CLEAN)
    [row] = [row for row in json.loads(document)["tables"][1]["rows"] if row["preset"] == "paper-hah"]
    assert row["cells"]["fog"]["ours"]["labels"] == ["generated"]
    # The published mean of the same 15, by hand: the printed columns but frost's.
    printed = [64.7, 63.9, 61.2, 50.2, 74.4, 63.3, 83.3, 65.9, 59.9, 65.8, 69.5, 76.3, 73.8, 62.1, 76.3]
    assert mean.published.value == pytest.approx(sum(printed) / 1500)
    assert mean.published.place.startswith("Table 2, row HaH (Ours), column Mean of all, without Frost")
    assert mean.difference == pytest.approx(0.5 - sum(printed) / 1500)
    assert "the published mean is of the same 15" in markdown
    assert "67.4<sup>b</sup>" in markdown
    assert r"67.4\textsuperscript{b}" in latex
    assert cell(report, "table-2", "paper-standard", MEAN).published.value == 0.53  # nothing of ours to compare with


def test_a_mean_of_less_than_15_is_no_mean(runs, made):
    run = made("paper-hah", results={"corruptions": corruptions(dict.fromkeys(PAPER_CORRUPTIONS[:10], 0.5))})
    found = cell(tables.paper([runs]), "table-2", "paper-hah", MEAN)
    assert (found.ours, found.all_severities) == (None, None)
    assert found.missing == (f"hah eval {run.id} --suite corruptions",)


def test_training_stands_in_labelled_and_the_evaluation_is_still_missing(runs, made):
    run = made("paper-hah", metrics={"test/accuracy": 0.87, "test/noisy_accuracy": 0.6})
    report = tables.paper([runs])
    found = cell(report, "table-1", "paper-hah", NOISY)
    assert (found.ours.mean, found.ours.labels) == (0.6, ("last test of the training",))
    assert found.missing == (f"hah eval {run.id} --suite noise",)
    assert "HaH, last test of the training |" in formats.markdown_table(table(report, "table-1"))


def test_twins_serve_each_other(runs, made):
    """blocks-6 is paper-hah and blocks-0 paper-standard, under another name."""
    made("blocks-6", seed=1, results={"noise": noise({0.1: 0.6})})
    made("paper-standard", results={"noise": noise({0.1: 0.3})})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).ours.values == (0.6,)
    figure = figures.figures(report.networks)[-1]
    noisy = next(series for series in figure.series if series.title == "noise 0.1")
    assert [(point.x, point.y.mean) for point in noisy.points] == [(0, 30.0), (6, 60.0)]


def test_a_run_of_an_own_file_with_the_same_network_counts(runs, made):
    run = made("paper-hah", seed=5, results={"noise": noise({0.1: 0.6})})
    state = json.loads(run.state.read_text())
    run.state.write_text(json.dumps({**state, "preset": "mine"}))
    assert cell(tables.paper([runs]), "table-1", "paper-hah", NOISY).ours.values == (0.6,)


SMALL = ["model.width=0.125", "data.train_limit=256", "data.test_limit=64"]


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (["train.epochs=70", "train.milestones=[60]"], "train.epochs 70 instead of 100, train.milestones [60] instead"),
        (["model.width=0.5", "hah.lambda=0.5", "seed=1", "hah.top_k=0.2"], "model.width 0.5 instead of 1.0"),
        (SMALL, "data.train_limit 256 instead of None"),
        (["hah.lambda=0.5"], "hah.lambda 0.5 instead of 0.1"),
    ],
)
def test_a_run_that_is_not_the_presets_stands_in_no_row_and_it_is_said_why(runs, made, sets, why):
    other = made("paper-hah", sets=sets, results=everything())
    report = tables.paper([runs])
    cells = [cell for one in report.tables for row in one.rows for cell in row.cells.values()]
    assert not any(cell.ours or cell.difference for cell in cells)
    [said] = report.remarks
    assert said.startswith(f"{other.id} is left out: not as paper-hah (")
    assert why in said
    assert said in formats.markdown(report, []).replace("\\", "")
    made("paper-hah", results={"noise": noise({0.1: 0.6})})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).ours.values == (0.6,)
    assert report.remarks == (said,)


def test_runs_of_other_presets_are_counted(runs, made):
    for preset in ("cifar10-smoke", "cifar10-smoke", "quickstart"):
        made(preset, results={"noise": noise({0.1: 0.6})})
    report = tables.paper([runs])
    assert report.remarks == (
        "runs of other presets are left out: 2 cifar10-smoke, 1 quickstart; 'hah compare' takes any runs",
    )


def test_lambda_1_has_a_row_of_its_own_beside_the_printed_one(runs, made):
    made("paper-hah", sets=["hah.lambda=1.0"], results={"noise": noise({0.1: 0.65})})  # the same by another name
    made("no-threshold-lambda-1", results={"noise": noise({0.1: 0.3})})
    report = tables.paper([runs])
    for key, title in (("table-1", "HaH, lambda 1.0"), ("table-3", "All included, lambda 1.0")):
        [row] = [row for row in table(report, key).rows if row.title == title]
        assert row.cells[NOISY].ours.values == (0.65,)
        assert row.cells[NOISY].published.value == 0.64
    assert cell(report, "table-3", "no-threshold-lambda-1", NOISY).difference == pytest.approx(0.3 - 0.375)
    assert cell(report, "table-1", "paper-hah", NOISY).ours is None


def test_what_does_not_change_the_network_does_not_matter(runs, made):
    made("paper-hah", sets=["observe.images=10", "compute.device=cpu", "train.compile=true", "name=x"], seed=1,
         results={"noise": noise({0.1: 0.6})})  # fmt: skip
    assert cell(tables.paper([runs]), "table-1", "paper-hah", NOISY).ours.values == (0.6,)


def test_a_run_whose_live_setting_was_changed_is_left_out(runs, made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.6})}, changed={"hah.lambda": 0.5})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).ours is None
    assert report.remarks == (f"{run.id} is left out: not as paper-hah (hah.lambda 0.5 instead of 0.1)",)


def test_a_run_whose_live_setting_was_changed_and_changed_back_is_left_out_too(runs, made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.6})}, changed={"hah.lambda": 0.1, "train.epochs": 100})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).ours is None
    assert report.remarks == (f"{run.id} is left out: not as paper-hah (hah.lambda changed while it trained)",)


def test_one_run_stands_for_each_seed(runs, made):
    made("paper-hah", seed=1, results={"noise": noise({0.1: 0.6})}, created=1)
    twice = made("paper-hah", seed=1, created=2)  # newer, but nothing was measured of it
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).ours.values == (0.6,)
    assert any(remark.startswith(twice.id) for remark in report.remarks)


def test_named_runs_restrict_the_search(runs, made):
    made("paper-hah", seed=1, results={"noise": noise({0.1: 0.6})})
    chosen = made("paper-hah", seed=2, results={"noise": noise({0.1: 0.7})})
    other = made("quickstart")
    report = tables.paper([runs], [chosen, other])
    assert cell(report, "table-1", "paper-hah", NOISY).ours.values == (0.7,)
    assert f"{other.id} is left out: it is none of the paper's networks (preset quickstart)" in report.remarks


def test_the_answer_to_the_suspicion_is_in_words(runs, made):
    words = "Square leaves 31% | and <APGD> 15%, \x1b[31mno image fell to it alone"
    made("paper-hah", results={"masking": masking("suspect", words)})
    report = tables.paper([runs])
    markdown, _, _, document = all_formats(report)
    assert "| suspect | Square leaves 31% \\| and \\<APGD\\> 15%," in markdown
    assert "\x1b" not in markdown + document
    [found] = next(one for one in json.loads(document)["masking"] if one["network"] == "HaH")["runs"]
    [check] = found["checks"]
    assert (check["name"], check["verdict"]) == ("zero-gradient", "suspect")
    assert (found["norm"], found["eps"]) == ("linf", 2 / 255)


L2_SETS = " --set evaluate.masking.norm=l2 --set evaluate.masking.eps=0.25"


def test_masking_is_shown_in_each_norm_and_what_is_missing_of_it(runs, made):
    hah = made("paper-hah")
    write(hah, "masking", masking(transfer="not run"), number=1)
    write(hah, "masking", masking(norm="l2", eps=0.25, transfer="not run"), number=2, settings={"queries": 5})
    report = tables.paper([runs])
    [found] = [one for one in report.suspicions if one.title == "HaH"]
    assert [row[:4] for row in formats.verdicts(found) if row[0]] == [
        (hah.id, "all checks, Linf 2/255", "incomplete", ""),
        (hah.id, "all checks, L2 0.25", "incomplete", "5 queries"),
    ]
    assert found.missing == (f"hah eval {hah.id} --suite masking{L2_SETS}",)  # no standard run to transfer from
    assert "all checks, L2 0.25 | incomplete | 5 queries" in formats.markdown(report, [])
    standard = made("paper-standard", results={"masking": masking(transfer="not run")})
    report = tables.paper([runs])
    [ours], [theirs] = ([one for one in report.suspicions if one.title == title] for title in ("HaH", "Standard"))
    transfer = f" --set evaluate.masking.standard={standard.id}"
    assert ours.missing == (
        f"hah eval {hah.id} --suite masking{transfer}", f"hah eval {hah.id} --suite masking{L2_SETS}{transfer}"
    )  # fmt: skip
    assert theirs.missing == (f"hah eval {standard.id} --suite masking{L2_SETS}",)
    for number, (norm, eps) in enumerate((("linf", 2 / 255), ("l2", 0.25))):
        write(hah, "masking", masking(norm=norm, eps=eps, transfer="clear"), number=3 + number)
    [ours] = [one for one in tables.paper([runs]).suspicions if one.title == "HaH"]
    assert ours.missing == ()
    assert [masking.verdict for _, masking in ours.found] == ["clear", "clear"]


def test_every_network_that_is_compared_is_checked_for_masking_once(runs, made):
    for preset in ("paper-adversarial", "blocks-0", "blocks-2", "blocks-6"):
        made(preset, results={"masking": masking()})
    found = {one.title: len(one.found) for one in tables.paper([runs]).suspicions}
    assert found == {
        "Standard": 1, "Adversarial 8/255": 1, "HaH, lambda 1.0": 0, "HaH": 1, "No HaH loss": 0,
        "Batch norm instead, lambda 1.0": 0, "Batch norm instead": 0, "No thresholding, lambda 1.0": 0,
        "No thresholding": 0, "2 HaH blocks": 1,
    }  # fmt: skip


def balanced(text):
    depth = 0
    for letter in re.sub(r"\\.", "", text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    return depth == 0


def test_latex_is_balanced_and_every_row_has_its_columns(runs, made):
    for preset, hah in (("paper-hah", True), ("paper-standard", False)):
        for seed in (1, 2):
            made(preset, seed=seed, results=everything(0.01 * seed, hah))
    made("batch-norm", metrics={"test/accuracy": 0.9})
    for one in tables.paper([runs]).tables:
        text = formats.latex(one)
        body = re.sub(r"%.*", "", text.replace(r"\%", ""))
        assert balanced(body)
        assert body.count(r"\begin{") == body.count(r"\end{") == 2
        assert [body.count(rule) for rule in (r"\toprule", r"\bottomrule")] == [1, 1]
        width = len(re.search(r"\\begin\{tabular\}\{l(r+)\}", body)[1])
        for line in body.splitlines():
            if line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
                assert line.replace(r"\&", "").count("&") == width, line
        assert not re.search(r"(?<!\\)[_#]", body.replace(r"$\ell_", ""))
        assert body.count("$") % 2 == 0
        assert text.isascii()


def test_latex_escapes_everything():
    hostile = r"\input{/etc/passwd} & 100% $x_1^2$ #~<>{}" + '"[1]'
    escaped = formats.tex(hostile)
    assert escaped.startswith(r"\textbackslash{}input\{/etc/passwd\} \& 100\% \$x\_1")
    assert balanced(escaped)


def test_twenty_runs(runs, made):
    for seed in range(10):
        for preset, hah in (("paper-hah", True), ("paper-standard", False)):
            made(preset, seed=seed, results=everything(0.001 * seed, hah))
    report = tables.paper([runs])
    found = cell(report, "table-1", "paper-hah", LINF)
    assert len(found.ours.values) == 10
    assert found.ours.mean == pytest.approx(0.2 + 0.0045)
    assert report.remarks == ()


def test_files_are_written_whole_and_again(tmp_path, runs, made):
    made("paper-hah", results=everything())
    report = tables.paper([runs])
    found = figures.figures(report.networks)[2:3]
    first = {path.name: path.read_bytes() for path in files.write(files.of_paper(report, found), tmp_path / "a" / "b")}
    written = files.write(files.of_paper(report, found), tmp_path / "a" / "b")
    assert {path.name: path.read_bytes() for path in written} == first  # over the old ones, to the byte
    assert {"report.md", "report.json", "tables.csv", "table-1.tex", "figure-4.svg", "figure-4.png"} <= set(first)
    assert json.loads(first["report.json"])["tables"][0]["key"] == "table-1"
    for link in re.findall(rb"\]\((.*?)\)", first["report.md"]):
        assert link.decode() in first
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be written there"):
        files.write(files.of_paper(report, []), tmp_path / "file")


def test_results_of_a_subset_are_marked(runs, made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.6})})
    write(run, "attacks", attacks(("linf", 2 / 255, 0.2)), images=1000)
    text = formats.markdown_table(table(tables.paper([runs]), "table-1"))
    assert r"20.0 \[17.6, 22.6\]<sup>a</sup>" in text
    assert "<sup>a</sup> first 1,000 images" in text


def test_a_group_that_lacks_one_has_no_mean_but_weather_may_lack_frost(made):
    at_5 = dict.fromkeys((*CORRUPTION_GROUPS["other"][1:], *CORRUPTION_GROUPS["weather"]), 0.5)
    run = made("paper-hah", results={"corruptions": corruptions(at_5, step=0, missing=["frost"])})
    known = measured(run)
    assert tables.mean_over(known, (5,), "other") is None
    weather = tables.mean_over(known, (5,), "weather")
    assert (weather.value, weather.labels) == (0.5, ("without frost",))
    assert tables.mean_over(known, (5,)) is None
