"""Pictures in, predictions out, in order; threads read ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from visionkit.core.errors import DataError, UsageError
from visionkit.core.prediction import Prediction
from visionkit.core.prefetch import prefetch_map
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.images.decode import Scale
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName
from visionkit.prediction.backends.calibration import spaced
from visionkit.prediction.backends.convert import PredictionModel
from visionkit.prediction.pictures import ImageFile, Remarks, read_picture
from visionkit.prediction.predictor import Predictor
from visionkit.prediction.views import Views

__all__ = ["Applied", "Result", "make_predictor", "results_of", "sample_results"]

Result: TypeAlias = "tuple[ImageInfo, Prediction] | DataError"


class Applied(Protocol):
    """What predicts samples: a Predictor, or what stands where it does."""

    @property
    def batch_size(self) -> int:
        """Views of one size at once."""
        ...

    @property
    def views(self) -> Views:
        """What a network sees of a picture."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """Knows the channels of the pictures."""
        ...

    def scale(self) -> Scale | None:
        """Return by how much pictures are resized."""
        ...

    def prepare(self, sample: Sample[Any], *, keep: bool) -> Any:
        """Bring a sample to what is seen of it."""
        ...

    def results(self, items: Iterable[Any]) -> Generator[tuple[Sample[Any], Prediction] | DataError]:
        """Yield each sample with its prediction, in order."""
        ...


def results_of(
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
    predictor = make_predictor(
        model, pictures, backend, precision, views, batch_size=batch_size, calibrate=calibrate, tell=tell
    )
    found = sample_results(predictor, pictures, num_workers, keep=False, reduced=reduced)
    return (result if isinstance(result, DataError) else (result[0].info, result[1]) for result in found)


def make_predictor(
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
    """Make what predicts the pictures; arguments as in :func:`results_of`."""
    made = isinstance(model, PredictionModel)
    if calibrate is not None and (precision != "int8" or made):
        raise UsageError("--calibrate names pictures for --precision int8: add that, or leave it out")
    calibration = None
    if precision == "int8" and not made:
        scale = (views or Views()).scale(model.preprocessing)
        chosen = spaced(pictures if calibrate is None else calibrate)
        calibration = (read_picture(picture, model.preprocessing.channels, scale) for picture in chosen)
    return Predictor(model, backend, precision, views, batch_size=batch_size, calibration=calibration, tell=tell)


def sample_results(
    predictor: Applied,
    pictures: Sequence[ImageFile],
    num_workers: int,
    *,
    keep: bool,
    reduced: bool,
    remarks: Remarks | None = None,
) -> Generator[tuple[Sample[Any], Prediction] | DataError]:
    """Yield each picture with its prediction, in order; threads read pictures ahead.

    Args:
        predictor: What predicts them, such as a Predictor.
        pictures: The files.
        num_workers: Threads; 0 reads in this one.
        keep: Whether pictures come back with all their pixels; they then are decoded whole, and few wait.
        reduced: As in :func:`results_of`.
        remarks: Takes what should be said of the pictures.
    """
    scale = predictor.scale() if reduced and not keep else None

    def read(picture: ImageFile) -> Any:  # what its prepare returns, or a DataError
        sample = read_picture(picture, predictor.preprocessing.channels, scale, remarks)
        if isinstance(sample, DataError):
            return sample
        try:
            return predictor.prepare(sample, keep=keep)
        except Exception as e:
            return DataError(f"{picture.path}: cannot be brought to the model's size ({type(e).__name__}: {e})")

    few = keep or predictor.views.several  # whole pictures can be large
    depth = max(1, num_workers) if few else 2 * (predictor.batch_size + num_workers)
    return predictor.results(prefetch_map(read, pictures, threads=num_workers, depth=depth))
