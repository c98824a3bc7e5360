"""The fused block's selection by counting, against NumPy's sort: every mask, ties, zeros and ranges included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.nn.fused_cpu import _select

SMALLEST = 1e-30  # beyond which sums of float32 lose what they add up


def select(values, k):
    m, n = values.shape
    tau, low = np.empty(m, values.dtype), np.empty(m, values.dtype)
    _select(values, n, k, tau, low, np.empty(m, np.int64))
    return tau


def check(values, k):
    """The mask of what is above tau is that of what is above the k-th smallest."""
    kth = np.sort(values, axis=1)[:, k - 1 : k]
    np.testing.assert_array_equal(values > select(values, k)[:, None], values > kth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None)
@given(data=st.data())
def test_what_is_selected_is_what_a_sort_selects(dtype, data):
    m, n = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 70))
    width = np.dtype(dtype).itemsize * 8
    value = st.one_of(
        st.just(0.0),
        st.sampled_from([1.0, 2.0, 3.0]),
        st.floats(np.dtype(dtype).type(SMALLEST).item(), 1e30 if width == 64 else float(np.float32(1e30)), width=width),
    )
    values = data.draw(arrays.arrays(dtype, (m, n), elements=value))
    check(values, data.draw(st.integers(1, n - 1)))


@pytest.mark.parametrize("kind", ["random", "equal", "zeros", "neighbours", "one large", "far apart"])
@pytest.mark.parametrize(("n", "k"), [(16, 14), (64, 51), (64, 57), (256, 204), (1024, 819), (17, 1), (3, 2)])
def test_hard_rows(kind, n, k):
    draw = np.random.default_rng(n)
    values = np.maximum(draw.normal(size=(7, n)), 0).astype(np.float32)
    if kind == "equal":
        values[:] = 0.3
    elif kind == "zeros":
        values[:, : n - 1] = 0
    elif kind == "neighbours":  # floating-point numbers with nothing between them
        values[:] = np.nextafter(np.float32(1), np.float32(2)) * (draw.random((7, n)) < 0.5) + (values > 0)
    elif kind == "one large":
        values[:, 0] = 1e20
    elif kind == "far apart":
        values[:] = 10.0 ** draw.integers(-25, 25, (7, n))
    check(values, k)


def test_a_row_that_is_not_a_number_ends_the_search():
    values = np.full((2, 9), np.nan, np.float32)
    values[1] = np.arange(9)
    tau = select(values, 4)
    assert np.isnan(tau[0])
    assert (values[1] > tau[1]).sum() == 5
