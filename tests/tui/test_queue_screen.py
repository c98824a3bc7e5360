"""The queue in the terminal: what waits and why, its order changed by keys; several values queued by the form."""

import time

import pytest

from engine.experiment import RequestError
from engine.runs import store
from engine.runs.process import Lock
from engine.runs.state import read_state
from engine.sweep import desk, queue, sweeps
from engine.sweep.queue import Entry, Queue
from hah_tui import engines
from hah_tui.draft import Draft
from hah_tui.screens import queue as queue_screen
from tests.tui import made as making
from tests.tui.driving import answer, drive, form, still, to, until, words
from tests.tui.made import made
from tests.tui.snapshot import SIZES, check

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@pytest.fixture(autouse=True)
def nobody_starts(monkeypatch):
    """What was asked of the dispatcher: nothing is started."""
    asked = []
    monkeypatch.setattr(desk, "ensure_dispatcher", lambda folder: asked.append(folder))
    monkeypatch.setattr(desk, "has_dispatcher", lambda folder: True)
    return asked


def waiting(runs, id, status="queued", **asked):
    run = made(runs, id=id, status=status, epoch=3 if status == "running" else 0, points=0, device="cpu")
    facts = {"position": float(len(list(runs.glob("*")))), "queued": making.NOW - 60, "device": "cpu", **asked}
    Entry(**facts).write(run)
    return run


def shown(app):
    return [item.run.id for item, _ in app.screen.rows]


async def opened(pilot, app, count):
    await pilot.press("Q")
    await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen")
    await until(pilot, lambda: len(app.screen.rows) == count)


def some(runs):
    live = waiting(runs, "hah-s2022-ab12", "running", group="table-3")
    lock = Lock.take(live.lock)
    waiting(runs, "no-hah-loss-s2022-q7xy", group="table-3")
    waiting(runs, "a-run-with-a-name-that-is-long-k2m4", after=("hah-s2022-ab12",))
    desk.set_group(runs, "table-3", limit=1)
    return lock


@sizes
def test_what_waits_and_why(runs, size, monkeypatch):
    lock = some(runs)

    async def body(pilot, app):
        await opened(pilot, app, 3)
        await pilot.press("down")
        await still(pilot, app)
        assert "1 of its group at once" in words(app, "#detail")
        check(app, "queue")

    monkeypatch.setattr(queue_screen, "age", lambda moment: "1 min")
    drive(runs, body, size)
    lock.release()


def test_keys_change_the_order(runs):
    for name in "abcd":
        waiting(runs, name)

    async def body(pilot, app):
        await opened(pilot, app, 4)
        for keys, order in (
            (["down", "down", "K"], "acbd"),  # the cursor goes with its run
            (["K"], "cabd"),
            (["K"], "cabd"),
            (["greater_than_sign"], "abdc"),
            (["less_than_sign"], "cabd"),
            (["J"], "acbd"),
            (["J", "J"], "abdc"),
            (["J"], "abdc"),
        ):
            for key in keys:
                before = shown(app)
                await pilot.press(key)
                if key in ("K", "J", "greater_than_sign", "less_than_sign"):
                    await until(pilot, lambda: shown(app) == list(order) or shown(app) != before)  # noqa: B023
            await until(pilot, lambda: shown(app) == list(order))  # noqa: B023

    drive(runs, body)


def test_hold_and_go_on(runs, nobody_starts):
    waiting(runs, "a", group="g")

    async def body(pilot, app):
        await opened(pilot, app, 1)
        await pilot.press("space")
        await until(pilot, lambda: "held: space goes on" in words(app, "#head"))
        assert desk.paused(runs)
        nobody_starts.clear()
        await pilot.press("space")
        await until(pilot, lambda: "held" not in words(app, "#head"))
        assert nobody_starts
        await pilot.press("g")
        await until(pilot, lambda: "g held" in words(app, "#head"))
        await pilot.press("g")
        await until(pilot, lambda: not desk.group_of(runs, "g").paused)
        await pilot.press("l")
        await answer(pilot, "3")
        await until(pilot, lambda: "3 at once" in words(app, "#detail"))

    drive(runs, body)


def test_taking_out_and_queueing_again(runs, nobody_starts):
    run = waiting(runs, "a")

    async def body(pilot, app):
        await opened(pilot, app, 1)
        await pilot.press("s")
        await until(pilot, lambda: not app.screen.rows)
        assert (read_state(run).status, read_state(run).stopped_by) == ("stopped", "person")
        failed = waiting(runs, "b", "failed")
        queue.add_start(failed, queue.Start(time=time.time(), queued=making.NOW - 60, before="queued"))
        desk.touch(runs)
        await pilot.press("e")
        await until(pilot, lambda: shown(app) == ["b"])
        await pilot.press("r")
        await until(pilot, lambda: [item.standing for item, _ in app.screen.rows] == ["ready"])

    drive(runs, body)


def test_an_empty_queue_says_how_to_fill_it(runs):
    made(runs, id="a")

    async def body(pilot, app):
        await pilot.press("Q")
        await until(pilot, lambda: "nothing runs or waits" in words(app, "#detail"))
        for key in ("enter", "K", "J", "less_than_sign", "s", "r", "g", "l", "space", "space", "e", "z"):
            await pilot.press(key)
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "RunsScreen")

    drive(runs, body)


# Several values in the form


def test_a_draft_with_several_values():
    draft = Draft.of_preset("quickstart")
    draft.type("hah.lambda", "0.1, 1.0")
    draft.type("train.lr", "0.001,0.002,0.004")
    assert draft.experiment.hah.lambda_ == 0.1
    assert draft.axes == {"hah.lambda": [0.1, 1.0], "train.lr": [0.001, 0.002, 0.004]}
    assert draft.several == 6
    plan = draft.plan(3)
    assert (len(plan.points), list(plan.seeds)) == (6, [2022, 2023, 2024])
    draft.type("seed", "5, 7")
    assert list(draft.plan(1).seeds) == [5, 7]
    assert len(draft.plan(1).points) == 6
    draft.type("hah.lambda", "0.1, -1")
    assert draft.experiment is None
    assert "hah.lambda" in draft.mistakes
    draft.type("hah.lambda", "0.1")
    draft.type("train.lr", "0.001")
    assert draft.axes == {"seed": [5, 7]}
    draft.type("train.milestones", "3, 5")  # a list by itself
    assert "train.milestones" not in draft.axes


def test_the_form_queues_a_run_for_each_value_and_seed(runs, monkeypatch):
    made(runs, id="a")
    monkeypatch.setattr(engines, "check_place", lambda *experiments: None)

    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "hah.lambda")
        app.screen.focused.value = "0.1, 1.0"
        await until(pilot, lambda: app.screen.draft.several == 2)
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert type(app.screen).__name__ == "NewRunScreen"  # several are not launched
        assert store.all_runs(runs) == [store.resolve("a", runs)]
        await pilot.press("ctrl+l")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await answer(pilot, "2")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen")
        await until(pilot, lambda: len(app.screen.rows) == 3)

    drive(runs, body)
    items = Queue(runs).items()
    assert sorted(item.look.state.seed for item in items) == [2022, 2023, 2023]
    assert {item.entry.group for item in items} == {"quickstart"}
    trials = sweeps.trials(sweeps.read(runs, "quickstart"), [runs])
    assert [trial.status for trial in trials] == ["finished", "queued", "queued", "queued"]
    assert trials[0].look.run.id == "a"  # which was there, and is the same experiment


def test_the_form_queues_one_run(runs, monkeypatch):
    made(runs, id="a")
    monkeypatch.setattr(engines, "check_place", lambda *experiments: None)

    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await answer(pilot, "0")
        assert type(app.screen).__name__ == "Ask"
        await answer(pilot, "1")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and app.screen.rows)

    drive(runs, body)
    (item,) = Queue(runs).items()
    assert item.look.state.name == "quickstart"
    assert sweeps.names(runs) == []


def test_what_cannot_be_queued_is_said(runs, monkeypatch):
    made(runs, id="a")

    def refuse(*experiments):
        raise RequestError("data.dataset: cifar10 is not there")

    monkeypatch.setattr(engines, "check_place", refuse)

    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await answer(pilot, "1")
        await until(pilot, lambda: "data.dataset" in app.screen.draft.mistakes)

    drive(runs, body)
    assert Queue(runs).items() == []


def test_a_listed_run_that_waits_is_stopped_without_an_engine(runs):
    run = waiting(runs, "a")

    async def body(pilot, app):
        await pilot.press("s")
        await until(pilot, lambda: read_state(run).status == "stopped")

    drive(runs, body)
    assert read_state(run).stopped_by == "person"
