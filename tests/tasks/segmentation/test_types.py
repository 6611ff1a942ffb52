import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import DataError
from visionkit.core.sample import ImageInfo
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.prediction.draw import draw_classes
from visionkit.tasks.segmentation import types
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget, View


def random_mask(size, k=5, seed=0, ignore=0.1):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, k, size, dtype=np.uint8)
    mask[rng.random(size) < ignore] = 255
    return torch.from_numpy(mask)


def random_scores(k, height, width, seed=0):
    return torch.randn(k, height, width, generator=torch.Generator().manual_seed(seed))


def enlarged(scores, size):
    return F.interpolate(scores[None], size=size, mode="bilinear")[0]


def logits(prediction):
    return torch.cat(list(prediction._scores()), 1)


# ---- truth


@pytest.mark.parametrize("mask", [torch.zeros(3, 4), torch.zeros(1, 3, 4).byte(), torch.zeros(3, 4).long()])
def test_a_mask_of_another_kind_is_refused(mask):
    with pytest.raises(DataError, match=r"a mask is uint8 \[H, W\], not"):
        MaskTarget(mask)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_mask_enlarged_and_shrunk_is_itself(factor):
    target = MaskTarget(random_mask((6, 9)))
    large = target.place((factor, factor), (0, 0), (6 * factor, 9 * factor))
    assert torch.equal(large.mask, target.mask.repeat_interleave(factor, 0).repeat_interleave(factor, 1))
    again = large.place((1 / factor, 1 / factor), (0, 0), (6, 9))
    assert torch.equal(again.mask, target.mask)
    assert again.original is target
    assert again.restore(ImageInfo("a", (6, 9))) is target


def test_a_mask_is_shifted_cut_and_padded():
    mask = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    placed = MaskTarget(mask).place((1.0, 1.0), (1, -1), (4, 4))
    assert placed.mask.tolist() == [[255] * 4, [2, 3, 255, 255], [5, 6, 255, 255], [255] * 4]
    outside = MaskTarget(mask).place((1.0, 1.0), (9, 9), (4, 4))
    assert (outside.mask == 255).all()


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_the_truth_of_the_original_comes_back(resize):
    from visionkit.core.sample import Sample

    target = MaskTarget(random_mask((30, 41)), weights=torch.ones(5))
    image = torch.zeros(3, 30, 41, dtype=torch.uint8)
    seen = Preprocessing((24, 32), resize=resize)(Sample(image, target, ImageInfo("a", (30, 41))))
    assert seen.target.mask.shape == (24, 32)
    assert seen.target.restore(seen.info) is target
    assert seen.target.weights is target.weights


def test_several_masks_in_one_picture():
    """Each says something in its own part; where none does, 255 stays."""
    whole = random_mask((4, 8), ignore=0)
    parts = []
    for columns in (slice(0, 3), slice(3, 6)):
        mask = torch.full((4, 8), 255, dtype=torch.uint8)
        mask[:, columns] = whole[:, columns]
        parts.append(MaskTarget(mask, original=MaskTarget(whole)))
    joined = parts[0].join(parts[1:])
    assert torch.equal(joined.mask[:, :6], whole[:, :6])
    assert (joined.mask[:, 6:] == 255).all()
    assert joined.original is None
    assert torch.equal(parts[0].join([]).mask, parts[0].mask)


def test_arrays_there_and_back():
    """All values that there can be; the gaps that albumentations fills with 0 say nothing."""
    target = MaskTarget(torch.arange(256).view(16, 16).byte(), weights=torch.ones(5))
    arrays = target.arrays()
    assert arrays["mask"].dtype == np.uint8
    assert arrays["mask"].ravel()[[0, 254, 255]].tolist() == [1, 255, 0]
    back = target.with_arrays(arrays, (16, 16))
    assert torch.equal(back.mask, target.mask)
    assert back.weights is target.weights
    turned = target.with_arrays({"mask": np.pad(np.rot90(arrays["mask"]), 1)}, (18, 18))
    assert torch.equal(turned.mask[1:-1, 1:-1], target.mask.rot90())
    assert (turned.mask[0] == 255).all()


# ---- prediction


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_scores_are_enlarged_as_torch_does(stride):
    scores = random_scores(5, 6, 9)
    prediction = MaskPrediction.of(scores, stride)
    assert prediction.size == (6 * stride, 9 * stride)
    expected = enlarged(scores, prediction.size)
    assert torch.allclose(logits(prediction), expected, atol=1e-5)
    assert torch.allclose(prediction.probabilities(), expected.softmax(0), atol=1e-5)
    assert prediction.labels.dtype == torch.uint8
    assert torch.equal(prediction.labels, logits(prediction).argmax(0).byte())


@pytest.mark.parametrize("size", [(48, 64), (96, 32), (24, 16), (48, 160)])
def test_restored_from_a_squashed_picture(size):
    scores = random_scores(3, 6, 8)  # of 48 x 64 pixels
    info = ImageInfo("a", size, (48 / size[0], 64 / size[1]), (0, 0))
    restored = MaskPrediction.of(scores, 8).restore(info)
    assert restored.size == size
    assert torch.allclose(logits(restored), enlarged(scores, size), atol=1e-5)


def test_restored_from_a_letterboxed_picture():
    """A picture of 96 x 64 pixels is shrunk to 48 x 32 and lies between bars of 8 pixels left and right of it."""
    scores = random_scores(3, 12, 12)  # of 48 x 48 pixels
    restored = MaskPrediction.of(scores, 4).restore(ImageInfo("a", (96, 64), (0.5, 0.5), (0, 8)))
    expected = enlarged(scores, (96, 96))[:, :, 16:80]
    assert torch.allclose(logits(restored), expected, atol=1e-5)


def test_restored_twice():
    scores = random_scores(3, 8, 8)
    first, second = ImageInfo("a", (20, 30), (1.5, 0.5), (2, -3)), ImageInfo("a", (40, 25), (0.5, 2.0), (4, 5))
    both = ImageInfo("a", (40, 25), (0.75, 1.0), (1.5 * 4 + 2, 0.5 * 5 - 3))
    prediction = MaskPrediction.of(scores, 4)
    assert torch.allclose(logits(prediction.restore(first).restore(second)), logits(prediction.restore(both)))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_negative_scale_is_a_mirror(axis):
    scores = random_scores(4, 5, 7)
    size = (20, 28)
    scale, offset = ([1.0, 1.0], [0, 0])
    scale[axis], offset[axis] = -1.0, size[axis]
    mirrored = MaskPrediction.of(scores.flip(1 + axis), 4).restore(ImageInfo("a", size, tuple(scale), tuple(offset)))
    assert torch.allclose(logits(mirrored), enlarged(scores, size), atol=1e-5)


def test_both_views_of_a_mirrored_pair_are_one():
    scores = random_scores(4, 5, 7)
    straight = MaskPrediction.of(scores, 4)
    turned = MaskPrediction.of(scores.flip(2), 4).restore(ImageInfo("a", (20, 28), (1.0, -1.0), (0, 28)))
    merged = MaskPrediction.merge([straight, turned], [(0, 0, 20, 28)] * 2)
    assert torch.allclose(merged.probabilities(), straight.probabilities(), atol=1e-6)


def windows(scores, regions, stride):
    """Predictions of parts of a picture: those of the cells of its score map."""
    size = (scores.shape[1] * stride, scores.shape[2] * stride)
    parts = []
    for top, left, bottom, right in regions:
        cells = scores[:, top // stride : bottom // stride, left // stride : right // stride]
        parts.append(MaskPrediction.of(cells, stride).restore(ImageInfo("a", size, (1.0, 1.0), (-top, -left))))
    return MaskPrediction.merge(parts, regions)


REGIONS = [(0, 0, 24, 24), (0, 16, 24, 40), (16, 0, 40, 24), (16, 16, 40, 40)]


def test_windows_of_constant_scores_are_the_whole():
    scores = torch.tensor([0.3, -1.0, 2.0]).view(3, 1, 1).expand(3, 10, 10)
    merged = windows(scores, REGIONS, 4)
    assert merged.size == (40, 40)
    assert torch.allclose(merged.probabilities(), enlarged(scores, (40, 40)).softmax(0), atol=1e-6)
    assert (merged.labels == 2).all()


@pytest.mark.parametrize("regions", [REGIONS, [(0, 0, 40, 40)], [(0, 0, 40, 20), (0, 20, 40, 40)]])
def test_windows_with_a_cell_a_pixel_are_the_whole(regions):
    """Without anything between the cells, windows say the same of a pixel, whatever its weight."""
    scores = random_scores(3, 40, 40)
    merged = windows(scores, regions, 1)
    assert torch.allclose(merged.probabilities(), scores.softmax(0), atol=1e-5)
    assert torch.equal(merged.labels, scores.argmax(0).byte())


def test_windows_of_linear_scores_are_the_whole_inside():
    """Half a cell from its border a window repeats its last cell; elsewhere it is linear as the whole is."""
    rows, columns = torch.arange(10.0)[:, None], torch.arange(10.0)
    scores = torch.stack([0.1 * rows + 0 * columns, 0.2 * columns - 0.1 * rows, 0.5 - 0.1 * columns + 0 * rows])
    merged, whole = windows(scores, REGIONS, 4).probabilities(), enlarged(scores, (40, 40)).softmax(0)
    near = torch.zeros(40, dtype=torch.bool)
    near[16:18] = near[22:24] = True  # half a cell, 2 pixels, within the borders at 16 and 24
    far = ~(near[:, None] | near)
    assert torch.allclose(merged[:, far], whole[:, far], atol=1e-5)
    assert torch.allclose(merged, whole, atol=0.02), "there a window has little weight"


def test_weights_fall_towards_inner_borders_alone():
    """Two windows say 1 and 0: the mean falls steadily over the overlap, and there alone."""
    sure = torch.tensor([20.0, -20.0]).view(2, 1, 1).expand(2, 2, 6)
    parts = [
        MaskPrediction.of(s, 4).restore(ImageInfo("a", (8, 40), (1.0, 1.0), (0, -left)))
        for s, left in ((sure, 0), (sure.flip(0), 16))
    ]
    first = MaskPrediction.merge(parts, [(0, 0, 8, 24), (0, 16, 8, 40)]).probabilities()[0]
    assert torch.allclose(first[:, :16], torch.ones(8, 16))
    assert torch.allclose(first[:, 24:], torch.zeros(8, 16), atol=1e-6)
    overlap = first[0, 16:24]
    assert (overlap.diff() < 0).all()
    assert overlap.tolist() == pytest.approx([(7.5 - i) / 8 for i in range(8)], abs=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_rows_in_parts_equal_all_at_once(several, monkeypatch):
    scores = random_scores(3, 10, 10)
    regions = REGIONS if several else [(0, 0, 40, 40)]
    whole = windows(scores, regions, 4)
    labels, probabilities = whole.labels, whole.probabilities()
    for rows in (1, 7, 39):
        monkeypatch.setattr(types, "CHUNK_VALUES", rows * 40 * 3)
        parts = windows(scores, regions, 4)
        assert len(list(parts._scores())) == -(-40 // rows)
        assert torch.equal(parts.labels, labels)
        assert torch.allclose(parts.probabilities(), probabilities, atol=1e-6)


@settings(max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), k=st.integers(1, 6), stride=st.sampled_from([1, 4, 32]))
def test_pictures_of_any_size(height, width, k, stride):
    info = ImageInfo("a", (height, width), (64 / height, 64 / width), (0, 0))
    prediction = MaskPrediction.of(random_scores(k, 64 // stride, 64 // stride), stride).restore(info)
    names = [f"class {i}" for i in range(k)]
    assert prediction.labels.shape == (height, width)
    assert prediction.labels.max() < k
    assert prediction.labels is prediction.labels, "computed once"
    record = prediction.record(names)
    assert (record["width"], record["height"]) == (width, height)
    assert sum(record["pixels"].values()) == height * width
    assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert set(record["pixels"]) == {names[i] for i in prediction.labels.unique().tolist()}
    assert torch.allclose(prediction.probabilities().sum(0), torch.ones(height, width), atol=1e-5)


def test_half_precision_scores_are_enlarged_in_full():
    scores = random_scores(4, 5, 5).bfloat16()
    prediction = MaskPrediction.of(scores, 4)
    assert prediction.probabilities().dtype == torch.float32
    assert torch.allclose(logits(prediction), enlarged(scores.float(), (20, 20)), atol=1e-5)


def test_a_prediction_is_drawn_with_the_colours_of_its_classes():
    from visionkit.prediction.draw import draw_classes

    prediction = MaskPrediction((View(random_scores(3, 4, 5), 16),), (64, 80))
    image = torch.full((3, 64, 80), 100, dtype=torch.uint8)
    assert torch.equal(prediction.draw(image, ["a", "b", "c"]), draw_classes(image, prediction.labels, ["a", "b", "c"]))
    assert (image == 100).all()


def test_target_is_drawn_as_a_prediction_is():
    image = torch.full((3, 120, 120), 100, dtype=torch.uint8)
    mask = torch.full((120, 120), 255, dtype=torch.uint8)
    mask[:60] = 0
    drawn = MaskTarget(mask).draw(image, ["tree"])
    assert drawn[:, 10, 10].tolist() == draw_classes(image, mask, ["tree"])[:, 10, 10].tolist() != [100] * 3
    assert drawn[:, 100, 100].tolist() == [100] * 3, "where it says nothing"
