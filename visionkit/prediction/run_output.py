"""Results of one run: records, table, further formats and pictures, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.files import replacing
from visionkit.core.sample import ImageInfo, Prediction
from visionkit.data.images.reading import read_image
from visionkit.prediction.writers import Filtered, Format, FormatJob, FormatWriter, Table, Tabular, flatten, open_table

__all__ = ["Results", "refuse_existing"]


@dataclass
class Results:
    """Where the predictions of one run go.

    Args:
        out: Folder for the results.
        names: Class names, in the order of their ids.
        kind: Class of the predictions, or None where it offers nothing.
        min_score: Leave out objects with a lower score; None keeps all.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        writers: Of the formats that are written beside records and table.
    """

    out: Path
    names: Sequence[str] = ()
    kind: type[Any] | None = None
    min_score: float | None = None
    save_images: bool = False
    writers: list[FormatWriter] = field(default_factory=list)
    count: int = 0
    """Predictions that were written."""

    @property
    def records(self) -> Path:
        """The JSONL file."""
        return self.out / "predictions.jsonl"

    @property
    def outputs(self) -> list[Path]:
        """The files and folders that are written in any case."""
        return [self.records, self.out / "predictions.csv", *([self.out / "images"] if self.save_images else [])]

    def open_writers(self, formats: Sequence[str], job: FormatJob, *, overwrite: bool) -> None:
        """Make the writer of each format: those that such predictions are always written in, and those asked for.

        Args:
            formats: Names of those asked for.
            job: What their writers know.
            overwrite: Whether they may replace results.

        Raises:
            UsageError: The predictions have no such format, or its results are there already.
            DataError: A format cannot do the job.
        """
        offered: Mapping[str, Format] = getattr(self.kind, "formats", {})
        for name in formats:
            if name not in offered:
                known = f"offer {', '.join(offered)}" if offered else "offer no further formats"
                raise UsageError(f"--format {name}: this model's predictions {known}")
        standard = getattr(self.kind, "standard", ())
        self.writers = [offered[name](job) for name in dict.fromkeys([*standard, *formats])]
        refuse_existing(self.out, [p for writer in self.writers for p in writer.outputs], overwrite)

    @contextmanager
    def opened(self, extra: Sequence[Mapping[str, Any]]) -> Iterator[_Open]:
        """Yield what takes the predictions; the files are there when the block ends well.

        Args:
            extra: Further columns of each picture.
        """
        columns = [*(key for one in extra for key in flatten(one)), "image", *getattr(self.kind, "columns", ())]
        with (
            replacing(self.records) as temporary,
            temporary.open("w", encoding="utf-8") as file,
            open_table(self.out / "predictions.csv", columns) as rows,
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

    def add(self, info: ImageInfo, prediction: Prediction, number: int) -> None:
        """Write the prediction of a picture.

        Args:
            info: Of the picture.
            prediction: In pixels of the original.
            number: The picture's place among all.
        """
        results, names = self.results, self.results.names
        if results.min_score is not None:
            assert isinstance(prediction, Filtered)
            prediction = prediction.at_least(results.min_score)
        first = {**info.extra, "image": info.id}
        record = prediction.record(names)
        self.file.write(json.dumps({**first, **record}, ensure_ascii=False) + "\n")
        for row in prediction.rows(names) if isinstance(prediction, Tabular) else [record]:
            self.rows.add({**first, **row})
        for writer in results.writers:
            writer.add(info, prediction)
        if results.save_images:
            _save_picture(info, prediction, names, results.out / "images", number)
        results.count += 1


def refuse_existing(out: Path, outputs: Sequence[Path], overwrite: bool) -> None:
    """Raise a UsageError where one of the results is there already and must not be replaced."""
    if not overwrite and any(p.exists() for p in outputs):
        raise UsageError(f"{out} already holds predictions: choose another --out, or replace them with --overwrite")


def _save_picture(info: ImageInfo, prediction: Prediction, names: Sequence[str], folder: Path, number: int) -> None:
    from PIL import Image

    pixels: Tensor = torch.from_numpy(read_image(info.id)).permute(2, 0, 1)
    drawn = prediction.draw(pixels, names).permute(1, 2, 0).numpy()
    with replacing(folder / f"{number:05d}_{Path(info.id).stem}.jpg") as temporary:
        Image.fromarray(drawn).save(temporary, quality=92)
