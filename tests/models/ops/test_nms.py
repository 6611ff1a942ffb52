import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from visionkit.models.ops.boxes import pairwise_iou
from visionkit.models.ops.nms import SOFT_SIGMA, suppress


def scene(n, seed, classes=3):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 60 - 10
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * 40], 1)
    return boxes, torch.rand(n, generator=g), torch.randint(0, classes, (n,), generator=g)


@given(st.integers(0, 10_000), st.integers(0, 60))
def test_hard_is_torchvisions_batched_nms(seed, n):
    boxes, scores, labels = scene(n, seed)
    kept, values = suppress(boxes, scores, labels, threshold=0.5, limit=1000)
    assert kept.tolist() == torchvision.ops.batched_nms(boxes, scores, labels, 0.5).tolist()
    torch.testing.assert_close(values, scores[kept])


@given(st.integers(0, 10_000))
def test_soft_follows_the_papers_loop(seed):
    boxes, scores, labels = scene(25, seed)
    left, expected = {i: float(s) for i, s in enumerate(scores)}, []
    overlap = pairwise_iou(boxes, boxes)
    while left:
        best = max(left, key=left.get)
        value = left.pop(best)
        if value <= 0.05:
            break
        expected.append((best, value))
        for other in left:
            if labels[other] == labels[best]:
                left[other] *= float(torch.exp(-(overlap[best, other] ** 2) / SOFT_SIGMA))
    kept, values = suppress(boxes, scores, labels, kind="soft", limit=1000, min_score=0.05)
    assert kept.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(values, torch.tensor([v for _, v in expected]), atol=1e-5, rtol=1e-4)


def test_classes_leave_each_other_alone():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    kept, _ = suppress(boxes, torch.tensor([0.3, 0.9, 0.8]), torch.tensor([0, 0, 1]))
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["hard", "soft", "none"])
def test_limit_order_and_nothing(kind):
    boxes, scores, labels = scene(30, 1)
    kept, values = suppress(boxes, scores, labels, kind=kind, limit=4)
    assert len(kept) == 4
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    kept, values = suppress(boxes[:0], scores[:0], labels[:0], kind=kind)
    assert kept.shape == values.shape == (0,)


def test_bfloat16_is_taken():
    boxes, scores, labels = scene(10, 0)
    kept, values = suppress(boxes.bfloat16(), scores.bfloat16(), labels)
    assert values.dtype == torch.float32
    assert len(kept)


def test_many_classes_keep_their_digits():
    """The shift that parts the classes must not blur boxes that differ little."""
    boxes = torch.tensor([[1000.0, 1000, 1010, 1010], [1000.0, 1000, 1010, 1004.9]])
    labels = torch.tensor([79, 79])
    assert len(suppress(boxes, torch.tensor([0.9, 0.8]), labels, threshold=0.5)[0]) == 2
    assert len(suppress(boxes, torch.tensor([0.9, 0.8]), labels, threshold=0.48)[0]) == 1
