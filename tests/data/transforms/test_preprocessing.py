import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from visionkit.core.component import build, spec_of
from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.transforms.preprocessing import Preprocessing, to_model, to_original
from visionkit.tasks.classification.types import ClassTarget
from visionkit.tasks.detection.readers.reader import BoxDataset, make_entry
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget

DATA = Path(os.environ.get("VISIONKIT_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
RESIZES = ["squash", "crop", "letterbox"]


def make_sample(pixels):
    """uint8 [H, W, C] -> Sample with a channels_last image, as the reader makes it."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return Sample(image, ClassTarget(torch.tensor([1.0, 0.0])), ImageInfo("a.png", pixels.shape[:2]))


def smooth(height, width, channels=3, seed=0):
    """A picture without sharp edges, so that resizers that differ in detail agree."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    planes = [
        cv2.resize(coarse[..., c].copy(), (width, height), interpolation=cv2.INTER_LINEAR) for c in range(channels)
    ]
    return np.stack(planes, -1)


def run(pixels, size, **options):
    return Preprocessing(size, channels=pixels.shape[2], **options)(make_sample(pixels))


def hwc(sample):
    return sample.image.permute(1, 2, 0).numpy().astype(int)


@settings(max_examples=60)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    resize=st.sampled_from(RESIZES),
    channels=st.sampled_from([1, 2, 3, 4, 7]),
)
def test_size_layout_and_way_back(height, width, size, resize, channels):
    sample = make_sample(np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8))
    result = Preprocessing(size, resize=resize, channels=channels)(sample)
    assert result.image.shape == (channels, *size)
    assert result.image.dtype == torch.uint8
    assert result.image.permute(1, 2, 0).is_contiguous()
    assert result.info.size == (height, width)
    assert result.target is sample.target
    points = torch.rand(20, 2, dtype=torch.float64) * torch.tensor([width, height])
    assert torch.allclose(to_original(to_model(points, result.info), result.info), points, atol=1e-6)
    corners = to_model(torch.tensor([[0.0, 0.0], [width, height]], dtype=torch.float64), result.info)
    edges = torch.tensor([size[1], size[0]], dtype=torch.float64)
    if resize == "squash":
        assert torch.allclose(corners, torch.stack([torch.zeros(2, dtype=torch.float64), edges]))
    elif resize == "letterbox":  # the whole picture lies inside
        assert (corners[0] >= 0).all()
        assert (corners[1] <= edges + 1e-6).all()
    else:  # the picture covers the frame
        assert (corners[0] <= 0).all()
        assert (corners[1] >= edges - 1e-6).all()


@pytest.mark.parametrize("resize", RESIZES)
def test_info_points_at_the_same_thing(resize):
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[88:112, 138:162] = 255  # a square around (x 150, y 100)
    pixels[78:92, 188:202] = 255
    result = run(pixels, (64, 80), resize=resize)
    for x, y in ((150, 100), (195, 85)):
        u, v = to_model(torch.tensor([float(x), float(y)]), result.info).tolist()
        assert hwc(result)[int(v), int(u)].min() > 200
    u, v = to_model(torch.tensor([150.0, 60.0]), result.info).tolist()
    assert hwc(result)[int(v), int(u)].max() < 50


def test_letterbox_bars_are_grey_and_crop_has_none():
    pixels = np.full((50, 100, 3), 250, np.uint8)
    boxed = hwc(run(pixels, 64, resize="letterbox"))
    assert (boxed[:16] == 114).all()
    assert (boxed[16:48] == 250).all()
    assert (boxed[48:] == 114).all()
    assert (hwc(run(pixels, 64, resize="crop")) == 250).all()
    info = run(pixels, 64, resize="letterbox").info
    assert info.offset == (16, 0)
    assert info.scale == (0.64, 0.64)
    assert run(pixels, 64, resize="crop").info.offset == (0, -32)


@pytest.mark.parametrize("size", [(60, 90), (18, 31), (32, 200), (300, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_squash_agrees_with_pil(size, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 220, channels), dtype=np.uint8)
    ours = hwc(run(pixels, size))
    planes = [Image.fromarray(pixels[..., c]).resize(size[::-1], Image.Resampling.BILINEAR) for c in range(channels)]
    assert np.abs(ours - np.stack(planes, -1).astype(int)).max() <= 1


def test_crop_agrees_with_torchvision():
    pixels = smooth(150, 225)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    theirs = TF.center_crop(TF.resize(image, [64], antialias=True), [64, 64]).permute(1, 2, 0).numpy().astype(int)
    assert np.array_equal(hwc(run(pixels, 64, resize="crop")), theirs)


def test_shrinking_does_not_alias():
    stripe = np.roll(np.arange(256) // 4 % 2 * 255, 2).astype(np.uint8)  # a sampler would see one colour of the two
    stripes = np.broadcast_to(stripe[None, :, None], (256, 256, 3)).copy()
    assert np.abs(hwc(run(stripes, 32))[:, 1:-1] - 127.5).max() <= 1  # at the border half of the filter is missing
    strip = stripes[:8]  # shrinks in one direction, grows in the other
    assert np.abs(hwc(run(strip, (32, 32)))[:, 1:-1] - 127.5).max() <= 1


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (2, 30000)])
def test_extreme_shapes_survive(resize, shape):
    sample = run(np.full((*shape, 3), 200, np.uint8), 224, resize=resize, denoise="median")
    assert sample.image.shape == (3, 224, 224)
    if resize == "letterbox":  # the median takes a line of one pixel for noise
        sample = run(np.full((*shape, 3), 200, np.uint8), 224, resize=resize)
        assert (sample.image == 200).all(0).any()
        assert ((sample.image == 200) | (sample.image == 114)).all(), "the picture and the bars"
    else:
        assert (sample.image == 200).all(), "a picture of one colour keeps it"
    assert sample.info.size == shape


def test_long_strip_is_cropped_as_if_enlarged_whole():
    strip = smooth(4, 100)
    ours = hwc(run(strip, 32, resize="crop"))
    whole = cv2.resize(strip, (800, 32), interpolation=cv2.INTER_LINEAR)[:, 384:416].astype(int)
    assert np.abs(ours - whole).max() <= 1


def test_same_size_needs_no_copy():
    sample = make_sample(smooth(32, 32))
    assert Preprocessing(32)(sample).image.data_ptr() == sample.image.data_ptr()


def test_scale_of_a_reader_is_kept():
    pixels = smooth(100, 200)
    info = ImageInfo("a.jpg", (200, 400), scale=(0.5, 0.5))
    result = Preprocessing(50)(make_sample(pixels).replace(info=info)).info
    assert (result.size, result.scale) == ((200, 400), (0.25, 0.125))


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def noisy(clean, kind):
    rng = np.random.default_rng(3)
    if kind == "salt":
        hit = rng.random(clean.shape) < 0.04
        return np.where(hit, rng.choice([0, 255], clean.shape), clean).astype(np.uint8)
    return np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).round().astype(np.uint8)


def photo():
    files = sorted((DATA / "classification" / "coco5" / "train").glob("*/*.jpg"))
    if not files:
        pytest.skip(f"no photos at {DATA}: set VISIONKIT_TEST_DATA")
    picture = cv2.imread(str(max(files, key=lambda f: f.stat().st_size)))
    return cv2.resize(picture, (160, 160), interpolation=cv2.INTER_AREA)


def drawn():
    picture = smooth(96, 96)
    cv2.circle(picture, (40, 50), 20, (200, 60, 20), -1)
    return picture


@pytest.mark.parametrize("source", [drawn, photo])
@pytest.mark.parametrize(
    ("denoise", "kind", "gain"), [("median", "salt", 3), ("bilateral", "gauss", 1), ("nlm", "gauss", 1)]
)
def test_denoise_comes_closer_to_the_clean_picture(source, denoise, kind, gain):
    clean = source()
    dirty = noisy(clean, kind)
    result = hwc(run(dirty, clean.shape[:2], denoise=denoise))
    assert psnr(result, clean) > psnr(dirty, clean) + gain
    weaker = hwc(run(dirty, clean.shape[:2], denoise=denoise, denoise_strength=0.2))
    stronger = hwc(run(dirty, clean.shape[:2], denoise=denoise, denoise_strength=2.0))
    assert not np.array_equal(result, stronger)
    if denoise != "median":  # whose window cannot be smaller than 3 x 3
        assert np.abs(weaker - dirty).mean() < np.abs(result - dirty).mean() < np.abs(stronger - dirty).mean()


@pytest.mark.parametrize("denoise", ["median", "bilateral", "nlm"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_denoise_takes_any_channels(denoise, channels):
    dirty = noisy(smooth(24, 24, channels), "salt")
    result = run(dirty, 24, denoise=denoise)
    assert result.image.shape == (channels, 24, 24)
    alone = run(dirty[..., -1:].copy(), 24, denoise=denoise)
    if not (denoise == "median" and channels == 4):
        assert torch.equal(result.image[-1], alone.image[0])


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": (10, -1)},
        {"size": (1, 2, 3)},
        {"size": "224"},
        {"size": 2.5},
        {"resize": "stretch"},
        {"denoise": "wavelet"},
        {"denoise_strength": 0},
        {"denoise_strength": float("nan")},
        {"channels": 0},
    ],
)
def test_bad_values_are_named(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Preprocessing(**options)


def test_wrong_image_is_named():
    with pytest.raises(DataError, match=r"a\.png.*channels"):
        Preprocessing(8, channels=1)(make_sample(smooth(9, 9)))


def test_checkpoint_round_trip():
    made = Preprocessing((40, 56), resize="letterbox", denoise="bilateral", denoise_strength=0.5)
    again = build(spec_of(made))
    sample = make_sample(smooth(70, 50))
    assert again.size == (40, 56)
    for other in (again, pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(sample).image, made(sample).image)


def boxed(height, width, boxes, **changes):
    sample = make_sample(np.zeros((height, width, 3), np.uint8))
    return sample.replace(target=BoxTarget.make(boxes, range(len(boxes))), **changes)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [64, (48, 90), (300, 200)])
@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (100, 100)])
def test_boxes_land_where_the_pixels_land(resize, size, shape):
    box = [70, 50, 100, 75]
    sample = boxed(*shape, [box])
    sample.image[0, box[1] : box[3], box[0] : box[2]] = 255  # red on black
    result = Preprocessing(size, resize=resize)(sample)
    ys, xs = np.nonzero((hwc(result)[..., 0] > 127) & (hwc(result)[..., 1] < 50))
    seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert np.abs(result.target.boxes[0].numpy() - seen).max() <= 0.76
    assert result.target.labels.tolist() == [0]
    assert result.target.restore(result.info) is sample.target


@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    size=st.tuples(st.integers(64, 900), st.integers(64, 900)),
    resize=st.sampled_from(["squash", "letterbox"]),
    seed=st.integers(0, 1000),
)
def test_placed_boxes_come_back(shape, size, resize, seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (6, 2, 2)), 1) * np.array([shape[1], shape[0]])  # [N, (first, second), (x, y)]
    preprocessing = Preprocessing(size, resize=resize)
    scale = preprocessing.scale(shape)
    thick = ((corners[:, 1] - corners[:, 0]) * np.array(scale[::-1]) > 1.05).all(1)  # thinner ones are dropped
    boxes = corners[thick].reshape(-1, 4)
    sample = boxed(1, 1, boxes, image=torch.empty(1, dtype=torch.uint8).expand(3, *shape))
    sample = sample.replace(info=ImageInfo("a.png", shape))
    result = preprocessing(sample)
    prediction = BoxPrediction(result.target.boxes, torch.ones(len(boxes)), result.target.labels)
    tolerance = max(1e-3, 2e-7 / min(scale) * max(size))  # of float32 at the model's size
    assert torch.allclose(
        prediction.restore(result.info).boxes, torch.as_tensor(boxes, dtype=torch.float32), atol=tolerance
    )
    assert torch.equal(result.target.restore(result.info).boxes, sample.target.boxes)
    placed = sample.target.place(scale, result.info.offset, preprocessing.size)
    assert torch.allclose(placed.boxes, result.target.boxes, atol=1.0)  # letterbox rounds the inner size


def test_a_cropped_object_is_clipped_or_no_longer_counted():
    sample = boxed(50, 100, [[0, 0, 20, 10], [20, 10, 40, 20], [10, 20, 27, 30]])
    target = Preprocessing(50, resize="crop")(sample).target  # columns 25 to 75
    assert target.labels.tolist() == [1, 2]
    assert target.boxes.tolist() == [[0, 10, 15, 20], [0, 20, 2, 30]]
    assert target.crowd.tolist() == [False, True]
    assert len(target.restore(sample.info)) == 3


def test_each_step_places_from_where_the_last_one_left():
    sample = boxed(100, 200, [[40, 20, 80, 60]])
    once = Preprocessing(100, resize="letterbox")(sample)
    twice = Preprocessing((50, 200))(once)
    assert once.target.boxes.tolist() == [[20, 35, 40, 55]]
    assert twice.target.boxes.tolist() == [[40, 17.5, 80, 27.5]]
    assert twice.target.restore(twice.info) is sample.target


def test_images_without_objects():
    sample = Preprocessing(32, resize="crop")(boxed(40, 60, []))
    assert sample.target.boxes.shape == (0, 4)
    with_one = Preprocessing(32, resize="crop")(boxed(40, 60, [[5, 5, 20, 20]]))
    assert torch.equal(sample.image, with_one.image)
    assert sample.info == with_one.info


@pytest.mark.parametrize("resize", RESIZES)
def test_scale_is_what_the_info_says(resize):
    preprocessing = Preprocessing((60, 90), resize=resize)
    assert preprocessing.scale((120, 300)) == pytest.approx(preprocessing(boxed(120, 300, [])).info.scale)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(640, 480), (427, 637), (333, 1001), (900, 223), (1500, 2001)])
@pytest.mark.parametrize("size", [64, (96, 60)])
def test_reduced_pictures_lie_where_whole_ones_do(tmp_path, resize, shape, size):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(*shape)).save(path, quality=95)
    boxes = [[10.5, 20.25, 100.0, 150.5], [0.0, 0.0, shape[1], shape[0]], [shape[1] - 90, shape[0] - 80, *shape[::-1]]]
    data = BoxDataset([make_entry(str(path), "a", [], ["a"], size=shape, source="labels")], ["a"])
    preprocessing = Preprocessing(size, resize=resize)
    target = BoxTarget.make(boxes, [0, 0, 0])
    reduced = data.load(0, preprocessing.scale)
    assert reduced.reduced > 1
    assert reduced.info.size == shape
    small = preprocessing(reduced.replace(target=target))
    whole = preprocessing(data[0].replace(target=target))
    assert small.reduced == 1
    assert small.info == whole.info
    assert torch.equal(small.target.boxes, whole.target.boxes)
    assert torch.equal(small.target.restore(small.info).boxes, target.boxes)
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(shape[::-1])
    assert torch.allclose(to_original(to_model(points, small.info), small.info), points, atol=1e-3)
    assert psnr(hwc(small), hwc(whole)) > 40


def test_the_last_pixel_of_an_odd_edge_counts_in_part():
    ramp = np.broadcast_to(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], (40, 125, 3))  # one grey level a column
    whole = np.repeat(ramp, 4, 1)[:, :497]  # 497 = 4 * 124.25
    small = ramp[:10]
    info = ImageInfo("a", (40, 497))
    found = Preprocessing((10, 71))(Sample(torch.from_numpy(small.copy()).permute(2, 0, 1), None, info, 4))
    expected = Preprocessing((10, 71))(Sample(torch.from_numpy(whole.copy()).permute(2, 0, 1), None, info))
    assert found.info == expected.info
    assert np.abs(hwc(found) - hwc(expected)).max() <= 1


def test_reduced_photos_look_like_whole_ones():
    files = sorted((DATA / "coco128" / "images" / "train2017").glob("*.jpg"))[:24]
    if not files:
        pytest.skip(f"no photos in {DATA}")
    found = []
    for file in files:
        data = BoxDataset([make_entry(str(file), "a", [], ["a"], size=None, source="labels")], ["a"])
        preprocessing = Preprocessing(160)
        reduced = data.load(0, preprocessing.scale)
        if reduced.reduced == 1:  # a strip
            continue
        found.append(psnr(hwc(preprocessing(reduced)), hwc(preprocessing(data[0]))))
    assert len(found) > 12
    assert np.mean(found) > 30
    assert min(found) > 22
