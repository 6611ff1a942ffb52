from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data.audit.duplicates import Duplicates, Pair
from visionkit.data.audit.split import keep_together, validation_share
from visionkit.data.split import split


def duplicates(count, *groups, kind="near"):
    first = list(range(count))
    for members in groups:
        for i in members:
            first[i] = members[0]
    return Duplicates(tuple(Pair(g[0], i, kind, 1.0) for g in groups for i in g[1:]), tuple(first))


def sides(groups, val):
    found = defaultdict(set)
    for group, v in zip(groups, val, strict=True):
        found[group].add(v)
    return found


def test_shares():
    assert [validation_share(n) for n in (10, 99, 100, 5000)] == [0.3, 0.3, 0.2, 0.2]


def test_copies_join_the_groups_that_were_given():
    groups = keep_together(["a", "a", "b", "c", "d"], "12345", duplicates(5, [1, 3]))
    assert groups == ["a", "a", "b", "a", "d"]


@settings(max_examples=60)
@given(st.data(), st.integers(20, 120), st.floats(0.1, 0.5), st.integers(0, 5))
def test_copies_never_lie_on_both_sides(data, count, fraction, seed):
    parts = data.draw(st.lists(st.integers(0, count), min_size=count, max_size=count))
    members = defaultdict(list)
    for i, part in enumerate(parts):
        members[part].append(i)
    found = duplicates(count, *(m for m in members.values() if 1 < len(m) <= 10))
    labels = [(data.draw(st.integers(0, 2)),) for _ in range(count)]
    names = [f"{i}.jpg" for i in range(count)]
    groups = keep_together(names, names, found)
    val = split(groups, labels, fraction, seed)
    assert all(len(s) == 1 for s in sides(found.first, val).values())
    for c in range(3):  # a class with two groups or more that hold no other has a picture on each side
        mine = {g for g, ids in zip(groups, labels, strict=True) if c in ids}
        pure = all(ids == (c,) for g, ids in zip(groups, labels, strict=True) if g in mine)
        if pure and len(mine) > 1:
            assert {v for v, ids in zip(val, labels, strict=True) if c in ids} == {True, False}


def test_a_long_video_is_cut_into_runs_of_frames():
    count = 400
    names = [f"frame{k}.jpg" for k in range(count)]
    shuffled = sorted(names)  # frame10 before frame9
    groups = keep_together(shuffled, shuffled, duplicates(count, list(range(count))))
    at = dict(zip(shuffled, groups, strict=True))
    runs = [{at[f"frame{k}.jpg"] for k in range(start, start + 10)} for start in range(0, count, 10)]
    assert all(len(run) == 1 for run in runs)
    assert len(set(groups)) == 40
    val = split(groups, [(0,)] * count, 0.2, 0)
    assert sum(val) == 80


def test_the_same_bytes_stay_together_in_a_group_that_is_cut():
    count = 200
    first = Duplicates((Pair(0, 199, "identical", 1.0),), (0,) * count)
    names = [f"{k:03}" for k in range(count)]
    groups = keep_together(names, names, first)
    assert groups[0] == groups[199]
    assert len(set(groups)) == 19
