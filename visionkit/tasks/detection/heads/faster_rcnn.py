"""FasterRCNNHead: a first stage proposes boxes, a second looks at the features under each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head
from visionkit.models.ops.boxes import clip
from visionkit.models.ops.fused_norm import rectified
from visionkit.models.ops.nms import NMS, suppress
from visionkit.models.ops.roi_align import roi_align
from visionkit.tasks.detection.heads.anchors import cell_anchors, decode_offsets, encode_offsets, grid_anchors
from visionkit.tasks.detection.heads.checks import check_choice, check_counts, check_shares
from visionkit.tasks.detection.heads.evidence import box_subjects, place_of
from visionkit.tasks.detection.heads.rpn import choose, match_anchors, match_rois, propose
from visionkit.tasks.detection.types import BOX_COLUMNS, BoxPrediction, BoxTarget
from visionkit.tasks.detection.writers import BOX_WRITERS

if TYPE_CHECKING:
    from visionkit.training.metric import TaskMetric

__all__ = ["FasterRCNNHead", "FasterRCNNOutputs", "Sampled"]

OFFSET_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the second stage's offsets, which brings them to a spread of about one
SMOOTH_L1_BETA = 1 / 9  # where the box losses turn from square to linear
MIN_SIDE = 1e-2  # pixels; thinner detections are dropped


class FasterRCNNOutputs(NamedTuple):
    """What the first stage computes, and what the second looks at. B images, A anchors of all levels."""

    levels: tuple[Tensor, ...]
    """Float [B, C, H_l, W_l], fine to coarse."""
    objectness: Tensor
    """Float [B, A], logits of whether an anchor is an object."""
    offsets: Tensor
    """Float [B, A, 4], from the anchor to its object."""


class Sampled(NamedTuple):
    """The boxes that the second stage learns from; R of all images together."""

    boxes: list[Tensor]
    """float32 [R_i, 4] of each image, xyxy in pixels; objects first."""
    labels: Tensor
    """int64 [R], 0 is background, class k is k + 1."""
    truth: Tensor
    """float32 [P, 4], the boxes that the objects among them belong to."""
    match: list[Tensor]
    """int64 [P_i] of each image, their positions among its boxes that are no crowds."""


class FasterRCNNHead(Head):
    """Faster R-CNN (Ren et al., NeurIPS 2015) on a feature pyramid (Lin et al., CVPR 2017, section 4.2).

    Use it behind a feature pyramid of levels 2 to 6 with ``extra: pool``. The defaults are lean, for a CPU and small
    data. The paper's and torchvision's are: width 1024, rois_per_image 512, pre_nms_train 2000, post_nms_train 2000
    and post_nms_eval 1000.

    The losses are ``rpn_objectness``, ``rpn_box``, ``classification`` and ``box``. In evaluation mode they use the
    same random choice for every image and weigh images equally, so that they do not depend on how images are batched.

    Args:
        features: Spec of the feature maps, all of the same number of channels; strides are powers of two.
        num_classes: Number of classes, K.
        anchor_scale: Side of a square anchor in cells of its level, >= 1; 8 gives 32 pixels on level 2.
        anchor_ratios: Heights over widths of the anchors, > 0.
        rpn_positive_iou: Overlap with an object from which an anchor is an object too, 0..1.
        rpn_negative_iou: Overlap below which an anchor is background, 0..rpn_positive_iou.
        anchors_per_image: Anchors of an image that the first stage learns from, >= 1.
        rpn_positive_fraction: Part of them that may be objects, 0..1.
        pre_nms_train: Most certain anchors of each level that become boxes in training, >= 1.
        pre_nms_eval: The same in evaluation.
        post_nms_train: Proposals of an image that suppression leaves in training, >= 1.
        post_nms_eval: The same in evaluation; the second stage looks at each of them.
        rpn_nms_threshold: Overlap from which proposals suppress each other, 0..1.
        roi_levels: Finest levels that the second stage reads, >= 1.
        roi_size: Cells along each side of what the second stage sees of a box, 1..128.
        sampling_ratio: Sampling points along each side of such a cell, 1..16.
        width: Units of the second stage's two hidden layers, >= 1.
        positive_iou: Overlap with an object from which a proposal belongs to it, 0..1.
        rois_per_image: Proposals of an image that the second stage learns from, >= 1.
        positive_fraction: Part of them that may be objects, 0..1.
        nms: How boxes of one object become one: "hard", "soft" (lowers scores; for crowded objects) or "none".
        nms_threshold: Overlap from which boxes of a class show the same object, 0..1; used by "hard".
        score_threshold: Probability that a box must exceed to be returned, 0..1.
        detections: Boxes of an image that are returned at most, >= 1.

    Raises:
        UsageError: A value is out of range, or the levels differ in channels.
    """

    prediction: ClassVar[type[BoxPrediction]] = BoxPrediction
    writers = BOX_WRITERS
    columns: tuple[str, ...] = BOX_COLUMNS
    scored = True

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        anchor_scale: float = 8.0,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_positive_iou: float = 0.7,
        rpn_negative_iou: float = 0.3,
        anchors_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        pre_nms_train: int = 1000,
        pre_nms_eval: int = 1000,
        post_nms_train: int = 500,
        post_nms_eval: int = 300,
        rpn_nms_threshold: float = 0.7,
        roi_levels: int = 4,
        roi_size: int = 7,
        sampling_ratio: int = 2,
        width: int = 512,
        positive_iou: float = 0.5,
        rois_per_image: int = 128,
        positive_fraction: float = 0.25,
        nms: NMS = "hard",
        nms_threshold: float = 0.5,
        score_threshold: float = 0.05,
        detections: int = 100,
    ) -> None:
        super().__init__()
        check_counts(
            num_classes=num_classes,
            anchors_per_image=anchors_per_image,
            pre_nms_train=pre_nms_train,
            pre_nms_eval=pre_nms_eval,
            post_nms_train=post_nms_train,
            post_nms_eval=post_nms_eval,
            roi_levels=roi_levels,
            width=width,
            rois_per_image=rois_per_image,
            detections=detections,
        )
        check_counts(128, roi_size=roi_size)  # of what all boxes together look at, the memory goes by the square
        check_counts(16, sampling_ratio=sampling_ratio)
        check_shares(
            rpn_positive_iou=rpn_positive_iou,
            rpn_negative_iou=rpn_negative_iou,
            rpn_positive_fraction=rpn_positive_fraction,
            rpn_nms_threshold=rpn_nms_threshold,
            positive_iou=positive_iou,
            positive_fraction=positive_fraction,
            nms_threshold=nms_threshold,
            score_threshold=score_threshold,
        )
        if rpn_negative_iou > rpn_positive_iou:
            raise UsageError(f"head.rpn_negative_iou={rpn_negative_iou}: at most rpn_positive_iou={rpn_positive_iou}")
        if anchor_scale < 1 or not anchor_ratios or min(anchor_ratios) <= 0:
            raise UsageError(
                f"head: anchor_scale={anchor_scale} (1 or more cells), anchor_ratios={list(anchor_ratios)} (above 0)"
            )
        check_choice("nms", nms, get_args(NMS))
        if len(set(features.channels)) > 1 or any(s & (s - 1) for s in features.strides):
            raise UsageError(
                f"FasterRCNNHead needs levels of equal channels and strides that are powers of two, got channels "
                f"{list(features.channels)} and strides {list(features.strides)}: put an FPN before it"
            )
        self.num_classes, self.strides = num_classes, features.strides
        self.anchor_scale, self.anchor_ratios = anchor_scale, tuple(anchor_ratios)
        self.rpn_iou = (rpn_positive_iou, rpn_negative_iou)
        self.rpn_sample = (anchors_per_image, rpn_positive_fraction)
        self.pre_nms = {True: pre_nms_train, False: pre_nms_eval}  # by self.training
        self.post_nms = {True: post_nms_train, False: post_nms_eval}
        self.rpn_nms_threshold = rpn_nms_threshold
        self.roi_levels, self.roi_size, self.sampling_ratio = roi_levels, roi_size, sampling_ratio
        self.positive_iou = positive_iou
        self.roi_sample = (rois_per_image, positive_fraction)
        self.nms, self.nms_threshold = nms, nms_threshold
        self.score_threshold, self.detections = score_threshold, detections
        channels = features.channels[0]
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_output = nn.Conv2d(channels, 5 * len(self.anchor_ratios), 1)  # objectness of all anchors, then offsets
        self.hidden = nn.Sequential(
            nn.Linear(channels * roi_size**2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )  # reads cells row by row, the channels of a cell side by side
        self.classifier = nn.Linear(width, num_classes + 1)  # slot 0 is background
        self.regressor = nn.Linear(width, 4 * (num_classes + 1))
        for weight in (self.rpn_conv.weight, self.rpn_output.weight, self.classifier.weight):
            nn.init.normal_(weight, std=0.01)
        nn.init.normal_(self.regressor.weight, std=0.001)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("hidden"):
                nn.init.kaiming_uniform_(parameter, a=1)

    def forward(self, features: list[Tensor]) -> FasterRCNNOutputs:
        """Compute the first stage.

        Args:
            features: One tensor [B, C, H/s_l, W/s_l] a level, fine to coarse.
        """
        objectness, offsets, count = [], [], len(self.anchor_ratios)
        for x in features:
            y = self.rpn_output(rectified(self.rpn_conv(x))).permute(0, 2, 3, 1)  # [B, H, W, 5 * count]
            objectness.append(y[..., :count].flatten(1))
            offsets.append(y[..., count:].reshape(x.shape[0], -1, 4))
        return FasterRCNNOutputs(tuple(features), torch.cat(objectness, 1), torch.cat(offsets, 1))

    def loss(self, outputs: FasterRCNNOutputs, targets: Sequence[BoxTarget]) -> dict[str, Tensor]:
        """Return the losses of both stages, each the mean over what was sampled.

        Boxes of crowds are no objects, and what lies in them by half of its area or more is no background.

        Args:
            outputs: What ``forward`` returned.
            targets: The objects of each image, length B.
        """
        return self._losses(outputs, targets)[0]

    def _losses(self, outputs: FasterRCNNOutputs, targets: Sequence[BoxTarget]) -> tuple[dict[str, Tensor], Sampled]:
        """Return the losses, and what the second stage learnt from."""
        device = outputs.objectness.device
        truth = [t.boxes[~t.crowd].to(device).float() for t in targets]
        labels = [t.labels[~t.crowd].to(device) for t in targets]
        crowds = [t.boxes[t.crowd].to(device).float() for t in targets]
        objectness, offsets = outputs.objectness.float(), outputs.offsets.float()
        losses = self._first_losses(objectness, offsets, torch.cat(self._anchors(outputs)), truth, crowds)
        sampled = self._sample(self._propose(outputs), truth, labels, crowds)
        return {**losses, **self._second_losses(outputs.levels, sampled)}, sampled

    def metric(self, classes: Sequence[str]) -> TaskMetric:
        """Return a DetectionMetric."""
        from visionkit.tasks.detection.metrics.metric import DetectionMetric  # torchmetrics: slow to import

        return DetectionMetric(classes)

    @torch.no_grad()
    def decode(self, outputs: FasterRCNNOutputs) -> list[BoxPrediction]:
        """Return the boxes of each image, cut off at the network's input."""
        proposals = self._propose(outputs)
        logits, offsets = self._look(outputs.levels, proposals)
        scores = logits.softmax(1)[:, 1:]
        row, label = torch.nonzero(scores > self.score_threshold, as_tuple=True)
        scores = scores[row, label]
        boxes = clip(
            decode_offsets(offsets[row, label + 1], torch.cat(proposals)[row], OFFSET_WEIGHTS), self._size(outputs)
        )
        counts = torch.tensor([len(p) for p in proposals], device=row.device)
        image = torch.arange(len(proposals), device=row.device).repeat_interleave(counts)[row]
        thick = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
        same = self.nms_threshold if self.nms == "hard" else None
        predictions = []
        for k in range(len(proposals)):
            own = torch.nonzero(thick & (image == k))[:, 0]
            kept, value = suppress(
                boxes[own],
                scores[own],
                label[own],
                kind=self.nms,
                threshold=self.nms_threshold,
                limit=self.detections,
                min_score=self.score_threshold,
            )
            predictions.append(BoxPrediction(boxes[own][kept], value, label[own][kept], same=same))
        return predictions

    @torch.no_grad()
    def subjects(
        self,
        outputs: FasterRCNNOutputs,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return the objects of the first image, each with the proposal that its box comes from."""
        first = FasterRCNNOutputs(tuple(x[:1] for x in outputs.levels), outputs.objectness[:1], outputs.offsets[:1])
        (proposals,) = self._propose(first)
        logits, offsets = self._look(first.levels, [proposals])
        scores, size = logits.softmax(1), self._size(outputs)
        (found,) = FasterRCNNHead.decode(self, first)

        def place(box: Tensor, label: int) -> Tensor:
            boxes = clip(decode_offsets(offsets[:, label + 1], proposals, OFFSET_WEIGHTS), size)
            return proposals[place_of(box, boxes, scores[:, label + 1])]

        return box_subjects(found, most, min_score, least, place)

    def evidence(self, outputs: FasterRCNNOutputs, subject: Subject) -> Evidence:
        """Return the logits and probabilities of the object's class that the second stage reads in its proposal."""
        logits, _ = self._look(outputs.levels, [subject.place[None]] * len(outputs.objectness))
        return Evidence(logits[:, subject.label + 1], logits.softmax(1)[:, subject.label + 1])

    # ---- first stage

    def _size(self, outputs: FasterRCNNOutputs) -> tuple[int, int]:
        """Return height and width of the network's input, rounded up to cells of the finest level."""
        height, width = outputs.levels[0].shape[-2:]
        return height * self.strides[0], width * self.strides[0]

    def _anchors(self, outputs: FasterRCNNOutputs) -> list[Tensor]:
        device = outputs.objectness.device
        cells = [cell_anchors([self.anchor_scale * s], self.anchor_ratios).to(device) for s in self.strides]
        return grid_anchors([(x.shape[-2], x.shape[-1]) for x in outputs.levels], self.strides, cells)

    @torch.no_grad()
    def _propose(self, outputs: FasterRCNNOutputs) -> list[Tensor]:
        return propose(
            outputs.objectness.float(),
            outputs.offsets.float(),
            self._anchors(outputs),
            self._size(outputs),
            before=self.pre_nms[self.training],
            after=self.post_nms[self.training],
            threshold=self.rpn_nms_threshold,
        )

    def _first_losses(
        self, objectness: Tensor, offsets: Tensor, anchors: Tensor, truth: list[Tensor], crowds: list[Tensor]
    ) -> dict[str, Tensor]:
        positive, negative, goals = [], [], []
        for k, (boxes, crowd) in enumerate(zip(truth, crowds, strict=True)):
            matched = match_anchors(anchors, boxes, *self.rpn_iou)
            objects, match, background = choose(anchors, matched, crowd, *self.rpn_sample, self._generator())
            positive.append(objects + k * len(anchors))
            negative.append(background + k * len(anchors))
            goals.append(encode_offsets(boxes[match], anchors[objects]))
        share = self._shares([len(p) + len(n) for p, n in zip(positive, negative, strict=True)], objectness.device)
        chosen = torch.cat(positive + negative)
        wanted = (torch.arange(len(chosen), device=chosen.device) < sum(map(len, positive))).float()
        loss = F.binary_cross_entropy_with_logits(objectness.flatten()[chosen], wanted, reduction="none")
        positions = torch.cat(positive)
        move = F.smooth_l1_loss(
            offsets.flatten(0, 1)[positions], torch.cat(goals), beta=SMOOTH_L1_BETA, reduction="none"
        )
        return {
            "rpn_objectness": (loss * share[chosen // len(anchors)]).sum(),
            "rpn_box": (move.sum(1) * share[positions // len(anchors)]).sum(),
        }

    # ---- second stage

    @torch.no_grad()
    def _sample(
        self, proposals: list[Tensor], truth: list[Tensor], labels: list[Tensor], crowds: list[Tensor]
    ) -> Sampled:
        """Choose the proposals to learn from; the true boxes are proposals too."""
        chosen, classes, goals, matches = [], [], [], []
        for found, boxes, label, crowd in zip(proposals, truth, labels, crowds, strict=True):
            candidates = torch.cat([found, boxes])
            matched = match_rois(candidates, boxes, self.positive_iou)
            objects, match, background = choose(candidates, matched, crowd, *self.roi_sample, self._generator())
            chosen.append(candidates[torch.cat([objects, background])])
            classes += [label[match] + 1, label.new_zeros(len(background))]
            goals.append(boxes[match])
            matches.append(match)
        return Sampled(chosen, torch.cat(classes), torch.cat(goals), matches)

    def _look(self, levels: Sequence[Tensor], rois: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits, float32 [R, K + 1], and offsets, float32 [R, K + 1, 4], of R boxes of all images."""
        x = self.hidden(self._align(levels, rois, self.roi_size).permute(0, 2, 3, 1).flatten(1))
        return self.classifier(x).float(), self.regressor(x).float().view(len(x), self.num_classes + 1, 4)

    def _align(self, levels: Sequence[Tensor], rois: list[Tensor], size: int) -> Tensor:
        """Return the features under R boxes of all images, [R, C, size, size]."""
        used = self.roi_levels
        return roi_align(levels[:used], rois, self.strides[:used], output_size=size, sampling_ratio=self.sampling_ratio)

    def _second_losses(self, levels: Sequence[Tensor], sampled: Sampled) -> dict[str, Tensor]:
        logits, offsets = self._look(levels, sampled.boxes)
        counts = [len(b) for b in sampled.boxes]
        share = self._shares(counts, logits.device).repeat_interleave(torch.tensor(counts, device=logits.device))
        loss = F.cross_entropy(logits, sampled.labels, reduction="none")
        objects = torch.nonzero(sampled.labels)[:, 0]
        goals = encode_offsets(sampled.truth, torch.cat(sampled.boxes)[objects], OFFSET_WEIGHTS)
        found = offsets[objects, sampled.labels[objects]]
        move = F.smooth_l1_loss(found, goals, beta=SMOOTH_L1_BETA, reduction="none").sum(1)
        return {"classification": (loss * share).sum(), "box": (move * share[objects]).sum()}

    def _generator(self) -> torch.Generator | None:
        """Return where the random numbers for an image come from; in evaluation they are always the same."""
        return None if self.training else torch.Generator().manual_seed(0)

    def _shares(self, counts: list[int], device: torch.device) -> Tensor:
        """Return what each sampled box of an image adds to a mean, [B]: over all boxes, or image by image."""
        if self.training:
            return torch.full((len(counts),), 1 / max(sum(counts), 1), device=device)
        return 1 / (torch.tensor(counts, device=device).clamp(min=1) * len(counts))
