"""Exports of other tools that are not read are called by their names."""

import json

import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError
from visionkit.data.formats import find_splits
from visionkit.data.labels.foreign import find_foreign, foreign_kind
from visionkit.tasks.classification.readers.formats import FORMATS as CLASSES
from visionkit.tasks.detection.readers.formats import FORMATS as BOXES
from visionkit.tasks.segmentation.readers.formats import FORMATS as PIXELS

SQUARE = [[8, 6], [28, 6], [28, 22], [8, 22]]
OBJECT = {"classTitle": "red", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": []}}
SUPERVISELY = {"description": "", "tags": [], "size": {"height": 30, "width": 40}, "objects": [OBJECT]}
SHAPE = {"label": "red", "points": SQUARE, "shape_type": "polygon"}
LABELME = {"version": "5.0", "flags": {}, "shapes": [SHAPE], "imagePath": "0.png", "imageData": None}
REGION = {"shape_attributes": {"name": "rect", "x": 8}, "region_attributes": {"name": "red"}}
VIA = {"0.png1": {"filename": "0.png", "size": 1, "regions": [REGION], "file_attributes": {}}}
STUDIO = [{"id": 1, "annotations": [{"result": [{"original_width": 40, "value": {}}]}], "data": {"image": "0.png"}}]
CREATEML = [{"image": "0.png", "annotations": [{"label": "red", "coordinates": {"x": 1, "y": 2}}]}]
DATUMARO = {"info": {}, "categories": {"label": {"labels": []}}, "items": [{"id": "0", "annotations": []}]}
DARWIN = {"item": {"name": "0.png"}, "annotations": [{"bounding_box": {"h": 1, "w": 1, "x": 1, "y": 1}}]}
CVAT = '<annotations><version>1.1</version><image id="0" name="0.png"><box label="red" xtl="8"/></image></annotations>'
KITTI = "Car 0.00 0 -1.57 8.00 6.00 28.00 22.00 1.5 1.6 3.9 1 1 10 -1.5\n"

FILES = [
    ("ds/ann/0.png.json", SUPERVISELY, "Supervisely JSON"),
    ("ann/0.png.json", SUPERVISELY, "Supervisely JSON"),
    ("0.json", LABELME, "LabelMe JSON"),
    ("via.json", VIA, "VIA's own format"),
    ("via.csv", "filename,file_size,region_shape_attributes,region_attributes\n0.png,1,{},{}\n", "VIA's own format"),
    ("project-1.json", STUDIO, "Label Studio JSON"),
    ("_annotations.createml.json", CREATEML, "CreateML JSON"),
    ("annotations/default.json", DATUMARO, "Datumaro JSON"),
    ("annotations/0.json", DARWIN, "Darwin JSON"),
    ("annotations.xml", CVAT, "CVAT XML"),
    ("_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n0.png,40,30,red,8,6,28,22\n", "TensorFlow CSV"),
    ("boxes.csv", "0.png,8,6,28,22,red\n", "CSV of boxes"),
    ("labels.csv", "red,8,6,20,16,0.png,40,30\n", "CSV of boxes"),
    ("label_2/0.txt", KITTI, "KITTI text"),
    ("labelTxt/0.txt", "imagesource:x\ngsd:0.1\n8 6 28 6 28 22 8 22 plane 0\n", "DOTA text"),
]  # fmt: skip


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour_of(folder / name)).save(folder / name)


@pytest.mark.parametrize(("name", "content", "kind"), FILES)
@pytest.mark.parametrize("table", [BOXES, PIXELS], ids=["boxes", "pixels"])
def test_the_kind_is_named_with_what_to_do(tmp_path, name, content, kind, table):
    pictures(tmp_path, "img/0.png", "img/1.png")
    write(tmp_path, name, content)
    with pytest.raises(DataError) as e:
        find_splits(tmp_path, table)
    found = find_foreign(tmp_path)
    assert found.name == kind
    assert str(e.value) == f"{tmp_path / name}: labels as {kind}, which are not read; {found.instead}"


def test_a_file_as_root(tmp_path):
    write(tmp_path, "a.json", STUDIO)
    with pytest.raises(DataError, match=r"a\.json: labels as Label Studio JSON, which are not read; export as COCO"):
        find_splits(tmp_path / "a.json", BOXES)


def test_beside_labels_that_are_read_it_is_said(tmp_path):
    pictures(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(3)))
    write(tmp_path, "a/0.json", LABELME)
    source = find_splits(tmp_path, CLASSES).source
    assert "; LabelMe JSON (a/0.json) labels lie there too and are not read" in source


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}], "categories": []}),
        ("a.xml", "<annotation><object><name>a</name></object></annotation>"),
        ("a.txt", "0 0.5 0.5 0.2 0.2\n"),
        ("a.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n"),
        ("a.csv", "path,label\na.png,cat\n"),
        ("a.json", "no JSON"),
        ("a.png", "x"),
    ],
)
def test_what_is_read_is_not_foreign(tmp_path, name, content):
    write(tmp_path, name, content)
    assert foreign_kind(tmp_path / name) is None
