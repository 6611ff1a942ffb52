import json
import os
from functools import partial

import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.data import formats
from visionkit.data.shapes import SHAPES
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.detection.readers.voc import VocDataset
from visionkit.tasks.detection.readers.yolo import YoloDataset

find_splits = partial(formats.find_splits, table=FORMATS)

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"


def pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 30), colour_of(folder / name)).save(folder / name)
    return folder


def coco(file, folder, labels, classes=("cat", "dog"), box=(1, 2, 8, 6)):
    """A picture a label; None for one without objects."""
    names = [f"{i:02d}.png" for i in range(len(labels))]
    pictures(folder, *names)
    images = [{"id": i, "file_name": n, "width": 40, "height": 30} for i, n in enumerate(names)]
    notes = [
        {"id": i, "image_id": i, "category_id": classes.index(c), "bbox": box}
        for i, c in enumerate(labels)
        if c is not None
    ]
    cats = [{"id": i, "name": c} for i, c in enumerate(classes)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": notes, "categories": cats}))
    return file


def voc(folder, labels):
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, label in labels.items():
        pictures(folder / "JPEGImages", f"{stem}.png")
        shown = f"<object><name>{label}</name>{BOX}</object>" if label else ""
        (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{shown}</annotation>")
    return folder


def yolo(folder, part, labels):
    pictures(folder / "images" / part, *(f"{s}.png" for s in labels))
    (folder / "labels" / part).mkdir(parents=True, exist_ok=True)
    for stem, label in labels.items():
        (folder / "labels" / part / f"{stem}.txt").write_text("" if label is None else f"{label} 0.5 0.5 0.5 0.5\n")
    return folder


def sizes(found):
    return [None if d is None else len(d) for d in (found.train, found.val, found.test)]


# --- each format


def test_coco(tmp_path):
    coco(tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017", ["cat", None, "dog"])
    coco(tmp_path / "annotations/instances_val2017.json", tmp_path / "val2017", ["dog", "dog"], ("dog", "cat"))
    (tmp_path / "annotations" / "captions_val2017.json").write_text('{"annotations": []}')
    found = find_splits(tmp_path)
    assert isinstance(found.train, CocoDataset)
    assert sizes(found) == [3, 2, None]
    assert found.train.classes == found.val.classes == ("cat", "dog")
    assert found.train.labels == [(0,), (), (1,)]
    assert found.val.labels == [(1,), (1,)]
    assert found.source == (
        f"COCO JSON of {tmp_path}: train 3 images with 2 boxes (annotations/instances_train2017.json), "
        "val 2 images with 2 boxes (annotations/instances_val2017.json)"
    )


def test_roboflow(tmp_path):
    for part in ("train", "valid", "test"):
        coco(tmp_path / part / "_annotations.coco.json", tmp_path / part, ["cat", "dog"])
    assert sizes(find_splits(tmp_path)) == [2, 2, 2]  # pictures of the same name are no leak


def test_voc(tmp_path):
    voc(tmp_path, {"a": "dog", "b": "cat", "c": "cat", "d": None})
    for name, stems in {"train": "a\nb\n", "val": "c\n", "test": "d\n"}.items():
        (tmp_path / f"{name}.txt").write_text(stems)
    found = find_splits(tmp_path)
    assert isinstance(found.train, VocDataset)
    assert sizes(found) == [2, 1, 1]
    assert found.val.classes == ("cat", "dog")
    assert found.source.startswith(f"Pascal VOC of {tmp_path}: train 2 images with 2 boxes (train.txt), val 1 images")


def test_yolo(tmp_path):
    yolo(tmp_path, "train", {"a": 0, "b": 2, "c": None, "d": 0, "e": 0})
    yolo(tmp_path, "val", {"a": 1})
    found = find_splits(tmp_path)
    assert isinstance(found.train, YoloDataset)
    assert sizes(found) == [5, 1, None]
    assert found.val.classes == ("0", "1", "2")
    assert found.source == (
        f"YOLO of {tmp_path}: train 5 images with 4 boxes (images/train), val 1 images with 1 boxes (images/val)"
    )
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/gone\ntest: images/val\nnames: [x, y, z]")
    with pytest.raises(DataError, match=r"data\.yaml: val: no folder or list images/gone"):
        find_splits(tmp_path / "data.yaml")
    only = find_splits(tmp_path, need=("test",))
    assert only.test.classes == ("x", "y", "z")


def test_drawn_shapes():
    found = find_splits(None, seed=3)
    assert sizes(found) == [600, 150, None]
    assert isinstance(found.train, ShapesDetection)
    assert found.train.seed != found.val.seed
    assert found.source == "drawn shapes: 600 for training, 150 for validation (seed 3)"
    assert find_splits(None, classes=SHAPES).train.classes == SHAPES
    with pytest.raises(UsageError, match="without a root the data are drawn shapes"):
        find_splits(None, classes=["cat"])


def test_several_formats_in_one_folder(tmp_path):
    yolo(tmp_path, "train", {f"{i:02d}": 0 for i in range(4)})
    voc(tmp_path, {"x": "cat"})
    coco(tmp_path / "annotations" / "train.json", tmp_path / "images" / "train", ["cat"] * 4)
    found = find_splits(tmp_path)
    assert isinstance(found.train, CocoDataset)
    assert "; Pascal VOC and YOLO labels lie there too and are not read" in found.source
    assert isinstance(find_splits(voc(tmp_path / "v", dict.fromkeys("xyzw", "cat"))).train, VocDataset)


# --- the automatic split


def test_automatic_split_goes_by_class_and_not_by_place(tmp_path):
    labels = ["cat"] * 20 + ["dog"] * 10 + [None] * 10
    one = find_splits(coco(tmp_path / "a" / "all.json", tmp_path / "a" / "images", labels))
    two = find_splits(coco(tmp_path / "b" / "all.json", tmp_path / "b" / "images", labels).parent)
    for found in (one, two):
        assert sizes(found) == [32, 8, None]
        assert sorted(found.val.labels) == [()] * 2 + [(0,)] * 4 + [(1,)] * 2
    assert [e.key for e in one.val.entries] == [e.key for e in two.val.entries]
    assert one.source == (
        f"COCO JSON of {tmp_path}/a/all.json: 40 images with 30 boxes (all.json); automatic split: 32 for training, 8 for "
        "validation, by class (seed 0)"
    )
    other = find_splits(tmp_path / "a", seed=1, val_fraction=0.5)
    assert sizes(other) == [20, 20, None]
    assert sizes(find_splits(voc(tmp_path / "v", {f"i{i}": "cat" for i in range(10)}))) == [8, 2, None]


def test_corrected_boxes_are_counted(tmp_path):
    file = coco(tmp_path / "a.json", tmp_path, ["cat", "cat", "dog"])
    content = json.loads(file.read_text())
    content["annotations"] += [
        {"id": 10 + i, "image_id": i, "category_id": 0, "bbox": b}
        for i, b in enumerate([[1, 1, 0, 5], [1, 1, 90, 5], [50, 1, 5, 5]])
    ]
    file.write_text(json.dumps(content))
    found = find_splits(file)
    assert "; wrong boxes: 2 dropped, 1 clipped; automatic split" in found.source
    assert len(found.train.problems) + len(found.val.problems) == 3


# --- what is wrong


def test_unknown_class_in_val(tmp_path):
    coco(tmp_path / "train.json", tmp_path / "train", ["cat", "dog"])
    file = coco(tmp_path / "val.json", tmp_path / "val", ["cat", "dogs"], ("cat", "dogs"))
    with pytest.raises(DataError) as e:
        find_splits(tmp_path)
    assert str(e.value) == (
        f"{file}: annotation 1 (annotations[1]): class 'dogs' is not one of cat, dog; did you mean 'dog'?; rename the "
        "category or remove its boxes"
    )


def test_the_same_image_in_two_splits(tmp_path):
    coco(tmp_path / "train.json", tmp_path / "images", ["cat", "dog"])
    coco(tmp_path / "val.json", tmp_path / "images", ["cat"])
    with pytest.raises(
        DataError, match=r"00\.png is in both train and val, so the score would flatter; keep it in one"
    ):
        find_splits(tmp_path)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_same_image_under_two_names(tmp_path, link):
    yolo(tmp_path, "train", {"a": 0, "b": 0})
    yolo(tmp_path, "val", {"c": 0})
    (tmp_path / "images" / "val" / "c.png").unlink()
    link(tmp_path / "images" / "train" / "a.png", tmp_path / "images" / "val" / "c.png")
    with pytest.raises(DataError, match=r"c\.png, the same file as .*a\.png is in both train and val"):
        find_splits(tmp_path)


def test_nothing_that_is_understood(tmp_path):
    understood = (
        r"understood are COCO JSON \(annotations/instances_train2017\.json, .*\), Pascal VOC \(Annotations/\*\.xml with .*\) "
        r"and YOLO \(data\.yaml, or images/ with labels/\)"
    )
    with pytest.raises(DataError, match=rf"^{tmp_path}: holds no images and no boxes; {understood}$"):
        find_splits(tmp_path)
    pictures(tmp_path / "images", "a.png", "b.png")
    with pytest.raises(DataError, match=rf"^{tmp_path}: holds 2 images but no boxes; {understood}$"):
        find_splits(tmp_path)
    with pytest.raises(DataError, match=rf"nowhere: no such folder or file; check the path; {understood}$"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=rf"a\.png: is neither a folder nor a file of a known format; {understood}$"):
        find_splits(tmp_path / "images" / "a.png")
    with pytest.raises(UsageError, match="val_fraction: 1 is not between 0 and 1"):
        find_splits(tmp_path, val_fraction=1)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="none of 2 images has a label file; looked in .*labels for files such as"):
        find_splits(tmp_path)


def test_too_little_to_learn_from(tmp_path):
    with pytest.raises(DataError, match="cannot be divided into training and validation; add images"):
        find_splits(coco(tmp_path / "a" / "a.json", tmp_path / "a", ["cat"]))
    with pytest.raises(DataError, match="no training image has a box; label some objects"):
        find_splits(coco(tmp_path / "b" / "a.json", tmp_path / "b", [None] * 5))


def test_splits_that_are_needed(tmp_path):
    coco(tmp_path / "test.json", tmp_path / "test", ["cat"])
    with pytest.raises(
        UsageError, match="has no train split to take the class names from; add it or give a checkpoint"
    ):
        find_splits(tmp_path)
    assert sizes(find_splits(tmp_path, classes=["dog", "cat"], need=("test",))) == [None, None, 1]
    with pytest.raises(DataError, match="there is no val split: COCO JSON of"):
        find_splits(tmp_path, classes=["dog", "cat"], need=("val",))


# --- real data


def test_real_photos(data_root):
    found = find_splits(data_root / "coco128")
    assert sizes(found) == [128, 128, None]
    assert found.train.classes[:2] == ("person", "bicycle")
    assert len(found.val.classes) == 80
    assert found.source.endswith(
        "train 128 images with 939 boxes (annotations/instances_train2017.json), val 128 images with 898 boxes "
        "(annotations/boxes_val2017.json); YOLO labels lie there too and are not read"
    )


def test_real_blood_cells(data_root):
    found = find_splits(data_root / "detection" / "bccd")
    assert sizes(found) == [205, 87, 72]
    assert found.test.classes == ("Platelets", "RBC", "WBC")
    assert found.source.endswith("; wrong boxes: 2 dropped")
