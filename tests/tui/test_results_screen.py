"""Results beside published numbers, and evaluations launched from there."""

import csv

from engine.runs import launch
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from hah_tui import orders
from tests.tui.driving import answer, drive, until, words
from tests.tui.made import evaluated, made


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


def test_an_evaluation_is_launched_followed_and_stopped(runs, monkeypatch):
    run = evaluated(runs)
    asked = []

    class Process:
        returncode = None

        def poll(self):
            return 0

    monkeypatch.setattr(orders, "evaluation", lambda run, suites, images, sets: (tuple(suites), images))
    monkeypatch.setattr(orders, "evaluate", lambda run, what, checkpoint: asked.append((what, checkpoint)) or Process())
    monkeypatch.setattr(launch, "await_start", lambda job, process: None)
    monkeypatch.setattr(orders, "ask", lambda job, verb: asked.append((job.id, verb)))

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("e")
        await answer(pilot, "nonsense")
        assert "no suite" in words(app, "#said")
        await answer(pilot, "noise sparsity 500")
        await until(pilot, lambda: asked)
        assert asked == [((("noise", "sparsity"), 500), "last")]
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
