from dataclasses import dataclass

import pytest
import torch

from visionkit.core.component import build, spec_of
from visionkit.core.errors import UsageError
from visionkit.core.sample import Batch, ImageInfo
from visionkit.data.transforms.mix import MixUpCutMix, cutmix, mixup, random_box
from visionkit.tasks.classification.types import ClassTarget

K = 4


def make_batch(size=6, height=20, width=24, channels_last=True):
    images = torch.randint(
        0, 256, (size, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    targets = [ClassTarget(torch.eye(K)[i % K], torch.arange(K) + 1.0) for i in range(size)]
    return Batch(images, targets, [ImageInfo(str(i), (height, width)) for i in range(size)])


def flat_batch(size=5):
    """Image i is the constant 40 * i and has class i: pixels tell the true share of each class."""
    images = (torch.arange(size) * 40).to(torch.uint8)[:, None, None, None].expand(size, 3, 30, 40).contiguous()
    targets = [ClassTarget(torch.eye(size)[i]) for i in range(size)]
    return Batch(images, targets, [ImageInfo(str(i), (30, 40)) for i in range(size)])


@pytest.mark.parametrize("options", [{"mixup": 1.0, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}])
def test_targets_say_what_the_pixels_show(options):
    torch.manual_seed(0)
    mix = MixUpCutMix(**options)
    for _ in range(20):
        batch = mix(flat_batch())
        for image, target in zip(batch.images, batch.targets, strict=True):
            shown = float((target.scores * torch.arange(5) * 40).sum())
            assert target.scores.sum().item() == pytest.approx(1)
            assert abs(image.float().mean().item() - shown) <= 0.51  # rounding of uint8
            if options["mixup"] == 0:
                assert set(image.unique().tolist()) <= {40 * i for i in target.scores.nonzero().flatten().tolist()}
            else:
                assert len(image.unique()) == 1


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("options", [{"mixup": 1.0, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}])
def test_type_memory_order_and_input_are_kept(options, channels_last):
    torch.manual_seed(1)
    batch = make_batch(channels_last=channels_last)
    before = batch.images.clone()
    result = MixUpCutMix(**options)(batch)
    assert result.images.dtype == torch.uint8
    assert result.images.stride() == batch.images.stride()
    assert torch.equal(batch.images, before)
    assert not torch.equal(result.images, before)
    assert result.infos is batch.infos
    assert result.targets[0].weights is batch.targets[0].weights
    assert torch.equal(batch.targets[1].scores, torch.eye(K)[1])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_odd_batches_and_a_batch_of_one(size):
    torch.manual_seed(2)
    for _ in range(10):
        batch = MixUpCutMix(1.0, 1.0)(make_batch(size))
        assert len(batch) == size
        assert batch.images.shape == (size, 3, 20, 24)
        if size == 1:
            assert torch.equal(batch.images, make_batch(1).images)
            assert torch.equal(batch.targets[0].scores, torch.eye(K)[0])


def test_torch_seed_decides():
    mix = MixUpCutMix()
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(mix(make_batch()).images)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_probability_and_even_choice():
    torch.manual_seed(3)
    batch = flat_batch(8)
    mix = MixUpCutMix(1.0, 1.0, p=0.5)
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    for _ in range(400):
        result = mix(batch)
        if result is batch:
            kinds["none"] += 1
        else:  # pasted pixels keep the old values; few blends do by chance
            new = set(result.images.unique().tolist()) - set(batch.images.unique().tolist())
            kinds["mixup" if new else "cutmix"] += 1
    assert 160 < kinds["none"] < 240, kinds
    assert 60 < kinds["mixup"] < 140, kinds
    assert MixUpCutMix(p=0.0)(batch) is batch


def test_hand_made_blends():
    images = torch.tensor([[[[0, 10]]], [[[100, 255]]]], dtype=torch.uint8)
    partner = torch.tensor([1, 0])
    assert mixup(images, partner, 0.75).flatten().tolist() == [25, 71, 75, 194]
    pasted, share = cutmix(images, partner, (0, 1, 1, 2))
    assert pasted.flatten().tolist() == [0, 255, 100, 10]
    assert share == 0.5


def test_boxes_have_the_asked_area_unless_cut_off():
    torch.manual_seed(4)
    areas = []
    for _ in range(300):
        top, left, bottom, right = random_box(100, 200, 0.84)  # 16 %: 40 x 80
        assert 0 <= top <= bottom <= 100
        assert 0 <= left <= right <= 200
        assert bottom - top <= 41
        assert right - left <= 81
        areas.append((bottom - top) * (right - left))
    assert max(areas) == pytest.approx(3200, rel=0.05)
    assert sum(a > 3000 for a in areas) > 100
    top, left, bottom, right = random_box(10, 10, 1.0)
    assert (bottom - top) * (right - left) == 0


@pytest.mark.parametrize(
    "options",
    [{"mixup": 0, "cutmix": 0}, {"mixup": -1}, {"cutmix": float("nan")}, {"cutmix": float("inf")}, {"p": 1.5}],
)
def test_bad_values(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        MixUpCutMix(**options)


@dataclass(frozen=True)
class BoxTarget:
    boxes: torch.Tensor


def test_targets_without_scores_are_refused():
    batch = make_batch(2)
    with pytest.raises(UsageError, match="BoxTarget"):
        MixUpCutMix()(Batch(batch.images, [BoxTarget(torch.zeros(1, 4))] * 2, batch.infos))


def test_checkpoint_round_trip():
    made = build(spec_of(MixUpCutMix(0.3, 0, p=0.4)))
    assert (made.mixup, made.cutmix, made.p) == (0.3, 0, 0.4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_blends_as_the_cpu_does():
    for seed in range(6):
        results = []
        for device in ("cpu", "cuda"):
            torch.manual_seed(seed)
            results.append(MixUpCutMix(1.0, 1.0)(make_batch().to(device)).to("cpu"))
        difference = results[0].images.int() - results[1].images.int()
        assert difference.abs().max() <= 1  # rounding of a half
        assert all(
            torch.allclose(a.scores, b.scores) for a, b in zip(results[0].targets, results[1].targets, strict=True)
        )
