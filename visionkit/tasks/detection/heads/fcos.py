"""FCOSHead: the anchor-free dense detector. Every location predicts classes and the distances to its box's edges."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head, Lesson
from visionkit.models.ops.boxes import BOX_LOSSES, BoxLoss, area, box_loss, clip, iou
from visionkit.models.ops.nms import NMS, suppress
from visionkit.tasks.detection.heads.assign import (
    Assignment,
    Points,
    assign_by_centre,
    assign_by_task,
    crowded,
    pad_objects,
)
from visionkit.tasks.detection.heads.checks import check_choice, check_counts, check_shares, check_weights
from visionkit.tasks.detection.heads.evidence import box_subjects, place_of
from visionkit.tasks.detection.heads.imitation import binary_divergence, nearest_locations, sure_of
from visionkit.tasks.detection.heads.locations import FCOSOutputs, grid_of, learning_of, rows_of
from visionkit.tasks.detection.heads.losses import distribution_focal_loss, focal_loss, quality_focal_loss
from visionkit.tasks.detection.heads.tower import Tower
from visionkit.tasks.detection.types import BOX_COLUMNS, BoxPrediction, BoxTarget
from visionkit.tasks.detection.writers import BOX_WRITERS

if TYPE_CHECKING:
    from visionkit.training.metric import TaskMetric

__all__ = ["FCOSHead", "FCOSOutputs"]

MAX_DEPTH = 1000
PRIOR_PROBABILITY = 0.01  # probability of an object at a location before anything is learnt (Lin et al., ICCV 2017)


class FCOSHead(Head):
    """One-stage, anchor-free detection head.

    FCOS (Tian et al., ICCV 2019) with what was learnt since: task-aligned assignment (TOOD, ICCV 2021), a class score
    that is the quality of its box and edges as distributions (Generalized Focal Loss, NeurIPS 2020), convolutions
    shared by the levels with batch statistics of their own (RTMDet, 2022). ``assign="centre", class_loss="focal",
    bins=0, norm="group", channels=256, depth=4, cell=0.0, box_weight=1`` is torchvision's FCOS.

    Args:
        features: Channels and strides of the incoming levels.
        num_classes: Number of classes, K.
        channels: Channels of the convolutions.
        depth: 3x3 convolutions before the last ones, in each of the two branches, from 0 on.
        norm: "batch" (each level has its own statistics) or "group" (32 groups; for batches of 1 to 4 pictures).
        assign: Which locations learn an object: "task_aligned", those that already predict it best, or "centre", those
            near its centre on the level of its size.
        candidates: Locations an object with "task_aligned", at most.
        radius: Cells around the centre with "centre".
        class_loss: "quality" makes the class score say how good its box is; "focal" is FCOS' own, with a
            separate centerness.
        box_loss: Overlap that boxes are trained on: "iou", "giou", "diou" or "ciou".
        box_weight: Weight of the box loss, from 0 on; the class loss has 1.
        bins: Each edge is a distribution over so many whole distances in cells (2 or more; large objects need
            bins times the coarsest stride); 0 predicts the distance itself.
        bins_weight: Weight of the distribution's own loss, from 0 on.
        cell: Where in its cell a location is, 0 (corner) .. 1; 0.5 is the middle.
        nms: "hard" removes boxes that overlap a better one of their class, "soft" lowers their score, "none" keeps all.
        nms_threshold: Overlap (intersection over union) from which "hard" removes, 0..1.
        score_threshold: Boxes of a lower score are not returned, 0..1.
        candidates_before_nms: The best so many boxes of an image are looked at.
        detections: Boxes an image, at most.

    Raises:
        UsageError: A value is out of range.
    """

    prediction = BoxPrediction
    writers = BOX_WRITERS
    columns = BOX_COLUMNS
    scored = True

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        channels: int = 128,
        depth: int = 2,
        norm: Literal["batch", "group"] = "batch",
        assign: Literal["task_aligned", "centre"] = "task_aligned",
        candidates: int = 13,
        radius: float = 1.5,
        class_loss: Literal["quality", "focal"] = "quality",
        box_loss: BoxLoss = "giou",
        box_weight: float = 2.0,
        bins: int = 16,
        bins_weight: float = 0.25,
        cell: float = 0.5,
        nms: NMS = "hard",
        nms_threshold: float = 0.6,
        score_threshold: float = 0.05,
        candidates_before_nms: int = 1000,
        detections: int = 100,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, ("batch", "group"))
        check_choice("assign", assign, ("task_aligned", "centre"))
        check_choice("class_loss", class_loss, ("quality", "focal"))
        check_choice("box_loss", box_loss, BOX_LOSSES)
        check_choice("nms", nms, get_args(NMS))
        check_shares(nms_threshold=nms_threshold, score_threshold=score_threshold, cell=cell)
        check_counts(
            channels=channels,
            candidates=candidates,
            candidates_before_nms=candidates_before_nms,
            detections=detections,
        )
        check_counts(MAX_DEPTH, depth=max(1, depth))
        check_weights(box_weight=box_weight, bins_weight=bins_weight)
        if bins < 0 or bins == 1 or depth < 0 or radius <= 0:
            raise UsageError(f"head: bins={bins} (0, or 2 and more), depth={depth} (0 and more), radius={radius} (> 0)")
        if norm == "group" and channels % 32:
            raise UsageError(f"head.channels={channels}: a multiple of 32 with norm group")
        if len(set(features.channels)) > 1:
            raise UsageError(
                f"FCOSHead takes levels of equal channels, got {list(features.channels)}: put an FPN before it "
                "(model.neck.class_path FPN)"
            )
        self.num_classes = num_classes
        self.strides = features.strides
        self.assign = assign
        self.candidates = candidates
        self.radius = radius
        self.class_loss = class_loss
        self.box_loss: BoxLoss = box_loss
        self.box_weight = box_weight
        self.bins = bins
        self.bins_weight = bins_weight
        self.cell = cell
        self.nms: NMS = nms
        self.nms_threshold = nms_threshold
        self.score_threshold = score_threshold
        self.candidates_before_nms = candidates_before_nms
        self.detections = detections
        levels = len(features.strides)
        self.class_tower = Tower(features.channels[0], channels, depth, norm, levels)
        self.box_tower = Tower(features.channels[0], channels, depth, norm, levels)
        width = channels if depth else features.channels[0]
        self.classes = _last(width, num_classes, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        self.edges = _last(width, 4 * (bins or 1), 0.0 if bins else 2.0)  # directly, boxes start 4 cells wide
        self.centerness = _last(width, 1, 0.0) if class_loss == "focal" else None

    def forward(self, features: list[Tensor]) -> FCOSOutputs:
        """Compute the outputs of all locations.

        Args:
            features: One tensor [B, C, H/s_l, W/s_l] a level, fine to coarse.
        """
        logits, edges, centerness, centres, strides = [], [], [], [], []
        for level, (x, stride) in enumerate(zip(features, self.strides, strict=True)):
            classes, boxes = self.class_tower(x, level), self.box_tower(x, level)
            logits.append(rows_of(self.classes(classes)))
            edges.append(rows_of(self.edges(boxes)))
            centerness.append(logits[-1][..., :0] if self.centerness is None else rows_of(self.centerness(boxes)))
            grid = grid_of(x.shape[-2], x.shape[-1], self.cell, x.device)
            centres.append(grid * stride)  # [H * W, 2]
            strides.append(grid.new_full((grid.shape[0],), stride))
        return FCOSOutputs(
            torch.cat(logits, 1), torch.cat(edges, 1), torch.cat(centerness, 1), torch.cat(centres), torch.cat(strides)
        )

    def loss(self, outputs: FCOSOutputs, targets: Sequence[BoxTarget]) -> dict[str, Tensor]:
        """Return "classification", "box" and, where they exist, "distribution" and "centerness".

        Each is a sum over the locations of the batch divided by the number of positive ones (with class_loss "quality"
        by the sum of their qualities), at least 1. In evaluation mode it is the mean of what each image has alone, so
        that it does not depend on how images are batched.

        Args:
            outputs: What ``forward`` returned.
            targets: The objects of each image, length B; none is legal.
        """
        points = Points(outputs.centres, outputs.strides)
        objects = pad_objects(targets)
        logits = outputs.logits.float()
        with torch.no_grad():
            if self.assign == "centre":
                assigned = assign_by_centre(points, objects, radius=self.radius)
                if self.class_loss == "quality":
                    overlap = iou(self.boxes(outputs), assigned.boxes)
                    assigned = assigned._replace(quality=torch.where(assigned.positive, overlap, 0.0))
            else:
                boxes = self.boxes(outputs)  # [B, A, 4]
                assigned = assign_by_task(points, objects, boxes, logits.sigmoid(), candidates=self.candidates)
            if self.class_loss == "focal":
                assigned = assigned._replace(quality=assigned.positive.float())
            counted = assigned.positive | ~crowded(points, objects)  # [B, A]
            share = self._shares(assigned.quality)  # [B, 1]
            truth = torch.zeros_like(logits)  # [B, A, K]
            truth.scatter_(2, assigned.labels[..., None], assigned.quality[..., None])
        loss = quality_focal_loss if self.class_loss == "quality" else focal_loss
        losses = {"classification": (loss(logits, truth).sum(-1) * counted * share).sum()}
        learning, goals, share = learning_of(outputs, assigned, share, every=logits.device.type != "cpu")  # N locations
        weight = goals.quality * share  # [N]
        losses["box"] = self.box_weight * (box_loss(self.box_loss, self.boxes(learning), goals.boxes) * weight).sum()
        if self.bins:
            losses["distribution"] = self.bins_weight * (self._edge_loss(learning, goals) * weight).sum()
        if self.centerness is not None:
            losses["centerness"] = (self._centerness_loss(learning, goals) * goals.positive * share).sum()
        return losses

    def check_teacher(self, teacher: Head, shared: int) -> None:
        """Refuse all but dense detectors of this kind."""
        if not isinstance(teacher, FCOSHead):
            raise UsageError(f"a {type(teacher).__name__} says nothing of each location: give a model with FCOSHead")

    def imitate(self, outputs: FCOSOutputs, targets: Sequence[BoxTarget], lesson: Lesson) -> dict[str, Tensor]:
        """Return "classification", "box" and, where it has it, "centerness", as :meth:`loss` does.

        The class scores of all locations follow the teacher's by the quality focal loss, and where it is sure, boxes
        follow its boxes, weighted by its scores (Zheng et al., "Localization Distillation", CVPR 2022, with their
        valuable region). Of other strides or sizes, the nearest of its locations teaches. A teacher without centerness
        leaves that to the labels.

        Args:
            outputs: What ``forward`` returned.
            targets: The objects of each image; without need of them, the teacher speaks of all that it sees.
            lesson: Of a head that passed :meth:`check_teacher`.
        """
        teacher, taught = lesson.head, lesson.outputs
        assert isinstance(teacher, FCOSHead)
        both = self.centerness is not None and teacher.centerness is not None
        with torch.no_grad():
            shrink = outputs.centres.new_tensor(lesson.scale[::-1])  # x, y
            theirs = Points(taught.centres / shrink, taught.strides / shrink[0])
            rows = nearest_locations(Points(outputs.centres, outputs.strides), theirs)
            certain = teacher.scores(taught)[..., lesson.theirs]  # [B, A', S]
            classes = taught.logits.float().sigmoid()[..., lesson.theirs] if both else certain
            boxes = teacher.boxes(taught) / shrink.repeat(2)
            middle = taught.centerness.float().sigmoid()
            if rows is not None:
                certain, classes, boxes, middle = (x[:, rows] for x in (certain, classes, boxes, middle))
            sure = sure_of(certain)  # [B, A]
            share = self._shares(sure)  # [B, 1]
        logits = outputs.logits.float()[..., lesson.own]
        losses = {"classification": (quality_focal_loss(logits, classes).sum(-1) * share).sum()}
        real = torch.where(area(boxes) > 0, sure, 0.0)
        lessons = Assignment(real > 0, boxes, torch.zeros_like(real, dtype=torch.int64), real)
        learning, goals, shares = learning_of(outputs, lessons, share, every=logits.device.type != "cpu")
        weight = goals.quality * shares  # [N]
        losses["box"] = self.box_weight * (box_loss(self.box_loss, self.boxes(learning), goals.boxes) * weight).sum()
        if both:
            unlike = binary_divergence(outputs.centerness, middle)[..., 0]  # [B, A]
            losses["centerness"] = (unlike * sure * share).sum()
        elif self.centerness is not None:
            losses["centerness"] = self.loss(outputs, targets)["centerness"]
        return losses

    def scores(self, outputs: FCOSOutputs) -> Tensor:
        """Return the score of each class at each location, float32 [B, A, K], 0..1."""
        scores = outputs.logits.float().sigmoid()
        if self.centerness is None:
            return scores
        return (scores * outputs.centerness.float().sigmoid()).sqrt()

    def metric(self, classes: Sequence[str]) -> TaskMetric:
        """Return a DetectionMetric."""
        from visionkit.tasks.detection.metrics.metric import DetectionMetric  # torchmetrics: slow to import

        return DetectionMetric(classes)

    @torch.no_grad()
    def decode(self, outputs: FCOSOutputs) -> list[BoxPrediction]:
        """Return the boxes of each image, in pixels of the image that the model saw and cut off at it."""
        scores = self.scores(outputs)  # [B, A, K]
        count = min(self.candidates_before_nms, scores[0].numel())
        best, index = scores.flatten(1).topk(count, 1)  # [B, count]
        location = index // self.num_classes
        boxes = self.boxes(outputs).gather(1, location[..., None].expand(-1, -1, 4))  # [B, count, 4]
        boxes = clip(boxes, self._size(outputs))  # before suppression: what differs outside alone is the same box
        same = self.nms_threshold if self.nms == "hard" else None
        predictions = []
        for some, score, label in zip(boxes, best, index % self.num_classes, strict=True):
            n = int((score > self.score_threshold).sum())  # they fall
            kept, final = suppress(
                some[:n],
                score[:n],
                label[:n],
                kind=self.nms,
                threshold=self.nms_threshold,
                limit=self.detections,
                min_score=self.score_threshold,
            )
            predictions.append(BoxPrediction(some[kept], final, label[kept], same=same))
        return predictions

    @torch.no_grad()
    def subjects(
        self,
        outputs: FCOSOutputs,
        *,
        most: int,
        min_score: float | None = None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int] = (),
    ) -> list[Subject]:
        """Return the objects of the first image, each at the location that its box comes from."""
        first = outputs._replace(logits=outputs.logits[:1], edges=outputs.edges[:1], centerness=outputs.centerness[:1])
        boxes = clip(self.boxes(first)[0], self._size(outputs))  # [A, 4]
        (found,) = self.decode(first)

        def place(box: Tensor, label: int) -> int:
            return place_of(box, boxes, first.logits[0, :, label].float())

        return box_subjects(found, most, min_score, least, place)

    def evidence(self, outputs: FCOSOutputs, subject: Subject) -> Evidence:
        """Return the logits and scores of the object's class at its location."""
        logits = outputs.logits[:, subject.place, subject.label].float()
        scores = logits.sigmoid()
        if self.centerness is not None:
            scores = (scores * outputs.centerness[:, subject.place, 0].float().sigmoid()).sqrt()
        return Evidence(logits, scores)

    def _size(self, outputs: FCOSOutputs) -> tuple[int, int]:
        """Return height and width of the network's input, rounded up to cells of the finest level."""
        stride = self.strides[0]
        width, height = (outputs.centres[outputs.strides == stride].amax(0) + (1 - self.cell) * stride).tolist()
        return round(height), round(width)

    def boxes(self, outputs: FCOSOutputs) -> Tensor:
        """Return the box of each location, float32 [..., 4], xyxy in pixels of the image that the model saw."""
        edges = outputs.edges.float()
        if self.bins:
            chances = edges.unflatten(-1, (4, self.bins)).softmax(-1)
            steps = torch.arange(self.bins, device=edges.device, dtype=edges.dtype)
            distances = (chances * steps).sum(-1)  # no product of matrices: autocast would round it to bf16
        else:
            distances = edges.relu()
        left_top, right_bottom = (distances * outputs.strides[:, None]).chunk(2, -1)
        return torch.cat([outputs.centres - left_top, outputs.centres + right_bottom], -1)

    def _distances(self, outputs: FCOSOutputs, boxes: Tensor) -> Tensor:
        """Return the distances from each location to the edges of its object, in cells, [N, 4]."""
        centres = outputs.centres
        return torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], -1) / outputs.strides[:, None]

    def _edge_loss(self, outputs: FCOSOutputs, assigned: Assignment) -> Tensor:
        distances = self._distances(outputs, assigned.boxes)
        return distribution_focal_loss(outputs.edges.unflatten(-1, (4, self.bins)), distances).mean(-1)  # [N]

    def _centerness_loss(self, outputs: FCOSOutputs, assigned: Assignment) -> Tensor:
        """Equation 3 of FCOS."""
        sides = self._distances(outputs, assigned.boxes).clamp(min=1e-6)
        across, along = sides[..., 0::2], sides[..., 1::2]
        truth = (across.amin(-1) / across.amax(-1) * (along.amin(-1) / along.amax(-1))).sqrt()
        return F.binary_cross_entropy_with_logits(outputs.centerness[..., 0].float(), truth, reduction="none")  # [N]

    def _shares(self, quality: Tensor) -> Tensor:
        """Return what a location of each image adds to a loss, [B, 1]: over all images, or image by image."""
        if self.training:
            return (1 / quality.sum().clamp(min=1)).expand(len(quality), 1)
        return 1 / (quality.sum(1, keepdim=True).clamp(min=1) * len(quality))


def _last(channels: int, out: int, bias: float) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
    return conv
