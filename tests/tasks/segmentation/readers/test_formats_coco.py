import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError
from visionkit.data import formats
from visionkit.tasks.segmentation.readers.coco import CocoMaskDataset
from visionkit.tasks.segmentation.readers.formats import FORMATS

find_splits = partial(formats.find_splits, table=FORMATS)


def coco(file, images, *, segmentation=True, count=3, first=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    for i in range(first, first + count):
        Image.new("RGB", (8, 8), colour_of(images / f"{i}.png")).save(images / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "width": 8, "height": 8})
        box = {"segmentation": [[0, 0, 4, 0, 4, 4]]} if segmentation else {}
        content["annotations"].append({"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [0, 0, 4, 4], **box})
    file.write_text(json.dumps(content))
    return file


def sizes(found):
    return [None if d is None else len(d) for d in (found.train, found.val, found.test)]


def test_coco(tmp_path):
    coco(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017")
    coco(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017", count=2, first=5)
    found = find_splits(tmp_path)
    assert isinstance(found.train, CocoMaskDataset)
    assert sizes(found) == [3, 2, None]
    assert found.val.classes == ("background", "cat", "dog")
    assert found.source == (
        f"COCO JSON of {tmp_path}: train 3 images with 3 objects (annotations/instances_train2017.json), "
        "val 2 images with 2 objects (annotations/instances_val2017.json)"
    )


def test_one_coco_file(tmp_path):
    file = coco(tmp_path / "all.json", tmp_path / "images", count=10)
    for root in (file, tmp_path):
        found = find_splits(root)
        assert sizes(found) == [8, 2, None]
        assert sorted(found.val.labels) == [(0, 1), (0, 2)]
        assert found.source == (
            f"COCO JSON of {root}: 10 images with 10 objects (all.json); automatic split: 8 for training, 2 for validation, "
            "by class (seed 0)"
        )


def test_coco_with_boxes_alone(tmp_path):
    with pytest.raises(DataError, match="none of its 3 annotations has a segmentation, only boxes"):
        find_splits(coco(tmp_path / "a.json", tmp_path, segmentation=False))
    file = coco(tmp_path / "a.json", tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(DataError, match=r"a\.json: no training image has an object; label some"):
        find_splits(file)


def test_masks_are_read_before_coco(tmp_path):
    coco(tmp_path / "annotations" / "instances_train.json", tmp_path / "images" / "train")
    (tmp_path / "masks" / "train").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "masks" / "train" / f"{i}.png")
    found = find_splits(tmp_path)
    assert found.train.classes == ("background", "foreground")
    assert "; COCO JSON labels lie there too and are not read; automatic split" in found.source


def test_outlines_that_cannot_be_read_are_the_cause(tmp_path):
    file = coco(tmp_path / "a.json", tmp_path)
    content = json.loads(file.read_text())
    for note in content["annotations"]:
        note["segmentation"] = [[[0, 0], [4, 0], [4, 4]]]
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"no training image has an object that is learnt \(first: .*no list of polygons"
    ):
        find_splits(file)
