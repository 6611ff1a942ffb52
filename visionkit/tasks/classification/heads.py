"""Classification heads: global average pooling, then a linear layer or an MLP."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head, Lesson
from visionkit.tasks.classification.losses import (
    binary_cross_entropy,
    binary_divergence,
    focal_loss,
    soft_cross_entropy,
    softmax_divergence,
)
from visionkit.tasks.classification.solve import solve
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget

if TYPE_CHECKING:
    from visionkit.training.metric import TaskMetric

__all__ = ["ClassificationHead", "ClassificationOutputs", "LinearHead", "LossName", "MLPHead"]

MAX_LAYERS = 1000
LossName = Literal["cross_entropy", "bce", "focal"]


class ClassificationOutputs(NamedTuple):
    """What a classification head computes."""

    logits: Tensor
    """Float [B, K]."""


class ClassificationHead(Head):
    """What all classification heads share: pooling, loss and decoding. Subclasses set ``self.classifier``.

    Args:
        multilabel: Whether several classes can be present at once; the command line takes it from the data.
        loss: "cross_entropy" (one label), "bce" or "focal" (either); None takes cross_entropy for one label and bce
            for several.
        label_smoothing: Part of the truth that is spread over all classes, 0..1 (Szegedy et al. 2016).
        focal_gamma: How strongly the focal loss turns away from easy examples, >= 0 (Lin et al. 2017).
        threshold: Probability from which a class counts as present, with several labels.
    """

    prediction = ClassPrediction
    reads = "backbone"
    teacher_temperature = 3.0

    classifier: nn.Module

    def __init__(
        self,
        *,
        multilabel: bool = False,
        loss: LossName | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.multilabel = multilabel
        self.says_one = not multilabel
        self.loss_name: LossName = loss or ("bce" if multilabel else "cross_entropy")
        if multilabel and self.loss_name == "cross_entropy":
            raise UsageError(
                "loss cross_entropy is for one label an image, but the data has several: "
                "use --model.head.loss bce or focal"
            )
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing must lie in 0..1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.threshold = threshold

    def forward(self, features: list[Tensor]) -> ClassificationOutputs:
        """Compute the logits [B, K] from the coarsest level.

        Args:
            features: One tensor [B, C_l, H_l, W_l] a level, fine to coarse.
        """
        pooled = features[-1].mean(dim=(2, 3))  # [B, C]
        return ClassificationOutputs(self.classifier(pooled))

    def loss(self, outputs: ClassificationOutputs, targets: Sequence[ClassTarget]) -> dict[str, Tensor]:
        """Return ``{"loss": mean over the batch}``.

        Args:
            outputs: Logits [B, K].
            targets: Scores [K] and class weights of each image; all weights are the same tensor.
        """
        logits = outputs.logits
        scores = torch.stack([t.scores for t in targets]).to(logits.device)  # [B, K]
        weights = targets[0].weights
        if weights is not None:
            weights = weights.to(logits.device)
        return {"loss": self._loss(logits, scores, weights)}

    def _loss(self, logits: Tensor, scores: Tensor, weights: Tensor | None) -> Tensor:
        """Return the mean loss of logits and scores, [B, K]."""
        if self.loss_name == "cross_entropy":
            return soft_cross_entropy(logits, scores, weights=weights, label_smoothing=self.label_smoothing)
        if self.loss_name == "bce":
            return binary_cross_entropy(logits, scores, weights=weights, label_smoothing=self.label_smoothing)
        return focal_loss(
            logits,
            scores,
            gamma=self.focal_gamma,
            multilabel=self.multilabel,
            weights=weights,
            label_smoothing=self.label_smoothing,
        )

    def decode(self, outputs: ClassificationOutputs) -> list[ClassPrediction]:
        """Return the probabilities of each image; computed in float32."""
        return [
            ClassPrediction(p, self.multilabel, self.threshold) for p in self.probabilities(outputs.logits).unbind()
        ]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return what logits [B, K] say, float32 [B, K]: each class by itself, or in rows that sum to one."""
        logits = logits.float()
        if self.multilabel:
            return logits.sigmoid()
        if self.loss_name == "bce":  # one label trained as K yes/no questions: the answers, scaled to sum to one
            return nn.functional.normalize(logits.sigmoid(), p=1.0, dim=1)
        return logits.softmax(dim=1)

    def subjects(
        self,
        outputs: ClassificationOutputs,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return the label, or of several labels those at or above their threshold; see :meth:`Head.subjects`.

        That is the class's in ``least``, else the head's. Where no label reaches it, it is the most probable one.
        Labels are no objects: neither ``min_score`` nor the name of a background leaves any of them out.
        """
        probabilities = self.probabilities(outputs.logits)[0].detach()
        order = probabilities.argsort(descending=True, stable=True).tolist()
        count = 1
        if self.multilabel:
            there = probabilities >= probabilities.new_tensor([least.get(k, self.threshold) for k in range(len(order))])
            order = [k for k in order if there[k]] or order[:1]
            count = len(order)
        return [Subject(k, float(probabilities[k])) for k in order[: min(count, most)]]

    def evidence(self, outputs: ClassificationOutputs, subject: Subject) -> Evidence:
        """Return the class's logits and probabilities."""
        return Evidence(outputs.logits[:, subject.label].float(), self.probabilities(outputs.logits)[:, subject.label])

    def check_teacher(self, teacher: Head, shared: int) -> None:
        """Refuse what is no classifier, one of another kind of labels, and one class, which is told from no other."""
        if not isinstance(teacher, ClassificationHead):
            raise UsageError(f"a {type(teacher).__name__} says no classes of whole pictures: give a classifier's")
        if teacher.multilabel != self.multilabel:
            kinds = ("one class a picture", "several classes a picture")
            raise UsageError(f"it says {kinds[teacher.multilabel]}, the data have {kinds[self.multilabel]}")
        if shared < 2 and not self.multilabel:
            raise UsageError("it knows one of the data's classes, and tells it from no other of them: two are needed")

    def imitate(
        self, outputs: ClassificationOutputs, targets: Sequence[ClassTarget], lesson: Lesson
    ) -> dict[str, Tensor]:
        """Return the divergence from the teacher's probabilities of the classes that both know.

        Pictures of classes that it does not know, or the share of them in a blend, do not count.

        Args:
            outputs: Logits [B, K].
            targets: Scores [K] of each image.
            lesson: Of a head that passed :meth:`check_teacher`.
        """
        assert isinstance(lesson.head, ClassificationHead)
        logits = outputs.logits[:, lesson.own]  # [B, S]
        binary = self.loss_name == "bce" or self.multilabel
        with torch.no_grad():
            taught = lesson.outputs.logits[:, lesson.theirs].float() / lesson.temperature
            answers = binary and lesson.head.loss_name == "bce"  # to yes/no questions, by both
            truth = taught.sigmoid() if answers else lesson.head.probabilities(taught)
        if self.multilabel:
            return {"imitation": binary_divergence(logits, truth, temperature=lesson.temperature).mean()}
        divergence = (binary_divergence if binary else softmax_divergence)(
            logits, truth, temperature=lesson.temperature
        )
        known = torch.stack([t.scores for t in targets]).to(logits.device)[:, lesson.own].sum(1)  # [B]
        return {"imitation": (divergence * known).mean()}

    def reduce_for_cache(self, features: list[Tensor]) -> list[Tensor]:
        """Return the coarsest level's mean, [B, C, 1, 1]."""
        return [features[-1].mean(dim=(2, 3), keepdim=True)]

    def metric(self, classes: Sequence[str]) -> TaskMetric:
        """Return a ClassificationMetric."""
        from visionkit.tasks.classification.metric import ClassificationMetric  # torchmetrics: slow to import

        return ClassificationMetric(classes, multilabel=self.multilabel)


class LinearHead(ClassificationHead):
    """Global average pooling, dropout and one linear layer: the ResNet classifier (He et al. 2016).

    Args:
        features: Spec of the feature maps; the coarsest is used.
        num_classes: Number of classes, K.
        dropout: Part of the pooled features that is dropped in training, 0..1.
        options: Those of all classification heads, see ClassificationHead.
    """

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        linear = nn.Linear(features.channels[-1], num_classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)

    def fit(self, features: Sequence[Tensor], targets: Sequence[ClassTarget]) -> str:
        """Set the layer to what solves the task on features that do not change; see :meth:`Head.fit`."""
        assert isinstance(self.classifier, nn.Sequential)
        linear = self.classifier[-1]
        assert isinstance(linear, nn.Linear)
        scores = torch.stack([t.scores for t in targets])
        weights = targets[0].weights
        pooled = features[-1].float().mean(dim=(2, 3))
        solved, strength = solve(pooled, scores, lambda logits, truth: self._loss(logits, truth, weights))
        with torch.no_grad():
            linear.weight.copy_(solved.weight)
            linear.bias.copy_(solved.bias)
        return f"a linear layer on {len(targets):,} frozen features, weight penalty {strength:g}"


class MLPHead(ClassificationHead):
    """Global average pooling and a multi-layer perceptron with LayerNorm and ReLU (works with a batch of one).

    Args:
        features: Spec of the feature maps; the coarsest is used.
        num_classes: Number of classes, K.
        layers: Number of hidden layers, 1..1000.
        width: Units of each hidden layer, >= 1.
        dropout: Part of each hidden layer's units that is dropped in training, 0..1.
        options: Those of all classification heads, see ClassificationHead.
    """

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        layers: int = 1,
        width: int = 512,
        dropout: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 1 <= layers <= MAX_LAYERS or width < 1:
            raise UsageError(
                f"an MLP has 1 to {MAX_LAYERS} hidden layers of at least one unit; got {layers} of {width}"
            )
        sizes = [features.channels[-1]] + [width] * layers
        modules: list[nn.Module] = []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            modules += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU(), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*modules, nn.Linear(width, num_classes))
