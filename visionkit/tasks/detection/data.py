"""DetectionData: pictures with boxes, and masks where asked for, from files of all kinds or the embedded shapes."""

from __future__ import annotations

from typing import Any

from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import find_splits
from visionkit.data.transforms.augmentation import DETECTION_AUGMENTATION
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.data.transforms.preprocessing import Resize
from visionkit.tasks.detection.advice import advise
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.types import BoxTarget
from visionkit.training.advice import Advice
from visionkit.training.filedata import FileData

__all__ = ["DetectionData"]


class DetectionData(FileData[BoxTarget]):
    """Pictures with boxes and classes. Objects should be 12 pixels or more at the size that the model sees.

    Args:
        root: A folder in COCO, Pascal VOC or YOLO format (found by what it holds), a COCO .json file or a YOLO
            data.yaml; none draws the embedded shapes.
        resize: "letterbox" pads the shorter side, "squash" changes the aspect ratio, "crop" cuts off the longer side.
        masks: Whether to read the masks of the objects, too, as MaskRCNNHead needs them: of COCO JSON (polygons or run
            lengths) or YOLO (polygons).
        augment: Albumentations transforms for training, e.g. [{HorizontalFlip: {p: 0.5}}]; boxes move with the picture;
            none leaves pictures as they are; without this key a default for photos is used.
        mosaic: Share of the training pictures that are put together from four, 0..1.
        mosaic_off: Share of the epochs, at the end of the training, without mosaics, 0..1.
        common: Options of all data, see FileData.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        resize: Resize = "letterbox",
        masks: bool = False,
        augment: list[str | dict[str, Any]] | None = DETECTION_AUGMENTATION,  # never changed
        mosaic: float = 0.3,
        mosaic_off: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(root, resize=resize, augment=augment, combine=Mosaic(mosaic, last=mosaic_off), **common)
        self.masks = masks

    def advise(self, advice: Advice, key: str = "data") -> None:
        """Choose what a config leaves to ``auto``; see :func:`visionkit.tasks.detection.advice.advise`."""
        advise(advice, self.splits, key)

    def read(self) -> DataSplits[VisionDataset[BoxTarget]]:
        """Find the data sets and split them if need be."""
        return find_splits(
            self.root,
            FORMATS,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            listed=self.split_file,
            classes=self.fixed_classes,
            channels=self.preprocessing.channels,
            need=("train", "val") if self.fixed_classes is None else (),
            masks=self.masks,
        )
