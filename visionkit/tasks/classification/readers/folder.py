"""A folder per class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request, make_splits, read_parts
from visionkit.data.images.reading import SUFFIXES, list_images
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.data.split import SPLIT_WORDS
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry, need_two_classes, unknown_to_train

__all__ = ["FORMAT", "FolderDataset", "class_folders", "loose_images", "split_folders"]


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


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders named like splits, where they are splits and not classes of those names.

    Raises:
        DataError: A split has two folders.
    """
    folders = {f.name: f for f in class_folders(folder)}
    found: dict[str, Path] = {}
    for name, words in SPLIT_WORDS.items():
        here = [w for w in words if w in folders]
        if len(here) > 1:
            raise DataError(f"{folder}: has both {here[0]}/ and {here[1]}/; keep one")
        if here:
            found[name] = folders[here[0]]
    words_only = all(f in sum(SPLIT_WORDS.values(), ()) for f in folders)
    if words_only or any(class_folders(f) and not loose_images(f) for f in found.values()):
        return found
    return {}  # classes that happen to have such names, as COCO's train has


def _find(root: Path) -> dict[str, Path] | None:
    """Return the folders that hold class folders, by split; "" for one of no split."""
    if not root.is_dir():
        return None
    splits = split_folders(root)
    if splits:
        return splits
    holds = any(list_images(f, channels=4) for f in class_folders(root))  # files of any number of channels
    return {"": root} if holds else None


def _read(found: Mapping[str, Path], request: Request) -> DataSplits[ClassDataset]:
    if request.options.get("multilabel"):
        raise UsageError(
            f"{request.root}: class folders give one label an image; for several, list the images in a manifest with "
            "the columns path,labels"
        )
    parts = {n: Part[ClassDataset](f"{f.name}/", partial(_read_folder, f, n, request)) for n, f in found.items()}
    done = read_parts(parts, request)
    if "" in parts:
        return make_splits(done, f"{len(done['train'])} images in class folders of {request.root}")
    told = ", ".join(f"{parts[n].where} ({len(d)} images)" for n, d in done.items())
    return make_splits(done, f"{told} of {request.root}")


def _read_folder(
    folder: Path, name: str, request: Request, *, classes: Sequence[str] | None, channels: int
) -> FolderDataset:
    if request.classes is None and classes is not None:  # those of the training images
        unknown = [f.name for f in class_folders(folder) if f.name not in classes]
        if unknown:
            raise DataError(unknown_to_train(folder, name, unknown, classes))
    return FolderDataset(folder, classes=classes, channels=channels)


FORMAT = Format[ClassDataset](
    "class folders",
    "class folders (a folder of images per class, or train/, val/ and test/ with such)",
    _find,
    _read,
    frozenset({"class", "names"}),
    fallback=True,
)
"""A folder per class: any folder with folders of images looks like it."""
