"""Results of one run: records, table, further formats and pictures, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.files import replacing
from visionkit.core.prediction import Prediction
from visionkit.core.sample import ImageInfo, Sample
from visionkit.models.head import Head
from visionkit.prediction.writers import Table, Writer, WriterJob, flatten, open_table

__all__ = ["Results", "outputs_of", "refuse_existing"]

RECORDS, TABLE, PICTURES = "predictions.jsonl", "predictions.csv", "images"


@dataclass
class Results:
    """Where the predictions of one run go.

    Args:
        out: Folder for the results.
        head: The model's, which says how its predictions are written.
        names: Class names, in the order of their ids.
        min_score: Leave out objects with a lower score; None keeps all.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        writers: Of the formats that are written beside records and table.
    """

    out: Path
    head: Head
    names: Sequence[str]
    min_score: float | None = None
    save_images: bool = False
    writers: list[Writer] = field(default_factory=list)
    count: int = 0
    """Predictions that were written."""

    @property
    def records(self) -> Path:
        """The JSONL file."""
        return self.out / RECORDS

    def open_writers(self, formats: Sequence[str], job: WriterJob, *, overwrite: bool) -> None:
        """Make the writer of each format: those that such predictions are always written in, and those asked for.

        Args:
            formats: Names of those asked for.
            job: What their writers know.
            overwrite: Whether they may replace results.

        Raises:
            UsageError: The predictions have no such format, or its results are there already.
            DataError: A format cannot do the job.
        """
        offered = self.head.writers
        for name in formats:
            if name not in offered:
                known = f"offer {', '.join(offered)}" if offered else "offer no further formats"
                raise UsageError(f"--format {name}: this model's predictions {known}")
        self.writers = [offered[name](job) for name in dict.fromkeys([*self.head.standard, *formats])]
        refuse_existing(self.out, [p for writer in self.writers for p in writer.outputs], overwrite)

    @contextmanager
    def opened(self, extra: Sequence[Mapping[str, Any]]) -> Iterator[_Open]:
        """Yield what takes the predictions; the files are there when the block ends well.

        Args:
            extra: Further columns of each picture.
        """
        columns = [*(key for one in extra for key in flatten(one)), "image", *self.head.columns]
        with (
            replacing(self.records) as temporary,
            temporary.open("w", encoding="utf-8") as file,
            open_table(self.out / TABLE, columns) as rows,
        ):
            yield _Open(self, file, rows)
            for writer in self.writers:
                writer.finish()


@dataclass(frozen=True)
class _Open:
    """The files while they are written."""

    results: Results
    file: TextIO
    rows: Table

    def add(self, sample: Sample[Any], prediction: Prediction, number: int) -> None:
        """Write the prediction of a picture.

        Args:
            sample: The picture, with its pixels where pictures are saved.
            prediction: In pixels of the original.
            number: The picture's place among all.
        """
        results, names, info = self.results, self.results.names, sample.info
        if results.min_score is not None:
            prediction = prediction.at_least(results.min_score)
        first = {**info.extra, "image": info.id}
        self.file.write(json.dumps({**first, **prediction.record(names)}, ensure_ascii=False) + "\n")
        for row in prediction.rows(names):
            self.rows.add({**first, **row})
        for writer in results.writers:
            writer.add(info, prediction)
        if results.save_images:
            _save_image(info, prediction.draw(_rgb(sample.image), names), results.out / PICTURES, number)
        results.count += 1


def outputs_of(out: Path, *, save_images: bool) -> list[Path]:
    """Return the files and folders that are written in any case."""
    return [out / RECORDS, out / TABLE, *([out / PICTURES] if save_images else [])]


def refuse_existing(out: Path, outputs: Sequence[Path], overwrite: bool) -> None:
    """Raise a UsageError where one of the results is there already and must not be replaced."""
    if not overwrite and any(p.exists() for p in outputs):
        raise UsageError(f"{out} already holds predictions: choose another --out, or replace them with --overwrite")


def _rgb(image: Tensor) -> Tensor:
    """Return a picture of one channel or three, uint8 [C, H, W], in three."""
    return image.expand(3, -1, -1)


def _save_image(info: ImageInfo, drawn: Tensor, folder: Path, number: int) -> None:
    from PIL import Image

    with replacing(folder / f"{number:05d}_{Path(info.id).stem}.jpg") as temporary:
        Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(temporary, quality=92)
