"""ClassificationData: pictures with classes, from folders, manifests or the embedded shapes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import CLASSIFICATION_AUGMENTATION, Augmentation
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.classification.readers.formats import FORMATS
from visionkit.tasks.classification.types import ClassTarget
from visionkit.training.datamodule import VisionDataModule

__all__ = ["ClassificationData", "class_counts"]


class ClassificationData(VisionDataModule[ClassTarget]):
    """Pictures with one class or several each.

    Args:
        root: A folder with one folder of pictures a class, or with train/, val/ and test/ folders of such, or a .csv or
            .jsonl manifest (columns path, label or labels, optional split and group); none draws the embedded shapes.
        classes: Class names in order; none takes the sorted names of the training data.
        multilabel: Whether a picture can have several classes; none takes it from the manifest (column "labels").
        val_fraction: Part of the pictures that validates when the data brings no val split, 0..1; the split is the
            same each time, stratified by class, and keeps a group on one side.
        split_seed: Another number makes another such split.
        size: Side of the square that the model sees, in pixels, or [height, width].
        resize: "squash" changes the aspect ratio, "crop" cuts off the longer side, "letterbox" pads the shorter one.
        denoise: Noise filter after resizing: "median", "bilateral", "nlm" (non-local means) or none.
        denoise_strength: How strong the filter is, > 0; 1 suits camera noise.
        channels: 3 reads colour, 1 grey; other numbers read .npy or multi-band TIFF files.
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; none leaves pictures as
            they are; without this key a default for photos is used.
        balance: "loss" weighs rare classes up in the loss, "sampling" draws their pictures more often, "none" neither.
        batch_size: Pictures a batch and process.
        num_workers: Processes that read pictures; none takes one for two cores (with a GPU one a core),
            at most 8.
        check_images: Whether to open every picture before training and list all faulty ones at once.
        skip_corrupt: Whether to go on without pictures that cannot be read.
        seed: Seed of order and augmentation; the command line takes it from seed_everything.
        cache: "ram" or "disk" keeps decoded pictures for the further epochs, in memory or in a folder; "none" reads the
            files each time.
        cache_folder: Where "disk" keeps them, for further runs, too; none takes one in the run's folder, which is
            removed after training.
        cache_limit: Gigabytes that they may take; pictures beyond it are read each time.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        classes: list[str] | None = None,
        multilabel: bool | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        size: int | tuple[int, int] = 224,
        resize: Literal["squash", "crop", "letterbox"] = "squash",
        denoise: Literal["median", "bilateral", "nlm"] | None = None,
        denoise_strength: float = 1.0,
        channels: int = 3,
        augment: list[str | dict[str, Any]] | None = CLASSIFICATION_AUGMENTATION,  # never changed
        balance: Literal["none", "loss", "sampling"] = "none",
        batch_size: int = 32,
        num_workers: int | None = None,
        check_images: bool = True,
        skip_corrupt: bool = False,
        seed: int = 0,
        cache: Literal["none", "ram", "disk"] = "none",
        cache_folder: str | None = None,
        cache_limit: float = 20.0,
    ) -> None:
        super().__init__(
            preprocessing=Preprocessing(
                size, resize=resize, denoise=denoise, denoise_strength=denoise_strength, channels=channels
            ),
            augment=Augmentation(augment),
            batch_size=batch_size,
            num_workers=num_workers,
            check_images=check_images,
            skip_corrupt=skip_corrupt,
            seed=seed,
            cache=cache,
            cache_folder=cache_folder,
            cache_limit=cache_limit,
        )
        self.root = root
        self.fixed_classes = classes
        self.asked_multilabel = multilabel
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.balance = balance

    @property
    def multilabel(self) -> bool:
        """Whether a picture can have several classes."""
        for dataset in (self.splits.train, self.splits.val, self.splits.test):
            if dataset is not None:
                return bool(getattr(dataset, "multilabel", False))
        return False

    def read(self) -> DataSplits[VisionDataset[ClassTarget]]:
        """Find the data sets and split them if need be."""
        found = find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            classes=self.fixed_classes,
            channels=self.preprocessing.channels,
            multilabel=self.asked_multilabel,
            need=("train", "val") if self.fixed_classes is None else (),
        )
        train = found.train
        if self.balance == "loss" and train is not None:
            counts = class_counts(train)
            train = train.with_weights(counts.sum() / (len(counts) * counts.clamp(min=1.0)))
        return DataSplits(train, found.val, found.test, found.source)

    def sample_weights(self, dataset: VisionDataset[ClassTarget]) -> Tensor | None:
        """Return one over the number of pictures of the rarest class of each picture, when sampling is balanced."""
        if self.balance != "sampling":
            return None
        counts = class_counts(dataset)
        labels = dataset.labels  # type: ignore[attr-defined]  # every reader of this room has them
        return torch.tensor(
            [1.0 / min((float(counts[i]) for i in ids), default=len(labels)) for ids in labels]
        ).double()


def class_counts(dataset: VisionDataset[ClassTarget]) -> Tensor:
    """Return how many pictures show each class, float32 [K]."""
    counts = torch.zeros(len(dataset.classes))
    for ids in dataset.labels:  # type: ignore[attr-defined]  # every reader of this room has them
        for i in ids:
            counts[i] += 1
    return counts
