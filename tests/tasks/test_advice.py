"""What each task chooses from its data, against counts made by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from visionkit import ClassificationData, DetectionData, MultiTaskData, SegmentationData
from visionkit.training.advice import AUTO, Advice


def advised(data, *keys, key="data", scale=1.0, **settings):
    advice = Advice({**dict.fromkeys(keys, AUTO), **settings}, scale=scale)
    data.advise(advice, key)
    return {name: choice.value for name, choice in advice.choices.items()}


def classes(root, counts, size=(150, 120)):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)).save(
                root / name / f"{i}.jpg"
            )
    return ClassificationData(str(root))


@pytest.mark.parametrize(("side", "size"), [(30, 32), (33, 64), (96, 96), (120, 160), (600, 160)])
def test_the_size_of_a_classifier_follows_the_shorter_sides(tmp_path, side, size):
    data = classes(tmp_path, {"a": 4, "b": 4}, (side, side + 10))
    assert advised(data, "data.size")["data.size"] == size


@pytest.mark.parametrize(
    ("side", "scale", "size"),
    [
        (600, 0.6, 96),
        (600, 0.8, 128),
        (600, 1.4, 224),
        (600, 1.05, 160),
        (30, 0.6, 32),
        (110, 0.6, 96),
        (170, 1.4, 160),
    ],
)
def test_the_time_makes_pictures_to_classify_smaller_or_larger(tmp_path, side, scale, size):
    data = classes(tmp_path, {"a": 4, "b": 4}, (side, side + 10))
    assert advised(data, "data.size", scale=scale)["data.size"] == size


@pytest.mark.parametrize(("rare", "balance"), [(10, "none"), (5, "loss"), (1, "sampling")])
def test_balance_follows_the_counts_of_training_images(tmp_path, rare, balance):
    for part, n in (("train", 60), ("val", 2)):
        classes(tmp_path / part, {"a": n, "b": min(n, rare)}, (8, 8))
    assert advised(ClassificationData(str(tmp_path)), "data.balance")["data.balance"] == balance


@pytest.mark.parametrize(
    ("weights", "head", "probe"),
    [(None, "LinearHead", False), ("a.pth", "LinearHead", True), ("a.pth", "MLPHead", False)],
)
def test_a_linear_head_on_pretrained_features_is_probed(tmp_path, weights, head, probe):
    settings = {"model.backbone.weights": weights, "model.head.class_path": head}
    found = advised(classes(tmp_path, {"a": 4, "b": 4}), "model.recipe.probe", **settings)
    assert found["model.recipe.probe"] is probe


@pytest.mark.parametrize(("weights", "first"), [(None, 0.6), ("a.pth", None)])
def test_pictures_grow_from_random_weights(tmp_path, weights, first):
    found = advised(
        classes(tmp_path, {"a": 4, "b": 4}), "model.recipe.progressive", **{"model.backbone.weights": weights}
    )
    assert found["model.recipe.progressive"] == first
    drawn = advised(ClassificationData(), "model.recipe.progressive", **{"model.backbone.weights": weights})
    assert drawn["model.recipe.progressive"] is None


@pytest.mark.parametrize(("epochs", "weights", "share"), [(14, None, 0.0), (30, None, 0.5), (14, "a.pth", 0.5)])
def test_a_short_training_of_a_classifier_from_random_weights_sees_crops_and_mirrors(tmp_path, epochs, weights, share):
    key = "data.augment.ColorJitter.p"
    settings = {"model.backbone.weights": weights, "trainer.max_epochs": epochs}
    assert advised(classes(tmp_path, {"a": 4, "b": 4}), key, **settings) == {key: share}


def coco(root, sides, size=(480, 640), name="ball"):
    """Write twenty images with a box of each side, in pixels."""
    (root / "images").mkdir(parents=True)
    images, boxes = [], []
    for i in range(20):
        Image.fromarray(np.full((*size, 3), i, np.uint8)).save(root / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
        for side in sides:
            boxes.append({"id": len(boxes), "image_id": i, "category_id": 1, "bbox": [5, 5, side, side],
                          "area": side * side, "iscrowd": 0})  # fmt: skip
    file = root / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": name}]}))
    return DetectionData(str(file))


@pytest.mark.parametrize(
    ("sides", "size", "level"),
    [([100, 200], 320, 3), ([24, 100], 448, 3), ([17], 640, 3), ([5, 6], 640, 2)],
)
def test_the_size_of_a_detector_shows_its_objects(tmp_path, sides, size, level):
    found = advised(coco(tmp_path, sides), "data.size", "model.neck.min_level")
    assert found["data.size"] == size
    assert found["model.neck.min_level"] == level


@pytest.mark.parametrize(("scale", "size"), [(0.6, 256), (0.9, 416), (1.0, 448), (1.4, 448)])
def test_a_short_time_makes_pictures_of_objects_smaller(tmp_path, scale, size):
    assert advised(coco(tmp_path, [24, 100]), "data.size", scale=scale)["data.size"] == size


@pytest.mark.parametrize(
    ("epochs", "weights", "shares"),
    [(14, None, (0.0, 0.0, 0.0)), (30, None, (0.3, 0.8, 0.5)), (14, "a.pth", (0.3, 0.8, 0.5))],
)
def test_a_short_training_of_a_detector_from_random_weights_sees_plain_pictures(tmp_path, epochs, weights, shares):
    keys = ("data.mosaic", "data.augment.Affine.p", "data.augment.ColorJitter.p")
    settings = {"model.backbone.weights": weights, "trainer.max_epochs": epochs}
    found = advised(coco(tmp_path, [24, 100]), *keys, **settings)
    assert tuple(found[key] for key in keys) == shares


def test_images_are_not_made_larger_than_they_are(tmp_path):
    assert advised(coco(tmp_path, [3, 30], (100, 120)), "data.size")["data.size"] == 128


def masks(root, size):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(10):
        Image.fromarray(np.full((*size, 3), i, np.uint8)).save(root / "images" / f"{i}.png")
        mask = np.zeros(size, np.uint8)
        mask[: 1 + size[0] // 2] = 1
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return SegmentationData(str(root))


@pytest.mark.parametrize(
    ("shape", "size"), [((360, 480), [272, 368]), ((64, 64), 64), ((1000, 1000), 320), ((90, 44), [96, 48])]
)
def test_the_size_of_a_segmenter_has_the_shape_of_its_images(tmp_path, shape, size):
    assert advised(masks(tmp_path, shape), "data.size")["data.size"] == size


def test_a_short_time_makes_pictures_of_masks_smaller(tmp_path):
    assert advised(masks(tmp_path, (1000, 1000)), "data.size", scale=0.8)["data.size"] == 256
    assert advised(masks(tmp_path / "b", (64, 64)), "data.size", scale=0.6)["data.size"] == 64


def test_a_joint_model_takes_the_largest_size_and_the_batches_of_each(tmp_path):
    data = MultiTaskData({"boxes": coco(tmp_path / "b", [24, 100]), "names": classes(tmp_path / "c", {"a": 4, "b": 4})})
    keys = ("data.size", "data.datasets.names.batch_size", "data.datasets.boxes.batch_size", "trainer.max_epochs")
    found = advised(data, *keys)
    assert found["data.size"] == 448
    assert found["data.datasets.names.batch_size"] == 4
    assert found["data.datasets.boxes.batch_size"] == 4
    assert found["trainer.max_epochs"] == 300


def test_drawn_shapes_are_learnt_in_about_as_many_updates_as_they_need():
    found = advised(ClassificationData(), "data.size", "trainer.max_epochs", "data.batch_size")
    assert found == {"data.size": 96, "trainer.max_epochs": 6, "data.batch_size": 32}
