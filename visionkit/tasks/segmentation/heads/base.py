"""What all segmentation heads share (losses, an auxiliary loss, decoding), and the plain one: FCN."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head, Lesson
from visionkit.models.ops.fused_norm import ConvNormReLU
from visionkit.models.ops.norm import BatchNorm2d
from visionkit.tasks.segmentation.heads.evidence import component_evidence, components
from visionkit.tasks.segmentation.heads.imitation import cell_divergence, cell_weights, same_cells, taught_pixels
from visionkit.tasks.segmentation.heads.losses import (
    cross_entropy_and_dice,
    dice_loss,
    focal_loss,
    lovasz_softmax,
    ohem_cross_entropy,
    pixel_cross_entropy,
)
from visionkit.tasks.segmentation.types import MAX_CLASSES, MaskPrediction, MaskTarget
from visionkit.tasks.segmentation.writers import WRITERS

if TYPE_CHECKING:
    from visionkit.training.metric import TaskMetric

__all__ = [
    "LOSSES",
    "FCNHead",
    "SegmentationHead",
    "SegmentationOutputs",
    "check_channels",
    "convolution",
    "initialise",
    "last_convolution",
    "upsample",
]

LOSSES = ("cross_entropy", "dice", "focal", "lovasz", "ohem")
MAX_STRIDE = 32  # stride beyond which logits have lost the picture
AUX_STRIDE = 16

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


class SegmentationOutputs(NamedTuple):
    """What a segmentation head computes."""

    logits: Tensor
    """Float [B, K, h, w], of cells of the head's ``stride`` pixels."""
    aux: Tensor | None = None
    """Float [B, K, h', w'], logits of the auxiliary loss, in training only."""


class SegmentationHead(Head):
    """What all segmentation heads share. Subclasses implement ``scores`` and set ``stride``.

    Args:
        features: Spec of the feature maps.
        num_classes: Number of classes, K, 2..255.
        losses: Weight of each loss in the sum; names are cross_entropy, dice, focal, lovasz and ohem. None takes
            cross_entropy alone.
        label_smoothing: Part of the truth that is spread over all classes by cross_entropy and ohem, 0 up to, but not,
            1 (Szegedy et al. 2016).
        focal_gamma: How strongly the focal loss turns away from easy pixels, from 0 on (Lin et al. 2017).
        ohem_fraction: Part of the pixels that ohem learns, the hardest, above 0 and up to 1.
        aux: Weight of the cross-entropy of a small FCN on the level of stride 16 (the last but one where that is the
            last or missing), from 0 on; 0 for none. It works in training only.
        dropout: Part of the features before the classifier that is dropped in training, 0 up to, but not, 1.

    Raises:
        UsageError: A value is out of range, or the features have no level for the auxiliary loss.
    """

    prediction = MaskPrediction
    writers = WRITERS
    standard = ("mask",)
    reads: ClassVar[Literal["neck", "backbone"]] = "backbone"
    teacher_temperature = 1.0

    stride: int
    """Side of a cell of the logits in pixels of the image that the model saw."""

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        losses: dict[str, float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        ohem_fraction: float = 0.25,
        aux: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        _check_classes(num_classes)
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"head.label_smoothing={label_smoothing}: 0 up to, but not, 1")
        if not focal_gamma >= 0:
            raise UsageError(f"head.focal_gamma={focal_gamma}: a number from 0 on")
        if not 0 < ohem_fraction <= 1:
            raise UsageError(f"head.ohem_fraction={ohem_fraction}: above 0 and up to 1")
        if not aux >= 0:
            raise UsageError(f"head.aux={aux}: a weight from 0 on; 0 for no auxiliary loss")
        if not 0 <= dropout < 1:
            raise UsageError(f"head.dropout={dropout}: 0 up to, but not, 1")
        self.num_classes = num_classes
        self.weights = _check_losses({"cross_entropy": 1.0} if losses is None else losses)
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.ohem_fraction = ohem_fraction
        self.aux = aux
        self.dropout_share = dropout
        self.auxiliary: nn.Module | None = None
        if aux > 0:
            strides = features.strides
            if len(strides) < 2:
                raise UsageError(f"head.aux={aux}: needs two levels or more, got strides {list(strides)}: set it to 0")
            middle = strides.index(AUX_STRIDE) if AUX_STRIDE in strides[:-1] else len(strides) - 2
            self.aux_level = middle
            self.aux_stride = strides[middle]
            self.auxiliary = _fcn(features.channels[middle], num_classes, dropout)

    def metric(self, classes: Sequence[str]) -> TaskMetric:
        """Return a SegmentationMetric."""
        from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric  # torchmetrics: slow to import

        return SegmentationMetric(classes)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Compute the logits [B, K, h, w] of cells of ``stride`` pixels.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse; sizes round up.
        """
        raise NotImplementedError

    def forward(self, features: list[Tensor]) -> SegmentationOutputs:
        """Compute the outputs, those of the auxiliary loss in training only.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse; sizes round up.
        """
        aux = self.auxiliary(features[self.aux_level]) if self.auxiliary is not None and self.training else None
        return SegmentationOutputs(self.scores(features), aux)

    def loss(self, outputs: SegmentationOutputs, targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """Return each loss that is used times its weight, under its name, and "aux" where it was computed.

        They are those of all pixels of the batch. In evaluation mode they are the mean of what each image has alone, so
        that they do not depend on how images are batched.

        Args:
            outputs: What ``forward`` returned.
            targets: The mask of each image, all of one size, length B; class weights are those of the first.
        """
        mask = torch.stack([t.mask for t in targets]).to(outputs.logits.device)  # [B, H, W]
        weights = targets[0].weights
        if weights is not None:
            weights = weights.to(mask.device)
        smooth = partial(pixel_cross_entropy, weights=weights, label_smoothing=self.label_smoothing)
        known: dict[str, Loss] = {
            "cross_entropy": smooth,
            "dice": dice_loss,
            "focal": partial(focal_loss, gamma=self.focal_gamma, weights=weights),
            "lovasz": lovasz_softmax,
            "ohem": partial(
                ohem_cross_entropy,
                fraction=self.ohem_fraction,
                weights=weights,
                label_smoothing=self.label_smoothing,
            ),
        }
        pixels = _pixels(outputs.logits, self.stride, mask)
        together = {"cross_entropy", "dice"} if self.training and not self.label_smoothing else set()
        values = {}
        if together <= self.weights.keys() and together:
            values = dict(zip(sorted(together), cross_entropy_and_dice(pixels, mask, weights=weights), strict=True))
        values |= {n: self._value(known[n], pixels, mask) for n in self.weights if n not in values}
        losses = {name: weight * values[name] for name, weight in self.weights.items()}
        if outputs.aux is not None:
            losses["aux"] = self.aux * self._value(smooth, _pixels(outputs.aux, self.aux_stride, mask), mask)
        return losses

    def decode(self, outputs: SegmentationOutputs) -> list[MaskPrediction]:
        """Return the prediction of each image, whose pixels are computed when they are asked for."""
        return [MaskPrediction.of(x, self.stride) for x in outputs.logits.detach()]

    def subjects(
        self,
        outputs: SegmentationOutputs,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return the largest connected components of the first image's classes, whatever their score."""
        return components(outputs.logits[0], self.stride, most, without)

    def evidence(self, outputs: SegmentationOutputs, subject: Subject) -> Evidence:
        """Return the sum of the class's logits over the component, and its mean probability there."""
        return component_evidence(outputs.logits, subject)

    def check_teacher(self, teacher: Head, shared: int) -> None:
        """Refuse what is no segmenter, and one class, which is told from no other."""
        if not isinstance(teacher, SegmentationHead):
            raise UsageError(f"a {type(teacher).__name__} says no classes of pixels: give a segmenter's")
        if shared < 2:
            raise UsageError("it knows one of the data's classes, and tells it from no other of them: two are needed")

    def imitate(self, outputs: SegmentationOutputs, targets: Sequence[MaskTarget], lesson: Lesson) -> dict[str, Tensor]:
        """Return the divergence from the teacher's probabilities of the classes that both know, on the finer cells.

        Args:
            outputs: Logits [B, K, h, w].
            targets: The mask of each image; pixels without a label count where the picture shows something.
            lesson: Of a head that passed :meth:`check_teacher`.
        """
        assert isinstance(lesson.head, SegmentationHead)
        strides = (lesson.head.stride / lesson.scale[0], lesson.head.stride / lesson.scale[1])
        taught = lesson.outputs.logits[:, lesson.theirs]
        logits, taught, cell = same_cells(outputs.logits[:, lesson.own], self.stride, taught, strides)
        mask = torch.stack([t.mask for t in targets]).to(logits.device)
        pixels = taught_pixels(lesson.images, mask, lesson.own)
        weights = cell_weights(pixels, (logits.shape[2], logits.shape[3]), cell)
        return {"imitation": cell_divergence(logits, taught, weights, temperature=lesson.temperature)}

    def _value(self, loss: Loss, pixels: Sequence[Tensor], mask: Tensor) -> Tensor:
        if self.training:
            return loss(pixels, mask)
        return torch.stack([loss(pixels[i : i + 1], mask[i : i + 1]) for i in range(len(mask))]).mean()


class FCNHead(SegmentationHead):
    """Fully convolutional network (Long et al., CVPR 2015), in torchvision's form: 3x3 convolution, 1x1 classifier.

    The 3x3 convolution has a quarter of the level's channels, with batch normalisation, ReLU and dropout behind it.
    The logits are as coarse as the level: for sharp borders give the backbone an output_stride of 8, or take another
    head.

    Args:
        features: Spec of the feature maps; one level is used.
        num_classes: Number of classes, K, 2..255.
        level: Position of the level that is used, 0 the finest, -1 the coarsest; its stride is 32 at most.
        options: Those of all segmentation heads, see SegmentationHead.

    Raises:
        UsageError: A value is out of range, or there is no such level.
    """

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(features, num_classes, **options)
        strides = features.strides
        if not -len(strides) <= level < len(strides):
            raise UsageError(
                f"head.level={level}: the features have levels 0..{len(strides) - 1} (strides {list(strides)})"
            )
        if strides[level] > MAX_STRIDE:
            raise UsageError(
                f"head.level={level}: its cells of {strides[level]} pixels are too coarse for FCNHead: take a "
                f"level of stride {MAX_STRIDE} or less (strides {list(strides)}), or leave the neck out "
                "(model.neck IdentityNeck)"
            )
        self.level = level
        self.stride = strides[level]
        self.layers = _fcn(features.channels[level], num_classes, self.dropout_share)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Compute the logits [B, K, h, w] from one level."""
        logits: Tensor = self.layers(features[self.level])
        return logits


def convolution(channels: int, out: int, kernel: int) -> nn.Sequential:
    """Return a convolution that keeps the size, batch normalisation and ReLU.

    Args:
        channels: Channels that come in.
        out: Channels that go out.
        kernel: Side of the kernel, odd.
    """
    conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    return ConvNormReLU(conv, BatchNorm2d(out), nn.ReLU(inplace=True))


def last_convolution(channels: int, num_classes: int) -> nn.Conv2d:
    """Return the 1x1 convolution that makes logits: at first all classes are about equally likely."""
    conv = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def initialise(module: nn.Module) -> None:
    """Draw the weights of convolutions that a ReLU follows (He et al., ICCV 2015), depthwise ones included."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")


def upsample(x: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Return finer maps [B, C, *size]: bilinear by exactly the factor, then cut, so that cells stay where they are.

    Args:
        x: Float [B, C, h, w].
        factor: Cells that one becomes, along each side.
        size: Height and width that are kept, at most h * factor and w * factor.
    """
    if factor > 1:
        x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[..., : size[0], : size[1]]


def check_channels(channels: int) -> None:
    """Raise a UsageError unless there is one channel or more."""
    if channels < 1:
        raise UsageError(f"head.channels={channels}: a whole number from 1 on")


def _fcn(channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return torchvision's FCNHead, under its parameter names."""
    middle = max(channels // 4, 1)
    block = convolution(channels, middle, 3)
    initialise(block)
    return nn.Sequential(*block, nn.Dropout(dropout), last_convolution(middle, num_classes))


def _pixels(logits: Tensor, stride: int, mask: Tensor) -> list[Tensor]:
    """Return the logits of each image's pixels, float32 [K, H, W] each.

    One image at a time: a batch of them exceeds what the allocator keeps, and fresh memory costs more than the work.
    """
    x = logits.float().contiguous()  # [B, K, h, w]; classes innermost would make each softmax twice as slow
    return [upsample(one[None], stride, mask.shape[1:])[0] for one in x]


def _check_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise UsageError(
            f"got {num_classes} class: a segmenter needs two classes or more: name the background as a class too"
        )
    if num_classes > MAX_CLASSES:
        raise UsageError(f"got {num_classes} classes: a mask of 8 bits holds {MAX_CLASSES} at most: merge some")


def _check_losses(losses: Mapping[str, float]) -> dict[str, float]:
    """Return the losses that count."""
    for name, weight in losses.items():
        if name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"head.losses={dict(losses)}: no loss is called {name!r}: {', '.join(LOSSES)}{hint}")
        if not 0 <= weight < float("inf"):
            raise UsageError(f"head.losses.{name}={weight}: a weight from 0 on")
    used = {name: float(weight) for name, weight in losses.items() if weight > 0}
    if not used:
        raise UsageError(f"head.losses={dict(losses)}: nothing to learn from: give one of {', '.join(LOSSES)} a weight")
    return used
