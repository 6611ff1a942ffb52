"""Anchors and the offsets from them, beside torchvision's."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from visionkit.tasks.detection.heads.anchors import cell_anchors, decode_offsets, encode_offsets, grid_anchors


@pytest.mark.parametrize(("sizes", "ratios"), [((32,), (0.5, 1.0, 2.0)), ((33, 45.5, 60), (0.7, 3.0))])
def test_anchors_equal_torchvision(sizes, ratios):
    shapes = [(16, 24), (8, 12), (4, 6)]
    generator = AnchorGenerator((sizes,) * 3, (ratios,) * 3)
    images = ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)])
    theirs = generator(images, [torch.zeros(1, 1, *s) for s in shapes])[0]
    ours = grid_anchors(shapes, (8, 16, 32), [cell_anchors(sizes, ratios)] * 3)
    assert [len(a) for a in ours] == [h * w * len(sizes) * len(ratios) for h, w in shapes]
    torch.testing.assert_close(torch.cat(ours), theirs, atol=0, rtol=0)


def test_anchor_of_a_cell_has_area_and_shape():
    tall = cell_anchors((64,), (4.0,))[0]
    assert tall.tolist() == [-16, -64, 16, 64]


def random_boxes(count, seed):
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 200
    return torch.cat(
        [corner, corner + 1 + 99 * torch.rand(count, 2, generator=torch.Generator().manual_seed(-seed))], 1
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_offsets_equal_torchvision_and_come_back(weights):
    boxes, anchors = random_boxes(50, 1), random_boxes(50, 2)
    coder = BoxCoder(weights)
    offsets = encode_offsets(boxes, anchors, weights)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, anchors), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decode_offsets(offsets, anchors, weights), boxes, atol=1e-3, rtol=0)
    wild = 5 * torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    theirs = coder.decode_single(wild, anchors)
    torch.testing.assert_close(decode_offsets(wild, anchors, weights), theirs, atol=1e-3, rtol=1e-5)


def test_offsets_of_boxes_without_area_are_finite():
    flat = torch.tensor([[5.0, 5, 5, 9], [3, 3, 3, 3]])
    assert encode_offsets(flat, random_boxes(2, 1)).isfinite().all()
    assert encode_offsets(random_boxes(2, 1), flat).isfinite().all()
    assert decode_offsets(torch.full((2, 4), 1e3), flat).isfinite().all()
    wild, anchors = torch.full((2, 4), 1e3), random_boxes(2, 1)
    theirs = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(wild, anchors)
    torch.testing.assert_close(decode_offsets(wild, anchors), theirs, atol=0, rtol=1e-5)
