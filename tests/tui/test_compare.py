"""The comparison: curves, blocks, the best results, the settings that differ, and its keys."""

import math

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
    show(lambda: CompareScreen(runs), folder, body, size, ready=lambda screen: screen.known)


def test_curves_results_and_differences(pair):
    async def body(pilot, app, screen):
        loss = screen.query_one("#loss", Chart)
        assert [line.label for line in loss.lines] == ["alpha", "beta"]  # shorter than the two lists of alpha
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
        await pilot.press("g")  # all of one seed
        await pilot.pause()
        assert not screen.grouped
        assert len(screen.entries) == 3

    compare(made, body)


@pytest.fixture
def thirteen(folder):
    """Four experiments with three seeds each, one of them longer, and a strange run."""
    cases = {"base": [], "lam": ["hah.lambda=1.0"], "bare": ["model.threshold.kind=none"], "top": ["hah.top_k=0.3"]}
    made = [
        Scripted(folder, f"{name}-{seed}aaa", shift=0.03 * place + 0.01 * seed, sets=[f"seed={seed}", *sets]).run
        for place, (name, sets) in enumerate(cases.items())
        for seed in (1, 2, 3)
    ]
    return [*made, Scripted(folder, "strange-zzzz", epochs=14, sets=["train.lr=0.1"], shift=0.2).run]


@pytest.mark.parametrize("size", SIZES)
def test_every_run_and_block_of_thirteen_is_reached(thirteen, size):
    async def body(pilot, app, screen):
        assert len({entry.name for entry in screen.entries}) == 13
        assert len({(line.ink, line.dash) for line in screen.query_one("#loss", Chart).lines}) == 13

        async def alone(name):
            screen.current, screen.full = name, True
            screen.lay_out()
            panel = screen.query_one(f"#{name}")
            await until(pilot, lambda: panel.display and panel.has_focus and not screen.stale)
            return panel

        results, seen = await alone("results"), set()
        for _ in range(13):
            seen |= set(results.text().split())
            await pilot.press("right")
        for n in range(12):  # a number of every run, none of them cut
            assert f"{100 * (0.95 - 0.5 * math.exp(-4) - (0.03 * (n // 3) + 0.01 * (n % 3 + 1))):.1f}%" in seen
        sparsity, blocks = await alone("sparsity"), set()
        for _ in range(8):
            blocks |= set(sparsity.text().splitlines()[-1].split())
            await pilot.press("pagedown")
        assert {str(n) for n in range(1, 9)} <= blocks

    compare(thirteen, body, size)


def test_seeds_as_one_and_runs_in_front_alone_and_hidden(thirteen):
    async def body(pilot, app, screen):
        loss, head = screen.query_one("#loss", Chart), screen.query_one("#head")
        inks = {line.owner: line.ink for line in loss.lines}
        await pilot.press("n", "n")
        await until(pilot, lambda: not screen.stale)
        assert screen.front == 1
        assert loss.lines[0].owner == 1  # above the others, which are faint
        assert {line.ink - inks[line.owner] for line in loss.lines[1:]} == {8}
        assert "base-2aaa" in head.text()
        await pilot.press("o")
        await until(pilot, lambda: len(loss.lines) == 1)
        await pilot.press("o", "H")
        await until(pilot, lambda: len(loss.lines) == 12)
        assert screen.front is None
        assert "1 hidden" in head.text()
        assert {line.owner: line.ink for line in loss.lines}.items() <= inks.items()  # a run keeps its colour
        await pilot.press("H", "g")
        await until(pilot, lambda: len(loss.lines) == 5)
        assert [line.label for line in screen.query_one("#clean", Chart).lines] == [
            "base (3 seeds)",
            "lambda=1.0 (3 seeds)",
            "no threshold (3 seeds)",
            "top_k=0.3 (3 seeds)",
            "epochs=14 lr=0.1",
        ]
        clean = loss.lines[1].series, screen.entries[1].series("test/accuracy")
        members = [source.curves["test/accuracy"] for source in screen.entries[1].members]
        for index in range(len(clean[1])):
            values = [member.mean(index) for member in members]
            mean = sum(values) / 3
            spread = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
            assert clean[1].mean(index) == pytest.approx(mean)
            assert clean[1].high[index] - mean == pytest.approx(spread)
        assert "5 groups of 13 runs" in head.text()
        await pilot.press("g")
        await until(pilot, lambda: len(loss.lines) == 13)

    compare(thirteen, body)


def test_a_seed_is_in_a_mean_once(folder):
    """Of two finished runs of a seed the first counts, and the other stands alone."""
    made = [Scripted(folder, f"a-{n}aaa", shift=0.1 * n, sets=[f"seed={seed}"]).run for n, seed in enumerate((1, 1, 2))]
    other = Scripted(folder, "b-aaaa", sets=["hah.lambda=1.0"]).run

    async def body(pilot, app, screen):
        await pilot.press("g")
        await until(pilot, lambda: len(screen.entries) == 3)
        together, again, different = screen.entries
        assert [source.run.id for source in together.members] == ["a-0aaa", "a-2aaa"]
        assert together.title.endswith("(2 seeds)")
        assert [source.run.id for source in again.members] == ["a-1aaa"]
        assert [source.run.id for source in different.members] == ["b-aaaa"]
        assert together.value("test/accuracy")[0] == pytest.approx(0.95 - 0.5 * math.exp(-4) - 0.1, abs=1e-6)

    compare([*made, other], body)


def test_the_axis_is_that_of_the_runs_in_front(pair, runs):
    Scripted(runs, "longer-cccc", epochs=60)

    async def body(pilot, app, screen):
        screen.take_reference("longer-cccc")
        await until(pilot, lambda: screen.reference.loaded and not screen.dirty)
        assert screen.view.ends["step"] < 400

    compare(pair, body)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_thirteen(thirteen, size):
    async def body(pilot, app, screen):
        check(app, "compare-13")
        await pilot.press("g")
        await until(pilot, lambda: len(screen.entries) == 5 and not screen.stale)
        check(app, "compare-13-groups")

    compare(thirteen, body, size)


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
