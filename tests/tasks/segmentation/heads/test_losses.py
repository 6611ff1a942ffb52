import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.tasks.segmentation.heads.losses import (
    cross_entropy_and_dice,
    dice_loss,
    focal_loss,
    lovasz_softmax,
    ohem_cross_entropy,
    pixel_cross_entropy,
)

WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.25, 3.0])
LOSSES = {
    "cross_entropy": pixel_cross_entropy,
    "cross_entropy weighted": lambda x, m: pixel_cross_entropy(x, m, weights=WEIGHTS, label_smoothing=0.1),
    "dice": dice_loss,
    "focal": focal_loss,
    "focal weighted": lambda x, m: focal_loss(x, m, gamma=0.5, weights=WEIGHTS),
    "lovasz": lovasz_softmax,
    "ohem": lambda x, m: ohem_cross_entropy(x, m, fraction=0.3),
    "ohem weighted": lambda x, m: ohem_cross_entropy(x, m, fraction=0.3, weights=WEIGHTS, label_smoothing=0.1),
}
EACH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def scene(batch=2, classes=5, height=6, width=7, ignored=0.3, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, height, width, generator=g, dtype=dtype) * 2
    mask = torch.randint(0, classes, (batch, height, width), generator=g, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=g) < ignored] = 255
    return logits.requires_grad_(), mask


def with_gradient(loss, logits, mask):
    value = loss(logits, mask)
    return value, *torch.autograd.grad(value, logits)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs(weights, smoothing):
    logits, mask = scene()
    mine = with_gradient(
        lambda x, m: pixel_cross_entropy(x, m, weights=weights, label_smoothing=smoothing), logits, mask
    )
    theirs = with_gradient(
        lambda x, m: F.cross_entropy(x, m.long(), weights, ignore_index=255, label_smoothing=smoothing), logits, mask
    )
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("factor", [1.0, 60.0])
def test_cross_entropy_and_dice_in_one_are_those_of_each(weights, ignored, factor):
    logits, mask = scene(ignored=ignored, dtype=torch.float64)
    w = None if weights is None else weights.double()

    def apart(x, m):
        return 0.7 * pixel_cross_entropy(x * factor, m, weights=w) + 1.3 * dice_loss(x * factor, m)

    def together(x, m):
        entropy, dice = cross_entropy_and_dice(x * factor, m, weights=w)
        return 0.7 * entropy + 1.3 * dice

    torch.testing.assert_close(with_gradient(together, logits, mask), with_gradient(apart, logits, mask))


def test_dice_by_hand():
    # probabilities of class 0: 3/4, 1/2, 1/4, and anything at the ignored pixel; class 2 is not in the truth
    p = torch.tensor([[0.75, 0.5, 0.25, 0.9], [0.125, 0.25, 0.5, 0.05], [0.125, 0.25, 0.25, 0.05]])
    mask = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    first = 2 * 1.25 / (0.75**2 + 0.5**2 + 0.25**2 + 2)
    second = 2 * 0.5 / (0.125**2 + 0.25**2 + 0.5**2 + 1)
    value = dice_loss(p.log()[None, :, None], mask)
    assert value.item() == pytest.approx(1 - (first + second) / 2, abs=1e-6)


def test_focal_by_hand():
    p = torch.tensor([[0.75, 0.5, 0.9], [0.25, 0.5, 0.1]])
    logits, mask = p.log()[None, :, None], torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    terms = 0.25**2 * math.log(4 / 3), 0.5**2 * math.log(2)
    assert focal_loss(logits, mask).item() == pytest.approx(sum(terms) / 2)
    weighted = focal_loss(logits, mask, weights=torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((terms[0] + 3 * terms[1]) / 4)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_without_focus_is_cross_entropy(weights):
    logits, mask = scene()
    torch.testing.assert_close(
        with_gradient(lambda x, m: focal_loss(x, m, gamma=0.0, weights=weights), logits, mask),
        with_gradient(lambda x, m: pixel_cross_entropy(x, m, weights=weights), logits, mask),
    )


def lovasz_by_the_paper(p, truth):
    """Algorithm 1 of Berman et al. in plain loops: the Jaccard loss of the set of the i worst pixels, step by step."""
    losses = []
    for k in np.unique(truth):
        own = truth == k
        errors = np.where(own, 1 - p[k], p[k])
        order = np.argsort(-errors, kind="stable")
        value, before = 0.0, 0.0
        for i in range(len(order)):
            wrong = np.zeros(len(own), bool)
            wrong[order[: i + 1]] = True
            missed, invented = (wrong & own).sum(), (wrong & ~own).sum()
            jaccard = 1 - (own.sum() - missed) / (own.sum() + invented)
            value += errors[order[i]] * (jaccard - before)
            before = jaccard
        losses.append(value)
    return np.mean(losses)


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_is_algorithm_1_of_the_paper(seed):
    logits, mask = scene(seed=seed, dtype=torch.float64, classes=seed + 2)
    p = logits.detach().softmax(1).permute(1, 0, 2, 3).flatten(1).numpy()
    truth, said = mask.flatten().numpy(), mask.flatten().numpy() != 255
    expected = lovasz_by_the_paper(p[:, said], truth[said])
    assert lovasz_softmax(logits, mask).item() == pytest.approx(expected, abs=1e-9)


def test_lovasz_of_a_sure_answer_is_its_jaccard_loss():
    truth = torch.tensor([[[0, 0, 0, 1, 1, 1, 1, 255]]], dtype=torch.uint8)
    answer = torch.tensor([0, 0, 1, 1, 1, 0, 0, 2])  # unions 5 and 5, intersections 2 and 2
    logits = F.one_hot(answer, 3).T[None, :, None].float() * 60
    assert lovasz_softmax(logits, truth).item() == pytest.approx(1 - 2 / 5)


def test_lovasz_of_a_single_pixel_of_a_class_is_finite():
    logits = torch.zeros(1, 2, 1, 3, requires_grad=True)
    value, gradient = with_gradient(lovasz_softmax, logits, torch.tensor([[[0, 1, 1]]], dtype=torch.uint8))
    assert value.item() == pytest.approx(0.5), "all errors are one half, and so is their mean by class"
    assert gradient.isfinite().all()


def test_ohem_by_hand():
    p = torch.tensor([[0.9, 0.5, 0.25, 0.01, 0.8], [0.1, 0.5, 0.75, 0.99, 0.2]])
    logits, mask = p.log()[None, :, None], torch.tensor([[[0, 0, 0, 255, 0]]], dtype=torch.uint8)
    assert ohem_cross_entropy(logits, mask, fraction=0.5).item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert ohem_cross_entropy(logits, mask, fraction=0.26).item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert ohem_cross_entropy(logits, mask, fraction=0.001).item() == pytest.approx(math.log(4))  # one at least
    mask[0, 0, 1] = 1  # the same loss, of the other class
    weighted = ohem_cross_entropy(logits, mask, fraction=0.5, weights=torch.tensor([1.0, 5.0]))
    assert weighted.item() == pytest.approx((math.log(4) + 5 * math.log(2)) / 6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ohem_of_all_pixels_is_cross_entropy(weights):
    logits, mask = scene()
    torch.testing.assert_close(
        with_gradient(lambda x, m: ohem_cross_entropy(x, m, fraction=1.0, weights=weights), logits, mask),
        with_gradient(lambda x, m: pixel_cross_entropy(x, m, weights=weights), logits, mask),
    )


@EACH
def test_gradients_are_those_of_the_values(loss):
    logits, mask = scene(height=3, width=4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), logits)


@EACH
@given(seed=st.integers(0, 2**31), ignored=st.floats(0, 1), scale=st.sampled_from([0.1, 3.0, 1e4]))
@settings(max_examples=25)
def test_ignored_pixels_change_nothing(loss, seed, ignored, scale):
    logits, mask = scene(seed=seed, ignored=ignored)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed + 1)) * scale
    other = (logits.detach() + noise * (mask == 255)[:, None]).requires_grad_()
    value, gradient = with_gradient(loss, logits, mask)
    same, same_gradient = with_gradient(loss, other, mask)
    assert value.isfinite()
    assert torch.equal(value, same)
    assert torch.equal(gradient, same_gradient)
    assert not (gradient * (mask == 255)[:, None]).any()


@EACH
def test_nothing_said_is_no_loss_and_no_gradient(loss):
    logits, mask = scene(ignored=2.0)
    value, gradient = with_gradient(loss, logits, mask)
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("loss", [pixel_cross_entropy, focal_loss, partial(ohem_cross_entropy, fraction=0.5)])
def test_classes_without_weight_alone_are_no_loss(loss):
    logits, mask = scene(ignored=0.0)
    value, gradient = with_gradient(
        lambda x, m: loss(x, m, weights=torch.tensor([1.0, 0, 1, 1, 1])), logits, mask.fill_(1)
    )
    assert value.item() == 0
    assert not gradient.any()


@EACH
def test_a_list_of_images_is_a_batch(loss):
    logits, mask = scene(batch=3)
    value = loss(logits, mask)
    torch.testing.assert_close(loss(list(logits), mask), value)


@EACH
def test_perfect_and_wrong_answers(loss):
    mask = torch.tensor([[[0, 1, 2], [3, 4, 255]]], dtype=torch.uint8)
    right = F.one_hot(mask.long() % 255, 5).permute(0, 3, 1, 2).float() * 60
    smoothed = loss(right, mask) - loss(right.roll(1, 1), mask)  # smoothing minds certainty of either kind
    assert smoothed < -0.2
    if "weighted" not in next(k for k, v in LOSSES.items() if v is loss):
        assert loss(right, mask) < 1e-6


@EACH
def test_float32_under_autocast(loss):
    logits, mask = scene()
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.float(), mask).item(), abs=1e-6)


@EACH
@pytest.mark.parametrize("size", [1e-3, 50.0, 1e4])
def test_finite_for_extreme_logits(loss, size):
    logits, mask = scene()
    value, gradient = with_gradient(loss, (logits.detach() * size).requires_grad_(), mask)
    assert value.isfinite()
    assert gradient.isfinite().all()


@EACH
def test_descending_finds_the_truth(loss):
    _, mask = scene(batch=1)
    logits = torch.zeros(1, 5, 6, 7, requires_grad=True)
    for _ in range(300):
        _, gradient = with_gradient(loss, logits, mask)
        logits = (logits - 20 * gradient).detach().requires_grad_()
    said = mask != 255
    assert torch.equal(logits.argmax(1)[said], mask[said].long())
