"""YOLO: a text file an image, a line an object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_bytes
from visionkit.core.text import printable
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request
from visionkit.data.labels.checks import UnlabelledError, header_size
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.data.labels.names import composed, only_composed_stems, same_folder
from visionkit.data.split import split_word
from visionkit.tasks.detection.readers.box_cleaning import Correction, RawBox, clean, without_mask
from visionkit.tasks.detection.readers.parts import read_boxes, told_place
from visionkit.tasks.detection.readers.reader import BoxDataset, BoxEntry, present, refuse_no_masks
from visionkit.tasks.detection.readers.yolo_layout import (
    YAML_SUFFIXES,
    YoloLayout,
    find_yolo,
    list_split,
)
from visionkit.tasks.detection.readers.yolo_lines import doubt, read_lines
from visionkit.tasks.detection.readers.yolo_names import MAX_CLASSES, NAME_FILES

__all__ = ["FORMAT", "YoloDataset"]

_ROUNDING = 1e-5  # shares of the picture; files have six digits
_SURE = 1e-3  # shares of the picture; a side of this is thick enough for any size


class YoloDataset(BoxDataset):
    """Images with boxes from YOLO text files: ``class cx cy w h`` or ``class x y x y x y ...`` a line, in shares.

    Folders: a data.yaml (path, train, val, test, names, nc); or images/train/ with labels/train/; or train/images/ with
    train/labels/; or images/ with labels/; or images and label files beside each other with a classes.txt; or CVAT's
    obj.data. The labels of an image lie where the last ``images`` of its path is ``labels``, or else beside it. An
    image without a label file has no objects. Lines with polygons give their boxes, and their masks where asked for;
    lines without are ignored then: neither learnt nor counted. With ``kpt_shape`` in data.yaml, lines are
    ``class cx cy w h`` and key points, which are not read.

    Args:
        root: The folder, or its data.yaml.
        split: ``train``, ``val`` or ``test``; None for all images.
        classes: Class names in order; None takes those of data.yaml or classes.txt (obj.names, names.txt), or the
            numbers where there are none. Where there are names, they are what counts, else the numbers.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        masks: Whether to read polygons as masks.

    Raises:
        DataError: A file or a line of it is wrong, with file and line; no image has labels; or masks are asked for and
            there are none.
        UsageError: There is no such split, or ``classes`` is empty or has a name twice.
    """

    lonely: list[Path]
    """Label files that belong to no image."""
    doubt: str | None
    """What to say where lines can be meant in two ways."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        masks: bool = False,
    ) -> None:
        path = Path(root)
        if not path.exists():
            raise DataError(
                f"{path}: no such folder or file; give a data.yaml or the folder that holds images/, labels/"
            )
        layout = find_yolo(path)
        if layout is None:
            raise DataError(f"{path}: no images/ with labels/ and no data.yaml; give the folder that holds them")
        if split in layout.missing or (split is None and layout.missing and not layout.splits):
            raise DataError(layout.missing[split or next(iter(layout.missing))])
        if split is not None and split not in layout.splits:
            has = ", ".join(s for s in layout.splits if s) or "none"
            raise UsageError(f"{path}: no split {split!r}; its splits are: {has}")
        places = [p for s, ps in layout.splits.items() if split in (None, s) for p in ps]
        images = list_split(places, layout.folder, channels)
        if not images:
            raise DataError(f"{', '.join(map(str, places))}: no images; add some or correct the path")
        labels, self.lonely = _labels(images, path)
        self.bare = sum(label is None for label in labels)
        """Number of images without a label file."""
        lines = read_lines(labels, layout.points)
        self.doubt = None if layout.points else doubt(lines)
        fixed = None if classes is None else check_classes(classes)
        known = layout.names or fixed
        if known is None:
            highest = max((o.id for objects, _ in lines for o in objects), default=-1)
            known = tuple(map(str, range(min(highest + 1, MAX_CLASSES))))
        names = fixed or known
        ids = {name: i for i, name in enumerate(names)}
        entries = []
        for image, (objects, wrong) in zip(images, lines, strict=True):
            raw = []
            for o in objects:
                if o.id >= len(known):
                    raise DataError(
                        f"{o.where}: class {o.id}, but there are {len(known)} names, so 0 to {len(known) - 1}; correct "
                        "the line or the names"
                    )
                if known[o.id] not in ids:
                    raise DataError(
                        f"{o.where}: {unknown_class(known[o.id], names)}; rename the class or remove the line"
                    )
                found = RawBox(o.box, ids[known[o.id]], o.where, outline=o.outline if masks else None)
                if masks and o.outline is None:
                    found, ignored = without_mask(found, f"{o.where}: a box without a polygon has no mask")
                    wrong.append(ignored)
                raw.append(found)
            key = Path(os.path.relpath(image, layout.folder)).as_posix()
            entries.append(_entry(str(image), key, raw, names, wrong, masks))
        refuse_no_masks(entries, path)
        super().__init__(entries, names, channels=channels)
        self.root = path


def _labels(images: Sequence[Path], root: Path) -> tuple[list[Path | None], list[Path]]:
    """Return the label file of each image, and label files of no image.

    An image's lies in the folder of labels or else beside it; None where there is none. What has its name counts,
    whether it can be read or not: its reader says so.
    """
    folders: dict[Path, Path] = {}
    beside: dict[Path, dict[str, Path]] = {}
    found: list[Path | None] = []
    used: dict[Path, Path] = {}  # whose a label file is
    for image in images:
        folder = folders.get(image.parent)
        if folder is None:
            folder = folders[image.parent] = _label_folder(image.parent)
            for place in (folder, image.parent):
                if place not in beside:
                    beside[place] = _text_files(place)
        stem = composed(image.stem)
        label, other = beside[folder].get(stem), beside[image.parent].get(stem)
        if label is not None and other is not None and label != other and read_bytes(label) != read_bytes(other):
            raise DataError(f"{image}: has two label files that differ, {label} and {other}; keep the right one")
        label = label or other
        found.append(label)
        if label is not None and (owner := used.setdefault(label, image)) is not image:
            raise DataError(
                f"{image}: has the same name as {owner}, so whose objects {label} lists is not clear; rename one of "
                "them with its label file, or remove it"
            )
    lonely = [f for folder in set(folders.values()) for f in beside[folder].values() if f not in used]
    if not any(found):
        searched = sorted({str(f) for pair in folders.items() for f in pair})
        more = f" and {len(searched) - 3} more" if len(searched) > 3 else ""
        raise UnlabelledError(
            f"{root}: none of {len(images)} images has a label file; looked in {', '.join(searched[:3])}{more} "
            f"for files such as {images[0].stem}.txt"
        )
    return found, sorted(f for f in lonely if f.name not in NAME_FILES and not split_word(f.stem))


def _text_files(folder: Path) -> dict[str, Path]:
    """Return the text files of a folder by their names without ending, in Unicode's composed form."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    texts = [n for n in names if n.lower().endswith(".txt") and not n.startswith(".")]
    for name in texts:
        if not name.endswith(".txt") and (lower := f"{name[:-4]}.txt") in texts:
            raise DataError(f"{folder}: has both {lower} and {name}; keep the right one")
    return {stem: folder / f"{name}" for stem, name in only_composed_stems(texts).items()}


def _label_folder(folder: Path) -> Path:
    """Return where labels of the images of a folder lie by its name: ``labels`` for the last ``images`` of its path."""
    parts = list(folder.parts)
    last = next((i for i in range(len(parts) - 1, -1, -1) if parts[i].lower() == "images"), None)
    if last is None:
        return folder
    above = Path(*parts[:last])
    labels = same_folder(above, "labels") or above / "labels"
    return Path(labels, *parts[last + 1 :])


def _entry(
    image: str, key: str, raw: Sequence[RawBox], names: Sequence[str], wrong: Sequence[Correction], masks: bool
) -> BoxEntry:
    """Return an entry; the picture's size is looked up only where it decides what becomes of a box."""
    size = None if all(map(_is_sure, raw)) else header_size(image)
    if size is None:
        objects, corrections, outlines = clean(raw, (1, 1), names, tolerance=_ROUNDING, thinnest=0)
    else:
        pixels = [r._replace(box=_scaled(r.box, size)) for r in raw]
        objects, corrections, outlines = clean(pixels, size, names)
        outlines = tuple(o if isinstance(o, bytes) else tuple(p * size[::-1] for p in o) for o in outlines)
    return BoxEntry(
        image, key, objects, present(objects), relative=size is None, corrections=(*wrong, *corrections),
        outlines=outlines if masks else None,
    )  # fmt: skip


def _is_sure(raw: RawBox) -> bool:
    x1, y1, x2, y2 = raw.box
    inside = min(x1, y1) >= -_ROUNDING and max(x2, y2) <= 1 + _ROUNDING  # NaN is not inside
    return inside and x2 - x1 >= _SURE and y2 - y1 >= _SURE


def _scaled(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    return box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]


def _find(root: Path) -> YoloLayout | None:
    return find_yolo(root) if root.is_dir() or root.suffix.lower() in YAML_SUFFIXES else None


def _read(layout: YoloLayout, request: Request) -> DataSplits[BoxDataset]:
    for name, message in layout.missing.items():
        if name in request.need or not layout.splits:
            raise DataError(message)
    parts = {
        n: Part[BoxDataset](
            ", ".join(told_place(p, layout.folder) for p in places), partial(YoloDataset, request.place, n or None)
        )
        for n, places in layout.splits.items()
    }
    found = read_boxes(FORMAT.name, parts, request, masks=bool(request.options.get("masks")))
    parts_read = (found.train, found.val, found.test)
    read = [data for data in parts_read if isinstance(data, YoloDataset)]
    lonely = [f for data in read for f in data.lonely]
    told = [found.source, *(data.doubt for data in read if data.doubt)]
    if bare := sum(data.bare for data in read):
        told.append(f"{bare} images have no label file and so no objects")
    if lonely:
        told.append(f"{len(lonely)} label files are of no image (first: {printable(lonely[0])})")
    return DataSplits(found.train, found.val, found.test, "; ".join(told))


FORMAT = Format[BoxDataset](
    "YOLO",
    "YOLO (data.yaml, or images/ with labels/)",
    _find,
    _read,
    frozenset({"boxes", "masks", "names"}),
)
"""A text file an image; masks where its lines are polygons, names where a file has them."""
