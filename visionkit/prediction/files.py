"""Applying a model to picture files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

import visionkit
from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_workers
from visionkit.core.prediction import Prediction
from visionkit.core.prefetch import prefetch, prefetch_map
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.images.decode import Scale
from visionkit.data.images.reading import load_image
from visionkit.models import checkpoint
from visionkit.models.model import VisionModel
from visionkit.models.run_folder import find_checkpoint
from visionkit.prediction.backends.available import BackendName, check_backend, choose_device
from visionkit.prediction.backends.calibration import spaced
from visionkit.prediction.backends.convert import PredictionModel
from visionkit.prediction.predictor import Predictor, Prepared
from visionkit.prediction.resuming import GoingOn, alone, digest, facts_of
from visionkit.prediction.run_output import RECORDS, Results, outputs_of, refuse_existing
from visionkit.prediction.views import Views
from visionkit.prediction.writers import WriterJob

__all__ = ["ImageFile", "PredictionRun", "predict_files", "predict_to_folder"]

Result: TypeAlias = "tuple[ImageInfo, Prediction] | DataError"


@dataclass(frozen=True)
class ImageFile:
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
        problems: One line for each picture that could not be predicted.
        seconds: Wall time, loading of the checkpoint included.
    """

    records: Path
    count: int
    problems: list[str]
    seconds: float


def predict_files(
    model: VisionModel,
    pictures: Sequence[ImageFile],
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str = "auto",
    views: Views | None = None,
    backend: BackendName = "torch",
    calibrate: Sequence[ImageFile] | None = None,
    tell: Callable[[str], None] | None = None,
    reduced: bool = False,
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
        reduced: Whether to decode a large JPEG at a half, a quarter or an eighth of its size, as far as that is more
            than the model's: much faster, and the last digits of scores can differ.

    Raises:
        UsageError: The model is in training mode, or the backend cannot be used; later, the predictions cannot be put
            together from several views.
        DataError: None of the pictures for "int8" can be read.
    """
    predictor = _predictor(
        model, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
    )
    found = _results(predictor, pictures, num_workers, keep=False, reduced=reduced)
    return (result if isinstance(result, DataError) else (result[0].info, result[1]) for result in found)


def _predictor(
    model: VisionModel,
    pictures: Sequence[ImageFile],
    backend: BackendName,
    precision: str,
    views: Views | None,
    *,
    batch_size: int | None,
    calibrate: Sequence[ImageFile] | None,
    tell: Callable[[str], None] | None,
) -> Predictor:
    """Make what predicts the pictures; arguments as in :func:`predict_files`."""
    made = isinstance(model, PredictionModel)
    if calibrate is not None and (precision != "int8" or made):
        raise UsageError("--calibrate names pictures for --precision int8: add that, or leave it out")
    calibration = None
    if precision == "int8" and not made:
        scale = (views or Views()).scale(model.preprocessing)
        chosen = spaced(pictures if calibrate is None else calibrate)
        calibration = (_read(picture, model.preprocessing.channels, scale) for picture in chosen)
    return Predictor(model, backend, precision, views, batch_size=batch_size, calibration=calibration, tell=tell)


def _results(
    predictor: Predictor, pictures: Sequence[ImageFile], num_workers: int, *, keep: bool, reduced: bool
) -> Generator[tuple[Sample[Any], Prediction] | DataError]:
    """Yield each picture with its prediction, in order; threads read pictures ahead.

    Args:
        predictor: What predicts them.
        pictures: The files.
        num_workers: Threads; 0 reads in this one.
        keep: Whether pictures come back with all their pixels; they then are decoded whole, and few wait.
        reduced: As in :func:`predict_files`.
    """
    scale = predictor.views.scale(predictor.preprocessing) if reduced and not keep else None

    def read(picture: ImageFile) -> Prepared | DataError:
        sample = _read(picture, predictor.preprocessing.channels, scale)
        if isinstance(sample, DataError):
            return sample
        try:
            return predictor.prepare(sample, keep=keep)
        except Exception as e:
            return DataError(f"{picture.path}: cannot be brought to the model's size ({type(e).__name__}: {e})")

    few = keep or predictor.views.several  # whole pictures can be large
    depth = max(1, num_workers) if few else 2 * (predictor.batch_size + num_workers)
    return predictor.results(prefetch_map(read, pictures, threads=num_workers, depth=depth))


def predict_to_folder(
    ckpt: str | Path,
    pictures: Sequence[ImageFile],
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
    calibrate: Sequence[ImageFile] | None = None,
    tell: Callable[[str], None] | None = None,
    reduced: bool = False,
    resume: bool = False,
) -> PredictionRun:
    """Write ``predictions.jsonl``, one record a picture, and ``predictions.csv``, one row a picture or object.

    Pictures are read and results written while the network computes. Each record is written as it comes, line by line;
    whatever is wrong with a picture costs that picture alone.

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
        tell: As in :func:`predict_files`; of a run that goes on, it is told what has changed since.
        reduced: As in :func:`predict_files`; not with ``save_images``, which needs all pixels.
        resume: Whether to go on where predictions into ``out`` stopped, with all pictures that have no record yet or
            whose file is another one now (by its bytes and its time), new ones included; records of pictures that are
            not given any more stay. Where there are none it starts.

    Raises:
        UsageError: ``out`` holds results already, or, to resume, results of another model, of other options or of
            other pictures; the device or the backend is not there, such pictures cannot be drawn on, or the model's
            predictions have no such format, no scores to choose by or cannot be put together from views.
        DataError: The checkpoint cannot be used, or the annotation file does not fit.
    """
    start = time.perf_counter()
    folder = Path(out)
    _refuse_unwritable(folder)  # at once; loading takes a while
    if resume and overwrite:
        raise UsageError("--resume keeps the predictions that are there, --overwrite replaces them: give one of them")
    refuse_existing(folder, outputs_of(folder, save_images=save_images), overwrite or resume)
    where = choose_device(device, backend)
    check_backend(backend, where, precision)
    model = checkpoint.load(ckpt, trust=trust, device=where)
    asked = {
        "version": visionkit.__version__,
        "checkpoint": digest(find_checkpoint(ckpt)),
        "--precision": precision,
        "--backend": backend,
        "views (--flip, --scales, --window, --overlap)": None if views is None else str(views),
        "--min-score": min_score,
        "--format": sorted(formats),
        "--save-images": save_images,
        "--reduced-decode": reduced,
    }
    if precision == "int8":  # nothing else depends on pictures beside the one that is predicted
        learnt = [facts_of(p.path, {}) for p in spaced(pictures if calibrate is None else calibrate)]
        asked["list of pictures to learn ranges from"] = hashlib.sha256(json.dumps(learnt).encode()).hexdigest()
    now = [facts_of(p.path, p.extra) for p in pictures]
    records = folder / RECORDS
    going = GoingOn.find(folder, records, asked, now) if resume else GoingOn.anew(folder, asked, now)
    if save_images and model.backbone.in_channels not in (1, 3):
        raise UsageError(
            f"--save-images draws on RGB and grey pictures; this model takes {model.backbone.in_channels} channels"
        )
    if min_score is not None and not model.head.scored:
        raise UsageError("--min-score: this model's predictions are not filtered by score")
    results = Results(folder, model.head, model.classes, min_score, save_images)
    given = None if annotations is None else Path(annotations)
    job = WriterJob(folder, model.classes, going.images, given)
    results.open_writers(formats, job, overwrite=overwrite or resume)
    if results.files_of_pictures:
        going.refuse_renamed()
    if num_workers is None:
        num_workers = choose_workers() if len(pictures) > 1 else 0
    predictor = _predictor(
        model, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
    )
    left = going.left()
    found = _results(predictor, [pictures[k] for k in left], num_workers, keep=save_images, reduced=reduced)
    if tell is not None:
        for line in going.lines():
            tell(line)
    problems = []
    with alone(records, None if overwrite else going.read):
        going.drop_changed(records, results.remove)
        with results.opened([picture.extra for picture in pictures], going.records or None) as files:
            going.note()
            coming = prefetch(found, 2 if save_images else 2 * predictor.batch_size)
            for place, result in zip(left, coming, strict=True):
                try:
                    if isinstance(result, DataError):
                        raise result
                    files.add(*result, going.numbers[place])
                except DataError as e:
                    problems.append(str(e))
    return PredictionRun(results.records, results.count, problems, time.perf_counter() - start)


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written into, before any work; nothing is made."""
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            if not place.is_dir():
                raise DataError(f"{place}: is a file, not a folder; choose another --out")
            if not os.access(place, os.W_OK | os.X_OK):
                raise DataError(f"{place}: cannot be written into; choose another --out, or change its permissions")
            return


def _read(picture: ImageFile, channels: int, scale: Scale | None) -> Sample[Any] | DataError:
    """Return a picture as read, or what is wrong with it.

    Args:
        picture: The file.
        channels: Of the image.
        scale: By how much it will be resized: a JPEG may be decoded at a part of its size; None reads all pixels.
    """
    try:
        decoded = load_image(picture.path, channels=channels, scale=scale)
    except DataError as e:
        return e
    except Exception as e:  # the others can be read
        return DataError(f"{picture.path}: cannot be read ({type(e).__name__}: {e}); copy it again, or remove it")
    info = ImageInfo(picture.path, decoded.size, extra=picture.extra)
    return Sample(torch.from_numpy(decoded.pixels).permute(2, 0, 1), None, info, decoded.reduced)
