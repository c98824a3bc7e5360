"""Text pictures of the list, the form, the results and the help at three sizes, the clock frozen."""

from types import SimpleNamespace

import pytest
from textual.widgets import OptionList

from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.runs import store
from hah_tui import text
from hah_tui.screens import run_actions, run_detail
from hah_tui.screens import runs as runs_screen
from hah_tui.settings import Settings
from tests.report.conftest import corruptions, everything, masking, write
from tests.tui import made as making
from tests.tui.driving import drive, form, retype, still, to, until, words
from tests.tui.made import ablation, broken, config, evaluated, made
from tests.tui.snapshot import SIZES, check

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    monkeypatch.setattr(text, "time", SimpleNamespace(time=lambda: making.NOW))
    for module in (run_actions, run_detail, runs_screen):
        monkeypatch.setattr(module, "home", lambda path: f"~/runs/{path.name}")


async def listed(pilot, app):
    """The runs and their losses are read and drawn: under another screen they would not be."""
    await until(pilot, lambda: len(app.screen._losses) == 4)
    await pilot.pause(0.1)
    app.screen._show()


def some(runs):
    made(runs, id="quickstart-ab12", age=400, clean=0.983, noisy=0.871, created=making.NOW - 400)
    made(runs, id="paper-hah-q7xy", age=9e4, status="stopped", epoch=37, epochs=100, clean=0.8, noisy=0.55,
         preset="paper-hah", device="cuda:0", tags=["paper"])  # fmt: skip
    run = made(runs, id="no-threshold-with-a-long-name-k2m4", age=2e5, status="failed", epoch=3, epochs=100, clean=0.31,
               noisy=0.2, error="CUDA out of memory [tried 2 GiB]", preset="no-threshold", points=3)  # fmt: skip
    store.label(run, add=["table3"], note="second try, alpha doubled")
    made(runs, id="blocks-4-zz99", age=3e5, status="running", epoch=50, epochs=100, clean=0.7, noisy=0.6)  # lost


@sizes
def test_runs(runs, size):
    some(runs)

    async def body(pilot, app):
        await pilot.press("space", "down")
        await listed(pilot, app)
        await still(pilot, app)
        check(app, "runs")

    drive(runs, body, size)


@sizes
@pytest.mark.parametrize("name", ["runs-13", "runs-groups", "runs-groups-ascii", "runs-columns", "runs-pick"])
def test_lists_of_thirteen_runs(runs, size, name):
    ablation(runs)
    grouped = "groups" in name
    chosen = "hah.lambda test/accuracy note block/1/snr_db" if name == "runs-columns" else ""
    Settings(group="seed" if grouped else "", sort="test/accuracy", columns=chosen, ascii="ascii" in name).save()

    async def body(pilot, app):
        await until(pilot, lambda: len(app.screen._order) == (5 if grouped else 13))
        await until(
            pilot, lambda: all(run.configured for run in app.screen._rows.values()) or name in ("runs-13", "runs-pick")
        )
        if grouped:
            await pilot.press("down", "right")
        if name == "runs-pick":
            await pilot.press("m")
            await until(pilot, lambda: type(app.screen).__name__ == "PickAttribute")
        await still(pilot, app)
        if name != "runs-pick":
            app.screen._show()
        await still(pilot, app)
        check(app, name)

    drive(runs, body, size)


@sizes
def test_no_runs(runs, size):
    async def body(pilot, app):
        await until(pilot, lambda: app.screen.has_class("empty"))
        await still(pilot, app)
        check(app, "runs-none")

    drive(runs, body, size)


@sizes
def test_broken_runs_in_plain_characters(runs, size):
    for index, run in enumerate(broken(runs)):
        run.path.rename(runs / f"broken-{index}")

    async def body(pilot, app):
        app.action_ascii()
        app.screen._sort_by("name")
        await pilot.press("end")
        await still(pilot, app)
        check(app, "runs-broken-ascii")

    drive(runs, body, size)


@sizes
def test_delete(runs, size):
    some(runs)

    async def body(pilot, app):
        await listed(pilot, app)
        await pilot.press("space", "space", "d")
        await until(pilot, lambda: type(app.screen).__name__ == "Confirm")
        await still(pilot, app)
        check(app, "delete")

    drive(runs, body, size)


@sizes
def test_help(runs, size):
    async def body(pilot, app):
        await pilot.press("question_mark")
        await still(pilot, app)
        check(app, "help")

    drive(runs, body, size)


@sizes
def test_presets(runs, size):
    async def body(pilot, app):
        await pilot.press("n")
        await until(pilot, lambda: "handwritten" in str(app.screen.query_one("#description").render()))
        await still(pilot, app)
        check(app, "presets")

    drive(runs, body, size)


@sizes
def test_form_with_a_mistake(runs, size):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "hah.lambda")
        await retype(pilot, app, "-1")
        await still(pilot, app)
        check(app, "form-mistake")

    drive(runs, body, size)


@sizes
def test_form_of_blocks(runs, size):
    async def body(pilot, app):
        await form(pilot, app, "paper-hah")
        await to(pilot, app, "hah.alpha")
        await retype(pilot, app, "9")
        await still(pilot, app)
        check(app, "form-blocks")

    drive(runs, body, size)


@sizes
def test_form_overview(runs, size):
    async def body(pilot, app):
        await form(pilot, app)
        await still(pilot, app)
        check(app, "form")
        await pilot.press("f2")
        await still(pilot, app)
        check(app, "form-overview")

    drive(runs, body, size)


@sizes
@pytest.mark.parametrize(("name", "row"), [("results", 0), ("results-means", 6), ("results-masking", -1)])
def test_results(runs, size, monkeypatch, name, row):
    from hah_tui.screens import results as results_screen

    monkeypatch.setattr(results_screen, "age", lambda moment: "2 min")
    run = evaluated(runs)
    if row:
        every = everything()
        every["corruptions"] = corruptions(
            dict.fromkeys(PAPER_CORRUPTIONS, 0.6), source="generated", missing=("frost",)
        )
        for suite in ("sparsity", "corruptions", "minimum_norm"):
            write(run, suite, every[suite], method=2)
        words = "No standard network was named to transfer attacks from."
        write(run, "masking", {**masking("not run", words), "verdict": "incomplete"})
        standard = made(runs, id="paper-standard-ab12", preset="paper-standard", epoch=100, epochs=100, age=9e4)
        standard.config.write_text(config("paper-standard"))
        write(standard, "corruptions", corruptions(dict.fromkeys(PAPER_CORRUPTIONS, 0.4)))

    async def body(pilot, app):
        await pilot.press("R")
        await until(pilot, lambda: app.screen._read)
        table = app.screen.query_one("DataTable")
        table.move_cursor(row=row % table.row_count)
        await still(pilot, app)
        check(app, name)

    drive(runs, body, size)
    assert run.results.exists()


@sizes
def test_drafts_and_a_search(runs, size):
    async def body(pilot, app):
        for preset in ("quickstart", "paper-hah"):
            await form(pilot, app, preset)
            await to(pilot, app, "train.lr")
            await retype(pilot, app, "0.5")
            await pilot.press("escape", "escape")
            await until(pilot, lambda: app.screen.PLACE == "runs")
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen.query("#presets")) and "train.lr" in words(app, "#description"))
        await still(pilot, app)
        check(app, "drafts")
        await pilot.press(*"lambda")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count < 12)
        await still(pilot, app)
        check(app, "presets-searched")

    drive(runs, body, size)


@sizes
def test_set_a_live_setting(runs, size):
    made(runs, id="a-run", status="stopped", epoch=3)

    async def body(pilot, app):
        await pilot.press("enter")
        await until(pilot, lambda: getattr(app.screen, "experiment", None) is not None)
        await pilot.press("equals_sign")
        await until(pilot, lambda: type(app.screen).__name__ == "SetDialog")
        await pilot.press(*"lr", "tab", *"x")
        await still(pilot, app)
        check(app, "set")

    drive(runs, body, size)
