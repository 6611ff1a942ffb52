"""The options that the data of all tasks have in common: what a picture becomes, and where pictures come from."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from visionkit.core.sample import Target
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.preprocessing import Denoise, Preprocessing
from visionkit.training.datamodule import VisionDataModule

__all__ = ["FileData", "SizedData"]

T = TypeVar("T", bound=Target)


class SizedData(VisionDataModule[T], Generic[T]):
    """Data whose pictures are brought to the model's size as options say.

    Args:
        size: Side of the square that the model sees, in pixels, or [height, width] (best where all pictures have one
            shape).
        resize: "letterbox" pads the shorter side, "squash" changes the aspect ratio.
        denoise: Noise filter after resizing: "median", "bilateral", "nlm" (non-local means) or none.
        denoise_strength: How strong the filter is, above 0 and at most 10; 1 suits camera noise.
        channels: 3 reads colour, 1 grey; other numbers read .npy or multi-band TIFF files.
        common: Options of VisionDataModule.
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 320,
        resize: Literal["letterbox", "squash"] = "letterbox",
        denoise: Denoise | None = None,
        denoise_strength: float = 1.0,
        channels: int = 3,
        **common: Any,
    ) -> None:
        preprocessing = Preprocessing(
            size, resize=resize, denoise=denoise, denoise_strength=denoise_strength, channels=channels
        )
        super().__init__(splits=None, preprocessing=preprocessing, **common)


class FileData(SizedData[T], Generic[T]):
    """Data of one task, read from files or drawn. Subclasses find the data sets in ``read``.

    Args:
        root: Where the files are; none draws the embedded shapes.
        classes: Class names in order; none takes those of the training data.
        val_fraction: Part of the pictures that validates when the data brings no val split, 0..1; the split is the
            same each time and stratified by class.
        split_seed: Another number makes another such split.
        split: A .csv file (columns image, split) that says which pictures validate when the data brings no val split;
            visionkit init writes one that keeps near duplicates together. None splits by class alone.
        augment: Albumentations transforms for training; none leaves pictures as they are.
        batch_size: Pictures a batch and process.
        common: Options of all data, see SizedData.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        classes: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        split: str | None = None,
        augment: list[str | dict[str, Any]] | None = None,
        batch_size: int = 8,
        **common: Any,
    ) -> None:
        super().__init__(augment=Augmentation(augment), batch_size=batch_size, **common)
        self.root = root
        self.fixed_classes = classes
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.split_file = split
