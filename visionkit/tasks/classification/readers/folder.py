"""A folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from visionkit.core.errors import DataError
from visionkit.data.images.reading import SUFFIXES, list_images
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry, need_two_classes

__all__ = ["FolderDataset", "class_folders", "loose_images"]


class FolderDataset(ClassDataset):
    """Images in a folder per class: ``root/cat/*.jpg``, ``root/dog/**/*.png``, ...

    Hidden files and folders (a name that starts with a dot) are skipped, files that are no images by their names too.

    Args:
        root: The folder that holds the class folders.
        classes: Class names in order; None takes the names of the folders, sorted. A class without a folder is fine.
        channels: 3 for RGB, 1 for gray, another number for multi-band TIFF or ``.npy`` files.

    Raises:
        DataError: The folder is missing or holds no class folders, a class folder is empty or not one of ``classes``,
            images lie beside the class folders, or there is one class only.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, channels: int = 3
    ) -> None:
        folder = Path(root)
        folders = class_folders(folder)
        loose = loose_images(folder)
        if loose and folders:
            raise DataError(
                f"{loose[0]}: an image beside the class folders ({len(loose)} in all), its class is unknown; "
                "move it into a class folder or away"
            )
        if loose:
            raise DataError(
                f"{folder}: holds {len(loose)} images but no class folders; put the images of each class into a folder "
                "with the name of the class, or list them in a manifest with the columns path,label"
            )
        if not folders:
            raise DataError(f"{folder}: holds no class folders and no images; it needs a folder of images per class")
        images = {f.name: list_images(f, channels=channels) for f in folders}
        if not any(images.values()):
            raise DataError(
                f"{folder}: no images in its {len(folders)} folders ({', '.join(list(images)[:5])}); "
                f"files that end in {', '.join(sorted(SUFFIXES)[:8])}, ... are taken"
            )
        if classes is None:
            names = tuple(images)
            empty = [n for n in names if not images[n]]
            if empty:
                raise DataError(
                    f"{folder / empty[0]}: no images for class {', '.join(empty)}; add images or remove the folder"
                )
            need_two_classes(names, str(folder))
        else:
            names = check_classes(classes)
            for name in images:
                if name not in names:
                    raise DataError(f"{folder / name}: {unknown_class(name, names)}; rename or remove the folder")
        ids = {name: i for i, name in enumerate(names)}
        entries = [
            Entry(str(file), (ids[name],), file.relative_to(folder).as_posix())
            for name in names
            for file in images.get(name, [])
        ]
        super().__init__(entries, names, channels=channels)
        self.root = folder


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name; hidden ones are skipped.

    Raises:
        DataError: The folder does not exist or is a file.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds a folder of images per class")
    return sorted((f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")), key=lambda f: f.name)


def loose_images(folder: Path) -> list[Path]:
    """Return the images that lie directly in a folder, sorted."""
    return sorted(
        f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()
    )
