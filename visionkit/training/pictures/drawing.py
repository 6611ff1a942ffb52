"""Truth and prediction, drawn onto pictures of a size in which they can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from visionkit.core.prediction import Prediction
from visionkit.core.sample import ImageInfo, is_spatial

__all__ = ["draw_prediction", "draw_truth"]

WHOLE, DETAILED = (224, 320), (400, 480)
"""Least and most pixels of the longer side of a picture that is shown: with a word of all of it, and with what lies in
its pixels."""
_BLOCKS = 3  # enlarged by so much, pixels stay what they are: squares


def draw_truth(image: Tensor, target: Any, names: Sequence[str]) -> Tensor:
    """Draw a target onto its picture; one that defines no ``draw`` is shown without.

    Args:
        image: uint8 [C, H, W]; of other than three channels the first ones are shown.
        target: The truth, in pixels of the picture.
        names: Class names, in the order of their ids.

    Returns:
        uint8 [3, h, w].
    """
    shown, scale = _fitted(image, DETAILED if is_spatial(target) else WHOLE)
    target = target.to("cpu")
    draw = getattr(target, "draw", None)
    if draw is None:
        return shown
    if is_spatial(target):
        target = target.place(scale, (0, 0), (shown.shape[1], shown.shape[2]))
        draw = target.draw
    drawn: Tensor = draw(shown, names)
    return drawn


def draw_prediction(
    image: Tensor, prediction: Prediction, target: Any, info: ImageInfo, names: Sequence[str]
) -> Tensor:
    """Draw a prediction onto the original picture.

    Args:
        image: uint8 [C, H, W], the original.
        prediction: In pixels that the model saw.
        target: The truth, beside which it will stand.
        info: How these lie to those of the original.
        names: Class names, in the order of their ids.

    Returns:
        uint8 [3, h, w], as that of :func:`draw_truth`.
    """
    shown, (vertical, horizontal) = _fitted(image, DETAILED if is_spatial(target) else WHOLE)
    size = (shown.shape[1], shown.shape[2])
    here = replace(info, size=size, scale=(info.scale[0] / vertical, info.scale[1] / horizontal))
    return prediction.restore(here).draw(shown, names)


def _fitted(image: Tensor, sides: tuple[int, int]) -> tuple[Tensor, tuple[float, float]]:
    """Return a picture in three channels at the size in which it is shown, and by what it was resized."""
    channels, height, width = image.shape
    rgb = image[:3] if channels >= 3 else image[:1].expand(3, -1, -1)
    least, most = (side / max(height, width) for side in sides)
    factor = min(max(least, 1.0), most)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    pixels = np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy())
    if size != (height, width):
        enlarging = cv2.INTER_NEAREST if factor >= _BLOCKS else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if factor < 1 else enlarging)
    return torch.from_numpy(pixels).permute(2, 0, 1), (size[0] / height, size[1] / width)
