"""Applying a model to picture files."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_workers
from visionkit.core.prefetch import prefetch, prefetch_map
from visionkit.core.sample import Batch, ImageInfo, Prediction, Sample, collate
from visionkit.data.images.reading import load_image
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models import checkpoint
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName, check_backend, choose_device
from visionkit.prediction.backends.calibration import calibration_views, quantised
from visionkit.prediction.backends.convert import PredictionModel, convert
from visionkit.prediction.run_output import Results, refuse_existing
from visionkit.prediction.views import Region, Views
from visionkit.prediction.writers import FormatJob, Mergeable

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
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str = "auto",
    views: Views | None = None,
    backend: BackendName = "torch",
    calibrate: Sequence[Picture] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Generator[Result]:
    """Yield info and prediction of each picture in order, in original pixels; a DataError for one that cannot be read.

    Args:
        model: In evaluation mode, on the device to use; what ``convert`` made is used as it is.
        pictures: The files.
        batch_size: Pictures at once; with ``views``, views of one size at once. None chooses by the device.
        num_workers: Threads that read pictures ahead; 0 reads them in this one.
        precision: "32", "bf16", "auto" for bf16 where the processor is fast at it, or "int8" with OpenVINO.
        views: What the network sees of each picture; None shows it once, as a whole, at the model's size.
        backend: What computes the network's outputs; see :func:`visionkit.prediction.backends.convert.convert`.
        calibrate: The pictures that "int8" learns ranges from, at most 150 of them, evenly spaced; None takes those
            that are predicted.
        tell: Is told in one line how near "int8" comes to float32; None does not compare.

    Raises:
        UsageError: The model is in training mode, its predictions cannot be put together from several views, or the
            backend cannot be used.
        DataError: None of the pictures for "int8" can be read.
    """
    views = views if views is not None else Views()
    _check_views(model, views)
    if calibrate is not None and (precision != "int8" or isinstance(model, PredictionModel)):
        raise UsageError("--calibrate names pictures for --precision int8: add that, or leave it out")
    if isinstance(model, PredictionModel):
        fast = model
    elif precision == "int8":
        check_backend(backend, model.scale.device, precision)
        seen = calibration_views(
            pictures if calibrate is None else calibrate, partial(_views_of, model.preprocessing, views)
        )
        fast = quantised(model, seen, tell)
    else:
        fast = convert(model, backend, precision=precision)
    device = fast.scale.device
    if batch_size is None:
        batch_size = _choose_batch_size(device)
    least = 1 if views.several else min(batch_size, len(pictures))
    sizes: dict[torch.Size, int] = {}  # of a batch, by the shape of its images

    def decode(batch: Batch[Any]) -> list[Prediction]:
        if device.type == "cuda":
            batch = batch.pin_memory()
        images = batch.images.to(device, non_blocking=True)
        if fast.fixed:  # one size for each shape: fill up
            shape = images.shape[1:]
            sizes[shape] = max(sizes.get(shape, least), len(images))
            images = torch.cat([images, images.new_zeros((sizes[shape] - len(images), *shape))])
        predictions = fast.decode(images)[: len(batch)]
        return [p.restore(i) for p, i in zip(predictions, batch.infos, strict=True)]

    if views.several:
        return _predict_views(decode, model, pictures, views, batch_size, num_workers)
    (preprocessing,) = views.preprocessings(model.preprocessing)

    def read(picture: Picture) -> Sample[Any] | str:
        sample = _read(picture, preprocessing, reduced=True)
        return sample if isinstance(sample, str) else preprocessing(sample)

    depth = 2 * (batch_size + num_workers)
    return _predict_wholes(decode, prefetch_map(read, pictures, threads=num_workers, depth=depth), batch_size)


def _predict_wholes(decode: Decode, samples: Iterable[Sample[Any] | str], batch_size: int) -> Generator[Result]:
    """Predict each picture from one view of it."""
    for items in _batches(samples, batch_size):
        readable = [item for item in items if isinstance(item, Sample)]
        predictions = iter(decode(collate(readable)) if readable else [])
        for item in items:
            yield (item.info, next(predictions)) if isinstance(item, Sample) else DataError(item)


def _predict_views(
    decode: Decode,
    model: VisionModel,
    pictures: Sequence[Picture],
    views: Views,
    batch_size: int,
    num_workers: int,
) -> Generator[Result]:
    """Predict each picture from several views of it.

    Views wait until there is a batch of one size, which may be of several pictures. All pictures have equally many
    views of each size for a window, so all sizes fill up together, and few pictures wait for their last views.
    """
    kind: Any = model.head.prediction
    line: deque[_Parts | DataError] = deque()
    waiting: dict[torch.Size, list[tuple[_Parts, int, Sample[Any]]]] = {}

    def read(picture: Picture) -> tuple[Sample[Any], list[tuple[Sample[Any], Region]] | None] | str:
        sample = _read(picture, model.preprocessing, reduced=False)  # views are made from all pixels
        if isinstance(sample, str):
            return sample
        few = views.window is None  # windows can be many: they are made one by one
        return sample, (list(views(sample, model.preprocessing)) if few else None)

    def predict(group: list[tuple[_Parts, int, Sample[Any]]]) -> None:
        predictions = decode(collate([view for _, _, view in group]))
        for (parts, number, _), prediction in zip(group, predictions, strict=True):
            parts.predictions[number] = prediction
        group.clear()

    def finished() -> Iterator[Result]:
        while line and (isinstance(line[0], DataError) or line[0].complete):
            first = line.popleft()
            yield first if isinstance(first, DataError) else (first.info, first.merged(kind))

    for item in prefetch_map(read, pictures, threads=num_workers, depth=max(1, num_workers)):  # pictures can be large
        if isinstance(item, str):
            line.append(DataError(item))
        else:
            sample, made = item
            parts = _Parts(sample.info)
            line.append(parts)
            for view, region in views(sample, model.preprocessing) if made is None else made:
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
    batch_size: int | None = None,
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
    backend: BackendName = "torch",
    calibrate: Sequence[Picture] | None = None,
    tell: Callable[[str], None] | None = None,
) -> PredictionRun:
    """Write ``predictions.jsonl``, one record a picture, and ``predictions.csv``, one row a picture or object.

    Pictures are read and results written while the network computes.

    Args:
        ckpt: Checkpoint file.
        pictures: The files.
        out: Folder for the results.
        batch_size: Pictures at once; None chooses by the device.
        num_workers: Threads that read pictures; None chooses by the machine and the number of pictures.
        device: A torch device, or "auto" for a GPU when there is one that the backend can use.
        precision: As in :func:`predict_files`.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        overwrite: Whether to replace results that are there, file by file; nothing else is removed.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.
        formats: Further formats to write, of those that the model's predictions offer, beside the standard ones.
        annotations: An annotation file whose ids these formats shall use.
        min_score: Leave out objects with a lower score; None keeps all.
        views: As in :func:`predict_files`.
        backend: As in :func:`predict_files`.
        calibrate: As in :func:`predict_files`.
        tell: As in :func:`predict_files`.

    Raises:
        UsageError: ``out`` holds results already, the device or the backend is not there, such pictures cannot be drawn
            on, or the model's predictions have no such format, no scores to choose by or cannot be put together from
            views.
        DataError: The checkpoint cannot be used, or the annotation file does not fit.
    """
    start = time.perf_counter()
    results = Results(Path(out), save_images=save_images, min_score=min_score)
    refuse_existing(results.out, results.outputs, overwrite)  # at once; loading takes a while
    where = choose_device(device, backend)
    check_backend(backend, where, precision)
    model = checkpoint.load(ckpt, trust=trust, device=where)
    if save_images and model.backbone.in_channels not in (1, 3):
        raise UsageError(
            f"--save-images draws on RGB and grey pictures; this model takes {model.backbone.in_channels} channels"
        )
    results.kind, results.names = model.head.prediction, model.classes
    if min_score is not None and not hasattr(results.kind, "at_least"):
        raise UsageError("--min-score: this model's predictions are not filtered by score")
    _check_views(model, views)
    given = None if annotations is None else Path(annotations)
    job = FormatJob(results.out, model.classes, tuple(p.path for p in pictures), given)
    results.open_writers(formats, job, overwrite=overwrite)
    if num_workers is None:
        num_workers = choose_workers() if len(pictures) > 1 else 0
    if batch_size is None:
        batch_size = _choose_batch_size(where)
    found = predict_files(
        model,
        pictures,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
        views=views,
        backend=backend,
        calibrate=calibrate,
        tell=tell,
    )
    problems = []
    with results.opened([picture.extra for picture in pictures]) as files:
        for number, result in enumerate(prefetch(found, 2 * batch_size)):
            if isinstance(result, DataError):
                problems.append(str(result))
            else:
                files.add(*result, number)
    return PredictionRun(results.records, results.count, problems, time.perf_counter() - start)


def _choose_batch_size(device: torch.device) -> int:
    """Return a batch that a GPU is busy with; on a CPU small ones are as fast a picture, and stay in its caches."""
    return 32 if device.type == "cuda" else 8


def _check_views(model: VisionModel, views: Views | None) -> None:
    """Refuse several views where their predictions cannot be put together."""
    kind = model.head.prediction
    if views is not None and views.several and not (kind is not None and issubclass(kind, Mergeable)):
        raise UsageError(
            "this model's predictions cannot be put together from several views: "
            "leave out --flip, --scales and --window"
        )


def _read(picture: Picture, preprocessing: Preprocessing, *, reduced: bool) -> Sample[Any] | str:
    """Return a picture as read, or what is wrong with it.

    Args:
        picture: The file.
        preprocessing: Knows the channels, and the size to which pictures are brought.
        reduced: Whether it may be decoded at a part of its size where it is made smaller anyway.
    """
    try:
        scale = preprocessing.scale if reduced else None
        decoded = load_image(picture.path, channels=preprocessing.channels, scale=scale)
    except DataError as e:
        return str(e)
    info = ImageInfo(picture.path, decoded.size, extra=picture.extra)
    return Sample(torch.from_numpy(decoded.pixels).permute(2, 0, 1), None, info, decoded.reduced)


def _views_of(preprocessing: Preprocessing, views: Views, picture: Picture) -> list[Tensor] | str:
    """Return what the network sees of a picture, uint8 [C, H, W] each, or what is wrong with it."""
    first = views.preprocessings(preprocessing)[0]
    sample = _read(picture, first, reduced=not views.several)
    if isinstance(sample, str):
        return sample
    return [view.image for view, _ in views(sample, preprocessing)] if views.several else [first(sample).image]


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


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
