"""Thresholds as plain data, and those of several heads."""

import pytest

from visionkit import DataError
from visionkit.core.thresholds import Thresholds

CLASSES = ("cat", "dog")


def test_plain_data_come_back():
    made = Thresholds("precision>=0.95", {"cat": 0.62, "dog": None})
    assert Thresholds.from_plain(made.plain(), CLASSES) == made
    assert made.words() == ["cat 0.62", "dog none"]
    assert Thresholds.from_plain({"rule": "f1", "values": {"cat": 1}}, CLASSES).values == {"cat": 1.0}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "thresholds are None, not a rule with values"),
        ({"rule": "f1"}, "not a rule with values"),
        ({"rule": "f1", "values": [0.5]}, "not a rule with values"),
        ({"rule": "", "values": {}}, "no line of text"),
        ({"rule": "a\nb", "values": {}}, "no line of text"),
        ({"rule": "f1", "values": {"cow": 0.5}}, "'cow', which is none of its classes"),
        ({"rule": "f1", "values": {"cat": 1.5}}, "'cat' is 1.5, no number from 0 to 1"),
        ({"rule": "f1", "values": {"cat": float("nan")}}, "nan, no number"),
        ({"rule": "f1", "values": {"cat": float("inf")}}, "inf, no number"),
        ({"rule": "f1", "values": {"cat": True}}, "True, no number"),
        ({"rule": "f1", "values": {"cat": 10**400}}, "no number from 0 to 1"),
        ({"rule": "f1", "values": {"cat": "0.5"}}, "no number"),
    ],
)
def test_all_else_is_refused_in_one_line(data, reason):
    with pytest.raises(DataError, match="(?s).*") as caught:
        Thresholds.from_plain(data, CLASSES)
    assert reason in str(caught.value)
    assert len(caught.value.lines) == 1


def test_heads_are_joined_and_taken_out():
    a = Thresholds("precision>=0.95", {"cat": 0.5, "dog": None})
    b = Thresholds("f1", {"car": 0.25})
    both = Thresholds.joined({"animals": a, "cars": b, "ground": None})
    assert both.values == {"animals/cat": 0.5, "animals/dog": None, "cars/car": 0.25}
    assert both.rule == "animals: precision>=0.95; cars: f1"
    assert both.part("animals") == a
    assert both.part("cars") == b
    assert both.part("ground") is None
    same = Thresholds.joined({"one": a, "two": a})
    assert same.rule == a.rule
    assert same.part("two") == a
    assert Thresholds.joined({"one": None}) is None
