"""Targets with masks: through preprocessing, augmentation, mosaics and sizes, from every reader that has masks."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit import (
    Augmentation,
    DataError,
    DetectionData,
    ImageInfo,
    Mosaic,
    MultiScale,
    Preprocessing,
    Sample,
    UsageError,
)
from visionkit.core.sample import SpatialTarget, collate
from visionkit.data import formats
from visionkit.data.labels.masks import ObjectMasks
from visionkit.data.shapes import draw_scene
from visionkit.data.transforms.augmentation import DETECTION_AUGMENTATION
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.detection.types import BoxTarget

find_splits = partial(formats.find_splits, table=FORMATS)


def square(x1, y1, x2, y2):
    return (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),)


def truth(size=(60, 80), crowd=None):
    boxes = [[10.0, 10, 30, 40], [0, 0, 80, 60], [50, 20, 70, 30]]
    return BoxTarget.make(boxes, [0, 1, 2], crowd, masks=ObjectMasks(tuple(square(*b) for b in boxes), size))


def agrees(sample, slack=1.0):
    """Say whether each mask lies within its box."""
    boxes = torch.from_numpy(sample.target.masks.boxes())
    low = (boxes[:, :2] >= sample.target.boxes[:, :2] - slack).all()
    return bool(low and (boxes[:, 2:] <= sample.target.boxes[:, 2:] + slack).all())


def bright(size=(60, 80), count=3):
    """A picture of black with an object of full strength in each channel."""
    pixels = np.zeros((*size, 3), np.uint8)
    dense = np.zeros((count, *size), np.uint8)
    for k in range(count):
        window = (slice(5 + 15 * k, 17 + 15 * k), slice(4 + 20 * k, 22 + 20 * k))
        dense[(k, *window)] = 1
        dense[(k, *window)][:6, :9] = 0  # an L: its box is not its mask
        pixels[..., k] = 255 * dense[k]
    masks = ObjectMasks.from_dense(dense)
    target = BoxTarget.make(masks.boxes(), range(count), masks=masks)
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), target, ImageInfo("a.png", size))


def matches(sample, share=0.9):
    """Check that each mask covers the pixels of its object."""
    for label, mask in zip(sample.target.labels.tolist(), sample.target.masks.dense(), strict=True):
        own = sample.image[label].numpy() > 127
        assert (own & (mask > 0)).sum() >= share * (own | (mask > 0)).sum(), label


class TestTarget:
    def test_masks_follow(self):
        t = truth()
        part = t.select(torch.tensor([True, False, True]))
        assert part.masks.boxes().tolist() == part.boxes.tolist()
        assert t.select(torch.tensor([2, 0])).masks.boxes().tolist() == [[50, 20, 70, 30], [10, 10, 30, 40]]
        assert t.to("cpu").masks is t.masks
        assert isinstance(t, SpatialTarget)
        assert len(pickle.dumps(t)) < 3000

    def test_one_mask_an_object(self):
        with pytest.raises(DataError, match="1 masks of 3 objects"):
            BoxTarget.make(truth().boxes, [0, 1, 2], masks=truth().masks.select([0]))

    def test_placed(self):
        t = truth()
        placed = t.place((0.5, 2), (3, -20), (40, 100))
        assert placed.boxes.tolist() == [[0, 8, 40, 23], [0, 3, 100, 33], [80, 13, 100, 18]]
        assert placed.masks.boxes().tolist() == placed.boxes.tolist()
        assert placed.masks.size == (40, 100)
        assert placed.restore(ImageInfo("a", (60, 80))) is t
        assert isinstance(placed.original.masks.outlines[0], tuple), "polygons of the original stay as they are"

    def test_dropped_with_its_box(self):
        placed = truth().place((1, 1), (0, -45), (60, 40))
        assert placed.labels.tolist() == [1, 2]
        assert placed.masks.boxes().tolist() == placed.boxes.tolist()

    def test_of_an_object_that_shows_no_pixel_nothing_is_learnt(self):
        corner = (np.array([[0.0, 0], [40, 0], [0, 40]]),)
        t = BoxTarget.make([[0, 0, 40, 40]], [0], masks=ObjectMasks((corner,), (40, 40)))
        placed = t.place((1, 1), (-21, 0), (19, 40))
        assert not placed.crowd.any()
        placed = t.place((1, 1), (-12, -29), (28, 11))  # a quarter of the width; the mask lies elsewhere
        assert placed.crowd.all()

    def test_joined(self):
        one, other = truth(), truth().select(torch.tensor([1]))
        assert np.array_equal(one.join([other]).masks.dense(), one.masks.dense()[[0, 1, 2, 1]])
        nothing = BoxTarget.make([], [])
        assert len(one.join([nothing]).masks) == 3
        assert len(nothing.join([one]).masks) == 3
        assert nothing.join([nothing]).masks is None
        bare = BoxTarget.make(one.boxes, one.labels)
        assert one.join([bare]).masks is bare.join([one]).masks is None

    def test_without_masks_nothing_is_asked_for(self):
        t = BoxTarget.make([[0, 0, 4, 4]], [0])
        assert set(t.arrays()) == {"bboxes", "box_index"}
        assert t.place((2, 2), (0, 0), (9, 9)).masks is None
        assert set(truth().select(torch.zeros(3, dtype=torch.bool)).arrays()) == {"bboxes", "box_index"}

    def test_boxes_lie_around_changed_masks(self):
        t = truth()
        arrays = t.arrays()
        masks = np.zeros((3, 20, 30), np.uint8)
        masks[0, 4:9, 3:7] = 1
        changed = {"bboxes": arrays["bboxes"][[2, 0, 1]], "box_index": np.array([2, 0, 0]), "masks": masks}
        after = t.with_arrays(changed, (20, 30))
        assert after.labels.tolist() == [0], "2 vanished, 1 was dropped"
        assert after.boxes.tolist() == [[3, 4, 7, 9]]
        assert (after.masks.size, len(after.masks), after.original) == ((20, 30), 1, None)


class TestTransforms:
    TURNS = (
        {"Affine": {"rotate": [-60, 60], "scale": [0.8, 1.2], "p": 1.0}},
        {"HorizontalFlip": {"p": 1.0}},
        {"RandomCrop": {"height": 40, "width": 50, "p": 1.0}},
        {"Transpose": {"p": 1.0}},
        {"RandomGridShuffle": {"grid": [2, 2], "p": 1.0}},
        {"Resize": {"height": 120, "width": 160, "p": 1.0}},
    )

    @pytest.mark.parametrize("entry", TURNS, ids=lambda e: next(iter(e)))
    def test_augmentation_moves_masks_with_the_pixels(self, entry):
        augmentation = Augmentation([entry])
        for seed in range(6):
            sample = augmentation(bright(), seed)
            matches(sample, 0.8)
            assert torch.equal(sample.target.boxes, torch.from_numpy(sample.target.masks.boxes()))

    @pytest.mark.parametrize("masks", [ObjectMasks((), (60, 80)), None])
    def test_no_objects(self, masks):
        image = torch.zeros(3, 60, 80, dtype=torch.uint8)
        sample = Sample(image, BoxTarget.make([], [], masks=masks), ImageInfo("a", (60, 80)))
        for changed in (Augmentation(list(self.TURNS))(sample, 0), Preprocessing(32)(sample)):
            assert len(changed.target) == 0
            assert (changed.target.masks is None) == (masks is None)
            if masks is not None:
                assert changed.target.masks.size == tuple(changed.image.shape[1:])

    def test_the_default_is_fit_for_masks(self):
        augmentation = Augmentation(DETECTION_AUGMENTATION)
        data = ShapesDetection(12, masks=True)
        for k in range(12):
            sample = augmentation(data[k], k)
            assert agrees(sample)
            assert len(sample.target.masks) == len(sample.target)

    @pytest.mark.parametrize("resize", ["letterbox", "squash", "crop"])
    @pytest.mark.parametrize("size", [48, (90, 60)])
    def test_preprocessing(self, resize, size):
        sample = Preprocessing(size, resize=resize)(bright())
        matches(sample, 0.7)
        assert agrees(sample)

    def test_mosaics(self):
        class Four(ShapesDetection):
            def __getitem__(self, index):
                return bright()

        data, seen = Four(4), 0
        mosaic = Mosaic(1.0, scale=(1.0, 2.0), last=0)
        for seed in range(8):
            sample = mosaic(data, 0, Preprocessing((90, 100)), seed=seed, epoch=0, epochs=None)
            assert sample.target.masks.size == (90, 100)
            clear = sample.replace(target=sample.target.select(~sample.target.crowd))
            assert agrees(clear)
            for label, mask in zip(clear.target.labels.tolist(), clear.target.masks.dense(), strict=True):
                assert (sample.image[label].numpy()[mask > 0] > 127).mean() > 0.8
            seen += len(clear.target)
        assert seen > 20

    def test_multi_scale(self):
        torch.manual_seed(0)
        batch = collate([Preprocessing(64, resize="squash")(bright())] * 2)
        for _ in range(6):
            after = MultiScale(0.5, 2.0)(batch)
            for k, target in enumerate(after.targets):
                matches(Sample(after.images[k], target, after.infos[k]), 0.6)
                assert len(target.original.masks) == 3


# ---- readers

CATS = [{"id": 1, "name": "cat"}]


def note(i, segmentation="polygon", **more):
    if segmentation == "polygon":
        segmentation = [[2, 3, 12, 3, 12, 20]]
    elif segmentation == "run lengths":
        segmentation = {"size": [30, 40], "counts": [100, 50, 1050]}
    given = {} if segmentation is None else {"segmentation": segmentation}
    return {"id": i, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 17], "area": 60.0, **given, **more}


def write(folder, notes, **size):
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    image = {"id": 1, "file_name": "a.png", **size}
    file = folder / "a.json"
    file.write_text(json.dumps({"images": [image], "annotations": notes, "categories": CATS}))
    return file


@pytest.mark.parametrize("size", [{}, {"width": 40, "height": 30}])
def test_coco_masks(tmp_path, size):
    notes = [note(1), note(2, "run lengths", iscrowd=1), note(3, bbox=[2, 3, 0, 17]), note(4, bbox=[-9, 3, 21, 17])]
    data = CocoDataset(write(tmp_path, notes, **size), masks=True)
    target = data[0].target
    assert [len(target), len(target.masks)] == [3, 3], "the third has no area"
    assert target.crowd.tolist() == [False, True, False]
    assert target.areas.tolist() == [60, 60, 60], "the file's"
    assert target.masks.areas().tolist() == [84, 50, 84]
    assert target.masks.size == (30, 40)
    assert CocoDataset(write(tmp_path, notes, **size))[0].target.masks is None
    pickle.loads(pickle.dumps(data))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (None, "has no segmentation; give polygons or run lengths"),
        ([], "has no segmentation; give polygons or run lengths"),
        ([[1, 2, 3, 4]], "segmentation is no list of polygons; give lists of x, y, x, y, ... of 3 points or more"),
        ({"size": [9, 9], "counts": "x"}, "segmentation is of size [9, 9], the picture [30, 40] [H, W]"),
    ],
)
def test_objects_whose_masks_are_wrong_are_ignored(tmp_path, wrong, why):
    file = write(tmp_path, [note(1), note(2, wrong)], width=40, height=30)
    data = CocoDataset(file, masks=True)
    assert data.problems == [f"{file}: annotation 2 (annotations[1]): {why}; ignored"]
    target = data[0].target
    assert target.crowd.tolist() == [False, True]
    assert target.masks.boxes()[1].tolist() == [2, 3, 12, 20], "it fills its box"
    assert CocoDataset(file).problems == []


def test_a_file_without_masks_is_refused(tmp_path):
    file = write(tmp_path, [note(1, None), note(2, [])])
    with pytest.raises(
        DataError, match=r"a\.json: none of its objects has a mask \(.*annotation 1 .*has no segmentation"
    ):
        CocoDataset(file, masks=True)
    assert len(CocoDataset(write(tmp_path, []), masks=True)[0].target.masks) == 0


def test_masks_of_another_size_than_the_picture(tmp_path):
    file = write(tmp_path, [note(1, {"size": [31, 40], "counts": [0, 1240]})])
    with pytest.raises(DataError, match=r"a\.png: is 40 x 30 pixels, but .*a\.json says 40 x 31"):
        CocoDataset(file, masks=True)[0]


def yolo(folder, lines):
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("sure", [True, False])
def test_yolo_polygons(tmp_path, sure):
    """The size of a picture is looked up only where a box reaches its border."""
    lines = ["0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", "1 0.5 0.5 0.2 0.2"]
    lines += [] if sure else ["0 0.5 0.5 1.2 0.5 0.5 0.9"]
    data = YoloDataset(yolo(tmp_path, lines), masks=True)
    assert data.entries[0].relative == sure
    target = data[0].target
    assert target.crowd.tolist() == [False, True] + ([] if sure else [False])
    assert target.masks.boxes()[:2].tolist() == [[10, 5, 30, 15], [16, 8, 24, 12]]
    assert any("a.txt:2: a box without a polygon has no mask; ignored" in p for p in data.problems)
    assert YoloDataset(tmp_path)[0].target.masks is None
    with pytest.raises(DataError, match=r"none of its objects has a mask \(.*a\.txt:1"):
        YoloDataset(yolo(tmp_path / "b", lines[1:2]), masks=True)


def test_drawn_masks_are_exact():
    data = ShapesDetection(6, masks=True)
    for k in range(6):
        sample = data[k]
        scene = draw_scene((0, k), size=128, labels=[data.classes[i] for i in sample.target.labels])
        assert np.array_equal(sample.target.masks.dense().astype(bool), scene.masks)
        assert torch.equal(torch.from_numpy(sample.target.masks.boxes()), sample.target.boxes)
        assert torch.equal(sample.target.areas, torch.from_numpy(sample.target.masks.areas()))
    assert ShapesDetection(1)[0].target.masks is None


def test_splits_and_data(tmp_path, data_root):
    found = find_splits(None, masks=True)
    assert len(found.train[1].target.masks) == len(found.train[1].target)
    with pytest.raises(UsageError, match="Pascal VOC has no masks; give COCO JSON"):
        find_splits(data_root / "detection" / "bccd", masks=True)
    data = DetectionData(None, masks=True, size=64, batch_size=3, num_workers=0)
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for target in next(iter(loader)).targets:
            assert target.masks.size == (64, 64)
    data = DetectionData(None, size=64, batch_size=3, num_workers=0)
    data.setup("fit")
    assert next(iter(data.train_dataloader())).targets[0].masks is None


def test_ignored_objects_are_told(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        names = [f"{split}{i}.png" for i in range(3)]
        for i, name in enumerate(names):
            Image.new("RGB", (40, 30), (i, 9 * (split == "val"), 0)).save(tmp_path / split / name)
        images = [{"id": i, "file_name": n} for i, n in enumerate(names)]
        notes = [note(i, image_id=i) for i in range(3)] + [note(9, None, image_id=0)]
        for n in notes[:3]:
            n["image_id"] = n["id"]
        notes[3]["image_id"] = 0
        (tmp_path / split / "_annotations.coco.json").write_text(
            json.dumps({"images": images, "annotations": notes, "categories": CATS})
        )
    assert find_splits(tmp_path, masks=True).source.endswith("; without a fitting outline: 2 ignored")
