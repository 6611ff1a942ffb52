"""What a file of predictions gave: a prediction for the images of a data set, and what is to be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from visionkit.core.errors import DataError
from visionkit.core.prediction import Prediction
from visionkit.data.labels.classes import unknown_class
from visionkit.data.labels.masks import ObjectMasks, Outline
from visionkit.data.labels.numbers import number
from visionkit.evaluation.inputs.images import DataImages
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.types import BoxPrediction

__all__ = [
    *("MAX_BYTES", "FilePredictions", "FoundObject", "Lacking"),
    *("check_sum", "class_of", "find_lacking", "object_prediction", "share_of"),
]

MAX_BYTES = 2**30
"""Bytes that a file of predictions of many images may have."""
_ROUNDED = 0.02  # what the digits of a thousand classes may add up to


@dataclass(frozen=True)
class FilePredictions(Mapping[int, Prediction]):
    """The predictions of a file, by the positions of their images in the data set.

    Those of pixels are read from their pictures each time they are asked for.

    Args:
        source: What was read, in a line.
        positions: Of the images that have one, rising.
        read: Returns the prediction of a position; raises DataError where its own file is wrong.
        missing: Ids of the images of which the file says nothing.
        remarks: Further lines to say.
        unknown: Keys of the metric that such predictions cannot tell; one that ends in ``/`` stands for all classes.
    """

    source: str
    positions: Sequence[int]
    read: Callable[[int], Prediction]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __getitem__(self, position: int) -> Prediction:
        """Return the prediction of an image, in its original pixels.

        Raises:
            KeyError: There is none.
            DataError: The file of its pixels is wrong.
        """
        return self.read(position)

    def __iter__(self) -> Iterator[int]:
        """Yield the positions."""
        return iter(self.positions)

    def __len__(self) -> int:
        """Return how many images have a prediction."""
        return len(self.positions)


@dataclass(frozen=True)
class FoundObject:
    """An object that was predicted.

    Args:
        box: x1, y1, x2, y2 in pixels of the original; None where the outline alone is known.
        score: 0..1.
        label: Class id.
        outline: Its mask, or None.
    """

    box: tuple[float, float, float, float] | None
    score: float
    label: int
    outline: Outline | None = None


def object_prediction(found: Sequence[FoundObject], size: tuple[int, int], *, masks: bool) -> BoxPrediction:
    """Return the prediction of an image from its objects, the most certain first; equal ones in their order.

    Args:
        found: The objects; with ``masks`` all have an outline.
        size: Height and width of the image.
        masks: Whether masks are wanted, too.
    """
    order = np.argsort([-o.score for o in found], kind="stable").tolist()
    sure = [found[k] for k in order]
    outlines = ObjectMasks(tuple(o.outline for o in sure if o.outline is not None), size)
    around = iter(outlines.boxes().tolist()) if any(o.box is None for o in sure) else iter(())
    boxes: list[Any] = []
    for o in sure:
        box = next(around, None) if o.outline is not None else None
        boxes.append(box if o.box is None else o.box)
    given: dict[str, Any] = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([o.score for o in sure], dtype=torch.float32),
        "labels": torch.tensor([o.label for o in sure], dtype=torch.int64),
        "size": size,
    }
    if not masks:
        return BoxPrediction(**given)
    none = torch.zeros((len(sure), 0, 0))
    return InstancePrediction(**given, masks=none, frames=given["boxes"], outlines=outlines)


def class_of(name: Any, ids: Mapping[str, int], where: str) -> int:
    """Return the id of a class name.

    Raises:
        DataError: The data have no such class; the nearest one is named.
    """
    if not isinstance(name, str):
        raise DataError(f"{where}: the class is {name!r:.40}; give its name")
    if name not in ids:
        raise DataError(f"{where}: {unknown_class(name, list(ids))}")
    return ids[name]


def share_of(value: Any, what: str, where: str) -> float:
    """Return a score or probability.

    Args:
        value: What the file has.
        what: What it is called, for messages.
        where: Its place, for messages.

    Raises:
        DataError: It is no number from 0 to 1.
    """
    share = number(value)
    if share is None or not math.isfinite(share):
        raise DataError(f"{where}: {what} is {value!r:.40}; give a number from 0 to 1")
    if not 0 <= share <= 1:
        hint = "divide percentages by 100, and of logits take the softmax or sigmoid"
        raise DataError(f"{where}: {what} is {share:.7g}, not from 0 to 1; {hint}")
    return share


class Lacking(NamedTuple):
    """Images without a prediction, and what to say of them."""

    ids: tuple[str, ...]
    remarks: list[str]


def find_lacking(found: Collection[int], images: DataImages, source: str, what: str, *, allow_missing: bool) -> Lacking:
    """Return the images of which a file says nothing, where each must have a class.

    Args:
        found: Positions of the others.
        images: Those of the data.
        source: The file or folder, for messages.
        what: What is missing: "prediction".
        allow_missing: Whether they are left out.

    Raises:
        DataError: There are any, and they are not to be left out; or there are no others.
    """
    ids = tuple(id for position, id in enumerate(images.ids) if position not in found)
    if not ids:
        return Lacking((), [])
    count = f"{len(ids)} of {len(images)} images have no {what} (first: {ids[0]})"
    if not allow_missing or not found:
        raise DataError(f"{source}: {count}; predict them, too, or leave them out with --allow-missing")
    return Lacking(ids, [f"{count}: they are left out, and the numbers speak of the others alone"])


def check_sum(probabilities: Sequence[float], where: str) -> None:
    """Refuse probabilities of one class that are not shares of one.

    Args:
        probabilities: Of all classes, 0..1.
        where: Their place, for messages.

    Raises:
        DataError: Their sum is not 1, up to what rounded digits make of it.
    """
    total = math.fsum(probabilities)
    if abs(total - 1) > _ROUNDED:
        raise DataError(
            f"{where}: the probabilities sum to {total:.4g}, not to 1; give those of a softmax over the classes of the "
            "data (for several classes an image, the data must have the column labels)"
        )
