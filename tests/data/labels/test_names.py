"""Forms of Unicode."""

from visionkit.data.labels.names import composed, only_composed


def test_both_forms_of_a_name_are_one():
    assert composed("Ba\u0308cker") == composed("B\xe4cker") == "B\xe4cker"
    assert only_composed(["a", "o\u0308"]) == {"a": "a", "\xf6": "o\u0308"}
    assert only_composed(["o\u0308", "\xf6", "b"]) == {"b": "b"}, "which of the two is meant is not clear"
