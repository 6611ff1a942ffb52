"""A CSV file of boxes: a line an object, ``path,x1,y1,x2,y2,class``, without a header."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.formats import Format, Part
from visionkit.tasks.detection.readers.box_cleaning import RawBox
from visionkit.tasks.detection.readers.parts import read_boxes
from visionkit.tasks.detection.readers.reader import BoxDataset, make_entry


class BoxCsvDataset(BoxDataset):
    """Images with boxes from a CSV file."""

    def __init__(self, file: Path, *, classes: Any = None, channels: int = 3) -> None:
        rows = list(enumerate(csv.reader(read_text(file).splitlines()), 1))
        wrong = next((n for n, row in rows if len(row) != 6), None)
        if wrong is not None:
            raise DataError(f"{file}:{wrong}: write path,x1,y1,x2,y2,class")
        names = tuple(sorted({row[5] for _, row in rows})) if classes is None else tuple(classes)
        boxes: dict[str, list[RawBox]] = {}
        for n, (path, x1, y1, x2, y2, name) in rows:
            box = (float(x1), float(y1), float(x2), float(y2))
            boxes.setdefault(path, []).append(RawBox(box, names.index(name), f"{file}:{n}"))
        home = file.parent
        entries = [make_entry(str(home / p), p, b, names, size=None, source=str(file)) for p, b in boxes.items()]
        super().__init__(entries, names, channels=channels)


def _find(root: Path) -> dict[str, Part[BoxDataset]] | None:
    file = root / "boxes.csv"
    return {"": Part(file.name, partial(BoxCsvDataset, file))} if file.is_file() else None


FORMAT = Format[BoxDataset](
    "box CSV", "CSV (boxes.csv)", _find, lambda f, r: read_boxes("CSV", f, r), frozenset({"boxes", "names"})
)
