"""The published numbers against the paper itself, where it is there, and against what can be computed from them."""

import re
from pathlib import Path

import pytest

from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.report.published import CLEAN, L2, LINF, MEAN, NOISY, STATEMENTS, TABLE_1, TABLE_2, TABLE_3

PAPER = Path(__file__).parents[3] / "shared" / "paper" / "paper.md"
needs_paper = pytest.mark.skipif(not PAPER.exists(), reason="the paper is not there")


def rows(first_cell):
    """[number, ...] of every row of the paper's tables that begins with this cell."""
    found = []
    for line in PAPER.read_text().splitlines():
        cells = line.split("\t")
        if cells[0] == first_cell and len(cells) > 3:
            texts = [re.sub(r"</?b>|%", "", cell) for cell in cells[1:]]
            found.append([round(float(text) / 100, 4) for text in texts])
    return found


@needs_paper
@pytest.mark.parametrize(
    ("table", "names"),
    [
        (TABLE_1, {"Standard": "paper-standard", "Ours": "paper-hah"}),
        (TABLE_3, {"All included": "paper-hah", "No HaH loss": "no-hah-loss", "No thresholding": "no-threshold",
                   "Batch norm instead of divisive norm": "batch-norm"}),
    ],
)  # fmt: skip
def test_tables_1_and_3_are_the_papers(table, names):
    assert set(table) == set(names.values())
    for cell, preset in names.items():
        printed = next(row for row in rows(cell) if len(row) == 4)
        assert [table[preset][column].value for column in (CLEAN, NOISY, LINF, L2)] == printed
        assert all(f"row {cell}" in number.place for number in table[preset].values())


@needs_paper
def test_table_2_is_the_papers():
    names = {"Standard": "paper-standard", "Adv(8/255)": "paper-adversarial", "HaH (Ours)": "paper-hah"}
    assert set(TABLE_2) == set(names.values())
    for cell, preset in names.items():
        printed = next(row for row in rows(cell) if len(row) == 18)
        assert [number.value for number in TABLE_2[preset].values()] == printed


@needs_paper
def test_the_columns_of_table_2_are_in_the_papers_order():
    head = next(line for line in PAPER.read_text().splitlines() if "Gauss.\tShot" in line)
    titles = [cell for cell in head.split("\t") if cell]
    printed = [TABLE_2["paper-hah"][name].place.rpartition("column ")[2] for name in PAPER_CORRUPTIONS]
    assert printed == titles


@pytest.mark.parametrize("preset", list(TABLE_2))
def test_the_mean_of_table_2_is_the_plain_mean_of_its_16(preset):
    mean = sum(TABLE_2[preset][name].value for name in PAPER_CORRUPTIONS) / 16
    assert mean == pytest.approx(TABLE_2[preset][MEAN].value, abs=0.0006)


def test_the_tables_agree_where_they_say_the_same():
    assert [n.value for n in TABLE_1["paper-hah"].values()] == [n.value for n in TABLE_3["paper-hah"].values()]
    for preset in ("paper-standard", "paper-hah"):
        assert TABLE_1[preset][CLEAN].value == TABLE_2[preset][CLEAN].value


@needs_paper
def test_the_numbers_of_the_text_are_in_it():
    text = PAPER.read_text()
    for statement in STATEMENTS.values():
        for _, value in statement.numbers:
            assert f"{100 * value:.0f}%" in text
        for heading in re.findall(r"Section 3, ([A-Z][^,]*)", statement.place):
            assert f"**{heading}" in text
