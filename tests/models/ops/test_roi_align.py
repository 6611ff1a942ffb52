"""RoIAlign: the numbers and gradients are torchvision's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as reference

from visionkit.models.ops.roi_align import pyramid_level, roi_align

STRIDES = (4, 8, 16, 32)


def maps(batch=2, channels=5, height=96, width=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, channels, math.ceil(height / s), math.ceil(width / s), generator=generator) for s in STRIDES
    ]


def random_boxes(count, width=128, height=96, seed=1):
    """Boxes of 0.3 to 500 pixels whose centres lie up to a quarter of the picture outside."""
    generator = torch.Generator().manual_seed(seed)
    centre = (torch.rand(count, 2, generator=generator) * 1.5 - 0.25) * torch.tensor([width, height])
    side = torch.exp(torch.rand(count, 2, generator=generator) * math.log(500 / 0.3)) * 0.3
    return torch.cat([centre - side / 2, centre + side / 2], 1)


def with_gradients(function, features):
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in features]
    out = function(leaves)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype))
    return out.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


def assert_same(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours[0], theirs[0], atol=atol, rtol=1e-5)
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def multi_scale(rois, size=(96, 128), output_size=7, sampling_ratio=2):
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size, sampling_ratio)
    return lambda xs: pool({str(k): x for k, x in enumerate(xs)}, rois, [size] * len(xs[0]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("output_size", "sampling_ratio"), [(7, 2), (14, 2), (3, 1), (5, 3)])
def test_equals_torchvision_over_a_pyramid(layout, output_size, sampling_ratio):
    features = [x.contiguous(memory_format=layout) for x in maps()]
    rois = [random_boxes(60, seed=1), random_boxes(41, seed=2)]
    theirs = with_gradients(multi_scale(rois, (96, 128), output_size, sampling_ratio), features)
    ours = with_gradients(
        lambda xs: roi_align(xs, rois, STRIDES, output_size=output_size, sampling_ratio=sampling_ratio), features
    )
    assert theirs[0].abs().max() > 0.5
    assert_same(ours, theirs)


def test_all_levels_are_used_and_at_most_one_feels_a_box():
    boxes = torch.tensor([[0, 0, 40.0, 40], [0, 0, 120, 120], [0, 0, 230, 230], [0, 0, 500, 500], [0, 0, 3000, 3000]])
    assert pyramid_level(boxes, STRIDES).tolist() == [0, 1, 2, 3, 3]
    assert pyramid_level(torch.tensor([[0, 0, 224.0, 224], [0, 0, 223.9, 223.9]]), STRIDES).tolist() == [2, 1]
    assert pyramid_level(boxes, (8, 16)).tolist() == [0, 0, 1, 1, 1]
    _, gradients = with_gradients(lambda xs: roi_align(xs, [boxes[:1], boxes[1:2]], STRIDES), maps())
    felt = [[bool(g[i].any()) for g in gradients] for i in range(2)]
    assert felt == [[True, False, False, False], [False, True, False, False]]


finite = st.floats(-200, 400, width=32)


@settings(max_examples=60)
@given(
    corners=st.lists(st.tuples(finite, finite, st.floats(0, 500, width=32), st.floats(0, 500, width=32)), max_size=8)
)
def test_equals_torchvision_for_any_box(corners):
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in corners]).reshape(-1, 4)
    rois = torch.cat([torch.ones(len(boxes), 1), boxes], 1)
    for stride, x in zip(STRIDES[1:3], maps(batch=2, channels=2)[1:3], strict=True):
        theirs = with_gradients(lambda xs, s=stride: reference(xs[0], rois, 7, 1 / s, 2), [x])
        ours = with_gradients(lambda xs, s=stride: roi_align(xs, rois, (s,)), [x])
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "box",
    [
        [-4.0, -4, 4, 4],  # a sampling point on the last place that still counts
        [-400, -400, -300, -300],  # wholly outside
        [124, 92, 128, 96],  # the last cell
        [128, 96, 132, 100],  # begins where the picture ends
        [10, 10, 10, 10],  # no area
        [20, 20, 10, 10],  # inside out
        [-1000, -1000, 1000, 1000],
        [0, 0, 1e30, 1e30],
    ],
)
def test_border_cases_equal_torchvision(box):
    rois = torch.tensor([[0.0, *box]])
    theirs = with_gradients(lambda xs: reference(xs[0], rois, 7, 0.25, 2), maps()[:1])
    ours = with_gradients(lambda xs: roi_align(xs, rois, (4,)), maps()[:1])
    assert_same(ours, theirs)


def test_boxes_that_are_no_numbers_give_zeros():
    rois = [torch.full((1, 4), torch.nan), torch.tensor([[0.0, 0, torch.inf, torch.inf]])]
    out, gradients = with_gradients(lambda xs: roi_align(xs, rois, STRIDES), maps())
    assert not out[0].any()
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (1, 0)])
def test_no_boxes_and_one_box(counts):
    rois = [random_boxes(n, seed=3) for n in counts]
    ours = with_gradients(lambda xs: roi_align(xs, rois, STRIDES), maps())
    assert ours[0].shape == (sum(counts), 5, 7, 7)
    if sum(counts):
        assert_same(ours, with_gradients(multi_scale(rois), maps()))
    else:
        assert not any(g.any() for g in ours[1])


def test_list_and_tensor_of_boxes_are_the_same():
    rois = [random_boxes(3, seed=1), random_boxes(2, seed=2)]
    flat = torch.cat([torch.cat([torch.full((len(b), 1), float(k)), b], 1) for k, b in enumerate(rois)])
    torch.testing.assert_close(roi_align(maps(), rois, STRIDES), roi_align(maps(), flat, STRIDES), atol=0, rtol=0)


def test_gradient_is_that_of_the_numbers():
    rois = torch.tensor([[0.0, 3.3, 2.1, 17.9, 12.4], [0, -5, 7, 9, 40]])
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: roi_align([x], rois, (4,), output_size=3), (x,))


def test_bfloat16_in_and_out_computed_in_float32():
    rois = [random_boxes(60, seed=1), random_boxes(41, seed=2)]
    features = [x.bfloat16() for x in maps()]
    ours = with_gradients(lambda xs: roi_align(xs, rois, STRIDES), features)
    exact = with_gradients(multi_scale(rois), [x.float() for x in features])
    assert ours[0].dtype == ours[1][0].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0], exact[0].bfloat16(), atol=1e-6, rtol=2**-7)  # one rounding at the end
    for a, b in zip(ours[1], exact[1], strict=True):  # and one of the gradient that comes in
        torch.testing.assert_close(a.float(), b, atol=0.02, rtol=2**-6)


def test_memory_order_is_that_of_channels_last():
    out = roi_align(maps(), [random_boxes(3), random_boxes(2)], STRIDES)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    rois = [random_boxes(60, seed=1), random_boxes(41, seed=2)]
    ours = with_gradients(lambda xs: roi_align(xs, rois, STRIDES), maps())
    cuda = with_gradients(lambda xs: roi_align([x.cuda() for x in xs], [r.cuda() for r in rois], STRIDES).cpu(), maps())
    assert_same(ours, cuda)
