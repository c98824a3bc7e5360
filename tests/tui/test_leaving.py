"""Every screen and dialog is left at every stage of loading, with a slow disk and a slow engine: nothing that arrives
afterwards may hurt."""

import asyncio
import threading
import time

import pytest

from engine.experiment.mistakes import RequestError
from engine.runs import launch
from engine.sweep import desk
from hah_tui import base, engines
from hah_tui.app import HahApp
from hah_tui.screens.runs import RunsScreen
from tests.tui import made as making
from tests.tui.driving import drive, until
from tests.tui.made import made

# Keys that open something, one after the other; what is opened last is left.
WAYS = [
    "enter", "enter m", "enter p", "enter equals_sign", "enter space", "enter l", "enter R", "enter f", "enter e", "R",
    "R e", "R e enter", "n", "n enter", "n enter ctrl+r", "n enter ctrl+s", "n enter ctrl+n ctrl+n", "c", "c ctrl+r",
    "space down space v", "space down space v p", "d", "d y", "t", "a", "e", "e enter", "s", "z", "r", "slash",
    "question_mark", "ctrl+p", "P", "T", "C", "Q", "Q l", "Q enter", "n enter ctrl+l", "n enter ctrl+l enter",
    "enter slash", "enter slash enter", "n f2", "n enter f2", "n x", "n enter 5 escape delete",
    "R g", "R g f right",
    "S", "S a", "S m", "S s", "S r", "S e", "S e enter", "Q S", "S right enter", "S r y",
]  # fmt: skip
STAGES = [0.0, 0.1]  # seconds between keys, and to when it is left: before and after what is slow
SLOW = 0.04  # seconds that a disk or an engine takes


@pytest.fixture
def slow(monkeypatch, tmp_path):
    """Whatever may wait does; screenshots go to the test's folder."""
    monkeypatch.chdir(tmp_path)
    background = HahApp.in_background

    def in_background(self, owner, work, *outcome, **more):
        def late():
            time.sleep(SLOW)
            return work()

        background(self, owner, late, *outcome, **more)

    def begin(*_):
        time.sleep(SLOW)
        raise RequestError("train.lr: the engine does not like it")

    def ask(*arguments, tell=None):
        time.sleep(SLOW)
        raise launch.LaunchError("the engine did not answer")

    of = base.app_of

    def app_of(node):
        assert threading.current_thread() is threading.main_thread(), "a screen that has gone knows no app"
        return of(node)

    monkeypatch.setattr(base, "app_of", app_of)
    monkeypatch.setattr(HahApp, "in_background", in_background)
    monkeypatch.setattr(engines, "begin", begin)
    monkeypatch.setattr(launch, "ask", ask)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_open_can_be_left_at_any_moment(folder, slow, way, monkeypatch):
    for name in ("one", "two", "three"):
        (made(folder, name).checkpoints / "last.pt").write_bytes(b"x")
    making.trial(folder, making.sweep(folder, "base: quickstart\nseeds: 2\n"), 0, 2023, "failed")
    monkeypatch.setattr(desk, "ensure_dispatcher", lambda folder: None)

    async def body(pilot, app):
        for stage in STAGES:
            for key in way.split():
                await pilot.press(key)
                await pilot.pause(stage)
            for _ in range(8):
                if len(app.screen_stack) == 2:
                    break
                await pilot.press("escape")
            await pilot.press("escape")  # of the filter, or of nothing
            await pilot.pause(3 * SLOW)
            while len(app.screen_stack) > 2:  # a question that was on its way, what an engine said
                assert type(app.screen).__name__ in ("Message", "Confirm")
                await pilot.press("escape")
            assert isinstance(app.screen, RunsScreen)
            assert app.focused is None or all(node.display for node in app.focused.ancestors_with_self[:-2])
            assert app.screen.query_one("DataTable").display

    drive(folder, body)


def test_an_app_that_is_left_at_any_moment_just_ends(folder, slow):
    made(folder, "one")

    async def go(keys, stage):
        app = HahApp(folder)
        async with app.run_test(size=(100, 30)) as pilot:
            await until(pilot, lambda: getattr(app.screen, "_loaded", False))
            for key in keys.split():
                await pilot.press(key)
            await pilot.pause(stage)
            app.exit()

    for keys in ("enter", "R", "n", "c", "R e"):
        for stage in STAGES:
            asyncio.run(go(keys, stage))
