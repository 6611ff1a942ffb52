"""SegmentationData: pictures with a class for each pixel, from masks, COCO files or the embedded shapes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import SEGMENTATION_AUGMENTATION, Augmentation
from visionkit.data.transforms.crop import RandomScaledCrop
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.segmentation.readers.formats import FORMATS
from visionkit.tasks.segmentation.types import MaskTarget
from visionkit.training.datamodule import VisionDataModule

__all__ = ["SegmentationData"]

BALANCED_SHARE = 0.5  # share of the crops around a pixel of a class drawn at random, where crops are balanced


class SegmentationData(VisionDataModule[MaskTarget]):
    """Pictures with a class for each pixel.

    Args:
        root: A folder of pictures and masks (images/ with masks/, by split or not; Pascal VOC, Cityscapes or CamVid
            layout), or a COCO .json file or folder with polygons or run lengths; none draws the embedded shapes.
        classes: Class names in order; none takes those of the training data.
        ignore: Names of classes that are neither learnt nor counted; none takes void, unlabeled and the like.
        val_fraction: Part of the pictures that validates when the data brings no val split, 0..1; the split is the same
            each time, stratified by class.
        split_seed: Another number makes another such split.
        size: Side of the square that the model sees, in pixels, or [height, width] (best where all pictures have one
            shape).
        resize: "letterbox" pads the shorter side, "squash" changes the aspect ratio.
        denoise: Noise filter after resizing: "median", "bilateral", "nlm" (non-local means) or none.
        denoise_strength: How strong the filter is, > 0; 1 suits camera noise.
        channels: 3 reads colour, 1 grey; other numbers read .npy or multi-band TIFF files.
        crop_scale: Smallest and largest factor at which training pictures are shown and cut to the model's size; none
            shows them whole.
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; masks move with the picture;
            none leaves pictures as they are; without this key a default for photos is used.
        balance: "loss" weighs pixels of rare classes up, "crops" cuts half of the training pictures around a class
            drawn at random, "none" neither.
        batch_size: Pictures a batch and process.
        num_workers: Processes that read pictures; none takes one for two cores (with a GPU one a core),
            at most 8.
        check_images: Whether to open every picture and mask before training and list all faulty ones at once.
        skip_corrupt: Whether to go on without pictures that cannot be read or do not fit their masks.
        seed: Seed of order, crops and augmentation; the command line takes it from seed_everything.
        cache: "ram" or "disk" keeps decoded pictures for the further epochs, in memory or in a folder; "none" reads the
            files each time. Files of masks are read each time in any case.
        cache_folder: Where "disk" keeps them, for further runs, too; none takes one in the run's folder, which is
            removed after training.
        cache_limit: Gigabytes that they may take; pictures beyond it are read each time.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        classes: list[str] | None = None,
        ignore: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        size: int | tuple[int, int] = 320,
        resize: Literal["letterbox", "squash"] = "letterbox",
        denoise: Literal["median", "bilateral", "nlm"] | None = None,
        denoise_strength: float = 1.0,
        channels: int = 3,
        crop_scale: tuple[float, float] | None = (0.5, 2.0),
        augment: list[str | dict[str, Any]] | None = SEGMENTATION_AUGMENTATION,  # never changed
        balance: Literal["none", "loss", "crops"] = "none",
        batch_size: int = 8,
        num_workers: int | None = None,
        check_images: bool = True,
        skip_corrupt: bool = False,
        seed: int = 0,
        cache: Literal["none", "ram", "disk"] = "none",
        cache_folder: str | None = None,
        cache_limit: float = 20.0,
    ) -> None:
        balanced = BALANCED_SHARE if balance == "crops" else 0.0
        super().__init__(
            preprocessing=Preprocessing(
                size, resize=resize, denoise=denoise, denoise_strength=denoise_strength, channels=channels
            ),
            augment=Augmentation(augment),
            combine=None if crop_scale is None else RandomScaledCrop(crop_scale, balanced=balanced),
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
        self.ignore = ignore
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.balance = balance

    def read(self) -> DataSplits[VisionDataset[MaskTarget]]:
        """Find the data sets and split them if need be."""
        found = find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            classes=self.fixed_classes,
            ignore=self.ignore,
            channels=self.preprocessing.channels,
            need=("train", "val") if self.fixed_classes is None else (),
        )
        train = found.train
        if self.balance == "loss" and train is not None:
            train = train.with_weights(balanced_weights(train.pixel_counts()))
        return DataSplits(train, found.val, found.test, found.source)


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
