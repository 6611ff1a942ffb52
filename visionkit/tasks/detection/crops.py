"""Objects cut out of their pictures, a file each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from glob import escape
from pathlib import Path

from torch import Tensor

from visionkit.core.files import replacing
from visionkit.core.sample import ImageInfo
from visionkit.prediction.writers import WriterJob, safe_name
from visionkit.tasks.detection.types import BoxPrediction

__all__ = ["CropWriter", "folders_of"]

_UNSAFE = re.compile(r'[/\\:*?"<>|]+')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself


class CropWriter:
    """Writes ``crops/CLASS/NUMBER_PICTURE_K.jpg``: each object, cut from the original with all its pixels.

    The box is widened to whole pixels and cut at the picture's edges. K counts the objects of a picture, the most
    certain first. Without a least score those are cut that are drawn.

    Args:
        job: What is to be written where.
    """

    wants_pixels = True
    """It is given the picture, too."""

    def __init__(self, job: WriterJob) -> None:
        self.folder = job.out / "crops"
        self.outputs: tuple[Path, ...] = (self.folder,)
        self.least = job.min_score
        self.folders = folders_of(job.names)
        self.numbers = {image: number for number, image in reversed(list(enumerate(job.images)))}

    def files_of(self, image: str) -> list[Path]:
        """Return the files of a picture that are there."""
        return sorted(self.folder.glob(f"*/{escape(self._start(image))}_*.jpg"))

    def _start(self, image: str) -> str:
        """Return how the names of a picture's files begin."""
        return f"{self.numbers[image]:05d}_{safe_name(Path(image).stem)}"

    def add(self, info: ImageInfo, prediction: BoxPrediction, *image: Tensor) -> None:
        """Write the objects of a picture.

        Args:
            info: Of the picture.
            prediction: In pixels of the original.
            image: The picture, uint8 [C, H, W], with 1 or 3 channels.
        """
        from PIL import Image

        found = prediction.at_least(prediction.drawn if self.least is None else self.least)
        start = self._start(info.id)
        (picture,) = image
        pixels = picture.expand(3, -1, -1).permute(1, 2, 0).numpy()
        for k, (label, box) in enumerate(zip(found.labels.tolist(), found.boxes.tolist(), strict=True)):
            left, top, right, bottom = _whole(box, info.size)
            with replacing(self.folder / self.folders[label] / f"{start}_{k:03d}.jpg") as temporary:
                Image.fromarray(pixels[top:bottom, left:right]).save(temporary, quality=95)

    def finish(self) -> None:
        """Do nothing: all is written, and without any object there is no folder."""


def folders_of(names: Sequence[str]) -> list[str]:
    """Return the name of a folder for each class: the class's own as far as that is safe, and no two the same.

    File systems that ignore case, and those that keep some characters and names for themselves, are thought of.

    Args:
        names: Class names.
    """
    folders: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = safe_name(_UNSAFE.sub("_", name)).strip(" .") or "_"
        plain = f"_{plain}" if _DEVICES.fullmatch(plain) else plain
        folder, number = plain, 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def _whole(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the whole pixels that a box touches, at least one."""
    height, width = size
    left, top = (min(max(0, math.floor(v)), edge - 1) for v, edge in zip(box[:2], (width, height), strict=True))
    right, bottom = (min(math.ceil(v), edge) for v, edge in zip(box[2:], (width, height), strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)
