"""Progressive resizing."""

import pytest
import torch

from visionkit import BoxTarget, ClassTarget, UsageError
from visionkit.core.sample import Batch
from visionkit.training.progressive import cost, shrink, side_factor
from visionkit.training.recipe import Recipe


def test_sides_grow_to_the_whole_over_three_fifths():
    assert [side_factor(p, 0.5) for p in (0.0, 0.3, 0.6, 1.0)] == [0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("size", "progress", "edges"),
    [((160, 160), 0.0, (96, 96)), ((160, 160), 0.59, (160, 160)), ((320, 480), 0.0, (192, 288)), ((48, 200), 0.0, (48, 128))],
)  # fmt: skip
def test_edges_are_multiples_of_the_stride(size, progress, edges):
    batch = Batch(torch.zeros(2, 3, *size, dtype=torch.uint8), [ClassTarget(torch.tensor([1.0, 0.0]))] * 2, [])
    assert tuple(shrink(batch, progress, 0.6).images.shape[2:]) == edges


def test_boxes_move_with_their_pictures():
    boxes = BoxTarget(
        torch.tensor([[0.0, 40.0, 160.0, 80.0]]), torch.tensor([0]), torch.tensor([False]), torch.tensor([6400.0])
    )
    batch = Batch(torch.zeros(1, 3, 160, 320, dtype=torch.uint8), [boxes], [])
    small = shrink(batch, 0.0, 0.4)
    assert tuple(small.images.shape[2:]) == (64, 128)
    assert torch.allclose(small.targets[0].boxes, torch.tensor([[0.0, 16.0, 64.0, 32.0]]))
    assert shrink(batch, 0.7, 0.4) is batch


def test_the_cost_is_the_mean_of_the_pixels_and_of_what_is_always_the_same():
    assert cost((64, 64), 0.5) == 1.0, "pictures of 64 px are not made smaller"
    pixels = 0.6 * (0.25 * 64**2 + 0.5 * 96**2 + 0.25 * 128**2) / 128**2 + 0.4
    assert cost((128, 128), 0.5) == pytest.approx(0.25 + 0.75 * pixels, abs=0.01)


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1])
def test_a_factor_between_0_and_1(value):
    with pytest.raises(UsageError, match=r"recipe\.progressive must lie between 0 and 1"):
        Recipe(progressive=value)
