"""Boxes are one where all that told them apart lies outside of the picture."""

import pytest
import torch

from visionkit import BoxPrediction, FCOSHead, FeatureSpec, ImageInfo, InstancePrediction
from visionkit.models.ops.boxes import pairwise_iou

BARS = ImageInfo("a", (64, 128), offset=(32, 0))  # 128 x 128 seen, 32 rows of bars above and below
TALL = [[0.0, 0, 128, 128], [0, 30, 128, 98], [0, 32, 128, 96], [10, 40, 20, 50]]  # IoU below 0.6 at first


def found(same=0.6, labels=(0, 0, 0, 0)):
    return BoxPrediction(torch.tensor(TALL), torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor(labels), same=same)


def test_boxes_that_differ_in_the_bars_alone_are_one():
    restored = found().restore(BARS)
    assert restored.boxes.tolist() == [[0, 0, 128, 64], [10, 8, 20, 18]]
    assert restored.scores.tolist() == pytest.approx([0.9, 0.6])


def test_other_classes_and_heads_that_keep_all_are_left_alone():
    assert len(found(labels=(0, 1, 2, 0)).restore(BARS)) == 4
    assert len(found(same=None).restore(BARS)) == 4


def test_what_no_edge_cuts_is_not_suppressed_again():
    whole = ImageInfo("a", (128, 128))
    assert len(found(same=0.3).restore(whole)) == 4


def test_views_of_windows_are_cut_off_at_them_first():
    windows = [(0, 0, 64, 64), (0, 64, 64, 128)]
    size = ImageInfo("a", (64, 128))
    left = BoxPrediction(
        torch.tensor([[2.0, 2, 60, 60], [2, 2, 60, 64]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), same=0.6
    )
    right = BoxPrediction(
        torch.tensor([[60.0, 2, 126, 62], [20, 2, 128, 62]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), same=0.6
    )
    merged = BoxPrediction.merge([left.restore(size), right.restore(size)], windows)
    overlaps = pairwise_iou(merged.boxes, merged.boxes).fill_diagonal_(0)
    assert float(overlaps.max()) <= 0.6


def test_masks_go_with_their_boxes():
    masks = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(TALL)
    objects = InstancePrediction(
        boxes,
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.zeros(4, dtype=torch.int64),
        same=0.6,
        masks=masks,
        frames=boxes,
    )
    restored = objects.restore(BARS)
    assert torch.equal(restored.masks, masks[[0, 3]])


@pytest.mark.parametrize("nms", ["hard", "none"])
def test_fcos_cuts_boxes_off_before_it_suppresses_them(nms):
    """Two locations see the whole picture, and both think that it goes on outside, one to the left, one to the right."""
    torch.manual_seed(0)
    made = FCOSHead(FeatureSpec((8, 8), (8, 16)), 2, channels=8, depth=0, bins=0, cell=0.5, nms=nms).eval()
    outputs = made([torch.zeros(1, 8, 5, 6), torch.zeros(1, 8, 3, 3)])  # 40 x 48 pixels; the coarse level has 48 rows
    logits, edges = torch.full_like(outputs.logits, -20.0), torch.zeros_like(outputs.edges)
    for location, sides in ((10, [60.0, 20, 20, 20]), (14, [20, 20, 60, 20])):
        logits[0, location, 0] = 3.0 - location / 10
        edges[0, location] = torch.tensor(sides)
    (prediction,) = made.decode(outputs._replace(logits=logits, edges=edges))
    assert prediction.boxes.tolist() == [[0, 0, 48, 40]] * (1 if nms == "hard" else 2)
