"""Pascal VOC: an XML file an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request
from visionkit.data.images.reading import SUFFIXES
from visionkit.data.labels.checks import refuse_missing
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.data.labels.names import Folders, composed, split_list
from visionkit.data.labels.numbers import mostly_shares
from visionkit.data.split import SPLIT_WORDS
from visionkit.tasks.detection.readers.box_cleaning import RawBox
from visionkit.tasks.detection.readers.parts import read_boxes, told_place
from visionkit.tasks.detection.readers.reader import BoxDataset, BoxEntry, make_entry
from visionkit.tasks.detection.readers.voc_objects import VocPicture, read_picture
from visionkit.tasks.detection.readers.voc_xml import parse_xml

__all__ = ["FORMAT", "VocDataset", "voc_splits"]

_XML_FOLDERS = ("Annotations", "annotations")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images")


class VocDataset(BoxDataset):
    """Images with boxes from Pascal VOC XML files.

    Folders: Annotations/ with JPEGImages/ (or images/) and lists of names in ImageSets/Main/train.txt, val.txt,
    test.txt, trainval.txt (or beside the folders); or XML files beside their images, in one folder or in train/,
    valid/ and test/. An XML file belongs to the image of its own name; only where not one of them has such an image,
    to the image of its <filename>.

    Coordinates are taken as they are, as common readers do: the original VOC counts pixels from 1, most tools from 0.
    ``difficult`` objects are crowds: neither learnt nor counted. ``truncated`` and the boxes of parts are not read.

    Args:
        root: The folder.
        split: ``train``, ``val``, ``test`` or ``trainval``; None for all images.
        classes: Class names in order; None takes those of all objects that are read, sorted.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.

    Raises:
        DataError: A file or a line of it is wrong, with file and line; or image files are missing.
        UsageError: There is no such split, or ``classes`` is empty or has a name twice.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        channels: int = 3,
    ) -> None:
        folder = Path(root)
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "no such folder"
            raise DataError(f"{folder}: {what}; give the folder that holds Annotations/ and JPEGImages/")
        files, home = _files(folder, split)
        pictures = [read_picture(file) for file in files]
        _refuse_shares(pictures)
        if classes is None:
            names = tuple(sorted({o.name for p in pictures for o in p.objects}))
        else:
            names = check_classes(classes)
        ids = {name: i for i, name in enumerate(names)}
        images = _Images(home)
        place = _xml_folder(home)
        below = [
            f.parent.relative_to(place) if place is not None and f.is_relative_to(place) else Path() for f in files
        ]
        own = [images.own(p.filename, f, b) for p, f, b in zip(pictures, files, below, strict=True)]
        renamed = not any(own)
        entries: dict[str, BoxEntry] = {}
        missing: list[str] = []
        for file, picture, folders, path in zip(files, pictures, below, own, strict=True):
            for o in picture.objects:
                if o.name not in ids:
                    raise DataError(f"{o.where}: {unknown_class(o.name, names)}; rename or remove the object")
            said = images.said(picture.filename, folders) if path is None else None
            path = said if renamed else path
            if path is None:
                other = (
                    f"of its own name; its <filename> says {picture.filename}, where other files mean their own images"
                )
                missing.append(f"{file}: no image {other if said else picture.filename or file.stem + '.jpg'}")
                continue
            if path in entries:
                raise DataError(
                    f"{file}: its image {path} is that of {entries[path].source} too; correct <filename> or keep one"
                )
            raw = [RawBox(o.box, ids[o.name], o.box_where, o.difficult) for o in picture.objects]
            key = Path(os.path.relpath(path, folder)).as_posix()
            entries[path] = make_entry(path, key, raw, names, size=picture.size, source=str(file))
        refuse_missing(missing, str(folder), ", ".join(map(str, images.folders)))
        super().__init__(list(entries.values()), names, channels=channels)
        self.root = folder


def voc_splits(folder: Path) -> dict[str, Path]:
    """Return where the splits of a folder are told, a list or a folder each; "" for one of no split.

    The result is empty where a folder does not look like Pascal VOC.

    Raises:
        DataError: A folder has two names for the same split.
    """
    if _xml_folder(folder) is not None:
        lists = {name: _list(folder, words) for name, words in SPLIT_WORDS.items()}
        found = {name: file for name, file in lists.items() if file is not None}
        both = _list(folder, ("trainval",))
        if both is not None and "train" not in found and "val" not in found:
            found["train"] = both
        return found or {"": folder}
    splits: dict[str, Path] = {}
    for name, words in SPLIT_WORDS.items():
        here = [folder / w for w in words if _xml_folder(folder / w) is not None]
        if len(here) > 1:
            raise DataError(f"{folder}: has both {here[0].name}/ and {here[1].name}/; keep one")
        if here:
            splits[name] = here[0]
    return splits


def _xml_folder(folder: Path) -> Path | None:
    """Return where the XML files of a folder lie, or None where there are none of Pascal VOC."""
    for place in (*(folder / n for n in _XML_FOLDERS), folder):
        deep = place != folder  # other tools put folders below Annotations/, too
        first = next(iter(_xml_files(place) if deep else _visible(place)), None)
        if first is not None and (deep or parse_xml(first).tag == "annotation"):
            return place
    return None


def _refuse_shares(pictures: Sequence[VocPicture]) -> None:
    """Refuse files whose boxes are shares of the picture, most of them: Pascal VOC counts in pixels."""
    boxes = [(o.box_where, o.box) for p in pictures for o in p.objects]
    shares = mostly_shares(boxes)
    if shares:
        raise DataError(
            f"{shares[0]}: {len(shares)} of {len(boxes)} boxes lie within 0..1, as this one: these are shares of the "
            "picture (normalised), and Pascal VOC counts in pixels; multiply x by the picture's width, y by its height"
        )


def _xml_files(place: Path) -> list[Path]:
    """Return the XML files of a folder, or, where it has none, of those in it."""
    return _visible(place) or sorted(f for f in place.glob("*/**/*.xml") if not f.name.startswith("."))


def _visible(place: Path) -> list[Path]:
    return sorted(f for f in place.glob("*.xml") if not f.name.startswith("."))


def _list(folder: Path, words: Sequence[str]) -> Path | None:
    places = (folder / "ImageSets" / "Main", folder / "ImageSets", folder)
    return next((file for place in places if (file := split_list(place, words)) is not None), None)


def _files(folder: Path, split: str | None) -> tuple[list[Path], Path]:
    """Return the XML files of a split, and the folder where they and the images lie."""
    place = _xml_folder(folder)
    if split is None:
        if place is None:
            raise DataError(f"{folder}: holds no XML files of Pascal VOC; it needs Annotations/*.xml, or XML files")
        return (_visible(place) if place == folder else _xml_files(place)), folder
    found = _list(folder, ("trainval",)) if split == "trainval" else voc_splits(folder).get(split)
    if found is None or found == folder:
        raise UsageError(
            f"{folder}: no split {split!r}; it needs a list ImageSets/Main/{split}.txt or a folder {split}/"
        )
    if found.is_dir():
        return _files(found, None)[0], found
    assert place is not None
    return _listed(found, place), folder


def _listed(file: Path, place: Path) -> list[Path]:
    """Return the XML files that a list names; a name that comes again is taken once."""
    found: dict[Path, None] = {}
    text = read_text(file)
    disk = Folders()
    for number, content in enumerate(text.split("\n"), 1):
        said = content.strip().replace("\\", "/")
        if not said:
            continue
        suffix = PureWindowsPath(said).suffix.lower()
        stem = said[: -len(suffix)] if suffix in SUFFIXES or suffix == ".xml" else said
        names = [n for s in (stem, stem.rpartition("/")[2]) for n in (s, *s.split()[:1])]
        xml = next((p for n in names if (p := disk.find(place / f"{n.lstrip('/')}.xml")) is not None), None)
        if xml is None:
            missing = place / stem.rpartition("/")[2]
            raise DataError(f"{file}:{number}: {missing}.xml: no such file; add it or remove the line")
        found[Path(xml)] = None
    return list(found)


class _Images:
    """The image files that XML files can mean.

    Who renames images renames their XML files with them, and not what is written in these: so the own name counts.
    """

    def __init__(self, home: Path) -> None:
        self.folders = [f for f in (*(home / n for n in _IMAGE_FOLDERS), home) if f.is_dir()]
        self._disk = Folders()
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def own(self, filename: str, xml: Path, below: Path) -> str | None:
        """Return the path of the image of an XML file's own name, or None where it is not there.

        Args:
            filename: What the file says; it decides between several endings.
            xml: The file.
            below: Its folder below that of all XML files.
        """
        own = [name for f in self._folders(below) for name in self._named(f).get(composed(xml.stem), ())]
        return next((name for name in own if os.path.basename(name) == filename), own[0] if own else None)

    def said(self, filename: str, below: Path) -> str | None:
        """Return the path of the image that an XML file says, or None where it is not there."""
        suffix = os.path.splitext(filename)[1].lower()
        if suffix not in SUFFIXES and suffix != ".npy":
            return None
        return next((p for f in self._folders(below) if (p := self._disk.find(f / filename)) is not None), None)

    def _folders(self, below: Path) -> list[Path]:
        return [f / below for f in self.folders] + (self.folders if below.parts else [])

    def _named(self, folder: Path) -> dict[str, list[str]]:
        """Return the images of a folder by their names without endings."""
        if folder not in self._stems:
            found = self._stems[folder] = {}
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                stem, suffix = os.path.splitext(name)
                if (suffix.lower() in SUFFIXES or suffix.lower() == ".npy") and not name.startswith("."):
                    found.setdefault(composed(stem), []).append(str(folder / name))
        return self._stems[folder]


def _find(root: Path) -> dict[str, Part[BoxDataset]] | None:
    places = voc_splits(root) if root.is_dir() else {}
    parts = {n: Part[BoxDataset](told_place(f, root), partial(VocDataset, root, n or None)) for n, f in places.items()}
    return parts or None


def _read_splits(parts: Mapping[str, Part[BoxDataset]], request: Request) -> DataSplits[BoxDataset]:
    if request.options.get("masks"):
        raise UsageError(f"{request.root}: Pascal VOC has no masks; give COCO JSON, or leave masks out")
    return read_boxes(FORMAT.name, parts, request)


FORMAT = Format[BoxDataset](
    "Pascal VOC",
    "Pascal VOC (Annotations/*.xml with JPEGImages/)",
    _find,
    _read_splits,
    frozenset({"boxes", "names"}),
)
"""XML files with lists of the splits."""
