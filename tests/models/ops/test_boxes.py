import math

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from visionkit.models.ops.boxes import BOX_LOSSES, area, box_loss, clip, iou, pad, pairwise_iou


def random_boxes(n, seed=0, size=100.0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * size
    return torch.cat([corner, corner + 0.5 + torch.rand(n, 2, generator=g) * size / 2], 1)


def test_hand_made_numbers():
    a, b = torch.tensor([0.0, 0, 4, 2]), torch.tensor([2.0, 1, 6, 3])
    assert area(a) == 8
    assert iou(a, b) == pytest.approx(2 / 14)
    assert area(torch.tensor([3.0, 0, 1, 5])) == 0  # inside out
    torch.testing.assert_close(clip(torch.tensor([-3.0, 1, 9, 7]), (5, 8)), torch.tensor([0.0, 1, 8, 5]))


@given(st.integers(0, 10_000))
def test_pairwise_iou_is_torchvisions(seed):
    a, b = random_boxes(7, seed), random_boxes(5, seed + 1)
    torch.testing.assert_close(pairwise_iou(a, b), torchvision.ops.box_iou(a, b))
    batched = pairwise_iou(torch.stack([a, a + 1]), torch.stack([b, b]))
    torch.testing.assert_close(batched[1], torchvision.ops.box_iou(a + 1, b))


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("giou", torchvision.ops.generalized_box_iou_loss),
        ("diou", torchvision.ops.distance_box_iou_loss),
        ("ciou", torchvision.ops.complete_box_iou_loss),
    ],
)
def test_losses_and_their_slopes_are_torchvisions(kind, reference):
    ours, theirs = (random_boxes(200).requires_grad_() for _ in range(2))
    truth = random_boxes(200, 1)
    mine, other = box_loss(kind, ours, truth), reference(theirs, truth)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    mine.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_losses_are_zero_for_equal_boxes_and_finite_for_degenerate_ones(kind):
    boxes = random_boxes(10)
    assert box_loss(kind, boxes, boxes).abs().max() < 1e-5
    flat = torch.tensor([[3.0, 3, 3, 3], [0, 0, 0, 5]]).requires_grad_()
    loss = box_loss(kind, flat, torch.tensor([[3.0, 3, 3, 3], [9, 9, 12, 12]]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert flat.grad.isfinite().all()


def test_giou_by_hand():
    a, b = torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1])  # a gap of one: the hull holds 3, the union 2
    assert box_loss("giou", a, b) == pytest.approx(1 + 1 / 3)
    assert box_loss("diou", a, b) == pytest.approx(1 + 4 / 10)
    assert box_loss("iou", a, b) == pytest.approx(1)
    wide = torch.tensor([0.0, 0, 2, 1])
    shape = 4 / math.pi**2 * (math.atan(1.0) - math.atan(2.0)) ** 2
    expected = 0.5 + 0.25 / 5 + shape / (0.5 + shape) * shape
    assert box_loss("ciou", a, wide) == pytest.approx(expected, abs=1e-5)


def test_pad():
    padded = pad([torch.ones(2, 4), torch.ones(0, 4)], 3)
    assert padded.shape == (2, 3, 4)
    assert padded.sum(-1).tolist() == [[4, 4, 0], [0, 0, 0]]
    assert pad([torch.ones(1, dtype=torch.bool)], 2).tolist() == [[True, False]]
