"""Resamples: whole groups, the same ones for the same seed, and values over them."""

import numpy as np
import pytest

from tests import evaluated
from visionkit import UsageError
from visionkit.evaluation.resampling import bootstrap_weights, group_numbers, resample, resample_together


def test_groups_are_drawn_whole():
    groups = ["a", "b", "a", "c", "b", "a"]
    assert group_numbers(groups).tolist() == [0, 1, 0, 2, 1, 0]
    weights = list(bootstrap_weights(groups, draws=50, seed=1))
    assert len(weights) == 50
    for weight in weights:
        assert weight[0] == weight[2] == weight[5]
        assert weight[1] == weight[4]
        assert weight[0] + weight[1] + weight[3] == 3
    assert np.mean(weights, 0) == pytest.approx(np.ones(6), abs=0.4)
    again = list(bootstrap_weights(groups, draws=50, seed=1))
    assert all((a == b).all() for a, b in zip(weights, again, strict=True))
    assert any((a != b).any() for a, b in zip(weights, bootstrap_weights(groups, 50, 2), strict=True))
    with pytest.raises(UsageError, match="no images"):
        list(bootstrap_weights([]))


def test_draws_do_not_touch_the_global_seed():
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    list(bootstrap_weights(range(5), 3))
    assert np.random.get_state()[1].tolist() == state


def test_values_over_resamples_are_those_of_new_metrics():
    metric = evaluated.classified([0, 0, 1, 2], [0, 1, 1, 2]).metric
    weights = [np.array(w) for w in ([1, 1, 1, 1], [4, 0, 0, 0], [0, 4, 0, 0], [0, 2, 2, 0])]
    found = resample(metric, weights)
    assert found["top1"].tolist() == [0.75, 1, 0, 0.5]
    np.testing.assert_array_equal(found["accuracy/dog"], [1, np.nan, np.nan, 1])
    assert found["macro_f1"].dtype == np.float64


def test_several_metrics_see_the_same_pictures():
    a = evaluated.classified([0, 1, 2], [0, 1, 1]).metric
    b = evaluated.classified([2, 0, 1], [2, 0, 0]).metric  # the same pictures, the last one first
    place = np.array([1, 2, 0])
    both = [(a.drawing(), slice(None)), (b.drawing(), place)]
    found = resample_together(both, [np.array([3, 0, 0]), np.array([0, 3, 0]), np.array([0, 0, 3])])
    assert [f["top1"].tolist() for f in found] == [[1, 1, 0], [1, 0, 1]]
