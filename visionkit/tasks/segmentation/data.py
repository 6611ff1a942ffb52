"""SegmentationData: pictures with a class for each pixel, from masks, COCO files or the embedded shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import SEGMENTATION_AUGMENTATION
from visionkit.data.transforms.crop import RandomScaledCrop
from visionkit.tasks.segmentation.advice import advise
from visionkit.tasks.segmentation.readers.formats import FORMATS
from visionkit.tasks.segmentation.types import MaskTarget
from visionkit.training.advice import Advice
from visionkit.training.filedata import FileData

__all__ = ["SegmentationData"]

BALANCED_SHARE = 0.5  # share of the crops around a pixel of a class drawn at random, where crops are balanced


class SegmentationData(FileData[MaskTarget]):
    """Pictures with a class for each pixel.

    Args:
        root: A folder of pictures and masks (images/ with masks/, by split or not; Pascal VOC, Cityscapes or CamVid
            layout), or a COCO .json file or folder with polygons or run lengths; none draws the embedded shapes.
        ignore: Names of classes that are neither learnt nor counted; none takes void, unlabeled and the like.
        crop_scale: Smallest and largest factor at which training pictures are shown and cut to the model's size; none
            shows them whole.
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; masks move with the picture;
            none leaves pictures as they are; without this key a default for photos is used.
        balance: "loss" weighs pixels of rare classes up, "crops" cuts half of the training pictures around a class
            drawn at random, "none" neither.
        common: Options of all data, see FileData.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        ignore: list[str] | None = None,
        crop_scale: tuple[float, float] | None = (0.5, 2.0),
        augment: list[str | dict[str, Any]] | None = SEGMENTATION_AUGMENTATION,  # never changed
        balance: Literal["none", "loss", "crops"] = "none",
        **common: Any,
    ) -> None:
        balanced = BALANCED_SHARE if balance == "crops" else 0.0
        combine = None if crop_scale is None else RandomScaledCrop(crop_scale, balanced=balanced)
        super().__init__(root, augment=augment, combine=combine, **common)
        self.ignore = ignore
        self.balance = balance

    def advise(self, advice: Advice, key: str = "data") -> None:
        """Choose what a config leaves to ``auto``; see :func:`visionkit.tasks.segmentation.advice.advise`."""
        advise(advice, self.splits, key)

    def read(self) -> DataSplits[VisionDataset[MaskTarget]]:
        """Find the data sets and split them if need be."""
        found = find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            listed=self.split_file,
            classes=self.fixed_classes,
            ignore=self.ignore,
            channels=self.preprocessing.channels,
            need=("train", "val") if self.fixed_classes is None else (),
        )
        train = found.train
        if self.balance == "loss" and train is not None:
            train = train.with_weights(balanced_weights(train.pixel_counts()))
        return replace(found, train=train)


def balanced_weights(counts: NDArray[np.int64]) -> Tensor:
    """Return what a pixel of each class counts, float32 [K]: the square root of median frequency balancing.

    Eigen and Fergus, ICCV 2015, section 4.3.3, divide the median of the frequencies by each class's. The root keeps a
    class of a thousandth of the pixels from ruling the others.

    Args:
        counts: Pixels of each class, [K]; classes without any count 1.
    """
    seen = np.maximum(counts.astype(np.float64), 0)
    median = np.median(seen[seen > 0]) if (seen > 0).any() else 1.0
    return torch.tensor(np.sqrt(median / np.where(seen > 0, seen, median)), dtype=torch.float32)
