"""Label files as other tools write them: the right boxes, or a refusal that names file, line and unit; never others."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError
from visionkit.data.formats import find_splits
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.readers.voc import VocDataset
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.detection.writers import _find_images

BOX = "0 0.5 0.5 0.5 0.4"  # of 40 x 30: 10, 9, 30, 21
CORNERS = [10, 9, 30, 21]
TWO_POINTS_3 = " 0.45 0.5 2 0.55 0.5 1"
TWO_POINTS_2 = " 0.45 0.5 0.55 0.5"


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour_of(path)).save(path)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def yolo(folder, line, count=6, yaml=None):
    for i in range(count):
        picture(folder / f"images/{i}.png")
        text(folder / f"labels/{i}.txt", f"{line}\n")
    return folder if yaml is None else text(folder / "data.yaml", f"train: images\nnames: [red]\n{yaml}")


def boxes(data):
    return {Path(data.ids[i]).name: data[i].target.boxes.tolist() for i in range(len(data))}


def coco(folder, names, box=(10, 9, 20, 12), **more):
    content = {
        "images": [{"id": i, "file_name": n, "width": 40, "height": 30} for i, n in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": list(box)} for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "red"}],
    }
    return text(folder / "a.json", json.dumps({**content, **more}))


def voc(path, filename, box):
    tags = "".join(f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    size = "<size><width>40</width><height>30</height></size>"
    return text(
        path,
        f"<annotation><filename>{filename}</filename>{size}\n<object><name>red</name><bndbox>{tags}</bndbox></object>"
        "</annotation>",
    )


class TestKeyPoints:
    @pytest.mark.parametrize(
        ("line", "shape"), [(BOX + TWO_POINTS_3, "[2, 3]"), (BOX + TWO_POINTS_2, "[2, 2]"), (BOX, "[2, 3]")]
    )
    def test_the_box_stands_before_key_points(self, tmp_path, line, shape):
        data = YoloDataset(yolo(tmp_path, line, yaml=f"kpt_shape: {shape}\n"))
        assert np.allclose(list(boxes(data).values()), [[CORNERS]] * 6)

    @pytest.mark.parametrize(("line", "shape"), [(BOX + TWO_POINTS_3, r"\[2, 3\]"), (BOX + TWO_POINTS_2, r"\[2, 2\]")])
    def test_without_kpt_shape_they_are_no_polygons(self, tmp_path, line, shape):
        with pytest.raises(DataError, match=rf"0\.txt:1: .*look like key points.*kpt_shape: {shape}"):
            YoloDataset(yolo(tmp_path, line))

    @pytest.mark.parametrize("count", [1, 4])
    def test_a_few_lines_are_told_by_their_sides(self, tmp_path, count):
        with pytest.raises(DataError, match=r"0\.txt:1: .*look like key points.*kpt_shape: \[2, 2\]"):
            YoloDataset(yolo(tmp_path, "0 0.5 0.5 0.2 0.3 0.45 0.5 0.55 0.5", count=count))

    def test_a_few_lines_that_can_be_both_are_said(self, tmp_path):
        line = "0 0.5 0.5 0.55 0.5 0.55 0.55 0.5 0.55"
        told = "; all 4 lines of more than 5 columns are read as polygons (first: "
        assert told in find_splits(yolo(tmp_path, line, count=4), FORMATS).source
        told = "are read as polygons"
        assert (
            told not in find_splits(yolo(tmp_path / "b", "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9", count=4), FORMATS).source
        )

    def test_polygons_stay_polygons(self, tmp_path):
        data = YoloDataset(yolo(tmp_path, "0 0.25 0.3 0.75 0.3 0.75 0.7 0.25 0.7"))
        assert np.allclose(list(boxes(data).values()), [[CORNERS]] * 6)

    def test_another_number_of_columns_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"0\.txt:1: 9 columns; with kpt_shape \[2, 3\] a line has 11"):
            YoloDataset(yolo(tmp_path, BOX + TWO_POINTS_2, yaml="kpt_shape: [2, 3]\n"))


class TestUnits:
    def test_yolo_in_pixels(self, tmp_path):
        with pytest.raises(DataError, match=r"0\.txt:1: .*pixels.*shares"):
            YoloDataset(yolo(tmp_path, "0 20 15 20 12"))

    @pytest.mark.parametrize("line", ["0 1e999 0.5 0.2 0.2", "0 nan 0.5 0.2 0.2"])
    def test_what_is_not_finite_is_no_pixel(self, tmp_path, line):
        data = YoloDataset(yolo(tmp_path, line))
        assert "no finite number" in data.problems[0]
        assert boxes(data) == {f"{i}.png": [] for i in range(6)}

    def test_numbers_are_not_python(self, tmp_path):
        with pytest.raises(DataError, match=r"0\.txt:1: '1_0' is no number"):
            YoloDataset(yolo(tmp_path, "0 1_0 0.5 0.2 0.2"))

    @pytest.mark.parametrize("box", [(0.25, 0.3, 0.5, 0.4), (0.6, 0.3, 0.45, 0.4)])
    def test_coco_in_shares(self, tmp_path, box):
        names = [picture(tmp_path / f"{i}.png").name for i in range(3)]
        with pytest.raises(DataError, match=r"a\.json: annotation 1 .*3 of 3 boxes lie within 0\.\.1.*pixels"):
            CocoDataset(coco(tmp_path, names, box))

    def test_coco_in_shares_but_for_one(self, tmp_path):
        names = [picture(tmp_path / f"{i}.png").name for i in range(3)]
        file = coco(tmp_path, names, (0.25, 0.3, 0.5, 0.4))
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"] = [10, 9, 20, 12]
        text(file, json.dumps(content))
        with pytest.raises(DataError, match=r"annotation 2 .*2 of 3 boxes"):
            CocoDataset(file)

    def test_one_tiny_box_is_legal(self, tmp_path):
        names = [picture(tmp_path / f"{i}.png").name for i in range(3)]
        file = coco(tmp_path, names)
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"] = [0.2, 0.2, 0.4, 0.4]
        data = CocoDataset(text(file, json.dumps(content)))
        assert np.allclose(boxes(data)["0.png"], [[0.2, 0.2, 0.6, 0.6]])

    def test_voc_in_shares(self, tmp_path):
        for i in range(2):
            picture(tmp_path / f"JPEGImages/{i}.png")
            voc(tmp_path / f"Annotations/{i}.xml", f"{i}.png", (0.25, 0.3, 0.75, 0.7))
        with pytest.raises(DataError, match=r"0\.xml:2: 2 of 2 boxes lie within 0\.\.1.*pixels"):
            VocDataset(tmp_path)


class TestOwnPictures:
    def test_an_xml_file_belongs_to_the_image_of_its_own_name(self, tmp_path):
        for i in range(3):
            picture(tmp_path / f"JPEGImages/{i}.png")
            voc(tmp_path / f"Annotations/{i}.xml", f"{(i + 1) % 3}.png", (i, 9, 30, 21))
        assert boxes(VocDataset(tmp_path)) == {f"{i}.png": [[i, 9, 30, 21]] for i in range(3)}

    def test_a_missing_image_of_its_own_name_is_missing(self, tmp_path):
        for i in (0, 2):
            picture(tmp_path / f"JPEGImages/{i}.png")
        for i in (0, 1):
            voc(tmp_path / f"Annotations/{i}.xml", f"{i + 1}.png", (i, 9, 30, 21))
        with pytest.raises(DataError, match=r"1\.xml: no image of its own name; its <filename> says 2\.png"):
            VocDataset(tmp_path)

    def test_filename_counts_where_no_file_has_an_image_of_its_name(self, tmp_path):
        for i in range(2):
            picture(tmp_path / f"JPEGImages/p{i}.png")
            voc(tmp_path / f"Annotations/{i}.xml", f"p{i}.png", (i, 9, 30, 21))
        assert boxes(VocDataset(tmp_path)) == {f"p{i}.png": [[i, 9, 30, 21]] for i in range(2)}

    def test_folders_below_annotations(self, tmp_path):
        for k, part in enumerate(("a", "b")):
            picture(tmp_path / f"JPEGImages/{part}/0.png")
            voc(tmp_path / f"Annotations/{part}/0.xml", "0.png", (k, 9, 30, 21))
        data = VocDataset(tmp_path)
        assert {data.entries[i].key: data[i].target.boxes.tolist() for i in range(2)} == {
            "JPEGImages/a/0.png": [[0, 9, 30, 21]],
            "JPEGImages/b/0.png": [[1, 9, 30, 21]],
        }

    @pytest.mark.parametrize("line", ["train/", "/", "   /"])
    def test_a_list_with_a_name_that_is_none(self, tmp_path, line):
        picture(tmp_path / "JPEGImages/0.png")
        voc(tmp_path / "Annotations/0.xml", "0.png", (0, 9, 30, 21))
        text(tmp_path / "ImageSets/Main/train.txt", f"0\n{line}\n")
        with pytest.raises(DataError, match=r"train\.txt:2: .*no such file"):
            VocDataset(tmp_path, "train")

    def test_coco_takes_no_other_folder(self, tmp_path):
        for name in ("images/0.png", "images/cam/1.png"):
            picture(tmp_path / name)
        with pytest.raises(DataError, match=r"cam/0\.png: no such file"):
            CocoDataset(coco(tmp_path, ["cam/0.png", "cam/1.png"]))

    @pytest.mark.parametrize(
        "name", ["https://host/set/{}?token=abc", "/data/local-files/?d={}", r"..\media\{}", "old/place/{}"]
    )
    def test_flat_exports_go_by_the_last_part(self, tmp_path, name):
        for i in range(2):
            picture(tmp_path / f"images/{i} a.png")
        data = CocoDataset(
            coco(tmp_path, [name.format(f"{i}%20a.png" if "?" in name else f"{i} a.png") for i in (0, 1)])
        )
        assert boxes(data) == {f"{i} a.png": [CORNERS] for i in range(2)}

    def test_label_files_beside_images_count_whatever_labels_holds(self, tmp_path):
        for i in range(3):
            picture(tmp_path / f"images/{i}.png")
            text(tmp_path / f"images/{i}.txt", f"{BOX}\n")
        text(tmp_path / "labels/classes.txt", "red\n")
        assert np.allclose(list(boxes(YoloDataset(tmp_path)).values()), [[CORNERS]] * 3)

    def test_written_ids_are_those_of_the_named_folder(self, tmp_path):
        names = [("cam1/0.png", 1), (r"cam1\1.png", 2)]
        assert _find_images(["/d/cam1/0.png", "/d/cam1/1.png"], names, Path("a.json")) == {
            "/d/cam1/0.png": 1,
            "/d/cam1/1.png": 2,
        }
        with pytest.raises(DataError, match=r"/d/cam2/0\.png: a\.json has no image of this name; cam1/0\.png is in"):
            _find_images(["/d/cam2/0.png", "/d/cam1/1.png"], names, Path("a.json"))


class TestNames:
    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_both_forms_of_unicode(self, tmp_path, forms):
        disk, file = (unicodedata.normalize(form, "B\xe4r") for form in forms)
        picture(tmp_path / f"y/images/{disk}.png")
        text(tmp_path / f"y/labels/{file}.txt", f"{BOX}\n")
        picture(tmp_path / f"c/images/{disk}/{disk}.png")
        picture(tmp_path / f"v/JPEGImages/{disk}.png")
        voc(tmp_path / f"v/Annotations/{file}.xml", f"{file}.png", CORNERS)
        sets = (
            YoloDataset(tmp_path / "y"),
            CocoDataset(coco(tmp_path / "c", [f"{file}/{file}.png"])),
            VocDataset(tmp_path / "v"),
        )
        for data in sets:
            assert np.allclose(data[0].target.boxes, [CORNERS])

    @pytest.mark.parametrize("train", [r"set\images", r"..\set\images", "set/images", "../images", r".\images"])
    def test_paths_of_a_data_yaml(self, tmp_path, train):
        yolo(tmp_path / "set", BOX)
        file = text(tmp_path / "set/data.yaml", f"train: {train}\nnames: {{'0': red}}\n")
        data = YoloDataset(file)
        assert data.classes == ("red",)
        assert np.allclose(list(boxes(data).values()), [[CORNERS]] * 6)

    def test_a_class_with_two_names(self, tmp_path):
        yolo(tmp_path, BOX)
        file = text(tmp_path / "data.yaml", "train: images\nnames: {0: red, '0': blue}\n")
        with pytest.raises(DataError, match=r"data\.yaml: names: a class has two names"):
            YoloDataset(file)

    def test_a_class_is_numbered_yes(self, tmp_path):
        yolo(tmp_path, BOX)
        with pytest.raises(DataError, match=r"data\.yaml: names: a class is numbered yes or no"):
            YoloDataset(text(tmp_path / "data.yaml", "train: images\nnames: {0: red, yes: blue}\n"))

    @pytest.mark.parametrize("group", [["red"], {"a": 1}, 5, None])
    def test_a_supercategory_that_is_no_name(self, tmp_path, group):
        categories = [{"id": 0, "name": "all"}, {"id": 1, "name": "red", "supercategory": group}]
        data = CocoDataset(coco(tmp_path, [picture(tmp_path / "0.png").name], categories=categories))
        assert data.classes == ("all", "red")

    def test_the_root_is_left_out_before_names_are_compared(self, tmp_path):
        categories = [
            {"id": 0, "name": "red", "supercategory": "none"},
            {"id": 1, "name": "red", "supercategory": "red"},
        ]
        data = CocoDataset(coco(tmp_path, [picture(tmp_path / "0.png").name], categories=categories))
        assert data.classes == ("red",)
        assert data[0].target.boxes.tolist() == [CORNERS]

    def test_ids_and_numbers_as_text(self, tmp_path):
        file = coco(tmp_path, [picture(tmp_path / "0.png").name])
        content = json.loads(file.read_text())
        content["images"][0].update(id="1", width="40", height="30")
        content["annotations"][0].update(category_id="1", bbox=["10", "9", "20", "12"], area="240")
        data = CocoDataset(text(file, json.dumps(content)))
        assert data[0].target.boxes.tolist() == [CORNERS]
        assert data[0].info.extra["image_id"] == "1", "comes back as the file has it"

    def test_a_declared_encoding(self, tmp_path):
        picture(tmp_path / "0.png")
        xml = voc(tmp_path / "0.xml", "0.png", CORNERS).read_text().replace("red", "\u6c7d\u8f66")
        (tmp_path / "0.xml").write_bytes(f'<?xml version="1.0" encoding="gb2312"?>\n{xml}'.encode("gb2312"))
        assert VocDataset(tmp_path).classes == ("\u6c7d\u8f66",)
        (tmp_path / "0.xml").write_bytes(b'<?xml version="1.0" encoding="gb2312"?>\n<annotation>\xff\xff</annotation>')
        with pytest.raises(DataError, match=r"0\.xml:2: is no gb2312 text"):
            VocDataset(tmp_path)


@pytest.mark.parametrize("wrong", [[50, 40, 51, 41], [50, 40], [], ["a"] * 6, [float("nan")] * 6, None])
def test_a_part_that_is_no_polygon_costs_that_part_alone(tmp_path, wrong):
    file = coco(tmp_path, [picture(tmp_path / "0.png").name])
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = [[10, 9, 30, 9, 30, 21, 10, 21], wrong]
    data = CocoDataset(text(file, json.dumps(content)), masks=True)
    assert not data[0].target.crowd.any()
    assert data[0].target.masks.areas().tolist() == [240]
    assert [p.split(": ")[-1] for p in data.problems] == ["segmentation[1] is no polygon of 3 points or more; left out"]


@pytest.mark.parametrize("broken", ["[" * 100_000, "9" * 5000])
def test_json_out_of_bounds_is_named(tmp_path, broken):
    file = text(tmp_path / "a.json", f'{{"images": [],\n"annotations": {broken}')
    with pytest.raises(DataError, match=r"a\.json:\d+: no valid JSON \((nested too deep|a number of thousands)"):
        CocoDataset(file)


class TestNothingIsPassedOver:
    @pytest.mark.parametrize(
        ("kind", "words"), [("pipe", "is a pipe, not a file"), ("folder", "is a folder"), ("link", "no such file")]
    )
    def test_what_has_the_name_of_a_label_file_is_one(self, tmp_path, kind, words):
        yolo(tmp_path, BOX)
        file = tmp_path / "labels" / "0.txt"
        file.unlink()
        {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda path: os.symlink("nowhere", path)}[kind](file)
        with pytest.raises(DataError, match=rf"labels/0\.txt: {words}"):
            YoloDataset(tmp_path)

    def test_upper_case_endings_are_read_and_files_of_no_image_told(self, tmp_path):
        yolo(tmp_path, BOX)
        (tmp_path / "labels" / "0.txt").rename(tmp_path / "labels" / "0.TXT")
        text(tmp_path / "labels" / "classes.txt", "red\n")
        text(tmp_path / "labels" / "img9.txt", f"{BOX}\n")
        assert all(len(found) == 1 for found in boxes(YoloDataset(tmp_path)).values())
        source = find_splits(tmp_path, FORMATS).source
        assert "1 label files are of no image (first:" in source
        assert "img9.txt" in source
        (tmp_path / "labels" / "img9.txt").unlink()
        assert "of no image" not in find_splits(tmp_path, FORMATS).source

    def test_a_key_that_stands_twice_is_refused(self, tmp_path):
        yolo(tmp_path / "yolo", BOX, yaml="nc: 1\nnames: [green]\n")
        with pytest.raises(DataError, match=r"data\.yaml:4: no valid YAML \(the key 'names' stands twice\)"):
            YoloDataset(tmp_path / "yolo" / "data.yaml")
        picture(tmp_path / "coco" / "0.png")
        file = coco(tmp_path / "coco", ["0.png"])
        file.write_text(file.read_text()[:-1] + ', "annotations": []}')
        with pytest.raises(
            DataError, match=r"a\.json: no valid JSON \(the key 'annotations' comes twice in an object\)"
        ):
            CocoDataset(file)
