"""Applying a model to picture files."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionkit import checkpoint
from visionkit.errors import DataError, UsageError
from visionkit.loading import loader_settings
from visionkit.model import VisionModel
from visionkit.ops.files import replacing
from visionkit.ops.machine import choose_precision, choose_workers
from visionkit.records import Filtered, Format, FormatJob, FormatWriter, Mergeable, Tabular, flatten, open_table
from visionkit.sample import Batch, ImageInfo, Prediction, Sample, collate
from visionkit.transforms.images import read_image
from visionkit.transforms.preprocessing import Preprocessing
from visionkit.views import Region, Views

__all__ = ["Picture", "PredictionRun", "predict_files", "predict_to_folder"]

Result: TypeAlias = "tuple[ImageInfo, Prediction] | DataError"
Decode: TypeAlias = Callable[[Batch[Any]], list[Prediction]]
"""Predicts a batch, each picture in its original pixels."""


@dataclass(frozen=True)
class Picture:
    """A picture file to predict.

    Args:
        path: The file, as it is named in the record.
        extra: Further columns that come back in the record.
    """

    path: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionRun:
    """What :func:`predict_to_folder` did.

    Args:
        records: The JSONL file.
        count: Records in it.
        problems: One line for each picture that could not be read.
        seconds: Wall time, loading of the checkpoint included.
    """

    records: Path
    count: int
    problems: list[str]
    seconds: float


def predict_files(
    model: VisionModel,
    pictures: Sequence[Picture],
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: str = "auto",
    views: Views | None = None,
) -> Iterator[Result]:
    """Yield info and prediction of each picture in order, in original pixels; a DataError for one that cannot be read.

    Args:
        model: In evaluation mode, on the device to use.
        pictures: The files.
        batch_size: Pictures at once; with ``views``, views of one size at once.
        num_workers: Processes that read pictures; 0 reads them in this one.
        precision: "32", "bf16", or "auto" for bf16 where the processor is fast at it.
        views: What the network sees of each picture; None shows it once, as a whole, at the model's size.

    Raises:
        UsageError: The model is in training mode, or its predictions cannot be put together from several views.
    """
    views = views if views is not None else Views()
    _check_views(model, views)
    device = model.scale.device
    model = model.to(memory_format=torch.channels_last) if device.type in ("cpu", "cuda") else model
    fast = precision == "bf16" or (precision == "auto" and choose_precision(device) == "bf16-mixed")

    def decode(batch: Batch[Any]) -> list[Prediction]:
        with torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
            predictions = model.decode(batch.images.to(device, non_blocking=True))
        return [p.restore(i) for p, i in zip(predictions, batch.infos, strict=True)]

    if views.several:
        return _predict_views(decode, model, pictures, views, batch_size, num_workers)
    (preprocessing,) = views.preprocessings(model.preprocessing)
    settings = loader_settings(num_workers, device.type == "cuda") | {"collate_fn": _collate_readable}
    return _predict_wholes(decode, DataLoader(_Pictures(pictures, preprocessing), batch_size=batch_size, **settings))


def _predict_wholes(decode: Decode, loader: DataLoader[Any]) -> Iterator[Result]:
    """Predict each picture from one view of it."""
    for batch, problems in loader:
        found: dict[int, Any] = dict(problems)
        results = [] if batch is None else list(zip(batch.infos, decode(batch), strict=True))
        rest = iter(results)
        for k in range(len(results) + len(found)):
            yield DataError(found[k]) if k in found else next(rest)


def _predict_views(
    decode: Decode,
    model: VisionModel,
    pictures: Sequence[Picture],
    views: Views,
    batch_size: int,
    num_workers: int,
) -> Iterator[Result]:
    """Predict each picture from several views of it.

    Views wait until there is a batch of one size, which may be of several pictures. All pictures have equally many
    views of each size for a window, so all sizes fill up together, and few pictures wait for their last views.
    """
    kind: Any = model.head.prediction
    settings = loader_settings(num_workers, False) | {"collate_fn": _itself}
    if num_workers:
        settings["prefetch_factor"] = 1  # pictures can be large
    line: deque[_Parts | DataError] = deque()
    waiting: dict[torch.Size, list[tuple[_Parts, int, Sample[Any]]]] = {}

    def predict(group: list[tuple[_Parts, int, Sample[Any]]]) -> None:
        predictions = decode(collate([view for _, _, view in group]))
        for (parts, number, _), prediction in zip(group, predictions, strict=True):
            parts.predictions[number] = prediction
        group.clear()

    def finished() -> Iterator[Result]:
        while line and (isinstance(line[0], DataError) or line[0].complete):
            first = line.popleft()
            yield first if isinstance(first, DataError) else (first.info, first.merged(kind))

    for item in DataLoader(_Viewed(pictures, model.preprocessing, views), batch_size=None, **settings):
        if isinstance(item, str):
            line.append(DataError(item))
        else:
            info, made = item
            parts = _Parts(info)
            line.append(parts)
            for view, region in views(made, model.preprocessing) if isinstance(made, Sample) else made:
                group = waiting.setdefault(view.image.shape, [])
                group.append((parts, len(parts.regions), view))
                parts.regions.append(region)
                if len(group) == batch_size:
                    predict(group)
                    yield from finished()
            parts.whole = True
        yield from finished()
    for group in waiting.values():
        if group:
            predict(group)
    yield from finished()


def predict_to_folder(
    ckpt: str | Path,
    pictures: Sequence[Picture],
    out: str | Path,
    *,
    batch_size: int = 32,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    save_images: bool = False,
    overwrite: bool = False,
    trust: Collection[str] = (),
    formats: Sequence[str] = (),
    annotations: str | Path | None = None,
    min_score: float | None = None,
    views: Views | None = None,
) -> PredictionRun:
    """Write ``predictions.jsonl``, one record a picture, and ``predictions.csv``, one row a picture or object.

    Args:
        ckpt: Checkpoint file.
        pictures: The files.
        out: Folder for the results.
        batch_size: Pictures at once.
        num_workers: Processes that read pictures; None chooses by the machine and the number of pictures.
        device: A torch device, or "auto" for a GPU when there is one.
        precision: As in :func:`predict_files`.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        overwrite: Whether to replace results that are there, file by file; nothing else is removed.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.
        formats: Further formats to write, of those that the model's predictions offer, beside the standard ones.
        annotations: An annotation file whose ids these formats shall use.
        min_score: Leave out objects with a lower score; None keeps all.
        views: As in :func:`predict_files`.

    Raises:
        UsageError: ``out`` holds results already, the device is not there, such pictures cannot be drawn on, or the
            model's predictions have no such format, no scores to choose by or cannot be put together from views.
        DataError: The checkpoint cannot be used, or the annotation file does not fit.
    """
    start = time.perf_counter()
    out = Path(out)
    records, table = out / "predictions.jsonl", out / "predictions.csv"
    outputs = [records, table, *([out / "images"] if save_images else [])]
    _refuse_existing(out, outputs, overwrite)  # at once; loading takes a while
    model = checkpoint.load(ckpt, trust=trust, device=_device(device))
    if save_images and model.backbone.in_channels not in (1, 3):
        raise UsageError(
            f"--save-images draws on RGB and grey pictures; this model takes {model.backbone.in_channels} channels"
        )
    kind = model.head.prediction
    if min_score is not None and not hasattr(kind, "at_least"):
        raise UsageError("--min-score: this model's predictions are not filtered by score")
    _check_views(model, views)
    names = model.classes
    job = FormatJob(out, names, tuple(p.path for p in pictures), None if annotations is None else Path(annotations))
    writers = _writers(kind, formats, job)
    _refuse_existing(out, [p for writer in writers for p in writer.outputs], overwrite)
    if num_workers is None:
        num_workers = min(choose_workers(), len(pictures) // (2 * batch_size))  # few pictures: not worth a process
    problems, count = [], 0
    with (
        replacing(records) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        open_table(table, _first_columns(kind, pictures)) as rows,
    ):
        for number, result in enumerate(
            predict_files(
                model, pictures, batch_size=batch_size, num_workers=num_workers, precision=precision, views=views
            )
        ):
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            info, prediction = result
            if min_score is not None:
                assert isinstance(prediction, Filtered)
                prediction = prediction.at_least(min_score)
            first = {**info.extra, "image": info.id}
            record = prediction.record(names)
            file.write(json.dumps({**first, **record}, ensure_ascii=False) + "\n")
            for row in prediction.rows(names) if isinstance(prediction, Tabular) else [record]:
                rows.add({**first, **row})
            for writer in writers:
                writer.add(info, prediction)
            if save_images:
                _save_picture(info, prediction, names, out / "images", number)
            count += 1
        for writer in writers:
            writer.finish()
    return PredictionRun(records, count, problems, time.perf_counter() - start)


def _refuse_existing(out: Path, outputs: Sequence[Path], overwrite: bool) -> None:
    if not overwrite and any(p.exists() for p in outputs):
        raise UsageError(f"{out} already holds predictions: choose another --out, or replace them with --overwrite")


def _writers(kind: type[Any] | None, formats: Sequence[str], job: FormatJob) -> list[FormatWriter]:
    """Return the writer of each format: those that such predictions are always written in, and those asked for."""
    offered: Mapping[str, Format] = getattr(kind, "formats", {})
    for name in formats:
        if name not in offered:
            known = f"offer {', '.join(offered)}" if offered else "offer no further formats"
            raise UsageError(f"--format {name}: this model's predictions {known}")
    return [offered[name](job) for name in dict.fromkeys([*getattr(kind, "standard", ()), *formats])]


def _first_columns(kind: type[Any] | None, pictures: Sequence[Picture]) -> list[str]:
    """Return the columns of the table that are known before any prediction."""
    return [*(key for picture in pictures for key in flatten(picture.extra)), "image", *getattr(kind, "columns", ())]


def _check_views(model: VisionModel, views: Views | None) -> None:
    """Refuse several views where their predictions cannot be put together."""
    kind = model.head.prediction
    if views is not None and views.several and not (kind is not None and issubclass(kind, Mergeable)):
        raise UsageError(
            "this model's predictions cannot be put together from several views: "
            "leave out --flip, --scales and --window"
        )


class _Pictures(Dataset[Any]):
    """Pictures at the model's size; of those that cannot be read, what is wrong with them."""

    def __init__(self, pictures: Sequence[Picture], preprocessing: Preprocessing) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        picture = self.pictures[index]
        try:
            pixels = read_image(picture.path, channels=self.preprocessing.channels)
        except DataError as e:
            return str(e)
        info = ImageInfo(picture.path, pixels.shape[:2], extra=picture.extra)
        return self.prepared(Sample(torch.from_numpy(pixels).permute(2, 0, 1), None, info))

    def prepared(self, sample: Sample[Any]) -> Any:
        return self.preprocessing(sample)


class _Viewed(_Pictures):
    """Pictures with their views; where these can be many, the picture as read, to make them from one by one."""

    def __init__(self, pictures: Sequence[Picture], preprocessing: Preprocessing, views: Views) -> None:
        super().__init__(pictures, preprocessing)
        self.views = views

    def prepared(self, sample: Sample[Any]) -> Any:
        return sample.info, (sample if self.views.window is not None else list(self.views(sample, self.preprocessing)))


@dataclass
class _Parts:
    """The predictions of a picture's views so far, by number, and the region of each."""

    info: ImageInfo
    regions: list[Region] = field(default_factory=list)
    predictions: dict[int, Any] = field(default_factory=dict)
    whole: bool = False  # all views are made

    @property
    def complete(self) -> bool:
        return self.whole and len(self.predictions) == len(self.regions)

    def merged(self, kind: type[Mergeable]) -> Any:
        parts = [self.predictions[k] for k in range(len(self.regions))]
        return parts[0] if len(parts) == 1 else kind.merge(parts, self.regions)


def _itself(item: Any) -> Any:
    return item


def _collate_readable(items: list[Sample[Any] | str]) -> tuple[Any, list[tuple[int, str]]]:
    samples = [i for i in items if isinstance(i, Sample)]
    problems = [(k, i) for k, i in enumerate(items) if isinstance(i, str)]
    return (collate(samples) if samples else None), problems


def _save_picture(info: ImageInfo, prediction: Prediction, names: Sequence[str], folder: Path, number: int) -> None:
    from PIL import Image

    pixels: Tensor = torch.from_numpy(read_image(info.id)).permute(2, 0, 1)
    drawn = prediction.draw(pixels, names).permute(1, 2, 0).numpy()
    with replacing(folder / f"{number:05d}_{Path(info.id).stem}.jpg") as temporary:
        Image.fromarray(drawn).save(temporary, quality=92)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise UsageError(f"--device {name}: not available here ({str(e).splitlines()[0]})") from e
    return torch.device(name)
