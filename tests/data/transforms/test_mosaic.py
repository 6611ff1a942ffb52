import math
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.component import build, spec_of
from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.seeds import derive_seed
from visionkit.data.dataset import VisionDataset
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.classification.types import ClassTarget
from visionkit.tasks.detection.types import BoxTarget

IGNORED = 255
LEVELS = (40, 80, 160, 240)  # grey level of each image's background; 114 is that of the canvas


@dataclass
class MaskTarget:
    """Class ids, uint8 [H, W], as a segmentation task would have them."""

    mask: np.ndarray

    def to(self, device, *, non_blocking=False):
        return self

    def restore(self, info):
        return self

    def place(self, scale, offset, size):
        matrix = np.array(
            [[scale[1], 0, offset[1] + scale[1] / 2 - 0.5], [0, scale[0], offset[0] + scale[0] / 2 - 0.5]]
        )
        return MaskTarget(
            cv2.warpAffine(
                self.mask,
                matrix,
                size[::-1],
                flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=IGNORED,
            )
        )

    def join(self, others):
        mask = self.mask.copy()
        for other in others:
            mask = np.where(mask == IGNORED, other.mask, mask)
        return MaskTarget(mask)

    def arrays(self):
        return {"mask": self.mask}

    def with_arrays(self, arrays, size):
        return MaskTarget(arrays["mask"])


class Pictures(VisionDataset):
    """Four images; each has a background of its own and a rectangle, whose red channel tells the image."""

    classes = ("a", "b", "c", "d")
    ids = tuple("0123")

    def __init__(self, kind="boxes", shape=(60, 90), channels=3):
        self.kind, self.shape, self.channels = kind, shape, channels
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        height, width = self.shape
        pixels = np.full((height, width, self.channels), LEVELS[index], np.uint8)
        box = [width // 4 + index, height // 3, width // 4 + width // 3, height // 3 + height // 3]
        pixels[box[1] : box[3], box[0] : box[2], -1] = 255 - index
        pixels[box[1] : box[3], box[0] : box[2], 0] = 0
        target = {
            "boxes": lambda: BoxTarget.make([box], [index], [False], [index + 1.0]),
            "mask": lambda: MaskTarget((pixels[..., 0] == 0).astype(np.uint8) * (index + 1)),
            "class": lambda: ClassTarget(torch.eye(4)[index]),
            "none": lambda: BoxTarget.make([], []),
        }[self.kind]()
        info = ImageInfo(str(index), (height, width), extra={"note": index})
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1), target, info)


def make(dataset=None, size=(64, 96), index=1, seed=0, epoch=0, epochs=None, resize="letterbox", **options):
    dataset = dataset or Pictures()
    return Mosaic(**{"p": 1.0} | options)(
        dataset,
        index,
        Preprocessing(size, resize=resize, channels=dataset.channels),
        seed=seed,
        epoch=epoch,
        epochs=epochs,
    )


def inside(picture, number):
    """Where the rectangle of image ``number`` shows: its blue is 255 - number, its red 0; edges blend."""
    return (picture[0] < LEVELS[number] / 2) & (picture[2] > 130)


@pytest.mark.parametrize("resize", ["letterbox", "squash", "crop"])
@pytest.mark.parametrize("shape", [(60, 90), (300, 200), (30, 30)])
def test_boxes_lie_where_their_objects_show(resize, shape):
    checked = 0
    for seed in range(40):
        result = make(Pictures(shape=shape), seed=seed, resize=resize)
        shown = torch.zeros(64, 96, dtype=torch.bool)
        for label, (x1, y1, x2, y2) in zip(result.target.labels.tolist(), result.target.boxes.tolist(), strict=True):
            inner = np.s_[math.ceil(y1) + 1 : math.floor(y2) - 1, math.ceil(x1) + 1 : math.floor(x2) - 1]
            assert inside(result.image, label)[inner].all()
            shown[max(math.floor(y1) - 1, 0) : math.ceil(y2) + 1, max(math.floor(x1) - 1, 0) : math.ceil(x2) + 1] = True
            checked += inside(result.image, label)[inner].numel() > 0
        assert not ((result.image[0] < 10) & (result.image[2] > 200) & ~shown).any(), "an object without a box"
    assert checked > 40


def test_every_tile_holds_one_image_and_its_boxes_stay_in_it():
    whole = 0
    for seed in range(60):
        dataset = Pictures()
        result = make(dataset, seed=seed)
        assert len(dataset.asked) == 4
        assert dataset.asked[0] == 1
        grey = result.image[1].numpy()  # no rectangle changes green
        for label, (x1, y1, x2, y2) in zip(result.target.labels.tolist(), result.target.boxes.tolist(), strict=True):
            tile = grey[int(np.ceil(y1)) : max(int(y2), int(np.ceil(y1)) + 1), int(np.ceil(x1)) : max(int(x2), 1)]
            assert (tile == LEVELS[label]).all(), "the box reaches into another image"
        whole += not (grey == 114).any()
    assert 0 < whole < 60  # small images leave grey


def test_an_object_that_is_mostly_cut_off_is_a_crowd():
    shares, crowds = [], []
    for seed in range(150):
        dataset = Pictures(shape=(64, 96))
        target = make(dataset, seed=seed, scale=(1.0, 1.0)).target
        full = (32 - torch.arange(4)) * 21.0  # at a factor of one
        for label, box, crowd in zip(target.labels.tolist(), target.boxes, target.crowd.tolist(), strict=True):
            shares.append(float((box[2] - box[0]) * (box[3] - box[1]) / full[label]))
            crowds.append(crowd)
        assert torch.equal(target.areas, target.labels + 1.0)
        assert target.original is None
    shares, crowds = np.array(shares), np.array(crowds)
    assert crowds[shares < 0.24].all()
    assert not crowds[shares > 0.26].any()
    assert crowds.sum() > 5


def test_masks_join_too():
    for seed in range(30):
        result = make(Pictures("mask"), seed=seed)
        grey, mask = result.image[1].numpy(), result.target.mask
        assert mask.shape == (64, 96)
        assert ((mask == IGNORED) == (grey == 114)).all(), "nothing is said where there is no image"
        for index, level in enumerate(LEVELS):
            assert set(np.unique(mask[grey == level])) <= {0, index + 1}
        wrong = ((mask > 0) & (mask != IGNORED)) != (result.image[0].numpy() < 20)
        assert not cv2.erode(wrong.astype(np.uint8), np.ones((3, 3), np.uint8)).any()


def test_seed_alone_decides():
    first = [make(seed=seed) for seed in range(10)]
    np.random.seed(3)
    torch.manual_seed(3)
    again = [make(seed=seed) for seed in range(10)]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target.boxes, b.target.boxes)
    assert len({a.image.numpy().tobytes() for a in first}) == 10


def test_partners_and_corners_are_even():
    counts, corners = np.zeros(4), np.zeros(4)
    for seed in range(300):
        dataset = Pictures()
        grey = make(dataset, seed=derive_seed("test", seed), scale=(1.4, 1.5)).image[1]
        counts += np.bincount(dataset.asked[1:], minlength=4)
        if dataset.asked.count(1) == 1:
            places = [grey[0, 0], grey[0, -1], grey[-1, 0], grey[-1, -1]]
            corners[[int(v) for v in places].index(LEVELS[1])] += 1
    assert (np.abs(counts / 900 - 0.25) < 0.06).all()
    assert (corners / corners.sum() > 0.15).all()


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    size=st.tuples(st.integers(2, 80), st.integers(2, 80)),
    resize=st.sampled_from(["letterbox", "squash", "crop"]),
    seed=st.integers(0, 10**6),
    channels=st.sampled_from([1, 2, 3, 5]),
    scale=st.sampled_from([(0.01, 0.02), (0.5, 1.5), (8.0, 9.0)]),
)
def test_any_shape(shape, size, resize, seed, channels, scale):
    result = make(Pictures(shape=shape, channels=channels), size=size, resize=resize, seed=seed, scale=scale)
    assert result.image.shape == (channels, *size)
    assert result.image.dtype == torch.uint8
    assert result.image.permute(1, 2, 0).is_contiguous()
    boxes = result.target.boxes
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()


def test_info_names_the_image_that_was_asked_for():
    info = make(index=2).info
    assert (info.id, info.size, info.scale, info.offset) == ("2", (64, 96), (1.0, 1.0), (0, 0))
    assert info.extra == {"note": 2}


def test_no_objects():
    made = make(Pictures("none"))
    assert made.target.boxes.shape == (0, 4)
    assert torch.equal(made.image, make(Pictures("boxes")).image), "the pictures are put together all the same"


def test_share_of_mosaics():
    made = sum(make(seed=derive_seed(seed), p=0.3) is not None for seed in range(400))
    assert 85 < made < 155
    assert all(make(seed=seed, p=0.0) is None for seed in range(20))


@pytest.mark.parametrize(
    ("last", "epochs", "off"),
    [
        (0.2, 10, [8, 9]),
        (0.3, 10, [7, 8, 9]),
        (0.0, 5, []),
        (1.0, 3, [0, 1, 2]),
        (0.2, 3, [2]),
        (0.2, 1, []),
        (0.5, None, []),
    ],
)
def test_last_epochs_go_without(last, epochs, off):
    dataset = Pictures()
    alone = [e for e in range(epochs or 100) if make(dataset, last=last, epoch=e, epochs=epochs) is None]
    assert alone == off


def test_noise_is_taken_out_as_without_mosaic():
    plain, clean = (
        Mosaic(1.0)(Pictures(), 0, Preprocessing(64, denoise=d), seed=0, epoch=0, epochs=None).image
        for d in (None, "median")
    )
    assert torch.equal(clean, torch.from_numpy(cv2.medianBlur(plain.permute(1, 2, 0).numpy(), 3)).permute(2, 0, 1))


def test_classes_cannot_be_joined():
    with pytest.raises(UsageError, match="ClassTarget"):
        make(Pictures("class"))


def test_wrong_channels_name_the_image():
    with pytest.raises(DataError, match="1: image of shape"):
        Mosaic(1.0)(Pictures(), 1, Preprocessing(64, channels=1), seed=0, epoch=0, epochs=None)


@pytest.mark.parametrize(
    "options",
    [
        {"p": 1.5},
        {"p": -1},
        {"last": 2.0},
        {"scale": (0.0, 1.0)},
        {"scale": (1.5, 0.5)},
        {"scale": 1.0},
        {"scale": (1, 2, 3)},
    ],
)
def test_bad_values(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Mosaic(**options)


def test_checkpoint_round_trip():
    made = build(spec_of(Mosaic(0.3, scale=(0.7, 1.2), last=0.5)))
    assert (made.p, made.scale, made.last) == (0.3, (0.7, 1.2), 0.5)
