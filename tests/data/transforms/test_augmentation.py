import multiprocessing
import pickle
import random
import subprocess
import sys
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from visionkit.core.component import build, spec_of
from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo, Loaded, Sample
from visionkit.data.transforms.augmentation import (
    CLASSIFICATION_AUGMENTATION,
    DETECTION_AUGMENTATION,
    READ_ONLY,
    SEGMENTATION_AUGMENTATION,
    Augmentation,
)
from visionkit.tasks.classification.types import ClassTarget
from visionkit.tasks.detection.types import BoxTarget
from visionkit.tasks.segmentation.types import MaskTarget as Masks


def make_sample(height=64, width=64, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), ClassTarget(torch.ones(1)), ImageInfo("a.png", (9, 9)))


@pytest.fixture(scope="module")
def default():
    return Augmentation(CLASSIFICATION_AUGMENTATION)


def test_seed_alone_decides(default):
    sample = make_sample()
    first = [default(sample, seed).image for seed in range(30)]
    np.random.seed(7)
    random.seed(7)
    torch.manual_seed(7)
    other = Augmentation(CLASSIFICATION_AUGMENTATION)
    for seed in reversed(range(30)):  # another order, other global state, another object
        assert torch.equal(other(sample, seed).image, first[seed])
    assert len({t.numpy().tobytes() for t in first}) == 30


def in_worker(augmentation, queue):
    queue.put([augmentation(make_sample(), seed).image.numpy().tobytes() for seed in range(8)])


def test_worker_process_does_the_same(default):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=in_worker, args=(default, queue))
    worker.start()
    theirs = queue.get(timeout=120)
    worker.join()
    assert theirs == [default(make_sample(), seed).image.numpy().tobytes() for seed in range(8)]


def test_transforms_draw_independently():
    # albumentations' own set_random_seed would flip both ways or not at all
    sample = make_sample(8, 8)
    flips = Augmentation(["HorizontalFlip", "VerticalFlip"])
    image = sample.image
    outcomes = {
        "none": image,
        "horizontal": image.flip(2),
        "vertical": image.flip(1),
        "both": image.flip(1, 2),
    }
    counts = dict.fromkeys(outcomes, 0)
    for seed in range(400):
        result = flips(sample, seed).image
        counts[next(k for k, v in outcomes.items() if torch.equal(v, result))] += 1
    assert all(60 < n < 140 for n in counts.values()), counts


@pytest.mark.parametrize(
    "transform", ["GaussNoise", "ISONoise", "Spatter", "GridDropout", "ElasticTransform", "RandomRain"]
)
def test_drawing_transforms_follow_the_seed(transform):
    augmentation = Augmentation([{transform: {"p": 1.0}}])
    sample = make_sample()
    assert torch.equal(augmentation(sample, 5).image, augmentation(sample, 5).image)
    assert not torch.equal(augmentation(sample, 5).image, sample.image)


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (224, 224)])
def test_default_keeps_size_and_layout(default, shape):
    sample = make_sample(*shape)
    result = default(sample, 3)
    assert result.image.shape == sample.image.shape
    assert result.image.dtype == torch.uint8
    assert result.image.permute(1, 2, 0).is_contiguous()
    assert result.target is sample.target
    assert result.info is sample.info
    assert default(sample, -1).image.shape == sample.image.shape  # any whole number is a seed
    assert default(make_sample(*shape, channels=1), 2**70).image.shape == (1, *shape)


def test_three_ways_to_write_one_transform():
    sample = make_sample()
    flipped = sample.image.flip(2)
    for entry in (
        {"HorizontalFlip": {"p": 1.0}},
        {"class_path": "HorizontalFlip", "init_args": {"p": 1.0}},
        {"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 1.0}},
    ):
        assert torch.equal(Augmentation([entry])(sample, 0).image, flipped)
    results = [Augmentation(entries)(sample, 3).image for entries in (["VerticalFlip"], [{"VerticalFlip": None}])]
    assert torch.equal(*results)


def test_input_means_the_pictures_own_size():
    crop = Augmentation(
        [
            {
                "Sequential": {
                    "transforms": [
                        {"RandomCrop": {"height": 20, "width": 20}},
                        {"Resize": {"height": "input", "width": "input"}},
                    ],
                    "p": 1.0,
                }
            }
        ]
    )
    for shape in ((64, 64), (40, 56), (64, 64)):
        sample = make_sample(*shape)
        changed = crop(sample, 1).image
        assert changed.shape == (3, *shape)
        assert not torch.equal(changed, sample.image), "a part of it, enlarged"


def test_nested_choices():
    one = Augmentation(
        [{"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1.0}}, {"VerticalFlip": {"p": 1.0}}], "p": 1.0}}]
    )
    sample = make_sample()
    seen = set()
    for seed in range(30):
        image = one(sample, seed).image
        seen.add((torch.equal(image, sample.image.flip(2)), torch.equal(image, sample.image.flip(1))))
    assert seen == {(True, False), (False, True)}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("HorizontlFlip", ["HorizontlFlip", "did you mean 'HorizontalFlip'"]),
        ({"GaussNoise": {"var_limit": [1, 2]}}, ["GaussNoise", "var_limit", "std_range"]),
        ({"CoarseDropout": {"max_holes": 8}}, ["CoarseDropout", "max_holes", "num_holes_range"]),
        ({"Rotate": {"limt": 9}}, ["limt", "did you mean 'limit'"]),
        ({"OneOf": {"transforms": [{"Blur": {"blur": 3}}]}}, ["augmentation[0].OneOf.transforms[0]", "'blur'"]),
        ({"HorizontalFlip": {"p": 7}}, ["HorizontalFlip", "p:", "7"]),
        ({"HorizontalFlip": {"p": "often"}}, ["HorizontalFlip", "p:", "often"]),
        ({"RandomCrop": {}}, ["RandomCrop", "height"]),
        ("Normalize", ["Normalize", "the model normalises"]),
        ({"class_path": "os.system", "init_args": {}}, ["os.system", "only albumentations"]),
        ({"class_path": "HorizontalFlip", "args": {}}, ["is no transform"]),
        ({"Blur": {}, "Rotate": {}}, ["is no transform"]),
        ({"Blur": 3}, ["mapping of its arguments"]),
        (5, ["is no transform"]),
        ({"OneOf": {"transforms": "Blur"}}, ["a list of transforms"]),
        ("ImageOnlyTransform", ["has no transform"]),
        ("TextImage", ["TextImage"]),
    ],
)
def test_mistakes_are_found_before_training(entry, words):
    with pytest.raises(UsageError) as caught:
        Augmentation([entry])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_too_big_a_crop_names_the_image():
    with pytest.raises(UsageError, match=r"a\.png, 64 x 64.*"):
        Augmentation([{"RandomCrop": {"height": 100, "width": 100}}])(make_sample(), 0)


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_transforms_said_to_read_only_take_memory_that_cannot_be_written(name, channels):
    augment = Augmentation([{name: {"size": "input"} if "Crop" in name else {"p": 0.5}}])
    sample = make_sample(channels=channels)
    frozen = Loaded.of(sample.replace(image=sample.image.clone()))
    frozen.pixels.flags.writeable = False
    for seed in range(20):
        found = augment.change(frozen, seed)
        np.testing.assert_array_equal(found.pixels, augment(sample, seed).image.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(frozen.pixels, sample.image.permute(1, 2, 0).numpy())


def test_nothing_to_do():
    sample = make_sample()
    assert Augmentation(None)(sample, 0) is sample
    assert Augmentation([])(sample, 0) is sample


def test_checkpoint_round_trip(default):
    sample = make_sample()
    for other in (build(spec_of(default)), pickle.loads(pickle.dumps(default))):
        assert torch.equal(other(sample, 4).image, default(sample, 4).image)


def test_import_is_lazy():
    code = (
        "import sys; from visionkit.data.transforms.augmentation import Augmentation; Augmentation(None);"
        "assert 'albumentations' not in sys.modules; Augmentation(['Blur']); assert 'albumentations' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- targets that move with their images


@dataclass
class MaskTarget:
    """Class ids, [H, W], as a segmentation task would have them."""

    mask: np.ndarray

    def to(self, device, *, non_blocking=False):
        return self

    def restore(self, info):
        return self

    def place(self, scale, offset, size):
        raise NotImplementedError

    def join(self, others):
        raise NotImplementedError

    def arrays(self):
        return {"mask": self.mask}

    def with_arrays(self, arrays, size):
        assert arrays["mask"].shape == size
        return MaskTarget(arrays["mask"])


MOVES = [
    {"HorizontalFlip": {"p": 1.0}},
    {"D4": {"p": 1.0}},
    {"Affine": {"scale": [0.6, 1.6], "keep_ratio": True, "translate_percent": [-0.15, 0.15], "p": 1.0}},
    {"Affine": {"rotate": [-30, 30], "shear": [-10, 10], "p": 1.0}},
    {"RandomSizedBBoxSafeCrop": {"height": "input", "width": "input", "p": 1.0}},
    {"RandomResizedCrop": {"size": "input", "scale": [0.3, 1.0], "p": 1.0}},
    {"Perspective": {"scale": [0.05, 0.15], "p": 1.0}},
    {"Resize": {"height": 77, "width": 133, "p": 1.0}},
    {"CropAndPad": {"percent": [-0.2, 0.2], "p": 1.0}},
    {
        "OneOf": {
            "transforms": [
                {
                    "Sequential": {
                        "transforms": [
                            {"RandomCrop": {"height": 60, "width": 70}},
                            {"PadIfNeeded": {"min_height": 150, "min_width": 150}},
                        ]
                    }
                }
            ],
            "p": 1.0,
        }
    },
]


def name_of(entry):
    return next(iter(entry))


def scene(seed):
    """A white rectangle on black, its box and its mask."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((120, 160, 3), np.uint8)
    x, y = int(rng.integers(5, 100)), int(rng.integers(5, 70))
    width, height = rng.integers(14, 48, 2).tolist()
    pixels[y : y + height, x : x + width] = 255
    mask = (pixels[..., 0] > 0).astype(np.uint8) * 7
    target = BoxTarget.make([[x, y, x + width, y + height]], [3])
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), target, ImageInfo("a.png", (120, 160))), mask


@pytest.mark.parametrize("entry", MOVES, ids=name_of)
def test_boxes_stay_tight_around_what_they_show(entry):
    augmentation = Augmentation([entry])
    kept = 0
    for seed in range(60):
        result = augmentation(scene(seed)[0], seed)
        size = np.array(result.image.shape[:0:-1])
        ys, xs = np.nonzero((result.image[0] > 127).numpy())
        if len(result.target) == 0:
            assert len(ys) < 900  # what is dropped is a rest of at most 48 x 48 pixels, enlarged
            continue
        kept += 1
        assert result.target.labels.tolist() == [3]
        box = result.target.boxes[0].numpy()
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert (box[:2] >= 0).all()
        assert (box[2:] <= size).all()
        assert (seen[:2] >= box[:2] - 2).all()
        assert (seen[2:] <= box[2:] + 2).all()
        if (box[:2] > 0).all() and (box[2:] < size).all():  # a turned box that is cut can be looser
            assert np.abs(seen - box).max() <= 2
    assert kept >= 20


@pytest.mark.parametrize("entry", [e for e in MOVES if name_of(e) != "RandomSizedBBoxSafeCrop"], ids=name_of)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_masks_move_with_the_pixels(entry, dtype):
    augmentation = Augmentation([entry])
    for seed in range(20):
        sample, mask = scene(seed)
        mask = mask.astype(dtype)
        before = mask.copy()
        result = augmentation(sample.replace(target=MaskTarget(mask)), seed)
        assert result.target.mask.dtype == dtype
        assert set(np.unique(result.target.mask)) <= {0, 7}
        different = (result.target.mask == 7) != (result.image[0] > 127).numpy()
        core = cv2.erode(different.astype(np.uint8), np.ones((3, 3), np.uint8))
        assert not core.any(), "the mask is off by more than an edge"
        assert np.array_equal(mask, before)


def many(count, height=120, width=160):
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, (width - 30, height - 30), (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 30, (count, 2))], 1)
    target = BoxTarget.make(boxes, np.arange(count), np.arange(count) % 2 == 1, np.arange(count) + 0.5)
    return make_sample(height, width).replace(target=target)


@pytest.mark.parametrize("entries", [[e] for e in MOVES] + [DETECTION_AUGMENTATION], ids=lambda e: name_of(e[-1]))
def test_eighty_boxes_keep_their_labels(entries):
    sample = many(80)
    before = sample.target.boxes.clone()
    augmentation = Augmentation(entries)
    for seed in range(8):
        result, again = augmentation(sample, seed), Augmentation(entries)(sample, seed)
        target = result.target
        assert torch.equal(result.image, again.image)
        assert torch.equal(target.boxes, again.target.boxes)
        assert 0 < len(target) <= 80
        assert target.boxes.dtype == torch.float32
        assert torch.equal(target.crowd, target.labels % 2 == 1)
        assert torch.equal(target.areas, target.labels + 0.5)
        assert target.original is None
        assert len(set(target.labels.tolist())) == len(target)
    assert torch.equal(sample.target.boxes, before), "the sample itself must not change"


def test_labels_follow_their_boxes():
    sample = many(40)
    result = Augmentation(["HorizontalFlip"])
    flipped = next(r for r in (result(sample, s) for s in range(50)) if not torch.equal(r.image, sample.image)).target
    expected = sample.target.boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([160.0, 0, 160, 0])
    assert torch.allclose(flipped.boxes, expected[flipped.labels], atol=1e-3)


@pytest.mark.parametrize("entries", [[e] for e in MOVES] + [DETECTION_AUGMENTATION], ids=lambda e: name_of(e[-1]))
def test_no_objects(entries):
    sample = make_sample(120, 160).replace(target=BoxTarget.make([], []))
    for seed in range(4):
        result = Augmentation(entries)(sample, seed)
        assert result.target.boxes.shape == (0, 4)
        assert torch.equal(result.image, Augmentation(entries)(sample, seed).image)


def test_boxes_and_classes_draw_the_same():
    sample = make_sample(120, 160)
    augmentation = Augmentation(DETECTION_AUGMENTATION)
    for seed in range(10):
        assert torch.equal(
            augmentation(sample, seed).image, augmentation(many(5).replace(image=sample.image), seed).image
        )


@pytest.mark.parametrize(("min_visible", "kept"), [(0.0, [0, 1, 2]), (0.1, [1, 2]), (0.35, [2]), (1.0, [])])
def test_what_a_crop_leaves_of_a_box(min_visible, kept):
    boxes = [[45, 45, 145, 145], [30, 30, 65, 65], [10, 10, 60, 60]]  # 0.25 %, 33 %, 64 % of them within 50 pixels
    sample = make_sample(160, 160).replace(target=BoxTarget.make(boxes, [0, 1, 2]))
    crop = Augmentation([{"Crop": {"x_max": 50, "y_max": 50, "p": 1.0}}], min_visible=min_visible)
    target = crop(sample, 0).target
    assert target.labels.tolist() == kept
    clipped = [[45, 45, 50, 50], [30, 30, 50, 50], [10, 10, 50, 50]]
    assert torch.allclose(target.boxes, torch.tensor([clipped[k] for k in kept], dtype=torch.float32).reshape(-1, 4))
    assert crop(sample, 0).image.shape == (3, 50, 50)


@pytest.mark.parametrize(
    "entry",
    [
        {"CoarseDropout3D": {"p": 1.0}},
        {"OneOf": {"transforms": ["Blur", "CubicSymmetry"]}},
        {"SelectiveChannelTransform": {"transforms": ["HorizontalFlip"]}},
    ],
)
@pytest.mark.parametrize(("kind", "word"), [("boxes", "boxes"), ("mask", "masks")])
def test_transforms_that_leave_targets_behind_are_refused(entry, kind, word):
    augmentation = Augmentation([entry])
    sample, mask = scene(0)
    target = sample.target if kind == "boxes" else MaskTarget(mask)
    name = name_of(entry) if name_of(entry) != "OneOf" else "CubicSymmetry"
    with pytest.raises(UsageError, match=f"{name} cannot move {word}; remove it"):
        augmentation(sample.replace(target=target), 0)


def test_a_transform_that_needs_boxes_says_so():
    sample, mask = scene(0)
    with pytest.raises(UsageError, match=r"a\.png.*have no boxes"):
        Augmentation([MOVES[4]])(sample.replace(target=MaskTarget(mask)), 0)


def test_pixel_transforms_leave_targets_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Augmentation([{"ColorJitter": {"p": 1.0}}])(many(9), 0)
    assert torch.allclose(result.target.boxes, many(9).target.boxes, atol=1e-4)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_min_visible_out_of_range(value):
    with pytest.raises(UsageError, match="min_visible"):
        Augmentation(None, min_visible=value)


@pytest.mark.parametrize("channels", [1, 3])
def test_detection_default_keeps_size(channels):
    augmentation = build(spec_of(Augmentation(DETECTION_AUGMENTATION, min_visible=0.2)))
    assert augmentation.min_visible == 0.2
    for seed in range(20):
        sample = make_sample(64, 96, channels).replace(target=many(3, 64, 96).target)
        result = augmentation(sample, seed)
        assert result.image.shape == (channels, 64, 96)
        assert result.image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("channels", [1, 3])
def test_segmentation_default_keeps_size_and_moves_masks(channels):
    augmentation = build(spec_of(Augmentation(SEGMENTATION_AUGMENTATION)))
    flips = 0
    for seed in range(20):
        sample = make_sample(64, 96, channels)
        mask = (sample.image[0] > 127).numpy().astype(np.uint8)
        result = augmentation(sample.replace(target=Masks(torch.from_numpy(mask))), seed)
        assert result.image.shape == (channels, 64, 96)
        assert result.image.permute(1, 2, 0).is_contiguous()
        flipped = np.array_equal(result.target.mask.numpy(), mask[:, ::-1])
        assert flipped or np.array_equal(result.target.mask.numpy(), mask), "nothing but a mirror"
        flips += flipped
    assert 3 < flips < 17


@pytest.mark.parametrize("value", [0, 255])
def test_what_is_uncovered_is_ignored_and_nothing_else_can_be_asked(value):
    turned = Augmentation([{"Rotate": {"limit": [45, 45], "border_mode": 0, "p": 1.0}}])
    mask = turned(make_sample(64, 64).replace(target=Masks(torch.zeros(64, 64, dtype=torch.uint8))), 0).target.mask
    assert mask[0, 0] == 255
    assert mask[32, 32] == 0
    entry = {"Rotate": {"fill_mask": value}}
    words = "remove fill_mask: what a transform uncovers is ignored by itself"
    with pytest.raises(UsageError, match=rf"^augmentation\[1\]: {words}$"):
        Augmentation(["HorizontalFlip", entry])
    with pytest.raises(UsageError, match=rf"^augmentation\[0\]\.OneOf\.transforms\[0\]: {words}$"):
        Augmentation([{"OneOf": {"transforms": [entry]}}])
    with pytest.raises(UsageError, match="no argument 'fill_mask'"):
        Augmentation([{"Blur": {"fill_mask": value}}])


def test_masks_take_the_nearest_class():
    with pytest.raises(UsageError, match=r"^augmentation\[0\]: remove mask_interpolation: "):
        Augmentation([{"Rotate": {"mask_interpolation": 1}}])
    Augmentation([{"Rotate": {"mask_interpolation": 0}}])


@pytest.mark.parametrize(
    "entries",
    [
        CLASSIFICATION_AUGMENTATION,
        ["GaussNoise", "HorizontalFlip"],
        [{"OneOf": {"transforms": ["MultiplicativeNoise", "ISONoise"], "p": 1.0}}, "GridDropout", "ElasticTransform"],
    ],
)
def test_images_are_those_of_albumentations_with_the_seeds_own_generators(entries):
    ours = Augmentation(entries)
    theirs = Augmentation(entries)._compose((64, 64), ())
    for seed in range(20):
        sample = make_sample()
        theirs.set_random_state(np.random.default_rng(seed), random.Random(seed))
        cv2.setRNGSeed(seed)
        expected = theirs(image=sample.image.permute(1, 2, 0).numpy().copy())["image"]
        assert np.array_equal(ours(sample, seed).image.permute(1, 2, 0).numpy(), expected)
