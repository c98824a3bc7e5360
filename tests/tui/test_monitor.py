"""The monitor: every key and what it does, live, ended, lost and replayed; how it looks; what it may repaint."""

import asyncio
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from textual.widgets import Input

from hah_tui import keys
from hah_tui.app import HahApp
from hah_tui.record import Curves, Replay, Source
from hah_tui.screens.dialogs import Ask, Message, PickRun, SetDialog
from hah_tui.screens.monitor import MonitorScreen
from hah_tui.widgets.chart import Chart
from hah_tui.widgets.picture import as_csv, as_svg
from tests.tui.driving import until
from tests.tui.scripted import PER_EPOCH, Scripted
from tests.tui.snapshot import SIZES, check, picture


@pytest.fixture(autouse=True)
def frozen(monkeypatch, tmp_path):
    """Clocks of the feed in UTC, exported files in the test's folder."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HahApp, "on_mount", lambda self: self.set_class(self.plain, "-ascii"))  # no list of runs behind


@pytest.fixture
def folder(runs):
    runs.mkdir()
    return runs


def monitor(run, body, size=(160, 48), folder=None, reference=""):
    """``body(pilot, app, screen)`` in a monitor that has read its run."""

    async def go():
        app = HahApp(folder or run.path.parent)
        app.settings = type(app.settings)(reference=reference)
        async with app.run_test(size=size) as pilot:
            screen = MonitorScreen(run)
            await app.push_screen(screen)
            await until(pilot, lambda: screen.source.loaded and not screen.dirty and not screen.stale)
            await body(pilot, app, screen)

    asyncio.run(go())


async def drawn(pilot, screen):
    """Wait until what was asked for is on the screen."""
    await until(pilot, lambda: not screen.dirty and not screen.stale)


# The record


def test_the_record_becomes_curves(folder):
    curves = Source(Scripted(folder).run)
    curves.take(curves.read())
    curves = curves.curves
    assert (curves.step, curves.epoch, curves.steps_per_epoch) == (240, 12, PER_EPOCH)
    assert sum(curves["train/loss"].count) == 240
    assert sum(curves["train/accuracy"].count) == 48
    assert curves.blocks("sparsity") == list(range(1, 9))
    assert sum(curves["block/3/snr_db"].count) == 12
    assert curves.epoch_of(120) == 6
    times = [curves.seconds_of(step) for step in range(0, 241, 10)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(curves.seconds.last, abs=0.2)
    assert 14 < times[-1] < 15


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(folder):
    made = Scripted(folder, live=True)
    made.train(3)
    made.event("position", step=40, epoch=2, batch=0)
    made.step = 40
    made.train(1)
    source = Source(made.run)
    source.take(source.read())
    curves = source.curves
    assert curves.step == 60
    assert sum(curves["train/loss"].count) == 60
    assert sum(curves["test/accuracy"].count) == 3
    assert [mark.kind for mark in curves.marks] == ["resume"]
    assert curves.seconds.last < made.clock - 1_790_000_000
    made.die()


def test_what_is_no_event_of_an_engine_is_passed_over(folder):
    made = Scripted(folder)
    with made.run.events.open("a") as file:
        for bad in (
            {"kind": "train", "step": "x", "values": {}}, {"kind": "train", "step": -5, "values": {"a": 1}},
            {"kind": "train", "step": 10**30, "values": {"a": 1}}, {"kind": "epoch", "step": 260, "values": []},
            {"kind": "train", "step": 250, "losses": [None, "x", 2.0],
             "values": {"a": "[red]", "b": True, "c": None, "d": {}}},
            {"kind": "set", "step": None}, {"kind": "position"},
            {"kind": "epoch", "step": 260, "epoch": 0, "values": {}},
            {"kind": "set", "step": 250, "name": "\x1b[31m[b]x", "old": None, "new": [1]}, {"kind": "unheard of"},
        ):  # fmt: skip
            file.write(json.dumps({"time": "never", **bad}) + "\n")
    source = Source(made.run)
    source.take(source.read())
    assert source.curves.step == 260
    assert sum(source.curves["train/loss"].count) == 241
    assert "a" not in source.curves.series or not len(source.curves["a"])


def test_curves_of_a_million_steps_stay_small():
    curves = Curves()
    values = {"train/loss": 1.0, "train/accuracy": 0.5}
    for step in range(100, 1_000_001, 100):
        curves.take(
            [{"kind": "train", "time": step / 100, "step": step, "epoch": 1, "losses": [0.5] * 100, "values": values}]
        )
        if step % 10_000 == 0:
            curves.take([{"kind": "warning", "time": step / 100, "text": "x" * 100}])
    assert len(curves["train/loss"]) <= 512
    assert sum(curves["train/loss"].count) == 1_000_000
    assert len(curves.events) <= 500
    many = Curves()
    many.take([{"kind": "train", "step": n, "values": {f"m{n}": 1.0}} for n in range(5000)])
    assert len(many.series) <= 600


def test_one_poll_reads_a_bounded_part_of_the_record(folder):
    made = Scripted(folder, live=True)
    made.records(3000)
    source = Source(made.run)
    reading = source.read()
    assert reading.more
    assert 100 < len(reading.events) < 2000
    source.take(reading)
    assert not source.loaded
    while not source.loaded:
        source.take(source.read())
    assert sum(source.curves["train/loss"].count) == 15_000
    made.die()


def test_a_replay_plays_everything_in_the_order_of_time(folder):
    source = Source(Scripted(folder).run)
    source.take(source.read())
    replay = Replay(source.run, source.curves)
    while replay.hungry:
        replay.feed(replay.read())
    replay.play(0)
    seen = []
    for _ in range(400):
        replay.play(0.25)
        seen.append(replay.curves.step)
    assert replay.over
    assert seen == sorted(seen)
    assert len(set(seen)) > 20
    assert replay.curves.step == 240
    assert list(replay.curves["train/loss"].total) == list(source.curves["train/loss"].total)


# Keys


def test_every_action_of_the_table_is_there():
    for action in keys.of("monitor"):
        assert hasattr(MonitorScreen, f"action_{action.id}"), action.id


def test_keys_that_change_what_is_seen(folder):
    async def body(pilot, app, screen):
        loss = screen.query_one("#loss", Chart)
        assert screen.focused is loss
        await pilot.press("plus", "plus", "minus", "plus")
        assert screen.view.smooth == 2
        await drawn(pilot, screen)
        assert "mean 5 steps" in loss.text()
        before = loss.rows
        await pilot.press("y")
        await drawn(pilot, screen)
        assert loss.log_y
        assert "log" in loss.text()
        assert loss.rows != before
        await pilot.press("y", "x")
        await drawn(pilot, screen)
        assert screen.view.axis == "epoch"
        assert "epochs" in loss.text()
        await pilot.press("x")
        await drawn(pilot, screen)
        assert "time" in loss.text()
        await pilot.press("x", "left", "left", "h", "right", "l", "left")
        await drawn(pilot, screen)
        assert 200 < screen.view.cursor < 240
        assert f"{screen.view.cursor:,.0f}" in loss.text()
        assert f"{screen.view.cursor:,.0f}" in screen.query_one("#accuracy", Chart).text()  # the same cursor in all
        await pilot.press("right_square_bracket", "right_square_bracket", "left_square_bracket")
        await drawn(pilot, screen)
        assert screen.view.zoom == 1
        assert loss._x.high - loss._x.low < 130
        assert loss._x.low <= screen.view.cursor <= loss._x.high
        await pilot.press("escape")
        assert (screen.view.cursor, screen.view.zoom) == (None, 0)
        assert app.screen is screen

    monitor(Scripted(folder).run, body)


def test_the_legend_has_the_values_at_the_cursor(folder):
    made = Scripted(folder)

    async def body(pilot, app, screen):
        accuracy = screen.query_one("#accuracy", Chart)
        line = accuracy.lines[0]
        assert accuracy.value_of(line) == line.series.last
        screen.view.cursor = 100.0
        screen.redraw()
        await drawn(pilot, screen)
        assert accuracy.value_of(line) == pytest.approx(0.95 - 0.5 * math.exp(-5 / 3), abs=1e-5)
        assert "85.6%" in accuracy.text()
        sparsity = screen.query_one("#sparsity", Chart)
        assert sparsity.value_of(sparsity.lines[0]) == pytest.approx(0.21 - 0.1 * math.exp(-5 / 4), abs=1e-5)

    monitor(made.run, body)


def test_panels_go_and_come_and_stand_alone(folder):
    async def body(pilot, app, screen):
        names = [str(panel.id) for panel in screen.panels()]
        assert all(panel.display for panel in screen.panels())
        await pilot.press("3", "6")
        assert [name for name in names if not screen.wanted[name]] == ["sparsity", "throughput"]
        assert not screen.query_one("#sparsity").display
        await pilot.press("3")
        await pilot.pause()
        assert screen.query_one("#sparsity").display
        assert screen.current == "sparsity"
        await pilot.press("tab")
        assert screen.current == "snr"
        await pilot.press("shift+tab", "k")
        assert screen.current == "accuracy"
        await pilot.press("j", "f")
        await pilot.pause()
        assert [str(panel.id) for panel in screen.panels() if panel.display] == ["sparsity"]
        await drawn(pilot, screen)
        sparsity = screen.query_one("#sparsity", Chart)
        assert sparsity.size.width >= 156
        await pilot.press("b")
        await drawn(pilot, screen)
        assert sparsity.as_curves
        assert "steps" in sparsity.text()
        await pilot.press("2")
        await pilot.pause()
        assert [str(panel.id) for panel in screen.panels() if panel.display] == ["accuracy"]
        await pilot.press("enter")
        await pilot.pause()
        assert sum(panel.display for panel in screen.panels()) == 6
        await pilot.press("f", "escape")
        await pilot.pause()
        assert not screen.full
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is not screen

    monitor(Scripted(folder).run, body)


def test_one_panel_at_a_time_where_there_is_little_room(folder):
    async def body(pilot, app, screen):
        shown = [str(panel.id) for panel in screen.panels() if panel.display]
        assert shown == ["loss"]
        await pilot.press("tab", "tab")
        await pilot.pause()
        assert [str(panel.id) for panel in screen.panels() if panel.display] == ["sparsity"]
        await pilot.press("7")
        await pilot.pause()
        assert [str(panel.id) for panel in screen.panels() if panel.display] == ["feed"]

    monitor(Scripted(folder).run, body, size=(40, 12))


def test_the_mouse_points_and_opens(folder):
    async def body(pilot, app, screen):
        await pilot.click("#loss", offset=(25, 6))
        assert screen.view.cursor is not None
        assert screen.current == "loss"
        await pilot.click("#accuracy", offset=(3, 0))
        await pilot.pause()
        assert screen.full
        assert screen.current == "accuracy"

    monitor(Scripted(folder).run, body)


def test_the_feed_scrolls_and_shows_the_engines_words(folder):
    made = Scripted(folder, epochs=30)
    made.run.log.write_text("first words\n\x1b[31m[bold]last words\n")

    async def body(pilot, app, screen):
        feed = screen.query_one("#feed")
        assert "finished at step 600" in feed.text()
        assert "epoch 30/30" in feed.text()
        await pilot.press("7", "7", "pageup")
        await pilot.pause()
        assert "5 more below" in feed.text()
        assert "finished" not in feed.text()
        await pilot.press("pagedown", "L")
        await until(pilot, lambda: "[bold]last words" in feed.text())
        assert "\x1b" not in feed.text()
        await pilot.press("L")
        await drawn(pilot, screen)
        assert "finished" in feed.text()

    monitor(made.run, body)


def test_a_reference_run_is_drawn_behind(folder):
    made = Scripted(folder)
    Scripted(folder, "other-bbbb", shift=0.05)

    async def body(pilot, app, screen):
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PickRun))
        await pilot.press("down", "up", "o", "t", "h", "enter")
        await until(pilot, lambda: screen.reference is not None and screen.reference.loaded)
        await drawn(pilot, screen)
        assert screen.reference.run.id == "other-bbbb"
        for name in ("sparsity", "snr", "cost", "loss", "accuracy"):
            chart = screen.query_one(f"#{name}", Chart)
            assert any(line.reference for line in chart.lines)
        assert "other-bbbb" in screen.query_one("#sparsity").text()
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PickRun))
        await pilot.press("enter")
        await pilot.pause()
        assert screen.reference is None

    monitor(made.run, body)


def test_the_pinned_run_is_the_reference_from_the_start(folder):
    made = Scripted(folder)
    Scripted(folder, "other-bbbb", shift=0.05)

    async def body(pilot, app, screen):
        await until(pilot, lambda: screen.reference is not None and screen.reference.loaded)
        assert screen.reference.run.id == "other-bbbb"

    monitor(made.run, body, reference="other-bbbb")

    async def gone(pilot, app, screen):
        await until(pilot, lambda: screen.reference is None)

    monitor(made.run, gone, reference="never-was")


def test_set_is_checked_while_typing_done_by_the_engine_and_marked(folder):
    made = Scripted(folder, live=True)
    made.train(3)

    async def body(pilot, app, screen):
        await until(pilot, lambda: screen.experiment is not None)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, SetDialog))
        dialog = app.screen
        box = dialog.query_one(Input)
        for text, wrong in (("hah.lambda", "KEY=VALUE"), ("hah.lambda=-1", "at least 0"), ("model.width=1", "fixed"),
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


def test_pause_resume_and_stop_are_asked_of_the_engine(folder):
    made = Scripted(folder, live=True)
    made.train(1)

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
        await pilot.press("z", "s", "equals_sign")  # nobody to ask any more
        await pilot.pause()
        assert app.screen is screen

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


def test_replay_plays_holds_changes_speed_and_ends(folder):
    made = Scripted(folder)

    async def body(pilot, app, screen):
        await pilot.press("space")
        assert screen.playback.playing
        screen.playback.speed = 4.0
        await until(pilot, lambda: 0 < screen.curves.step < 240)
        await drawn(pilot, screen)
        assert "replay playing" in screen.query_one("#head").text()
        await pilot.press("space")
        step = screen.curves.step
        assert not screen.playback.playing
        await pilot.press("greater_than_sign", "greater_than_sign", "less_than_sign")
        assert screen.playback.speed == 8.0
        await pilot.pause(0.3)
        assert screen.curves.step == step
        await pilot.press("space")
        screen.playback.speed = 2000.0
        await until(pilot, lambda: screen.playback.over)
        assert screen.curves.step == 240
        await pilot.press("escape")
        await pilot.pause()
        assert screen.playback is None
        assert app.screen is screen

    monitor(made.run, body)


def test_a_live_run_is_not_replayed(folder):
    made = Scripted(folder, live=True)
    made.train(1)

    async def body(pilot, app, screen):
        await pilot.press("space", "greater_than_sign")
        assert screen.playback is None

    monitor(made.run, body)
    made.die()


def test_manifest_copy_and_export(folder, tmp_path):
    made = Scripted(folder)

    async def body(pilot, app, screen):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, Message))
        assert "2.15.0" in picture(app)
        await pilot.press("escape")
        copied = []
        app.copy_to_clipboard = copied.append
        await pilot.press("C")
        screen.action_copy_path()
        assert copied == ["scripted-aaaa", str(made.run.path)]
        await pilot.press("plus", "w", "W", "w")
        await until(pilot, lambda: len(list(tmp_path.glob("scripted-aaaa-loss*"))) == 3)
        await pilot.press("3", "3", "w", "b", "W")
        await until(pilot, lambda: len(list(tmp_path.glob("scripted-aaaa-sparsity*"))) == 2)

    monitor(made.run, body)
    table = (tmp_path / "scripted-aaaa-loss.csv").read_text().splitlines()
    assert table[0].split(",") == [
        "run", "metric", "first_step", "last_step", "epoch", "seconds", "count", "mean", "minimum", "maximum",
        "running_mean_2.4_steps",
    ]  # fmt: skip
    losses = [line.split(",") for line in table[1:] if line.split(",")[1] == "train/loss"]
    assert sum(int(line[6]) for line in losses) == 240
    assert float(losses[0][7]) == pytest.approx(2 * math.exp(-1 / 40) + 0.1 * math.sin(1), abs=1e-5)
    assert (tmp_path / "scripted-aaaa-loss-2.csv").exists()
    from xml.etree import ElementTree

    for name in ("loss", "sparsity"):
        picture_ = ElementTree.parse(tmp_path / f"scripted-aaaa-{name}.svg")
        lines = picture_.findall("{http://www.w3.org/2000/svg}polyline")
        assert len(lines) >= 3
        assert all("nan" not in line.get("points") for line in lines)


# How it looks


def states(folder):
    """A run in each state a person may open: (name, run)."""
    finished = Scripted(folder, "finished-aaaa")
    live = Scripted(folder, "live-aaaa", live=True)
    live.train(5)
    fresh = Scripted(folder, "fresh-aaaa", live=True)
    lost = Scripted(folder, "lost-aaaa", live=True)
    lost.train(3)
    lost.die()
    return [("finished", finished), ("live", live), ("fresh", fresh), ("lost", lost)]


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_every_state(folder, size):
    made = states(folder)
    Scripted(folder, "reference-bbbb", shift=0.05)
    for name, script in made:

        async def body(pilot, app, screen, name=name):
            await until(pilot, lambda: screen.experiment is not None)
            screen.redraw()
            await drawn(pilot, screen)
            check(app, f"monitor-{name}")
            if name == "finished":
                screen.take_reference("reference-bbbb")
                screen.view.cursor, screen.view.smooth = 120.0, 3
                await until(pilot, lambda: screen.reference.loaded)
                await drawn(pilot, screen)
                check(app, "monitor-reference-cursor")
                await pilot.press("3" if size[0] == 40 else "f")
                await pilot.pause()
                await drawn(pilot, screen)
                check(app, "monitor-full")

        monitor(script.run, body, size=size)
    for _, script in made[1:3]:
        script.die()


def test_ascii_mode_has_nothing_but_ascii(folder):
    async def body(pilot, app, screen):
        app.action_ascii()
        await pilot.press("left", "plus")
        await drawn(pilot, screen)
        for panel in (*screen.panels(), screen.query_one("#head")):
            assert panel.text().isascii(), [c for c in panel.text() if not c.isascii()]
        assert "*" in screen.query_one("#loss").text()

    monitor(Scripted(folder).run, body)


def test_whatever_the_record_says_is_drawn(folder):
    """Numbers at the ends of what JSON can say, blocks by any name: no key and no axis fails over them."""
    numbers = [0.0, -0.0, 1.0, 1e308, -1e308, 1e-320, 1e-12, 5e29, -3.0, float("nan"), None, 7, True, "x"]
    draw = random.Random(7)

    async def body(pilot, app, screen):
        for case in range(40):
            curves, step = Curves(), 0
            kinds = [numbers, numbers[:3], [1e308], [1e-320, 0.0], [-3.0], [5e29, -5e29], [2.0, 2.0 + 1e-15]][case % 7]
            for _ in range(draw.choice([0, 1, 2, 60, 700])):
                step += draw.choice([0, 1, 1, 5, 1 << 40 if case % 3 == 0 else 1])
                values = {name: draw.choice(kinds) for name in ("train/loss", "train/cross_entropy", "test/accuracy")}
                values |= {f"block/{n}/sparsity": draw.choice(kinds) for n in ("1", "2", "01", "12345678", "x", "999")}
                losses = [draw.choice(kinds) for _ in range(draw.choice([0, 1, 3]))]
                moment = draw.choice([1.0, 1e9, 1e300, -5.0, step % 1000, "x", None])
                said = {"time": moment, "step": step, "values": values}
                curves.take([{"kind": "train", "epoch": 1, "losses": losses, **said}])
                curves.take([{"kind": "epoch", "epoch": draw.choice([0, 1, 3]), **said}])
            screen.source.curves = curves
            for chart in screen.query(Chart):
                chart.log_y, chart.y = draw.random() < 0.5, None
                if hasattr(chart, "as_curves"):
                    chart.as_curves = draw.random() < 0.5
            screen.view.axis = draw.choice(["step", "epoch", "time"])
            screen.view.smooth, screen.view.zoom = draw.randrange(8), draw.randrange(4)
            screen.view.cursor = draw.choice([None, 0.0, step / 2])
            screen.stale = True
            screen.draw()
            screen._move(draw.choice([-1, 1]))
            screen.draw()
            chart = screen.query_one("#loss", Chart)
            picture_ = as_svg(chart, screen.view, chart._x, "[x]", app.series, True)
            assert "inf" not in picture_.replace("infinite", "")
            as_csv(screen.metrics(chart), screen.view)
            assert all(len(row[0]) == len(row[1]) == chart.size.width for row in chart.rows)

    monitor(Scripted(folder).run, body)


# What it costs


@pytest.mark.parametrize(("size", "ceiling"), [((160, 48), 450), ((80, 24), 200)])
def test_a_frame_of_a_live_run_repaints_little(folder, size, ceiling):
    """50 records a frame, as 200 a second are: a small part of the cells is handed to the terminal again."""
    made = Scripted(folder, live=True, epochs=5000)
    made.records(8000)

    async def body(pilot, app, screen):
        canvases = [*screen.panels(), screen.query_one("#head")]
        before = sum(canvas.repainted for canvas in canvases)
        for _ in range(12):
            made.records(50)
            made.snapshot()
            screen.source.take(screen.source.read())
            screen.draw()
            await pilot.pause()
        after = sum(canvas.repainted for canvas in canvases)
        assert 0 < (after - before) / 12 < ceiling

    monitor(made.run, body, size=size)
    made.die()


def test_a_finished_run_repaints_nothing(folder):
    async def body(pilot, app, screen):
        canvases = [*screen.panels(), screen.query_one("#head")]
        before = [canvas.repainted for canvas in canvases]
        for _ in range(5):
            screen.dirty = True
            screen.frame()
            await pilot.pause()
        assert [canvas.repainted for canvas in canvases] == before

    monitor(Scripted(folder).run, body)


def test_files_are_written_only_where_asked(folder, tmp_path):
    assert sorted(Path.cwd().iterdir()) == [folder]
