"""The list of runs: what it shows, and every key of it."""

import asyncio
import shutil
import sys
import threading
import time
from dataclasses import replace

import pytest
from textual import events
from textual.widgets import Input

from engine.experiment.mistakes import RequestError
from engine.runs import control, launch, store
from engine.runs.events import EventLog
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from hah_tui import attributes, engines, in_turn
from hah_tui.app import HahApp
from hah_tui.listing import Listing
from hah_tui.screens import run_actions, run_table
from hah_tui.screens import runs as runs_screen
from hah_tui.screens.dialogs import Ask, Confirm
from hah_tui.screens.help import HelpScreen
from hah_tui.screens.pick_attribute import PickAttribute
from hah_tui.screens.run_table import RunTable
from hah_tui.settings import Settings
from hah_tui.widgets.key_bar import KeyBar
from tests.report.conftest import noise, write
from tests.tui.driving import answer, burst, drive, ids, until, words
from tests.tui.made import ablation, alive, broken, config, made


@pytest.fixture
def three(runs):
    """a (newest, 91%), b (stopped) and c (failed)."""
    return [
        made(runs, id="a-run", age=10, clean=0.91, noisy=0.7),
        made(runs, id="b-run", age=20, status="stopped", epoch=4, clean=0.6, noisy=0.65, preset="paper-hah"),
        made(runs, id="c-run", age=30, status="failed", epoch=2, clean=0.3, noisy=0.1, error="out of [memory]"),
    ]


def cell(app, slot, column):
    names = [one.name for one in app.screen._columns]
    return app.screen._cells[slot][names.index(column)][0]


def test_what_a_row_says(runs, three):
    async def body(pilot, app):
        assert ids(app) == ["a-run", "b-run", "c-run"]
        told = {"status": "stopped", "progress": "33%", "test/accuracy": "60.0%", "test/noisy_accuracy": "65.0%"}
        assert {name: cell(app, 1, name).strip() for name in told} == told
        await until(pilot, lambda: cell(app, 0, "curve").strip())
        line = cell(app, 0, "curve")
        assert line[0] == "█"  # it falls
        assert line.rstrip()[-1] == "▁"
        await pilot.press("down", "down")
        assert "out of [memory]" in words(app, "#detail")

    drive(runs, body, (160, 30))


def test_keys_that_come_at_once_act_on_the_run_that_each_finds_under_the_cursor(runs, three, monkeypatch):
    monkeypatch.setattr(engines, "resume", lambda *_, **__: pytest.fail("a letter of the filter was a command"))

    async def body(pilot, app):
        burst(app, "down", "space", "slash", *"run", "enter", "up", "d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        burst(app, "n", "C")
        screen = app.screen_stack[1]
        await until(pilot, lambda: app.screen is screen)
        assert list(screen._selected) == ["b-run"]
        assert screen._filter.text == "run"
        assert screen._current == "b-run"  # space moved on

    drive(runs, body)


def test_a_group_is_unfolded_before_the_next_key_moves_on(runs):
    for seed in (1, 2):
        run = made(runs, id=f"seed-{seed}", age=10 * seed, points=0)
        run.config.write_text(config(sets=[f"seed={seed}"]))
    Settings(group="seed").save()

    async def body(pilot, app):
        await until(pilot, lambda: app.screen._grouped and len(app.screen._order) == 1)
        burst(app, "right", "down", "down")
        await until(pilot, lambda: app.screen._current == "seed-2")

    drive(runs, body)


@pytest.mark.parametrize(("letter", "words"), [("o", "clean"), ("m", "note"), ("b", "seed")])
def test_letters_behind_a_key_that_opens_a_dialog_are_for_that(runs, three, letter, words):
    async def body(pilot, app):
        burst(app, letter, *words)
        await until(pilot, lambda: isinstance(app.screen, PickAttribute))
        await until(pilot, lambda: app.screen.query_one(Input).value == words)
        assert len(app.screen_stack) == 3

    drive(runs, body)


def test_a_refusal_behind_a_key_that_asks_refuses_it(runs, three):
    async def body(pilot, app):
        burst(app, "d", "n", "down", "d", "y")
        await until(pilot, lambda: not three[1].path.exists())
        assert three[0].path.exists()

    drive(runs, body)


def test_a_question_that_comes_too_late_is_not_put(runs, three, monkeypatch):
    monkeypatch.setattr(in_turn, "AWAITED_SECONDS", 0.1)
    go = threading.Event()
    monkeypatch.setattr(run_actions, "_all_contents", lambda looks: go.wait(10) and ["everything"])

    async def body(pilot, app):
        burst(app, "d", "x")
        await until(pilot, lambda: any("is not taken" in one.message for one in app._notifications))
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        go.set()
        await until(pilot, lambda: any("too late" in one.message for one in app._notifications))
        await pilot.press("y")
        assert app.screen.query_one(Input).value == "y"
        assert three[0].path.exists()

    drive(runs, body)


def test_what_was_typed_for_what_has_failed_is_not_taken(runs, three, monkeypatch):
    def fails(looks):
        time.sleep(0.2)
        raise RequestError("no")

    monkeypatch.setattr(run_actions, "_all_contents", fails)

    async def body(pilot, app):
        burst(app, "d", "n", "T")
        await until(pilot, lambda: any("is not taken" in one.message for one in app._notifications))
        assert len(app.screen_stack) == 2
        await pilot.press("n")  # the next is
        await until(pilot, lambda: len(app.screen_stack) == 3)

    drive(runs, body)


def test_a_click_on_a_key_comes_before_what_is_typed_behind_it(runs, three):
    async def body(pilot, app):
        bar = app.screen.query_one(KeyBar)
        x = bar.region.x + next(first for first, _, key in bar._placed if key == "slash")
        for event in (events.MouseDown, events.MouseUp):
            app.post_message(event(None, x, bar.region.y, 0, 0, 1, False, False, False, x, bar.region.y))
        burst(app, *"b-run")
        await until(pilot, lambda: app.screen.query_one("#filter").value == "b-run")

    drive(runs, body)


def test_keys_from_before_the_runs_are_read_wait_for_them(runs, three, monkeypatch):
    real = Listing.update

    def slowly(self, *arguments):
        time.sleep(0.3)
        yield from real(self, *arguments)

    monkeypatch.setattr(Listing, "update", slowly)

    async def go():
        app = HahApp(runs)
        async with app.run_test(size=(100, 30)) as pilot:
            burst(app, "down", "space")
            await until(pilot, lambda: getattr(app.screen, "_selected", None))
            assert list(app.screen._selected) == ["b-run"]

    asyncio.run(go())


def test_a_look_at_the_runs_does_not_put_a_moved_cursor_back(runs, three):
    async def body(pilot, app):
        screen = app.screen
        screen.table.action_cursor_down()
        screen._tick()
        await pilot.pause()
        assert screen._current == "b-run"

    drive(runs, body)


def test_a_click_behind_keys_comes_behind_them(runs, three):
    async def body(pilot, app):
        burst(app, "down", "space")
        await pilot.click(RunTable, offset=(5, 1))  # the first run
        await until(pilot, lambda: app.screen._current == "a-run")
        assert list(app.screen._selected) == ["b-run"]

    drive(runs, body)


def test_a_run_that_is_evaluated_says_so_while_it_is(runs, three):
    job = three[0].evaluation
    job.path.mkdir(parents=True)
    lock = Lock.take(job.lock)
    Heartbeat(job.heartbeat).beat(1000.0)

    async def body(pilot, app):
        assert cell(app, 0, "status").strip() == "finished"
        working = State(status="running", piece=3, pieces=6, phase="noise", kind="evaluation")
        replace(working, engine=identity().dump()).write(job)
        await until(pilot, lambda: cell(app, 0, "status").strip() == "measures")
        assert "finished, evaluation running  noise 50%" in words(app, "#detail")
        assert cell(app, 1, "status").strip() == "stopped"
        replace(working, status="finished").write(job)
        lock.release()
        await until(pilot, lambda: cell(app, 0, "status").strip() == "finished")
        await until(pilot, lambda: "evaluation" not in words(app, "#detail"))

    drive(runs, body, (160, 30))


def names(app):
    return [column.name for column in app.screen._columns]


def heading(app, name):
    return str(app.screen._columns[names(app).index(name)].heading).strip()


async def search(pilot, app, text):
    """Take what is found by a name in the dialog."""
    app.screen.query_one("#answer").value = text
    await pilot.pause()
    await pilot.press("enter")
    await pilot.pause()


async def pick(pilot, app, key, text):
    """Choose an attribute in the dialog of a key."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, PickAttribute))
    await search(pilot, app, text)
    await until(pilot, lambda: app.screen.PLACE == "runs")


async def group_by(pilot, app, text):
    """Group the list, and wait until it is."""
    await pick(pilot, app, "b", text)
    await until(pilot, lambda: "groups" in words(app, "#head") or not app.settings.group)


def test_groups_fold_and_unfold(runs):
    ablation(runs)

    async def body(pilot, app):
        assert len(ids(app)) == 13
        await group_by(pilot, app, "equal but")
        assert "13 in 4 groups" in words(app, "#head")
        assert len(ids(app)) == 5  # and a run with a live change
        await pick(pilot, app, "o", "clean accuracy")
        rows = [
            [cell(app, slot, name).strip() for name in ("name", "n", "missing", "test/accuracy")] for slot in range(5)
        ]
        assert rows == [
            ["lambda=1.0", "3", "4", "93.8% ±0.40%"], ["lambda=0.5", "2/3", "2 4", "92.8% ±0.57%"],
            ["quickstart-kk2m", "", "", "92.2%"], ["lambda=0.1", "2", "3 4", "91.6% ±0.28%"],
            ["lambda=0.0", "4", "", "91.0% ±0.52%"],
        ]  # fmt: skip
        app.screen._current = app.screen._order[1].id
        app.screen._sort()
        assert "2 of 3 in the means" in words(app, "#detail")
        assert "not in the means: 1 failed" in words(app, "#detail")
        assert "missing" not in words(app, "#detail")
        await pilot.press("right")
        assert len(ids(app)) == 8
        assert cell(app, 2, "name").startswith("  seed 3  quickstart-")
        await pilot.press("down", "down", "left")  # from one of its runs
        assert len(ids(app)) == 5
        assert app.screen._current == app.screen._order[1].id
        await pilot.press("enter")
        assert len(ids(app)) == 8
        await pilot.press("h")
        assert len(ids(app)) == 5

    drive(runs, body, (160, 40))

    async def kept(pilot, app):
        await until(pilot, lambda: "13 in 4 groups" in words(app, "#head"))
        await group_by(pilot, app, "every run for itself")
        await until(pilot, lambda: len(ids(app)) == 13)
        assert "n" not in names(app)

    drive(runs, kept, (160, 40))


def test_groups_in_plain_characters(runs):
    ablation(runs)
    Settings(ascii=True, group="seed").save()

    async def body(pilot, app):
        await until(pilot, lambda: "13 in 4 groups" in words(app, "#head"))
        await pilot.press("right", "down", "right")
        assert all(text.isascii() and len(text) <= 60 for row in app.screen._cells for text, _ in row)
        assert words(app, "#detail").isascii()

    drive(runs, body, (160, 40))


def test_what_is_done_with_a_group_is_done_with_its_runs(runs):
    ablation(runs)

    async def body(pilot, app):
        await group_by(pilot, app, "equal but")
        place = next(place for place, entry in enumerate(app.screen._order) if entry.id.startswith("group:"))
        await pilot.press("g", *["down"] * place)
        members = {run.id for run in app.screen._order[place].runs}
        await pilot.press("C")
        assert set(app.clipboard.split()) == members
        await pilot.press("space")
        assert set(app.screen._selected) == members
        await pilot.press("up", "space")
        assert not app.screen._selected
        for key in ("R", "c", "a", "p", "e"):  # for one run
            await pilot.press(key)
            assert "unfold" in list(app._notifications)[-1].message
            assert app.screen.PLACE == "runs"
        await pilot.press("asterisk")
        assert len(app.screen._selected) == 13

    drive(runs, body, (120, 40))


def test_groups_by_a_setting_and_a_filter(runs):
    ablation(runs)

    async def body(pilot, app):
        await group_by(pilot, app, "hah.lambda")
        assert {entry.name for entry in app.screen._order} == {
            "lambda=0.0",
            "lambda=0.1",
            "lambda=0.5",
            "lambda=1.0",
            "lambda=9.0",
        }
        assert "missing" not in names(app)
        await pilot.press("slash", *"seed", "less_than_sign", "2")
        await until(pilot, lambda: "4 of 13" in words(app, "#head"))
        assert [len(entry.runs) for entry in app.screen._order] == [1, 1, 1, 1]
        place = next(place for place, entry in enumerate(app.screen._order) if entry.name == "lambda=0.0")
        assert cell(app, place, "n").strip() == "1/4"  # a mean of those that fit says so
        app.screen._current = app.screen._order[place].id
        app.screen._sort()
        assert "3 that the filter leaves out" in words(app, "#detail")

    drive(runs, body, (120, 40))


def test_no_runs_say_how_to_begin(runs):
    async def body(pilot, app):
        await until(pilot, lambda: app.screen.has_class("empty"))
        assert "quickstart" in words(app, "#empty")

    drive(runs, body)


def test_filter_and_its_end(runs, three):
    async def body(pilot, app):
        await pilot.press("slash", *"status:s")
        assert ids(app) == ["b-run"]
        await pilot.press("space", *"nothing")
        assert ids(app) == []
        assert "None of 3 runs" in words(app, "#empty")
        await pilot.press("escape")
        assert len(ids(app)) == 3
        await pilot.press("slash", *"preset:paper", "enter", "q")
        assert app._exit  # the table had the focus again

    drive(runs, body)


def test_q_in_the_filter_is_a_letter(runs, three):
    async def body(pilot, app):
        await pilot.press("slash", "q")
        assert not app._exit
        assert app.screen._filter.text == "q"

    drive(runs, body)


def test_orders(runs, three):
    async def body(pilot, app):
        await pick(pilot, app, "o", "name")
        assert heading(app, "name") == "run▲"
        await pilot.press("O")
        assert ids(app) == ["c-run", "b-run", "a-run"]
        assert (app.settings.sort, app.settings.reverse) == ("name", True)
        assert heading(app, "name") == "run▼"
        await pick(pilot, app, "o", "noisy accuracy")
        assert app.settings.sort == "test/noisy_accuracy"
        assert ids(app)[0] == "a-run"
        assert heading(app, "test/noisy_accuracy") == "noisy▼"
        assert Settings.load()[0].sort == "test/noisy_accuracy"  # kept
        await pick(pilot, app, "o", "updated")
        assert "by updated" in words(app, "#head")  # there is no such column

    drive(runs, body)


def test_orders_of_earlier_versions_are_understood(runs, three):
    Settings(sort="noisy", reverse=True).save()

    async def body(pilot, app):
        assert ids(app) == ["c-run", "b-run", "a-run"]
        assert heading(app, "test/noisy_accuracy") == "noisy▲"

    drive(runs, body)


def test_columns_of_ones_choice_are_kept(runs, three):
    store.label(three[1], note="second try")
    write(three[0], "noise", noise({0.2: 0.42}))

    async def choose(pilot, app):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, PickAttribute))
        for name in ("note", "hah.lambda", "noise/0.2/accuracy"):
            await search(pilot, app, name)
        for name in ("a bar", "tags", "preset", "device"):  # away with them
            await search(pilot, app, name)
        await pilot.press("escape")
        await until(pilot, lambda: "eval/noise/0.2/accuracy" in names(app))
        assert "bar" not in names(app)
        await until(pilot, lambda: cell(app, 0, "hah.lambda").strip() == "0.1")
        await until(pilot, lambda: cell(app, 0, "eval/noise/0.2/accuracy").strip() == "42.0%")
        assert cell(app, 1, "eval/noise/0.2/accuracy").strip() == "-"
        assert cell(app, 1, "note").strip() == "second try"

    drive(runs, choose, (160, 30))

    async def again(pilot, app):
        await until(pilot, lambda: cell(app, 0, "hah.lambda").strip() == "0.1")
        await pick(pilot, app, "o", "hah.lambda")
        assert heading(app, "hah.lambda") == "lambda▲"
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, PickAttribute))
        for _ in range(20):
            await pilot.press("enter")
        await pilot.press("escape")
        await until(pilot, lambda: "bar" in names(app))  # none is chosen: the usual ones

    drive(runs, again, (160, 30))


def test_a_filter_over_settings_and_its_mistakes(runs, three):
    three[1].config.write_text(config(sets=["hah.lambda=1"]))

    async def body(pilot, app):
        await pilot.press(
            "slash", *"lambda", "equals_sign", "1", "space", *"clean", "less_than_sign", *"90", "percent_sign"
        )
        await until(pilot, lambda: ids(app) == ["b-run"])
        assert not app.screen.query_one("#mistake").display
        await pilot.press("space", *"foo", "greater_than_sign", "1")
        await until(pilot, lambda: app.screen.query_one("#mistake").display)
        assert "no metric or setting is called 'foo'" in words(app, "#mistake")
        await pilot.press("escape")
        await until(pilot, lambda: len(ids(app)) == 3)
        assert not app.screen.query_one("#mistake").display

    drive(runs, body)


def test_select_copy_pin_and_paths(runs, three):
    async def body(pilot, app):
        await pilot.press("space", "space")
        assert list(app.screen._selected) == ["a-run", "b-run"]
        assert "2 selected" in words(app, "#head")
        await pilot.press("C")
        assert app.clipboard == "a-run b-run"
        await pilot.press("asterisk")
        assert len(app.screen._selected) == 3
        await pilot.press("asterisk")
        assert not app.screen._selected
        await pilot.press("p")
        assert app.settings.reference == "c-run"
        await pilot.press("p")
        assert app.settings.reference == ""
        app.screen.action_copy_path()
        assert app.clipboard == str(three[2].path)
        await pilot.press("space", "escape")
        assert not app.screen._selected

    drive(runs, body)


def test_j_k_g_and_clicks_move(runs, three):
    async def body(pilot, app):
        for key, now in (("j", "b-run"), ("j", "c-run"), ("k", "b-run"), ("G", "c-run"), ("g", "a-run")):
            await pilot.press(key)
            assert app.screen._current == now
        await pilot.click("RunTable", offset=(5, 2))
        assert app.screen._current == "b-run"
        await pilot.click("RunTable", offset=(5, 0))  # the title of the ids: by name
        assert app.settings.sort == "name"

    drive(runs, body)


def test_tag_and_note(runs, three):
    async def body(pilot, app):
        await pilot.press("t")
        await answer(pilot, "fig6 good")
        await until(pilot, lambda: app.screen._rows["a-run"].labels.tags == ("fig6", "good"))
        await pilot.press("t")
        await answer(pilot, "-good")
        await until(pilot, lambda: store.labels(three[0]).tags == ("fig6",))
        await pilot.press("a")
        await answer(pilot, "second try")
        await until(pilot, lambda: "second try" in words(app, "#detail"))
        await pilot.press("t")
        assert isinstance(app.screen, Ask)
        await pilot.press("escape")
        assert store.labels(three[0]).note == "second try"

    drive(runs, body)


def test_a_bad_tag_is_said(runs, three):
    async def body(pilot, app):
        await pilot.press("t")
        await answer(pilot, "a/b")
        await until(pilot, lambda: [note for note in app._notifications if "cannot be a tag" in note.message])

    drive(runs, body)


def test_delete_names_what_goes_and_asks(runs, three):
    (three[0].checkpoints / "last.pt").write_bytes(b"x" * 2_000_000)

    async def body(pilot, app):
        await pilot.press("space", "space", "d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        named = "\n".join(app.screen._lines)
        assert "a-run" in named
        assert "b-run" in named
        assert "1.9 MiB  1 checkpoint" in named
        await pilot.press("escape")
        assert three[0].path.exists()
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: ids(app) == ["c-run"])
        assert not three[0].path.exists()

    drive(runs, body)


def test_what_lives_is_not_deleted(runs):
    _, lock = alive(runs, epoch=3)

    async def body(pilot, app):
        await pilot.press("d")
        assert "stop it first" in list(app._notifications)[-1].message
        assert not isinstance(app.screen, Confirm)

    drive(runs, body)
    lock.release()


def test_stop_reaches_a_live_engine_and_its_answer_is_waited_for(runs):
    run, lock = alive(runs, epoch=3)
    seen = []

    def engine():
        inbox, log = control.Inbox(run), EventLog(run.events)
        while not seen:
            for command in inbox.read():
                seen.append(command.verb)
                log.append("command", id=command.id, ok=True, text="")
                inbox.done(command)
            time.sleep(0.01)
        log.close()

    thread = threading.Thread(target=engine)
    thread.start()

    async def body(pilot, app):
        assert "1 live" in words(app, "#head")
        await pilot.press("s")
        await until(pilot, lambda: [note for note in app._notifications if note.message.endswith("stopped")])

    drive(runs, body)
    thread.join()
    assert seen == ["stop"]
    lock.release()


def test_pause_resume_and_extend_go_to_the_engine(runs, monkeypatch, three):
    _, lock = alive(runs, id="d-run", age=1, epoch=3)
    asked = []
    monkeypatch.setattr(engines, "ask", lambda run, verb, *rest: asked.append((verb, run.id)))
    monkeypatch.setattr(engines, "change", lambda run, assignment: asked.append(("set", run.id, assignment)))
    monkeypatch.setattr(engines, "resume", lambda run, sets: asked.append(("resume", run.id, sets)))
    monkeypatch.setattr(launch, "await_start", lambda run, process: [])

    async def body(pilot, app):
        await pilot.press("z")
        await until(pilot, lambda: ("pause", "d-run") in asked)
        await pilot.press("e")  # it runs: what it trains to is changed
        await pilot.press("3", "0", "enter")  # over the number that stands there
        await until(pilot, lambda: ("set", "d-run", "train.epochs=30") in asked)
        await pilot.press("down", "e")
        assert isinstance(app.screen, Ask)
        await answer(pilot, "5")  # fewer than it has
        assert isinstance(app.screen, Ask)
        assert "above 12" in words(app, "#said")
        await answer(pilot, "40")
        await until(pilot, lambda: ("resume", "a-run", {"train.epochs": 40}) in asked)
        await pilot.press("down", "r")
        await until(pilot, lambda: ("resume", "b-run", None) in asked)

    drive(runs, body)
    lock.release()


def test_a_refused_order_is_said(runs, three, monkeypatch):
    def refuse(run, sets):
        raise launch.LaunchError("it did not start\nTraceback [bold]")

    monkeypatch.setattr(engines, "resume", refuse)

    async def body(pilot, app):
        await pilot.press("down", "r")
        await until(pilot, lambda: type(app.screen).__name__ == "Message")
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


def test_open_compare_new_clone_results_help(runs, three):
    async def body(pilot, app):
        screens = {"enter": "MonitorScreen", "R": "ResultsScreen", "n": "NewRunScreen", "c": "NewRunScreen"}
        for key, name in screens.items():
            await pilot.press(key)
            await until(pilot, lambda name=name: type(app.screen).__name__ == name)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen.PLACE == "runs")
        await pilot.press("v")
        assert "select two runs" in list(app._notifications)[-1].message
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


def test_new_runs_come_and_lost_engines_are_seen(runs, three):
    async def body(pilot, app):
        _, lock = alive(runs, id="new-run", age=1, epoch=1)
        await until(pilot, lambda: ids(app)[0] == "new-run" and cell(app, 0, "status") == "running")
        assert app.screen._current == "a-run"  # the cursor stays with its run
        lock.release()
        killed = time.monotonic()
        await until(pilot, lambda: cell(app, 0, "status") == "lost", 10)
        assert time.monotonic() - killed < 5 + 1

    drive(runs, body)


def test_broken_runs_and_hostile_text(runs):
    broken(runs)

    async def body(pilot, app):
        assert len(ids(app)) == 5
        hostile = next(index for index, name in enumerate(ids(app)) if "hostile" in name)
        await pilot.press(*["down"] * hostile)
        said = words(app, "#detail")
        assert "[red]x[/]" in said
        assert "\x1b" not in said
        assert "\x07" not in said

    drive(runs, body)


def test_a_folder_that_disappears_and_comes_back(runs, three, tmp_path):
    async def body(pilot, app):
        shutil.move(runs, tmp_path / "elsewhere")
        await until(pilot, lambda: "has disappeared" in words(app, "#head"))
        assert ids(app) == []
        shutil.move(tmp_path / "elsewhere", runs)
        await until(pilot, lambda: len(ids(app)) == 3)
        assert "disappeared" not in words(app, "#head")

    drive(runs, body)


def test_a_folder_that_cannot_be_written(runs, three, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system", "labels.json")

    monkeypatch.setattr(store, "replace_json", read_only)

    async def body(pilot, app):
        await pilot.press("t")
        await answer(pilot, "x")
        await until(pilot, lambda: [note for note in app._notifications if "Read-only" in note.message])

    drive(runs, body)


def test_a_folder_that_does_not_answer(runs, three, monkeypatch):
    monkeypatch.setattr(runs_screen, "SILENCE_SECONDS", 0.0)

    async def body(pilot, app):
        app.screen._heard = time.monotonic() - 9
        app.screen._show_around()
        assert "has not answered for 9 s" in words(app, "#head")

    drive(runs, body)


def test_a_long_list_slides_through_the_slots(runs, monkeypatch):
    monkeypatch.setattr(runs_screen, "PAGE", 16)
    for index in range(40):
        made(runs, id=f"r{index:02}", age=index + 1, points=0)

    async def body(pilot, app):
        await until(pilot, lambda: len(ids(app)) == 40)
        table = app.screen.table
        assert table.row_count == 16
        await pilot.press(*["pagedown"] * 2, *["down"] * 3)
        place = ids(app).index(app.screen._current)
        assert place > 16
        assert cell(app, table.cursor_row, "name").strip() == app.screen._current
        await pilot.press("G")
        assert app.screen._current == "r39"
        await pilot.press(*["k"] * 18)
        assert app.screen._current == "r21"
        await pilot.press("home")
        assert app.screen._current == "r00"
        for _ in range(40):
            await pilot._post_mouse_events([events.MouseScrollDown], table, button=0)
        assert app.screen._offset == 24
        assert app.screen._visible[-1] == "r39"
        assert table.row_count == 16

    drive(runs, body, (80, 16))


@pytest.mark.parametrize("width", [40, 63, 64, 80, 100, 120, 160, 250])
def test_columns_fill_the_width(width):
    for chosen in ([], ["test/accuracy", "hah.lambda", "note", "eval/corruptions/mean/5", "block/3/snr_db"]):
        found = run_table.columns(width, chosen, attributes.FACTS["created"], "▼")
        assert sum(column.width for column in found) == width - 1
        assert all(column.width > 0 for column in found)
        assert all(len(column.heading) <= column.width for column in found)
        assert found[1].width >= run_table.LEAST


def test_names_of_groups_get_short_where_values_do_not():
    name = "width=0.125 threshold.keep=0.05 lambda=5.0"
    assert run_table.abridged(name, 60, False) == name
    for width in range(22, 44):
        short = run_table.abridged(name, width, False)
        assert len(short) < width
        assert all(f"={value}" in short for value in ("0.125", "0.05", "5.0"))
    assert len(run_table.abridged(name, 16, False)) < 16


def test_plain_characters_and_themes(runs, three):
    async def body(pilot, app):
        app.action_ascii()
        await pilot.pause()
        assert all(ord(letter) < 128 for row in app.screen._cells for text, _ in row for letter in text)
        assert Settings.load()[0].ascii
        seen = {app.theme}
        for _ in range(3):
            await pilot.press("T")
            seen.add(app.theme)
        assert len(seen) == 4
        assert Settings.load()[0].theme == app.theme

    drive(runs, body)


@pytest.mark.parametrize("opened", ["question_mark", "n", "ctrl+p"])
def test_nothing_that_is_hidden_is_typed_into(folder, opened):
    """In an empty folder neither the list nor the filter is to be seen."""

    async def body(pilot, app):
        await pilot.press(opened)
        await until(pilot, lambda: len(app.screen_stack) == 3)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        assert app.focused is None
        await pilot.press("slash", "x", "escape", "n")
        await until(pilot, lambda: type(app.screen).__name__ == "NewRunScreen")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        assert app.screen.query_one("#filter").value == ""
        made(folder, "first")
        await until(pilot, lambda: app.focused is app.screen.table)

    drive(folder, body)


def test_a_status_that_there_is_none_of_is_said(runs, three):
    async def body(pilot, app):
        await pilot.press("slash", *"status:nope".replace(":", " ").split()[0], "colon", *"nope")
        await until(pilot, lambda: "No status begins with 'nope'" in words(app, "#mistake"))
        assert "finished" in words(app, "#mistake")

    drive(runs, body)


def test_the_footer_offers_no_key_that_a_text_field_takes(runs, three):
    async def body(pilot, app):
        assert "question_mark" in app.screen.active_bindings
        await pilot.press("slash")
        await until(pilot, lambda: app.focused is app.screen.query_one("#filter"))
        assert not {"question_mark", "n", "q", "space"} & set(app.screen.active_bindings)
        assert {"escape", "ctrl+p"} <= set(app.screen.active_bindings)

    drive(runs, body)


def test_a_folder_that_does_not_answer_is_not_waited_for_with_the_first_picture(folder, terminal):
    hangs = "import time; from hah_tui.screens.runs import RunsScreen as R; R._look = lambda *_: time.sleep(1000); "
    screen = terminal(sys.executable, "-c", hangs + "from hah_tui.app import main; main()")
    screen.expect("\x1b[?1049h")
    screen.expect("hah-tui", 3.5)  # and not with what is said after five seconds


def test_keys_that_follow_each_other_at_once_act_in_their_order(folder):
    for number in range(5):
        made(folder, f"run{number}", created=time.time() - number)

    async def body(pilot, app):
        order = ids(app)
        for keys, place in ((("end", "up"), -2), (("home", "down", "down"), 2), (("G", "up", "g", "down"), 1)):
            burst(app, *keys)
            await until(pilot, lambda place=place: app.screen._current == order[place])

    drive(folder, body)
