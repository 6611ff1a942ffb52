"""Several targets in one do what each does alone, whatever happens to their picture."""

from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit import Augmentation, BoxTarget, ClassTarget, Mosaic, Preprocessing, RandomScaledCrop
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.dataset import VisionDataset
from visionkit.data.labels.masks import ObjectMasks
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget, flat_classes, names_of
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

SIZE = (40, 56)


def boxes(seed, count=None, *, masks=False, size=SIZE):
    """Boxes, some of which overlap or are crowds, with ellipses for masks where asked for."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5)) if count is None else count
    corner = np.stack([rng.uniform(0, size[1] - 14, n), rng.uniform(0, size[0] - 14, n)], 1)
    placed = np.concatenate([corner, corner + rng.uniform(4, 14, (n, 2))], 1).astype(np.float32)
    known = None
    if masks:
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        middle, half = (placed[:, :2] + placed[:, 2:]) / 2, (placed[:, 2:] - placed[:, :2]) / 2
        dense = [((x - m[0]) / h[0]) ** 2 + ((y - m[1]) / h[1]) ** 2 <= 1 for m, h in zip(middle, half, strict=True)]
        known = ObjectMasks.from_dense(np.array(dense).reshape(n, *size))
    return BoxTarget.make(placed, rng.integers(0, 9, n), crowd=rng.random(n) < 0.2, masks=known)


def mask(seed, size=SIZE):
    pixels = np.random.default_rng(seed).integers(0, 6, size, dtype=np.uint8)
    pixels[pixels == 5] = 255
    return MaskTarget(torch.from_numpy(pixels))


def label(seed):
    return ClassTarget(torch.nn.functional.one_hot(torch.tensor(seed % 4), 4).float())


def everything(seed):
    """All kinds at once: two detectors with masks and one without, two segmenters, a classifier."""
    return {
        "kind": label(seed),
        "parts": boxes(seed, masks=True),
        "ground": mask(seed + 1),
        "signs": boxes(seed + 2, 0 if seed % 3 == 0 else None, masks=True),
        "cars": boxes(seed + 3, 0 if seed % 4 == 0 else None),
        "lanes": mask(seed + 4),
    }


def picture(seed, size=SIZE):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def sample(target, seed=0):
    return Sample(picture(seed), target, ImageInfo(f"{seed}.png", SIZE))


def same(a, b):
    """Whether two targets are equal in every number."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, ObjectMasks):
        return b is not None and a.size == b.size and np.array_equal(a.dense(), b.dense())
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def assert_same(together, alone):
    assert together.keys() == alone.keys()
    for name, part in alone.items():
        assert same(together[name], part), name


class Several(VisionDataset):
    """Pictures with the targets that ``make`` returns for each."""

    classes = ("a",)

    def __init__(self, make, count=6):
        self.make, self.ids = make, [str(i) for i in range(count)]

    def __getitem__(self, index):
        return sample(self.make(index), index)


def alone(name):
    return Several(lambda i: everything(i)[name])


TOGETHER = Several(lambda i: MultiTaskTarget(everything(i)))
SPATIAL = ("parts", "ground", "signs", "cars", "lanes")


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    scale=st.tuples(st.floats(0.3, 2.5), st.floats(0.3, 2.5)),
    offset=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    size=st.tuples(st.integers(8, 70), st.integers(8, 70)),
)
def test_place_is_that_of_each(seed, scale, offset, size):
    parts = everything(seed)
    placed = MultiTaskTarget(parts).place(scale, offset, size)
    expected = {k: p.place(scale, offset, size) for k, p in parts.items() if k != "kind"}
    assert_same(placed.parts, {"kind": parts["kind"]} | {k: expected[k] for k in parts if k != "kind"})
    assert_same(placed.restore(ImageInfo("", SIZE)).parts, parts)


TRANSFORMS = {
    "flips": ["HorizontalFlip", "VerticalFlip"],
    "turn": [{"Affine": {"rotate": [-60, 60], "scale": [0.5, 1.6], "p": 1.0}}],
    "crop": [{"RandomResizedCrop": {"size": "input", "scale": [0.1, 0.6], "p": 1.0}}],
    "all": [{"HorizontalFlip": {"p": 0.5}}, {"D4": {"p": 0.5}}, {"RandomCrop": {"height": 24, "width": 24, "p": 1.0}}],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_augmentation_is_that_of_each(name):
    """Each target alone, with the same seed: the same change of the picture."""
    change = Augmentation(TRANSFORMS[name])
    lost = 0
    for seed in range(12):
        parts = everything(seed)
        got = change(sample(MultiTaskTarget(parts), seed), seed)
        assert list(got.target.parts) == list(parts)
        for key, part in parts.items():
            expected = change(sample(part, seed), seed)
            assert torch.equal(expected.image, got.image)
            assert same(got.target.parts[key], expected.target), (key, seed)
            lost += isinstance(part, BoxTarget) and len(expected.target) < len(part)
    assert name == "flips" or lost > 0, "objects left some pictures"


@pytest.mark.parametrize("first", [0, 3])
def test_objects_go_back_to_the_head_that_they_came_from(first):
    """By hand: of two lists the first object of the second and the last of the first stay, in turned order."""
    target = MultiTaskTarget({"a": boxes(1, first), "kind": label(0), "b": boxes(2, 2)})
    arrays = target.arrays()
    assert arrays["bboxes"].shape == (first + 2, 4)
    assert arrays["box_index"].tolist() == list(range(first + 2))
    kept = [first, *range(max(first - 1, 0), first)]
    moved = arrays["bboxes"][kept] + 1
    left = target.with_arrays({"bboxes": moved, "box_index": np.array(kept, float)}, SIZE).parts
    assert torch.equal(left["b"].boxes, target.parts["b"].boxes[:1] + 1)
    assert left["b"].labels.tolist() == target.parts["b"].labels[:1].tolist()
    assert torch.equal(left["a"].boxes, target.parts["a"].boxes[-1:] + 1)
    assert left["kind"] is target.parts["kind"]


def test_two_masks_of_one_picture_stay_two():
    target = MultiTaskTarget({"ground": mask(0), "lanes": mask(1)})
    flipped = Augmentation([{"HorizontalFlip": {"p": 1.0}}])(sample(target), 0).target.parts
    for name, part in target.parts.items():
        assert torch.equal(flipped[name].mask, part.mask.flip(1)), name


def test_a_picture_without_anything_in_pixels_is_augmented():
    target = MultiTaskTarget({"kind": label(2)})
    assert target.arrays() == {}
    changed = Augmentation([{"HorizontalFlip": {"p": 1.0}}])(sample(target), 0)
    assert torch.equal(changed.image, sample(target).image.flip(2))
    assert same(changed.target.parts["kind"], label(2))


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_preprocessing_is_that_of_each_and_goes_back(resize):
    parts = everything(5)
    done = Preprocessing((48, 32), resize=resize)(sample(MultiTaskTarget(parts)))
    assert_same(
        done.target.parts, {k: Preprocessing((48, 32), resize=resize)(sample(p)).target for k, p in parts.items()}
    )
    assert_same(done.target.restore(done.info).parts, parts)


def test_a_mosaic_is_that_of_each_and_has_no_class():
    for seed in range(8):
        asked = {"seed": seed, "epoch": 0, "epochs": None}
        got = Mosaic(1.0)(TOGETHER, 2, Preprocessing(48), **asked)
        assert set(got.target.parts) == set(SPATIAL), "no class holds for four pictures"
        for name in SPATIAL:
            expected = Mosaic(1.0)(alone(name), 2, Preprocessing(48), **asked)
            assert torch.equal(got.image, expected.image)
            assert same(got.target.parts[name], expected.target), (name, seed)


def test_a_crop_is_that_of_each_and_keeps_the_class():
    for seed in range(8):
        asked = {"seed": seed, "epoch": 0, "epochs": None}
        got = RandomScaledCrop()(TOGETHER, 1, Preprocessing(32), **asked)
        assert same(got.target.parts["kind"], label(1))
        for name in SPATIAL:
            assert same(got.target.parts[name], RandomScaledCrop()(alone(name), 1, Preprocessing(32), **asked).target)


def test_crops_around_rare_classes_work_with_further_labels():
    crop = RandomScaledCrop(balanced=1.0, most=0.5)
    asked = {"seed": 3, "epoch": 0, "epochs": None}
    got = crop(TOGETHER, 1, Preprocessing(16), **asked)
    assert same(got.target.parts["ground"], crop(alone("ground"), 1, Preprocessing(16), **asked).target)


def test_a_task_that_one_of_the_pasted_pictures_lacks_is_left_out():
    placed = [p.place((1.0, 1.0), (0, 0), SIZE) for p in (boxes(0), boxes(1), mask(2), mask(3))]
    first = MultiTaskTarget({"cars": placed[0], "ground": placed[2], "kind": label(0)})
    second = MultiTaskTarget({"cars": placed[1], "signs": placed[1], "kind": label(0)})
    assert_same(first.join([second]).parts, {"cars": placed[0].join([placed[1]])})
    whole = first.join([]).parts
    assert list(whole) == ["cars", "ground", "kind"]
    assert whole["ground"].original is None


def test_to_moves_all_parts():
    moved = MultiTaskTarget(everything(1)).to("meta").parts
    assert moved["kind"].scores.device.type == moved["cars"].boxes.device.type == "meta"
    assert moved["ground"].mask.device.type == "meta"


# ---- predictions


def test_names_of_classes():
    flat = flat_classes({"a": ["x", "b/y"], "b": ["y"], "ab": ["z"]})
    assert flat == ("a/x", "a/b/y", "b/y", "ab/z")
    assert [names_of(h, flat) for h in ("a", "b", "ab", "c")] == [("x", "b/y"), ("y",), ("z",), ()]


NAMES = ("kind/good", "kind/bad", "cars/car", "ground/road", "ground/grass")


@pytest.fixture
def prediction():
    scores = torch.tensor([[4.0, 4.0], [4.0, -4.0]])
    return MultiTaskPrediction(
        {
            "kind": ClassPrediction(torch.tensor([0.25, 0.75])),
            "cars": BoxPrediction(torch.tensor([[2.0, 2, 6, 8], [0, 0, 4, 4]]), torch.tensor([0.9, 0.2]), torch.tensor([0, 0])),
            "ground": MaskPrediction.of(torch.stack([scores, -scores]), 8),
        }
    )  # fmt: skip


def test_it_goes_back_to_the_original(prediction):
    info = ImageInfo("", (32, 32), scale=(0.5, 0.5), offset=(0, 0))
    restored = prediction.restore(info)
    assert restored.parts["cars"].boxes[0].tolist() == [4, 4, 12, 16]
    assert restored.parts["ground"].labels.shape == (32, 32)
    assert restored.parts["kind"] == prediction.parts["kind"]


def test_record_and_rows_have_the_names_of_each_head(prediction):
    restored = prediction.restore(ImageInfo("", (16, 16)))
    record = restored.record(NAMES)
    assert record["kind"]["label"] == "bad"
    assert record["cars"]["objects"][0]["label"] == "car"
    assert set(record["ground"]["pixels"]) == {"road", "grass"}
    (row,) = restored.rows(NAMES)
    assert row["kind/label"] == "bad"
    assert row["cars/objects"] == 2
    assert (row["ground/width"], row["ground/height"]) == (16, 16)
    assert not any(isinstance(v, dict | list) for v in row.values())


def test_unsure_objects_are_left_out_and_nothing_else(prediction):
    sure = prediction.at_least(0.5)
    assert sure.parts["cars"].scores.tolist() == prediction.parts["cars"].scores[:1].tolist()
    assert sure.parts["kind"] is prediction.parts["kind"]
    assert sure.parts["ground"] is prediction.parts["ground"]


def test_all_heads_are_drawn_over_each_other(prediction):
    restored = prediction.restore(ImageInfo("", (64, 64), scale=(0.25, 0.25)))
    image = picture(0, (64, 64))
    expected = image
    for name in ("kind", "cars", "ground"):
        expected = restored.parts[name].draw(expected, [n for n in NAMES if n.startswith(f"{name}/")])
    assert torch.equal(restored.draw(image, NAMES), expected)
    assert not torch.equal(expected, image)


def test_pictures_say_which_head_a_name_is_of():
    seen = []

    class Part:
        def draw(self, image, names):
            seen.append(list(names))
            return image

    MultiTaskPrediction({"kind": Part(), "ground": Part()}).draw(None, ("kind/a", "kind/b", "ground/a"))
    assert seen == [["kind/a", "kind/b"], ["ground/a"]]


def test_target_draws_what_it_is_labelled_for_with_the_names_of_its_head():
    @dataclass(frozen=True)
    class Told:
        def draw(self, image, names):
            seen.append(names)
            return image + 1

    seen = []
    target = MultiTaskTarget({"b": Told(), "own": object(), "a": Told()})
    drawn = target.draw(torch.zeros(3, 2, 2, dtype=torch.uint8), ("a/cat", "a/dog", "b/tree"))
    assert seen == [["b/tree"], ["a/cat", "a/dog"]]
    assert drawn.unique().tolist() == [2]
