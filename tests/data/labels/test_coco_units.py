"""Boxes that are all written in another way than COCO's."""

import pytest

from visionkit.core.errors import DataError
from visionkit.data.labels.coco_units import Drawn, refuse_other_units

SQUARE = [[8, 6, 28, 6, 28, 22, 8, 22]]
BOX = [8, 6, 20, 16]


def drawn(*records, size=(48, 64)):
    return [Drawn(f"a.json: annotation {i}", record, size) for i, record in enumerate(records)]


@pytest.mark.parametrize("box", [[8, 6, 28, 22], [40, 20, 64, 48]])
def test_boxes_of_two_corners(box):
    found = [*[{"bbox": [40, 20, 60, 40]}] * 4, *[{"bbox": box}] * 2]
    with pytest.raises(
        DataError, match=r"annotation 0: its bbox reaches out .* all fit as two corners x1, y1, x2, y2;"
    ):
        refuse_other_units(drawn(*found))
    refuse_other_units(drawn(*found, {"bbox": [30, 1, 5, 5]}))  # no two corners
    refuse_other_units(drawn(*found, size=None))
    refuse_other_units(drawn(*found[:4]))  # too few to say


@pytest.mark.parametrize(
    ("box", "outline"),
    [
        ([18, 14, 20, 16], SQUARE),
        ([8, 6, 28, 30], SQUARE),
        (BOX, [[6, 8, 6, 28, 22, 28, 22, 8]]),
        ([60, 40, 2, 2], SQUARE),
    ],
)
def test_boxes_that_are_not_those_around_their_outlines(box, outline):
    wrong, right = {"bbox": box, "segmentation": outline}, {"bbox": BOX, "segmentation": SQUARE}
    with pytest.raises(
        DataError, match=r"annotation 0: its bbox has the corners .*, and so differ 6 of 8: one of them"
    ):
        refuse_other_units(drawn(*[wrong] * 6, right, right))
    refuse_other_units(drawn(*[wrong] * 6, *[right] * 6))  # some odd ones are told one by one
    refuse_other_units(drawn(*[wrong] * 4))


@pytest.mark.parametrize("box", [BOX, [8, 6, 18.5, 14], [6, 5, 24, 18], None, [], "x", [8, 6, 0, 0]])
@pytest.mark.parametrize("outline", [SQUARE, [], None, {"size": [1, 1], "counts": "x"}, [[1, 2]], "x"])
def test_boxes_by_and_large_around_their_outlines(box, outline):
    refuse_other_units(drawn(*[{"bbox": box, "segmentation": outline}] * 6))


def test_small_objects_differ_by_rounding():
    refuse_other_units(drawn(*[{"bbox": [8, 6, 1, 1], "segmentation": [[9.6, 7.4, 10.4, 7.4, 10.4, 8.4]]}] * 6))
