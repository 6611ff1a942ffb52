"""How the predictions of several heads are written: a folder for each head, with what its own predictions offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from visionkit.core.sample import ImageInfo
from visionkit.prediction.writers import Format, FormatJob, FormatWriter, Tabular, open_table
from visionkit.tasks.multitask.types import MultiTaskPrediction, names_of

__all__ = ["prediction_class"]


def prediction_class(kinds: Mapping[str, type[Any] | None]) -> type[MultiTaskPrediction]:
    """Return a class of predictions that offers, for each head, a table and the formats of its predictions.

    Args:
        kinds: Class of each head's predictions, by the name of the head.
    """
    formats: dict[str, Format] = {}
    standard: list[str] = []
    for head, kind in kinds.items():
        formats[f"{head}/table"] = partial(HeadWriter, head, TableWriter)
        standard.append(f"{head}/table")
        for name, make in getattr(kind, "formats", {}).items():
            formats[f"{head}/{name}"] = partial(HeadWriter, head, make)
        standard += [f"{head}/{name}" for name in getattr(kind, "standard", ())]
    return type("MultiTaskPrediction", (MultiTaskPrediction,), {"formats": formats, "standard": tuple(standard)})


class HeadWriter:
    """Writes one head's predictions in one format, into a folder of the head's name.

    Args:
        head: Name of the head.
        make: Makes the writer of the format.
        job: What is to be written where, for all heads.
    """

    def __init__(self, head: str, make: Format, job: FormatJob) -> None:
        self.head = head
        self.writer: FormatWriter = make(replace(job, out=job.out / head, names=names_of(head, job.names)))
        self.outputs = self.writer.outputs

    def add(self, info: ImageInfo, prediction: MultiTaskPrediction) -> None:
        """Take the prediction of a picture."""
        self.writer.add(info, prediction.parts[self.head])

    def finish(self) -> None:
        """Write what is left."""
        self.writer.finish()


class TableWriter:
    """Writes ``predictions.csv`` as for a model of this head alone.

    Args:
        job: What is to be written where.
    """

    def __init__(self, job: FormatJob) -> None:
        self.names: Sequence[str] = job.names
        self.path: Path = job.out / "predictions.csv"
        self.outputs: tuple[Path, ...] = (self.path,)
        self.columns: tuple[str, ...] = ()
        self.rows: list[dict[str, Any]] = []

    def add(self, info: ImageInfo, prediction: Any) -> None:
        """Take the prediction of a picture."""
        self.columns = getattr(prediction, "columns", ())
        rows = prediction.rows(self.names) if isinstance(prediction, Tabular) else [prediction.record(self.names)]
        self.rows += [{**info.extra, "image": info.id, **row} for row in rows]

    def finish(self) -> None:
        """Write the table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_table(self.path, ["image", *self.columns]) as table:
            for row in self.rows:
                table.add(row)
