"""Intervals beside scipy's own, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from visionkit import UsageError
from visionkit.evaluation.intervals import (
    expanded_percentile,
    mcnemar,
    welch_interval,
    wilson,
)

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(counts, levels)
def test_shares_equal_scipy(count, level):
    test = stats.binomtest(*count)
    found, known = wilson(*count, level), test.proportion_ci(level, "wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)
    assert 0 <= found.low <= count[0] / count[1] <= found.high <= 1


def test_shares_by_hand():
    found = wilson(8, 10)
    assert (round(found.low, 4), round(found.high, 4), found.method) == (0.4902, 0.9433, "wilson")
    assert (wilson(0, 10).low, wilson(10, 10).high) == (0.0, 1.0)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
    with pytest.raises(UsageError, match="11 of 10 at level 0.95"):
        wilson(11, 10)
    with pytest.raises(UsageError, match="at level 1"):
        wilson(1, 10, 1.0)


def test_percentiles_are_moved_out_for_few():
    draws = np.arange(1001) / 1000
    found = expanded_percentile(draws, 10**9)
    assert (found.low, found.high, found.method) == (pytest.approx(0.025, abs=1e-4), pytest.approx(0.975, abs=1e-4), "bootstrap")  # fmt: skip
    tail = stats.norm.cdf(-np.sqrt(18 / 17) * stats.t.ppf(0.975, 17))
    found = expanded_percentile(draws, 18)
    assert found.low == pytest.approx(tail, abs=1e-4)
    assert found.high == pytest.approx(1 - tail, abs=1e-4)
    assert tail < 0.016
    assert expanded_percentile(np.append(draws, np.nan), 18) == found
    with pytest.raises(UsageError, match="from 2 things on"):
        expanded_percentile(draws, 1)
    with pytest.raises(UsageError, match="of 0 draws"):
        expanded_percentile(np.full(3, np.nan), 10)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_means_of_seeds_equal_scipy(a, b):
    if np.std(a) > 1e-6 and np.std(b) > 1e-6:
        found = welch_interval(np.array(a), np.array(b))
        known = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)
    with pytest.raises(UsageError, match="from 2 values on"):
        welch_interval(np.array(a), np.array(b[:1]))


def test_equal_seeds_have_no_spread():
    same = np.full(3, 0.5)
    assert welch_interval(same, same + 0.25) == welch_interval(same[:2], same + 0.25)
    assert (welch_interval(same, same + 0.25).low, welch_interval(same, same + 0.25).high) == (0.25, 0.25)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(first, second):
    known = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(known, abs=1e-9)
