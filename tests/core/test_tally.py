import pytest

from visionkit import BoxPrediction, ClassPrediction, InstancePrediction, MaskPrediction, Prediction
from visionkit.core.tally import Tally, joined


def test_tallies_add_up_and_are_said_by_number():
    total = Tally({"cat": 2, "dog": 1}, "cat, cat, dog") + Tally({"dog": 4, "ox": 0})
    assert total.words() == ["dog 5", "cat 2"]
    assert total.said == ""
    assert Tally({"sky": 1, "road": 3}, shares=True).words() == ["road 75.0%", "sky 25.0%"]
    assert Tally({"sky": 9999, "bird": 1}, shares=True).words() == ["sky 100.0%", "bird <0.1%"]
    assert Tally({"b": 1, "a": 1, "c": 12345}).words() == ["c 12,345", "a 1", "b 1"]


@pytest.mark.parametrize(
    ("width", "line"),
    [(80, "aa 1, bb 2, cc 3"), (16, "aa 1, bb 2, cc 3"), (15, "aa 1, 2 more"), (11, "..., 2 more")],
)
def test_what_does_not_fit_is_counted(width, line):
    assert joined(["aa 1", "bb 2", "cc 3"], width) == line
    assert joined([], width) == "none"
    assert joined(["a very long word"], 10) == "a very ..."


def test_each_kind_of_record_says_its_numbers():
    one = {"label": "cat", "score": 0.914, "probabilities": {"cat": 0.914, "dog": 0.086}}
    assert ClassPrediction.tally(one) == {"classes": Tally({"cat": 1}, "cat 0.91")}
    several = {**one, "labels": ["cat", "dog"]}
    assert ClassPrediction.tally(several)["classes"] == Tally({"cat": 1, "dog": 1}, "cat 0.91, dog 0.09")
    assert ClassPrediction.tally({**one, "labels": []})["classes"] == Tally({"(no label)": 1}, "(no label)")

    found = {"objects": [{"label": k, "score": s} for k, s in (("ox", 0.9), ("ox", 0.3), ("yak", 0.29))]}
    for kind in (BoxPrediction, InstancePrediction):
        tally = kind.tally(found)["objects"]
        assert (tally.counts, tally.said, tally.which) == ({"ox": 2}, "ox 2", "from score 0.3 on")
        assert kind.tally(found, 0.1)["objects"].counts == {"ox": 2, "yak": 1}
    assert BoxPrediction.tally({"objects": []})["objects"].said == "none"

    tally = MaskPrediction.tally({"pixels": {"sky": 30, "road": 90}})["area"]
    assert tally.said == "road 75.0%, sky 25.0%"
    assert tally.shares
    assert Prediction.tally({"whatever": 1}) == {}, "a prediction of one's own need not count"
