"""Bounds against scipy and against figures of others; how alike answers of one picture are."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from visionkit.evaluation.promises import alikeness, design_effects, lower_bounds, needed


def test_the_bound_is_clopper_and_pearsons():
    hits, n = np.array([0, 3, 58, 59, 95]), np.array([5, 5, 58, 59, 100])
    bounds = lower_bounds(hits, n, 1.0, 0.95)
    tests = [binomtest(int(h), int(k), alternative="greater") for h, k in zip(hits, n, strict=True)]
    assert bounds.tolist() == pytest.approx([t.proportion_ci(0.95, "exact").low for t in tests])
    assert bounds[2] < 0.95 < bounds[3], "59 right ones without a wrong one are the fewest for 0.95"
    assert binom.sf(94, 100, bounds[4]) == pytest.approx(0.05)


def test_answers_that_are_alike_count_as_fewer():
    assert lower_bounds(np.array([190]), np.array([200]), 2.0, 0.95)[0] == pytest.approx(
        lower_bounds(np.array([95]), np.array([100]), 1.0, 0.95)[0]
    )


@pytest.mark.parametrize(("share", "fewest"), [(1.0, 58.4), (0.95, np.inf), (0.9, np.inf)])
def test_how_many_it_takes(share, fewest):
    assert needed(share, 0.95, 0.95) == pytest.approx(fewest, abs=0.6)


def test_how_many_it_takes_reaches_the_bound():
    n = needed(0.98, 0.95, 0.95)
    assert lower_bounds(np.array([0.98 * n]), np.array([n]), 1.0, 0.95)[0] >= 0.95
    assert lower_bounds(np.array([0.98 * (n - 1)]), np.array([n - 1]), 1.0, 0.95)[0] < 0.95


def drawn(random, shift, images=300, each=8):
    unit = np.repeat(np.arange(images), each)
    scores = np.sort(random.random(len(unit)))[::-1]
    unit = random.permutation(unit)
    logit = 4 * scores - 1 + random.normal(0, shift, images)[unit] if shift else 4 * scores - 1
    return random.random(len(unit)) < 1 / (1 + np.exp(-logit)), unit


def test_alikeness_is_seen_and_not_taken_for_what_scores_say():
    random = np.random.default_rng(0)
    apart, some, much = (alikeness(*drawn(random, shift)) for shift in (0.0, 1.0, 3.0))
    assert apart < 0.05
    assert 0.08 < some < 0.3
    assert some < 0.3 < much < 0.8


def test_one_answer_a_picture_is_like_no_other_and_without_a_wrong_one_nothing_is_known():
    assert alikeness(np.array([True, False]), np.array([0, 1])) == 0.0
    assert alikeness(np.ones(6, bool), np.array([0, 0, 1, 1, 2, 2])) == 1.0
    assert alikeness(np.zeros(0, bool), np.zeros(0, np.int64)) == 0.0


def test_design_effects_by_hand():
    unit = np.array([0, 0, 1, 1])
    effects = design_effects(np.array([True, True, False, False]), unit, np.array([1, 2, 4]), 0.5)
    assert effects.tolist() == pytest.approx([1.0, 1.5, 2.0]), "4 answers of 2 pictures that agree wholly are 2"
