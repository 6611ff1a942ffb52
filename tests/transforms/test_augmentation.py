import multiprocessing
import pickle
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from visionkit.classification.types import ClassTarget
from visionkit.component import build, spec_of
from visionkit.errors import UsageError
from visionkit.sample import ImageInfo, Sample
from visionkit.transforms.augmentation import CLASSIFICATION_AUGMENTATION, Augmentation


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
        assert crop(make_sample(*shape), 1).image.shape == (3, *shape)


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
        "import sys; from visionkit.transforms.augmentation import Augmentation; Augmentation(None);"
        "assert 'albumentations' not in sys.modules; Augmentation(['Blur']); assert 'albumentations' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_default_is_cheap(default):
    sample = make_sample(224, 224)
    times = []
    for seed in range(150):
        start = time.perf_counter()
        default(sample, seed)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 3e-3  # 0.5 ms on an idle core; the slack is for a busy machine
