from functools import partial

import numpy as np
from PIL import Image

from visionkit.data import formats
from visionkit.tasks.segmentation.readers.formats import FORMATS

find_splits = partial(formats.find_splits, table=FORMATS)


def sizes(found):
    return [None if d is None else len(d) for d in (found.train, found.val, found.test)]


def test_real_streets(data_root):
    root = data_root / "segmentation" / "camvid"
    found = find_splits(root)
    assert sizes(found) == [36, 18, None]
    assert found.train.classes == (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    )  # fmt: skip
    assert found.source.endswith("; 11 classes of classes.txt, Unlabelled ignored")
    for data, split in ((found.train, "train"), (found.val, "val")):
        counts = np.zeros(256, np.int64)
        shown = []
        for file in sorted((root / "masks" / split).iterdir()):
            values, n = np.unique(np.asarray(Image.open(file)), return_counts=True)
            counts[values] += n
            shown.append(tuple(int(v) for v in values if v != 11))
        assert data.pixel_counts().tolist() == counts[:11].tolist()
        assert data.labels == shown
        assert [data.mismatch(i) for i in range(len(data))] == [None] * len(data)
    mask = found.val[0].target.mask
    assert (mask.numpy() == 255).sum() == (np.asarray(Image.open(found.val.entries[0].mask)) == 11).sum()


def test_real_photos(data_root):
    root = data_root / "coco128"
    found = find_splits(root)
    assert sizes(found) == [100, 100, None]
    lines = [line.split("\t") for line in (root / "semantic_classes.txt").read_text().splitlines()]
    assert len(found.train.classes) == len(lines) - 1  # less unlabeled
    ids = {name: int(id) for id, name in lines}
    for data in (found.train, found.val):
        assert [data.mismatch(i) for i in range(len(data))] == [None] * 100
        for i in (0, 50, 99):
            stored = np.asarray(Image.open(data.entries[i].mask))
            mask = data[i].target.mask.numpy()
            assert ((mask == 255) == (stored == 0)).all()
            for k in np.unique(mask[mask != 255]):
                assert ((mask == k) == (stored == ids[data.classes[k]])).all()
    assert found.source.startswith(
        f"masks of {root}: train 100 images (images/train2017, semantic_masks/train2017), val 100 images "
        "(images/val2017, semantic_masks/val2017); 129 classes of semantic_classes.txt, unlabeled ignored; 28 images of "
        "train have no mask and are left out; 28 images of val have no mask and are left out; COCO JSON labels lie there too"
    )
