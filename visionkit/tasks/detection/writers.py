"""Detections in other tools' formats: COCO's results and YOLO's text files."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from torch import Tensor

from visionkit.core.errors import DataError
from visionkit.core.files import write_text
from visionkit.core.sample import ImageInfo
from visionkit.core.text import printable
from visionkit.data.labels.coco_json import coco_ids
from visionkit.data.labels.names import composed, last_part, spellings
from visionkit.prediction.writers import CROPS, WriterFactory, WriterJob, files_beside
from visionkit.tasks.detection.crops import CropWriter

__all__ = ["BOX_WRITERS", "INSTANCE_WRITERS", "CocoMaskWriter", "CocoWriter", "YoloWriter"]


class Boxes(Protocol):
    """What is read of a prediction: N boxes, xyxy in pixels of the original, with scores and class ids."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class CocoWriter:
    """Writes ``predictions.coco.json``: a list of ``{image_id, category_id, bbox: [x, y, width, height], score}``.

    With an annotation file, the ids are that file's: of the image whose file name ends the picture's path (the longest
    such end counts; where no name fits whole, that which ends most like it), and of the category with the class's name.
    Without one, images and categories are numbered from 1 on in their order, and ``predictions.coco_images.json`` says
    which they are.

    Args:
        job: What is to be written where.

    Raises:
        DataError: The annotation file cannot be used, lacks a picture or class, or leaves open which one is meant.
    """

    def __init__(self, job: WriterJob) -> None:
        self.names = job.names
        self.results = job.out / "predictions.coco.json"
        self.legend = job.out / "predictions.coco_images.json" if job.annotations is None else None
        self.outputs: tuple[Path, ...] = (self.results,) if self.legend is None else (self.results, self.legend)
        if job.annotations is None:
            self.image_ids: dict[str, Any] = {name: i for i, name in enumerate(dict.fromkeys(job.images), start=1)}
            self.category_ids: list[Any] = list(range(1, len(job.names) + 1))
        else:
            images, categories = coco_ids(job.annotations)
            self.image_ids = _find_images(job.images, images, job.annotations)
            self.category_ids = _find_categories(job.names, categories, job.annotations)
        self._objects: list[str] = []
        self._images: list[dict[str, Any]] = []

    def add(self, info: ImageInfo, prediction: Boxes) -> None:
        """Take the objects of a picture."""
        image = self.image_ids[info.id]
        self._images.append({"id": image, "file_name": info.id, "width": info.size[1], "height": info.size[0]})
        columns = (prediction.labels.tolist(), prediction.scores.tolist(), prediction.boxes.tolist())
        more = self.more(prediction)
        for label, score, (x1, y1, x2, y2), facts in zip(*columns, more, strict=True):
            found = {"image_id": image, "category_id": self.category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            self._objects.append(json.dumps({**found, "score": score, **facts}))

    def more(self, prediction: Any) -> list[dict[str, Any]]:
        """Return what else is written of each object of a prediction."""
        return [{} for _ in range(len(prediction))]

    def finish(self) -> None:
        """Write the files."""
        write_text(self.results, "[" + ",\n".join(self._objects) + "]\n")
        if self.legend is not None:
            categories = [{"id": i, "name": n} for i, n in zip(self.category_ids, self.names, strict=True)]
            legend = {"images": self._images, "categories": categories}
            write_text(self.legend, json.dumps(legend, ensure_ascii=False, indent=1) + "\n")


class CocoMaskWriter(CocoWriter):
    """Writes the same with ``segmentation: {"size": [H, W], "counts": text}`` in each object.

    COCO's evaluation of masks takes an object's area, by which it sorts unmatched ones into small, medium and large,
    from ``bbox`` where there is one; for numbers by size, drop ``bbox`` first, as Detectron2 does.
    """

    def more(self, prediction: Any) -> list[dict[str, Any]]:
        """Return the masks."""
        return [{"segmentation": {**r, "counts": r["counts"].decode("ascii")}} for r in prediction.rles()]


class YoloWriter:
    """Writes ``labels/<picture>.txt``, a line an object: ``class x y width height confidence``.

    ``class`` is a number from 0 on, a line of ``labels/classes.txt``; x and y are the centre; all lengths are shares of
    the picture's width or height. A picture without objects gets an empty file.

    The files lie as the pictures do, see ``prediction.writers.files_beside``: ``a/1.jpg`` and ``b/1.jpg`` become
    ``labels/a/1.txt`` and ``labels/b/1.txt``.

    Args:
        job: What is to be written where.
    """

    def __init__(self, job: WriterJob) -> None:
        self.names = job.names
        self.folder = job.out / "labels"
        self.outputs: tuple[Path, ...] = (self.folder,)
        self.files = files_beside(job.images, ".txt", reserved=["classes"])

    def file_of(self, image: str) -> Path:
        """Return the file of a picture."""
        return self.folder / self.files[image]

    def add(self, info: ImageInfo, prediction: Boxes) -> None:
        """Write the file of a picture."""
        height, width = info.size
        lines = []
        for label, score, (x1, y1, x2, y2) in zip(
            prediction.labels.tolist(), prediction.scores.tolist(), prediction.boxes.tolist(), strict=True
        ):
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in shares) + "\n")
        write_text(self.file_of(info.id), "".join(lines))

    def finish(self) -> None:
        """Write the class names."""
        write_text(self.folder / "classes.txt", "".join(f"{printable(name)}\n" for name in self.names))


BOX_WRITERS: Mapping[str, WriterFactory] = {"coco": CocoWriter, "yolo": YoloWriter, CROPS: CropWriter}
"""The formats of boxes."""
INSTANCE_WRITERS: Mapping[str, WriterFactory] = {"coco": CocoMaskWriter, "yolo": YoloWriter, CROPS: CropWriter}
"""The formats of boxes with masks."""

# ---- COCO's ids


def _find_images(pictures: Sequence[str], images: Sequence[tuple[str, Any]], path: Path) -> dict[str, Any]:
    by_name: dict[str, list[tuple[PurePosixPath, Any]]] = defaultdict(list)
    for name, number in images:
        path_of = PurePosixPath(composed(spellings(name)[-1].replace("\\", "/")))
        last = composed(last_part(name))
        by_name[last].append((path_of if path_of.name == last else PurePosixPath(last), number))
    flat = not any(_as_written(_whole(p), name) for p in pictures for name, _ in by_name[_whole(p).name])
    found: dict[str, Any] = {}
    taken: dict[Any, str] = {}
    for picture in dict.fromkeys(pictures):
        whole = _whole(picture)
        known = [(_common_end(whole, name), number) for name, number in by_name[whole.name]]
        longest = max((length for length, _ in known), default=0)
        best = [number for length, number in known if length == longest]
        if not best or not (flat or any(_as_written(whole, name) for name, _ in by_name[whole.name])):
            near = f"; {by_name[whole.name][0][0]} is in another folder" if by_name[whole.name] else ""
            raise DataError(f"{picture}: {path} has no image of this name{near}")
        if len(best) > 1:
            raise DataError(f"{picture}: {path} has {len(best)} images that it may be, of ids {best}")
        if best[0] in taken:
            raise DataError(f"{picture}: {path} has one image for it and {taken[best[0]]}, of id {best[0]}")
        found[picture] = best[0]
        taken[best[0]] = picture
    return found


def _whole(picture: str) -> PurePosixPath:
    return PurePosixPath(composed(Path(os.path.abspath(picture)).as_posix()))


def _as_written(picture: PurePosixPath, name: PurePosixPath) -> bool:
    """Return whether a picture lies in the folders that a name holds, or the name holds none."""
    return _common_end(picture, name) == len(name.parts)


def _common_end(a: PurePosixPath, b: PurePosixPath) -> int:
    """Return how many parts two paths have in common at their ends."""
    count = 0
    for one, other in zip(reversed(a.parts), reversed(b.parts), strict=False):
        if one != other:
            break
        count += 1
    return count


def _find_categories(names: Sequence[str], categories: Sequence[tuple[str, Any]], path: Path) -> list[Any]:
    count = Counter(name for name, _ in categories)
    for name in names:
        if count[name] != 1:
            raise DataError(f"{path}: {count[name] or 'no'} categories named {name!r}, which is a class of the model")
    ids = dict(categories)
    return [ids[name] for name in names]
