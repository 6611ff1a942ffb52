"""Classifier: the task of classification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from visionkit.data.transforms.mix import MixUpCutMix
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.tasks.classification.heads import LinearHead
from visionkit.training.metric import TaskMetric
from visionkit.training.recipe import Recipe
from visionkit.training.task import Task

__all__ = ["Classifier"]


class Classifier(Task):
    """One class, or several, for a whole picture.

    Args:
        backbone: Turns pictures into feature maps: ResNet or TimmBackbone.
        head: Turns feature maps into classes: LinearHead or MLPHead.
        classes: Class names; the command line takes them from the data.
        multilabel: Whether a picture can have several classes; the command line takes it from the data.
        preprocessing: Brings pictures to the model's size; the command line takes it from the data.
        recipe: Optimizer, schedule, averaging and stopping.
        metric: Judges the predictions and says which checkpoint is the best: a TaskMetric; none takes the head's.
        mix: MixUpCutMix blends the pictures of a training batch; none leaves them.
        seed: Seed of dropout, stochastic depth and mix; the command line takes it from seed_everything.
        teacher: A checkpoint, the folder of a run, or a list of them: bigger models, or several together, that it
            learns from beside its labels, as recipe.teacher_weight says; none learns from labels alone.
    """

    config = "classify.yaml"

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[FeatureSpec, int], Head] = LinearHead,
        classes: Sequence[str] = (),
        *,
        multilabel: bool = False,
        preprocessing: Preprocessing | None = None,
        recipe: Recipe | None = None,
        metric: Callable[[Sequence[str]], TaskMetric] | None = None,
        mix: MixUpCutMix | None = None,
        seed: int = 0,
        teacher: list[str] | str | None = None,
    ) -> None:
        make_head = partial(head, multilabel=True) if multilabel else head  # type: ignore[call-arg]  # heads of this room take it
        model = VisionModel(backbone, make_head, classes, preprocessing=preprocessing)
        super().__init__(model, metric, recipe=recipe, batch_transform=mix, seed=seed, teacher=teacher)
