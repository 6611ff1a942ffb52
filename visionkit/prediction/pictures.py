"""A picture to predict: a file, or bytes that come from elsewhere, read by the rules for files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import torch

from visionkit.core.errors import DataError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.images.decode import DARK, SEVERAL, Scale
from visionkit.data.images.reading import load_image

__all__ = ["ImageFile", "Remarks", "read_picture"]


@dataclass(frozen=True)
class ImageFile:
    """A picture file to predict.

    Args:
        path: The file, as it is named in the record.
        extra: Further columns that come back in the record.
        load: Returns the bytes of the picture where ``path`` names no file, such as a URL; None reads the file.
    """

    path: str
    extra: dict[str, Any] = field(default_factory=dict)
    load: Callable[[], bytes] | None = None


@dataclass
class Remarks:
    """What should be said of the pictures that were read; any thread may add to it.

    Args:
        several: Those that hold further pages or frames, which were left out.
        dark: Those of 16 bits whose values are all low.
    """

    several: list[str] = field(default_factory=list)
    dark: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it in words, a line each."""
        told = []
        if self.several:
            count, holds = _files(self.several, "holds", "hold")
            told.append(f"{count} {holds} several pictures (pages, frames): the first of each is predicted")
        if self.dark:
            count, have = _files(self.dark, "has", "have")
            told.append(f"{count} {have} 16 bits with low values alone and are dark; of 12 bits, save values times 16")
        return told


def read_picture(
    picture: ImageFile, channels: int, scale: Scale | None, remarks: Remarks | None = None
) -> Sample[Any] | DataError:
    """Return a picture as read, or what is wrong with it.

    Args:
        picture: The file.
        channels: Of the image.
        scale: By how much it will be resized: a JPEG may be decoded at a part of its size; None reads all pixels.
        remarks: Takes what should be said of it.
    """
    try:
        data = None if picture.load is None else picture.load()
        decoded = load_image(picture.path, channels=channels, scale=scale, data=data)
    except DataError as e:
        return e
    except Exception as e:  # the others can be read
        return DataError(f"{picture.path}: cannot be read ({type(e).__name__}: {e}); copy it again, or remove it")
    if remarks is not None:
        for remark, found in ((SEVERAL, remarks.several), (DARK, remarks.dark)):
            if remark in decoded.remarks:
                found.append(picture.path)
    info = ImageInfo(picture.path, decoded.size, extra=picture.extra)
    return Sample(torch.from_numpy(decoded.pixels).permute(2, 0, 1), None, info, decoded.reduced)


def _files(paths: list[str], one: str, many: str) -> tuple[str, str]:
    first = PurePath(min(paths)).name
    return (first, one) if len(paths) == 1 else (f"{len(paths)} files ({first}, ...)", many)
