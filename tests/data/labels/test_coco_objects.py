"""What an annotation of COCO JSON says of itself, in each of the three ways that it is read."""

import json

import numpy as np
import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.data.labels.coco_json import coco_ids, read_coco
from visionkit.data.labels.coco_objects import CocoObject, find_apart
from visionkit.data.labels.masks import ObjectMasks

SQUARE = [8, 6, 28, 6, 28, 22, 8, 22]
BOX = [8, 6, 20, 16]
FAR = [40, 30, 10, 10]


def rle(rows, columns):
    mask = np.zeros((1, 48, 64), np.uint8)
    mask[0, rows, columns] = 1
    return ObjectMasks.from_dense(mask).rles()[0]["counts"]


def write(folder, *notes, size=(64, 48)):
    for i in (1, 2):
        Image.new("RGB", size, (i, 0, 0)).save(folder / f"{i}.png")
    whole = [{"id": i, "image_id": 1, "category_id": 1, "bbox": BOX, **n} for i, n in enumerate(notes, 1)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]} for i in (1, 2)],
        "annotations": whole,
        "categories": [{"id": 1, "name": "red"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [2, -1, "maybe", [1], 0.5])
def test_flags_that_say_neither_yes_nor_no_are_refused(tmp_path, key, value):
    file = write(tmp_path, {key: value})
    for read in (read_coco, coco_ids):
        with pytest.raises(DataError) as e:
            read(file)
        assert str(e.value) == f"{file}: annotation 1 (annotations[0]): {key} is {value!r}; write 0 or 1"


@pytest.mark.parametrize(("flags", "crowd", "ignored"), [
    ({}, False, False), ({"ignore": 0, "iscrowd": 0}, False, False), ({"iscrowd": "1", "ignore": 0}, True, False),
    ({"ignore": True}, True, True), ({"ignore": 1, "iscrowd": 0}, True, True),
])  # fmt: skip
def test_what_is_to_be_ignored_is_a_crowd(tmp_path, flags, crowd, ignored):
    (o,) = read_coco(write(tmp_path, flags)).pictures[0].objects
    assert (o.crowd, o.ignored) == (crowd, ignored)


def test_an_annotation_that_stands_twice_is_taken_once(tmp_path):
    file = write(tmp_path, {"id": 7}, {"id": 7}, {"id": 8}, {"id": 8, "image_id": 2}, {"id": None}, {"id": None})
    first, second = read_coco(file).pictures
    assert len(first.objects) == 4
    assert len(second.objects) == 1
    assert first.repeated == (
        f"{file}: annotation 7 (annotations[1]): the same annotation as {file}: annotation 7 (annotations[0]); dropped",
    )
    assert second.repeated == ()


def test_two_annotations_of_one_id_that_differ_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"annotation 7 \(annotations\[1\]\): has the id of .*annotations\[0\]"):
        read_coco(write(tmp_path, {"id": 7}, {"id": 7, "bbox": FAR}))


@pytest.mark.parametrize(
    "box", [BOX, [28.5, 6, 5, 5], [0, 22.9, 8, 2], [8, 6, 0, 0], [8, 6], ["8", "6", "20", "16"], "x"]
)
@pytest.mark.parametrize("outline", [[SQUARE], SQUARE, [[40, 30, 50, 30, 50, 40], SQUARE], [], None])
def test_a_box_and_its_outline_touch_or_are_not_known(box, outline):
    assert find_apart(CocoObject(0, {"bbox": box, "segmentation": outline}, "x")) is None


def test_a_box_and_its_outline_that_do_not_touch_are_told():
    found = find_apart(CocoObject(0, {"bbox": FAR, "segmentation": [SQUARE]}, "a.json: annotation 1"))
    assert found is not None
    assert found.around == (8, 6, 28, 22)
    assert found.text == (
        "a.json: annotation 1: its bbox (corners 40, 30, 50, 40) and its segmentation (corners 8, 6, 28, 22) do not "
        "touch: one is another object's; correct it"
    )
    inside, outside = rle(slice(31, 35), slice(41, 45)), rle(slice(6, 22), slice(8, 28))
    run_lengths = CocoObject(0, {"bbox": FAR, "segmentation": {}}, "x")
    assert find_apart(run_lengths, inside, (48, 64)) is None
    assert find_apart(run_lengths, outside, (48, 64)).around == (8, 6, 28, 22)
