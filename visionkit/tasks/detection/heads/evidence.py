"""Where a detector's objects come from: the place of each among all boxes that the head made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from visionkit.models.evidence import Subject
from visionkit.tasks.detection.types import DRAWN_SCORE, BoxPrediction

__all__ = ["box_subjects", "place_of"]

SAME = 1e-3  # pixels by which a box that was computed twice can differ


def box_subjects(
    prediction: BoxPrediction,
    most: int,
    min_score: float | None,
    least: Mapping[int, float],
    place: Callable[[Tensor, int], Any],
) -> list[Subject]:
    """Return the first objects of a prediction as subjects.

    Args:
        prediction: In pixels of the image that the model saw, as the head decodes it.
        most: How many at most.
        min_score: Lowest score of classes without one of their own, or None for that of drawings.
        least: Class id -> its own lowest score.
        place: Returns the place of a box, float32 [4], of a class.
    """
    lowest = DRAWN_SCORE if min_score is None else min_score
    wanted = prediction.scores.new_tensor([least.get(k, lowest) for k in prediction.labels.tolist()])
    shown = prediction.select(prediction.scores >= wanted)
    rows = list(zip(shown.boxes, shown.labels.tolist(), shown.scores.tolist(), strict=True))[:most]
    return [Subject(label, score, place(box, label), _corners(box)) for box, label, score in rows]


def place_of(box: Tensor, boxes: Tensor, scores: Tensor) -> int:
    """Return the position of a box among those that it was chosen from; of the same ones, that of the highest score.

    Args:
        box: float32 [4].
        boxes: float32 [A, 4].
        scores: Float [A], of the box's class.
    """
    apart = (boxes - box).abs().amax(1)
    same = apart <= apart.min() + SAME
    return int(torch.where(same, scores, -torch.inf).argmax())


def _corners(box: Tensor) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
