"""What a folder holds: task, format, root and options, the likeliest first."""

import json

import pytest

from tests import corpus
from visionkit.cli.recognise import TABLES, recognise
from visionkit.core.errors import DataError, UsageError
from visionkit.data.formats import find_splits


@pytest.mark.parametrize("name", corpus.FORMATS)
def test_every_format_is_recognised_and_can_be_read_so(tmp_path, name):
    make, task = corpus.FORMATS[name]
    candidates = recognise(make(tmp_path / "data"))
    found = next(c for c in candidates if c.task == task)
    assert found.format == name.partition(",")[0]
    assert found.problem is None
    assert found.data_options == ({"masks": True} if task == "instance" else {})
    splits = find_splits(found.root, TABLES[found.task], **found.data_options)
    assert len(splits.train) == len(splits.val) == 30
    assert candidates[0].task == {"instance": "detection"}.get(task, task) or name == "COCO JSON, pixels"


def test_outlines_are_told_behind_boxes(tmp_path):
    assert [(c.task, c.data_options) for c in recognise(corpus.coco(tmp_path))] == [
        ("detection", {}),
        ("instance", {"masks": True}),
        ("segmentation", {}),
    ]
    assert [c.task for c in recognise(corpus.yolo_polygons(tmp_path / "yolo"))] == ["detection", "instance"]


def test_boxes_alone_are_no_masks(tmp_path):
    for file in corpus.coco(tmp_path).glob("annotations/*.json"):
        content = json.loads(file.read_text())
        for record in content["annotations"]:
            record["segmentation"] = []
        file.write_text(json.dumps(content))
    assert [c.task for c in recognise(tmp_path)] == ["detection"]
    assert [c.task for c in recognise(tmp_path / "annotations" / "instances_train.json")] == ["detection"]


def test_mask_files_in_a_folder_called_labels_are_no_yolo(tmp_path):
    found = recognise(corpus.mask_folders(tmp_path, masks="labels/{}"))
    assert [(c.task, c.format) for c in found] == [("segmentation", "mask folders")]


def test_what_is_broken_comes_last_with_its_problem(tmp_path):
    corpus.mask_folders(tmp_path)
    (tmp_path / "data.yaml").write_text("train: [1\n")
    first, last = recognise(tmp_path)
    assert (first.task, last.task) == ("segmentation", "detection")
    assert "no valid YAML" in str(last.problem)


def test_nothing_to_understand(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        recognise(tmp_path / "none")
    with pytest.raises(DataError, match="holds no images and no labels"):
        recognise(tmp_path)
    corpus.pictures(tmp_path / "a" / "b", "train")
    with pytest.raises(UsageError, match="neither a folder nor a file"):
        recognise(tmp_path / "a" / "b" / "train00.jpg")


def test_a_config_says_all(tmp_path):
    root = corpus.coco(tmp_path / "data")
    file = tmp_path / "c.yaml"
    file.write_text(
        "model: {class_path: Detector, init_args: {neck: {class_path: FPN}}}\n"
        f"data: {{class_path: visionkit.DetectionData, init_args: {{root: {root}, masks: true, size: 96}}}}\n"
    )
    (found,) = recognise(file)
    assert (found.task, found.format, found.root) == ("instance", "COCO JSON", root)
    assert (found.data_options, found.settings["size"]) == ({"masks": True}, 96)
    assert found.model["init_args"]["neck"] == {"class_path": "FPN"}


def test_a_config_of_several_heads(tmp_path):
    corpus.coco(tmp_path / "a")
    corpus.mask_folders(tmp_path / "b")
    file = tmp_path / "c.yaml"
    parts = [
        f"things: {{class_path: DetectionData, init_args: {{root: {tmp_path / 'a'}}}}}",
        f"stuff: {{class_path: SegmentationData, init_args: {{root: {tmp_path / 'b'}}}}}",
    ]
    file.write_text(f"data: {{class_path: MultiTaskData, init_args: {{size: 64, datasets: {{{', '.join(parts)}}}}}}}\n")
    assert [(c.task, c.settings["size"]) for c in recognise(file)] == [("detection", 64), ("segmentation", 64)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{class_path: DetectionData}", "data.root is not set"),
        ("{class_path: Mine, init_args: {root: .}}", "Mine is not one of"),
        ("{init_args: {root: .}}", "names no class"),
    ],
)
def test_configs_that_say_too_little(tmp_path, data, words):
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {data}\n")
    with pytest.raises(UsageError, match=words):
        recognise(file)


def test_real_sets(data_root):
    def tasks(name):
        return [(c.task, c.format) for c in recognise(data_root / name)]

    assert tasks("coco128") == [("detection", "COCO JSON"), ("segmentation", "mask folders")]
    assert tasks("detection/bccd") == [("detection", "Pascal VOC")]
    assert tasks("segmentation/camvid") == [("segmentation", "mask folders")]
    assert tasks("classification/coco5") == [("classification", "class folders")]


def test_labels_that_are_not_read_are_named(tmp_path):
    shape = {"label": "red", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
    labels = json.dumps({"version": "5.0", "shapes": [shape], "imagePath": "0.png", "imageData": None})
    make, _ = corpus.FORMATS["class folders"]
    root = make(tmp_path / "folders")
    (next(f for f in sorted(root.rglob("*")) if f.is_dir()) / "0.json").write_text(labels)
    assert [c.reason for c in recognise(root)] == [
        "a folder of images per class (LabelMe JSON labels lie there, too, and are not read)"
    ]
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/0.json").write_text(labels)
    with pytest.raises(DataError, match=r"0\.json: labels as LabelMe JSON, which are not read; convert them to COCO"):
        recognise(tmp_path / "loose")
