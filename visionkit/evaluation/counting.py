"""Counting what is predicted against what is true, picture by picture, in pixels of the originals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary
from visionkit.core.prediction import Prediction
from visionkit.core.prefetch import prefetch_map
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.dataset import VisionDataset, load_sample
from visionkit.data.images.decode import Scale
from visionkit.data.labels.checks import header_size
from visionkit.evaluation.error_gains import BoundaryBand
from visionkit.evaluation.images import EvaluatedImage
from visionkit.evaluation.truth import margin_of, truth_of
from visionkit.prediction.predictor import Item, Predictor, problem_of
from visionkit.prediction.views import Views
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.training.redraw import RedrawnMetric

__all__ = ["Count", "Keep", "Members", "Predicts", "count", "count_predictions"]

Data: TypeAlias = VisionDataset[Any]
Metric: TypeAlias = RedrawnMetric[Any, Any]
Keep: TypeAlias = Callable[[Sample[Any], Prediction, int], None]
"""Takes a picture without its pixels, its prediction and its place; a DataError leaves the picture out."""
Progress: TypeAlias = Callable[[int, int], None]

CHUNK = 16
"""Pictures that are counted together."""


class Predicts(Protocol):
    """What predicts: a :class:`Predictor`, or several models that speak as one."""

    @property
    def views(self) -> Views:
        """What the network sees of each picture."""
        ...

    @property
    def batch_size(self) -> int:
        """Views of one size at once."""
        ...

    def scale(self) -> Scale | None:
        """Return by how much pictures are resized, so that they can be decoded at a part of their size."""
        ...

    def prepare(self, sample: Sample[Any], *, keep: bool) -> Any:
        """Bring a sample to what the network sees."""
        ...

    def results(self, items: Iterable[Item]) -> Generator[tuple[Sample[Any], Prediction] | DataError]:
        """Yield each sample with its prediction."""
        ...


class Members(Protocol):
    """Several models, each of which is heard before they speak as one."""

    def each(self, items: Iterable[Any]) -> Iterator[tuple[Sample[Any], tuple[Prediction, ...]] | DataError]:
        """Yield each sample with what every model says of it."""
        ...

    def combine(self, parts: tuple[Prediction, ...]) -> Prediction:
        """Return what all say together."""
        ...


class Judge(Protocol):
    """Is shown what every one of several models says."""

    def update(self, parts: tuple[Prediction, ...], target: Any) -> None:
        """Take what they say of a picture, and its truth in pixels of the original."""
        ...


@dataclass
class Count:
    """What was counted.

    Args:
        metric: Takes predictions and truth.
        multilabel: Whether a picture has several labels.
        groups: By picture, what those that belong together have in common; without an entry nothing is known.
        evidence: Is shown what the metric is, with the groups; None where nobody asks for it.
        band: Counts pixels near boundaries, beside the metric of segmentation; None for other tasks.
    """

    metric: Metric
    multilabel: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    evidence: Any = None
    band: BoundaryBand | None = None
    images: list[EvaluatedImage] = field(default_factory=list)
    """The pictures, in the order of the metric's rows."""
    margins: list[float | None] = field(default_factory=list)
    """By how much a classifier is right in each."""
    problems: list[DataError] = field(default_factory=list)
    """What is wrong with the pictures that were left out."""
    seconds: float | None = None
    """Time of a picture, from reading to its prediction."""
    _waiting: list[tuple[ImageInfo, Prediction, Any]] = field(default_factory=list)

    def add(self, info: ImageInfo, prediction: Prediction, target: Any, sha256: str) -> None:
        """Take a picture; it is counted when :meth:`finish` is called.

        Args:
            info: Where it comes from, and its size.
            prediction: In pixels of the original.
            target: Its truth, in pixels of the original.
            sha256: Of the bytes of its file.
        """
        if isinstance(prediction, InstancePrediction) and not getattr(self.metric, "masks", True):
            prediction = BoxPrediction(prediction.boxes, prediction.scores, prediction.labels, prediction.size)
        truth = truth_of(target, self.metric.classes, multilabel=self.multilabel)
        margin = margin_of(prediction, target)
        self.images.append(EvaluatedImage(info.id, sha256, self.groups.get(info.id), info.size, truth))
        self.margins.append(margin)
        self._waiting.append((info, prediction, target))

    def finish(self, least: int = 1) -> None:
        """Count what waits, once it is so many pictures.

        What goes wrong here is of no single picture: it must not be taken for that of the last one.
        """
        if len(self._waiting) < least:
            return
        infos, predictions, targets = (list(values) for values in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.metric.update(predictions, targets)
        self.metric.add_infos(infos)
        if self.evidence is not None:
            self.evidence.update(predictions, targets, [self.groups.get(info.id) for info in infos])
        if self.band is not None:
            self.band.update(predictions, targets)


def count(
    predictor: Predicts,
    dataset: Data,
    counted: Count,
    *,
    workers: int = 0,
    keep: Keep | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> Count:
    """Predict the pictures of a data set and count what comes of it, as ``visionkit validate`` does.

    Args:
        predictor: What predicts.
        dataset: Pictures with their truth, with the classes of the predictor.
        counted: Takes the pictures.
        workers: Threads that read pictures; 0 reads in this one.
        keep: Takes each prediction first.
        judge: Hears every one of several models; the predictor then is one of :class:`Members`.
        progress: Called with (done, total) after each picture.

    Returns:
        ``counted``.

    Raises:
        DataError: No picture can be read.
    """
    digests: dict[str, str] = {}
    files = dataset.files()
    scale = predictor.scale()

    def read(index: int) -> Item:
        id = dataset.ids[index]
        try:
            sample = load_sample(dataset, index, scale)
            digests[id] = _digest(dataset, index, files[index], sample)
            return predictor.prepare(sample, keep=False)  # type: ignore[no-any-return]  # what results takes
        except DataError as e:
            return e
        except Exception as e:  # whatever it is, it is this picture's: the others are counted
            return DataError(f"{id}: cannot be read ({type(e).__name__}: {e}); copy it again, or remove it")

    depth = max(1, workers) if predictor.views.several else 2 * (predictor.batch_size + workers)
    items = prefetch_map(read, range(len(dataset)), threads=workers, depth=depth)
    found = _heard(predictor, items, heard=judge is not None)
    times: list[float] = []
    start = time.perf_counter()
    for number, result in enumerate(found):
        times.append(time.perf_counter() - start)
        try:
            if isinstance(result, DataError):
                raise result
            sample, prediction, parts = result
            target = sample.target.restore(sample.info)
            bare = sample.replace(info=ImageInfo(sample.info.id, sample.info.size))
            if keep is not None:
                keep(bare, prediction, number)
            counted.add(bare.info, prediction, target, digests[sample.info.id])
            if judge is not None:
                judge.update(parts, target)
        except DataError as e:
            counted.problems.append(e)
        counted.finish(CHUNK)
        if progress is not None:
            progress(number + 1, len(dataset))
        start = time.perf_counter()
    counted.finish()
    _refuse_none(counted)
    first = predictor.batch_size if len(times) > 2 * predictor.batch_size else 0  # it takes longer
    counted.seconds = sum(times[first:]) / len(times[first:])
    return counted


def count_predictions(
    predictions: Mapping[int, Prediction],
    dataset: Data,
    counted: Count,
    *,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> Count:
    """Count predictions that are there already.

    Args:
        predictions: By the position of their picture in the data set, in pixels of the original; pictures without one
            are left out.
        dataset: Pictures with their truth.
        counted: Takes the pictures.
        keep: Takes each prediction first.
        progress: Called with (done, total) after each picture.

    Returns:
        ``counted``.

    Raises:
        DataError: No picture can be counted.
    """
    files = dataset.files()
    places = sorted(predictions)
    for number, index in enumerate(places):
        try:
            target, info = _truth(dataset, index, files[index])
            digest = _digest(dataset, index, files[index], None)
            prediction = predictions[index]
            bare = ImageInfo(info.id, info.size)
            if keep is not None:
                keep(_no_pixels(bare), prediction, number)
            counted.add(bare, prediction, target, digest)
        except DataError as e:
            counted.problems.append(e)
        counted.finish(CHUNK)
        if progress is not None:
            progress(number + 1, len(places))
    counted.finish()
    _refuse_none(counted)
    return counted


def _heard(
    predictor: Any, items: Iterable[Item], *, heard: bool
) -> Iterator[tuple[Sample[Any], Prediction, tuple[Prediction, ...]] | DataError]:
    """Yield each sample with its prediction and, where every one of several models is heard, with what each says."""
    one: Predictor = predictor
    several: Members = predictor
    if not heard:
        for result in one.results(items):
            yield result if isinstance(result, DataError) else (*result, ())
        return
    for said in several.each(items):
        if isinstance(said, DataError):
            yield said
            continue
        sample, parts = said
        try:
            whole = several.combine(parts)
        except Exception as e:
            yield problem_of(e, sample.info)
            continue
        yield sample, whole, parts


def _truth(dataset: Data, index: int, file: Path | None) -> tuple[Any, ImageInfo]:
    """Return truth and info of a picture, in its own pixels; of most only the head of the file is read."""
    size = header_size(dataset.ids[index]) if file is not None else None
    if size is not None:
        try:
            return dataset.target_of(index, size)
        except NotImplementedError:
            pass
    sample = dataset[index]
    return sample.target.restore(sample.info), sample.info


def _digest(dataset: Data, index: int, file: Any, sample: Sample[Any] | None) -> str:
    """Return the hash of a picture's file, or of its pixels where it is none."""
    if file is not None:
        with open_binary(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    pixels = (dataset[index] if sample is None else sample).image
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def _no_pixels(info: ImageInfo) -> Sample[Any]:
    import torch

    return Sample(torch.zeros(3, 0, 0, dtype=torch.uint8), None, info)


def _refuse_none(counted: Count) -> None:
    if not counted.images:
        problems = [line for e in counted.problems[:10] for line in e.lines]
        raise DataError(*problems, "no picture is left to count")
