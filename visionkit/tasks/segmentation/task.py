"""Segmenter: the task of segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.data.transforms.scale import MultiScale
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.models.necks.base import Neck
from visionkit.models.necks.identity import IdentityNeck
from visionkit.tasks.segmentation.heads.deeplab import DeepLabV3PlusHead
from visionkit.training.metric import TaskMetric
from visionkit.training.recipe import Recipe
from visionkit.training.task import Task

__all__ = ["Segmenter"]


class Segmenter(Task):
    """A class for each pixel.

    Args:
        backbone: Turns pictures into feature maps: ResNet or TimmBackbone. DeepLabV3PlusHead and FCNHead want
            output_stride 16, or 8 for finer borders at twice the cost.
        neck: FPN for FPNSegmentationHead; none for the others.
        head: Turns feature maps into classes: DeepLabV3PlusHead, FPNSegmentationHead or FCNHead.
        classes: Class names; the command line takes them from the data.
        preprocessing: Brings pictures to the model's size; the command line takes it from the data.
        recipe: Optimizer, schedule, averaging and stopping.
        metric: Judges the predictions and says which checkpoint is the best: a TaskMetric; none takes the head's.
        multi_scale: MultiScale gives each training batch a random size; none leaves them.
        seed: Seed of dropout, stochastic depth and sizes; the command line takes it from seed_everything.
        teacher: A checkpoint, the folder of a run, or a list of them: bigger models, or several together, that it
            learns from beside its labels, as recipe.teacher_weight says; none learns from labels alone.
    """

    config = "segment.yaml"

    def __init__(
        self,
        backbone: Backbone,
        neck: Callable[[FeatureSpec], Neck] = IdentityNeck,
        head: Callable[[FeatureSpec, int], Head] = DeepLabV3PlusHead,
        classes: Sequence[str] = (),
        *,
        preprocessing: Preprocessing | None = None,
        recipe: Recipe | None = None,
        metric: Callable[[Sequence[str]], TaskMetric] | None = None,
        multi_scale: MultiScale | None = None,
        seed: int = 0,
        teacher: list[str] | str | None = None,
    ) -> None:
        model = VisionModel(backbone, head, classes, neck, preprocessing=preprocessing)
        super().__init__(model, metric, recipe=recipe, batch_transform=multi_scale, seed=seed, teacher=teacher)
