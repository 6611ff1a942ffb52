"""MultiTaskHead: several heads on one backbone and one neck."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from visionkit.core.component import spec_of
from visionkit.core.errors import UsageError
from visionkit.core.prediction import recorded
from visionkit.core.tally import Tally
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head, HeadFactory
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget, names_of
from visionkit.tasks.multitask.writers import writers_of

if TYPE_CHECKING:
    from visionkit.training.metric import MetricFactory, TaskMetric

__all__ = ["MultiTaskHead", "MultiTaskOutputs"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class MultiTaskOutputs(NamedTuple):
    """What several heads compute for B images.

    Args:
        parts: The outputs of each head that was asked, by its name.
        rows: Positions of the images that each was asked about; None where all were asked about all: the number of
            images then is that of the tensors, and no graph that is made of the network holds it.
        images: Number of images, B; None where ``rows`` is.
        idle: Zero with gradients to all levels, where a head was not asked, else None.
    """

    parts: dict[str, Any]
    rows: dict[str, list[int]] | None = None
    images: int | None = None
    idle: Tensor | None = None


class MultiTaskHead(Head):
    """Several heads of any kind, which learn from the pictures that are labelled for them.

    Each reads the levels that its class wants, the neck's or the backbone's own (``Head.reads``). Its losses are named
    ``head/loss``.

    Args:
        features: Spec of the levels of MultiTaskNeck.
        num_classes: Number of classes of all heads together.
        heads: Makes each head, by its name.
        sizes: Number of classes of each head, by its name, in the order of the class names.
        levels: How many of the levels are the backbone's own.
        weights: Weight of each head's losses in the sum, above 0; heads that are not named have 1.
        balance: "fixed" takes these weights as they are. "uncertainty" learns a factor exp(-s) beside each and adds
            s / 2 (Kendall et al., CVPR 2018, equation 10); losses of evaluations are without it.

    Raises:
        UsageError: Names or numbers of classes do not fit, or a weight is out of range.
    """

    prediction = MultiTaskPrediction

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        heads: Mapping[str, HeadFactory],
        sizes: Mapping[str, int],
        levels: int,
        weights: Mapping[str, float] | None = None,
        balance: Literal["fixed", "uncertainty"] = "fixed",
    ) -> None:
        super().__init__()
        if balance not in ("fixed", "uncertainty"):
            raise UsageError(f"balance={balance!r}: fixed or uncertainty")
        self.heads = nn.ModuleDict()
        for name in heads:
            if not NAME.fullmatch(name):
                raise UsageError(f"head {name!r}: a name has letters, digits, _ and - alone and starts with a letter")
            if hasattr(self.heads, name):  # torch keeps modules as attributes
                raise UsageError(f"head {name!r}: torch uses this name itself; choose another one, as {name}_head")
        for name, weight in (weights or {}).items():
            if name not in heads:
                raise UsageError(f"weights: there is no head {name!r}; there are {', '.join(heads)}")
            if not 0 < weight < float("inf"):
                raise UsageError(f"weights.{name}={weight}: a number above 0")
        if sum(sizes.values()) != num_classes:
            raise UsageError(f"sizes {dict(sizes)} add up to {sum(sizes.values())} classes, there are {num_classes}")
        self.levels = levels
        own = {
            "backbone": FeatureSpec(features.channels[:levels], features.strides[:levels]),
            "neck": FeatureSpec(features.channels[levels:], features.strides[levels:]),
        }
        for name, make in heads.items():
            self.heads[name] = _make(name, make, own, sizes[name])
        starts = accumulate(sizes.values(), initial=0)
        self.first_ids = dict(zip(sizes, starts, strict=False))
        """Id of each head's first class among those of all heads."""
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in heads}
        self.log_variances = nn.Parameter(torch.zeros(len(heads))) if balance == "uncertainty" else None
        self.writers, self.standard = writers_of(self.each())
        self.scored = any(head.scored for head in self.each().values())

    def each(self) -> dict[str, Head]:
        """Return the heads by name."""
        return {name: head for name, head in self.heads.items() if isinstance(head, Head)}

    def forward(self, features: list[Tensor]) -> MultiTaskOutputs:
        """Ask all heads about all images.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, the backbone's first.
        """
        return MultiTaskOutputs({name: head(self._levels(head, features)) for name, head in self.each().items()})

    def forward_for(self, features: list[Tensor], targets: Sequence[MultiTaskTarget]) -> MultiTaskOutputs:
        """Ask each head about the images that are labelled for it.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, the backbone's first.
            targets: The truth of each image, length B.
        """
        return self._ask(features, {name: labelled(name, targets) for name in self.heads})

    def loss(self, outputs: MultiTaskOutputs, targets: Sequence[MultiTaskTarget]) -> dict[str, Tensor]:
        """Return the losses of the heads that were asked, by ``head/loss``, times the head's weight.

        Args:
            outputs: What ``forward_for`` or ``forward`` returned; all images must be labelled for the heads that were
                asked.
            targets: The truth of each image, length B.
        """
        losses: dict[str, Tensor] = {}
        for position, (name, head) in enumerate(self.each().items()):
            factor: Tensor | float = self.weights[name]
            asked = name in outputs.parts
            if self.training and self.log_variances is not None:
                s = self.log_variances[position]
                factor = factor * torch.exp(-s)
                losses["uncertainty"] = losses.get("uncertainty", 0.0) + (0.5 if asked else 0.0) * s
            if not asked:
                if self.training:
                    losses[f"{name}/none"] = _no_loss(head, outputs.idle)
                continue
            rows = range(len(targets)) if outputs.rows is None else outputs.rows[name]
            truth = [targets[row].parts[name] for row in rows]
            for key, value in head.loss(outputs.parts[name], truth).items():
                losses[f"{name}/{key}"] = value * factor
        return losses

    def decode(self, outputs: MultiTaskOutputs) -> list[MultiTaskPrediction]:
        """Return what the heads that were asked say of each image."""
        found = {name: head.decode(outputs.parts[name]) for name, head in self.each().items() if name in outputs.parts}
        count = len(next(iter(found.values()))) if outputs.images is None else outputs.images
        parts: list[dict[str, Any]] = [{} for _ in range(count)]
        for name, predictions in found.items():
            rows = range(count) if outputs.rows is None else outputs.rows[name]
            for row, prediction in zip(rows, predictions, strict=True):
                parts[row][name] = prediction
        return [MultiTaskPrediction(p) for p in parts]

    def subjects(
        self,
        outputs: MultiTaskOutputs,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return what each head says of the first image; ``most`` is that of each."""
        found: list[Subject] = []
        for name, head in self.each().items():
            first = self.first_ids[name]
            own = {k - first for k in without}
            scores = {k - first: score for k, score in least.items()}
            subjects = head.subjects(outputs.parts[name], most=most, min_score=min_score, least=scores, without=own)
            found += [Subject(first + s.label, s.score, (name, s), s.box, s.mask) for s in subjects]
        return found

    def evidence(self, outputs: MultiTaskOutputs, subject: Subject) -> Evidence:
        """Return what speaks for a subject among the outputs of its head."""
        name, own = subject.place
        return self.each()[name].evidence(outputs.parts[name], own)

    def from_record(self, record: Mapping[str, Any], names: Sequence[str]) -> MultiTaskPrediction:
        """Return the prediction of which a line of ``predictions.jsonl`` was made: each head reads its own part.

        Args:
            record: What ``MultiTaskPrediction.record`` returned.
            names: Class names of all heads, as ``head/class``.
        """
        own = {name: recorded(record, name) for name in self.heads}
        return MultiTaskPrediction({k: h.from_record(own[k], names_of(k, names)) for k, h in self.each().items()})

    def recall(self, record: Mapping[str, Any], names: Sequence[str]) -> MultiTaskPrediction:
        """Return what rows of the tables are made of, where only the record is left: of each head its own part."""
        own = {name: recorded(record, name) for name in self.heads}
        return MultiTaskPrediction({k: h.recall(own[k], names_of(k, names)) for k, h in self.each().items()})

    def tally(self, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return what each head's part of a record says in numbers, by the head's name."""
        found: dict[str, Tally] = {}
        for name, head in self.each().items():
            parts = head.tally(recorded(record, name), min_score)
            found |= {name if len(parts) == 1 else f"{name}/{what}": tally for what, tally in parts.items()}
        return found

    def count_labelled(self, loss: str, targets: Sequence[MultiTaskTarget]) -> int:
        """Return how many of the targets are labelled for the head of a loss."""
        return len(labelled(loss.partition("/")[0], targets))

    def metric(self, classes: Sequence[str], given: Mapping[str, MetricFactory] = MappingProxyType({})) -> TaskMetric:
        """Return the metrics of all heads in one.

        Args:
            classes: Class names of all heads, as ``head/class``.
            given: Makes the metric of a head, by its name, in place of the head's own.

        Raises:
            UsageError: There is no such head.
        """
        from visionkit.tasks.multitask.metric import MultiTaskMetric  # torchmetrics: slow to import

        if unknown := given.keys() - self.heads.keys():
            raise UsageError(f"model.metrics: there is no head {min(unknown)!r}; there are {', '.join(self.heads)}")
        made = {name: given.get(name, head.metric)(names_of(name, classes)) for name, head in self.each().items()}
        return MultiTaskMetric(classes, made)

    def summary(self) -> str:
        """Return the heads' names, for the first lines of a run."""
        return " + ".join(f"{type(head).__name__} ({name})" for name, head in self.each().items())

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the heads inside instead of what made them."""
        return {**super().recorded_arguments(), "heads": {name: spec_of(head) for name, head in self.each().items()}}

    def _levels(self, head: Head, features: list[Tensor]) -> list[Tensor]:
        """Return the levels that a head reads."""
        return features[: self.levels] if head.reads == "backbone" else features[self.levels :]

    def _ask(self, features: list[Tensor], rows: Mapping[str, list[int]]) -> MultiTaskOutputs:
        asked = {name: which for name, which in rows.items() if which}
        count = len(features[0])
        parts = {}
        for name, head in self.each().items():
            if name not in asked:
                continue
            which = asked[name]
            own = self._levels(head, features)
            parts[name] = head(own if len(which) == count else [_take(level, which) for level in own])
        idle = None
        if len(parts) < len(self.heads):
            idle = torch.stack([level[0, 0, 0, 0].float() for level in features]).sum() * 0.0
        return MultiTaskOutputs(parts, asked, count, idle)


def labelled(name: str, targets: Sequence[MultiTaskTarget]) -> list[int]:
    """Return the positions of the targets that are labelled for a head."""
    return [row for row, target in enumerate(targets) if name in target.parts]


def _no_loss(head: Head, idle: Tensor | None) -> Tensor:
    """Return zero, with gradients for a head and the levels: processes without a label for it wait for the others."""
    trained = [p.sum() * 0.0 for p in head.parameters() if p.requires_grad]
    return torch.stack(trained if idle is None else [*trained, idle]).sum()


def _take(level: Tensor, rows: Sequence[int]) -> Tensor:
    """Return some images of a level [B, C, H, W]; no copy where they stand together."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return level[rows[0] : rows[-1] + 1]
    return level[torch.tensor(rows, device=level.device)]


def _make(name: str, make: HeadFactory, own: Mapping[str, FeatureSpec], size: int) -> Head:
    """Make a head from the levels that its class reads, which only a head itself says where a function makes it."""
    reads = getattr(getattr(make, "func", make), "reads", None)
    if reads != "backbone":
        try:
            if (head := make(own["neck"], size)).reads == "neck":
                return head
        except UsageError as e:
            if reads == "neck":
                raise UsageError(f"heads.{name}: {e}") from e
    try:
        return make(own["backbone"], size)
    except UsageError as e:
        raise UsageError(f"heads.{name}: {e}") from e
