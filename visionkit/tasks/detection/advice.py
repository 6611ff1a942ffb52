"""What detection chooses from its data where a config says ``auto``."""

from __future__ import annotations

import math
import statistics

import numpy as np
from numpy.typing import NDArray

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.labels.checks import header_size
from visionkit.tasks.detection.types import BoxTarget
from visionkit.training.advice import (
    Advice,
    Updates,
    advise_recipe,
    image_sizes,
    settle_batch,
    settle_flip,
    settle_strength,
    spread,
    steps_an_epoch,
)

__all__ = ["advise", "object_sides"]

SIZES = (320, 448, 640, 800, 1024)
LARGEST_ON_CPU = 640
LEAST_SIZE = 224  # that a short time leads to
STEP = 32  # of sizes
SEEN_SIDE = 16.0  # pixels from which on an object is found well
BLIND_SIDE = 8.0  # pixels below which the finest usual level, of stride 8, sees nothing
SHARE = 0.05  # of the objects that may be smaller
STRENGTH = {"data.mosaic": 0.3, "data.augment.Affine.p": 0.8, "data.augment.ColorJitter.p": 0.5}
BATCH, GPU_BATCH = 8, 16
UPDATES = Updates(random=1500, pretrained=500, gpu=3000, drawn=600)


def advise(advice: Advice, splits: DataSplits[VisionDataset[BoxTarget]], key: str = "data") -> None:
    """Choose size, pyramid and batch from the objects, and the recipe from the number of images.

    Args:
        advice: What is chosen.
        splits: The data sets.
        key: Where the options of this data stand in the config.
    """
    train = splits.train
    if train is None:
        return
    images = len(train)
    sides = object_sides(train)
    size = advice.settle(f"{key}.size", lambda: _size(train, sides, advice.scale, gpu=advice.gpu))
    edges = [edge for edge in (size if isinstance(size, list | tuple) else [size]) if isinstance(edge, int)]
    advice.settle("model.neck.min_level", lambda: _finest(sides, max(edges, default=SIZES[0])))
    batch = settle_batch(advice, images, usual=BATCH, gpu=GPU_BATCH, key=f"{key}.batch_size")
    settle_flip(advice, train.classes, key)
    drawn = train.files()[0] is None
    if key == "data":
        steps = steps_an_epoch(images, batch, advice.processes)
        advise_recipe(advice, steps, updates=UPDATES, drawn=drawn, batch=batch, usual=BATCH)
        settle_strength(advice, STRENGTH)


def object_sides(train: VisionDataset[BoxTarget]) -> NDArray[np.float64]:
    """Return the side of each object as a share of its image's longer side: the root of its box's area, [N].

    Args:
        train: The images; at most 2,000 of them are asked.
    """
    found = [np.zeros(0)]
    files = train.files()
    for k in spread(len(files)):
        file = files[k]
        if file is None:
            if k >= 50:
                break
            sample = train[k]
            target, size = sample.target, (int(sample.image.shape[1]), int(sample.image.shape[2]))
        else:
            size = header_size(file) or (0, 0)
            if not all(size):
                continue
            target, _ = train.target_of(k, size)
        boxes = target.boxes[~target.crowd].double().numpy()
        found.append(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) / max(size))
    return np.concatenate(found)


def _size(train: VisionDataset[BoxTarget], sides: NDArray[np.float64], scale: float, *, gpu: bool) -> tuple[int, str]:
    size, why = _wanted_size(train, sides, gpu=gpu)
    scaled = min(size, max(LEAST_SIZE, STEP * round(size * scale / STEP)))
    if scaled == size:
        return size, why
    seen = float((sides * scaled >= SEEN_SIDE).mean()) if len(sides) else 1.0
    return scaled, f"what the time has enough updates for; {seen:.0%} of the objects have {SEEN_SIDE:.0f} px there"


def _wanted_size(train: VisionDataset[BoxTarget], sides: NDArray[np.float64], *, gpu: bool) -> tuple[int, str]:
    edges = [max(size) for size in image_sizes(train)]
    own = STEP * math.ceil(statistics.median(edges) / STEP) if edges else SIZES[-1]  # larger shows nothing new
    if not len(sides):
        return min(SIZES[0], own), "there are no objects to go by"
    small = float(np.quantile(sides, SHARE))
    bounds = [(own, f"the images' own {own} px"), (SIZES[-1] if gpu else LARGEST_ON_CPU, "what a CPU can bear")]
    most, why = min(bounds)
    for size in (*(s for s in SIZES if s < most), most):
        if size * small >= SEEN_SIDE:
            return size, f"{1 - SHARE:.0%} of the objects have {SEEN_SIDE:.0f} px there"
    seen = float((sides * most >= SEEN_SIDE).mean())
    return most, f"{why}; {seen:.0%} of the objects have {SEEN_SIDE:.0f} px there"


def _finest(sides: NDArray[np.float64], size: int) -> tuple[int, str]:
    blind = float((sides * size < BLIND_SIDE).mean()) if len(sides) else 0.0
    said = f"{blind:.0%} of the objects are below {BLIND_SIDE:.0f} px"
    return (2, said) if blind > SHARE else (3, said)
