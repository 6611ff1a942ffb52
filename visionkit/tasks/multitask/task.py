"""MultiTask: several tasks on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from visionkit.core.component import Spec
from visionkit.core.errors import UsageError
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.data.transforms.scale import MultiScale
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.models.necks.base import Neck
from visionkit.models.necks.fpn import FPN
from visionkit.tasks.multitask.head import MultiTaskHead
from visionkit.tasks.multitask.neck import MultiTaskNeck
from visionkit.tasks.multitask.types import names_of
from visionkit.training.metric import TaskMetric
from visionkit.training.recipe import Recipe
from visionkit.training.task import Task

__all__ = ["MultiTask"]


class MultiTask(Task):
    """Several heads on one backbone and one neck, trained together.

    Args:
        backbone: Turns pictures into feature maps: ResNet or TimmBackbone.
        heads: The heads, by names of your choice, which the data sets of MultiTaskData have, too. Detectors and
            FPNSegmentationHead read the neck, classifiers, FCNHead and DeepLabV3PlusHead the backbone.
        neck: Turns the backbone's feature maps into a pyramid: FPN. It is left out where no head reads it.
        classes: Class names as head/class; the command line takes them from the data.
        weights: Weight of each head's losses in the sum, above 0; heads that are not named have 1.
        balance: "fixed" takes these weights, "uncertainty" learns a factor beside each (Kendall et al., CVPR 2018).
        multilabel: Names of the heads of classification whose pictures can have several classes; the command line takes
            them from the data.
        preprocessing: Brings pictures to the model's size; the command line takes it from the data.
        recipe: Optimizer, schedule, averaging and stopping.
        metrics: Judges the predictions of a head, by its name: a TaskMetric each; heads that are not named have their
            own.
        multi_scale: MultiScale gives each training batch a random size; none leaves them.
        seed: Seed of dropout, stochastic depth, sampling and sizes; the command line takes it from seed_everything.
    """

    config = "multitask.yaml"

    def __init__(
        self,
        backbone: Backbone,
        heads: dict[str, Callable[[FeatureSpec, int], Head]],
        neck: Callable[[FeatureSpec], Neck] = FPN,
        classes: Sequence[str] = (),
        *,
        weights: dict[str, float] | None = None,
        balance: Literal["fixed", "uncertainty"] = "fixed",
        multilabel: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
        recipe: Recipe | None = None,
        metrics: dict[str, Callable[[Sequence[str]], TaskMetric]] | None = None,
        multi_scale: MultiScale | None = None,
        seed: int = 0,
    ) -> None:
        labelled = list(dict.fromkeys(name.partition("/")[0] for name in classes))
        if sorted(labelled) != sorted(heads):
            raise UsageError(
                f"model.heads are {', '.join(heads)}, data.datasets are {', '.join(labelled)}: give both the same names"
            )
        made: dict[str, Callable[..., Head]] = {**heads}
        for name in multilabel:
            made[name] = partial(made[name], multilabel=True)
        head = partial(
            MultiTaskHead,
            heads=made,
            sizes={name: len(names_of(name, classes)) for name in labelled},
            levels=len(backbone.features.strides),
            weights=weights,
            balance=balance,
        )
        model = VisionModel(backbone, head, classes, partial(MultiTaskNeck, neck=neck), preprocessing=preprocessing)
        assert isinstance(model.head, MultiTaskHead)
        if all(each.reads == "backbone" for each in model.head.each().values()):
            model.neck = MultiTaskNeck(backbone.features)  # no head reads another
        metric = partial(model.head.metric, given=metrics or {})
        super().__init__(model, metric, recipe=recipe, batch_transform=multi_scale, seed=seed)

    @classmethod
    def config_of(cls, model: Spec) -> dict[str, Any]:
        """Return the keys of a config that describe a model."""
        head = model["head"]["init_args"]
        given = {key: head[key] for key in ("heads", "weights", "balance") if head.get(key) is not None}
        return {"backbone": model["backbone"], "neck": model["neck"]["init_args"]["neck"], **given}

    @classmethod
    def trains(cls, head: Head) -> bool:
        """Return whether a head consists of several."""
        return isinstance(head, MultiTaskHead)
