"""Finding the image files that a COCO JSON file names, and the JSON files of a folder."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import open_binary
from visionkit.data.labels.foreign import foreign_kind
from visionkit.data.labels.names import Folders, last_part, spellings
from visionkit.data.split import SPLIT_WORDS, split_word

__all__ = ["ImageFinder", "coco_files", "holds_outlines"]

_OUTLINE = re.compile(rb'"segmentation"\s*:\s*(?:\[\s*(?:\[\s*)?["0-9-]|\{)')
_OTHER_TASKS = ("captions", "keypoints", "panoptic", "image_info", "stuff_")  # COCO's JSON files without such boxes


class ImageFinder:
    """Where image files lie.

    All are looked for in one way: as the file names them; or, where not one is there so, by the last part of the name,
    since exports are often flattened. And in one folder where the first one lies, not each anywhere: a picture that is
    missing there is missing, whatever lies elsewhere under its name.

    Args:
        file: The JSON file.
        images: The folder that file names count from, or None to look in the usual places.
        names: All file names.
    """

    def __init__(self, file: Path, images: Path | None, names: Sequence[str]) -> None:
        self.base = file.parent if images is None else images
        self.folders = [images] if images is not None else [f for f in _usual(file) if f.is_dir()]
        self._disk = Folders()
        self._flat = False
        for self._flat in (False, True):
            first = next((f for name in names for f in self.folders if self._in(f, name)), None)
            if first is not None:
                self.folders = [first]
                break

    def find(self, name: str) -> str | None:
        """Return the path of an image file, or None where it is not there."""
        return next((path for f in self.folders if (path := self._in(f, name)) is not None), None)

    def _in(self, folder: Path, name: str) -> str | None:
        names = [last_part(name)] if self._flat else spellings(name)
        return next((path for n in names if (path := self._disk.find(folder / n)) is not None), None)

    def key(self, path: str) -> str:
        """Return a path relative to the JSON file or the folder of images, with slashes."""
        return Path(os.path.relpath(path, self.base)).as_posix()

    def looked(self) -> str:
        """Return where it looks, for messages."""
        return ", ".join(map(str, self.folders))


def _usual(file: Path) -> list[Path]:
    parts = next(([p] for p in file.stem.split("_") if split_word(p)), [])
    parts += SPLIT_WORDS.get(split_word(file.stem) or "", ())
    parts += file.stem.split("_")[1:]  # CVAT: instances_default.json, images/default/
    here = file.parent
    above = Path(os.path.normpath(here / ".."))
    found = [here]
    for folder in (here, above):
        found += [*(folder / "images" / p for p in parts), folder / "images", *(folder / p for p in parts)]
    return list(dict.fromkeys(found))


def coco_files(folder: Path) -> dict[str, Path]:
    """Return the COCO JSON files of a folder by split; the key is "" for a single file of no split.

    Files of other tasks (captions, keypoints, panoptic masks) are passed over.

    Raises:
        UsageError: Several files are for the same split.
    """
    places = [folder / "annotations", folder]
    for place in places:
        files = sorted(f for f in place.glob("*.json") if _is_coco(f))
        named: dict[str, list[Path]] = {}
        for file in files:
            named.setdefault(split_word(file.stem) or "", []).append(file)
        if named:
            rest = named.pop("", None)
            if rest and not {"train", "val"} & set(named):
                named["train" if named else ""] = rest  # such as trainval.json beside test.json
            return {name: _only(place, fs) for name, fs in named.items()}
    found: dict[str, list[Path]] = {}
    for name, words in SPLIT_WORDS.items():
        for word in words:
            for file in sorted((folder / word).glob("*.json")):
                if _is_coco(file):
                    found.setdefault(name, []).append(file)
    return {name: _only(folder, fs) for name, fs in found.items()}


def _only(folder: Path, files: Sequence[Path]) -> Path:
    if len(files) > 1:
        names = ", ".join(str(f.relative_to(folder)) for f in files)
        raise UsageError(
            f"{folder}: several COCO JSON files for the same images ({names}); give one as root, or keep one for each "
            "of train, val and test"
        )
    return files[0]


def _is_coco(file: Path) -> bool:
    """Return whether a file looks like one, without parsing it: that takes a minute for the largest."""
    if file.name.startswith(".") or not file.is_file() or any(w in file.stem.lower() for w in _OTHER_TASKS):
        return False
    try:
        with open_binary(file) as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = [data.find(b'"%s"' % key) >= 0 for key in (b"images", b"annotations", b"categories")]
            if found[0]:
                return any(found[1:])
            return found[1] and foreign_kind(file) is None  # Label Studio's notes.json has categories alone
    except (DataError, OSError, ValueError):  # ValueError: an empty file
        return False


def holds_outlines(file: Path) -> bool:
    """Return whether any object of a COCO JSON file has polygons or run lengths, without parsing it."""
    try:
        with open_binary(file) as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _OUTLINE.search(data) is not None
    except (DataError, OSError, ValueError):  # ValueError: an empty file
        return False
