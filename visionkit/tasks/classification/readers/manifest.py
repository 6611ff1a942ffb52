"""A CSV or JSONL file that lists images with their classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Request, make_splits, require_train
from visionkit.data.labels.classes import check_class_names, check_classes, unknown_class
from visionkit.data.labels.faults import attempt, fault, fault_each
from visionkit.data.labels.manifest import MANIFEST_COLUMNS, MANIFEST_SUFFIXES, ManifestRow, read_rows
from visionkit.data.labels.names import Folders, spellings
from visionkit.data.split import SPLIT_WORDS
from visionkit.tasks.classification.readers.folder import split_folders
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry, need_two_classes, unknown_to_train

__all__ = ["FORMAT", "ManifestDataset", "looks_like_manifest"]

_SPLITS = {word: name for name, words in SPLIT_WORDS.items() for word in words}


class ManifestDataset(ClassDataset):
    """Images listed in a CSV file (with a header; comma, semicolon or tab) or a JSONL file (an object a line).

    Columns: ``path`` (absolute, or relative to the manifest's folder), ``label`` (one class) or ``labels`` (several: in
    CSV separated by ``|``, in JSONL a list; empty for none), optional ``split`` (train, val or test) and ``group``
    (camera, patient, video, ...: never on both sides of a split). All further columns come back with the predictions.
    A line that repeats another one's path, labels and split is taken once.

    Args:
        file: The manifest, ``.csv`` or ``.jsonl``.
        split: ``train``, ``val`` or ``test`` for its entries alone; None for all entries.
        classes: Class names in order; None takes all names in the manifest (of whichever split), sorted.
        channels: 3 for RGB, 1 for gray, another number for multi-band TIFF or ``.npy`` files.
        multilabel: Whether an image can have several classes or none; None says so where the column is ``labels``.

    Raises:
        DataError: The manifest or a line of it is wrong, with file and line; or image files are missing.
        UsageError: The manifest has no such split.
    """

    splits: tuple[str, ...]
    """The splits that the manifest names, out of train, val and test; empty without a split column."""

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        split: str | None = None,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        multilabel: bool | None = None,
    ) -> None:
        path = Path(file)
        rows = list(read_rows(path))
        if not rows:
            raise DataError(f"{path}: lists no images; add a line for each image")
        columns = {name for row in rows for name in row.cells}
        several = _label_column(path, columns) == "labels"
        multilabel = several if multilabel is None else multilabel
        labelled = [(row, attempt("label-syntax", _labels, row, multilabel)) for row in rows]
        rows, names = [r for r, ns in labelled if ns is not None], [ns for _, ns in labelled if ns is not None]
        _refuse_joined(rows, names)
        known = sorted({n for ns in names for n in ns}) if classes is None else check_classes(classes)
        if not known:
            raise DataError(f"{path}: no image has a class; fill the column {'labels' if several else 'label'}")
        if classes is None and not multilabel:
            need_two_classes(known, str(path))
        ids = {name: i for i, name in enumerate(known)}
        disk = Folders()
        entries: dict[str, Entry] = {}
        first: dict[str, str] = {}
        missing: list[str] = []
        for row, ns in zip(rows, names, strict=True):
            if strange := [n for n in ns if n not in ids]:
                fault("class-unknown", f"{row.where}: {unknown_class(strange[0], known)}")
                continue
            labels = tuple(sorted({ids[n] for n in ns}))
            entry = attempt("label-syntax", _entry, row, labels, path.parent, "split" in columns, disk)
            if entry is None:
                continue
            other = entries.setdefault(entry.id, entry)
            if other is entry:
                first[entry.id] = row.where
                if not os.path.isfile(entry.id):
                    missing.append(f"{row.where}: {entry.id}")
            elif other.labels != entry.labels:
                cure = "keep one of the lines, or put several classes into one `labels` cell, separated by |"
                fault("image-twice", f"{row.where}: {entry.key} has other labels than in {first[entry.id]}; {cure}")
            elif other.split != entry.split:
                what = f"{entry.key} is in split {entry.split}, in {first[entry.id]} in {other.split}"
                fault("leak-exact", f"{row.where}: {what}; keep one of the lines")
        _refuse_missing(path, missing)
        _refuse_partial_groups(path, entries.values())
        found = {e.split for e in entries.values()}
        self.splits = tuple(s for s in ("train", "val", "test") if s in found)
        super().__init__(list(entries.values()), known, multilabel=multilabel, channels=channels)
        self.file = path
        if split is not None:
            wanted = _SPLITS.get(split)
            if wanted not in self.splits:
                has = f"its splits are {', '.join(self.splits)}" if self.splits else "it has no split column"
                raise UsageError(f"{path}: no split {split!r}; {has}")
            self._hold([e for e in self.entries if e.split == wanted])


def looks_like_manifest(path: Path) -> bool:
    """Return whether a file's columns are those of a manifest."""
    try:
        row = next(read_rows(path), None)
    except DataError:
        return False
    return row is not None and "path" in row.cells and ("label" in row.cells or "labels" in row.cells)


def _label_column(path: Path, columns: set[str]) -> str:
    found = [c for c in ("label", "labels") if c in columns]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path}: has both columns 'label' and 'labels'; keep one")
    listed = ", ".join(sorted(columns))
    raise DataError(f"{path}: no column 'label' or 'labels' among {listed}; add one with the class of each image")


def _labels(row: ManifestRow, multilabel: bool) -> list[str]:
    value = row.cells.get("labels", row.cells.get("label"))
    if isinstance(value, str) and (multilabel or "labels" in row.cells):
        value = value.split("|")
    values = value if isinstance(value, list) else [value]
    for v in values:
        if not (v is None or isinstance(v, str | int)) or isinstance(v, bool):
            raise DataError(f"{row.where}: label {v!r} is no text; write the name of a class")
    names = [n for n in ("" if v is None else str(v).strip() for v in values) if n]
    check_class_names(names, row.where)
    if not multilabel and len(names) != 1:
        what = f"{len(names)} labels ({', '.join(names)})" if names else "no label"
        raise DataError(
            f"{row.where}: {what} for {row.cells['path']!r}; write one class, or set multilabel for several or none"
        )
    return names


def _refuse_joined(rows: Sequence[ManifestRow], names: Sequence[Sequence[str]]) -> None:
    """Refuse a label that is several of the others in one text, such as ``cat,dog`` beside ``cat`` and ``dog``."""
    known = {n for ns in names for n in ns}
    joined = {n for n in known if len(parts := re.split("[|,;]", n)) > 1 and {p.strip() for p in parts} <= known}
    for row, ns in zip(rows if joined else (), names, strict=False):
        for n in ns:
            if n in joined:
                what = f"label {n!r} is several of the other labels in one"
                cure = "write them into a column `labels`, separated by | (in JSONL as a list)"
                fault("label-syntax", f"{row.where}: {what}; {cure}")


def _entry(row: ManifestRow, labels: tuple[int, ...], folder: Path, has_split: bool, disk: Folders) -> Entry:
    name = row.cells["path"]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{row.where}: no path; write the image's file")
    split = None
    if has_split:
        word = str(row.cells.get("split") or "").strip()
        split = _SPLITS.get(word.lower())
        if split is None:
            what = f"split {word!r} is unknown" if word else "no split"
            raise DataError(f"{row.where}: {what}; write train, val or test in each line, or remove the column")
    group = row.cells.get("group")
    extra = {k: v for k, v in row.cells.items() if k not in MANIFEST_COLUMNS}
    name = name.strip()
    whole = next((p for n in spellings(name) if (p := disk.find(folder / n)) is not None), None)
    key = Path(name).as_posix() if whole is None else Path(name.replace("\\", "/")).as_posix()
    return Entry(
        str(folder / name) if whole is None else whole,
        labels,
        key,
        str(group) if group not in (None, "") else None,
        split,
        extra,
    )


def _refuse_missing(path: Path, missing: Sequence[str]) -> None:
    total = f"{path}: {len(missing)} image files are missing; paths count from the folder {path.parent}"
    fault_each("image-missing", [f"{m}: no such file" for m in missing], total)


def _refuse_partial_groups(path: Path, entries: Sequence[Entry] | Any) -> None:
    without = [e.key for e in entries if e.group is None]
    if without and len(without) < len(entries):
        what = f"{len(without)} images have no group ({without[0]}, ...)"
        fault("label-syntax", f"{path}: {what}; give every image one, or none")


def _find(root: Path) -> Path | None:
    """Return the manifest that a root means, or None where it means folders."""
    if root.is_file():
        return root if root.suffix.lower() in MANIFEST_SUFFIXES else None
    if split_folders(root):
        return None
    candidates = sorted(f for f in root.iterdir() if f.suffix.lower() in MANIFEST_SUFFIXES and f.is_file())
    found = [f for f in candidates if not f.name.startswith(".") and looks_like_manifest(f)]
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise UsageError(f"{root}: several manifests ({names}); give one as root, with a split column for all images")
    return found[0] if found else None


def _read(file: Path, request: Request) -> DataSplits[ClassDataset]:
    classes = request.classes
    every = ManifestDataset(
        file, classes=classes, channels=request.channels, multilabel=request.options.get("multilabel")
    )
    if not every.splits:
        return DataSplits(every, None, None, f"{len(every)} images of {file}")
    parts = {s: every.subset([i for i, e in enumerate(every.entries) if e.split == s]) for s in every.splits}
    require_train(parts, request)
    if classes is None and "train" in parts:
        trained = {i for labels in parts["train"].labels for i in labels}
        for name, part in parts.items():
            unknown = sorted({every.classes[i] for labels in part.labels for i in labels if i not in trained})
            if unknown:
                known = [every.classes[i] for i in sorted(trained)]
                fault("class-unknown", unknown_to_train(file, name, unknown, known))
    _refuse_shared_groups(file, parts)
    names = ", ".join(f"{n} ({len(p)} images)" for n, p in parts.items())
    return make_splits(parts, f"{names}: the split column of {file}")


def _refuse_shared_groups(path: Path, parts: Mapping[str, ManifestDataset]) -> None:
    side: dict[str, str] = {}
    for name, part in parts.items():
        for group in part.groups or ():
            if side.setdefault(group, name) != name:
                what = f"group {group!r} is in both {side[group]} and {name}, so the score would flatter"
                cure = "keep each group on one side, or remove the split column for an automatic split"
                fault("leak-group", f"{path}: {what}; {cure}")


FORMAT = Format[ClassDataset](
    "manifest",
    "a manifest (a .csv or .jsonl file with the columns path and label or labels)",
    _find,
    _read,
    frozenset({"class", "classes", "names", "groups"}),
)
"""A table of images."""
