"""COCO results: read as they are, measured as COCO's own programs measure them."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import SIZE, coco_results, coco_scene, measured_boxes, picture, run_lengths, write_json
from visionkit import DataError, ImageInfo
from visionkit.data.labels.masks import ObjectMasks
from visionkit.evaluation.inputs.found import FoundObject, object_prediction
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.detection.writers import CocoMaskWriter, CocoWriter

TWELVE = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100", "mar_small",
    "mar_medium", "mar_large",
)  # fmt: skip


def read(file, data, task="detection", **options):
    return read_predictions(file, task=task, dataset=data, classes=data.classes, **options)


def by_pycocotools(truth, results, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        run = COCOeval(known, known.loadRes(str(results)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def by_faster_coco_eval(truth, results, kind):
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        run = COCOeval_faster(known, known.loadRes(str(results)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("other", [by_pycocotools, by_faster_coco_eval])
def test_boxes_are_measured_as_by_cocos_own_programs(tmp_path, seed, other):
    data = coco_scene(tmp_path, seed=seed)
    file = write_json(tmp_path, coco_results(data.file, seed))
    values = measured_boxes(read(file, data), data)
    for name, expected in zip(TWELVE, other(data.file, file, "bbox"), strict=False):
        assert float(values.get(name, -1)) == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("other", [by_pycocotools, by_faster_coco_eval])
def test_masks_are_measured_as_by_cocos_own_programs(tmp_path, other):
    """Without boxes, from which COCO's programs would take the areas of what they do not match."""
    data = coco_scene(tmp_path, masks=True)
    results = [{k: v for k, v in one.items() if k != "bbox"} for one in coco_results(data.file, masks=True)]
    file = write_json(tmp_path, results)
    values = measured_boxes(read(file, data, "instance"), data, masks=True)
    for name, expected in zip(TWELVE[:6], other(data.file, file, "segm"), strict=False):
        assert float(values.get(f"mask_{name}", -1)) == pytest.approx(expected, abs=1e-6), name


def test_what_is_read_by_hand(tmp_path):
    data = coco_scene(tmp_path, 3)
    results = [
        {"image_id": 14, "category_id": 9, "bbox": [10, 20, 30, 40], "score": 0.25},
        {"image_id": "14", "category_id": 3.0, "bbox": [1, 2, 3, 4.5], "score": 0.75, "id": 5},
    ]
    found = read(write_json(tmp_path, results), data)
    assert list(found) == [0, 1, 2]
    assert found[1].boxes.tolist() == [[1, 2, 4, 6.5], [10, 20, 40, 60]]
    assert found[1].scores.tolist() == [0.75, 0.25]
    assert [data.classes[k] for k in found[1].labels] == ["cat", "bird"]
    assert len(found[0]) == len(found[2]) == 0
    assert found[1].size == SIZE
    assert found.missing == (data.ids[0], data.ids[2])
    assert "2 of 3 images have no detection" in found.remarks[0]
    assert "2 boxes in 1 images" in found.source


def test_no_result_at_all_is_legal(tmp_path):
    data = coco_scene(tmp_path, 3)
    found = read(write_json(tmp_path, []), data)
    assert [len(found[k]) for k in found] == [0, 0, 0]
    assert measured_boxes(found, data)["map"] == 0


def test_masks_alone_have_the_boxes_around_them(tmp_path):
    data = coco_scene(tmp_path, 2)
    mask = np.zeros(SIZE, np.uint8)
    mask[20:50, 10:40] = 1
    polygon = [[100.0, 10, 130, 10, 130, 40, 100, 40]]
    results = [
        {"image_id": 11, "category_id": 3, "segmentation": run_lengths(mask), "score": 0.5},
        {"image_id": 11, "category_id": 3, "segmentation": polygon, "score": 0.75},
    ]
    file = write_json(tmp_path, results)
    assert read(file, data)[0].boxes.tolist() == [[100, 10, 130, 40], [10, 20, 40, 50]]
    found = read(file, data, "instance")[0]
    assert (found.pasted.dense()[1] == mask).all()
    assert found.pasted.areas().tolist() == [900, 900]


def test_ids_of_visionkits_own_results_are_explained_beside_them(tmp_path):
    """Even where the data are COCO's own, with other ids."""
    data = coco_scene(tmp_path, 3)
    out = tmp_path / "out"
    writer = CocoWriter(WriterJob(out, ("bird", "cat", "dog"), tuple(reversed(data.ids))))
    said = object_prediction([FoundObject((1, 2, 3, 4), 0.5, 0)], SIZE, masks=False)
    for id in data.ids:
        writer.add(ImageInfo(id, SIZE), said)
    writer.finish()
    for path in (out, out / "predictions.coco.json"):
        found = read(path, data)
        assert [[data.classes[k] for k in found[p].labels] for p in found] == [["bird"]] * 3


def test_an_annotation_file_explains_ids_where_the_data_are_of_another_format(tmp_path):
    data = coco_scene(tmp_path, 3)
    (tmp_path / "labels").mkdir()
    for k in range(3):
        (tmp_path / "labels" / f"{k:03d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    yolo = YoloDataset(tmp_path)
    file = write_json(tmp_path, [{"image_id": 17, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.5}])
    with pytest.raises(DataError, match="nothing tells which class a category_id is.*--coco-annotations"):
        read(file, yolo)
    found = read(file, yolo, coco_annotations=data.file)
    assert found[2].labels.tolist() == [1]


def test_image_ids_can_be_names_without_ending(tmp_path):
    data = coco_scene(tmp_path, 3)
    file = write_json(tmp_path, [{"image_id": "a/002", "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.5}])
    assert len(read(file, data)[2]) == 1


GOOD = {"image_id": 11, "category_id": 3, "bbox": [10, 20, 30, 40], "score": 0.5}
BROKEN = {
    "no score": ({k: v for k, v in GOOD.items() if k != "score"}, r"\[1\] has no score"),
    "a score of text": (GOOD | {"score": "high"}, r"\[1\]: score is 'high'"),
    "a percentage": (GOOD | {"score": 87.5}, r"\[1\]: score is 87\.5, not from 0 to 1; divide percentages by 100"),
    "a logit": (GOOD | {"score": -3.2}, r"not from 0 to 1; .* of logits take the softmax or sigmoid"),
    "NaN": (GOOD | {"score": math.nan}, r"\[1\]: score is nan"),
    "an infinite box": (GOOD | {"bbox": [0, 0, math.inf, 3]}, r"\[1\]: bbox is .*finite"),
    "three numbers": (GOOD | {"bbox": [0, 0, 3]}, r"\[1\]: bbox is \[0, 0, 3\]; give four numbers"),
    "a box inside out": (GOOD | {"bbox": [30, 30, -10, 5]}, r"\[1\]: bbox has the width -10"),
    "nothing to see": (GOOD | {"bbox": None}, r"\[1\] has neither bbox nor segmentation"),
    "a strange class": (GOOD | {"category_id": 5}, r"\[1\]: category_id 5 is none of the categories \(3 cat, 7 dog"),
    "a strange image": (GOOD | {"image_id": 12}, r"image_id 12 is none of the images of .*instances\.json"),
    "no image": ({k: v for k, v in GOOD.items() if k != "image_id"}, r"\[1\]: has no image_id"),
    "a mask of another size": (
        GOOD | {"bbox": None, "segmentation": {"size": [3, 4], "counts": "<"}}, r"\[1\]: segmentation is of size",
    ),
    "run lengths that do not add up": (
        GOOD | {"bbox": None, "segmentation": {"size": list(SIZE), "counts": "11"}}, r"\[1\]: the run lengths",
    ),
    "no object": (5, r"\[1\] is 5, no object"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named_with_its_place(tmp_path, record, words):
    data = coco_scene(tmp_path, 3)
    with pytest.raises(DataError, match=words) as told:
        read(write_json(tmp_path, [GOOD, record]), data)
    assert all(len(line) < 400 for line in told.value.lines)


def test_whole_files_that_are_something_else(tmp_path):
    data = coco_scene(tmp_path, 3)
    with pytest.raises(DataError, match=r"instances\.json: is a COCO data set .*, no results; give a list"):
        read(data.file, data)
    cut = tmp_path / "cut.json"
    cut.write_text('[\n{"image_id": 11,\n')
    with pytest.raises(DataError, match=r"cut\.json:3: no valid JSON"):
        read(cut, data)
    with pytest.raises(DataError, match="a box alone, and masks are compared; give results with segmentation"):
        read(write_json(tmp_path, [GOOD]), data, "instance")


def test_boxes_in_other_units_are_refused(tmp_path):
    data = coco_scene(tmp_path, 3)
    shares = [GOOD | {"bbox": [0.1, 0.2, 0.3, 0.4], "score": k / 10} for k in range(6)]
    with pytest.raises(DataError, match="shares of the picture"):
        read(write_json(tmp_path, shares), data)
    corners = [GOOD | {"bbox": [90, 70, 150, 110], "score": k / 10} for k in range(6)]
    with pytest.raises(DataError, match="two corners"):
        read(write_json(tmp_path, corners), data)


def test_images_of_the_other_part_of_a_split_are_named(tmp_path):
    data = coco_scene(tmp_path, 4).subset([0, 2])
    results = [GOOD, GOOD | {"image_id": 14}]
    with pytest.raises(DataError, match=r"image_id 14 \(images/001\.png\): not among these images") as told:
        read(write_json(tmp_path, results), data)
    assert "1 of 2 images of" in told.value.lines[-1]


def test_a_class_that_the_data_lack_is_named_with_the_nearest(tmp_path):
    data = coco_scene(tmp_path, 2)
    annotations = json.loads(data.file.read_text())
    annotations["categories"][0]["name"] = "cats"
    other = write_json(tmp_path, annotations, "other.json")
    with pytest.raises(DataError, match=r"class 'cats' is not one of cat, dog, bird; did you mean 'cat'\?"):
        read(write_json(tmp_path, [GOOD]), data, coco_annotations=other)


shares = st.floats(0, 1, width=32)
objects = st.lists(
    st.tuples(
        st.integers(0, 100), st.integers(0, 80), st.integers(1, 59), st.integers(1, 39), shares, st.integers(0, 2)
    ),
    max_size=6,
)


@given(st.lists(objects, min_size=3, max_size=3), st.booleans())
@settings(max_examples=12)
def test_what_is_written_is_read(tmp_path_factory, scene, masks):
    """Bit for bit: JSON has all digits of a number, and run lengths all pixels."""
    folder = tmp_path_factory.mktemp("written")
    ids = [str(picture(folder / f"{k}.png")) for k in range(3)]
    content = {
        "images": [{"id": k, "file_name": f"{k}.png"} for k in range(3)],
        "annotations": [], "categories": [{"id": k, "name": n} for k, n in enumerate("abc")],
    }  # fmt: skip
    from visionkit.tasks.detection.readers.coco import CocoDataset

    data = CocoDataset(write_json(folder, content, "truth.json"))
    said = []
    for found in scene:
        dense = np.zeros((len(found), *SIZE), np.uint8)
        for mask, (x, y, w, h, _, _) in zip(dense, found, strict=True):
            mask[y : y + h, x : x + w] = 1
        outlines = ObjectMasks.from_dense(dense).outlines
        boxes = [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h, _, _ in found]
        rows = zip(found, boxes, outlines, strict=True)
        listed = [FoundObject(b, s, k, o if masks else None) for (_, _, _, _, s, k), b, o in rows]
        said.append(object_prediction(listed, SIZE, masks=masks))
    writer = (CocoMaskWriter if masks else CocoWriter)(WriterJob(folder / "out", ("a", "b", "c"), tuple(ids)))
    for id, prediction in zip(ids, said, strict=True):
        writer.add(ImageInfo(id, SIZE), prediction)
    writer.finish()
    read_again = read(folder / "out", data, "instance" if masks else "detection")
    for k, prediction in enumerate(said):
        assert read_again[k].record("abc") == prediction.record("abc")
