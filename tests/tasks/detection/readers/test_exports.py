"""Whole exports as labelling tools write them: their splits and classes, as they were made there."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.data.formats import find_splits
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.segmentation.readers.formats import FORMATS as PIXELS

SPLITS = {"Train": range(4), "Validation": range(4, 6)}
VOC = (
    "<annotation><folder/><filename>{name}.png</filename><size><width>40</width><height>30</height></size><object>"
    "<name>red</name><occluded>0</occluded><bndbox><xmin>8</xmin><ymin>6</ymin><xmax>28</xmax><ymax>22</ymax></bndbox>"
    "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes></object></annotation>"
)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour_of(path)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def names(data):
    return sorted(Path(id).stem for id in data.ids)


def cvat_voc(folder, below):
    for split, numbers in SPLITS.items():
        stems = [f"{split}/{i}" if below else str(i) for i in numbers]
        for stem in stems:
            picture(folder / f"JPEGImages/{stem}.png")
            text(folder / f"Annotations/{stem}.xml", VOC.format(name=stem))
        text(folder / f"ImageSets/Main/{split}.txt", "".join(f"{s}\n" for s in stems))


def cvat_ultralytics(folder, below):
    for split, numbers in SPLITS.items():
        place = split if below else ""
        for i in numbers:
            picture(folder / "images" / place / f"{i}.png")
            text(folder / "labels" / place / f"{i}.txt", "0 0.45 0.4666667 0.5 0.5333333\n")
        text(folder / f"{split}.txt", "".join(f"data/images/{place}/{i}.png\n" for i in numbers))
    text(folder / "data.yaml", "Train: Train.txt\nValidation: Validation.txt\nnames:\n  0: red\npath: .\n")


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("export", [cvat_voc, cvat_ultralytics])
def test_subsets_of_cvat(tmp_path, export, below):
    export(tmp_path, below)
    found = find_splits(tmp_path, FORMATS)
    assert (names(found.train), names(found.val)) == (["0", "1", "2", "3"], ["4", "5"])
    assert found.train.classes == ("red",)
    assert found.val[0].target.boxes[0].tolist() == pytest.approx([8, 6, 28, 22], abs=1e-4)


def test_masks_of_cvat(tmp_path):
    for split, numbers in SPLITS.items():
        for i in numbers:
            picture(tmp_path / f"JPEGImages/{i}.png")
            mask = Image.new("RGB", (40, 30))
            mask.paste((255, 0, 0), (8, 6, 28, 22))
            (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
            mask.save(tmp_path / f"SegmentationClass/{i}.png")
        text(tmp_path / f"ImageSets/Segmentation/{split}.txt", "".join(f"{i}\n" for i in numbers))
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred:255,0,0::\n")
    found = find_splits(tmp_path, PIXELS)
    assert (names(found.train), names(found.val)) == (["0", "1", "2", "3"], ["4", "5"])
    assert found.train.classes == ("background", "red")
    assert (found.val.read_mask(0)[6:22, 8:28] == 1).all()


def test_yolo_of_label_studio(tmp_path):
    for i in range(6):
        picture(tmp_path / f"images/{i}.png")
        text(tmp_path / f"labels/{i}.txt", "1 0.45 0.4666667 0.5 0.5333333\n")
    text(tmp_path / "classes.txt", "blue\nred\n")
    categories = [{"id": 0, "name": "blue"}, {"id": 1, "name": "red"}]
    text(tmp_path / "notes.json", json.dumps({"categories": categories, "info": {"contributor": "Label Studio"}}))
    found = find_splits(tmp_path, FORMATS)
    assert found.source.startswith("YOLO of ")
    assert found.train.classes == ("blue", "red")
    assert found.train[0].target.labels.tolist() == [1]
