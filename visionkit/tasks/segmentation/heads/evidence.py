"""What of a map of classes can be explained: the pixels of one class that lie together."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
import torch
from torch import Tensor

from visionkit.models.evidence import Evidence, Subject

__all__ = ["component_evidence", "components"]

LEAST_SHARE = 1 / 500
"""Of all cells; smaller components are left out."""


@torch.no_grad()
def components(logits: Tensor, stride: int, most: int, without: Collection[int]) -> list[Subject]:
    """Return the largest connected components of classes, each with its mean probability.

    Args:
        logits: Float [K, h, w] of an image.
        stride: Side of a cell in pixels.
        most: How many at most.
        without: Ids of classes that are left out.
    """
    chances = logits.float().softmax(0)
    labels = chances.argmax(0).cpu().numpy()
    found: list[tuple[int, int, np.ndarray, list[int]]] = []
    for k in np.unique(labels).tolist():
        if k in without:
            continue
        count, parts, facts, _ = cv2.connectedComponentsWithStats((labels == k).astype(np.uint8), connectivity=4)
        for part in range(1, count):
            left, top, width, height, area = facts[part].tolist()
            if area >= max(1, labels.size * LEAST_SHARE):
                found.append((area, k, parts == part, [left, top, left + width, top + height]))
        found = sorted(found, key=lambda one: -one[0])[:most]
    subjects = []
    for _, k, inside, cells in found:
        mask = torch.from_numpy(inside).to(logits.device)
        x1, y1, x2, y2 = (float(stride * cell) for cell in cells)
        pixels = mask.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        subjects.append(Subject(k, float(chances[k][mask].mean()), mask, (x1, y1, x2, y2), pixels))
    return subjects


def component_evidence(logits: Tensor, subject: Subject) -> Evidence:
    """Return the sum of the class's logits over a component, and its mean probability there.

    Args:
        logits: Float [B, K, h, w].
        subject: What :func:`components` returned.
    """
    mask: Tensor = subject.place
    inside = logits.float()[:, :, mask]  # [B, K, N]
    return Evidence(inside[:, subject.label].sum(1), inside.softmax(1)[:, subject.label].mean(1))
