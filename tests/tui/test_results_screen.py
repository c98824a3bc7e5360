"""Results beside published numbers, and evaluations launched from there."""

import csv

import pytest
from textual.widgets import OptionList

from engine.experiment.mistakes import RequestError
from engine.runs import launch
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from hah_tui import orders
from hah_tui.screens import results as results_screen
from hah_tui.screens.evaluate import EvaluateDialog
from tests.tui.driving import drive, retype, still, until, words
from tests.tui.made import evaluated, made
from tests.tui.snapshot import SIZES, check


def line(app, title):
    return next(one for one in app.screen.found.lines if one.title == title)


async def opened(pilot, app):
    await pilot.press("R")
    await until(pilot, lambda: getattr(app.screen, "_read", False))


def test_measured_stands_beside_published(runs):
    evaluated(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        assert line(app, "clean").cells()[1:4] == ["87.1%", "87.3%", "-0.2"]
        assert line(app, "noise 0.1").cells()[1:4] == ["63.3%", "64.0%", "-0.7"]
        robust = line(app, "adversarial Linf 2/255")
        assert robust.cells()[1:4] == ["21.1%", "21.5%", "-0.4"]
        assert "first 1,000 images" in robust.note  # what a reader has to know
        assert "20 steps" in robust.note
        missing = line(app, "adversarial L2 0.25")
        assert missing.cells()[1:4] == ["", "27.6%", ""]
        assert "noise-0123abcd.json" in words(app, "#files")
        assert app.screen.query_one("DataTable").row_count == len(app.screen.found.lines)

    drive(runs, body)


def test_a_run_of_another_preset_has_no_published_numbers(runs):
    made(runs, id="a-run")

    async def body(pilot, app):
        await opened(pilot, app)
        assert all(one.published is None for one in app.screen.found.lines)
        assert line(app, "clean").ours == 0.9  # of the training
        assert "last test of the training" in line(app, "clean").note

    drive(runs, body)


def test_a_changed_preset_says_so(runs):
    run = evaluated(runs)
    State(name="x", preset="paper-hah", status="finished", epoch=100, epochs=100, changed={"hah.lambda": 0.5}).write(
        run
    )

    async def body(pilot, app):
        await opened(pilot, app)
        assert "not quite paper-hah: hah.lambda" in words(app, "#files")

    drive(runs, body)


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
        assert {"group": "Accuracy", "quantity": "clean", "measured": "0.871", "published": "0.873"}.items() <= rows[
            0
        ].items()
        await pilot.press("C")
        assert app.clipboard == run.id
        app.screen.action_copy_path()
        assert app.clipboard == str(run.path)
        await pilot.press("j", "j", "k")
        assert app.screen.query_one("DataTable").cursor_row == 1
        (run.results / "attacks-0123abcd.json").unlink()
        await pilot.press("f5")
        await until(pilot, lambda: line(app, "adversarial Linf 2/255").ours is None)
        await pilot.press("s")
        assert "no evaluation is running" in list(app._notifications)[-1].message
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


SECONDS = {
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
        found.append(("estimate", experiment.evaluate.attacks.restarts))
        restarts = experiment.evaluate.attacks.restarts
        one = {
            suite: {"images": 10000, "seconds_per_image": restarts * seconds / 1e4}
            for suite, seconds in SECONDS.items()
        }
        return {"device": "cpu", "suites": one}

    def evaluate(run, experiment, checkpoint):
        found.append((experiment.evaluate.suites, experiment.evaluate.images, checkpoint))
        return Process()

    monkeypatch.setattr(orders, "estimate", estimate)
    monkeypatch.setattr(orders, "evaluate", evaluate)
    monkeypatch.setattr(launch, "await_start", lambda job, process: None)
    monkeypatch.setattr(orders, "ask", lambda job, verb: found.append((job.id, verb)))
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
            ("x", "KEY=VALUE"),
            ("hah.lambda=1", "evaluate.* and compute.device only"),
            ("evaluate.attacks.restarts=0", "from 1 to 100"),
        ):
            box.value = text
            await until(pilot, lambda said=said: said in words(app, "#said"))
        assert asked == [("estimate", 1)]
        box.value = "evaluate.attacks.restarts=2"
        await until(pilot, lambda: "at most 1:00" in words(app, "#said"))
        assert asked == [("estimate", 1), ("estimate", 2)]
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(asked) == 3)
        assert asked[2] == (["corruptions"], 500, "best")

    drive(runs, body)


def test_no_estimate_is_no_obstacle(runs, asked, monkeypatch):
    evaluated(runs)

    def estimate(run, experiment, checkpoint):
        raise RequestError("[b]no[/b] checkpoint")

    monkeypatch.setattr(orders, "estimate", estimate)

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
