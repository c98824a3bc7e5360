"""Bins, running means, limits, ticks and the raster: what must hold for any values."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hah_tui.screens.panels import LEAST, arrange
from hah_tui.series import BinnedSeries, Limits, growing, labels, limits, nice_step, ticks
from hah_tui.widgets.canvas import changes, row, runs
from hah_tui.widgets.raster import Raster

NUMBER = st.floats(-1e6, 1e6).map(lambda value: value if abs(value) > 1e-30 else 0.0)  # what is less counts as 0
STEPS = st.lists(st.tuples(st.integers(0, 40), NUMBER), min_size=1, max_size=300)


def filled(pairs, capacity=16):
    """A series of (steps since the last one, value), and its plain values by step."""
    series, step, plain = BinnedSeries(capacity), 0, []
    for gap, value in pairs:
        step += gap
        series.add(step, value)
        plain.append((step, value))
    return series, plain


@given(STEPS)
def test_bins_keep_count_minimum_maximum_and_mean_of_their_steps(pairs):
    series, plain = filled(pairs)
    assert 1 <= len(series) <= 16
    assert sum(series.count) == len(plain)
    for index in range(len(series)):
        first = series.number[index] << series.shift
        inside = [value for step, value in plain if first <= step < first + series.width]
        assert series.count[index] == len(inside)
        assert (series.low[index], series.high[index]) == (min(inside), max(inside))
        assert series.mean(index) == pytest.approx(math.fsum(inside) / len(inside), rel=1e-9, abs=1e-6)
        assert first <= series.middle(index) < first + series.width
    assert list(series.number) == sorted(set(series.number))
    assert (series.last, series.last_step) == plain[-1][::-1]


@given(st.integers(0, 1000), st.lists(st.lists(NUMBER, min_size=1, max_size=30), max_size=20))
def test_many_values_at_once_are_as_one_by_one(first, batches):
    one, many = BinnedSeries(8), BinnedSeries(8)
    for batch in batches:
        many.add_many(range(first, first + len(batch)), batch)
        for offset, value in enumerate(batch):
            one.add(first + offset, value)
        first += len(batch)
    for column in ("number", "count", "low", "high"):
        assert list(getattr(one, column)) == list(getattr(many, column))
    assert list(one.total) == pytest.approx(list(many.total), rel=1e-9, abs=1e-6)
    assert (one.last_step, one.shift) == (many.last_step, many.shift)


@given(STEPS)
def test_pairs_at_once_are_as_one_by_one(pairs):
    one, plain = filled(pairs)
    many = BinnedSeries(16)
    for part in (plain[:7], plain[7:]):
        many.add_many(tuple(step for step, _ in part), [value for _, value in part])
    for column in ("number", "count", "low", "high", "last", "last_step", "shift", "version"):
        assert getattr(one, column) == getattr(many, column)
    assert list(one.total) == pytest.approx(list(many.total), rel=1e-9, abs=1e-6)


HORIZON = st.sampled_from([0.0, 1.0, 7.5, 100.0])


def slow_mean(ends, means, horizon):
    """The integral over steps of the means, each held since the end before, weighted by exp(-steps back / horizon)."""
    held = [(mean, end - before, ends[-1] - end) for mean, end, before in zip(means, ends, [-1, *ends], strict=False)]
    weights = [math.exp(-back / horizon) * (1 - math.exp(-steps / horizon)) for _, steps, back in held]
    return math.fsum(w * mean for w, (mean, _, _) in zip(weights, held, strict=True)) / math.fsum(weights)


@given(st.lists(st.one_of(NUMBER, st.just(math.nan)), min_size=1, max_size=60), HORIZON)
def test_the_running_mean_is_debiased(values, horizon):
    series = BinnedSeries(64)
    for step, value in enumerate(values):
        series.add(step, value)
        series.smoothed(horizon)  # the cache must not change what comes later
    for step, smooth in enumerate(series.smoothed(horizon)):
        if math.isnan(values[step]):
            assert math.isnan(smooth)
            continue
        seen = [(n, value) for n, value in enumerate(values[: step + 1]) if not math.isnan(value)]
        slow = slow_mean([n for n, _ in seen], [v for _, v in seen], horizon) if horizon else values[step]
        assert smooth == pytest.approx(slow, rel=1e-6, abs=1e-3)


@given(st.lists(NUMBER, min_size=1, max_size=200), st.floats(1, 1000))
def test_a_bin_counts_in_the_running_mean_for_its_steps(values, horizon):
    series = BinnedSeries(8)
    for step, value in enumerate(values):
        series.add(step, value)
        series.smoothed(horizon)
    ends = [min(((number + 1) << series.shift) - 1, series.last_step) for number in series.number]
    means = [series.mean(index) for index in range(len(series))]
    assert series.smoothed(horizon)[-1] == pytest.approx(slow_mean(ends, means, horizon), rel=1e-6, abs=1e-2)


def test_curves_of_one_course_are_smoothed_alike_however_often_they_are_recorded():
    often, seldom = BinnedSeries(), BinnedSeries()
    for step in range(1, 401):
        often.add(step, step / 400)
        if not step % 10:
            seldom.add(step, (step - 4.5) / 400)  # the mean of the ten
    assert often.smoothed(40)[-1] == pytest.approx(1 - 40 / 400, abs=0.01)
    assert seldom.smoothed(40)[-1] == pytest.approx(often.smoothed(40)[-1], abs=0.005)


@given(STEPS, st.integers(0, 5000), st.lists(NUMBER, max_size=20))
def test_a_series_cut_at_a_step_goes_on_from_there(pairs, cut, after):
    series, plain = filled(pairs)
    series.smoothed(9)
    series.truncate(cut)
    assert all(number << series.shift <= cut for number in series.number)
    assert series.last_step <= cut
    kept = sum(series.count)
    assert kept >= sum(step <= cut for step, _ in plain)
    assert kept <= sum(step <= cut + series.width for step, _ in plain)
    for offset, value in enumerate(after):
        series.add(cut + 1 + offset, value)
    assert sum(series.count) == kept + len(after)
    assert len(series.smoothed(9)) == len(series)


def test_memory_is_bounded_however_long_the_run():
    series = BinnedSeries()
    for first in range(0, 1_000_000, 1000):
        steps = range(first, first + 1000)
        series.add_many(steps, [float(step % 97) for step in steps])
    assert 256 <= len(series) <= 512
    assert sum(series.count) == 1_000_000
    assert (min(series.low), max(series.high)) == (0.0, 96.0)
    assert series.width == 2048


def test_a_gap_is_a_bin_without_values_and_breaks_the_line():
    series = BinnedSeries()
    for step, value in enumerate([1.0, math.nan, 3.0, math.inf, 5.0]):
        series.add(step, value)
    assert list(series.count) == [1, 0, 1, 0, 1]
    assert math.isnan(series.mean(1))
    assert series.nearest(1) in (0, 2)
    raster = Raster(10, 4)
    raster.line([(0, 4), (4, 4), (8, math.nan), (12, 4), (16, 4)], 1)
    text, _ = raster.cells(1)
    assert text[:3].strip() == text[:3]
    assert text[3:6] == "   "
    assert text[6:9].strip() == text[6:9]


@given(NUMBER, st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_limits_hold_the_values_are_round_and_do_not_tremble(low, span, a, b):
    new = limits(low, low + span)
    slack = 1e-6 * (new.high - new.low)
    assert new.low - slack <= low <= low + span <= new.high + slack
    assert new.high > new.low
    if span > 1e-3 * max(1, abs(low)):
        assert limits(low + 0.05 * a * span, low + span - 0.05 * b * span, new) == new


@given(st.floats(1e-9, 1e6), st.floats(1, 1e6))
def test_logarithmic_limits_are_one_two_or_five(low, factor):
    new = limits(low, low * factor, log=True)
    assert new.log
    assert 0 < new.low <= low * (1 + 1e-9)
    assert low * factor <= new.high * (1 + 1e-9)
    for end in (new.low, new.high):
        mantissa = end / 10 ** math.floor(math.log10(end) + 1e-9)
        assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-6
    assert new.value(new.fraction(low)) == pytest.approx(low, rel=1e-6)
    assert math.isnan(new.fraction(-1.0))


@given(NUMBER, st.floats(1e-6, 1e6), st.integers(2, 8), st.booleans())
def test_ticks_are_few_rising_and_inside(low, span, most, seconds):
    axis = Limits(low, low + max(span, 1e-6 * abs(low)))
    span = axis.high - axis.low
    found = ticks(axis, most, seconds)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert all(axis.low - 1e-6 * span <= value <= axis.high + 1e-6 * span for value in found)
    assert len(labels(found)) == len(found)


@given(st.floats(1e-6, 10), st.floats(1.5, 1e6), st.integers(2, 8))
def test_logarithmic_ticks_are_few_rising_and_inside(low, factor, most):
    axis = limits(low, low * factor, log=True)
    found = ticks(axis, most)
    assert 1 <= len(found) <= most
    assert found == sorted(set(found))
    assert all(axis.low * (1 - 1e-6) <= value <= axis.high * (1 + 1e-6) for value in found)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([0, 20000, 40000], ["0", "20k", "40k"]),
        ([1e-5, 1e-4], ["1e-5", "1e-4"]),
        ([-1.0, 0.0, 1.0], ["-1", "0", "1"]),
        ([0, 500_000, 1_000_000], ["0", "0.5M", "1.0M"]),
        ([], []),
    ],
)
def test_labels_have_the_decimals_they_need(values, said):
    assert labels(values) == said


@given(st.floats(1e-3, 1e9), st.floats(1, 4))
def test_an_axis_that_grows_seldom_changes(high, factor):
    end = growing(high)
    assert high <= end <= 1.34 * high
    assert growing(min(high * factor, end), end) == end
    assert growing(high, 0.0, high) == high


@given(st.floats(1e-9, 1e9))
def test_steps_are_one_two_or_five(least):
    step = nice_step(least)
    assert least * (1 - 1e-9) <= step <= 2.5 * least * (1 + 1e-9)


POINTS = st.lists(st.tuples(st.floats(-50, 150), st.one_of(st.floats(-100, 200), st.just(math.nan))), max_size=40)


@settings(deadline=None)
@given(POINTS.map(lambda points: sorted(points, key=lambda p: p[0])), st.booleans())
def test_any_line_fits_into_its_raster(points, ascii):
    raster = Raster(30, 8, ascii)
    raster.band([(x, y - 3, y + 3) for x, y in points], 2)
    raster.line(points, 1)
    for y in range(8):
        text, inks = raster.cells(y)
        assert len(text) == len(inks) == 30
        assert all(ink in (0, 1, 2) for ink in inks)
        assert all((char == " ") == (ink == 0) for char, ink in zip(text, inks, strict=True))
        assert not ascii or text.isascii()


@given(st.integers(0, 59), st.integers(0, 31), st.integers(0, 59), st.integers(0, 31))
def test_a_line_goes_through_its_ends_without_a_gap(x0, y0, x1, y1):
    raster = Raster(30, 8)
    raster.line(sorted([(x0, y0), (x1, y1)]), 1)
    seen = [raster.cells(row)[0] for row in range(8)]
    for x, y in ((x0, y0), (x1, y1)):
        assert seen[y // 4][x // 2] != " " or x0 == x1
    for cell in range(min(x0, x1) // 2, max(x0, x1) // 2 + 1):
        assert any(text[cell] != " " for text in seen)


def test_a_line_over_a_band_has_its_own_ink_and_no_dots_of_the_band():
    raster = Raster(10, 2)
    raster.band([(0, 0, 7), (19, 0, 7)], 9)
    before = raster.cells(0)
    raster.line([(0, 1), (19, 1)], 1)
    text, inks = raster.cells(0)
    assert set(before[1]) == {9}
    assert set(inks) == {1}
    assert len(set(text)) == 1
    assert raster.cells(1) != ("", b"")
    assert set(raster.cells(1)[1]) == {9}


def test_only_cells_that_differ_are_repainted():
    old, new = row(("abc", 1), ("def", 2), width=30), row(("abX", 1), ("def", 3), width=30, right=[("end", 1)])
    assert changes(old, old) == []
    assert changes(old, new) == [(2, 6), (27, 30)]
    assert changes(old, ("", b"")) == [(0, 30)]


def test_rows_have_their_width_and_few_changes_of_colour():
    text, inks = row(("title", 1), ("  ", 0), ("legend", 2), width=12)
    assert (text, len(inks)) == ("title  lege…", 12)
    assert [ink for _, ink in runs((text, inks))] == [1, 2]
    assert row(("a", 1), width=6, right=[("end", 2)])[0] == "a  end"
    assert row(("abcd", 1), width=6, right=[("end", 2)])[0] == "abcd  "


@given(st.integers(20, 300), st.integers(4, 100), st.integers(1, 9))
def test_panels_have_the_cells_they_need(width, height, count):
    columns, rows = arrange(width, height, count)
    assert columns >= 1
    assert rows >= 1
    assert columns == 1 or width // columns >= LEAST[0] - 1
    assert rows == 1 or height // rows >= LEAST[1]
    assert columns * rows >= count or (rows + 1) * LEAST[1] > height or columns == 3


def test_what_lies_far_outside_is_cut_before_it_is_drawn():
    filled_columns = []

    class Counting(Raster):
        def _fill(self, column, *rest, **more):
            filled_columns.append(column)
            super()._fill(column, *rest, **more)

    raster = Counting(30, 8)
    raster.band([(-1e6, 3, 9), (1e6, 3, 9)], 2)
    raster.line([(-1e6, 5), (1e6, 5)], 1)
    assert len(filled_columns) < 200
    assert raster.cells(1)[1].count(1) == 30  # the line goes all through
