"""Models from checkpoints, as Python code uses them: they predict as ``visionkit predict`` does."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Self, overload

import torch
from torch import nn

from visionkit.core.prediction import Prediction
from visionkit.core.sample import Sample
from visionkit.models import checkpoint
from visionkit.models.model import VisionModel
from visionkit.prediction.ensemble import Ensemble, make_ensemble
from visionkit.prediction.members import Checkpoints
from visionkit.prediction.predictor import Predictor

__all__ = ["TrainedModel", "load"]


@overload
def load(
    path: str | os.PathLike[str], *, trust: Collection[str] = (), device: torch.device | str = "cpu"
) -> VisionModel: ...


@overload
def load(
    path: list[Any] | tuple[Any, ...], *, trust: Collection[str] = (), device: torch.device | str = "cpu"
) -> Ensemble: ...


def load(
    path: Checkpoints, *, trust: Collection[str] = (), device: torch.device | str = "cpu"
) -> VisionModel | Ensemble:
    """Load the model of a checkpoint, ready to predict (in evaluation mode).

    It is called with a picture, or several, as its ``predict`` is: ``load("runs/classify-1")("photo.jpg")``. It takes
    pictures as they are and says the same of them as ``visionkit predict``: on a CPU bit for bit,
    whatever they are predicted together with.

    Args:
        path: A file that ``visionkit fit`` or ``visionkit.save`` wrote, or the folder of a run: its best checkpoint.
            A list of several gives an ensemble, which predicts as one model: all are held at once.
        trust: Names of top-level packages, beside visionkit, whose classes the file may name.
        device: Where to put the model.

    Raises:
        DataError: The file is missing, damaged, of another kind or holds code.
        UsageError: The file names classes of a package that is not trusted.
    """
    if isinstance(path, str | os.PathLike):
        return TrainedModel.of(checkpoint.load(path, trust=trust, device=device))
    return make_ensemble(path, device=str(device), trust=trust)


class TrainedModel(VisionModel):
    """A model that predicts with what :class:`Predictor` makes of it, at the first call and when its weights change."""

    _predictor: Predictor | None
    _seen: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model: VisionModel) -> Self:
        """Return the same model with the same parts as one of this kind."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.__dict__.update(model.__dict__, _predictor=None, _seen=())
        return made

    def predict_samples(self, samples: Iterable[Sample[Any]]) -> Iterator[Prediction]:
        """Yield the prediction of each sample as read, in pixels of the original."""
        seen = tuple((t.data_ptr(), t._version) for t in (*self.parameters(), *self.buffers()))
        if self._predictor is None or self._seen != seen:
            self._predictor, self._seen = Predictor(self), seen
        return self._predictor(samples)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but what can be made again."""
        return {**self.__dict__, "_predictor": None, "_seen": ()}
