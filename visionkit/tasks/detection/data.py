"""DetectionData: pictures with boxes, and masks where asked for, from files of all kinds or the embedded shapes."""

from __future__ import annotations

from typing import Any, Literal

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import DETECTION_AUGMENTATION, Augmentation
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.types import BoxTarget
from visionkit.training.datamodule import VisionDataModule

__all__ = ["DetectionData"]


class DetectionData(VisionDataModule[BoxTarget]):
    """Pictures with boxes and classes.

    Args:
        root: A folder in COCO, Pascal VOC or YOLO format (found by what it holds), a COCO .json file or a YOLO
            data.yaml; none draws the embedded shapes.
        classes: Class names in order; none takes those of the training data.
        val_fraction: Part of the pictures that validates when the data brings no val split, 0..1; the split is the same
            each time, stratified by class.
        split_seed: Another number makes another such split.
        size: Side of the square that the model sees, in pixels, or [height, width] (faster where all pictures have one
            shape). Objects should be 12 pixels or more in it.
        resize: "letterbox" pads the shorter side, "squash" changes the aspect ratio, "crop" cuts off the longer side.
        denoise: Noise filter after resizing: "median", "bilateral", "nlm" (non-local means) or none.
        denoise_strength: How strong the filter is, > 0; 1 suits camera noise.
        channels: 3 reads colour, 1 grey; other numbers read .npy or multi-band TIFF files.
        masks: Whether to read the masks of the objects, too, as MaskRCNNHead needs them: of COCO JSON (polygons or run
            lengths) or YOLO (polygons).
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; boxes move with the picture;
            none leaves pictures as they are; without this key a default for photos is used.
        mosaic: Share of the training pictures that are put together from four, 0..1.
        mosaic_off: Share of the epochs, at the end of the training, without mosaics, 0..1.
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
        val_fraction: float = 0.2,
        split_seed: int = 0,
        size: int | tuple[int, int] = 320,
        resize: Literal["letterbox", "squash", "crop"] = "letterbox",
        denoise: Literal["median", "bilateral", "nlm"] | None = None,
        denoise_strength: float = 1.0,
        channels: int = 3,
        masks: bool = False,
        augment: list[str | dict[str, Any]] | None = DETECTION_AUGMENTATION,  # never changed
        mosaic: float = 0.3,
        mosaic_off: float = 0.2,
        batch_size: int = 8,
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
            combine=Mosaic(mosaic, last=mosaic_off),
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
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.masks = masks

    def read(self) -> DataSplits[VisionDataset[BoxTarget]]:
        """Find the data sets and split them if need be."""
        return find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            classes=self.fixed_classes,
            channels=self.preprocessing.channels,
            need=("train", "val") if self.fixed_classes is None else (),
            masks=self.masks,
        )
