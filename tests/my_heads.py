"""A head outside visionkit, in one file: the centre of each object, as a point with a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit import BoxTarget, FeatureSpec, Head, ImageInfo, Prediction, TaskMetric, UsageError
from visionkit.data.transforms.preprocessing import to_original


class KeypointOutputs(NamedTuple):
    """What KeypointHead computes."""

    logits: Tensor
    """Float [B, K, h, w]: for each class and cell, whether the centre of an object lies there."""


@dataclass(frozen=True)
class PointPrediction(Prediction):
    """Points with classes, the most certain first.

    Args:
        points: float32 [N, 2], x and y in pixels.
        scores: float32 [N], 0..1, falling.
        labels: int64 [N], class ids 0..K-1.
        size: Height and width of the original image; known once the prediction is restored to it.
    """

    points: Tensor
    scores: Tensor
    labels: Tensor
    size: tuple[int, int] | None = None

    def restore(self, info: ImageInfo) -> Self:
        """Return the points in pixels of the original image, without those that lie outside of it."""
        points = to_original(self.points, info)
        height, width = info.size
        inside = ((points >= 0) & (points < points.new_tensor([width, height]))).all(1)
        return replace(self, points=points, size=info.size)._take(inside)

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Mark and name the points that are certain, on a copy of the image, uint8 [3, H, W]."""
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        canvas = ImageDraw.Draw(picture)
        for row in self.at_least(0.3).rows(names):
            x, y = row["x"], row["y"]
            canvas.ellipse((x - 3, y - 3, x + 3, y + 3), fill="yellow", outline="black")
            canvas.text((x + 5, y - 5), row["label"], fill="yellow", stroke_width=1, stroke_fill="black")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return ``{"objects": [{"label": name, "score": 0..1, "point": [x, y]}, ...]}``."""
        found = zip(self.labels.tolist(), self.scores.tolist(), self.points.tolist(), strict=True)
        return {"objects": [{"label": names[k], "score": s, "point": p} for k, s, p in found]}

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row an object for predictions.csv. Optional, as ``KeypointHead.columns``."""
        objects = self.record(names)["objects"]
        return [{"label": o["label"], "score": o["score"], "x": o["point"][0], "y": o["point"][1]} for o in objects]

    def at_least(self, score: float) -> Self:
        """Return the points alone that have at least this score, for --min-score. Optional, as ``KeypointHead.scored``."""
        return self._take(self.scores >= score)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the points of a record; it does not hold the size of the image. Optional."""
        objects = record["objects"]
        points = torch.tensor([o["point"] for o in objects]).reshape(-1, 2)
        scores = torch.tensor([o["score"] for o in objects]).reshape(-1)
        return cls(points, scores, torch.tensor([names.index(o["label"]) for o in objects], dtype=torch.int64))

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[tuple[int, int, int, int]]) -> Self:
        """Return the points of all views; of those of one class within three pixels the best. Optional, for --flip."""
        points, scores, labels = (torch.cat([getattr(p, k) for p in parts]) for k in ("points", "scores", "labels"))
        order = scores.argsort(descending=True, stable=True)
        every = cls(points, scores, labels, parts[0].size)._take(order)
        same = (torch.cdist(every.points, every.points) <= 3) & (every.labels[:, None] == every.labels)
        return every._take(~same.triu(1).any(0))

    def _take(self, which: Tensor) -> Self:
        return replace(self, points=self.points[which], scores=self.scores[which], labels=self.labels[which])


class KeypointHead(Head):
    """Finds objects as points (Zhou et al., "Objects as Points", 2019), without the size and offset of their boxes.

    Args:
        features: Channels and strides of the incoming levels.
        num_classes: Number of classes, K.
        level: Position of the level that is used, 0 the finest.
        channels: Channels of the two 3x3 convolutions.
        spread: Standard deviation of a target's Gaussian, as a share of its box's shorter side, above 0.
        score_threshold: Points of a lower score are not returned, 0..1.
        detections: Points an image, at most.

    Raises:
        UsageError: A value is out of range.
    """

    prediction = PointPrediction
    columns = ("label", "score", "x", "y")  # optional: keys of rows, for a table without any
    scored = True  # optional: --min-score is of use

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        level: int = 0,
        channels: int = 64,
        spread: float = 0.15,
        score_threshold: float = 0.05,
        detections: int = 50,
    ) -> None:
        super().__init__()
        if not 0 <= level < len(features.strides) or spread <= 0:
            raise UsageError(f"head: level={level} (0..{len(features.strides) - 1}), spread={spread} (above 0)")
        self.level = level
        self.stride = features.strides[level]
        self.spread = spread
        self.score_threshold = score_threshold
        self.detections = detections
        self.layers = nn.Sequential(
            _convolution(features.channels[level], channels),
            _convolution(channels, channels),
            nn.Conv2d(channels, num_classes, 1),
        )
        nn.init.constant_(self.layers[-1].bias, -2.19)  # a score of 0.1 everywhere before anything is learnt

    def forward(self, features: list[Tensor]) -> KeypointOutputs:
        """Compute the heat maps from one level."""
        return KeypointOutputs(self.layers(features[self.level]))

    def loss(self, outputs: KeypointOutputs, targets: Sequence[BoxTarget]) -> dict[str, Tensor]:
        """Return ``{"heat": ...}``, the focal loss of equation 1: each image's by its objects, then the mean."""
        logits = outputs.logits.float()
        truth, counted = zip(*(self._heat(target, logits[0]) for target in targets), strict=True)
        heat = torch.stack(truth)  # [B, K, h, w], 1 at centres
        found, missed = F.logsigmoid(logits), F.logsigmoid(-logits)
        score = logits.sigmoid()
        at_centres = (1 - score) ** 2 * found
        elsewhere = (1 - heat) ** 4 * score**2 * missed
        loss = -torch.where(heat == 1, at_centres, elsewhere) * torch.stack(counted)[:, None]
        objects = (heat == 1).sum((1, 2, 3)).clamp(min=1)
        return {"heat": (loss.sum((1, 2, 3)) / objects).mean()}

    @torch.no_grad()
    def decode(self, outputs: KeypointOutputs) -> list[PointPrediction]:
        """Return the peaks: cells that no neighbour of their class exceeds."""
        scores = outputs.logits.float().sigmoid()  # [B, K, h, w]
        peaks = scores * (F.max_pool2d(scores, 3, stride=1, padding=1) == scores)
        width = scores.shape[-1]
        best, where = peaks.flatten(1).topk(min(self.detections, peaks[0].numel()))  # [B, detections]
        cells = scores.shape[-2] * width
        predictions = []
        for score, index in zip(best, where, strict=True):
            index = index[score > self.score_threshold]
            cell = torch.stack([index % cells % width, index % cells // width], 1)  # x, y
            predictions.append(PointPrediction((cell + 0.5) * self.stride, score[: len(index)], index // cells))
        return predictions

    def metric(self, classes: Sequence[str]) -> PointMetric:
        """Return a PointMetric."""
        return PointMetric(classes)

    @torch.no_grad()
    def _heat(self, target: BoxTarget, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what an image's heat maps should be, [K, h, w], and where that is known, bool [h, w]."""
        heat = torch.zeros_like(like)
        height, width = like.shape[-2:]
        y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (height, width))
        known = like.new_ones((height, width), dtype=torch.bool)
        boxes = target.boxes.to(like) / self.stride  # in cells
        for (x1, y1, x2, y2), label, crowd in zip(boxes, target.labels.tolist(), target.crowd.tolist(), strict=True):
            if crowd:  # neither learnt nor taken for background
                known &= ~(((y + 0.5 >= y1) & (y + 0.5 <= y2))[:, None] & ((x + 0.5 >= x1) & (x + 0.5 <= x2)))
                continue
            row = ((y1 + y2) / 2).floor().clamp(0, height - 1)
            column = ((x1 + x2) / 2).floor().clamp(0, width - 1)
            sigma = (self.spread * torch.minimum(x2 - x1, y2 - y1)).clamp(min=0.5)
            gaussian = torch.exp(-((y - row)[:, None] ** 2 + (x - column) ** 2) / (2 * sigma**2))
            heat[label] = torch.maximum(heat[label], gaussian)
        return heat, known


def _convolution(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class PointMetric(TaskMetric):
    """Precision, recall and F1 of points: right are those near the centre of an object of their class.

    Near means within a share of the object's size (the root of its box's area), as PCK does it. The most certain point
    has the first choice, and an object is found once.

    Args:
        classes: Class names, in the order of their ids.
        tolerance: That share, above 0.
        score_threshold: Lowest score of the points that count.
    """

    monitor = "f1"

    def __init__(self, classes: Sequence[str], *, tolerance: float = 0.25, score_threshold: float = 0.3) -> None:
        super().__init__(classes)
        self.tolerance = tolerance
        self.score_threshold = score_threshold
        for name in ("right", "points", "objects"):  # a sum over all processes, one number a class
            self.add_state(name, torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[PointPrediction], targets: Sequence[BoxTarget]) -> None:
        """Add the predictions and targets of a batch, in pixels of the originals."""
        for prediction, target in zip(predictions, targets, strict=True):
            found, real = prediction.at_least(self.score_threshold), target.select(~target.crowd)
            self.points += torch.bincount(found.labels, minlength=len(self.classes))
            self.objects += torch.bincount(real.labels, minlength=len(self.classes))
            corners = real.boxes.view(-1, 2, 2)
            reach = self.tolerance * (corners[:, 1] - corners[:, 0]).prod(1).sqrt()  # [M]
            distance = torch.cdist(found.points.float(), corners.mean(1))  # [N, M]
            close = (distance <= reach) & (found.labels[:, None] == real.labels)
            for n in range(len(found.labels)):
                if close[n].any():
                    nearest = distance[n].where(close[n], torch.inf).argmin()
                    self.right[found.labels[n]] += 1
                    close[:, nearest] = False

    def compute(self) -> dict[str, Tensor]:
        """Return "f1", "precision", "recall" over all classes, and "f1/<class>" of those that occur."""
        right, points, objects = (n.float() for n in (self.right, self.points, self.objects))
        f1 = 2 * right / (points + objects).clamp(min=1)
        values = {
            "f1": 2 * right.sum() / (points + objects).sum().clamp(min=1),
            "precision": right.sum() / points.sum().clamp(min=1),
            "recall": right.sum() / objects.sum().clamp(min=1),
        }
        return values | {f"f1/{name}": f1[k] for k, name in enumerate(self.classes) if objects[k]}
