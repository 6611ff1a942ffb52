"""Applying a model to picture files."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import visionkit
from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_workers
from visionkit.core.prediction import Prediction
from visionkit.core.prefetch import prefetch
from visionkit.core.sample import ImageInfo
from visionkit.core.tally import Tally
from visionkit.core.thresholds import Thresholds
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName, check_backend, choose_device
from visionkit.prediction.backends.calibration import spaced
from visionkit.prediction.ensemble import Ensemble, make_applied
from visionkit.prediction.explanations.writing import ExplanationWriter, refuse_unexplained
from visionkit.prediction.in_force import thresholds_in_force
from visionkit.prediction.members import Checkpoints, Members, listed
from visionkit.prediction.pictures import ImageFile, Remarks
from visionkit.prediction.resuming import GoingOn, alone, digest, facts_of
from visionkit.prediction.run_output import RECORDS, Results, outputs_of, refuse_existing, refuse_unwritable
from visionkit.prediction.sources import Source, find_images
from visionkit.prediction.stream import sample_results
from visionkit.prediction.views import Views
from visionkit.prediction.writers import CROPS, WriterJob

__all__ = ["FilePrediction", "ImageFile", "PredictionRun", "predict_files", "predict_to_folder"]


@dataclass(frozen=True)
class PredictionRun:
    """What :func:`predict_to_folder` did.

    Args:
        records: The JSONL file.
        count: Records in it.
        problems: One line for each picture that could not be predicted.
        seconds: Wall time, loading of the checkpoint included.
        files: Further files and folders that were written.
        tallies: What all predictions together say in numbers, by what is counted.
        first: The first pictures, each with its prediction in a few words.
        remarks: What should be said of the pictures, a line each: pages and frames that were left out.
        thresholds: Those that the predictions went by; None where they went by none.
        explained: What the maps of explanations are worth, in a sentence; None where there are none.
    """

    records: Path
    count: int
    problems: list[str]
    seconds: float
    files: Sequence[Path] = ()
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    first: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()
    thresholds: Thresholds | None = None
    explained: str | None = None


@dataclass(frozen=True)
class FilePrediction:
    """What the model says of a picture file.

    Args:
        info: Where the picture comes from (``info.id``), its size, and further columns of a manifest.
        prediction: In pixels of the original.
        classes: Class names, in the order of their ids.
    """

    info: ImageInfo
    prediction: Prediction
    classes: tuple[str, ...]

    @property
    def image(self) -> str:
        """The picture as it was named."""
        return self.info.id

    def record(self) -> dict[str, Any]:
        """Return the record that ``visionkit predict`` writes into ``predictions.jsonl``."""
        return {**self.info.extra, "image": self.info.id, **self.prediction.record(self.classes)}


def predict_files(
    model: VisionModel | Checkpoints,
    sources: Source | Sequence[Source],
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    views: Views | None = None,
    backend: BackendName = "torch",
    calibrate: Source | Sequence[Source] | None = None,
    min_score: float | None = None,
    thresholds: Thresholds | None = None,
    reduced: bool = False,
    trust: Collection[str] = (),
    tell: Callable[[str], None] | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Generator[FilePrediction]:
    """Yield what a model says of picture files, as ``visionkit predict`` does, one by one as they are computed.

    ``for found in predict_files("runs/classify-1", "PHOTOS"): print(found.image, found.record()["label"])``

    Args:
        model: A model in evaluation mode, on the device to use; or a checkpoint file or the folder of a run; or several
            of these, which predict as one: all are held at once.
        sources: Picture files, folders (searched through), globs, ``.csv`` or ``.jsonl`` manifests and http(s) URLs.
        batch_size: Pictures at once; with ``views``, views of one size at once. None chooses by the device.
        num_workers: Threads that read pictures ahead; 0 reads them in this one, None chooses by the machine.
        device: Where to put a checkpoint's model: a torch device, or "auto" for a GPU when there is one that the
            backend can use.
        precision: "32", "bf16", "auto" for bf16 where the processor is fast at it, or "int8" with OpenVINO.
        views: What the network sees of each picture; None shows it once, as a whole, at the model's size.
        backend: What computes the network: "torch", "compile", "openvino" or "onnx".
        calibrate: The pictures that "int8" learns ranges from; None takes those that are predicted.
        min_score: Leave out objects with a lower score, 0..1, whatever thresholds say; None goes by these.
        thresholds: From which score on a class counts; None takes those of the checkpoint, where it has any.
        reduced: Whether to decode a large JPEG at a half, a quarter or an eighth of its size, as far as that is more
            than the model's: much faster, and the last digits of scores can differ.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.
        tell: Is told in a line each what is left out (pages of files, pictures that are not read) and how near "int8"
            comes to float32.
        on_error: Is given what is wrong with a picture, which then is passed over; None raises it.

    Raises:
        UsageError: A source matches nothing, the model is in training mode or has no scores, or the backend cannot be
            used.
        DataError: The checkpoint cannot be used, a folder holds no pictures, or, later, a picture cannot be predicted.
    """
    if isinstance(model, VisionModel):
        members = Members.of(["the model"], [model])
    else:
        where = choose_device(device, backend)
        check_backend(backend, where, precision)
        members = Members.load(model, trust=trust, device=where)
    scored = members.head.scored
    if min_score is not None and not (scored and 0 <= min_score <= 1):
        allowed = f"a score from 0 to 1, got {min_score:g}"
        raise UsageError(f"min_score: {allowed if scored else 'these predictions are not filtered by it'}")
    channels = members.models[0].preprocessing.channels
    pictures = find_images(sources, tell=tell, channels=channels)
    chosen = None if calibrate is None else find_images(calibrate, tell=tell, channels=channels)
    predictor = make_applied(
        members, pictures, backend, precision, views, batch_size=batch_size, calibrate=chosen, tell=tell
    )
    if tell is not None:
        for line in members.lines():
            tell(line)
    chosen_by = thresholds_in_force(members, thresholds, min_score, tell)
    remarks = Remarks()
    workers = _workers(num_workers, pictures)
    results = sample_results(predictor, pictures, workers, keep=False, reduced=reduced, remarks=remarks)

    def found() -> Generator[FilePrediction]:
        for result in results:
            if not isinstance(result, DataError):
                prediction = result[1] if min_score is None else result[1].at_least(min_score)
                if chosen_by is not None:
                    prediction = prediction.over(chosen_by.values, members.classes)
                yield FilePrediction(result[0].info, prediction, members.classes)
            elif on_error is None:
                raise result
            else:
                on_error(result)
        if tell is not None:
            for line in remarks.lines():
                tell(line)

    return found()


def predict_to_folder(
    ckpt: Checkpoints,
    pictures: Sequence[ImageFile],
    out: str | Path,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    save_images: bool = False,
    save_crops: bool = False,
    overwrite: bool = False,
    trust: Collection[str] = (),
    formats: Sequence[str] = (),
    annotations: str | Path | None = None,
    min_score: float | None = None,
    thresholds: Thresholds | None = None,
    views: Views | None = None,
    backend: BackendName = "torch",
    calibrate: Sequence[ImageFile] | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    reduced: bool = False,
    resume: bool = False,
    weights: Sequence[float] | None = None,
    explain: int | None = None,
) -> PredictionRun:
    """Write ``predictions.jsonl``, one record a picture, and ``predictions.csv``, one row a picture or object.

    Pictures are read and results written while the network computes. Each record is written as it comes, line by line;
    whatever is wrong with a picture costs that picture alone.

    Args:
        ckpt: Checkpoint file or the folder of a run; or several, which predict as one: all are held at once.
        pictures: The files.
        out: Folder for the results.
        batch_size: Pictures at once; None chooses by the device.
        num_workers: Threads that read pictures; None chooses by the machine and the number of pictures.
        device: A torch device, or "auto" for a GPU when there is one that the backend can use.
        precision: As in :func:`predict_files`.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        save_crops: Whether to cut each object out of its picture, into ``out/crops/CLASS``.
        overwrite: Whether to replace results that are there, file by file; nothing else is removed.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.
        formats: Further formats to write, of those that the model's predictions offer, beside the standard ones.
        annotations: An annotation file whose ids these formats shall use.
        min_score: As in :func:`predict_files`.
        thresholds: As in :func:`predict_files`.
        views: As in :func:`predict_files`.
        backend: As in :func:`predict_files`.
        calibrate: As in :func:`predict_files`.
        tell: As in :func:`predict_files`; of a run that goes on, it is told what has changed since.
        progress: Called after each picture with how many are done, and of how many.
        reduced: As in :func:`predict_files`; not with ``save_images`` and ``save_crops``, which need all pixels.
        resume: Whether to go on where predictions into ``out`` stopped, with all pictures that have no record yet or
            whose file is another one now (by its bytes and its time), new ones included; records of pictures that are
            not given any more stay. Where there are none it starts.
        weights: What each of several checkpoints counts, from 0 on; None is the same for all.
        explain: How many things of a picture are explained at most, from 1 on, with maps in ``out/explanations``; None
            explains nothing. Not with ``views``, ``reduced``, "int8" or another backend than torch.

    Raises:
        UsageError: ``out`` holds results already, or, to resume, results of another model, of other options or of
            other pictures; the device or the backend is not there, such pictures cannot be drawn on, or the model's
            predictions have no such format, no scores to choose by or cannot be put together from views.
        DataError: The checkpoint cannot be used, or the annotation file does not fit.
    """
    start = time.perf_counter()
    folder = Path(out)
    refuse_unwritable(folder)  # at once; loading takes a while
    if resume and overwrite:
        raise UsageError("--resume keeps the predictions that are there, --overwrite replaces them: give one of them")
    refuse_existing(folder, outputs_of(folder, save_images=save_images), overwrite or resume)
    if explain is not None:
        refuse_unexplained(backend, precision, views, reduced=reduced, models=len(listed(ckpt)))
    where = choose_device(device, backend)
    check_backend(backend, where, precision)
    members = Members.load(ckpt, weights=weights, trust=trust, device=where)
    head, channels, several = members.head, members.channels, len(members.models) > 1
    hashes = [digest(file) for file in members.files]
    chosen_by = thresholds_in_force(members, thresholds, min_score, tell)
    asked = {
        "version": visionkit.__version__,
        "checkpoint": hashes if several else hashes[0],
        "weight of each checkpoint (--fitted)": None if weights is None else list(weights),
        "--precision": precision,
        "--backend": backend,
        "views (--flip, --scales, --window, --overlap)": None if views is None else str(views),
        "--min-score": min_score,
        "set of thresholds": None if chosen_by is None else chosen_by.plain(),
        "--format": sorted(formats),
        "--save-crops": save_crops or None,  # as where nothing is said of it
        "--save-images": save_images,
        "--reduced-decode": reduced,
        "--explain": explain,
    }
    if precision == "int8":  # nothing else depends on pictures beside the one that is predicted
        learnt = [facts_of(p.path, {}) for p in spaced(pictures if calibrate is None else calibrate)]
        asked["list of pictures to learn ranges from"] = hashlib.sha256(json.dumps(learnt).encode()).hexdigest()
    now = [facts_of(p.path, p.extra) for p in pictures]
    records = folder / RECORDS
    going = GoingOn.find(folder, records, asked, now) if resume else GoingOn.anew(folder, asked, now)
    for option, wanted in (("--save-images draws on", save_images), ("--save-crops cuts", save_crops)):
        if wanted and channels not in (1, 3):
            raise UsageError(f"{option} RGB and grey pictures; this model takes {channels} channels")
    if save_crops:
        formats = [*formats, *_crops(head, folder, overwrite)]
    if min_score is not None and not head.scored:
        raise UsageError("--min-score: this model's predictions are not filtered by score")
    results = Results(folder, head, members.classes, min_score, chosen_by, save_images)
    given = None if annotations is None else Path(annotations)
    job = WriterJob(folder, members.classes, going.images, given, min_score)
    explaining = [] if explain is None else [ExplanationWriter(members.models[0], job, explain, chosen_by)]
    results.open_writers(formats, job, overwrite=overwrite or resume, further=explaining)
    if results.files_of_pictures:
        going.refuse_renamed()
    workers, remarks = _workers(num_workers, pictures), Remarks()
    predictor = make_applied(
        members, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
    )
    left, keep = going.left(), results.keeps_pixels
    coming = [pictures[place] for place in left]
    found = sample_results(predictor, coming, workers, keep=keep, reduced=reduced, remarks=remarks)
    if tell is not None:
        for line in (*members.lines(), *going.lines(), *(writer.cost() for writer in explaining)):
            tell(line)
    problems = []
    with alone(records, None if overwrite else going.read):
        going.drop_changed(records, results.remove)
        with results.opened([picture.extra for picture in pictures], going.records or None) as files:
            going.note()
            ahead = prefetch(found, 2 if keep else 2 * predictor.batch_size)
            for count, (place, result) in enumerate(zip(left, ahead, strict=True), 1 + len(pictures) - len(left)):
                try:
                    if isinstance(result, DataError):
                        raise result
                    files.add(*result, going.numbers[place])
                except DataError as e:
                    problems.append(str(e))
                if progress is not None:
                    progress(count, len(pictures))
    if tell is not None and isinstance(predictor, Ensemble) and (cost := predictor.cost_line()) is not None:
        tell(cost)
    return PredictionRun(
        results.records,
        results.count,
        problems,
        time.perf_counter() - start,
        files=results.written(),
        tallies=results.tallies,
        first=results.first,
        remarks=remarks.lines(),
        thresholds=chosen_by,
        explained=explaining[0].verdict if explaining else None,
    )


def _crops(head: Head, folder: Path, overwrite: bool) -> list[str]:
    """Return the formats of a head that cut objects out of pictures: one a head that finds objects.

    Raises:
        UsageError: It has none, or crops of before would stay among the new ones.
    """
    found = [name for name in head.writers if name.rpartition("/")[2] == CROPS]
    if not found:
        raise UsageError("--save-crops cuts objects out of pictures: this model's predictions have no boxes")
    for name in found if overwrite else ():
        there = folder / name
        if there.is_dir() and any(there.rglob("*.jpg")):
            raise UsageError(
                f"{there}: crops of before would stay among the new ones: remove it, or choose another --out"
            )
    return found


def _workers(asked: int | None, pictures: Sequence[ImageFile]) -> int:
    """Return how many threads read the pictures."""
    return (choose_workers() if len(pictures) > 1 else 0) if asked is None else asked
