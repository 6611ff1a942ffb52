"""A folder per class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.core.text import printable
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request, make_splits, read_parts
from visionkit.data.images.listing import SUFFIXES, list_folders, list_images, passed_over
from visionkit.data.labels.classes import check_class_names, check_classes, unknown_class
from visionkit.data.labels.faults import fault, fault_each, is_gathering
from visionkit.data.labels.names import composed
from visionkit.data.split import SPLIT_WORDS
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry, need_two_classes, unknown_to_train

__all__ = ["FORMAT", "FolderDataset", "class_folders", "loose_images", "split_folders"]

_SPLIT_OF = {word: name for name, words in SPLIT_WORDS.items() for word in words}


class FolderDataset(ClassDataset):
    """Images in a folder per class: ``root/cat/*.jpg``, ``root/dog/**/*.png``, ...

    Hidden files and folders (a name that starts with a dot) are skipped, files that are no images by their names too,
    and so are folders without images; ``empty`` names them. Class names are in Unicode's composed form (NFC).

    Args:
        root: The folder that holds the class folders.
        classes: Class names in order; None takes the names of the folders, sorted. A class without a folder is fine.
        channels: 3 for RGB, 1 for gray, another number for multi-band TIFF or ``.npy`` files.

    Raises:
        DataError: The folder is missing or holds no class folders, a class folder holds pictures of kinds that are not
            read alone or is not one of ``classes``, images lie beside the class folders, a name holds control
            characters, or there is one class only.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, channels: int = 3
    ) -> None:
        folder = Path(root)
        folders = class_folders(folder)
        loose = loose_images(folder)
        if loose and folders:
            what = f"an image beside the class folders ({len(loose)} in all), its class is unknown"
            every = loose if is_gathering() else loose[:1]
            fault_each("image-unlabelled", [f"{f}: {what}; move it into a class folder or away" for f in every])
        elif loose:
            raise DataError(
                f"{folder}: holds {len(loose)} images but no class folders; put the images of each class into a folder "
                "with the name of the class, or list them in a manifest with the columns path,label"
            )
        if not folders:
            raise DataError(f"{folder}: holds no class folders and no images; it needs a folder of images per class")
        images = {f.name: list_images(f, channels=channels) for f in folders}
        if not any(images.values()):
            also = "".join(f"{line}; " for line in passed_over([folder]).lines())
            raise DataError(
                f"{folder}: no images in its {len(folders)} folders ({', '.join(list(images)[:5])}); {also}"
                f"files that end in {', '.join(sorted(SUFFIXES)[:8])}, ... are taken"
            )
        self.empty = tuple(n for n in images if not images[n])
        """Names of folders without images, which are no classes."""
        for name in self.empty:
            if kinds := passed_over([folder / name]).lines():
                fault("class-empty", f"{folder / name}: no images for class {name}: {kinds[0]}")
        named = _by_class(folder, [n for n in images if images[n]])
        if classes is None:
            names = tuple(sorted(named))
            check_class_names(names, folder)
            if len(names) == 1 and self.empty:
                which = ", ".join(self.empty)
                raise DataError(
                    f"{folder / self.empty[0]}: no images for class {which}; add images or remove the folder"
                )
            need_two_classes(names, str(folder))
        else:
            names = check_classes(classes)
            for name, place in named.items():
                if name not in map(composed, names):
                    what = unknown_class(name, names)
                    fault("class-unknown", f"{folder / place}: {what}; rename or remove the folder")
        ids = {composed(name): i for i, name in enumerate(names)}
        entries = [
            Entry(str(file), (ids[name],), file.relative_to(folder).as_posix())
            for name in sorted(ids.keys() & named.keys(), key=lambda n: ids[n])
            for file in images[named[name]]
        ]
        super().__init__(entries, names, channels=channels)
        self.root = folder


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, but those that are nobody's data (see ``list_images``).

    Raises:
        DataError: The folder does not exist or is a file.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds a folder of images per class")
    return list_folders(folder)


def _by_class(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the folders' names by the names of their classes, which Unicode may write in two ways.

    Raises:
        DataError: Two folders have one name.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(composed(name), name)
        if other != name:
            raise DataError(
                f"{folder}: has two folders called {composed(name)}, which differ in their Unicode form alone (NFC and "
                "NFD); put their images into one"
            )
    return found


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
    folders = class_folders(folder)
    found: dict[str, Path] = {}
    for f in folders:
        name = _SPLIT_OF.get(f.name.lower())
        if name is not None and name in found:
            raise DataError(f"{folder}: has both {found[name].name}/ and {f.name}/; keep one")
        if name is not None:
            found[name] = f
    words_only = len(found) == len(folders)
    if words_only or any(class_folders(f) and not loose_images(f) for f in found.values()):
        return {name: found[name] for name in SPLIT_WORDS if name in found}
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
    notes = [
        f"{f.name}/ has no class folders ({len(loose_images(f))} images without labels) and is left out"
        for n, f in found.items()
        if n == "test" and n not in request.need and not class_folders(f) and loose_images(f)
    ]
    found = {n: f for n, f in found.items() if not (n == "test" and notes)}
    parts = {n: Part[ClassDataset](f"{f.name}/", partial(_read_folder, f, n, request)) for n, f in found.items()}
    done = read_parts(parts, request)
    for name, data in done.items():
        if isinstance(data, FolderDataset) and data.empty and ("" in parts or name == "train"):
            which = ", ".join(printable(n) for n in data.empty[:5]) + (", ..." if len(data.empty) > 5 else "")
            where = "" if "" in parts else f" of {parts[name].where}"
            notes.append(f"{len(data.empty)} folders{where} without images ({which}) are no classes")
    if "" in parts:
        return make_splits(done, "; ".join([f"{len(done['train'])} images in class folders of {request.root}", *notes]))
    told = ", ".join(f"{parts[n].where} ({len(d)} images)" for n, d in done.items())
    return make_splits(done, "; ".join([f"{told} of {request.root}", *notes]))


def _read_folder(
    folder: Path, name: str, request: Request, *, classes: Sequence[str] | None, channels: int
) -> FolderDataset:
    if request.classes is None and classes is not None:  # those of the training images
        folders = [f for f in class_folders(folder) if list_images(f, channels=channels)]
        unknown = [f.name for f in folders if composed(f.name) not in classes]
        if unknown and not is_gathering():  # else each folder is told
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
