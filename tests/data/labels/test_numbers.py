import math

import pytest

from visionkit.data.labels.numbers import flag, mostly_shares, number


@pytest.mark.parametrize(
    ("value", "set_"),
    [
        (1, True), ("1", True), (True, True), (1.0, True), ("Yes", True), (0, False), (None, False), ("", False),
        ("False", False), ("Unspecified", False), (2, None), (-1, None), ("maybe", None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_flags_say_yes_or_no_or_neither(value, set_):
    assert flag(value) is set_


@pytest.mark.parametrize(
    ("value", "right"), [(3, 3.0), ("3.5", 3.5), ("1_0", None), (True, None), ("x", None), ([1], None), (10**400, math.inf)]
)  # fmt: skip
def test_numbers_also_as_text(value, right):
    assert number(value) == right


def test_shares_are_most_objects_or_none():
    assert mostly_shares([("a", (0.1, 0.2)), ("b", (5, 9)), ("c", (0.3, 0.4))]) == ["a", "c"]
    assert mostly_shares([("a", (0.1, 0.2)), ("b", (5, 9))]) == []
    assert mostly_shares([("a", (0, 1))]) == []
