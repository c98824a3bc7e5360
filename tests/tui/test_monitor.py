"""The monitor's panels: keys and mouse that change what is seen, the reference run, the replay, what is exported."""

import math
from pathlib import Path

import pytest

from hah_tui.screens.dialogs import Message, PickRun
from hah_tui.screens.monitor import MonitorScreen
from hah_tui.settings import Settings
from hah_tui.widgets.chart import Chart
from tests.tui.driving import drawn, monitor, until
from tests.tui.scripted import Scripted
from tests.tui.snapshot import picture

pytestmark = pytest.mark.usefixtures("alone")


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


def test_scale_and_bars_say_what_they_act_on_and_can_act_on_all(folder):
    async def body(pilot, app, screen):
        def said():
            return list(app._notifications)[-1].message

        loss, accuracy, snr = (screen.query_one(f"#{name}", Chart) for name in ("loss", "accuracy", "snr"))
        await pilot.press("y")
        assert said() == "Loss: logarithmic scale; Y changes all"
        assert (loss.log_y, accuracy.log_y) == (True, False)
        await pilot.press("Y")
        assert said() == "all panels: logarithmic scale"
        assert accuracy.log_y
        await pilot.press("Y")
        assert not any(chart.log_y for chart in screen.charts())
        await pilot.press("b")
        assert "Loss has no blocks" in said()
        await pilot.press("B")
        assert snr.as_curves
        screen.query_one("#snr").focus()
        await pilot.press("b", "y")
        assert "SNR per block, dB has no curves" in said()
        assert not snr.as_curves
        assert screen.query_one("#sparsity").as_curves

    monitor(Scripted(folder).run, body)


def test_values_are_zoomed_around_the_cursor(folder):
    async def body(pilot, app, screen):
        loss = screen.query_one("#loss", Chart)
        before = loss.y
        await pilot.press("right_curly_bracket", "right_curly_bracket", "right_curly_bracket")
        await drawn(pilot, screen)
        assert loss.y.high - loss.y.low < (before.high - before.low) / 3
        assert loss.y.low <= loss.value_of(loss.lines[0]) <= loss.y.high
        assert "y 8x" in loss.text()
        await pilot.press("left_curly_bracket")
        await drawn(pilot, screen)
        assert "y 4x" in loss.text()
        await pilot.press("escape")
        await drawn(pilot, screen)
        assert (loss.zoom_y, loss.y, app.screen) == (0, before, screen)

    monitor(Scripted(folder).run, body)


def test_what_is_chosen_is_kept(folder):
    made = Scripted(folder)

    async def choose(pilot, app, screen):
        await pilot.press("x", "plus", "plus", "y", "B", "6")
        await drawn(pilot, screen)

    async def find(pilot, app, screen):
        app.settings = Settings.load()[0]
        again = MonitorScreen(made.run)
        await app.push_screen(again)
        await until(pilot, lambda: again.source.loaded)
        await drawn(pilot, again)
        assert (again.view.axis, again.view.smooth) == ("epoch", 2)
        assert again.query_one("#loss", Chart).log_y
        assert again.query_one("#snr").as_curves
        assert not again.wanted["throughput"]
        assert not again.query_one("#throughput").display

    monitor(made.run, choose)
    monitor(made.run, find)


def test_a_panel_for_any_metric_of_the_record(folder):
    made = Scripted(folder)
    made.event("train", step=241, epoch=12, values={"own/thing [x]": 0.25, "block/1/odd": 3.0, "block/2/odd": 4.0})

    async def body(pilot, app, screen):
        async def add(words):
            await pilot.press("slash")
            await until(pilot, lambda: isinstance(app.screen, PickRun))
            await pilot.press(*words, "enter")
            await until(pilot, lambda: app.screen is screen)
            await drawn(pilot, screen)

        await add("thing")
        panel = screen.chart
        assert "Own/thing [x]" in panel.text()
        assert "0.25" in panel.text()
        assert panel.digit == "8"
        await add("odd")
        assert "Block/*/odd per block" in screen.chart.text()
        assert [line.label for line in screen.chart.lines] == ["1", "2"]
        assert screen.chart.digit == "9"
        await add("thing")  # it is there already
        assert screen.chart is panel
        assert app.settings.metrics == ["own/thing [x]", "block/*/odd"]
        again = MonitorScreen(made.run)
        await app.push_screen(again)
        await until(pilot, lambda: again.source.loaded)
        assert len(again.panels()) == len(screen.panels()) == 9
        await pilot.press("escape", "delete")
        await drawn(pilot, screen)
        assert app.settings.metrics == ["block/*/odd"]
        assert [panel.digit for panel in screen.panels()] == list("12345678")
        await pilot.press("delete")
        assert "only panels that were added" in list(app._notifications)[-1].message
        await pilot.press("slash", "delete", "escape", "delete", "slash", "enter", "delete")  # faster than pictures
        await pilot.pause()

    monitor(made.run, body)


def test_the_feed_folds_checkpoints_and_wraps_where_it_is_alone(folder):
    made = Scripted(folder)
    for step in (60, 120, 180):
        made.event("checkpoint", name="last", step=step, epoch=step // 20)
    made.event("checkpoint", name="best", step=100, epoch=5)

    async def body(pilot, app, screen):
        feed = screen.query_one("#feed")
        assert feed.text().count("checkpoint last") == 1
        feed.focus()
        await pilot.press("f")
        await drawn(pilot, screen)
        lines = feed.text().splitlines()
        assert "checkpoint last at step 180 (3 so far)" in lines[-2]
        assert lines[-1].endswith("checkpoint best at step 100")
        assert any(line.startswith(" " * 10) for line in lines)  # what does not fit goes on below
        assert not any(line.endswith("…") for line in lines)
        for n in range(1, 9):
            assert f"{15 - 1.5 * n + 3 * (1 - math.exp(-12 / 5)):.3g}" in feed.text()

    monitor(made.run, body, size=(80, 24))


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


def test_files_are_written_only_where_asked(folder, tmp_path):
    assert sorted(Path.cwd().iterdir()) == [folder]
