import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from visionkit.core.component import build, spec_of
from visionkit.core.errors import UsageError
from visionkit.core.sample import Batch, ImageInfo
from visionkit.data.transforms.scale import MultiScale, resize_batch
from visionkit.tasks.classification.types import ClassTarget
from visionkit.tasks.detection.types import BoxTarget

BOXES = [[32, 64, 96, 160], [128, 32, 192, 96]]


def make_batch(count=3, height=256, width=320, channels=3):
    """Black images with two white rectangles each."""
    images = torch.zeros(count, channels, height, width, dtype=torch.uint8)
    for x1, y1, x2, y2 in BOXES:
        images[:, :, y1:y2, x1:x2] = 255
    images = images.contiguous(memory_format=torch.channels_last)
    targets = [BoxTarget.make(BOXES, [0, 1]) for _ in range(count)]
    return Batch(images, targets, [ImageInfo(str(i), (height, width)) for i in range(count)])


def draw(times=200, batch=None, **options):
    batch = batch or make_batch(1, 96, 128)
    torch.manual_seed(0)
    return [tuple(MultiScale(**options)(batch).images.shape[2:]) for _ in range(times)]


def test_boxes_follow_the_pixels():
    torch.manual_seed(0)
    sizes = set()
    for _ in range(12):
        batch = MultiScale()(make_batch())
        sizes.add(batch.images.shape[2:])
        for image, target in zip(batch.images, batch.targets, strict=True):
            white = (image[0] > 127).int()
            for x1, y1, x2, y2 in target.boxes.tolist():
                ys, xs = np.nonzero(white[:, : int(x2) + 3 if x2 < white.shape[1] / 2 else None].numpy())
                keep = (xs > x1 - 3) & (xs < x2 + 3)
                seen = [xs[keep].min(), ys[keep].min(), xs[keep].max() + 1, ys[keep].max() + 1]
                assert np.abs(np.array(seen) - [x1, y1, x2, y2]).max() <= 0.76
            assert target.labels.tolist() == [0, 1]
            assert target.restore(batch.infos[0]).boxes.tolist() == BOXES
    assert len(sizes) > 2


def test_sizes_are_even_multiples_within_bounds():
    counts = Counter(draw(600, make_batch(1, 320, 320)))
    assert set(counts) == {(s, s) for s in (256, 288, 320, 352, 384)}
    assert min(counts.values()) > 70
    for height, width in draw(100, make_batch(1, 96, 320), smallest=0.5, largest=1.5):
        assert height % 32 == width % 32 == 0
        assert 48 <= height <= 144
        assert 160 <= width <= 480
    assert set(draw(80, smallest=1.1, largest=1.1, multiple=8, batch=make_batch(1, 320, 320))) == {(352, 352)}


def test_the_size_is_drawn_from_torchs_generator():
    batch = make_batch(1, 320, 320)
    results = []
    for seed in (4, 4, 7):
        torch.manual_seed(seed)
        results.append([MultiScale()(batch).images.shape for _ in range(8)])
    assert results[0] == results[1] != results[2]


def test_layout_type_and_input():
    torch.manual_seed(1)
    for channels in (1, 3, 5):
        batch = make_batch(2, 64, 96, channels)
        before = batch.images.clone()
        sizes = set()
        for _ in range(6):
            result = MultiScale(0.5, 1.5)(batch)
            assert result.images.dtype == torch.uint8
            assert result.images.is_contiguous(memory_format=torch.channels_last)
            assert result.infos is batch.infos
            sizes.add(result.images.shape)
        assert len(sizes) > 1
        assert torch.equal(batch.images, before)


def test_same_size_changes_nothing():
    batch = make_batch()
    assert MultiScale(1.0, 1.0)(batch) is batch


def test_classes_have_no_pixels():
    images = make_batch(2, 64, 64).images
    targets = [ClassTarget(torch.eye(2)[i]) for i in range(2)]
    result = MultiScale(2.0, 2.0)(Batch(images, targets, make_batch(2).infos))
    assert result.images.shape == (2, 3, 128, 128)
    assert all(a is b for a, b in zip(result.targets, targets, strict=True))


def test_shrinking_does_not_alias():
    stripes = (torch.arange(256) // 2 % 2 * 255).to(torch.uint8).expand(1, 3, 256, 256)
    inner = resize_batch(stripes, (256, 64))[..., 4:-4]
    assert (inner.int() - 127).abs().max() <= 24  # of a signal of 255


def test_bytes_agree_with_floats():
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in ((48, 80), (96, 128)):
        floats = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True).round()
        assert (resize_batch(images, size).float() - floats).abs().max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"smallest": 0.0},
        {"smallest": 1.5},
        {"largest": 0.5},
        {"largest": math.inf},
        {"smallest": math.nan},
        {"multiple": 0},
    ],
)
def test_bad_values(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        MultiScale(**options)


def test_no_multiple_in_reach():
    with pytest.raises(UsageError, match="no multiple of 32 .* 48 pixels"):
        MultiScale(0.9, 1.1)(make_batch(1, 64, 48))


def test_checkpoint_round_trip():
    made = build(spec_of(MultiScale(0.5, 2.0, multiple=64)))
    assert (made.smallest, made.largest, made.multiple) == (0.5, 2.0, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_resizes_as_the_cpu_does():
    for seed in range(4):
        results = []
        for device in ("cpu", "cuda"):
            torch.manual_seed(seed)
            batch = MultiScale()(make_batch(11).to(device))
            assert all(t.boxes.device.type == device for t in batch.targets)
            results.append(batch.to("cpu"))
        assert (results[0].images.int() - results[1].images.int()).abs().max() <= 1
        for a, b in zip(results[0].targets, results[1].targets, strict=True):
            assert torch.allclose(a.boxes, b.boxes, atol=1e-3)
