"""The contract of a head: the one place that knows a task's outputs, loss and predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from visionkit.core.component import Component
from visionkit.core.errors import DataError, UsageError
from visionkit.core.prediction import Prediction, Recorded
from visionkit.core.tally import Tally
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject

__all__ = ["Head", "HeadFactory", "Lesson"]


class Lesson(NamedTuple):
    """What a teacher says of a batch that a head learns from.

    Args:
        head: The teacher's head.
        outputs: What it computed of the batch, without gradients.
        own: int64 [S], ids of the classes that both know, in the head that learns.
        theirs: int64 [S], ids of the same classes in the teacher's.
        temperature: By which logits are divided before they are compared, > 0.
        images: uint8 [B, C, H, W], the pictures as the model that learns saw them.
        scale: Height and width of the pictures that the teacher saw, relative to those.
    """

    head: Head
    outputs: Any
    own: Tensor
    theirs: Tensor
    temperature: float
    images: Tensor
    scale: tuple[float, float] = (1.0, 1.0)


class Head(Component, nn.Module):
    """Turns feature maps into outputs, outputs into losses, and outputs into predictions.

    The first two constructor arguments are ``features: FeatureSpec`` and ``num_classes: int``, which the model passes;
    all others are keywords, which the configuration passes.
    """

    prediction: ClassVar[type[Prediction]] = Prediction
    """Class of the predictions that ``decode`` returns."""

    writers: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})
    """Further formats that its predictions are written in: what makes the writer of each, by the name that ``--format``
    gives; see :data:`visionkit.prediction.writers.Format`."""

    standard: tuple[str, ...] = ()
    """Those of the formats that are written without being asked for."""

    columns: tuple[str, ...] = ()
    """Keys of the predictions' ``rows``, in order: the table has them without any row, too."""

    scored: bool = False
    """Whether its predictions hold objects with scores, which ``at_least`` filters."""

    says_one: bool = False
    """Whether it says one thing alone of any image: one label. Explanations of such need no numbers."""

    reads: ClassVar[Literal["neck", "backbone"]] = "neck"
    """Which levels it takes where several heads share a backbone and a neck: the neck's, or the backbone's own."""

    teacher_temperature: ClassVar[float | None] = None
    """Temperature at which it learns from a teacher where none is asked for; None where it has no use for one."""

    def forward(self, features: list[Tensor]) -> Any:
        """Compute the outputs: a NamedTuple of tensors, the same in training and evaluation.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse.
        """
        raise NotImplementedError

    def loss(self, outputs: Any, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Return the named, weighted losses; the model minimises their sum.

        In evaluation mode each is the mean of what the images have alone, so that it does not depend on how they are
        put into batches: :class:`visionkit.Task` weighs batches by their number of images.

        Args:
            outputs: What ``forward`` returned.
            targets: The truth of each image, length B.
        """
        raise NotImplementedError

    def decode(self, outputs: Any) -> Sequence[Prediction]:
        """Turn outputs into predictions, length B, in pixels of the image that the model saw."""
        raise NotImplementedError

    def subjects(
        self,
        outputs: Any,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return what it says of the first image that can be explained, the most certain or largest first.

        A head that is to be explained defines this and :meth:`evidence`.

        Args:
            outputs: What ``forward`` returned, in evaluation mode.
            most: How many are returned at most.
            min_score: Of objects, the lowest score, 0..1; None takes the one from which on they are drawn.
            least: Class id -> the lowest score, 0..1, of objects, or of one of several labels, of that class: it goes
                before what counts for all classes.
            without: Ids of classes of which nothing is to be explained: a background.

        Raises:
            UsageError: This head's answers cannot be explained.
        """
        raise UsageError(
            f"{type(self).__name__} cannot be explained: it defines no subjects(outputs) and evidence(outputs, subject)"
        )

    def evidence(self, outputs: Any, subject: Subject) -> Evidence:
        """Return what speaks for a subject in each of B images of one size, with gradients to the features.

        Args:
            outputs: What ``forward`` returned for these images, in evaluation mode.
            subject: What :meth:`subjects` returned for one of them, or for an image like them.
        """
        raise UsageError(f"{type(self).__name__} cannot be explained: it defines no evidence(outputs, subject)")

    def fit(self, features: Sequence[Tensor], targets: Sequence[Any]) -> str:
        """Set the weights to what solves the task best on features that do not change, without steps.

        Args:
            features: One float tensor [N, C_l, H_l, W_l] a level, as ``reduce_for_cache`` returned them, of N images.
            targets: The truth of each image, length N.

        Returns:
            What was done, in a few words.

        Raises:
            UsageError: This head cannot.
        """
        raise UsageError(
            f"recipe.probe needs a head that is one linear layer, such as LinearHead: {type(self).__name__}"
        )

    def check_teacher(self, teacher: Head, shared: int) -> None:
        """Refuse a head that this one cannot learn from.

        Args:
            teacher: The head of a trained model.
            shared: Number of classes that both know, >= 1.

        Raises:
            UsageError: It cannot; by default from none.
        """
        raise UsageError(
            f"{type(self).__name__} learns from labels alone: classifiers, segmenters and FCOSHead learn from teachers"
        )

    def imitate(self, outputs: Any, targets: Sequence[Any], lesson: Lesson) -> dict[str, Tensor]:
        """Return the named, weighted losses of being unlike a teacher; 0 where both say the same.

        They are means over the batch as the losses of labels are, so that both can be blended.

        Args:
            outputs: What ``forward`` returned.
            targets: The truth of each image, length B; of classes that the teacher does not know, it says nothing.
            lesson: What the teacher says of the same batch; its head has passed ``check_teacher``.

        Raises:
            UsageError: It learns from no teacher.
        """
        self.check_teacher(lesson.head, len(lesson.own))
        raise NotImplementedError(f"{type(self).__name__} takes a teacher and does not imitate it")

    def from_record(self, record: Mapping[str, Any], names: Sequence[str]) -> Prediction:
        """Return the prediction of which a line of ``predictions.jsonl`` was made.

        Args:
            record: What ``Prediction.record`` returned.
            names: Class names, in the order of their ids.
        """
        return self.prediction.from_record(record, names)

    def recall(self, record: Mapping[str, Any], names: Sequence[str]) -> Prediction:
        """Return what a row of the table is made of, where only the record is left: a prediction, or the record itself.

        Args:
            record: What ``Prediction.record`` returned.
            names: Class names, in the order of their ids.

        Raises:
            DataError: It is no such record.
            UsageError: Such predictions are not read from records.
        """
        try:
            return self.from_record(record, names)
        except (DataError, UsageError):
            if self.prediction.rows is not Prediction.rows:
                raise
            return Recorded(record)  # the row is the record

    def tally(self, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return what a record says in numbers, by what is counted; see :meth:`Prediction.tally`.

        Args:
            record: What ``Prediction.record`` returned.
            min_score: Objects with a lower score were left out of it; None where none were.
        """
        return self.prediction.tally(record, min_score)

    def metric(self, classes: Sequence[str]) -> Any:
        """Return the TaskMetric that judges this head's predictions.

        Args:
            classes: Class names, in the order of their ids.
        """
        raise NotImplementedError(f"{type(self).__name__} names no metric: define its method metric(classes)")

    def forward_for(self, features: list[Tensor], targets: Sequence[Any]) -> Any:
        """Compute the outputs for images with these targets: ``forward``, unless the targets ask for less.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse.
            targets: The truth of each image, length B.
        """
        return self(features)

    def count_labelled(self, loss: str, targets: Sequence[Any]) -> int:
        """Return how many of the targets the loss of this name speaks of: all, unless several heads share them."""
        return len(targets)

    def reduce_for_cache(self, features: list[Tensor]) -> list[Tensor]:
        """Return features, smaller where possible, of which ``forward`` makes the same outputs.

        They are kept where a frozen backbone's features are computed once: what no parameter has a part in, such as
        pooling, is done already.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse.
        """
        return features

    def summary(self) -> str:
        """Return its name, for the first lines of a run."""
        return type(self).__name__

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the head without what the model passes."""
        return {k: v for k, v in super().recorded_arguments().items() if k not in ("features", "num_classes")}


HeadFactory = Callable[[FeatureSpec, int], Head]
"""Makes a head for feature maps of this spec and this number of classes."""
