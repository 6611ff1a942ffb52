"""How predictions are written: a table, and what further formats are made of."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol
from urllib.parse import urlsplit

from visionkit.core.files import replacing
from visionkit.core.sample import ImageInfo
from visionkit.core.text import cell, is_printable, printable
from visionkit.core.web import is_url

__all__ = [
    "CROPS",
    "WriterFactory",
    "WriterJob",
    "Writer",
    "Table",
    "files_beside",
    "finder_of",
    "flatten",
    "open_table",
    "safe_name",
]

CROPS = "crops"
"""Name of the format that cuts objects out of their pictures."""
_MAX_NAME = 200  # bytes of a name; file systems have 255, and a temporary name is longer


@dataclass(frozen=True)
class WriterJob:
    """What the writer of a format knows before the first prediction.

    Args:
        out: Folder for the results.
        names: Class names, in the order of their ids.
        images: ``ImageInfo.id`` of all pictures, in order, those that cannot be read included.
        annotations: An annotation file whose ids the results shall have, or None.
        min_score: Objects with a lower score are left out of the predictions; None keeps all.
    """

    out: Path
    names: tuple[str, ...]
    images: tuple[str, ...]
    annotations: Path | None = None
    min_score: float | None = None


class Writer(Protocol):
    """Writes the predictions of one run in one format.

    One with a method ``file_of(image) -> Path``, or ``files_of(image)`` for several, has files for each picture, which
    are whole when that has been taken: those of before need not be taken again. One whose attribute ``wants_pixels`` is
    true is given the picture as well, ``add(info, prediction, image)``: uint8 [C, H, W], with all its pixels.
    """

    outputs: tuple[Path, ...]
    """Files and folders that it writes; none of them is touched before the first prediction."""

    def add(self, info: ImageInfo, prediction: Any) -> None:
        """Take the prediction of a picture, in pixels of the original."""
        ...

    def finish(self) -> None:
        """Write what is left, after the last picture; not called when the run is cut off."""
        ...


WriterFactory = Callable[[WriterJob], Writer]
"""Makes the writer of a format. A DataError says that the job cannot be done, before any work is."""


def finder_of(writer: Writer) -> Callable[[str], Sequence[Path]] | None:
    """Return what finds the files that a writer has for a picture alone; None where it has none."""
    several: Callable[[str], Sequence[Path]] | None = getattr(writer, "files_of", None)
    one: Callable[[str], Path] | None = getattr(writer, "file_of", None)
    return several if one is None else lambda image: (one(image),)


class Table:
    """A CSV file that is written row by row; a row with a new key widens it.

    Args:
        path: The file, made anew.
        columns: The first columns.
    """

    def __init__(self, path: Path, columns: Sequence[str] = ()) -> None:
        self._path = path
        self.columns: list[str] = []
        path.write_text("", encoding="utf-8")
        self._rewrite(columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row, flattened."""
        flat = flatten(row)
        if not flat.keys() <= set(self.columns):
            self.close()
            self._rewrite([*self.columns, *(k for k in flat if k not in self.columns)])
        self._writer.writerow(cell(flat.get(column, "")) for column in self.columns)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _rewrite(self, columns: Sequence[str]) -> None:
        """Write the rows so far under new columns, and go on behind them."""
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        self.columns = list(dict.fromkeys(columns))
        self._file = self._path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(map(cell, self.columns))
        self._writer.writerows([*row, *[""] * (len(self.columns) - len(row))] for row in rows)


@contextmanager
def open_table(path: Path, columns: Sequence[str] = ()) -> Iterator[Table]:
    """Yield a table that becomes the file ``path`` when the block ends well, and else leaves nothing."""
    with replacing(path) as temporary:
        table = Table(temporary, columns)
        try:
            yield table
        finally:
            table.close()


def flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record as a row of a table: a column for each entry of a mapping, lists joined by ``|``."""
    row: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= {f"{key}/{name}": v for name, v in value.items()}
        else:
            row[key] = "|".join(map(str, value)) if isinstance(value, list) else value
    return row


def files_beside(pictures: Sequence[str], suffix: str, *, reserved: Sequence[str] = ()) -> dict[str, PurePath]:
    """Return a file of its own for each picture, relative to their folder; no two are the same.

    The files lie as the pictures do below the folder that holds them all: ``a/1.jpg`` and ``b/1.jpg`` become
    ``a/1.txt`` and ``b/1.txt``. Where pictures of one folder differ in their suffixes alone, all of that folder keep
    theirs: ``1.jpg.txt`` and ``1.png.txt``. File systems that ignore case are thought of. Those of URLs lie beside the
    uppermost, under the last word of the URL and a hash of all of it.

    Args:
        pictures: Paths of the pictures; one that comes twice has one file.
        suffix: Suffix of the files, with its dot.
        reserved: Names without suffix that are taken in the uppermost folder.
    """
    whole = {p: os.path.abspath(p) for p in pictures if not is_url(p)}
    root = os.path.commonpath([os.path.dirname(p) for p in whole.values()] or [os.getcwd()])
    whole |= {p: os.path.join(root, _name_of_url(p)) for p in pictures if is_url(p)}
    relative = {p: PurePath(os.path.relpath(w, root)) for p, w in whole.items()}
    stems = Counter(_stem(path) for path in [*set(relative.values()), *map(PurePath, reserved)])
    crowded = {path.parent for path in relative.values() if stems[_stem(path)] > 1}
    return {
        p: PurePath(*map(safe_name, path.parent.parts), safe_name(_name(path, crowded)) + suffix)
        for p, path in relative.items()
    }


def _name_of_url(url: str) -> str:
    """Return a file name that is the URL's alone, with the suffix of a picture."""
    last = PurePath(urlsplit(url).path).name or "picture"
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in last[:100]).lstrip(".")
    return f"{PurePath(plain).stem}-{_digest(url)}.jpg"


def _name(path: PurePath, crowded: Collection[PurePath]) -> str:
    return path.name if path.parent in crowded else path.stem


def safe_name(name: str) -> str:
    """Return a name for a file that is made of another one: as it is, unless it would act on a terminal or is too long.

    What is changed ends in a hash of the name, so that two names stay two.
    """
    clean = printable(name).replace("\\", "_") if not is_printable(name) else name
    if clean == name and len(name.encode("utf-8", "surrogateescape")) <= _MAX_NAME:
        return name
    return clean.encode("utf-8", "replace")[: _MAX_NAME - 9].decode("utf-8", "ignore") + "-" + _digest(name)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def _stem(path: PurePath) -> str:
    """Return what file systems that ignore case tell files of one suffix by."""
    return str(path.with_suffix("")).casefold()
