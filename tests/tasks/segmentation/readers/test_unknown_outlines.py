"""Objects of COCO JSON whose outline is not known are neither their class nor background."""

import json

import numpy as np
import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.tasks.segmentation.readers.coco import CocoMaskDataset

SQUARE = [8, 6, 28, 6, 28, 22, 8, 22]  # 20 x 16 pixels


def write(folder, *objects):
    """A picture of 64 x 48; each object is (segmentation, bbox), None where it has none."""
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    notes = []
    for i, (outline, box) in enumerate(objects):
        facts = {"segmentation": outline, "bbox": box}
        notes.append({"id": i, "image_id": 1, "category_id": 1, **{k: v for k, v in facts.items() if v is not None}})
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": notes,
        "categories": [{"id": 1, "name": "red"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


def expected(box=None, *, rows=slice(0), columns=slice(0)):
    mask = np.zeros((48, 64), np.uint8)
    mask[rows, columns] = 255
    mask[6:22, 8:28] = 1
    return mask


@pytest.mark.parametrize(
    "outline",
    [None, [], [[40, 30]], [[40, 30, 41, 31]], "x", [["a"] * 6], [[float("nan")] * 6], {"size": [1, 1], "counts": [1]}],
)
def test_its_box_is_ignored(tmp_path, outline):
    data = CocoMaskDataset(write(tmp_path, ([SQUARE], [8, 6, 20, 16]), (outline, [40, 30, 10, 8])))
    assert np.array_equal(data.read_mask(0), expected(rows=slice(30, 38), columns=slice(40, 50)))
    assert len(data.problems) == 1
    assert data.problems[0].endswith("; its box is ignored")
    assert data.count_objects() == 1


def test_pixels_that_the_box_touches_alone_are_ignored(tmp_path):
    data = CocoMaskDataset(write(tmp_path, ([SQUARE], None), ([], [40.6, 30.7, 9.1, 7.1])))
    assert np.array_equal(data.read_mask(0), expected(rows=slice(30, 38), columns=slice(40, 50)))


def test_a_box_that_reaches_out_is_ignored_as_far_as_the_picture_goes(tmp_path):
    data = CocoMaskDataset(write(tmp_path, ([SQUARE], None), ([], [60, 40, 1000, 1000])))
    assert np.array_equal(data.read_mask(0), expected(rows=slice(40, 48), columns=slice(60, 64)))


@pytest.mark.parametrize("box", [None, [], [1, 2, 3], [5, 5, 0, 4], [float("nan")] * 4, "x"])
def test_without_a_box_what_no_other_object_shows_is_ignored(tmp_path, box):
    data = CocoMaskDataset(write(tmp_path, ([SQUARE], [8, 6, 20, 16]), ([], box)))
    assert np.array_equal(data.read_mask(0), expected(rows=slice(None), columns=slice(None)))
    assert data.problems[0].endswith("; the whole picture is ignored")


@pytest.mark.parametrize("part", [[50, 40, 51, 41], [50, 40], [], ["a"] * 6, None])
def test_a_part_that_is_no_polygon_costs_that_part_alone(tmp_path, part):
    data = CocoMaskDataset(write(tmp_path, ([SQUARE, part], [8, 6, 20, 16])))
    assert np.array_equal(data.read_mask(0), expected())
    assert [p.split(": ")[-1] for p in data.problems] == ["segmentation[1] is no polygon of 3 points or more; left out"]


def test_outlines_in_shares_are_refused(tmp_path):
    shares = [0.1, 0.1, 0.4, 0.1, 0.4, 0.5]
    with pytest.raises(DataError, match=r"annotation 0 .*1 of 1 outlines lie within 0\.\.1.*pixels"):
        CocoMaskDataset(write(tmp_path, ([shares], None)))


def test_where_box_and_outline_are_apart_both_are_ignored(tmp_path):
    file = write(tmp_path, ([SQUARE], [8, 6, 20, 16]), ([[40, 30, 50, 30, 50, 40, 40, 40]], [52, 2, 4, 4]))
    data = CocoMaskDataset(file)
    right = expected(rows=slice(30, 40), columns=slice(40, 50))
    right[2:6, 52:56] = 255
    assert (data.read_mask(0) == right).all()
    assert data.problems[0].endswith("do not touch: one is another object's; correct it; both are ignored")


def test_objects_to_be_ignored_are_no_class(tmp_path):
    file = write(tmp_path, ([SQUARE], None), ([[40, 30, 50, 30, 50, 40, 40, 40]], None))
    content = json.loads(file.read_text())
    content["annotations"][1]["ignore"] = 1
    file.write_text(json.dumps(content))
    assert (CocoMaskDataset(file).read_mask(0) == expected(rows=slice(30, 40), columns=slice(40, 50))).all()


def test_run_lengths_without_a_pixel_are_no_outline(tmp_path):
    for counts in ([64 * 48], "PP3"):  # 3072 pixels of nothing
        file = write(tmp_path, ([SQUARE], None), ({"size": [48, 64], "counts": counts}, [40, 30, 10, 10]))
        data = CocoMaskDataset(file)
        assert "hold no pixel" in data.problems[0], data.problems
        assert (data.read_mask(0) == expected(rows=slice(30, 40), columns=slice(40, 50))).all()
