"""YOLO's text files of predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import SIZE, coco_results, coco_scene, measured_boxes, picture, write_json
from visionkit import DataError, ImageInfo, UsageError
from visionkit.evaluation.inputs.found import FoundObject, object_prediction
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.detection.writers import YoloWriter


def scene(folder, images=3, names="dog\nbird\ncat\n"):
    """A YOLO data set."""
    for k in range(images):
        picture(folder / "images" / f"{k:03d}.png")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{k:03d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "classes.txt").write_text(names)
    return YoloDataset(folder)


def predicted(folder, lines, name="001.txt", **options):
    out = folder / "predicted"
    out.mkdir(exist_ok=True)
    (out / name).write_text(lines)
    data = options.pop("data", None) or scene(folder / "data")
    task = options.pop("task", "detection")
    return read_predictions(out, task=task, dataset=data, classes=data.classes, **options)


def test_a_line_by_hand(tmp_path):
    found = predicted(tmp_path, "2 0.5 0.25 0.25 0.5 0.125\n\n0 0.25 0.5 0.5 1 0.75\n")
    assert found[1].boxes.tolist() == [[0, 0, 80, 120], [60, 0, 100, 60]]
    assert found[1].scores.tolist() == [0.75, 0.125]
    assert found[1].labels.tolist() == [0, 2]
    assert len(found[0]) == len(found[2]) == 0
    assert len(found.missing) == 2
    assert "class numbers are taken in the order of the data's classes (0 dog, 1 bird, 2 cat)" in found.remarks[0]
    assert "2 of 3 images have no file" in found.remarks[1]


@pytest.mark.parametrize("name", ["classes.txt", "data.yaml", "../data.yaml"])
def test_names_beside_the_predictions_count_before_positions(tmp_path, name):
    text = "cat\ndog\nbird\n" if name.endswith("txt") else "names: [cat, dog, bird]\n"
    (tmp_path / "predicted").mkdir()
    (tmp_path / "predicted" / name).write_text(text)
    found = predicted(tmp_path, "0 0.5 0.25 0.25 0.5 0.125\n")
    assert found[1].labels.tolist() == [2]
    assert len(found.remarks) == 1


def test_polygons_are_masks(tmp_path):
    line = "1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5 0.5\n"
    found = predicted(tmp_path, line, task="instance")[1]
    assert found.boxes.tolist() == [[40, 30, 80, 60]]
    assert found.pasted.areas().tolist() == [40 * 30]
    assert predicted(tmp_path, line)[1].boxes.tolist() == [[40, 30, 80, 60]]
    with pytest.raises(DataError, match=r"001\.txt:1: a box alone, and masks are compared"):
        predicted(tmp_path, "1 0.25 0.25 0.5 0.25 0.5\n", task="instance")


def test_a_run_of_ultralytics_is_read_with_its_folders(tmp_path):
    data = scene(tmp_path)
    labels = tmp_path / "runs" / "detect" / "predict" / "labels"
    labels.mkdir(parents=True)
    (labels / "002.txt").write_text("1 0.480109 0.631250 0.691094 0.712500 0.883434\n")
    found = read_predictions(labels.parent, task="detection", dataset=data, classes=data.classes)
    assert found[2].scores.tolist() == pytest.approx([0.883434])


def test_measured_as_the_same_boxes_of_coco_results(tmp_path):
    data = coco_scene(tmp_path / "data")
    results = coco_results(data.file)
    names = {3: "cat", 7: "dog", 9: "bird"}
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.txt").write_text("bird\ncat\ndog\n")
    for one in results:
        x, y, w, h = one["bbox"]
        number = ["bird", "cat", "dog"].index(names[one["category_id"]])
        shares = ((x + w / 2) / SIZE[1], (y + h / 2) / SIZE[0], w / SIZE[1], h / SIZE[0], one["score"])
        with (labels / f"{(one['image_id'] - 11) // 3:03d}.txt").open("a") as file:
            file.write(" ".join([str(number), *(f"{v:.17g}" for v in shares)]) + "\n")
    options = {"task": "detection", "dataset": data, "classes": data.classes}
    by_text = measured_boxes(read_predictions(labels, **options), data)
    by_json = measured_boxes(read_predictions(write_json(tmp_path, results), **options), data)
    assert by_json["map"] > 0.2
    for key, value in by_json.items():
        assert np.allclose(by_text[key], value, atol=1e-6, equal_nan=True), key


BROKEN = {
    "labels": ("0 0.5 0.5 0.5 0.5", r"5 columns: a box without a confidence, as labels.*save_conf=True"),
    "outlines of labels": ("0 0.1 0.1 0.2 0.1 0.2 0.2", "7 columns: a polygon without a confidence"),
    "too few": ("0 0.5 0.5", "3 columns; write class cx cy w h confidence"),
    "commas": ("0,0.5,0.5,0.5,0.5,0.9", "holds a comma or semicolon"),
    "text": ("dog 0.5 0.5 0.5 0.5 0.9", "'dog' is no number"),
    "half a class": ("0.5 0.5 0.5 0.5 0.5 0.9", "class 0.5 is no whole number"),
    "a class that has no name": (
        "3 0.5 0.5 0.5 0.5 0.9",
        "class 3, and the list of the data.s classes names the classes 0 to 2",
    ),
    "pixels": ("0 80 60 40 30 0.9", "holds 80: this looks like pixels"),
    "NaN": ("0 nan 0.5 0.5 0.5 0.9", "holds nan"),
    "a side below 0": ("0 0.5 0.5 -0.5 0.5 0.9", "a side of the box is below 0"),
    "a score of 90 %": ("0 0.5 0.5 0.5 0.5 90", "the confidence, the last column, is 90, not from 0 to 1"),
}


@pytest.mark.parametrize(("line", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, line, words):
    with pytest.raises(DataError, match=r"001\.txt:2: " + words):
        predicted(tmp_path, f"0 0.5 0.5 0.5 0.5 0.9\n{line}\n")


def test_files_of_no_image_and_folders_of_nothing(tmp_path):
    with pytest.raises(DataError, match="none of its 1 images is in the data: it names 009, the data have"):
        predicted(tmp_path, "", name="009.txt")
    (tmp_path / "empty").mkdir()
    data = scene(tmp_path)
    with pytest.raises(UsageError, match="empty: holds no predictions that are understood, and the data want boxes"):
        read_predictions(tmp_path / "empty", task="detection", dataset=data, classes=data.classes)


shares = st.floats(0, 1, width=32)
objects = st.lists(
    st.tuples(
        st.integers(0, 100), st.integers(0, 80), st.integers(1, 59), st.integers(1, 39), shares, st.integers(0, 2)
    ),
    max_size=6,
)


@given(st.lists(objects, min_size=2, max_size=2))
@settings(max_examples=12)
def test_what_is_written_is_read_to_its_six_digits(tmp_path_factory, found):
    """Half a millionth of the picture and of the score: of 160 pixels 0.0002."""
    folder = tmp_path_factory.mktemp("written")
    data = scene(folder, 2)
    writer = YoloWriter(WriterJob(folder / "out", ("cat", "bird", "dog"), tuple(data.ids)))
    said = [
        object_prediction([FoundObject((x, y, x + w, y + h), s, k) for x, y, w, h, s, k in one], SIZE, masks=False)
        for one in found
    ]
    for id, prediction in zip(data.ids, said, strict=True):
        writer.add(ImageInfo(id, SIZE), prediction)
    writer.finish()
    again = read_predictions(folder / "out", task="detection", dataset=data, classes=data.classes)
    for k, prediction in enumerate(said):
        labels = [("cat", "bird", "dog")[i] for i in prediction.labels]
        assert [data.classes[i] for i in again[k].labels] == labels
        assert again[k].scores.tolist() == pytest.approx(prediction.scores.tolist(), abs=6e-7)
        assert np.allclose(again[k].boxes.numpy(), prediction.boxes.numpy(), atol=3e-4)


def test_labels_of_real_photos_with_a_confidence_are_wholly_right(tmp_path, data_root):
    """The same objects as COCO JSON: names of classes and of files join them."""
    data = CocoDataset(data_root / "coco128/annotations/boxes_val2017.json")
    for file in (data_root / "coco128/labels/val2017").glob("*.txt"):
        lines = [f"{line} 0.9\n" for line in file.read_text().splitlines()]
        (tmp_path / file.name).write_text("".join(lines))
    found = read_predictions(tmp_path, task="detection", dataset=data, classes=data.classes)
    metric = DetectionMetric(data.classes)
    for k in range(len(data)):
        target, info = data.target_of(k, found[k].size)
        metric.update([found[k]], [target.restore(info)])
    values = metric.compute()
    assert float(values["map_50"]) == float(values["map_75"]) == 1
    assert int(values["errors/missed"]) == int(values["errors/background"]) == 0
