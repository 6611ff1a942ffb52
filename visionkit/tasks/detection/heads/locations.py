"""The locations of a dense detector: their grid, what is computed at each, and those that learn a box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visionkit.tasks.detection.heads.assign import Assignment

__all__ = ["FCOSOutputs", "grid_of", "learning_of", "rows_of"]


class FCOSOutputs(NamedTuple):
    """B images, A locations of all levels (fine to coarse, row by row), K classes.

    Args:
        logits: [B, A, K], class scores before the sigmoid.
        edges: [B, A, 4], distances left, top, right, bottom in cells; with bins [B, A, 4 * bins] logits of them.
        centerness: [B, A, 1] before the sigmoid; [B, A, 0] where the class score says it.
        centres: float32 [A, 2], x and y of the locations in pixels.
        strides: float32 [A], edge of a location's cell in pixels.
    """

    logits: Tensor
    edges: Tensor
    centerness: Tensor
    centres: Tensor
    strides: Tensor


def learning_of(
    outputs: FCOSOutputs, assigned: Assignment, share: Tensor, *, every: bool
) -> tuple[FCOSOutputs, Assignment, Tensor]:
    """Return what the losses of boxes need of the locations that learn one, N of all images in one row.

    Those are the positive ones, one in twenty. On a CPU they are picked; elsewhere ``every`` location comes along, as
    their number would have to come from the device, and everything would wait for it.

    Args:
        outputs: Of B images and A locations; the logits stay as they are.
        assigned: What each location learns.
        share: float32 [B, 1], what a location of each image adds to a loss.
        every: Whether all locations are returned; those that are not positive have no weight.

    Returns:
        Outputs, goals, and shares [N].
    """
    images, locations = assigned.positive.shape
    flat = assigned.positive.flatten()
    rows = torch.arange(len(flat), device=flat.device) if every else flat.nonzero()[:, 0]

    def take(x: Tensor) -> Tensor:
        return x.flatten(0, 1) if every else x.flatten(0, 1).index_select(0, rows)

    place = rows % locations
    learning = outputs._replace(
        edges=take(outputs.edges),
        centerness=take(outputs.centerness),
        centres=outputs.centres[place],
        strides=outputs.strides[place],
    )
    return learning, Assignment(*map(take, assigned)), take(share.expand(images, locations))


def rows_of(x: Tensor) -> Tensor:
    """Return [B, C, H, W] as [B, H * W, C]; no copy in channels_last order."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def grid_of(height: int, width: int, cell: float, device: torch.device) -> Tensor:
    """Return x and y of the locations in cells, float32 [height * width, 2]."""
    y = torch.arange(height, device=device, dtype=torch.float32) + cell
    x = torch.arange(width, device=device, dtype=torch.float32) + cell
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
