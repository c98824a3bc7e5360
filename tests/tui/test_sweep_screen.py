"""A sweep in the terminal: its grid, the means of any metric, the axis as a chart, and what is done with it."""

import math
import os
import statistics
from dataclasses import replace

import pytest

from engine.report import cases, own
from engine.report.cases import CaseReader
from engine.results.groups import grouped
from engine.results.measured import measured
from engine.runs.process import Lock
from engine.runs.state import read_state
from engine.sweep import desk, queue, sweeps
from engine.sweep.queue import Entry
from hah_tui.screens.sweep import SweepScreen
from hah_tui.widgets.figure import FigureChart
from tests.tui import made as making
from tests.tui.driving import answer, drive, still, until, words
from tests.tui.made import made
from tests.tui.snapshot import SIZES, check

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
PLAN = "base: quickstart\naxes: {hah.lambda: [0.01, 0.1, 1.0]}\nseeds: 3\n"


@pytest.fixture(autouse=True)
def nobody_starts(monkeypatch):
    """What was asked of the dispatcher: nothing is started."""
    asked = []
    monkeypatch.setattr(desk, "ensure_dispatcher", lambda folder: asked.append(folder))
    return asked


def some(runs, text=PLAN, name="study"):
    """A sweep of which a part has finished, with every other state there is; the lock of what runs."""
    sweep = making.sweep(runs, text, name)
    for place, seed, clean in ((0, 0, 0.912), (0, 1, 0.934), (0, 2, 0.92), (1, 0, 0.955), (1, 1, 0.951)):
        making.trial(runs, sweep, place, sweep.seeds[seed], clean=clean, noisy=clean - 0.1)
    live = making.trial(runs, sweep, 1, sweep.seeds[2], "running", epoch=6, clean=0.99)
    making.trial(runs, sweep, 2, sweep.seeds[0], "failed", epoch=3, error="CUDA out of memory [tried 2 GiB]")
    waits = making.trial(runs, sweep, 2, sweep.seeds[1], "queued", epoch=0)
    Entry(group=sweep.name, queued=making.NOW, device="cpu").write(waits)
    return Lock.take(live.lock)


async def opened(pilot, app, name="study"):
    await pilot.press("S")
    await until(pilot, lambda: isinstance(app.screen, SweepScreen))
    await until(pilot, lambda: app.screen.known and app.screen.known.trials and app.screen.known.sweep.name == name)
    await until(pilot, lambda: app.screen.known.cases.groups)


def grid(app):
    return app.screen.grid.text().split("\n")


# What was measured


def test_means_are_over_finished_seeds_and_equal_a_transcription(runs):
    some(runs).release()
    sweep = sweeps.read(runs, "study")
    trials = sweeps.trials(sweep, [runs])
    reader = CaseReader()
    found = reader.read(sweep, trials)
    assert reader.read(sweep, trials) is found
    for metric, of in (("eval/clean_accuracy", "test/accuracy"), ("test/noisy_accuracy",) * 2, ("train/loss",) * 2):
        quantity = next(one for one in found.quantities if one.name == metric)
        for point, number in zip(sweep.points, quantity.numbers, strict=True):
            states = [read_state(trial.look.run) for trial in trials if trial.point is point and trial.look]
            values = [state.metrics[of] for state in states if state.status == "finished"]
            assert (number is None) == (not values)
            if values:
                assert math.isclose(number.mean, sum(values) / len(values))
                assert math.isclose(number.spread, statistics.stdev(values), abs_tol=1e-15)
                assert len(number.values) == len(values)
    assert [group.missing for group in found.groups] == [(), (2024,), (2022, 2023, 2024)]
    clean = next(one for one in found.quantities if one.name == "eval/clean_accuracy")
    assert cases.best(clean) == {1}
    assert cases.best(next(one for one in found.quantities if one.name == "train/loss")) == set()


def test_a_case_is_the_group_that_reports_make_of_its_runs(runs):
    """Without the schema for each run: the same numbers and curves as `hah report runs` has."""
    some(runs).release()
    sweep = sweeps.read(runs, "study")
    trials = sweeps.trials(sweep, [runs])
    for trial in trials:
        if trial.look:  # what a run of the plan would have written
            sets = [f"hah.lambda={trial.point.differs['hah.lambda']}", f"seed={trial.seed}"]
            trial.look.run.config.write_text(making.config(sets=sets))
    found = CaseReader().read(sweep, trials)
    finished = [trial.look.run for trial in trials if trial.look and trial.look.status == "finished"]
    groups, _ = grouped([measured(run) for run in finished])
    for ours, theirs in zip(found.groups, groups, strict=False):
        assert [run.numbers for run in ours.runs] == [run.numbers for run in theirs.runs]
    ours, theirs = found.curves(), list(own.axes(groups))
    assert [(one.key, one.log, one.series) for one in ours] == [(one.key, one.log, one.series) for one in theirs]
    assert [point.x for point in ours[0].series[0].points] == [0.01, 0.1]


def test_results_that_arrive_and_other_ways_of_testing_are_seen(runs):
    some(runs).release()
    sweep = sweeps.read(runs, "study")
    reader, trials = CaseReader(), sweeps.trials(sweep, [runs])
    before = reader.read(sweep, trials)
    run = trials[0].look.run
    other = run.config.read_text().replace("noise_std: 0.1", "noise_std: 0.3")
    assert other != run.config.read_text()
    run.config.write_text(other)
    later = making.NOW + 5
    replace(read_state(run), updated=later).write(run)
    os.utime(run.results, (later, later))
    found = reader.read(sweep, sweeps.trials(sweep, [runs]))
    assert found is not before
    noisy = next(one for one in found.quantities if one.name == "eval/noise/0.1/accuracy").numbers[0]
    assert len(noisy.values) == 2  # the third was tested with other noise


# What is shown


@sizes
def test_the_grid(runs, size):
    lock = some(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("down", *["right"] * 4)
        await still(pilot, app)
        check(app, "sweep")

    drive(runs, body, size)
    lock.release()


@sizes
def test_the_chart_in_plain_characters(runs, size):
    lock = some(runs)

    async def body(pilot, app):
        app.action_ascii()
        await opened(pilot, app)
        await pilot.press("a", "right", "right")
        await still(pilot, app)
        check(app, "sweep-chart-ascii")

    drive(runs, body, size)
    lock.release()


def test_cells_say_how_far_each_run_is(runs):
    lock = some(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("R", "z")
        assert isinstance(app.screen, SweepScreen)
        assert len(app._notifications) == 2  # which run is not to be guessed
        rows = grid(app)
        assert "✓ 91.2  ✓ 93.4  ✓ 92.0  3/3   92.2 ± 1.1" in rows[1]
        assert "✓ 95.5  ✓ 95.1  ● ━━╸┈┈ 2/3 ★ 95.3 ± 0.3" in rows[2]
        assert "✗ ━┈┈┈┈ ○       ·       0/3            -" in rows[3]
        await pilot.press("down", "right", "right", "right")
        said = words(app, "#detail")
        assert "seed 2024  running  epoch 6 of 12" in said
        assert "clean 95.3 ± 0.3%, mean of 2 of 3 seeds; left out: 1 running (last test of the training)" in said
        await pilot.press("down", "left", "left")
        assert "CUDA out of memory [tried 2 GiB]" in words(app, "#detail")
        live = next(trial for trial in app.screen.known.trials if trial.status == "running").look.run
        replace(read_state(live), status="finished", epoch=12).write(live)
        app.screen.wake()
        await until(pilot, lambda: "✓ 99.0" in grid(app)[2])
        assert "3/3 ★ 96.5" in grid(app)[2]

    drive(runs, body)
    lock.release()


def test_any_metric_and_the_best_first(runs):
    lock = some(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("o")
        assert [row.split()[0] for row in grid(app)[1:4]] == ["lambda=0.1", "lambda=0.01", "lambda=1"]
        await pilot.press("O")
        assert [row.split()[0] for row in grid(app)[1:4]] == ["lambda=1", "lambda=0.01", "lambda=0.1"]
        await pilot.press("o", "m")
        await until(pilot, lambda: type(app.screen).__name__ == "PickRun")
        await answer(pilot, "loss")
        await until(pilot, lambda: isinstance(app.screen, SweepScreen))
        assert "0.5 ± 0" in grid(app)[3]
        assert "★" not in app.screen.grid.text()

    drive(runs, body)
    lock.release()


def test_many_cases_and_seeds_scroll_and_the_first_column_stands_still(runs):
    sweep = making.sweep(runs, "base: quickstart\naxes: {train.lr: {from: 0.001, to: 0.05, count: 50}}\nseeds: 40\n")
    making.trial(runs, sweep, 49, sweep.seeds[39])

    async def body(pilot, app):
        await opened(pilot, app)
        assert grid(app)[0].endswith(">")
        assert grid(app)[1].startswith("lr=0.001")
        await pilot.press("ctrl+end", "end")
        assert "<" in grid(app)[0]
        assert "2061" in grid(app)[0]
        last = [row for row in grid(app) if row][-1]
        assert last.startswith("lr=0.05")
        assert last.endswith("✓ 90.0")
        await pilot.press("enter")
        await until(pilot, lambda: type(app.screen).__name__ == "MonitorScreen")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SweepScreen))
        for key in ("ctrl+home", "home", "up", "left", "pagedown", "pageup", "k", "h", "l", "j"):
            await pilot.press(key)
        assert (app.screen.grid.row, app.screen.grid.column) == (1, 1)

    drive(runs, body, (80, 24))


def test_no_chart_is_said_with_the_reason(runs):
    making.sweep(runs, "base: quickstart\ncases: {a: {}, b: {model.threshold.kind: none}}\n", "words")

    async def body(pilot, app):
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, SweepScreen) and app.screen.known)
        await pilot.press("a", "tab", "right")
        assert "the cases differ in no number" in app.screen.query_one(FigureChart).text()
        await pilot.press("escape")
        assert app.screen.grid.display
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "RunsScreen")

    drive(runs, body)


# Which sweep


def test_without_sweeps_it_says_how_to_make_one(runs):
    made(runs, id="a")

    async def body(pilot, app):
        await pilot.press("S")
        await until(pilot, lambda: "no sweeps yet" in words(app, "#detail"))
        for key in ("enter", "s", "r", "e", "m", "o", "O", "a", "tab", "a", "z", "R", "C", "f5", "down", "right"):
            await pilot.press(key)
            assert isinstance(app.screen, SweepScreen)
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "RunsScreen")

    drive(runs, body)


def test_of_several_one_is_chosen_with_how_far_each_is(runs):
    lock = some(runs)
    making.sweep(runs, PLAN, "later")
    os.utime(runs / ".sweeps" / "study" / "plan.json", (1, 1))
    (runs / ".sweeps" / "broken").mkdir()
    (runs / ".sweeps" / "broken" / "plan.json").write_text("{")
    os.utime(runs / ".sweeps" / "broken" / "plan.json", (2, 2))

    def listed(app):
        box = app.screen.query_one("#sweeps")
        return [str(box.get_option_at_index(place).prompt) for place in range(box.option_count)]

    async def body(pilot, app):
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen")
        await pilot.press("S")
        await until(pilot, lambda: type(app.screen).__name__ == "PickSweep")
        await until(pilot, lambda: "running" in listed(app)[2])
        assert [text.split()[0] for text in listed(app)] == ["later", "broken", "study"]
        assert "9 runs: 5 finished" in listed(app)[2]
        assert "is no plan of a sweep" in listed(app)[1]
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen")
        await pilot.press("S")
        await until(pilot, lambda: type(app.screen).__name__ == "PickSweep")
        await pilot.press("end", "enter")
        await until(pilot, lambda: isinstance(app.screen, SweepScreen) and app.screen.known)
        assert app.screen.known.sweep.name == "study"

    drive(runs, body)
    lock.release()


# What is done


def test_the_run_of_a_cell_is_stopped_after_asking(runs):
    lock = some(runs)

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("down", "down", "right", "right", "s")
        await until(pilot, lambda: type(app.screen).__name__ == "Which")
        await pilot.press("n")
        run = app.screen.target().run
        assert read_state(run).status == "queued"
        await pilot.press("s")
        await until(pilot, lambda: type(app.screen).__name__ == "Which")
        await pilot.press("y")
        await until(pilot, lambda: read_state(run).status == "stopped")
        await until(pilot, lambda: "■" in grid(app)[3])

    drive(runs, body)
    lock.release()


def test_the_whole_sweep_is_stopped_after_asking(runs):
    some(runs).release()

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("s")
        await until(pilot, lambda: type(app.screen).__name__ == "Which")
        await pilot.press("y")  # no run is under the cursor
        assert type(app.screen).__name__ == "Which"
        await pilot.press("a")
        await until(pilot, lambda: [t.status for t in app.screen.known.trials].count("stopped") == 1)
        assert app.screen.grid.display  # the key was the answer's alone

    drive(runs, body)


def test_what_failed_is_tried_again_and_what_is_missing_is_made(runs, nobody_starts):
    some(runs).release()

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("r")
        await until(pilot, lambda: type(app.screen).__name__ == "Which")
        assert any("1 failed" in str(text.render()) for text in app.screen.query("Static"))
        await pilot.press("o")
        await until(pilot, lambda: [t.status for t in app.screen.known.trials].count("queued") == 2)
        assert app.screen.known.trials[6].status == "failed"
        await pilot.press("r")
        await until(pilot, lambda: type(app.screen).__name__ == "Which")
        await pilot.press("y")
        failed = app.screen.known.trials[6].look.run
        await until(pilot, lambda: queue.entry_of(failed) is not None)
        await until(pilot, lambda: "○ ━┈┈┈┈" in grid(app)[3])  # it waits, which its own snapshot does not say
        await pilot.press("down", "down", "right")
        assert "failed, waits to go on" in words(app, "#detail")

    drive(runs, body)
    assert nobody_starts


def test_more_seeds(runs, nobody_starts):
    some(runs).release()

    async def body(pilot, app):
        await opened(pilot, app)
        await pilot.press("e")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await answer(pilot, "3")
        assert type(app.screen).__name__ == "Ask"  # it has as many
        await answer(pilot, "4")
        await until(pilot, lambda: app.screen.known and len(app.screen.known.sweep.seeds) == 4)
        await until(pilot, lambda: "2025" in grid(app)[0])
        await until(pilot, lambda: [t.status for t in app.screen.known.trials].count("queued") == 5)

    drive(runs, body)
    assert sweeps.read(runs, "study").seeds == (2022, 2023, 2024, 2025)


def test_a_plan_that_goes_is_said(runs):
    some(runs).release()

    async def body(pilot, app):
        await opened(pilot, app)
        sweeps.remove(runs, "study")
        app.screen.wake()
        await until(pilot, lambda: "the plan of study is gone" in words(app, "#head"))
        for key in ("enter", "s", "r", "e", "m", "o", "a", "a"):
            await pilot.press(key)
            await pilot.press("escape") if not isinstance(app.screen, SweepScreen) else None

    drive(runs, body)
