"""Why a model says what it says of a picture: maps of the evidence, and what these maps are worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.thresholds import Thresholds
from visionkit.data.images.given import Pictures, is_one_picture, samples_of
from visionkit.data.transforms.preprocessing import to_original
from visionkit.models.evidence import Subject
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.convert import PredictionModel, convert
from visionkit.prediction.draw import is_background
from visionkit.prediction.explanations.judging import STEPS, Judge, Scored, region_of
from visionkit.prediction.explanations.maps import Looked, look

__all__ = ["MOST", "Explainer", "Explanation", "check_explained", "explain", "explain_samples"]

MOST = 3
"""Things of a picture that are explained, where nobody says how many."""


@dataclass(frozen=True)
class Explanation:
    """Where in a picture the evidence for one thing lies that a model says of it.

    Args:
        info: Of the picture, with the way back from pixels that the model saw.
        label: Name of the class.
        score: How certain the model is of it, 0..1.
        map: float32 [H, W] in pixels that the model saw: 0 where there is no evidence (or evidence against it), 1 where
            it is strongest. For an object it ends at twice its box.
        cells: Rows and columns of the finest map of the network that has a part in it; it is drawn smooth from these.
        scored: Insertion minus deletion (Petsiuk et al., BMVC 2018) of the map and of a blob in the centre.
        box: x1, y1, x2 and y2 in pixels of the original, of an object or of pixels of a class; None for a class.
        mask: Bool [H, W] in pixels that the model saw, where pixels of a class are explained, else None.
    """

    info: ImageInfo
    label: str
    score: float
    map: Tensor
    cells: tuple[int, int]
    scored: Scored
    box: tuple[float, float, float, float] | None = None
    mask: Tensor | None = None

    @property
    def image(self) -> str:
        """The picture as it was named."""
        return self.info.id

    @property
    def insertion_minus_deletion(self) -> float:
        """How well the map points at what the model goes by, -1..1: higher is better, 0 is chance."""
        return self.scored.map

    @property
    def centre_blob(self) -> float:
        """The same of a blob in the centre; a map that scores no higher explains nothing."""
        return self.scored.blob

    def draw(self, image: Tensor) -> Tensor:
        """Return the picture under the map, with a legend below, uint8 [3, h, w], at most 1024 pixels wide.

        Args:
            image: The picture as read, uint8 [1 or 3, H, W].
        """
        from visionkit.prediction.explanations.drawing import Legend, draw_map

        legend = Legend(self.label, self.score, self.scored, self.cells)
        return draw_map(image, self.map, self.info, legend, box=self.box, mask=self.mask)

    def record(self) -> dict[str, Any]:
        """Return what is said of it in numbers, JSON-ready, without the map."""
        box = {} if self.box is None else {"box": list(self.box)}
        return {
            "image": self.info.id,
            "label": self.label,
            "score": self.score,
            **box,
            "insertion_minus_deletion": self.scored.map,
            "centre_blob": self.scored.blob,
        }


def explain(
    model: VisionModel, pictures: Pictures, *, most: int = MOST, min_score: float | None = None
) -> list[Explanation] | list[list[Explanation]]:
    """Return where in pictures the evidence lies for what a model says of them.

    A classifier's label is explained (of several labels those at or above the threshold), the objects of a detector,
    and of a segmenter the largest regions of one class. Maps are HiResCAM on the maps that the backbone returns: the
    gradients of the class's logit, times the maps. Each is scored beside a blob in the centre, which takes some thirty
    times as long as the prediction.

    ``visionkit.explain(visionkit.load("runs/classify-1"), "photo.jpg")[0].record()``

    Args:
        model: In evaluation mode, as ``visionkit.load`` returns it of one checkpoint.
        pictures: A picture, or several, as the model itself takes them.
        most: Things of a picture that are explained at most, from 1 on; those of each head where a model has several.
        min_score: Lowest score of objects, 0..1, in place of the model's thresholds; None goes by these, as
            ``model.predict`` does, and where a class has none by the score from which on objects are drawn.

    Returns:
        A list a picture, the most certain (or largest) first, empty where there is nothing to explain; the list itself
        where one picture was given.

    Raises:
        UsageError: The model's head cannot be explained, it is in training mode or made for prediction alone, there
            are several models, or a value is out of range.
        DataError: A picture cannot be read.
    """
    check_explained(model)
    samples = samples_of(pictures, model.preprocessing.channels)
    found = list(explain_samples(model, samples, most=most, min_score=min_score))
    return found[0] if is_one_picture(pictures) else found


def explain_samples(
    model: VisionModel, samples: Iterable[Sample[Any]], *, most: int = MOST, min_score: float | None = None
) -> Iterator[list[Explanation]]:
    """Yield the explanations of each sample as read, one by one; arguments and errors as in :func:`explain`.

    Args:
        model: As there.
        samples: Pictures of any size; targets are left alone.
        most: As there.
        min_score: As there.
    """
    check_explained(model)
    thresholds = model.thresholds if min_score is None else None
    explainer = Explainer(model, most=most, min_score=min_score, thresholds=thresholds)
    return (explainer(sample) for sample in samples)


class Explainer:
    """Explains pictures, one after another.

    Maps are drawn with gradients, in 32 bits. They are judged by predictions of the same model made fast, as
    ``visionkit predict`` makes them.

    Args:
        model: As in :func:`explain`.
        most: As there.
        min_score: Lowest score of objects, 0..1; None takes the one from which on they are drawn.
        thresholds: Objects, and of several labels those, that do not reach their class's are not explained; a class
            without one goes by ``min_score``, labels by the head's own threshold. None has none.
        steps: Parts in which pixels come and go when a map is judged, 2 or more.

    Raises:
        UsageError: As there.
    """

    def __init__(
        self,
        model: VisionModel,
        *,
        most: int = MOST,
        min_score: float | None = None,
        thresholds: Thresholds | None = None,
        steps: int = STEPS,
    ) -> None:
        check_explained(model)
        if most < 1 or steps < 2:
            raise UsageError(f"explain: most={most} (from 1 on), steps={steps} (from 2 on)")
        if min_score is not None and not 0 <= min_score <= 1:
            raise UsageError(f"explain: min_score={min_score} (from 0 to 1)")
        self.model, self.fast = model, convert(model)
        self.most, self.min_score, self.steps = most, min_score, steps
        chosen = {} if thresholds is None else thresholds.values
        self.least = {k: v for k, name in enumerate(model.classes) if (v := chosen.get(name)) is not None}
        self.without = frozenset(k for k, name in enumerate(model.classes) if is_background(name))

    def __call__(self, sample: Sample[Any]) -> list[Explanation]:
        """Return the explanations of a sample as read, the most certain (or largest) first."""
        seen = self.model.preprocessing(sample.replace(target=None))
        looked = look(self.model, seen.image.to(self.model.scale.device))
        subjects = looked.subjects(most=self.most, min_score=self.min_score, least=self.least, without=self.without)
        return [self._explained(looked, seen, subject) for subject in subjects]

    def _explained(self, looked: Looked, seen: Sample[Any], subject: Subject) -> Explanation:
        """Return the map of a subject, and what it is worth."""
        region = region_of(subject.box, looked.size)
        found = looked.map_of(subject)
        values = region.cut(found.values).cpu()
        image = seen.image.to(self.model.scale.device)
        judge = Judge(lambda x: self.fast.evidence(x, subject).scores.float().cpu(), image, region, self.steps)
        shown = torch.zeros(looked.size)
        positive = values.clamp(min=0)
        region.cut(shown).copy_(positive / positive.max().clamp(min=torch.finfo(torch.float32).tiny))
        return Explanation(
            seen.info,
            self.model.classes[subject.label],
            subject.score,
            shown,
            found.cells,
            Scored(judge(values), judge(region.blob())),
            None if subject.box is None else _box(subject.box, seen.info),
            None if subject.mask is None else subject.mask[: looked.size[0], : looked.size[1]].cpu(),
        )


def check_explained(model: VisionModel) -> None:
    """Refuse a model that cannot be explained.

    Raises:
        UsageError: It is in training mode, was made for prediction alone, is an ensemble, or a head of it does not say
            what speaks for its answers.
    """
    if not isinstance(model, VisionModel):
        raise UsageError(
            f"explain tells what one model goes by: load one checkpoint ({type(model).__name__} is no model)"
        )
    if isinstance(model, PredictionModel):
        raise UsageError("explain takes a model as it was loaded: one that convert made has no gradients")
    if model.training:
        raise UsageError("the model is in training mode: call model.eval() before explain")
    for head in model.head.modules():
        if isinstance(head, Head) and type(head).evidence is Head.evidence:
            raise UsageError(
                f"{type(head).__name__} cannot be explained: it defines no subjects(outputs) and no "
                "evidence(outputs, subject)"
            )


def _box(box: tuple[float, float, float, float], info: ImageInfo) -> tuple[float, float, float, float]:
    """Return a box in pixels of the original, cut at it."""
    corners = to_original(torch.tensor(box).reshape(2, 2), info)  # x and y each
    limit = torch.tensor([info.size[1], info.size[0]], dtype=corners.dtype)
    x1, y1, x2, y2 = torch.minimum(corners.clamp(min=0), limit).flatten().tolist()
    return x1, y1, x2, y2
