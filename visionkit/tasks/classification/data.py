"""ClassificationData: pictures with classes, from folders, manifests or the embedded shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import CLASSIFICATION_AUGMENTATION
from visionkit.data.transforms.preprocessing import Resize
from visionkit.tasks.classification.advice import advise, class_counts
from visionkit.tasks.classification.readers.formats import FORMATS
from visionkit.tasks.classification.types import ClassTarget
from visionkit.training.advice import Advice
from visionkit.training.filedata import FileData

__all__ = ["ClassificationData", "class_counts"]


class ClassificationData(FileData[ClassTarget]):
    """Pictures with one class or several each.

    Args:
        root: A folder with one folder of pictures a class, or with train/, val/ and test/ folders of such, or a .csv or
            .jsonl manifest (columns path, label or labels, optional split and group); none draws the embedded shapes.
        multilabel: Whether a picture can have several classes; none takes it from the manifest (column "labels").
        size: Side of the square that the model sees, in pixels, or [height, width].
        resize: "squash" changes the aspect ratio, "crop" cuts off the longer side, "letterbox" pads the shorter one.
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; none leaves pictures as
            they are; without this key a default for photos is used.
        balance: "loss" weighs rare classes up in the loss, "sampling" draws their pictures more often, "none" neither.
        batch_size: Pictures a batch and process.
        common: Options of all data, see FileData. Pictures of one group stay on one side of the split.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        multilabel: bool | None = None,
        size: int | tuple[int, int] = 224,
        resize: Resize = "squash",
        augment: list[str | dict[str, Any]] | None = CLASSIFICATION_AUGMENTATION,  # never changed
        balance: Literal["none", "loss", "sampling"] = "none",
        batch_size: int = 32,
        **common: Any,
    ) -> None:
        super().__init__(root, size=size, resize=resize, augment=augment, combine=None, batch_size=batch_size, **common)
        self.asked_multilabel = multilabel
        self.balance = balance

    @property
    def multilabel(self) -> bool:
        """Whether a picture can have several classes."""
        for dataset in (self.splits.train, self.splits.val, self.splits.test):
            if dataset is not None:
                return bool(getattr(dataset, "multilabel", False))
        return False

    def advise(self, advice: Advice, key: str = "data") -> None:
        """Choose what a config leaves to ``auto``; see :func:`visionkit.tasks.classification.advice.advise`."""
        advise(advice, self.splits, key)

    def read(self) -> DataSplits[VisionDataset[ClassTarget]]:
        """Find the data sets and split them if need be."""
        found = find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            listed=self.split_file,
            classes=self.fixed_classes,
            channels=self.preprocessing.channels,
            multilabel=self.asked_multilabel,
            need=("train", "val") if self.fixed_classes is None else (),
        )
        train = found.train
        if self.balance == "loss" and train is not None:
            counts = class_counts(train)
            train = train.with_weights(counts.sum() / (len(counts) * counts.clamp(min=1.0)))
        return replace(found, train=train)

    def sample_weights(self, dataset: VisionDataset[ClassTarget]) -> Tensor | None:
        """Return one over the number of pictures of the rarest class of each picture, when sampling is balanced."""
        if self.balance != "sampling":
            return None
        counts = class_counts(dataset)
        labels = dataset.labels  # type: ignore[attr-defined]  # every reader of this task has them
        return torch.tensor(
            [1.0 / min((float(counts[i]) for i in ids), default=len(labels)) for ids in labels]
        ).double()
