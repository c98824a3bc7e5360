"""How the monitor looks in every state, whatever the record says, and how little of it a frame repaints."""

import random

import pytest

from hah_tui.curves import Curves
from hah_tui.widgets.chart import Chart
from hah_tui.widgets.picture import as_csv, as_svg
from tests.tui.driving import drawn, monitor, until
from tests.tui.scripted import Scripted
from tests.tui.snapshot import SIZES, check

pytestmark = pytest.mark.usefixtures("alone")


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
            picture_ = as_svg(chart, screen.view, chart._x, "[x]", app.curve_colours, True)
            assert "inf" not in picture_.replace("infinite", "")
            as_csv(screen.metrics(chart), screen.view)
            assert all(len(row[0]) == len(row[1]) == chart.size.width for row in chart.rows)

    monitor(Scripted(folder).run, body)


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


def test_where_there_is_no_colour_lines_differ_by_their_dashes():
    from hah_tui.widgets import raster

    seen, signs = set(), set()
    for ink in (1, 2, 3, 4, 23):
        dash, sign = raster.style(ink)
        drawn = raster.Raster(40, 1)
        drawn.line([(0, 1.0), (79, 1.0)], ink, dash)
        text, inks = drawn.cells(0)
        assert set(inks) <= {0, ink}
        seen.add(text)
        signs.add(sign)
    assert len(seen) == len(signs) == 5
    plain = raster.Raster(40, 1, ascii=True)
    plain.line([(0, 0.0), (39, 0.0)], 23)
    assert plain.cells(0)[0] == 40 * raster.glyph(23) == 40 * "."
