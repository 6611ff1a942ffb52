"""visionkit's own records, read back as they were written."""

import json

import numpy as np
import pytest
import torch

from tests.scenes import SIZE, coco_results, coco_scene, measured_boxes, picture, write_json
from visionkit import DataError, ImageInfo
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.classification.readers.manifest import ManifestDataset
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.segmentation.readers.reader import MaskFolderDataset
from visionkit.tasks.segmentation.types import MaskPrediction
from visionkit.tasks.segmentation.writers import MaskWriter


def write(folder, pairs, names):
    """Records of predictions by the paths of their pictures, as ``predict`` writes them."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"image": id, **said.record(names)}) for id, said in pairs]
    file = folder / "predictions.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def read(path, task, data, **options):
    return read_predictions(path, task=task, dataset=data, classes=data.classes, **options)


@pytest.mark.parametrize("masks", [False, True])
def test_objects_are_measured_as_the_coco_results_that_they_come_from(tmp_path, masks):
    data = coco_scene(tmp_path, 6, masks=masks)
    task = "instance" if masks else "detection"
    found = read(write_json(tmp_path, coco_results(data.file, masks=masks)), task, data)
    file = write(tmp_path / "out", [(data.ids[k], found[k]) for k in (3, 1, 0, 2, 5, 4)], data.classes)
    for path in (file, file.parent):
        again = read(path, task, data)
        assert [again[k].record(data.classes) for k in again] == [found[k].record(data.classes) for k in found]
        by_records, by_coco = measured_boxes(again, data, masks=masks), measured_boxes(found, data, masks=masks)
        for key, value in by_coco.items():
            assert torch.equal(by_records[key].nan_to_num(), value.nan_to_num()), key


def test_boxes_of_masks_can_be_evaluated_alone(tmp_path):
    data = coco_scene(tmp_path, 3, masks=True)
    found = read(write_json(tmp_path, coco_results(data.file, masks=True)), "instance", data)
    file = write(tmp_path / "out", [(data.ids[k], found[k]) for k in found], data.classes)
    again = read(file, "detection", data)
    assert torch.equal(again[0].boxes, found[0].boxes)


def test_images_without_a_record_have_no_objects(tmp_path):
    data = coco_scene(tmp_path, 3)
    found = read(write_json(tmp_path, coco_results(data.file)), "detection", data)
    again = read(write(tmp_path / "out", [(data.ids[2], found[2])], data.classes), "detection", data)
    assert [len(again[k]) for k in again] == [0, 0, len(found[2])]
    assert again.missing == tuple(data.ids[:2])
    assert again.remarks == (f"2 of 3 images have no record (first: {data.ids[0]}): counted as without objects",)


GOOD = {"label": "cat", "score": 0.5, "box": [1, 2, 3, 4]}
BROKEN = {
    "a strange class": (GOOD | {"label": "cats"}, r"objects\[0\]: class 'cats' is not one of.*did you mean 'cat'"),
    "no class": ({"score": 0.5, "box": [1, 2, 3, 4]}, r"objects\[0\]: the class is None; give its name"),
    "a percentage": (GOOD | {"score": 50}, r"objects\[0\]: score is 50, not from 0 to 1"),
    "three numbers": (GOOD | {"box": [1, 2, 3]}, "a box has 3 numbers, not the four"),
    "no box": ({"label": "cat", "score": 0.5}, "no 'box' in it"),
    "NaN": (GOOD | {"box": [1, 2, 3, float("nan")]}, r"objects\[0\]: box is \[1, 2, 3, nan\]; give x1, y1, x2, y2"),
    "inside out": (GOOD | {"box": [5, 2, 3, 4]}, r"objects\[0\]: box is \[5, 2, 3, 4\]; give x1, y1, x2, y2"),
}


@pytest.mark.parametrize(("one", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_an_object_is_named_with_its_line(tmp_path, one, words):
    data = coco_scene(tmp_path, 2)
    record = {"image": data.ids[0], "width": SIZE[1], "height": SIZE[0], "objects": [one]}
    (tmp_path / "a.jsonl").write_text(f"\n{json.dumps(record)}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*" + words):
        read(tmp_path / "a.jsonl", "detection", data)


def test_what_is_wrong_with_a_record_is_named_with_its_line(tmp_path):
    data = coco_scene(tmp_path, 2)
    good = {"image": data.ids[0], "width": SIZE[1], "height": SIZE[0], "objects": []}
    for records, words in (
        ([good, good], r"a\.jsonl:2: .*000\.png has a prediction already, .*a\.jsonl:1; keep one of the lines"),
        ([good, {"objects": []}], r'a\.jsonl:2: no "image"'),
        ([good, good | {"image": "other.png"}], r"other\.png: no such image in the data"),
        ([good | {"width": 3}], r"a\.jsonl:1: says 3 x 120 pixels, the image of the data has 160 x 120"),
        ([good | {"objects": {}}], r"a\.jsonl:1: objects are \{\}; give a list"),
        (
            [good, {"image": "b", "probabilities": {}}],
            r"a\.jsonl:2: no 'objects' in it: the predictions are of classification, and",
        ),
        ([good, 5], r"a\.jsonl:2: no JSON object"),
    ):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        with pytest.raises(DataError, match=words):
            read(tmp_path / "a.jsonl", "detection", data)
    (tmp_path / "a.jsonl").write_text(json.dumps(good | {"objects": [GOOD]}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: objects\[0\]: a box alone, and masks are compared"):
        read(tmp_path / "a.jsonl", "instance", data)
    (tmp_path / "a.jsonl").write_text(json.dumps(good)[:-5])
    with pytest.raises(DataError, match=r"a\.jsonl:1: no valid JSON"):
        read(tmp_path / "a.jsonl", "detection", data)


@pytest.mark.parametrize("several", [False, True])
def test_classes(tmp_path, several):
    column = "labels" if several else "label"
    for k in range(3):
        picture(tmp_path / f"{k}.png")
    (tmp_path / "data.csv").write_text(f"path,{column}\n0.png,cat\n1.png,dog\n2.png,cat\n")
    data = ManifestDataset(tmp_path / "data.csv")
    table = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    table = table if several else table.softmax(1)
    said = [ClassPrediction(row, several, 0.4 if several else 0.5) for row in table]
    names = ("dog", "cat")
    file = write(tmp_path / "out", zip(data.ids, said, strict=True), names)
    found = read(file, "classification", data)
    for k, one in enumerate(said):
        assert found[k].record(data.classes)["probabilities"] == one.record(names)["probabilities"]
        assert set(found[k].record(data.classes).get("labels", ())) == set(one.record(names).get("labels", ()))
    other = {"image": data.ids[0], "probabilities": {"dog": 0.4, "cow": 0.6}} | ({"labels": []} if several else {})
    for change, words in (
        ({}, r"a\.jsonl:1: class 'cow' is not one of cat, dog"),
        ({"probabilities": {"dog": 1.0}}, r"a\.jsonl:1: no probability of cat, a class of the data"),
        ({"probabilities": {"dog": 1.0, "cat": 2}}, r"a\.jsonl:1: the probability of cat is 2, not from 0 to 1"),
    ):
        (tmp_path / "a.jsonl").write_text(json.dumps(other | change) + "\n")
        with pytest.raises(DataError, match=words):
            read(tmp_path / "a.jsonl", "classification", data)
    wrong = {k: v for k, v in other.items() if k != "labels"} | ({} if several else {"labels": []})
    (tmp_path / "a.jsonl").write_text(json.dumps(wrong | {"probabilities": {"dog": 0.5, "cat": 0.5}}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: the prediction gives an image (one class|several classes)"):
        read(tmp_path / "a.jsonl", "classification", data)


def test_pixels_lie_beside_the_records(tmp_path):
    size = (24, 32)
    names = ("tree", "sky", "road")
    said = {}
    for place in ("a", "b"):
        id = str(picture(tmp_path / f"data/images/{place}/1.jpg", size))
        truth = picture(tmp_path / f"data/masks/{place}/1.png", size)
        from PIL import Image

        Image.fromarray(np.zeros(size, np.uint8)).save(truth)
        pixels = np.random.default_rng(len(said)).integers(0, 3, size).astype(np.uint8)
        said[id] = MaskPrediction.from_record({"height": size[0], "width": size[1], "mask": pixels}, names)
    (tmp_path / "data/masks/classes.txt").write_text("sky\nroad\ntree\n")
    data = MaskFolderDataset(tmp_path / "data/images", tmp_path / "data/masks")
    file = write(tmp_path / "out", said.items(), names)
    with pytest.raises(DataError, match="masks: no such folder: the pixels of predictions.jsonl lie there"):
        read(file, "segmentation", data)
    writer = MaskWriter(WriterJob(tmp_path / "out", names, tuple(said)))
    for id, prediction in said.items():
        writer.add(ImageInfo(id, size), prediction)
    writer.finish()
    for path in (file, file.parent, file.parent / "masks"):
        found = read(path, "segmentation", data)
        for k, id in enumerate(data.ids):
            expected = np.array([2, 0, 1], np.uint8)[said[id].labels.numpy()]
            assert (found[k].labels.numpy() == expected).all()
    (tmp_path / "out/masks/b/1.png").unlink()
    with pytest.raises(DataError, match=r"predictions\.jsonl:2: no mask .*1\.png"):
        read(file, "segmentation", data)
