"""Results beside published numbers, and evaluations launched from there."""

import csv
import json
import random
import re
from dataclasses import replace
from functools import partial

import pytest
from textual.widgets import DataTable, OptionList, Select

from engine.experiment.datasets import PAPER_CORRUPTIONS, SUITE_NAMES
from engine.experiment.mistakes import RequestError
from engine.report import one_run
from engine.report.figures import Figure, Point, Series
from engine.results.estimates import Estimate
from engine.results.measured import measured
from engine.results.numbers import PAPER_EPS, Check, Masking, Number
from engine.runs import launch
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from hah_tui import engines
from hah_tui.app import HahApp
from hah_tui.screens import results as results_screen
from hah_tui.screens.evaluate import EvaluateDialog
from hah_tui.screens.results import cells_of, interval_of
from hah_tui.widgets.evaluated import key_of, panels_of
from hah_tui.widgets.plot import Plot
from tests.report.conftest import corruptions, everything, noise, write
from tests.tui.driving import drive, retype, still, until, words
from tests.tui.made import config, evaluated, made
from tests.tui.snapshot import SIZES, check


def line(app, title):
    return next(one for one in app.screen.found.entries if one.title == title)


def group(lines, title):
    """The lines under a heading, by their titles."""
    start = next(place for place, one in enumerate(lines) if one.heads and one.title == title) + 1
    end = next((place for place in range(start, len(lines)) if lines[place].heads), len(lines))
    return {one.title: one for one in lines[start:end]}


def corrupted(runs, preset, at_5, source="official", missing=("frost",), sets=()):
    """A run whose accuracy under every corruption is ``at_5`` at severity 5, and 0.05 higher at each milder one."""
    run = made(runs, id=f"{preset}-{len(list(runs.glob('*')))}", preset=preset, epoch=100, epochs=100)
    run.config.write_text(config(preset, sets))
    write(run, "corruptions", corruptions(dict.fromkeys(PAPER_CORRUPTIONS, at_5), source=source, missing=missing))
    return run


def sure_of(share, count):
    """The 95% interval of a share, transcribed slowly: every p that lies at most 1.96 of its own deviations from it."""

    def end(outside, inside):
        for _ in range(60):
            p = (outside + inside) / 2
            far = abs(p - share) > 1.959963984540054 * (p * (1 - p) / count) ** 0.5
            outside, inside = (p, inside) if far else (outside, p)
        return inside

    return end(0.0, share), end(1.0, share)


async def opened(pilot, app, *keys):
    """The results of the run in the list, and after these keys, read and shown."""
    await pilot.press("R")
    await until(pilot, lambda: getattr(app.screen, "_read", False))
    for key in keys:
        await pilot.press(key)
    await until(pilot, lambda: app.screen._read)


def test_measured_stands_beside_published(runs):
    evaluated(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        assert cells_of(line(app, "clean"))[1:4] == ["87.1%", "87.3%", "-0.2"]
        assert cells_of(line(app, "noise 0.1"))[1:4] == ["63.3%", "64.0%", "-0.7"]
        robust = line(app, "Linf 2/255")
        assert cells_of(robust)[1:4] == ["21.1%", "21.5%", "-0.4"]
        assert "first 1,000 images" in robust.note  # what a reader has to know
        assert "20 steps" in robust.note
        missing = line(app, "L2 0.25")
        assert cells_of(missing)[1:4] == ["", "27.6%", ""]
        assert "noise-0123abcd.json" in words(app, "#files")
        assert app.screen.query_one("DataTable").row_count == len(app.screen.found.entries)

    drive(runs, body)


def test_a_run_of_another_preset_has_no_published_numbers(runs):
    made(runs, id="a-run")

    async def body(pilot, app):
        await opened(pilot, app)
        assert all(one.published is None for one in app.screen.found.entries)
        assert line(app, "clean").ours == 0.9  # of the training
        assert "last test of the training" in line(app, "clean").note

    drive(runs, body)


def test_a_changed_preset_says_so_as_the_report_does(runs):
    run = evaluated(runs)
    run.config.write_text(config("paper-hah", ["train.compile=true", "evaluate.suites=[noise]", "hah.lambda=0.5"]))

    async def body(pilot, app):
        await opened(pilot, app)
        why = "beside no published numbers: not as paper-hah (hah.lambda 0.5 instead of 0.1)"
        assert app.screen.found.remarks == [why]
        assert "beside no published numbers" in words(app, "#files")
        assert not any(line.published for line in app.screen.found.entries)

    drive(runs, body)


def test_what_leaves_the_network_as_it_is_changes_no_preset(runs):
    run = evaluated(runs)
    run.config.write_text(config("paper-hah", ["train.compile=true", "observe.every=7", "seed=3"]))
    assert one_run.read(run).remarks == []


def test_means_over_corruptions_by_hand_and_what_is_to_know_of_them(runs):
    run = corrupted(runs, "paper-hah", 0.6, source="generated")
    lines = one_run.read(run).entries
    at_5, over_all = group(lines, "Corruptions, severity 5"), group(lines, "Corruptions, severity 1-5")
    assert cells_of(at_5["mean"]) == ["mean", "60.0%", "67.4%", "-7.4", "generated; 15 of 16; Table 2 without frost"]
    assert cells_of(over_all["mean"]) == ["mean", "70.0%", "", "", "generated; 15 of 16"]
    for means, value in ((at_5, 0.6), (over_all, 0.7)):
        notes = {name: means[f"mean of {name}"].note for name in ("noise", "weather", "blur", "digital")}
        assert notes == dict.fromkeys(notes, "generated") | {"weather": "generated; without frost"}
        assert all(means[f"mean of {name}"].ours == pytest.approx(value) for name in notes)
    assert cells_of(at_5["frost"]) == ["frost", "", "73.3%", "", "not measured yet; Table 2"]


def test_the_published_mean_stands_there_before_anything_is_measured(runs):
    lines = one_run.read(evaluated(runs)).entries
    assert cells_of(group(lines, "Corruptions, severity 5")["mean"])[1:4] == ["", "67.7%", ""]
    assert not [one for one in lines if one.title in ("Corruptions, severity 1-5", "mCE")]


def mce(run, pinned=""):
    return group(one_run.read(run, pinned).entries, "Corruptions, severity 1-5")["mCE"]


def test_mce_is_relative_to_the_pinned_run_else_to_the_standard_one(runs):
    run = corrupted(runs, "paper-hah", 0.6)  # an error of 0.3 over all severities
    assert cells_of(mce(run))[1:] == [
        "", "", "", "relative to a pinned run or paper-standard; neither has these corruptions yet",
    ]  # fmt: skip
    other = corrupted(runs, "no-threshold", 0.3)  # of 0.6
    corrupted(runs, "paper-standard", 0.2, sets=["data.dataset=cifar100"])  # of other images
    standard = corrupted(runs, "paper-standard", 0.4)  # of 0.5
    assert mce(run).ours == pytest.approx(0.3 / 0.5)
    assert mce(run).note == f"15 of 16; relative to {standard.id}"
    assert mce(run, other.id).ours == pytest.approx(0.3 / 0.6)
    assert mce(run, other.id).note == f"15 of 16; relative to {other.id}"
    for unusable in (run.id, "gone", made(runs, id="unmeasured").id):
        assert mce(run, unusable).note == f"15 of 16; relative to {standard.id}"
    assert mce(standard).ours == pytest.approx(1)


def test_a_standard_run_that_is_not_the_papers_is_no_measure_of_mce_unless_pinned(runs):
    standard = corrupted(runs, "paper-standard", 0.4, missing=(), sets=["train.lr=0.01"])
    run = corrupted(runs, "paper-hah", 0.6, missing=())
    assert mce(run).ours is None
    assert cells_of(mce(run, standard.id))[1:] == ["60.0%", "", "", f"relative to {standard.id}"]


def test_the_pinned_run_reaches_the_screen(runs):
    standard, run = corrupted(runs, "no-threshold", 0.4), corrupted(runs, "paper-hah", 0.6)

    async def body(pilot, app):
        app.settings = replace(app.settings, reference=standard.id)
        app.push_screen(results_screen.ResultsScreen(run))
        await until(pilot, lambda: getattr(app.screen, "_read", False))
        assert line(app, "mCE").note.endswith(f"relative to {standard.id}")

    drive(runs, body)


def test_the_worst_case_stands_below_its_robust_accuracy(runs):
    run = evaluated(runs)
    document = json.loads((run.results / "attacks-0123abcd.json").read_text())
    for number, stands in enumerate(("0101", "0011")):
        attacks = [
            {"norm": "linf", "eps": eps, "robust_accuracy": 0.5, "stands": stands,
             "methods": [{"name": "apgd-ce", "accuracy": 0.5}, {"name": "apgd-t", "accuracy": 0.5}]}
            for eps in (1e-5, 2 / 255)
        ]  # fmt: skip
        changed = {**document, "images": 4, "settings": {}, "result": {"attacks": attacks}}
        (run.results / f"attacks-0000000{number}.json").write_text(json.dumps(changed))
    lines = one_run.read(run).entries
    accuracy = group(lines, "Accuracy")
    assert list(accuracy)[2:4] == ["Linf 2/255", "Linf 2/255, worst case"]
    assert cells_of(accuracy["Linf 2/255, worst case"]) == [
        "Linf 2/255, worst case", "25.0%", "", "", "first 4 images; apgd-ce + apgd-t"
    ]  # fmt: skip
    assert list(group(lines, "Attacks")) == ["Linf 1e-05", "Linf 1e-05, worst case"]


def test_sparsity_is_shown_block_by_block(runs):
    run = made(runs, id="a-run")
    write(run, "sparsity", everything()["sparsity"])
    lines = one_run.read(run).entries
    assert list(group(lines, "Hoyer sparsity")) == [f"block {n}" for n in range(1, 14)]
    assert cells_of(group(lines, "Hoyer sparsity")["block 2"])[1] == "0.22"
    assert list(group(lines, "Active fraction")) == [f"block {n}" for n in range(1, 14)]
    assert cells_of(group(lines, "Active fraction")["block 2"])[1] == "11.0%"
    assert cells_of(group(lines, "Silent fraction")["block 13"])[1] == "1.0%"


def test_minimum_norms_say_how_many_images_they_are_of(runs):
    known = measured(made(runs, id="a-run"))
    numbers = {"mean": 0.0123, "median": 1290.4, "success_rate": 0.995, "misclassified": 0.129}
    known = replace(known, numbers={f"eval/minimum_norm/l1/{name}": Number(one) for name, one in numbers.items()})
    assert [cells_of(one)[:2] for one in one_run.entries(known)] == [
        ["Minimum norms", ""], ["L1 mean", "0.0123"], ["L1 median", "1,290"], ["L1 misclassified", "12.9%"],
        ["L1 success rate", "99.5%"],
    ]  # fmt: skip


WORDS = (
    "Square, which sees scores only, leaves 12.3% at linf 0.007843, APGD 21.1%; 88 images fall to it and not to APGD"
)


@pytest.mark.parametrize(
    ("verdict", "hue"), [("clear", "good"), ("suspect", "bad"), ("incomplete", "waiting"), ("not run", "waiting")]
)
def test_verdicts_on_masked_gradients(runs, tmp_path, monkeypatch, verdict, hue):
    def noted(app, text):
        return words(app, "#note") == text

    checks = (Check("square", verdict, WORDS),)
    maskings = {norm: Masking(norm, eps, verdict, checks, ("first 64 images",)) for norm, eps in PAPER_EPS.items()}
    monkeypatch.setattr(one_run, "measured", lambda run: replace(measured(run), maskings=maskings))
    monkeypatch.chdir(tmp_path)
    evaluated(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        table = app.screen.query_one(DataTable)
        assert [one.title for one in app.screen.found.entries if "Masking" in one.title] == [
            "Masking, Linf 2/255", "Masking, L2 0.25",
        ]  # fmt: skip
        for row, title, note in ((-2, "all checks", "first 64 images"), (-1, "square", WORDS)):
            (shown,) = table.get_row_at(table.row_count + row)
            assert shown.plain.split(maxsplit=len(title.split()))[-1] == verdict
            assert any(shown.plain[span.start : span.end].strip() == verdict and span.style == app.colour(hue)
                       for span in shown.spans)  # fmt: skip
            table.move_cursor(row=table.row_count + row)
            await until(pilot, partial(noted, app, f"Masking, L2 0.25, {title}  {note}"))
        await pilot.press("w")
        await until(pilot, lambda: list(tmp_path.glob("*.csv")))
        await until(pilot, lambda: [note for note in app._notifications if note.message.startswith("saved")])
        rows = list(csv.reader(next(tmp_path.glob("*.csv")).read_text().splitlines()))
        assert rows[-2:] == [
            ["Masking, L2 0.25", "all checks", verdict, "", "", "", "", "first 64 images"],
            ["Masking, L2 0.25", "square", verdict, "", "", "", "", WORDS],
        ]

    drive(runs, body, (40, 12))


def test_bad_result_files_are_said(runs):
    run = evaluated(runs)
    (run.results / "noise-deadbeef.json").write_text("{")

    async def body(pilot, app):
        await opened(pilot, app)
        assert "noise-deadbeef.json is no result" in words(app, "#files")

    drive(runs, body)


def test_export_copy_reload_and_keys(runs, tmp_path, monkeypatch):
    run = evaluated(runs)
    monkeypatch.chdir(tmp_path)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("w")
        await until(pilot, lambda: list(tmp_path.glob("*.csv")))
        await until(pilot, lambda: [note for note in app._notifications if note.message.startswith("saved")])
        with next(tmp_path.glob("*.csv")).open() as file:
            rows = list(csv.DictReader(file))
        low, high = sure_of(0.871, 10000)
        clean = {"group": "Accuracy", "quantity": "clean", "measured": "0.871", "low": f"{low:.6g}",
                 "high": f"{high:.6g}", "images": "10000", "published": "0.873"}  # fmt: skip
        assert clean.items() <= rows[0].items()
        await pilot.press("C")
        assert app.clipboard == run.id
        app.screen.action_copy_path()
        assert app.clipboard == str(run.path)
        await pilot.press("j", "j", "k")
        assert app.screen.query_one("DataTable").cursor_row == 1
        (run.results / "attacks-0123abcd.json").unlink()
        await pilot.press("f5")
        await until(pilot, lambda: line(app, "Linf 2/255").ours is None)
        await pilot.press("s")
        assert "no evaluation is running" in list(app._notifications)[-1].message
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


SECONDS = dict.fromkeys(SUITE_NAMES, 60.0) | {
    "noise": 2.0,
    "sparsity": 1.0,
    "corruptions": 600.0,
    "attacks": 7200.0,
    "minimum_norm": 9000.0,
    "masking": 60.0,
}


@pytest.fixture
def asked(monkeypatch):
    """What is asked of an engine that answers at once; estimates by suite."""
    found = []

    class Process:
        returncode = None

        def poll(self):
            return 0

    def estimate(run, experiment, checkpoint):
        found.append(("estimate", experiment.evaluate.attacks.restarts, checkpoint))
        restarts = experiment.evaluate.attacks.restarts
        one = {
            suite: {"images": 10000, "seconds_per_image": restarts * seconds / 1e4}
            for suite, seconds in SECONDS.items()
        }
        return {"device": "cpu", "processes": 1, "suites": one}

    def evaluate(run, experiment, checkpoint):
        found.append((experiment.evaluate.suites, experiment.evaluate.images, checkpoint))
        return Process()

    monkeypatch.setattr(engines, "forecast", estimate)
    monkeypatch.setattr(engines, "evaluate", evaluate)
    monkeypatch.setattr(launch, "await_start", lambda job, process: [])
    monkeypatch.setattr(engines, "ask", lambda job, verb: found.append((job.id, verb)))
    return found


async def asking(pilot, app):
    await opened(pilot, app)
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, EvaluateDialog))
    await until(pilot, lambda: "at most" in words(app, "#said"))


def chosen(app):
    listed = app.screen.query_one(OptionList)
    return [str(listed.get_option_at_index(index).prompt) for index in range(listed.option_count)]


def test_suites_are_chosen_beside_the_time_they_take(runs, asked):
    run = evaluated(runs)
    for name in ("last", "best", "damaged"):
        (run.checkpoints / f"{name}.pt").touch()

    async def body(pilot, app):
        await asking(pilot, app)
        assert chosen(app)[0].split() == ["[x]", "noise", "accuracy", "and", "SNR", "under", "noise", "0:02"]
        assert chosen(app)[3].split() == ["[", "]", "attacks", "robust", "accuracy", "2:00:00"]
        assert "at most 0:03 on cpu" in words(app, "#said")
        await pilot.press("space", "down", "space")
        assert "choose one suite" in words(app, "#said")
        await pilot.press("enter")
        assert isinstance(app.screen, EvaluateDialog)
        await pilot.press("down", "space", "tab")
        for nonsense in ("0", "\u00b2", "-3", "1e3"):
            app.screen.focused.value = nonsense
            await until(pilot, lambda: "above 0" in words(app, "#said"))
        assert "above 0" in words(app, "#said")
        await retype(pilot, app, "500")
        assert chosen(app)[2].endswith("0:30")
        assert "at most 0:30" in words(app, "#said")
        await pilot.press("tab")
        assert app.screen.focused.value == "last"
        await pilot.press("enter", "up", "enter", "tab")  # best
        box = app.screen.focused
        for text, said in (
            ("x", "settings: KEY=VALUE, such as evaluate.noise.levels=[0.05, 0.1], got 'x'"),
            ("[0.1] evaluate.noise.draws=3", "got '[0.1]'"),
            ("evaluate.noise.levels [0.1, 0.2]", "got 'evaluate.noise.levels [0.1, 0.2]'"),
            ("evaluate.noise.levels=[0.1, 0.2] evaluate.noise.draws 3", "got 'evaluate.noise.draws 3'"),
            ("evaluate.noise.levels=[0.1,", "evaluate.noise.levels=[0.1,: is not YAML"),
            ("hah.lambda=1", "settings evaluate.*, compute.device"),
            ("evaluate.attacks.restarts=0", "from 1 to 100"),
        ):
            box.value = text
            await until(pilot, lambda said=said: said in words(app, "#said"))
        assert ("estimate", 2, "best") not in asked
        box.value = "evaluate.attacks.restarts=2"
        await until(pilot, lambda: "at most 1:00" in words(app, "#said"))
        assert asked[0] == ("estimate", 1, "last")
        assert asked[-1] == ("estimate", 2, "best")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: asked[-1] == (["corruptions"], 500, "best"))

    drive(runs, body)


def test_another_checkpoint_has_another_estimate(runs, asked):
    run = evaluated(runs)
    for name in ("last", "best"):
        (run.checkpoints / f"{name}.pt").touch()

    async def body(pilot, app):
        await asking(pilot, app)
        assert asked == [("estimate", 1, "last")]
        select = app.screen.query_one(Select)
        select.value = "best"
        await until(pilot, lambda: "timing" in words(app, "#said"))  # what was known is of the other one
        await until(pilot, lambda: "at most 0:03" in words(app, "#said"))
        assert asked == [("estimate", 1, "last"), ("estimate", 1, "best")]

    drive(runs, body)


@pytest.mark.parametrize("settings", [
    "evaluate.noise.levels=[0.05, 0.1]  evaluate.noise.draws=2 evaluate.masking.standard=a-run",
    " evaluate.noise.draws = 2 evaluate.masking.standard=a-run evaluate.noise.levels = [0.05,   0.1] ",
    "evaluate.noise={levels: [0.05, 0.1], draws: 2} evaluate.masking.standard=a-run",
])  # fmt: skip
def test_values_of_settings_may_hold_blanks(runs, asked, monkeypatch, settings):
    evaluated(runs)
    begun = []
    monkeypatch.setattr(engines, "evaluate", lambda run, experiment, checkpoint: begun.append(experiment.evaluate))
    monkeypatch.setattr(HahApp, "adopt", lambda self, process: None)

    async def body(pilot, app):
        await asking(pilot, app)
        app.screen.query_one("#settings").value = settings
        await pilot.pause()
        await pilot.press("ctrl+r")
        await until(pilot, lambda: begun)
        assert (begun[0].noise.levels, begun[0].noise.draws) == ([0.05, 0.1], 2)
        assert begun[0].masking.standard == "a-run"

    drive(runs, body)


def test_no_estimate_is_no_obstacle(runs, asked, monkeypatch):
    evaluated(runs)

    def estimate(run, experiment, checkpoint):
        raise RequestError("[b]no[/b] checkpoint")

    monkeypatch.setattr(engines, "forecast", estimate)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, EvaluateDialog))
        await until(pilot, lambda: "no estimate: [b]no[/b] checkpoint" in words(app, "#said"))
        await pilot.press("escape")
        assert app.screen.PLACE == "results"
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, EvaluateDialog))
        await pilot.press("enter")
        await until(pilot, lambda: asked)
        assert asked == [(["noise", "sparsity"], None, "last")]

    drive(runs, body)


def test_an_evaluation_can_wait_in_the_queue(runs, asked, monkeypatch):
    run = evaluated(runs)
    monkeypatch.setattr(engines, "enqueue_evaluation", lambda run, experiment, name: asked.append((run.id, name)))

    async def body(pilot, app):
        await asking(pilot, app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: (run.id, "last") in asked)

    drive(runs, body)


def test_an_evaluation_is_launched_followed_and_stopped(runs, asked):
    run = evaluated(runs)

    async def body(pilot, app):
        await asking(pilot, app)
        await pilot.press("enter")
        await until(pilot, lambda: (["noise", "sparsity"], None, "last") in asked)
        job = run.evaluation
        job.path.mkdir()
        lock = Lock.take(job.lock)
        Heartbeat(job.heartbeat).beat(1000.0)
        State(status="running", step=3, steps=6, phase="noise", engine=identity().dump()).write(job)
        await until(pilot, lambda: "50%" in words(app, "#job"))
        await pilot.press("s")
        await until(pilot, lambda: (job.id, "stop") in asked)
        lock.release()
        await until(pilot, lambda: "lost" in words(app, "#job"))

    drive(runs, body)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_what_to_measure(runs, asked, size, monkeypatch):
    monkeypatch.setattr(results_screen, "age", lambda moment: "2 min")
    evaluated(runs)

    async def body(pilot, app):
        await asking(pilot, app)
        await still(pilot, app)
        check(app, "evaluate")

    drive(runs, body, size)


# How sure an accuracy is


def test_an_accuracy_of_few_images_does_not_look_like_one_of_many(runs):
    many, few = made(runs, id="many"), made(runs, id="few")
    for run, images in ((many, 10_000), (few, 64)):
        write(run, "noise", noise({0.1: 62 / 64}), images=images, clean_accuracy=62 / 64)
    shown = {}
    for run, images in ((many, 10_000), (few, 64)):
        clean = group(one_run.read(run).entries, "Accuracy")["clean"]
        assert clean.interval == pytest.approx(sure_of(62 / 64, images))
        assert clean.images == images
        shown[run.id] = interval_of(clean), interval_of(clean, short=True)
    assert shown == {"many": ("[96.5, 97.2]", "[96,98]"), "few": ("[89.3, 99.1]", "[89,100]")}

    async def body(pilot, app):
        app.push_screen(results_screen.ResultsScreen(few))
        await until(pilot, lambda: getattr(app.screen, "_read", False))
        assert any("96.9% [89,100]" in row for row in table_of(app))
        app.screen.query_one(DataTable).move_cursor(row=1)
        await until(pilot, lambda: "clean  96.9% [89.3, 99.1] of 64 images  first 64 images" in words(app, "#note"))

    drive(runs, body, (40, 12))


def table_of(app):
    table = app.screen.query_one(DataTable)
    return [table.get_row_at(row)[0].plain for row in range(table.row_count)]


def test_means_over_corruptions_and_numbers_of_blocks_have_no_interval(runs):
    lines = one_run.read(corrupted(runs, "paper-hah", 0.6)).entries
    with_it = {line.title for line in lines if line.interval}
    assert "fog" in with_it
    assert not [title for title in with_it if title.startswith(("mean", "block", "mCE"))]


# What is behind


def measuring(runs, id, accuracy, **facts):
    """A finished run under noise."""
    sets = facts.pop("sets", [])
    run = made(runs, id=id, **facts)
    run.config.write_text(config(facts.get("preset", "quickstart"), sets))
    write(run, "noise", noise({0.1: accuracy, 0.2: accuracy / 2}))
    return run


def behind(run, pinned=""):
    found = one_run.read(run, pinned).behind
    return (found.name, [one.run.id for one in found.runs]) if found else None


def test_behind_is_the_pinned_run_else_the_standard_one_else_the_mean_of_the_seeds(runs):
    run = measuring(runs, "hah", 0.6, preset="paper-hah")
    assert behind(run) is None
    other = measuring(runs, "hah-7", 0.5, preset="paper-hah", sets=["seed=7"])
    measuring(runs, "hah-8", 0.1, preset="paper-hah", sets=["seed=8"], status="running")
    measuring(runs, "hah-9", 0.1, preset="paper-hah", sets=["seed=9"], status="stopped")
    assert behind(run) == ("mean of its 2 seeds", ["hah-7", "hah"])
    noisy = next(figure for figure in one_run.read(run).figures if figure.key == "noise")
    means = {one.title: {point.x: point.y.mean for point in one.points} for one in noisy.series}
    assert means["hah"][0.1] == pytest.approx(60)
    assert means["mean of its 2 seeds"][0.1] == pytest.approx(55)
    standard = measuring(runs, "standard", 0.3, preset="paper-standard")
    assert behind(run) == ("standard, standard", ["standard"])
    assert behind(run, other.id) == ("hah-7, pinned", ["hah-7"])
    unmeasured = made(runs, id="unmeasured").id
    for unusable in (run.id, "gone", unmeasured, measuring(runs, "other-data", 0.5).id):
        assert behind(run, unusable) == ("standard, standard", ["standard"])
    assert behind(standard) is None


def test_a_run_that_was_changed_while_it_trained_is_in_no_mean(runs):
    run = measuring(runs, "hah", 0.6)
    measuring(runs, "hah-7", 0.5, sets=["seed=7"], changed={"hah.lambda": 0.5})
    assert behind(run) is None
    measuring(runs, "hah-8", 0.5, sets=["seed=8"])
    assert behind(run) == ("mean of its 2 seeds", ["hah-8", "hah"])


# In panels


def full(runs, **facts):
    """A run with results of every suite, and a standard run beside it."""
    run = evaluated(runs)
    for suite, result in everything().items():
        write(run, suite, result)
    checks = [
        {"name": name, "values": {}, "verdict": verdict, "words": said}
        for name, verdict, said in (("noise", "clear", WORDS), ("square", "suspect", WORDS.upper()))
    ]
    write(run, "masking", {"norm": "linf", "eps": 2 / 255, "checks": checks, "verdict": "suspect"}, images=64)
    standard = made(runs, id="paper-standard-ab12", preset="paper-standard", epoch=100, epochs=100, age=9e4)
    standard.config.write_text(config("paper-standard"))
    for suite, result in everything(hah=False).items():
        write(standard, suite, result)
    return run


def test_every_panel_there_are_numbers_for(runs):
    found = one_run.read(full(runs))
    panels = panels_of(found)
    assert [key_of(panel) for panel in panels] == [
        "noise", "eps-linf", "eps-l2", "eps-l1", "eps-l0", "severity", "corruptions", "snr", "sparsity", "masking-linf",
    ]  # fmt: skip
    said = {figure.key: [series.labels for series in figure.series] for figure in found.figures}
    assert said["eps-linf"] == [[], []]  # attacked at several sizes
    assert said["eps-l1"] == [["by minimum norms"], ["by minimum norms"]]
    assert panels_of(one_run.RunResults([], [], [])) == []
    table = panels[6].lines(80)
    assert [text.split() for text, _ in table[1]][:1] == [["gaussian", "noise"]]
    assert "".join(text for text, _ in table[1]).split()[2:] == [
        "80.0",
        "75.0",
        "70.0",
        "65.0",
        "60.0",
        "70.0",
        "+30.0",
    ]
    assert "".join(text for text, _ in panels[6].lines(40)[1]).split()[2:] == ["80", "75", "70", "65", "60"]


def test_the_axis_is_that_of_the_run_in_front():
    def series(title, last):
        return Series(title, tuple(Point(float(x), Estimate((50.0,))) for x in range(last + 1)))

    plot = Plot(Figure("noise", "t", "x", "accuracy in %", (series("behind", 90), series("front", 9))), "front")
    assert plot.places == [float(x) for x in range(10)]
    rows = plot.rows(60, 12, False, False, None)
    assert "8" in rows[-1][0].split()
    assert "80" not in rows[-1][0].split()
    lonely = Plot(Figure("noise", "t", "x", "accuracy in %", (series("behind", 90),)), "front")
    assert lonely.places[-1] == 90


@pytest.mark.parametrize("plain", [False, True])
def test_a_plot_fits_whatever_room_it_has(plain):
    draw = random.Random(18)
    for _ in range(300):
        width, height = draw.randrange(10, 100), draw.randrange(1, 30)
        key, unit = draw.choice([("noise", "accuracy in %"), ("eps-linf", "accuracy in %"), ("snr", "SNR in dB")])
        every = [
            Series(title, tuple(Point(x, Estimate((y,), interval=(y - 3, y + 2)))
                                for x, y in zip(sorted({draw.random() * 20 for _ in range(count)}),
                                                [draw.uniform(-20, 100) for _ in range(count)], strict=True)))
            for title, count in (("behind", draw.randrange(1, 60)), ("front", draw.randrange(1, 60)))
        ]  # fmt: skip
        plot = Plot(Figure(key, "title", "x", unit, tuple(every)), "front")
        cursor = draw.choice([None, *plot.places])
        rows = plot.rows(width, height, plain, draw.random() < 0.5, cursor)
        assert len(rows) == height
        for text, inks in rows:
            assert len(text) == len(inks) == width
        if cursor is not None:
            where, values = plot.at(cursor)
            assert where
            assert values


def test_marks_stand_where_it_was_measured():
    points = tuple(Point(float(x), Estimate((y,))) for x, y in ((0, 0.0), (1, 100.0), (2, 0.0)))
    plot = Plot(Figure("noise", "t", "x", "accuracy in %", (Series("front", points),)), "front")
    rows = [text for text, _ in plot.rows(46, 11, False, False, None)]
    left = rows[0].index("100%") + 5
    assert [(line, at) for line, text in enumerate(rows) for at, char in enumerate(text) if char == "●"] == [
        (0, left + 20), (9, left), (9, left + 39),
    ]  # fmt: skip


def seen(app):
    return app.screen.plots.text()


def test_panels_are_walked_and_left_step_by_step(runs):
    full(runs)

    async def body(pilot, app):
        await opened(pilot, app, "g")
        screen = app.screen
        assert "● this run  ○ paper-standard-ab12, standard" in seen(app)
        assert "1/10" in seen(app)
        assert screen.focused is screen.plots
        await pilot.press("right", "right")
        note = words(app, "#note")
        low, high = (100 * end for end in sure_of(0.82, 10_000))
        assert note == (
            f"std 0.02  this run 82.0% [{low:.1f}, {high:.1f}]  paper-standard-ab12, standard 80.0% [79.2, 80.8]"
        )
        await pilot.press("f")
        assert screen.plots.full
        await pilot.press("escape")
        assert screen.plots.cursor is None
        await pilot.press("escape")
        assert not screen.plots.full
        for _ in range(10):
            await pilot.press("tab")
        assert screen.plots.current == 0  # round
        await pilot.press("k")
        assert screen.plots.panel.title == "Masking, Linf 2/255"
        assert not screen.query_one("#note").display
        await pilot.press("left", "pageup", "escape")
        assert screen.PLACE == "results"
        assert screen.query_one(DataTable).has_focus
        table = screen.query_one(DataTable)
        row = next(n for n, one in enumerate(screen.found.entries) if one.title == "Hoyer sparsity") + 2
        table.move_cursor(row=row)
        await pilot.press("enter")
        assert screen.plots.panel.title == "Sparsity of each block's output"
        await pilot.press("g", "escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body, (80, 24))


def test_a_click_goes_to_a_panel_and_then_into_it(runs):
    full(runs)

    async def body(pilot, app):
        await opened(pilot, app, "g")
        plots = app.screen.plots
        await pilot.click(plots, offset=(60, 15))
        assert (plots.current, plots.full) == (3, False)
        await pilot.click(plots, offset=(60, 15))
        assert plots.full
        await pilot.click(plots, offset=(3, 0))  # the legend
        assert plots.full

    drive(runs, body, (80, 24))


def test_verdicts_are_read_to_the_last_word_in_the_smallest_terminal(runs):
    full(runs)

    async def body(pilot, app):
        await opened(pilot, app, "g", "k")
        read, pages = [], set()
        while seen(app) not in pages:
            pages.add(seen(app))
            shown = [row.strip() for row in seen(app).splitlines()[3:]]
            first = int(re.search(r"(\d+) to", seen(app))[1])
            read[first - 1 :] = [row for row in shown if row]
            await pilot.press("pagedown")
        text = " ".join(read)
        assert f"noise: clear {WORDS} square: suspect {WORDS.upper()}" in text
        assert text.startswith("all checks: suspect first 64 images")
        assert text.endswith("behind, paper-standard-ab12: clear")
        assert all(len(row) <= 40 for page in pages for row in page.splitlines())

    drive(runs, body, (40, 12))


def test_a_folder_that_cannot_be_read_takes_nothing_away(runs, monkeypatch):
    full(runs)

    def beside(found, pinned):
        raise OSError("[b]the disk is gone[/b]")

    monkeypatch.setattr(one_run, "beside", beside)

    async def body(pilot, app):
        await opened(pilot, app, "g")
        assert "● this run" in seen(app)
        await pilot.press("escape")
        assert "[b]the disk is gone[/b]" in words(app, "#files")
        assert table_of(app)[1].startswith("  clean")

    drive(runs, body)


def test_the_cursor_stays_where_there_is_something(runs):
    run = full(runs)

    async def body(pilot, app):
        await opened(pilot, app, "g")
        await pilot.press("left")  # from nowhere to the last
        assert words(app, "#note").startswith("std 0.2 ")
        for path in run.results.glob("noise-*"):
            path.unlink()
        write(run, "noise", noise({0.04: 0.7}))
        await pilot.press("f5")
        await until(pilot, lambda: words(app, "#note").startswith("std 0.1  this run 63.3%"))  # of the training

    drive(runs, body)


def test_panels_fit_every_terminal(runs):
    full(runs)

    async def body(pilot, app):
        await opened(pilot, app, "g")
        for size in ((12, 6), (25, 9), (39, 12), (77, 17), (200, 70), (119, 8)):
            await pilot.resize_terminal(*size)
            for _ in app.screen.plots.panels:
                await pilot.press("tab", "right", "f", "f")
                rows, room = app.screen.plots.rows, app.screen.plots.size
                assert {(len(text), len(inks)) for text, inks in rows} == {(room.width, room.width)}
                assert len(rows) == room.height

    drive(runs, body)


def test_corruptions_say_how_sure_they_are(runs):
    run = full(runs)
    write(run, "corruptions", corruptions(dict.fromkeys(PAPER_CORRUPTIONS, 0.5), step=0), images=64)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("g", "g")
        app.screen.plots.find("corruptions")
        await pilot.press("g")
        low, high = sure_of(0.5, 64)
        assert high - 0.5 == pytest.approx(0.5 - low)
        assert words(app, "#note") == (
            "this run: first 64 images  paper-standard-ab12, standard: measured in full"
            f"  95% intervals up to ±{100 * (high - 0.5):.1f}"
        )

    drive(runs, body)


def test_nothing_measured_says_so_in_panels_too(runs):
    made(runs, id="a-run", epoch=0)

    async def body(pilot, app):
        await opened(pilot, app, "g", "right", "tab", "f", "pagedown")
        assert "no curves yet" in seen(app)
        await pilot.press("escape", "escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "keys"), [("results-plots", "g right right"), ("results-verdicts", "g k f")])
def test_picture_of_panels(runs, size, name, keys):
    full(runs)

    async def body(pilot, app):
        await opened(pilot, app, *keys.split())
        await still(pilot, app)
        check(app, name)

    drive(runs, body, size)


def test_picture_of_panels_without_colour_and_without_braille(runs, monkeypatch):
    full(runs)
    monkeypatch.setenv("NO_COLOR", "1")

    async def body(pilot, app):
        await opened(pilot, app, "g", "f")
        await still(pilot, app)
        check(app, "results-plots-no-colour")
        app.settings = replace(app.settings, ascii=True)
        app.screen.redraw()
        await still(pilot, app)
        assert seen(app).isascii()
        check(app, "results-plots-ascii")

    drive(runs, body, (80, 24))
