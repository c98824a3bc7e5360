"""The comparison: curves, blocks, the best results, the settings that differ, and its keys."""

import pytest

from hah_tui.screens.comparison import CompareScreen, best
from hah_tui.screens.dialogs import PickRun
from hah_tui.widgets.chart import Chart
from tests.tui.driving import show, until
from tests.tui.scripted import Scripted
from tests.tui.snapshot import SIZES, check

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def pair(folder):
    """Two runs: the second is worse, and has another alpha."""
    first = Scripted(folder, "alpha-aaaa")
    second = Scripted(folder, "beta-bbbb", shift=0.05, sets=["hah.alpha=0.01", "seed=7"])
    return [first.run, second.run]


def compare(runs, body, size=(160, 48)):
    """``body(pilot, app, screen)`` in a comparison that has read its runs."""

    folder = runs[0].path.parent
    show(lambda: CompareScreen(runs), folder, body, size, ready=lambda screen: len(screen.experiments) == len(runs))


def test_curves_results_and_differences(pair):
    async def body(pilot, app, screen):
        loss = screen.query_one("#loss", Chart)
        assert [line.label for line in loss.lines] == ["alpha", "beta"]  # as they were named: that tells them apart
        assert [line.ink for line in loss.lines] == [1, 2]
        results = screen.query_one("#results").text().splitlines()
        clean = next(line for line in results if "clean" in line)
        assert "★ 94.1%" in clean
        assert clean.rstrip().endswith("89.1%")
        assert "★" not in next(line for line in results if "train accuracy" in line)
        differ = screen.query_one("#differences").text().splitlines()
        assert differ[2].split() == ["seed", "2022", "7"]
        assert differ[3].split() == ["hah.alpha", "[0.045,", "0.025,", "0.013]", "[0.01]"]
        assert len([line for line in differ if line.strip()]) == 4
        snr = screen.query_one("#snr")
        assert len(snr.lines) == 16
        assert "alpha" in snr.text()
        assert snr.rows[-1][0].split() == [str(n) for n in range(1, 9)]

    compare(pair, body)


def test_keys(pair, tmp_path, runs):
    Scripted(runs, "gamma-cccc", shift=0.1)

    async def body(pilot, app, screen):
        loss = screen.query_one("#loss", Chart)
        await pilot.press("x")
        await until(pilot, lambda: not screen.stale)
        assert "epochs" in loss.text()
        await pilot.press("plus", "left", "left", "right_square_bracket")
        assert (screen.view.smooth, screen.view.axis, screen.view.zoom) == (1, "epoch", 1)
        assert screen.view.cursor > 200
        await until(pilot, lambda: not screen.stale)
        assert f"{screen.view.cursor / 20:,.2f}" in loss.text()
        await pilot.press("y", "tab", "1")
        assert loss.log_y
        assert not screen.wanted["loss"]
        await pilot.press("1", "f")
        await pilot.pause()
        assert [str(panel.id) for panel in screen.panels() if panel.display] == ["loss"]
        await pilot.press("w", "W", "f")
        await until(pilot, lambda: len(list(tmp_path.glob("alpha-aaaa-beta-bbbb-loss.*"))) == 2)
        copied = []
        app.copy_to_clipboard = copied.append
        await pilot.press("C", "p")
        assert copied == ["alpha-aaaa beta-bbbb"]
        await until(pilot, lambda: isinstance(app.screen, PickRun))
        await pilot.press("enter")
        await until(pilot, lambda: screen.reference is not None and screen.reference.loaded and not screen.dirty)
        assert screen.reference.run.id == "gamma-cccc"
        assert loss.lines[-1].reference
        await pilot.press("8", "8", "pagedown", "pageup", "escape", "escape")
        await pilot.pause()
        assert app.screen is not screen

    compare(pair, body)
    rows = (tmp_path / "alpha-aaaa-beta-bbbb-loss.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"alpha-aaaa", "beta-bbbb"}


def test_a_run_whose_settings_cannot_be_read_is_compared_all_the_same(pair):
    pair[1].config.write_text("model: {hah_blocks: lots}\n")

    async def body(pilot, app, screen):
        said = screen.query_one("#differences").text()
        assert "cannot be read" in said
        assert "hah_blocks" in said
        assert "★ 94.1%" in screen.query_one("#results").text()

    compare(pair, body)


def test_a_run_that_goes_away_is_said(pair, runs):
    async def body(pilot, app, screen):
        pair[1].path.rename(runs / "elsewhere")
        await until(pilot, lambda: "gone" in screen.query_one("#head").text())

    compare(pair, body)


def test_runs_of_one_name_are_called_by_their_ids(folder):
    made = [Scripted(folder, f"same-{n}aaa").run for n in range(2)]

    async def body(pilot, app, screen):
        assert [line.label for line in screen.query_one("#loss", Chart).lines] == ["same-0aaa", "same-1aaa"]

    compare(made, body)


def test_whose_results_is_asked(pair):
    async def body(pilot, app, screen):
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, PickRun))
        await pilot.press("escape")
        assert app.screen is screen
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, PickRun))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.screen.PLACE == "results")
        assert app.screen.run_directory.id == "beta-bbbb"

    compare(pair, body)


def test_the_same_settings_are_said_to_be_so(folder):
    made = [Scripted(folder, f"same-{n}aaa").run for n in range(3)]

    async def body(pilot, app, screen):
        assert "the same settings" in screen.query_one("#differences").text()
        assert "★" not in screen.query_one("#results").text()

    compare(made, body)


@pytest.mark.parametrize("size", SIZES)
def test_pictures(pair, size):
    async def body(pilot, app, screen):
        check(app, "compare")
        if size[0] == 40:
            await pilot.press("7")
            await pilot.pause()
            await until(pilot, lambda: not screen.stale)
            check(app, "compare-results")

    compare(pair, body, size)


def test_the_best():
    nan = float("nan")
    assert best([0.1, 0.3, nan]) == 1
    assert best([0.1, 0.3], higher=False) == 0
    assert best([0.2, 0.2]) is None
    assert best([nan, 0.2]) is None
    assert best([]) is None
