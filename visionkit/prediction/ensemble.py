"""Several checkpoints that predict as one: each picture is read once, and what the models say is put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Any, TypeAlias

from torch import Tensor

from visionkit.core.errors import DataError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Prediction
from visionkit.core.sample import Sample
from visionkit.data.images.decode import Scale
from visionkit.data.images.given import Pictures, is_one_picture, is_picture, samples_of
from visionkit.prediction.backends.available import BackendName, check_backend, choose_device
from visionkit.prediction.members import Checkpoints, Members
from visionkit.prediction.pictures import ImageFile
from visionkit.prediction.predictor import Predictor, Prepared, Result, problem_of
from visionkit.prediction.stream import make_predictor
from visionkit.prediction.views import Views

__all__ = ["Ensemble", "make_applied", "make_ensemble"]

Found: TypeAlias = "tuple[Sample[Any], tuple[Prediction, ...]] | DataError"


@dataclass(frozen=True)
class _Prepared:
    """A sample on its way to its predictions.

    Args:
        parts: What each model's predictor made of it.
    """

    parts: tuple[Prepared, ...]


class Ensemble:
    """Applies several models to samples and puts together what they say; it stands where a :class:`Predictor` does.

    Probabilities of classes and pixels are weighted means over the models that know a class. Boxes of one object become
    one, with at most one box a model; scores are such means, masks are averaged. Models may differ in network, size,
    preprocessing, and in order and number of classes, which are joined by name. All are held at once.

    Args:
        members: The models with their classes and weights.
        predictors: What applies each of them; all have the same views and batches of the same size.
    """

    def __init__(self, members: Members, predictors: Sequence[Predictor]) -> None:
        self.members = members
        self.predictors = tuple(predictors)
        self.seconds = 0.0
        """That putting together with its own weights has taken so far."""

    @property
    def names(self) -> tuple[str, ...]:
        """What messages call each model: its checkpoint as it was given."""
        return self.members.names

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of all models, in the order of the ids of predictions."""
        return self.members.classes

    @property
    def head(self) -> Any:
        """The first model's head, which says how predictions are written, read and measured."""
        return self.members.head

    @property
    def weights(self) -> tuple[float, ...]:
        """What each model counts; they sum to 1."""
        return self.members.joining.weights

    @property
    def views(self) -> Views:
        """What each network sees of a picture."""
        return self.predictors[0].views

    @property
    def preprocessing(self) -> Any:
        """The first model's; all take pictures of its channels."""
        return self.predictors[0].preprocessing

    @property
    def device(self) -> Any:
        """Where the models are."""
        return self.predictors[0].device

    @property
    def batch_size(self) -> int:
        """Views of one size at once."""
        return self.predictors[0].batch_size

    def with_weights(self, weights: Sequence[float]) -> Ensemble:
        """Return the same models, not loaded anew, with other weights."""
        return Ensemble(self.members.with_weights(weights), self.predictors)

    def scale(self) -> Scale | None:
        """Return by how much pictures are resized for the model that wants the most of their pixels; see Views."""
        scales = [predictor.scale() for predictor in self.predictors]
        known = [scale for scale in scales if scale is not None]
        if len(known) < len(scales):
            return None

        def largest(size: tuple[int, int]) -> tuple[float, float]:
            vertical, horizontal = zip(*(scale(size) for scale in known), strict=True)
            return max(vertical), max(horizontal)

        return largest

    def prepare(self, sample: Sample[Any], *, keep: bool) -> _Prepared:
        """Bring a sample to what each network sees. Any thread may do it, ahead of :meth:`results`.

        Args:
            sample: As read.
            keep: Whether it shall come back with its pixels beside its prediction; they are dropped early if not.
        """
        return _Prepared(tuple(p.prepare(sample, keep=keep and not k) for k, p in enumerate(self.predictors)))

    def each(self, items: Iterable[Any]) -> Generator[Found]:
        """Yield each sample with what every model says of it, in the model's own ids of classes.

        Args:
            items: What :meth:`prepare` made, or what is wrong with a picture.
        """
        streams = tee(items, len(self.predictors))
        pairs = enumerate(zip(self.predictors, streams, strict=True))
        results = [predictor.results(_own(stream, k)) for k, (predictor, stream) in pairs]
        del streams
        for found in zip(*results, strict=True):
            problem = next((one for one in found if isinstance(one, DataError)), None)
            if problem is not None:
                yield problem
            else:
                said = [one for one in found if not isinstance(one, DataError)]
                yield said[0][0], tuple(prediction for _, prediction in said)

    def combine(self, parts: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
        """Return what the models say together.

        Args:
            parts: That of each model, as :meth:`each` gave it.
            weights: What each counts; None takes those of the ensemble.
        """
        joining = self.members.joining
        if weights is not None:
            return type(parts[0]).combine(parts, joining.with_weights(weights))
        start = time.perf_counter()
        try:
            return type(parts[0]).combine(parts, joining)
        finally:
            self.seconds += time.perf_counter() - start

    def alone(self, model: int, prediction: Prediction) -> Prediction:
        """Return what one model said with the class ids of the ensemble."""
        joining: Joining = self.members.joining.only(model)
        return type(prediction).combine([prediction], joining)

    def results(self, items: Iterable[Any]) -> Generator[Result]:
        """Yield each sample with its prediction, in order; what could not be read goes through as it is.

        Args:
            items: What :meth:`prepare` made, or what is wrong with a picture.
        """
        for found in self.each(items):
            if isinstance(found, DataError):
                yield found
                continue
            sample, parts = found
            result: Result
            try:
                result = (sample, self.combine(parts))
            except Exception as e:
                result = problem_of(e, sample.info)
            yield result

    def __call__(self, given: Any) -> Any:
        """Predict samples as a Predictor does, or pictures as :meth:`predict` does.

        Args:
            given: Samples as read, which give predictions one by one; or a picture, or a list of them.

        Raises:
            DataError: An image has another number of channels than the models take.
        """
        listed = isinstance(given, list | tuple) and bool(given) and isinstance(given[0], Sample)
        if isinstance(given, Tensor) or (is_picture(given) and not listed):
            return self.predict(given)
        return self._predictions(given)

    def predict(self, images: Pictures) -> Any:  # one Prediction or a list of them
        """Return what the models say of pictures, in their own pixels; see :meth:`visionkit.VisionModel.predict`.

        Of one model alone its thresholds are gone by, as it does itself; those of several say nothing of all together.

        Args:
            images: A picture, which gives one prediction, or several, which give a list of as many.

        Raises:
            UsageError: Something is no picture.
            DataError: A file cannot be read, or a picture has another number of channels.
        """
        found = list(self._predictions(samples_of(images, self.members.channels)))
        if (chosen := self.members.thresholds) is not None:
            found = [prediction.over(chosen.values, self.classes) for prediction in found]
        return found[0] if is_one_picture(images) else found

    def _predictions(self, samples: Iterable[Sample[Any]]) -> Iterator[Prediction]:
        for result in self.results(self.prepare(sample, keep=False) for sample in samples):
            if isinstance(result, DataError):
                raise result
            yield result[1]

    def cost(self) -> float | None:
        """Return how many times as long as the first model's network all take; None before anything was predicted."""
        first = self.predictors[0].seconds
        return (sum(p.seconds for p in self.predictors) + self.seconds) / first if first else None

    def lines(self) -> list[str]:
        """Return in words what should be known of the models: how their classes differ, that weights are not equal."""
        return self.members.lines()

    def cost_line(self) -> str | None:
        """Return in words what predicting with all of them took; None before anything was predicted."""
        cost = self.cost()
        many = len(self.predictors)
        if cost is None:
            return None
        return f"cost     {many} models, about {cost:.1f} times the time of {self.names[0]} alone"


def make_ensemble(
    checkpoints: Checkpoints,
    *,
    backend: BackendName = "torch",
    precision: str = "auto",
    views: Views | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    trust: Collection[str] = (),
    weights: Sequence[float] | None = None,
    calibrate: Sequence[ImageFile] = (),
    tell: Callable[[str], None] | None = None,
) -> Ensemble:
    """Load checkpoints that predict as one; all of their models are held at once.

    Args:
        checkpoints: Files, or folders of runs: their best checkpoints.
        backend: What computes the networks: "torch", "compile", "openvino" or "onnx".
        precision: "32", "bf16", "auto" for bf16 where the processor is fast at it, or "int8" with OpenVINO.
        views: What each network sees of a picture; None shows it once, as a whole, at the model's size.
        device: A torch device, or "auto" for a GPU when there is one that the backend can use.
        batch_size: Views of one size at once; None chooses by the device.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoints may name.
        weights: What each model counts, from 0 on; None is the same for all.
        calibrate: The pictures that "int8" learns ranges from.
        tell: Is told in one line how near "int8" comes to float32; None does not compare.

    Raises:
        DataError: A checkpoint cannot be used.
        UsageError: The models do not fit each other, or the backend cannot be used.
    """
    where = choose_device(device, backend)
    check_backend(backend, where, precision)
    members = Members.load(checkpoints, weights=weights, trust=trust, device=where)
    return _ensemble(members, calibrate, backend, precision, views, batch_size, None, tell)


def make_applied(
    members: Members,
    pictures: Sequence[ImageFile],
    backend: BackendName,
    precision: str,
    views: Views | None,
    *,
    batch_size: int | None,
    calibrate: Sequence[ImageFile] | None,
    tell: Callable[[str], None] | None,
) -> Predictor | Ensemble:
    """Make what predicts pictures: a Predictor of one model, an Ensemble of several; see ``stream.results_of``."""
    if len(members.models) > 1:
        return _ensemble(members, pictures, backend, precision, views, batch_size, calibrate, tell)
    (model,) = members.models
    return make_predictor(
        model, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
    )


def _ensemble(
    members: Members,
    pictures: Sequence[ImageFile],
    backend: BackendName,
    precision: str,
    views: Views | None,
    batch_size: int | None,
    calibrate: Sequence[ImageFile] | None,
    tell: Callable[[str], None] | None,
) -> Ensemble:
    predictors = [
        make_predictor(
            model, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
        )
        for model in members.models
    ]
    return Ensemble(members, predictors)


def _own(items: Iterable[_Prepared | DataError], model: int) -> Iterator[Prepared | DataError]:
    """Yield of each sample what one model's predictor made of it."""
    for item in items:
        yield item if isinstance(item, DataError) else item.parts[model]
