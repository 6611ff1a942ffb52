"""A model in 8 bits for the pictures at hand: which of them its ranges come from, and how near it stays to float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from visionkit.core.errors import DataError
from visionkit.core.sample import Sample
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.agreement import compare
from visionkit.prediction.backends.convert import PredictionModel, convert

__all__ = ["MAX_IMAGES", "calibration_views", "quantised", "spaced"]

T = TypeVar("T")

MAX_IMAGES = 150
"""Pictures that are read: ranges of fifty are as good as of three hundred, and fifty more tell 9 % from 1 %."""
MIN_IMAGES_APART = 30  # below, all pictures serve both


def spaced(pictures: Sequence[T]) -> list[T]:
    """Return at most ``MAX_IMAGES`` of the pictures, evenly spaced, always the same ones."""
    count = min(len(pictures), MAX_IMAGES)
    return [pictures[number * len(pictures) // count] for number in range(count)]


def calibration_views(
    samples: Iterable[Sample[Any] | DataError], views_of: Callable[[Sample[Any]], list[Tensor]]
) -> list[list[Tensor]]:
    """Return what the network sees of some pictures, uint8 [1, C, H, W] each.

    Of each comes one view of each size; where there are more, such as windows, they are windows here and there.

    Args:
        samples: The pictures, or what is wrong with one.
        views_of: Returns the views of a picture, uint8 [C, H, W] each.

    Raises:
        DataError: None of them can be read.
    """
    found, problems = [], []
    for number, sample in enumerate(samples):
        if isinstance(sample, DataError):
            problems.append(sample)
        else:
            found.append(_one_of_each_size(views_of(sample), number))
    if not found:
        reason = problems[0] if problems else "there are none"
        raise DataError(f"--precision int8: no picture to learn ranges from can be read ({reason})")
    return found


def quantised(
    model: VisionModel, pictures: Sequence[Sequence[Tensor]], tell: Callable[[str], None] | None = None
) -> PredictionModel:
    """Return the model in 8 bits, computed by OpenVINO; see :func:`visionkit.prediction.backends.convert.convert`.

    Args:
        model: In evaluation mode, on a CPU.
        pictures: What the network sees of each picture, uint8 [1, C, H, W] each. Of thirty and more every third one is
            kept apart, to compare what the network in 8 bits says with what the model says.
        tell: Is told in one line how near they are; None does not compare.
    """
    apart = len(pictures) >= MIN_IMAGES_APART
    learnt = [p for k, p in enumerate(pictures) if not apart or k % 3 != 2]
    fast = convert(model, "openvino", precision="int8", calibration=[view for views in learnt for view in views])
    if tell is None:
        return fast
    compared = pictures[2::3] if apart else pictures
    found = compare(model, fast, (view for views in compared for view in views))
    plural = "picture" if len(learnt) == 1 else "pictures"
    others = f"on {len(compared)} others" if apart else "on the same"
    line = f"int8: ranges from {len(learnt)} {plural}; {others} {found.summary()}"
    if not found.good:
        line = f"warning: {line}: give more or other pictures with --calibrate, or take --precision bf16"
    tell(line)
    return fast


def _one_of_each_size(views: Sequence[Tensor], number: int) -> list[Tensor]:
    sizes: dict[torch.Size, list[Tensor]] = {}
    for view in views:
        sizes.setdefault(view.shape, []).append(view)
    return [same[number % len(same)][None] for same in sizes.values()]
