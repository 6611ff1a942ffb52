"""The truth of pictures, as lines tell it."""

import numpy as np
import pytest

from tests import evaluated
from visionkit.evaluation.images import EvaluatedImage, plain

BOX = {"label": "cat", "box": [0, 0.5, 3, 4], "crowd": False, "area": 12.0}
KINDS = {
    "label": "cat",
    "labels": ["cat", "dog"],
    "objects": [BOX],
    "pixels": {"cat": 3},
}
WRONG = {
    "label": [None, 3, "owl", ["cat"]],
    "labels": ["cat", [3], ["owl"], [["cat"]]],
    "objects": [
        BOX, [3], [{**BOX, "label": "owl"}], [{**BOX, "box": [0, 0, 3]}], [{**BOX, "box": [0, 0, 3, "4"]}],
        [{**BOX, "box": [0, 0, 3, 1e999]}], [{**BOX, "area": None}], [{**BOX, "crowd": 1}], [{"label": "cat"}],
    ],
    "pixels": [[3], {"owl": 3}, {"cat": -1}, {"cat": 1.5}, {"cat": True}],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_comes_back(kind):
    one = evaluated.image("a/b.jpg", {kind: KINDS[kind]}, group="film")
    assert EvaluatedImage.recalled(one.record(), ("cat", "dog"), kind) == one
    for other in set(KINDS) - {kind}:
        with pytest.raises(ValueError, match="truth is"):
            EvaluatedImage.recalled(one.record(), ("cat", "dog"), other)
    for wrong in WRONG[kind]:
        with pytest.raises(ValueError, match="truth is"):
            EvaluatedImage.recalled({**one.record(), "truth": {kind: wrong}}, ("cat", "dog"), kind)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 0}, "height and width"),
        ({"width": True}, "height and width"),
        ({"width": None}, "height and width"),
        ({"group": 3}, "group is"),
        ({"sha256": "A" * 64}, "sha256 is"),
        ({"image": ""}, "image is"),
    ],
)
def test_what_is_no_picture(change, said):
    record = {**evaluated.image("a.jpg", {"label": "cat"}).record(), **change}
    with pytest.raises(ValueError, match=said):
        EvaluatedImage.recalled(record, ("cat",), "label")


def test_values_become_plain():
    told = plain({"a": np.float32(0.5), 3: (np.arange(2), float("nan")), "c": [True, None, "x"]})
    assert told == {"a": 0.5, "3": [[0, 1], None], "c": [True, None, "x"]}
