"""Predictor: samples in, predictions out; whatever applies a trained model goes through it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.prediction import Prediction, Region
from visionkit.core.sample import ImageInfo, Sample, collate
from visionkit.data.images.decode import Scale
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName, check_backend
from visionkit.prediction.backends.calibration import calibration_views, quantised
from visionkit.prediction.backends.convert import PredictionModel, convert
from visionkit.prediction.views import Views

__all__ = ["Predictor", "Prepared", "Result", "choose_batch_size", "problem_of"]

Item: TypeAlias = "Prepared | DataError"
Result: TypeAlias = "tuple[Sample[Any], Prediction] | DataError"


@dataclass(frozen=True)
class Prepared:
    """A sample on its way to its prediction.

    Args:
        sample: As read; without its pixels where nobody wants them any more.
        views: What the network sees of it, with the part of the picture that each shows; made one by one where they can
            be many.
    """

    sample: Sample[Any]
    views: Iterable[tuple[Sample[Any], Region]]


class Predictor:
    """Applies a model to samples, on any backend, through any views.

    Args:
        model: In evaluation mode, on the device to use; what ``convert`` made is used as it is, whatever backend and
            precision say.
        backend: What computes the network's outputs: "torch", "compile", "openvino" or "onnx"; see ``convert``.
        precision: "32", "bf16", "auto" for bf16 where the processor is fast at it, or "int8" with OpenVINO.
        views: What the network sees of each picture; None shows it once, as a whole, at the model's size.
        batch_size: Views of one size at once; None chooses by the device.
        calibration: Samples that "int8" learns the ranges of its maps from, a hundred or more; all of them are used.
        tell: Is told in one line how near "int8" comes to float32; None does not compare.

    Raises:
        UsageError: The model is in training mode, the backend is not there or cannot do what is asked, or samples for
            "int8" are missing or not wanted.
        DataError: None of the samples for "int8" can be read.
    """

    def __init__(
        self,
        model: VisionModel,
        backend: BackendName = "torch",
        precision: str = "auto",
        views: Views | None = None,
        *,
        batch_size: int | None = None,
        calibration: Iterable[Sample[Any] | DataError] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.views = views if views is not None else Views()
        self.preprocessing = model.preprocessing
        made = isinstance(model, PredictionModel)
        if calibration is not None and (precision != "int8" or made):
            raise UsageError("samples to calibrate with are for precision int8 alone: add that, or leave them out")
        if isinstance(model, PredictionModel):
            self.model = model
        elif precision == "int8":
            check_backend(backend, model.scale.device, precision)
            seen = calibration_views(calibration or (), self._images)
            self.model = quantised(model, seen, tell)
        else:
            self.model = convert(model, backend, precision=precision)
        self.device = self.model.scale.device
        self.batch_size = choose_batch_size(self.device) if batch_size is None else batch_size
        self._filled: dict[torch.Size, int] = {}  # images of a batch, by their shape, where each is compiled for itself
        self.seconds = 0.0
        """That networks and what makes predictions of their outputs have taken so far."""

    def __call__(self, samples: Iterable[Sample[Any]]) -> Iterator[Prediction]:
        """Yield the prediction of each sample in order, in pixels of the original.

        Args:
            samples: As read: images uint8 [C, H, W] of any size. They are asked for as batches need them; targets are
                left alone.

        Raises:
            DataError: An image has another number of channels than the model takes.
        """
        for result in self.results(self.prepare(sample, keep=False) for sample in samples):
            if isinstance(result, DataError):
                raise result
            yield result[1]

    def scale(self) -> Scale | None:
        """Return by how much pictures are resized, so that they can be decoded at a part of their size; see Views."""
        return self.views.scale(self.preprocessing)

    def prepare(self, sample: Sample[Any], *, keep: bool) -> Prepared:
        """Bring a sample to what the network sees. Any thread may do it, ahead of :meth:`results`.

        Args:
            sample: As read.
            keep: Whether it shall come back with its pixels beside its prediction; they are dropped early if not.
        """
        bare = sample.replace(target=None)
        views: Iterable[tuple[Sample[Any], Region]]
        if self.views.several:
            views = self.views(bare, self.preprocessing)
            if self.views.window is None:  # windows can be many: they are made when they are wanted
                views = list(views)
        else:
            (preprocessing,) = self.views.preprocessings(self.preprocessing)
            views = [(preprocessing(bare), (0, 0, *sample.info.size))]  # it may be reduced
        return Prepared(sample if keep else _empty(sample), views)

    def results(self, items: Iterable[Item]) -> Generator[Result]:
        """Yield each sample with its prediction, in order; what could not be read goes through as it is.

        Views wait until there is a batch of one size, which may be of several pictures. All pictures have equally many
        views of each size for a window, so all sizes fill up together, and few pictures wait for their last views.

        Args:
            items: What :meth:`prepare` made, or what is wrong with a picture.
        """
        line: deque[_Open | DataError] = deque()
        waiting: dict[torch.Size, list[tuple[_Open, int, Sample[Any]]]] = {}
        for item in items:
            if isinstance(item, DataError):
                line.append(item)
            else:
                picture = _Open(item.sample)
                line.append(picture)
                for view, region in picture.views(item):
                    group = waiting.setdefault(view.image.shape, [])
                    group.append((picture, len(picture.regions), view))
                    picture.regions.append(region)
                    if len(group) == self.batch_size:
                        self._predict(group)
                        yield from _finished(line)
                picture.whole = True
            yield from _finished(line)
        for group in waiting.values():
            if group:
                self._predict(group)
        yield from _finished(line)

    def _predict(self, group: list[tuple[_Open, int, Sample[Any]]]) -> None:
        """Predict a batch of views, give each to its picture, and empty the group.

        Where memory does not suffice for all of them, each is predicted alone: what is too large then is one picture.
        """
        start = time.perf_counter()
        try:
            self._predict_together(group)
        finally:
            self.seconds += time.perf_counter() - start

    def _predict_together(self, group: list[tuple[_Open, int, Sample[Any]]]) -> None:
        try:
            predictions, infos = self._decoded(group)
        except Exception as e:
            if not _lacks_memory(e):
                raise
            if len(group) == 1:
                group[0][0].fail(e)
            else:
                for one in group:
                    self._predict_together([one])
            group.clear()
            return
        for (picture, number, _), prediction, info in zip(group, predictions, infos, strict=True):
            picture.take(number, prediction, info)
        group.clear()

    def _decoded(self, group: list[tuple[_Open, int, Sample[Any]]]) -> tuple[Sequence[Prediction], list[ImageInfo]]:
        """Return what the network says of views of one size."""
        batch = collate([view for _, _, view in group])
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        images = batch.images.to(self.device, non_blocking=True)
        if self.model.fixed:  # one size for each shape: fill up
            shape = images.shape[1:]
            self._filled[shape] = max(self._filled.get(shape, 1), len(images))
            images = torch.cat([images, images.new_zeros((self._filled[shape] - len(images), *shape))])
        return self.model.decode(images)[: len(batch)], batch.infos

    def _images(self, sample: Sample[Any]) -> list[Tensor]:
        """Return what the network sees of a sample, uint8 [C, H, W] each."""
        return [view.image for view, _ in self.prepare(sample, keep=False).views]


def choose_batch_size(device: torch.device) -> int:
    """Return a batch that a GPU is busy with; on a CPU small ones are as fast a picture, and stay in its caches."""
    return 32 if device.type == "cuda" else 8


@dataclass
class _Open:
    """The predictions of a picture's views so far, by number, and the region of each."""

    sample: Sample[Any]
    regions: list[Region] = field(default_factory=list)
    predictions: dict[int, Prediction] = field(default_factory=dict)
    whole: bool = False  # all views are made
    problem: DataError | None = None

    def views(self, item: Prepared) -> Iterator[tuple[Sample[Any], Region]]:
        """Yield the views as they are made; what goes wrong ends them, and is this picture's alone."""
        try:
            yield from item.views
        except Exception as e:
            self.fail(e)

    def take(self, number: int, prediction: Prediction, info: ImageInfo) -> None:
        """Take the prediction of a view."""
        try:
            self.predictions[number] = prediction.restore(info)
        except Exception as e:
            self.fail(e)

    def fail(self, e: Exception) -> None:
        """Take what went wrong; a UsageError is none of the picture's.

        Raises:
            UsageError: It was one.
        """
        self.problem = problem_of(e, self.sample.info)

    @property
    def complete(self) -> bool:
        return self.problem is not None or (self.whole and len(self.predictions) == len(self.regions))

    def result(self) -> Result:
        """Return the picture with the prediction that all views make together, or what went wrong."""
        if self.problem is None:
            try:
                parts: Sequence[Prediction] = [self.predictions[k] for k in range(len(self.regions))]
                merged = parts[0] if len(parts) == 1 else type(parts[0]).merge(parts, self.regions)
                return self.sample, merged
            except Exception as e:
                self.fail(e)
        assert self.problem is not None
        return self.problem


def _finished(line: deque[_Open | DataError]) -> Iterator[Result]:
    while line and (isinstance(line[0], DataError) or line[0].complete):
        first = line.popleft()
        yield first if isinstance(first, DataError) else first.result()


def problem_of(e: Exception, info: ImageInfo) -> DataError:
    """Return what went wrong with a picture, in a line.

    Raises:
        UsageError: It was one, and none of the picture's.
    """
    if isinstance(e, UsageError):
        raise e
    if isinstance(e, DataError):
        return e
    words = f"{type(e).__name__}: {' '.join(str(e).split())}"
    why = "memory does not suffice for it" if _lacks_memory(e) else words
    return DataError(f"{info.id or 'the picture'}: cannot be predicted ({why})")


def _lacks_memory(e: BaseException) -> bool:
    """Return whether memory did not suffice: each library has an error of its own for it."""
    words = ("out of memory", "allocate memory", "not enough memory", "Insufficient memory", "bad allocation")
    return isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and any(w in str(e) for w in words))


def _empty(sample: Sample[Any]) -> Sample[Any]:
    """Return the sample without its pixels."""
    return sample.replace(image=sample.image[:, :0, :0].clone())
