"""Evaluating: predictions against truth, told with intervals and with what goes wrong where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from visionkit.core.errors import DataError
from visionkit.core.prediction import Prediction
from visionkit.data.dataset import VisionDataset
from visionkit.evaluation.answers import Evidence
from visionkit.evaluation.calibration import calibration_of
from visionkit.evaluation.counting import Count, Predicts, count, count_predictions
from visionkit.evaluation.details import confusion_of, precision_recall_of, scores_of, worst_first
from visionkit.evaluation.error_gains import BoundaryBand, error_gains
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.measures import measure
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.training.redraw import RedrawnMetric

__all__ = ["evaluate", "evaluate_predictions", "evaluation_of", "new_count"]

CALIBRATED = "ece"
"""The number of a metric that cannot be told where calibration cannot."""


def evaluate(
    predictor: Predicts,
    dataset: VisionDataset[Any],
    metric: RedrawnMetric[Any, Any],
    *,
    task: str,
    workers: int = 0,
    on_error: Callable[[DataError], None] | None = None,
) -> Evaluation:
    """Predict the pictures of a data set and say how good the predictions are.

    Args:
        predictor: What predicts, such as a :class:`visionkit.prediction.predictor.Predictor`.
        dataset: Pictures with their truth; its classes are those of the predictor.
        metric: A new one of the task, over the same classes.
        task: "classification", "detection", "instance" or "segmentation".
        workers: Threads that read pictures.
        on_error: Is given what is wrong with a picture, which then is left out; None raises it.

    Raises:
        DataError: A picture cannot be read, or none is left.
    """
    counted = count(predictor, dataset, new_count(dataset, metric), workers=workers)
    return _told(counted, task, on_error)


def evaluate_predictions(
    predictions: Mapping[int, Prediction],
    dataset: VisionDataset[Any],
    metric: RedrawnMetric[Any, Any],
    *,
    task: str,
    on_error: Callable[[DataError], None] | None = None,
) -> Evaluation:
    """Say how good predictions are that are there already.

    Args:
        predictions: By the position of their picture in the data set, in pixels of the original.
        dataset: Pictures with their truth.
        metric: As in :func:`evaluate`.
        task: As in :func:`evaluate`.
        on_error: As in :func:`evaluate`.

    Raises:
        DataError: As in :func:`evaluate`.
    """
    return _told(count_predictions(predictions, dataset, new_count(dataset, metric)), task, on_error)


def new_count(dataset: VisionDataset[Any], metric: RedrawnMetric[Any, Any]) -> Count:
    """Return what counts the pictures of a data set, and gathers what is asked of them beside the metric.

    Args:
        dataset: The pictures.
        metric: A new one.
    """
    groups = getattr(dataset, "groups", None)
    return Count(
        metric,
        multilabel=bool(getattr(metric, "multilabel", False)),
        groups=dict(zip(dataset.ids, groups, strict=True)) if groups else {},
        evidence=Evidence(metric.classes),
        band=BoundaryBand(metric.classes) if isinstance(metric, SegmentationMetric) else None,
    )


def evaluation_of(
    counted: Count,
    *,
    task: str,
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    unknown: Sequence[str] = (),
) -> Evaluation:
    """Return an evaluation of what was counted.

    Args:
        counted: Pictures and what they add.
        task: "classification", "detection", "instance" or "segmentation".
        data: Where the pictures come from; see :class:`Evaluation`.
        model: What predicted; see :class:`Evaluation`.
        unknown: Keys of numbers that such predictions cannot tell; one that ends in a slash stands for all classes.
    """
    metric, evidence = counted.metric, counted.evidence
    told = Evaluation(task, metric.classes, counted.images, metric, {}, multilabel=counted.multilabel)
    numbers = measure(metric, told.groups)
    told.metrics = {k: v for k, v in numbers.items() if not any(_means(u, k) for u in unknown)}
    told.data, told.model = dict(data or {}), {"seconds_per_image": counted.seconds, **(model or {})}
    scores = scores_of(metric, counted.margins)
    told.confusion = confusion_of(metric, scores)
    told.worst = worst_first(scores)
    curves = {} if "map" in unknown else precision_recall_of(metric)
    told.curves = {"pr": curves} if curves else {}
    if evidence is not None and CALIBRATED not in unknown:
        told.calibration = calibration_of(evidence)
    errors = error_gains(metric, counted.band)
    told.errors = None if errors is None or errors["metric"] in unknown else errors
    return told


def _told(counted: Count, task: str, on_error: Callable[[DataError], None] | None) -> Evaluation:
    for problem in counted.problems:
        if on_error is None:
            raise problem
        on_error(problem)
    return evaluation_of(counted, task=task)


def _means(unknown: str, key: str) -> bool:
    return key == unknown or (unknown.endswith("/") and key.startswith(unknown))
