"""What classification chooses from its data where a config says ``auto``."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.tasks.classification.types import ClassTarget
from visionkit.training.advice import (
    MOST_EPOCHS,
    Advice,
    Updates,
    advise_recipe,
    image_sizes,
    settle_batch,
    settle_flip,
    settle_strength,
    steps_an_epoch,
)

__all__ = ["CPU_SIZE", "advise", "class_counts"]

USUAL_SIZE, LEAST_SIZE = 224, 96
CPU_SIZE = 160
"""Pixels at which a CPU trains a backbone on photos, where nothing says more."""
SMALL_SIDE = 100  # pixels: where the median of the shorter sides is below, pictures are not made larger than they are
STEP = 32  # of sizes
BALANCE_LOSS, BALANCE_SAMPLING = 10, 50  # images of the commonest class for one of the rarest
FIRST_SIDE = 0.6  # of the pictures of a training from random weights, relative to the whole ones
MOST_PROBED = 5000  # images
FEWEST_TUNED = 200  # images, below which a pretrained backbone stays as it is
MOST_TUNED_EPOCHS = 25
STRENGTH = {
    f"data.augment.{name}.p": share
    for name, share in (
        ("Affine", 0.2), ("ColorJitter", 0.5), ("ToGray", 0.05), ("GaussianBlur", 0.1), ("CoarseDropout", 0.25)
    )
}  # fmt: skip
BATCH, GPU_BATCH = 32, 64
UPDATES = Updates(random=1500, pretrained=400, gpu=3000, drawn=222)


def advise(advice: Advice, splits: DataSplits[VisionDataset[ClassTarget]], key: str = "data") -> None:
    """Choose size, batch, balance and mirror from the images and their classes, and the recipe from their number.

    Args:
        advice: What is chosen.
        splits: The data sets.
        key: Where the options of this data stand in the config.
    """
    train = splits.train
    if train is None:
        return
    images = len(train)
    alone = key == "data"  # beside others, the backbone is not this data's
    frozen = alone and advice.settle("model.recipe.freeze", lambda: _freeze(advice, images)) == "backbone"
    usual = USUAL_SIZE if advice.gpu or frozen else CPU_SIZE
    advice.settle(f"{key}.size", lambda: _size(train, usual, advice.scale))
    batch = settle_batch(advice, images, usual=BATCH, gpu=GPU_BATCH, key=f"{key}.batch_size")
    advice.settle(f"{key}.balance", lambda: _balance(train))
    settle_flip(advice, train.classes, key)
    if alone:
        drawn = train.files()[0] is None
        steps = steps_an_epoch(images, batch, advice.processes)
        advice.settle("model.recipe.probe", lambda: _probe(advice, images))
        advice.settle("model.recipe.progressive", lambda: _progressive(advice, drawn=drawn))
        most = MOST_TUNED_EPOCHS if advice.pretrained else MOST_EPOCHS
        advise_recipe(advice, steps, updates=UPDATES, drawn=drawn, batch=batch, usual=BATCH, most_epochs=most)
        settle_strength(advice, STRENGTH)


def _size(train: VisionDataset[ClassTarget], usual: int, scale: float) -> tuple[int, str]:
    sides = [min(size) for size in image_sizes(train)]
    middle = statistics.median(sides) if sides else USUAL_SIZE
    scaled = min(max(STEP * round(usual * scale / STEP), LEAST_SIZE), USUAL_SIZE)
    if middle >= max(SMALL_SIDE, scaled) and scaled != usual:
        return scaled, "what the time has enough updates for"
    if middle >= SMALL_SIDE:
        why = (
            "usual for photos" if usual == USUAL_SIZE else f"what a CPU trains on in minutes; {USUAL_SIZE} costs twice"
        )
        return usual, f"{why} (half have {middle:.0f} px or more)"
    size = max(STEP, STEP * math.ceil(middle / STEP))
    return size, f"half of the images have no more than {middle:.0f} px"


def _probe(advice: Advice, images: int) -> tuple[bool, str]:
    head = str(advice.get("model.head.class_path", ""))
    if not advice.pretrained:
        return False, "from random weights there is nothing to build on"
    if head.rpartition(".")[2] != "LinearHead":
        return False, f"a {head or 'head of another kind'} is no linear layer"
    if images >= MOST_PROBED:
        return False, f"{images:,} images are enough to train on at once"
    return True, f"{images:,} images: a linear head on pretrained features is a floor in seconds, and the start"


def _progressive(advice: Advice, *, drawn: bool) -> tuple[float | None, str]:
    if drawn:
        return None, "drawn shapes are small"
    if advice.pretrained:
        return None, "pretrained features know pictures of the whole size"
    if advice.get("model.recipe.freeze") is not None:
        return None, "frozen features are of pictures of one size"
    if str(advice.get("model.backbone.class_path", "ResNet")).rpartition(".")[2] != "ResNet":
        return None, "networks of timm can want one size"
    return FIRST_SIDE, "from random weights more steps are worth more than fine detail at first"


def _freeze(advice: Advice, images: int) -> tuple[str | None, str]:
    if not advice.pretrained:
        return None, "random weights must learn"
    if images < FEWEST_TUNED:
        return "backbone", f"{images} images would change pretrained features for the worse"
    return None, f"{images:,} images are enough to adapt pretrained features"


def _balance(train: VisionDataset[ClassTarget]) -> tuple[str, str]:
    counts = class_counts(train)
    most, least = float(counts.max()), max(float(counts.min()), 1.0)
    ratio = most / least
    said = f"the commonest class has {most:.0f} images, the rarest {least:.0f}"
    if ratio > BALANCE_SAMPLING:
        return "sampling", said
    return ("loss", said) if ratio > BALANCE_LOSS else ("none", said)


def class_counts(dataset: VisionDataset[ClassTarget]) -> Tensor:
    """Return how many pictures show each class, float32 [K]."""
    counts = torch.zeros(len(dataset.classes))
    for ids in dataset.labels:  # type: ignore[attr-defined]  # every reader of this task has them
        for i in ids:
            counts[i] += 1
    return counts
