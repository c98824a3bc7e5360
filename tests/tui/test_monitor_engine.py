"""The monitor and the engine of its run: what is asked of it, and how it is shown once it has gone."""

import subprocess
import sys
import time

import pytest
from textual.widgets import Input, OptionList

from hah_tui import engines
from hah_tui.screens.dialogs import Ask
from hah_tui.screens.set_dialog import SetDialog
from tests.tui.driving import answer, burst, drawn, monitor, until
from tests.tui.scripted import Scripted

pytestmark = pytest.mark.usefixtures("alone")


def test_set_is_checked_while_typing_done_by_the_engine_and_marked(folder):
    made = Scripted(folder, live=True)
    made.train(3)

    async def body(pilot, app, screen):
        await until(pilot, lambda: screen.experiment is not None)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, SetDialog))
        dialog = app.screen
        box = dialog.query_one(Input)
        for text, wrong in (("hah.nothing", "no live"), ("hah.lambda=-1", "from 0 to"), ("model.width=1", "fixed"),
                            ("hah.lamda=1", "hah.lambda"), ("x=[", "YAML")):  # fmt: skip
            box.value = text
            await pilot.pause()
            assert wrong in str(dialog.query_one("#said").render()), text
            await pilot.press("enter")
            assert app.screen is dialog
        box.value = "hah.lambda=0.2"
        await pilot.press("enter")
        await until(pilot, made.answer)
        await until(pilot, lambda: any(mark.kind == "set" for mark in screen.source.curves.marks))
        await drawn(pilot, screen)
        mark = screen.source.curves.marks[-1]
        assert (mark.step, mark.text) == (60, "hah.lambda 0.1 → 0.2")
        assert "┊" in screen.query_one("#loss").text()
        assert "hah.lambda changed from 0.1 to 0.2" in screen.query_one("#feed").text()
        screen.view.cursor = 60.0
        screen.redraw()
        await drawn(pilot, screen)
        assert "hah.lambda 0.1 → 0.2" in screen.query_one("#loss").rows[-1][0]

    monitor(made.run, body)
    made.die()


def test_set_offers_what_may_change_and_completes_its_name(folder):
    made = Scripted(folder, live=True)

    async def body(pilot, app, screen):
        await until(pilot, lambda: screen.experiment is not None)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, SetDialog))
        listed = app.screen.query_one(OptionList)
        every = [str(listed.get_option_at_index(n).prompt) for n in range(listed.option_count)]
        assert any(line.split() == "hah.lambda 0.1 a number from 0 to 1000000".split() for line in every)
        assert not any("model.width" in line for line in every)  # it is fixed
        burst(app, *"train", "space", *"l", "down", "up", "tab", *"0.5")
        box = app.screen.query_one(Input)
        await until(pilot, lambda: box.value == "train.lr=0.5")
        assert listed.option_count == 1
        box.value = "lambda"
        await pilot.press("enter")
        await until(pilot, lambda: box.value == "hah.lambda=")
        await pilot.press("escape")
        assert app.screen is screen

    monitor(made.run, body)
    made.die()


def test_pause_resume_and_stop_are_asked_of_the_engine(folder, monkeypatch):
    made = Scripted(folder, live=True)
    made.train(1)
    asked, resume = [], engines.resume
    monkeypatch.setattr(
        engines, "resume", lambda run, sets: asked.append((run.id, sets)) if sets else resume(run, sets)
    )

    async def body(pilot, app, screen):
        head = screen.query_one("#head")
        assert "running" in head.text()
        assert "ETA 1:01" in head.text()
        assert "1,500 images/s" in head.text()
        await pilot.press("z")
        assert await until(pilot, made.answer) == ["pause"]
        await until(pilot, lambda: "paused" in head.text())
        await pilot.press("r")
        assert await until(pilot, made.answer) == ["resume"]
        await until(pilot, lambda: "running" in head.text())
        await pilot.press("s")
        assert await until(pilot, made.answer) == ["stop"]
        await until(pilot, lambda: "stopped" in head.text())
        assert "r goes on" in head.text()
        await pilot.press("z", "s")  # nobody to ask any more
        await pilot.pause()
        assert app.screen is screen
        await pilot.press("equals_sign")  # but it can be resumed with a setting changed
        await until(pilot, lambda: isinstance(app.screen, SetDialog))
        app.screen.query_one(Input).value = "hah.lambda=0.2"
        await pilot.press("enter")
        await until(pilot, lambda: asked == [(made.run.id, {"hah.lambda": 0.2})])

    monitor(made.run, body)


def test_a_finished_run_is_asked_to_which_epoch_it_shall_go_on(folder):
    async def body(pilot, app, screen):
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        app.screen.query_one(Input).value = "12"
        await pilot.pause()
        assert "above 12" in str(app.screen.query_one("#said").render())
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is screen

    monitor(Scripted(folder).run, body)


def test_a_replay_ends_when_its_run_goes_on(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(engines, "resume", lambda run, sets: asked.append((run.id, sets)))

    async def body(pilot, app, screen):
        await pilot.press("space", "r")
        assert screen.playback is not None
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await answer(pilot, "20")
        await until(pilot, lambda: screen.playback is None)
        assert asked == [("scripted-aaaa", {"train.epochs": 20})]

    monitor(Scripted(folder).run, body)


def test_an_engine_that_dies_is_shown_as_lost_with_the_key_that_resumes(folder):
    """A real process with the lock, killed with -9."""
    made = Scripted(folder, live=True)
    made.train(2)
    made.die()
    code = (
        "import sys, time; from pathlib import Path; from dataclasses import replace\n"
        "from engine.runs.layout import RunDirectory; from engine.runs.state import read_state\n"
        "from engine.runs.process import Heartbeat, Lock, identity\n"
        "run = RunDirectory(Path(sys.argv[1])); lock = Lock.take(run.lock); Heartbeat(run.heartbeat).beat(1000)\n"
        "replace(read_state(run), engine=identity().dump()).write(run); print('here', flush=True); time.sleep(600)\n"
    )
    engine = subprocess.Popen([sys.executable, "-c", code, str(made.run.path)], stdout=subprocess.PIPE)
    assert engine.stdout.readline() == b"here\n"

    async def body(pilot, app, screen):
        head = screen.query_one("#head")
        await until(pilot, lambda: "running" in head.text())
        engine.kill()
        engine.wait()
        began = time.monotonic()
        await until(pilot, lambda: "lost" in head.text())
        assert time.monotonic() - began < 5
        assert "without a word" in head.text()
        assert "r resumes" in head.text()

    try:
        monitor(made.run, body)
    finally:
        engine.kill()
        engine.stdout.close()
        engine.wait()


def test_a_failed_run_says_why(folder):
    made = Scripted(folder, live=True)
    made.train(1)
    made.end("failed", "diverged at step 20: [loss] is NaN\x1b[2J")

    async def body(pilot, app, screen):
        said = screen.query_one("#head").text()
        assert "diverged at step 20: [loss] is NaN" in said
        assert "\x1b" not in said
        assert "r resumes" in said

    monitor(made.run, body)


def test_a_run_directory_that_disappears_is_said(folder):
    made = Scripted(folder, live=True)
    made.train(1)

    async def body(pilot, app, screen):
        made.run.path.rename(folder / "elsewhere")
        await until(pilot, lambda: "gone" in screen.query_one("#head").text())
        assert len(screen.curves["train/loss"]) > 0
        (folder / "elsewhere").rename(made.run.path)
        await until(pilot, lambda: "running" in screen.query_one("#head").text())

    monitor(made.run, body)
    made.die()
