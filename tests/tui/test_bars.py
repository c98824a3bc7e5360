"""Every block has its bar, however narrow the panel."""

import asyncio

import pytest

from hah_tui.app import HahApp
from hah_tui.curves import Curves
from hah_tui.widgets.bars import Bars
from hah_tui.widgets.chart import ChartLine


@pytest.mark.parametrize(("blocks", "width"), [(13, 39), (13, 37), (16, 36), (16, 80)])
def test_low_panels_show_every_block(tmp_path, blocks, width):
    async def go():
        async with HahApp(tmp_path).run_test() as pilot:
            curves = Curves()
            for number in range(1, blocks + 1):
                curves[f"block/{number}/sparsity"].add(1, number / blocks)
            bars = Bars("Sparsity", id="bars")
            bars.lines = [ChartLine(str(n), curves[f"block/{n}/sparsity"], curves, 1) for n in range(1, blocks + 1)]
            await pilot.app.mount(bars)
            rows = [text for text, _ in bars.frame(width, 7)]
            assert all(len(row) == width for row in rows)
            assert "…" not in "".join(rows[1:])
            values = [float(word) for row in rows[:-1] for word in row.split() if word[0] in ".01"]
            assert len(values) == blocks
            assert sorted(values) == pytest.approx([n / blocks for n in range(1, blocks + 1)], abs=0.06)
            assert len(rows[-2].split()) == blocks  # the lowest cells of the bars
            every = 1 if width > 2.9 * blocks else 2
            assert list(map(int, rows[-1].split())) == list(range(1, blocks + 1, every))

    asyncio.run(go())
