"""One table of actions: every key of it leads somewhere, and nothing is bound twice."""

import asyncio
from collections import Counter
from typing import get_args

import pytest
from textual.command import CommandPalette
from textual.events import Paste
from textual.widgets import Static

from engine.runs.layout import RunDirectory
from hah_tui import in_turn, keys
from hah_tui.app import HahApp, screen_of
from hah_tui.screens.comparison import CompareScreen
from hah_tui.screens.dialogs import Ask
from hah_tui.screens.help import TITLES, HelpScreen
from hah_tui.screens.monitor import MonitorScreen
from hah_tui.screens.new_run import NewRunScreen
from hah_tui.screens.queue import QueueScreen
from hah_tui.screens.results import ResultsScreen
from hah_tui.screens.runs import RunsScreen
from hah_tui.screens.sweep import SweepScreen
from tests.tui.driving import burst, drive, form, to, until, words

SCREENS = {
    "all": HahApp, "runs": RunsScreen, "new": NewRunScreen, "monitor": MonitorScreen, "compare": CompareScreen,
    "results": ResultsScreen, "queue": QueueScreen, "sweep": SweepScreen,
}  # fmt: skip


TAKES = {"runs": 0, "new": 1, "monitor": 1, "compare": 2, "results": 1, "queue": 0, "sweep": 0}  # runs it is of


@pytest.mark.parametrize("place", SCREENS)
def test_every_action_has_its_method_and_every_key_one_action(place):
    for action in keys.of(place):
        assert hasattr(SCREENS[place], f"action_{action.id}"), action
        assert action.help, action
    used = Counter(key for action in keys.of(place) for key in action.keys.split(",") if key)
    assert not [key for key, times in used.items() if times > 1]
    assert SCREENS[place] is HahApp or place == SCREENS[place].PLACE


@pytest.mark.parametrize("place", [place for place in SCREENS if place != "all"])
def test_screens_leave_the_keys_that_work_everywhere(place):
    everywhere = {key for action in keys.of("all") for key in action.keys.split(",") if key} - {"escape"}
    assert everywhere.isdisjoint(key for action in keys.of(place) for key in action.keys.split(","))


def test_every_place_opens_its_screen(runs):
    """mypy holds that a screen opens no other name: `BaseApp.open` takes a `Place`, and `screen_of` has all of them."""

    async def body(pilot, app):
        run = RunDirectory(runs / "a-run")
        for place in get_args(keys.Place):
            assert type(screen_of(place, *[run] * TAKES[place])) is SCREENS[place]

    assert {*get_args(keys.Place), "all"} == set(SCREENS)
    drive(runs, body)


def test_every_place_is_one_the_help_knows():
    assert {place for action in keys.ACTIONS for place in action.screen.split("|")} == set(TITLES)


def test_help_and_palette_have_every_action(runs):
    async def body(pilot, app):
        await pilot.press("question_mark")
        said = " ".join(
            str(cell) for static in app.screen.query("Static") for cell in _cells(static.visual) if cell is not None
        )
        for action in keys.ACTIONS:
            assert action.help in said
        await pilot.press("escape")
        titles = [command.title for command in app.get_system_commands(app.screen)]
        for action in [*keys.of("runs"), *keys.of("all")]:
            if action.id != "command_palette":
                assert any(action.help in title for title in titles)

    drive(runs, body)


def _cells(visual):
    renderable = getattr(visual, "_renderable", None)
    return [cell for column in renderable.columns for cell in column.cells] if renderable is not None else []


def test_the_palette_does_what_it_says(runs):
    async def body(pilot, app):
        await pilot.press("ctrl+p")
        await until(pilot, lambda: type(app.screen).__name__ == "CommandPalette")
        await pilot.press(*"preset, change")
        await until(pilot, lambda: app.screen.query_one("CommandList").option_count)
        await pilot.press("down", "enter")
        await until(pilot, lambda: type(app.screen).__name__ == "NewRunScreen")

    drive(runs, body)


class Gone(Static, can_focus=True):
    """What comes behind a key ends here, as where a widget is taken away."""

    def on_done(self, done):
        done.stop()


def test_a_key_whose_way_to_the_app_has_gone_holds_the_next_one_up_for_a_moment(runs):
    async def body(pilot, app):
        await app.screen.mount(Gone())
        app.screen.query_one(Gone).focus()
        await pilot.pause()
        burst(app, "x", "n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen), 3.0)

    drive(runs, body)


def test_what_was_typed_for_something_that_never_comes_is_not_taken(runs, monkeypatch):
    monkeypatch.setattr(in_turn, "AWAITED_SECONDS", 0.3)

    async def body(pilot, app):
        app.screen.awaited.add("what never comes")
        burst(app, "x", "n", "T")
        await until(pilot, lambda: app._notifications)
        assert "is not taken" in next(one.message for one in app._notifications)
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))

        app.screen.awaited.add("what never comes")
        burst(app, "x", "n", "ctrl+q")  # but what leaves is
        await until(pilot, lambda: not app.is_running)

    drive(runs, body)


def test_leaving_waits_for_nothing(runs):
    async def body(pilot, app):
        app.screen.awaited.add("what never comes")
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running, 1.0)

    drive(runs, body)


def test_a_dialog_under_another_is_not_answered(runs):
    async def body(pilot, app):
        answers = []
        await app.push_screen(Ask("below"), answers.append)
        below = app.screen
        await app.push_screen(Ask("above"), answers.append)
        below.dismiss("late")
        await pilot.pause()
        assert len(app.screen_stack) == 4
        await pilot.press("escape", "escape")
        await until(pilot, lambda: answers == [None, None])

    drive(runs, body)


def test_nothing_goes_on_when_the_app_has_ended(runs, caplog):
    async def body(pilot, app):
        app.screen.awaited.add("what never comes")
        burst(app, "x", "n")
        await pilot.pause()
        app.exit()

    drive(runs, body)
    assert not caplog.records


@pytest.mark.parametrize("seconds", [0, 0.002, 0.005, 0.01, 0.02])
def test_an_app_that_ends_while_a_screen_opens_ends_well(runs, seconds):
    async def body(pilot, app):
        burst(app, "n")
        await asyncio.sleep(seconds)
        app.exit()

    drive(runs, body)


def test_a_paste_that_nothing_takes_ends(runs, monkeypatch):
    async def body(pilot, app):
        pasted = []
        monkeypatch.setattr(app, "_send_behind", lambda ways, **_: pasted.append(app._typed[0]))
        app.post_message(Paste("hello\x1b[2J"))
        await pilot.pause(0.3)
        assert [event.text for event in pasted] == ["hello\ufffd[2J"]
        assert len(app._typed) == 1

    drive(runs, body)


@pytest.mark.parametrize("key", ["ctrl+q", "ctrl+p"])
def test_leaving_and_the_palette_work_over_a_dialog(runs, key):
    async def body(pilot, app):
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running if key == "ctrl+q" else isinstance(app.screen, CommandPalette))

    drive(runs, body)


def test_letters_behind_a_command_of_the_palette_are_for_what_it_opens(runs):
    async def body(pilot, app):
        burst(app, "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"new")
        await pilot.pause(0.3)
        burst(app, "enter", *"smoke")
        await until(pilot, lambda: [line.value for line in app.screen.query("#words")] == ["smoke"])

    drive(runs, body)


def test_many_keys_make_few_pictures(runs, monkeypatch):
    monkeypatch.setattr(in_turn, "PICTURE_SECONDS", 1000.0)  # however slow the machine is

    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "name")
        pictures = []
        real = type(app)._display
        monkeypatch.setattr(type(app), "_display", lambda *args: app._batch_count or pictures.append(1) or real(*args))
        burst(app, "ctrl+u", *"x" * 100)
        await until(pilot, lambda: app.screen.focused.value == "x" * 100)
        await pilot.pause(0.2)
        assert "x" * 40 in words(app, "#summary")
        assert 0 < len(pictures) < 20

    drive(runs, body)
