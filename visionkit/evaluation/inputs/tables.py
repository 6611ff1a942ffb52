"""Tables of classes: a CSV or JSONL file with a line an image."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from visionkit.core.errors import DataError
from visionkit.data.labels.manifest import ManifestRow, read_rows
from visionkit.evaluation.inputs.found import MAX_BYTES, FilePredictions, check_sum, class_of, find_lacking, share_of
from visionkit.evaluation.inputs.images import DataImages
from visionkit.tasks.classification.types import ClassPrediction

__all__ = ["IMAGE_COLUMNS", "read_table_of_classes"]

IMAGE_COLUMNS = ("image", "path", "file_name", "filename", "file")
"""What the column may be called that says the file of an image."""
_SCORE_COLUMNS = ("score", "confidence", "probability", "prob")
_ROUNDED, _HAIR = 0.02, 1e-6
"""Share by which a score may lie below that of a tie, as 0.33 does of three classes, and how far a label wins then."""
_OURS = "probabilities/"  # before a class in the predictions.csv that visionkit writes


class _Columns(NamedTuple):
    """Which columns say what.

    Args:
        classes: Of the probabilities, in the order of the classes; none where labels are given.
        label: Of the label or labels, or "".
        score: Of the label's score, or "".
    """

    classes: tuple[str, ...]
    label: str
    score: str


def read_table_of_classes(
    file: Path, images: DataImages, classes: Sequence[str], *, multilabel: bool, allow_missing: bool
) -> FilePredictions:
    """Read a table of predicted classes.

    It has a column ``image`` (or ``path``, ``file_name``, ...) and either a column for each class, with its probability
    (which sum to 1 where an image has one class), or ``label`` and, if it is known, ``score``, 0..1; where an image can
    have several classes ``labels``, parted by ``|``. Classes are named as in the data.

    Of one label alone the probabilities of the others are not known: what its score leaves is shared out evenly, and
    ``unknown`` names what cannot be told so.

    Args:
        file: A .csv (comma, semicolon or tab) or .jsonl file.
        images: Those of the data.
        classes: Class names in the order of their ids.
        multilabel: Whether an image can have several classes.
        allow_missing: Whether images of which nothing is said are left out.

    Raises:
        DataError: A line is wrong, two are of one image, or a class or an image is not in the data.
    """
    rows = list(read_rows(file, IMAGE_COLUMNS, limit=MAX_BYTES))
    if not rows:
        raise DataError(f"{file}: holds no predictions; write a line for each image")
    known = {name: k for k, name in enumerate(classes)}
    first: dict[str, str] = {}
    unknown: dict[str, None] = {}
    found: list[ClassPrediction] = []
    columns: dict[tuple[str, ...], _Columns] = {}
    for row in rows:
        name = next(row.cells[c] for c in IMAGE_COLUMNS if c in row.cells)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{row.where}: names no image; write its file")
        if (before := first.setdefault(name.strip(), row.where)) != row.where:
            raise DataError(f"{row.where}: {name.strip()} has a prediction already, {before}; keep one of the lines")
        keys = tuple(row.cells)
        if keys not in columns:
            columns[keys] = _columns(keys, classes, row.where, multilabel=multilabel)
        said = columns[keys]
        if said.classes:
            found.append(_of_probabilities(row, said, classes, multilabel=multilabel))
        elif multilabel:
            unknown |= dict.fromkeys(("map", "ap/", "ece"))
            found.append(_of_labels(row, said, known))
        else:
            unknown |= dict.fromkeys(("top5",) if said.score else ("top5", "ece"))
            found.append(_of_label(row, said, known))
    matched = images.find(list(first), str(file), stems=True)
    places = dict(sorted(zip(matched.positions, found, strict=True), key=lambda pair: pair[0]))
    lacking = find_lacking(places, images, str(file), "prediction", allow_missing=allow_missing)
    remarks = [*matched.remarks, *lacking.remarks]
    if unknown:
        told = ", ".join(f"{k}<class>" if k.endswith("/") else k for k in unknown)
        remarks.append(f"{file}: labels alone do not tell {told}, which is left out; give a column for each class")
    return FilePredictions(
        f"{file}: {len(rows):,} predictions", tuple(places), places.__getitem__, lacking.ids, tuple(remarks),
        tuple(unknown),
    )  # fmt: skip


def _columns(keys: Sequence[str], classes: Sequence[str], where: str, *, multilabel: bool) -> _Columns:
    """Return which columns say what, of a row with these."""
    own = [next((c for c in (_OURS + name, name) if c in keys), "") for name in classes]
    label = next((c for c in (("labels", "label") if multilabel else ("label", "labels")) if c in keys), "")
    score = next((c for c in keys if c.lower() in _SCORE_COLUMNS), "")
    if all(own):
        return _Columns(tuple(own), label, score)
    if any(own):
        absent = classes[own.index("")]
        others = [c for c in keys if c not in own and c not in IMAGE_COLUMNS]
        near = difflib.get_close_matches(absent, others, n=1, cutoff=0.5)
        hint = f"; is it {near[0]!r}?" if near else ""
        raise DataError(f"{where}: no column for the class {absent!r} of the data beside those of others{hint}")
    if not label:
        named = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
        raise DataError(
            f"{where}: no column 'label' and none of a class among {', '.join(keys)}; write image,label or a column "
            f"for each class ({named})"
        )
    return _Columns((), label, score)


def _of_probabilities(
    row: ManifestRow, columns: _Columns, classes: Sequence[str], *, multilabel: bool
) -> ClassPrediction:
    pairs = zip(columns.classes, classes, strict=True)
    values = [share_of(row.cells[c], f"the probability of {name}", row.where) for c, name in pairs]
    if not multilabel:
        check_sum(values, row.where)
    return ClassPrediction(torch.tensor(values, dtype=torch.float32), multilabel)


def _of_label(row: ManifestRow, columns: _Columns, known: Mapping[str, int]) -> ClassPrediction:
    names = _names(row.cells[columns.label])
    if len(names) != 1:
        raise DataError(f"{row.where}: {len(names)} labels, and an image of the data has one; write one")
    label = class_of(names[0], known, row.where)
    if not columns.score:
        return ClassPrediction(torch.nn.functional.one_hot(torch.tensor(label), len(known)).float())
    score = share_of(row.cells[columns.score], "score", row.where)
    even = 1 / len(known) if len(known) > 1 else 0.0
    if score < (1 - _ROUNDED) * even:
        raise DataError(
            f"{row.where}: the score {score:.4g} cannot be that of the most probable of {len(known)} classes; leave "
            "the column out, or give one for each class"
        )
    score = max(score, even + _HAIR)  # of a tie, such as 0.5 of two classes, the label wins
    probabilities = torch.full((len(known),), (1 - score) / max(1, len(known) - 1))
    probabilities[label] = score
    return ClassPrediction(probabilities)


def _of_labels(row: ManifestRow, columns: _Columns, known: Mapping[str, int]) -> ClassPrediction:
    probabilities = torch.zeros(len(known))
    for name in _names(row.cells[columns.label]):
        probabilities[class_of(name, known, row.where)] = 1.0
    return ClassPrediction(probabilities, True)


def _names(value: Any) -> list[str]:
    values = value if isinstance(value, list) else str("" if value is None else value).split("|")
    return [name for v in values if (name := str(v).strip())]
