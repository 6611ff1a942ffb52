"""Which pictures the arguments of a command mean."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.core.text import say
from visionkit.data.images.listing import list_images, passed_over
from visionkit.prediction.files import ImageFile
from visionkit.tasks.classification.readers.manifest import MANIFEST_SUFFIXES, read_rows

__all__ = ["find_images"]


def find_images(arguments: Sequence[str]) -> list[ImageFile]:
    """Return the pictures that files, folders, globs and manifests name, each once, in order.

    Args:
        arguments: As the command line brings them.

    Raises:
        UsageError: An argument matches nothing.
        DataError: A folder holds no pictures, or a manifest is wrong.
    """
    found: dict[str, ImageFile] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            pictures = [ImageFile(str(p)) for p in list_images(path)]
            others = passed_over([path]).lines()
            if not pictures:
                raise DataError("; ".join([f"{path}: the folder holds no pictures", *others]))
            say(*(f"{path}: {line}" for line in others), error=True)
        elif path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
            pictures = _from_manifest(path)
        elif path.is_file():
            pictures = [ImageFile(argument)]
        else:
            matches = sorted(p for p in glob.glob(argument, recursive=True) if Path(p).is_file())
            if not matches:
                raise UsageError(f"{argument}: no such picture, folder or manifest, and no file matches it as a glob")
            pictures = [ImageFile(p) for p in matches]
        for picture in pictures:
            key = os.path.normpath(picture.path)
            if key not in found or picture.extra:  # what a manifest says of a picture is kept
                found[key] = picture
    return list(found.values())


def _from_manifest(path: Path) -> list[ImageFile]:
    """Return the pictures of a manifest; its label column, the truth, comes back as ``truth``."""
    pictures = []
    for row in read_rows(path):
        cells = dict(row.cells)
        name = str(cells.pop("path") or "").strip()
        if not name:
            raise DataError(f"{row.where}: no path; write the image's file")
        extra = {"truth" if k in ("label", "labels") else k: v for k, v in cells.items()}
        pictures.append(ImageFile(str(path.parent / name), extra))
    if not pictures:
        raise DataError(f"{path}: lists no images; add a line for each image")
    return pictures
