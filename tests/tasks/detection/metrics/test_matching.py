"""Pairs and greedy matching beside loops over images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.tasks.detection.metrics import matching
from visionkit.tasks.detection.metrics.matching import Pairs, box_pairs, match_greedily, starts_of

NONE = np.zeros(0, np.int64)


def random_boxes(rng, n):
    corner = rng.integers(0, 20, (n, 2))
    return np.concatenate([corner, corner + rng.integers(0, 9, (n, 2))], 1).astype(np.float32)  # some without area


def by_loops(boxes, truth, crowd, first, count, least):
    found = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for j in range(first[i], first[i] + count[i]):
            a1, b1, a2, b2 = truth[j].tolist()
            common = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            own, other = (x2 - x1) * (y2 - y1), (a2 - a1) * (b2 - b1)
            whole = own if crowd[j] else own + other - common
            if whole and common / whole >= least:
                found.append((i, j, common / whole))
    return found


@pytest.mark.parametrize("chunk", [1, 7, 1 << 17])
@pytest.mark.parametrize("least", [0.1, 0.5])
def test_pairs_are_those_of_loops(monkeypatch, chunk, least):
    monkeypatch.setattr(matching, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    boxes, truth, crowd = random_boxes(rng, 60), random_boxes(rng, 40), rng.random(40) < 0.2
    count = rng.integers(0, 12, 60)
    first = np.array([rng.integers(0, 40 - c + 1) for c in count])
    found = box_pairs(boxes, truth, crowd, first, count, least)
    assert list(zip(*(v.tolist() for v in found), strict=True)) == by_loops(boxes, truth, crowd, first, count, least)
    assert len(found.row) > 3


def test_no_pairs_at_all():
    empty = np.zeros((0, 4), np.float32)
    assert [len(v) for v in box_pairs(empty, empty, NONE.astype(bool), NONE, NONE, 0.5)] == [0, 0, 0]
    assert len(match_greedily(Pairs(NONE, NONE, np.zeros(0)), NONE, 0, np.zeros(0, np.uint64))) == 0
    assert starts_of(NONE).tolist() == []
    assert starts_of(np.array([4, 4, 2, 7, 7])).tolist() == [0, 2, 3]


def test_of_equal_overlaps_the_last_or_the_first_column_leads():
    pairs = Pairs(np.array([0, 0, 0, 1]), np.array([3, 4, 5, 0]), np.array([0.5, 0.7, 0.7, 0.6]))
    assert pairs.best_first(last=True).column.tolist() == [5, 4, 3, 0]
    assert pairs.best_first(last=False).column.tolist() == [4, 5, 3, 0]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**20), groups=st.integers(1, 5))
def test_matching_is_what_loops_say(seed, groups):
    rng = np.random.default_rng(seed)
    sizes, objects = rng.integers(0, 6, groups), rng.integers(0, 5, groups)
    group = np.repeat(np.arange(groups), sizes)
    start = objects.cumsum() - objects
    columns = int(objects.sum())
    ignored = rng.integers(0, 2**6, columns).astype(np.uint64)
    shared = rng.random(columns) < 0.3
    row, column = [], []
    for i, g in enumerate(group):
        wanted = rng.permutation(objects[g])[: rng.integers(0, objects[g] + 1)] + start[g]
        row += [i] * len(wanted)
        column += wanted.tolist()
    pairs = Pairs(np.array(row, np.int64), np.array(column, np.int64), np.ones(len(row)))
    allowed = rng.integers(0, 2**6, len(row)).astype(np.uint64)
    expected = np.zeros(len(row), np.uint64)
    for world in range(6):
        bit = np.uint64(1 << world)
        taken = set()
        for i in range(len(group)):
            mine = [p for p in range(len(row)) if row[p] == i and allowed[p] & bit]
            mine = [p for p in mine if column[p] not in taken or (shared[column[p]] and ignored[column[p]] & bit)]
            mine.sort(key=lambda p: bool(ignored[column[p]] & bit))  # stable: those that count come first
            if mine:
                expected[mine[0]] |= bit
                taken.add(column[mine[0]])
    found = match_greedily(pairs, group, columns, allowed, ignored, shared)
    assert found.tolist() == expected.tolist()
    plain = match_greedily(pairs, group, columns, allowed)
    assert plain.tolist() == match_greedily(pairs, group, columns, allowed, np.zeros(columns, np.uint64)).tolist()
