"""How the predictions of several heads are written: a folder for each head, with what the head itself writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from visionkit.core.prediction import Prediction
from visionkit.core.sample import ImageInfo
from visionkit.models.head import Head
from visionkit.prediction.writers import Writer, WriterFactory, WriterJob, finder_of, open_table
from visionkit.tasks.multitask.types import MultiTaskPrediction, names_of

__all__ = ["writers_of"]


def writers_of(heads: Mapping[str, Head]) -> tuple[dict[str, WriterFactory], tuple[str, ...]]:
    """Return what makes the writer of each format, as ``head/format``, and which are written without being asked for.

    Each head has its own formats and, as "table", a table.

    Args:
        heads: The heads, by name.
    """
    writers: dict[str, WriterFactory] = {}
    standard: list[str] = []
    for name, head in heads.items():
        own: dict[str, WriterFactory] = {"table": partial(TableWriter, head.columns), **head.writers}
        writers |= {f"{name}/{k}": partial(HeadWriter, name, make) for k, make in own.items()}
        standard += [f"{name}/{k}" for k in ("table", *head.standard)]
    return writers, tuple(standard)


class HeadWriter:
    """Writes one head's predictions in one format, into a folder of the head's name.

    Args:
        head: Name of the head.
        make: Makes the writer of the format.
        job: What is to be written where, for all heads.
    """

    def __init__(self, head: str, make: WriterFactory, job: WriterJob) -> None:
        self.head = head
        self.writer: Writer = make(replace(job, out=job.out / head, names=names_of(head, job.names)))
        self.outputs = self.writer.outputs
        self.files_of = finder_of(self.writer)
        self.wants_pixels = getattr(self.writer, "wants_pixels", False)

    def add(self, info: ImageInfo, prediction: MultiTaskPrediction, *image: Tensor) -> None:
        """Take the prediction of a picture, and the picture where the writer wants it."""
        self.writer.add(info, prediction.parts[self.head], *image)

    def finish(self) -> None:
        """Write what is left."""
        self.writer.finish()


class TableWriter:
    """Writes ``predictions.csv`` as for a model of this head alone.

    Args:
        columns: Keys of the rows, where the head names them.
        job: What is to be written where.
    """

    def __init__(self, columns: Sequence[str], job: WriterJob) -> None:
        self.columns = columns
        self.names: Sequence[str] = job.names
        self.path: Path = job.out / "predictions.csv"
        self.outputs: tuple[Path, ...] = (self.path,)
        self.rows: list[dict[str, Any]] = []

    def add(self, info: ImageInfo, prediction: Prediction) -> None:
        """Take the prediction of a picture."""
        self.rows += [{**info.extra, "image": info.id, **row} for row in prediction.rows(self.names)]

    def finish(self) -> None:
        """Write the table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_table(self.path, ["image", *self.columns]) as table:
            for row in self.rows:
                table.add(row)
