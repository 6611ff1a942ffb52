import math
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import UsageError
from visionkit.data.split import split

fractions = st.floats(0.05, 0.95)
single = st.lists(st.integers(0, 4).map(lambda c: (c,)), min_size=1, max_size=60)
several = st.lists(st.sets(st.integers(0, 4)).map(tuple), min_size=1, max_size=60)


def names(n):
    return [f"{i}.jpg" for i in range(n)]


@settings(max_examples=60)
@given(single, fractions, st.integers(0, 9))
def test_single_label_shares_are_within_one_image_a_class(labels, fraction, seed):
    val = split(names(len(labels)), labels, fraction, seed)
    total, chosen = Counter(labels), Counter(c for c, v in zip(labels, val, strict=True) if v)
    for c, n in total.items():
        assert abs(chosen[c] - fraction * n) < 1 + 1e-9
        assert (1 <= chosen[c] <= n - 1) if n > 1 else chosen[c] == 0


@settings(max_examples=60)
@given(several, fractions, st.integers(0, 9), st.randoms())
def test_order_does_not_matter(labels, fraction, seed, shuffler):
    groups = names(len(labels))
    expected = dict(zip(groups, split(groups, labels, fraction, seed), strict=True))
    order = list(range(len(labels)))
    shuffler.shuffle(order)
    mixed = split([groups[i] for i in order], [labels[i] for i in order], fraction, seed)
    assert [expected[groups[i]] for i in order] == mixed


@settings(max_examples=60)
@given(several, st.data(), fractions, st.integers(0, 9))
def test_groups_stay_together_and_every_class_is_trained(labels, data, fraction, seed):
    groups = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(labels), max_size=len(labels)))
    val = split(groups, labels, fraction, seed)
    sides = defaultdict(set)
    for g, v in zip(groups, val, strict=True):
        sides[g].add(v)
    assert all(len(s) == 1 for s in sides.values())
    trained = {c for ids, v in zip(labels, val, strict=True) if not v for c in ids}
    assert trained == {c for ids in labels for c in ids}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60), fractions, st.integers(0, 9))
def test_pure_groups_put_each_class_on_both_sides(items, fraction, seed):
    groups = [f"{c}-{g}" for c, g in items]
    val = split(groups, [(c,) for c, _ in items], fraction, seed)
    for c in {c for c, _ in items}:
        mine = [(g, v) for (k, _), g, v in zip(items, groups, val, strict=True) if k == c]
        expected = {False, True} if len({g for g, _ in mine}) > 1 else {False}
        assert {v for _, v in mine} == expected


def test_several_labels_are_balanced():
    rng = random.Random(0)
    labels = [tuple({rng.randrange(8) for _ in range(rng.randrange(4))}) for _ in range(800)]
    val = split(names(800), labels, 0.25, 0)
    assert abs(sum(val) - 200) < 12
    for c in range(8):
        n = sum(c in ids for ids in labels)
        assert abs(sum(c in ids for ids, v in zip(labels, val, strict=True) if v) - n / 4) <= 4


def test_cameras_keep_the_total():
    rng = random.Random(0)
    groups = [f"camera{rng.randrange(40)}" for _ in range(1000)]
    labels = [(rng.randrange(5),) for _ in range(1000)]
    assert abs(sum(split(groups, labels, 0.2, 0)) - 200) < 60


def test_another_seed_another_split():
    labels = [(i % 2,) for i in range(40)]
    chosen = {tuple(split(names(40), labels, 0.25, s)) for s in range(10)}
    assert len(chosen) == 10


def test_the_split_never_changes():
    """A released split is a promise: scores before and after an update must stay comparable."""
    labels = [(i % 3,) for i in range(15)]
    val = split(names(15), labels, 0.2, 0)
    assert [i for i, v in enumerate(val) if v] == [2, 9, 10]


def test_images_without_a_class_are_divided_too():
    val = split(names(100), [()] * 100, 0.2, 0)
    assert sum(val) == 20


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_wrong_fraction(fraction):
    with pytest.raises(UsageError, match="val_fraction"):
        split(["a", "b"], [(0,), (0,)], fraction, 0)


def test_lists_of_different_lengths():
    with pytest.raises(UsageError, match="2 groups for 1 labels"):
        split(["a", "b"], [(0,)], 0.5, 0)


def test_nothing_to_split():
    assert split([], [], 0.5, 0) == []
