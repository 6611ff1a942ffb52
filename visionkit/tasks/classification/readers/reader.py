"""What every reader of classification does the same: labels known without pixels, images read one at a time."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo
from visionkit.data.dataset import EntryDataset
from visionkit.data.labels.faults import fault
from visionkit.tasks.classification.types import ClassTarget

__all__ = ["ClassDataset", "Entry", "need_two_classes", "unknown_to_train"]


@dataclass(frozen=True)
class Entry:
    """One image of a data set, before its pixels are read.

    Args:
        id: Path of the file, or another unique name.
        labels: Ids of the classes that are present.
        key: Name that does not depend on where the data set lies; an automatic split goes by it.
        group: What must stay on one side of a split, or None.
        split: ``train``, ``val``, ``test`` or None.
        extra: Further facts that come back with the prediction.
    """

    id: str
    labels: tuple[int, ...]
    key: str
    group: str | None = None
    split: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class ClassDataset(EntryDataset[ClassTarget, Entry]):
    """Images with classes, at their original size.

    Args:
        entries: The images, in order.
        classes: Class names; a name's position is its id.
        multilabel: Whether an image can have several classes or none.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
    """

    multilabel: bool
    """Whether an image can have several classes or none."""
    labels: list[tuple[int, ...]]
    """Class ids of each entry; known without reading pixels."""
    groups: list[str] | None
    """What must stay on one side of a split, one an entry, or None."""
    weights: Tensor | None
    """float32 [K], the loss weight of each class, or None; set by ``with_weights``."""

    def __init__(
        self, entries: Sequence[Entry], classes: Sequence[str], *, multilabel: bool = False, channels: int = 3
    ) -> None:
        super().__init__(entries, classes, channels=channels)
        self.multilabel = multilabel
        self.weights = None

    def _hold(self, entries: Sequence[Entry]) -> None:
        super()._hold(entries)
        self.labels = [e.labels for e in self.entries]
        groups = [e.group for e in self.entries if e.group is not None]
        self.groups = groups if groups and len(groups) == len(self.entries) else None

    def target_of(self, index: int, size: tuple[int, int]) -> tuple[ClassTarget, ImageInfo]:
        """Return target and info of image ``index``, whose height and width are given."""
        entry = self.entries[index]
        scores = np.zeros(len(self.classes), np.float32)  # several times as fast as torch
        scores[list(entry.labels)] = 1.0
        return ClassTarget(torch.from_numpy(scores), self.weights), ImageInfo(entry.id, size, extra=entry.extra)

    def groups_and_labels(self) -> tuple[Sequence[str], Sequence[Collection[int]]]:
        """Return what an automatic split goes by; see :meth:`VisionDataset.groups_and_labels`."""
        return self.groups or [e.key for e in self.entries], self.labels

    def with_weights(self, weights: Tensor | None) -> Self:
        """Return a copy whose targets carry these loss weights.

        Args:
            weights: float32 [K], or None for equal weights.

        Raises:
            UsageError: There is not one weight a class.
        """
        if weights is not None and tuple(weights.shape) != (len(self.classes),):
            raise UsageError(
                f"class weights of shape {list(weights.shape)} for {len(self.classes)} classes; give one a class"
            )
        other = copy.copy(self)
        other.weights = None if weights is None else weights.float()
        return other


def need_two_classes(classes: Sequence[str], where: str) -> None:
    """Refuse a list of one class where an image has exactly one class.

    Raises:
        DataError: There is one class only.
    """
    if len(classes) == 1:
        what = f"only one class ({classes[0]}), so there is nothing to tell apart"
        fault("class-alone", f"{where}: {what}; add images of another class")


def unknown_to_train(where: Path, name: str, unknown: Sequence[str], classes: Sequence[str]) -> str:
    """Return what to say of classes that the training images do not have.

    Args:
        where: The folder or file that has them.
        name: The split.
        unknown: The classes.
        classes: Those of the training images.
    """
    return (
        f"{where}: {name} has classes that train does not have: {', '.join(unknown[:10])}"
        f"{', ...' if len(unknown) > 10 else ''} (train has {', '.join(classes[:10])}"
        f"{', ...' if len(classes) > 10 else ''}); add training images of them, or rename or remove them"
    )
