import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.segmentation.readers.coco import CocoMaskDataset
from visionkit.tasks.segmentation.readers.reader import MaskDataset


def square(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def write(root, annotations, *, names=("cat", "dog"), images=1, size=(12, 8)):
    """Write a COCO file of pictures 12 x 8."""
    root.mkdir(exist_ok=True)
    records = []
    for i in range(images):
        Image.new("RGB", (12, 8), colour_of(root / f"{i}.png")).save(root / f"{i}.png")
        records.append({"id": i, "file_name": f"{i}.png"} | ({"width": size[0], "height": size[1]} if size else {}))
    content = {
        "images": records,
        "annotations": [{"id": 10 + k, "image_id": 0, "bbox": [0, 0, 4, 4], **a} for k, a in enumerate(annotations)],
        "categories": [{"id": k + 1, "name": n} for k, n in enumerate(names)],
    }
    (root / "a.json").write_text(json.dumps(content))
    return root / "a.json"


def rle(mask):
    """Return uncompressed run lengths, column by column."""
    flat = np.asarray(mask, np.uint8).T.ravel()
    counts, value = [0], 0
    for v in flat:
        if v != value:
            counts.append(0)
            value = v
        counts[-1] += 1
    return {"size": list(np.shape(mask)), "counts": counts}


def test_small_objects_lie_on_large_ones(tmp_path):
    file = write(
        tmp_path,
        [
            {"category_id": 2, "segmentation": square(2, 2, 2, 2)},
            {"category_id": 1, "segmentation": square(1, 1, 6, 6)},
            {"category_id": 2, "segmentation": square(0, 0, 12, 8), "area": 1},  # the area in the file says nothing
        ],
    )
    data = CocoMaskDataset(file)
    assert isinstance(data, MaskDataset)
    assert data.classes == ("background", "cat", "dog")
    expected = np.full((8, 12), 2)
    expected[1:7, 1:7] = 1
    expected[2:4, 2:4] = 2
    sample = data[0]
    assert (sample.target.mask.numpy() == expected).all()
    assert sample.target.mask.dtype == torch.uint8
    assert sample.info.extra == {"image_id": 0}
    assert data.labels == [(1, 2)]
    assert data.pixel_counts().tolist() == [0, 32, 64]
    assert data.mismatch(0) is None


def test_crowds_lie_beneath(tmp_path):
    crowd = np.zeros((8, 12), np.uint8)
    crowd[:, :3] = 1
    file = write(
        tmp_path,
        [
            {"category_id": 2, "segmentation": square(0, 0, 6, 8)},
            {"category_id": 1, "segmentation": rle(crowd), "iscrowd": 1},
            {"category_id": 1, "segmentation": rle(1 - crowd), "iscrowd": 1},
        ],
    )
    mask = CocoMaskDataset(file)[0].target.mask
    assert (mask[:, :6] == 2).all()
    assert (mask[:, 6:] == 1).all()


def test_images_without_objects_and_sizes(tmp_path):
    file = write(tmp_path, [{"category_id": 1, "segmentation": square(0, 0, 3, 3)}], images=2, size=None)
    data = CocoMaskDataset(file)
    assert data[0].target.mask.shape == data[1].target.mask.shape == (8, 12)
    assert data.labels == [(0, 1), (0,)]
    assert CocoMaskDataset(file, channels=1)[0].image.shape == (1, 8, 12)
    data = CocoMaskDataset(write(tmp_path, [], size=(6, 4)))
    assert "is 12 x 8 pixels, but" in data.mismatch(0)
    with pytest.raises(
        DataError, match=r"0\.png: is 12 x 8 pixels, but .*a\.json says 6 x 4: its labels belong to another"
    ):
        data[0]


def test_a_category_called_background(tmp_path):
    objects = [{"category_id": 1, "segmentation": square(0, 0, 3, 3)}]
    data = CocoMaskDataset(write(tmp_path, objects, names=("cat", "Background")))
    assert data.classes == ("cat", "Background")
    assert data[0].target.mask[0, 0] == 0
    assert data[0].target.mask[7, 11] == 1


def test_ignored_categories_and_fixed_classes(tmp_path):
    objects = [
        {"category_id": 1, "segmentation": square(0, 0, 3, 3)},
        {"category_id": 2, "segmentation": square(6, 0, 3, 3)},
    ]
    file = write(tmp_path, objects, names=("cat", "ignore", "unused"))
    data = CocoMaskDataset(file)
    assert data.classes == ("background", "cat", "unused")
    assert data[0].target.mask[0, [0, 6, 11]].tolist() == [1, 255, 0]
    assert CocoMaskDataset(file, ignore=["cat"]).classes == ("background", "ignore", "unused")
    fixed = CocoMaskDataset(file, classes=["cat", "cow", "background"])  # a category without objects is of no matter
    assert fixed.classes == ("cat", "cow", "background")
    assert fixed[0].target.mask[0, [0, 6, 11]].tolist() == [0, 255, 2]
    with pytest.raises(DataError) as e:
        CocoMaskDataset(file, classes=["background", "cats"])
    assert str(e.value) == (
        f"{file}: class 'cat' is not one of background, cats; did you mean 'cats'?; rename it, or ignore its pixels with "
        "--data.ignore [cat]"
    )
    with pytest.raises(DataError, match="class 'background' is not one of cat, ignore"):
        CocoMaskDataset(file, classes=["cat", "ignore"])
    with pytest.raises(UsageError, match=r"ignore: class 'cow' is not one of background, cat, ignore, unused"):
        CocoMaskDataset(file, ignore=["cow"])


def test_wrong_segmentations_are_left_out_and_told(tmp_path):
    file = write(
        tmp_path,
        [
            {"category_id": 1, "segmentation": square(0, 0, 3, 3)},
            {"category_id": 1, "segmentation": [[1, 2, 3]]},
            {"category_id": 1},
            {"category_id": 1, "segmentation": {"size": [9, 9], "counts": [81]}},
            {"category_id": 1, "segmentation": {"size": [8, 12], "counts": [5]}},
        ],
    )
    data = CocoMaskDataset(file)
    assert len(data.problems) == 4
    for k, problem in enumerate(data.problems, 1):
        assert problem.startswith(f"{file}: annotation {10 + k} (annotations[{k}])")
        assert problem.endswith("; left out")
    assert data.subset([]).problems == []
    assert (data[0].target.mask == 1).sum() == 9


def test_a_file_with_boxes_alone(tmp_path):
    file = write(tmp_path, [{"category_id": 1}, {"category_id": 2, "segmentation": []}])
    with pytest.raises(DataError) as e:
        CocoMaskDataset(file)
    assert str(e.value) == (
        f"{file}: none of its 2 annotations has a segmentation, only boxes; give a file with polygons or run lengths, or "
        "train a detector"
    )


def test_an_image_that_cannot_be_read_has_no_size(tmp_path):
    file = write(tmp_path, [{"category_id": 1, "segmentation": square(0, 0, 3, 3)}], size=None)
    (tmp_path / "0.png").write_bytes(b"nothing")
    data = CocoMaskDataset(file)
    assert data.mismatch(0) is None  # the check of the images says it
    with pytest.raises(DataError, match=r"0\.png: its size is not known; write its width and height into .*a\.json"):
        data.read_mask(0)


def test_real_outlines_are_painted_as_pycocotools_paints_them(data_root):
    pycoco = pytest.importorskip("pycocotools.coco")
    file = data_root / "coco128" / "annotations" / "instances_train2017.json"
    data = CocoMaskDataset(file)
    assert len(data) == 128
    assert len(data.classes) == 81
    assert data.problems == []
    coco = pycoco.COCO(str(file))
    ids = {c["id"]: data.classes.index(c["name"]) for c in coco.loadCats(coco.getCatIds())}
    crowds = 0
    for i, entry in enumerate(data.entries):
        objects = coco.loadAnns(coco.getAnnIds([entry.extra["image_id"]]))
        masks = [coco.annToMask(o) for o in objects]
        crowds += sum(o["iscrowd"] for o in objects)
        order = sorted(range(len(objects)), key=lambda k: (-objects[k]["iscrowd"], -int(masks[k].sum())))
        expected = np.zeros(data.read_mask(i).shape, np.uint8)
        for k in order:
            expected[masks[k] == 1] = ids[objects[k]["category_id"]]
        assert (data.read_mask(i) == expected).all()
        assert data.mismatch(i) is None
    assert crowds == 10
