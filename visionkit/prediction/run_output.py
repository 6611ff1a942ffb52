"""Results of one run: records as they come, then table, further formats and pictures, each whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import NO_HANDLES, NO_ROOM, remove_left_over, replacing, unwritable
from visionkit.core.output import mark_output
from visionkit.core.prediction import Prediction
from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.tally import Tally
from visionkit.core.thresholds import Thresholds
from visionkit.models.head import Head
from visionkit.prediction.resuming import ASKED, SEEN
from visionkit.prediction.writers import Table, Writer, WriterJob, finder_of, flatten, open_table, safe_name

__all__ = ["Results", "outputs_of", "refuse_existing", "refuse_unwritable"]

RECORDS, TABLE, PICTURES = "predictions.jsonl", "predictions.csv", "images"
SHOWN = 3
"""Pictures whose predictions are said in words."""
_OF_THE_DISK = (*NO_ROOM, *NO_HANDLES, errno.EROFS, errno.EIO)  # no picture's fault


@dataclass
class Results:
    """Where the predictions of one run go.

    Args:
        out: Folder for the results.
        head: The model's, which says how its predictions are written.
        names: Class names, in the order of their ids.
        min_score: Leave out objects with a lower score; None keeps all.
        thresholds: Leave out what does not reach its class's; None keeps all.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        writers: Of the formats that are written beside records and table.
    """

    out: Path
    head: Head
    names: Sequence[str]
    min_score: float | None = None
    thresholds: Thresholds | None = None
    save_images: bool = False
    writers: list[Writer] = field(default_factory=list)
    count: int = 0
    """Predictions that were written."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """What all of them say in numbers, by what is counted."""
    first: list[tuple[str, str]] = field(default_factory=list)
    """The first pictures, each with its prediction in a few words."""

    @property
    def records(self) -> Path:
        """The JSONL file."""
        return self.out / RECORDS

    def open_writers(
        self, formats: Sequence[str], job: WriterJob, *, overwrite: bool, further: Sequence[Writer] = ()
    ) -> None:
        """Make the writer of each format: those that such predictions are always written in, and those asked for.

        Args:
            formats: Names of those asked for.
            job: What their writers know.
            overwrite: Whether they may replace results.
            further: Writers that are made already.

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
        self.writers += further
        refuse_existing(self.out, [p for writer in self.writers for p in writer.outputs], overwrite)

    def written(self) -> list[Path]:
        """Return the files and folders that stand beside the records, once all is written."""
        outputs = [
            *outputs_of(self.out, save_images=self.save_images)[1:],
            *(p for w in self.writers for p in w.outputs),
        ]
        return [path for path in outputs if path.exists()]

    def count_record(self, record: Mapping[str, Any]) -> None:
        """Take what a record says, without what the picture brought along, into the numbers."""
        try:
            found = self._tally(record)
        except (LookupError, TypeError, AttributeError, DataError):  # of a record that another version wrote
            found = {}
        self.count += 1
        for what, tally in found.items():
            self.tallies[what] = self.tallies[what] + tally if what in self.tallies else tally
        if len(self.first) < SHOWN and found:
            said = "; ".join(f"{k}: {t.said}" if len(found) > 1 else t.said for k, t in found.items())
            self.first.append((str(record["image"]), said))

    def _tally(self, record: Mapping[str, Any]) -> dict[str, Tally]:
        if self.thresholds is None or not self.thresholds.values.keys() >= set(self.names):
            return self.head.tally(record, self.min_score)
        found = self.head.tally(record, 0.0)  # all of it: the rest has been left out
        return {k: replace(t, which="by the thresholds") if t.which else t for k, t in found.items()}

    @property
    def keeps_pixels(self) -> bool:
        """Whether pictures are wanted with all their pixels."""
        return self.save_images or any(getattr(w, "wants_pixels", False) for w in self.writers)

    @property
    def files_of_pictures(self) -> bool:
        """Whether a format has a file for each picture."""
        return any(finder_of(writer) is not None for writer in self.writers)

    def remove(self, number: int, image: str) -> None:
        """Remove the files that were made of a picture alone.

        Args:
            number: The picture's place among all.
            image: Its path.
        """
        own = [path for find in map(finder_of, self.writers) if find is not None for path in find(image)]
        for path in (*own, _drawn(self.out / PICTURES, image, number)):
            path.unlink(missing_ok=True)

    @contextmanager
    def opened(
        self, extra: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None = None
    ) -> Iterator[_Open]:
        """Yield what takes the predictions: each record is written as it comes, the other files when the block ends.

        Args:
            extra: Further columns of each picture.
            before: Records that are there, to go on behind them; None starts anew.

        Raises:
            DataError: A file cannot be written.
            UsageError: The formats cannot be told from the records that are there.
        """
        columns = [*(key for one in extra for key in flatten(one)), "image", *self.head.columns]
        self._mark()
        self._clean()
        if before is None:
            (self.out / TABLE).unlink(missing_ok=True)  # it would be that of other records
        try:
            with (
                self.records.open("w" if before is None else "a", encoding="utf-8") as file,
                open_table(self.out / TABLE, columns) as rows,
            ):
                opened = _Open(self, file, rows, frozenset(key for one in extra for key in one))
                for record in before or ():
                    opened.recall(record)
                yield opened
                for writer in self.writers:
                    writer.finish()
        except BaseException as e:
            if not self.count:
                self.records.unlink(missing_ok=True)  # nothing was done that a file should stand for
            if isinstance(e, OSError):
                raise unwritable(self.out, e) from e
            raise

    def _clean(self) -> None:
        """Remove what a process that was killed has left half written."""
        whole = [path for writer in self.writers for path in writer.outputs]
        for path in (self.records, self.out / TABLE, self.out / ASKED, self.out / SEEN, *whole):
            remove_left_over(path.parent, path.name)
        for folder in (self.out / PICTURES, *(path for path in whole if path.is_dir())):
            for place, _, names in os.walk(folder):
                remove_left_over(Path(place), *{f"*{Path(name).suffix}" for name in names if name.startswith(".")})

    def _mark(self) -> None:
        """Mark what is written as output, so that it never becomes data."""
        outputs = [p for writer in self.writers for p in writer.outputs]
        own = {p.relative_to(self.out).parts[0] for p in (*outputs, *outputs_of(self.out, save_images=True))}
        try:
            if not mark_output(self.out, own=own):
                folders = [p for p in outputs if not p.suffix] + ([self.out / PICTURES] if self.save_images else [])
                for folder in folders:
                    mark_output(folder)
        except OSError as e:
            raise unwritable(self.out, e) from e


@dataclass(frozen=True)
class _Open:
    """The files while they are written."""

    results: Results
    file: TextIO
    rows: Table
    further: frozenset[str]  # columns that pictures bring along

    def add(self, sample: Sample[Any], prediction: Prediction, number: int) -> None:
        """Write the prediction of a picture.

        Args:
            sample: The picture, with its pixels where pictures are saved.
            prediction: In pixels of the original.
            number: The picture's place among all.

        Raises:
            DataError: Something of it cannot be written, drawn or put into words; nothing is recorded then.
        """
        results, names, info = self.results, self.results.names, sample.info
        try:
            if results.min_score is not None:
                prediction = prediction.at_least(results.min_score)
            if results.thresholds is not None:
                prediction = prediction.over(results.thresholds.values, names)
            first = {**info.extra, "image": info.id}
            record = {**first, **prediction.record(names)}
            line = json.dumps(record, ensure_ascii=False) + "\n"
            line.encode("utf-8")
            rows = [{**first, **row} for row in prediction.rows(names)]
            if results.save_images:
                _save_image(info, prediction.draw(_rgb(sample.image), names), results.out / PICTURES, number)
            for writer in results.writers:
                image = (sample.image,) if getattr(writer, "wants_pixels", False) else ()
                writer.add(info, prediction, *image)
        except UnicodeEncodeError:
            raise DataError(f"{info.id}: its name is no UTF-8, as records must be; rename it") from None
        except Exception as e:  # whatever it is, it is this picture's: the others are predicted
            cause = e if isinstance(e, OSError) else e.__cause__
            if isinstance(cause, OSError) and cause.errno in _OF_THE_DISK:
                raise cause from None
            why = str(e) if isinstance(e, VisionkitError) else f"{type(e).__name__}: {e}"
            raise DataError(f"{info.id}: its prediction cannot be written ({why})") from e
        for row in rows:
            self.rows.add(row)
        self.file.write(line)  # at last: what has a record is done
        self.file.flush()
        results.count_record(record)

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take a record that is there already into the table and the formats.

        Raises:
            DataError: It is no record of such a model.
            UsageError: A format cannot be told from it.
        """
        results, names = self.results, self.results.names
        collecting = [w for w in results.writers if finder_of(w) is None]
        extra = {k: v for k, v in record.items() if k in self.further}
        first = {**extra, "image": record["image"]}
        try:
            prediction = results.head.recall(record, names)
            rows = prediction.rows(names)
            parts = (record, *(part for part in record.values() if isinstance(part, Mapping)))  # of several heads each
            sizes = [(part["height"], part["width"]) for part in parts if part.get("height") and part.get("width")]
            info = ImageInfo(str(record["image"]), sizes[0] if sizes else (0, 0), extra=extra)
            for writer in collecting:
                writer.add(info, prediction)
        except (DataError, UsageError, AttributeError) as e:  # AttributeError: of a record that stands for a prediction
            made = ", ".join(path.name for path in (results.out / TABLE, *(p for w in collecting for p in w.outputs)))
            raise UsageError(
                f"{results.out}: --resume cannot make {made} of the records alone ({e}): predict anew with --overwrite"
            ) from e
        for row in rows:
            self.rows.add({**first, **row})
        results.count_record(record)


def outputs_of(out: Path, *, save_images: bool) -> list[Path]:
    """Return the files and folders that are written in any case."""
    return [out / RECORDS, out / TABLE, *([out / PICTURES] if save_images else [])]


def refuse_existing(out: Path, outputs: Sequence[Path], overwrite: bool) -> None:
    """Raise a UsageError where one of the results is there already and must not be replaced."""
    if not overwrite and any(p.exists() for p in outputs):
        raise UsageError(
            f"{out} already holds predictions: choose another --out, replace them with --overwrite, or go on with "
            "--resume"
        )


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written into, before any work; nothing is made."""
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            if not place.is_dir():
                raise DataError(f"{place}: is a file, not a folder; choose another --out")
            if not os.access(place, os.W_OK | os.X_OK):
                raise DataError(f"{place}: cannot be written into; choose another --out, or change its permissions")
            return


def _rgb(image: Tensor) -> Tensor:
    """Return a picture of one channel or three, uint8 [C, H, W], in three."""
    return image.expand(3, -1, -1)


def _save_image(info: ImageInfo, drawn: Tensor, folder: Path, number: int) -> None:
    from PIL import Image

    with replacing(_drawn(folder, info.id, number)) as temporary:
        Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(temporary, quality=92)


def _drawn(folder: Path, image: str, number: int) -> Path:
    """Return where a picture is drawn."""
    return folder / f"{number:05d}_{safe_name(Path(image).stem)}.jpg"
