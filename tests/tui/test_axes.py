"""Curves between axes fill the cells they are given, whatever there is to be written."""

import pytest

from hah_tui.series import Limits
from hah_tui.widgets.axes import Axes, Curve


@pytest.mark.parametrize("name", ["", "std", "evaluate.minimum_norm.a_setting_with_a_name_of_its_own = 0.125"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [(8, 1), (12, 3), (20, 4), (40, 6), (160, 30)])
def test_every_row_has_the_width_and_an_ink_for_each_cell(size, whole, name):
    width, height = size
    curves = [Curve([(1.0, 0.5), (2.5, 93.0), (6.0, 41.0)], 1, [(0.0, 1.0), (90.0, 95.0), (40.0, 42.0)], "o")]
    rows = Axes(Limits(1, 6), Limits(0, 100), name, "%", whole).rows(curves, width, height, False, False, 2.5)
    assert len(rows) == height
    assert [(len(text), len(inks)) for text, inks in rows] == [(width, width)] * height


def test_of_a_long_name_the_end_is_shown():
    curves = [Curve([(1.0, 0.5), (6.0, 0.7)], 1)]
    axes = Axes(Limits(1, 6), Limits(0, 1), "hah.lambda_of_each_block = 0.25")
    below = axes.rows(curves, 24, 6, True, False, None)[-1]
    assert below[0] == "    …_each_block = 0.25 "
