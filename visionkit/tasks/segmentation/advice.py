"""What segmentation chooses from its data where a config says ``auto``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.tasks.segmentation.types import MaskTarget
from visionkit.training.advice import (
    Advice,
    Updates,
    advise_recipe,
    image_sizes,
    settle_batch,
    settle_flip,
    steps_an_epoch,
)

__all__ = ["advise"]

SIDE, GPU_SIDE = 320, 512  # of a square with as many pixels as the model sees, at most
LEAST_SIDE = 224  # that a short time leads to
STEP = 16  # of sizes: the stride of the usual network
ALIKE = 0.1  # by which shapes may differ from the typical one to be called alike
BATCH, GPU_BATCH = 8, 16
UPDATES = Updates(random=1500, pretrained=300, gpu=4000, drawn=600)


def advise(advice: Advice, splits: DataSplits[VisionDataset[MaskTarget]], key: str = "data") -> None:
    """Choose size and batch from the images, and the recipe from their number.

    Args:
        advice: What is chosen.
        splits: The data sets.
        key: Where the options of this data stand in the config.
    """
    train = splits.train
    if train is None:
        return
    images = len(train)
    advice.settle(f"{key}.size", lambda: _size(image_sizes(train), _side(advice), timed=advice.scale < 1))
    batch = settle_batch(advice, images, usual=BATCH, gpu=GPU_BATCH, key=f"{key}.batch_size")
    settle_flip(advice, train.classes, key)
    if key == "data":
        drawn = train.files()[0] is None
        steps = steps_an_epoch(images, batch, advice.processes)
        advise_recipe(advice, steps, updates=UPDATES, drawn=drawn, batch=batch, usual=BATCH)


def _side(advice: Advice) -> int:
    most = GPU_SIDE if advice.gpu else SIDE
    return min(most, max(LEAST_SIDE, STEP * round(most * advice.scale / STEP)))


def _size(sizes: Sequence[tuple[int, int]], most: int, *, timed: bool) -> tuple[int | list[int], str]:
    why = ", which the time has enough updates for" if timed else ""
    if not sizes:
        return most, f"usual for photos{why}"
    height, width = (statistics.median(edges) for edges in zip(*sizes, strict=True))
    factor = min(1.0, most / math.sqrt(height * width))
    ratio = width / height
    alike = sum(abs(w / h / ratio - 1) <= ALIKE for h, w in sizes) / len(sizes)
    if alike >= 0.95 and abs(ratio - 1) > ALIKE:
        edges = [max(STEP, STEP * round(edge * factor / STEP)) for edge in (height, width)]
        return edges, f"the shape of the images, {width:.0f} x {height:.0f} px, in {most} x {most} pixels{why}"
    side = max(STEP, STEP * round(min(most, max(height, width)) / STEP))
    said = f"half of the images have {max(height, width):.0f} px or more" if side >= most else "their own size"
    return side, f"{said}{why}"
