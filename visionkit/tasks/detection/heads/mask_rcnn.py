"""MaskRCNNHead: the head in two stages, with a branch that draws a mask in each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align as torchvision_roi_align

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.tasks.detection.heads.checks import check_counts
from visionkit.tasks.detection.heads.faster_rcnn import FasterRCNNHead, FasterRCNNOutputs, Sampled
from visionkit.tasks.detection.instances import INSTANCE_COLUMNS, InstancePrediction
from visionkit.tasks.detection.types import BoxTarget
from visionkit.tasks.detection.writers import INSTANCE_WRITERS

if TYPE_CHECKING:
    from visionkit.training.metric import TaskMetric

__all__ = ["MaskRCNNHead"]


class MaskRCNNHead(FasterRCNNHead):
    """Mask R-CNN (He et al., ICCV 2017): Faster R-CNN that draws a mask in each box.

    The branch learns from the proposals that show objects, on the channel of their class, and draws in the boxes that
    are returned. To the losses of FasterRCNNHead comes ``mask``: the mean binary cross-entropy over all parts of the
    masks. Targets need masks. The paper's and torchvision's branch has 256 channels.

    Args:
        features: Spec of the feature maps, all of the same number of channels; strides are powers of two.
        num_classes: Number of classes, K.
        mask_size: Cells along each side of what the branch sees of a box, 1..128; masks have twice as many.
        mask_channels: Channels of the branch, >= 1; none takes those of the feature maps. Its cost goes by the square.
        mask_depth: Convolutions before masks are enlarged, >= 1.
        mask_loss_weight: Weight of the masks' loss, >= 0.
        box_settings: All other arguments of FasterRCNNHead.

    Raises:
        UsageError: A value is out of range, or the levels differ in channels.
    """

    prediction = InstancePrediction
    writers = INSTANCE_WRITERS
    columns = INSTANCE_COLUMNS

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        mask_size: int = 14,
        mask_channels: int | None = None,
        mask_depth: int = 4,
        mask_loss_weight: float = 1.0,
        **box_settings: Any,  # else its two dozen arguments and their sentences would stand here again
    ) -> None:
        super().__init__(features, num_classes, **box_settings)
        width = features.channels[0] if mask_channels is None else mask_channels
        check_counts(128, mask_size=mask_size)
        check_counts(mask_channels=width)
        check_counts(1000, mask_depth=mask_depth)
        if not 0 <= mask_loss_weight < float("inf"):
            raise UsageError(f"head.mask_loss_weight={mask_loss_weight}: a number from 0 on")
        self.mask_size, self.mask_loss_weight = mask_size, mask_loss_weight
        convolutions: list[nn.Module] = []
        for channels in (features.channels[0], *[width] * (mask_depth - 1)):
            convolutions += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        self.mask_branch = nn.Sequential(
            *convolutions,
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.ReLU(),
            nn.Conv2d(width, num_classes, 1),
        )
        for name, parameter in self.mask_branch.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    def metric(self, classes: Sequence[str]) -> TaskMetric:
        """Return a DetectionMetric of boxes and masks."""
        from visionkit.tasks.detection.metrics.metric import DetectionMetric  # torchmetrics: slow to import

        return DetectionMetric(classes, masks=True)

    def loss(self, outputs: FasterRCNNOutputs, targets: Sequence[BoxTarget]) -> dict[str, Tensor]:
        """Return the losses of both stages and of the masks.

        Args:
            outputs: What ``forward`` returned.
            targets: The objects of each image with their masks, length B.

        Raises:
            UsageError: The masks of objects are not known.
        """
        for t in targets:
            if t.masks is None and bool((~t.crowd).any()):
                raise UsageError(
                    "MaskRCNNHead learns from masks, and the boxes have none: set --data.masks true, or use "
                    "FasterRCNNHead"
                )
        losses, sampled = self._losses(outputs, targets)
        return {**losses, "mask": self.mask_loss_weight * self._mask_loss(outputs.levels, sampled, targets)}

    @torch.no_grad()
    def decode(self, outputs: FasterRCNNOutputs) -> list[InstancePrediction]:  # type: ignore[override]  # lists of a narrower kind
        """Return boxes and masks of each image, cut off at the network's input."""
        found = super().decode(outputs)
        boxes, labels = [p.boxes for p in found], torch.cat([p.labels for p in found])
        masks = self._draw(outputs.levels, boxes, labels).sigmoid().split([len(b) for b in boxes])
        return [
            InstancePrediction(p.boxes, p.scores, p.labels, same=p.same, masks=m, frames=p.boxes)
            for p, m in zip(found, masks, strict=True)
        ]

    def _draw(self, levels: Sequence[Tensor], boxes: list[Tensor], labels: Tensor) -> Tensor:
        """Return logits, float32 [R, 2 * mask_size, 2 * mask_size], of the masks in R boxes of these classes."""
        logits: Tensor = self.mask_branch(self._align(levels, boxes, self.mask_size)).float()  # [R, K, S, S]
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _mask_loss(self, levels: Sequence[Tensor], sampled: Sampled, targets: Sequence[BoxTarget]) -> Tensor:
        counts = [len(m) for m in sampled.match]
        boxes = [b[:n] for b, n in zip(sampled.boxes, counts, strict=True)]  # objects first
        goals = [self._goals(*each) for each in zip(targets, boxes, sampled.match, strict=True)]
        labels = sampled.labels[sampled.labels > 0] - 1
        loss = F.binary_cross_entropy_with_logits(self._draw(levels, boxes, labels), torch.cat(goals), reduction="none")
        share = self._shares(counts, labels.device).repeat_interleave(torch.tensor(counts, device=labels.device))
        return (loss.mean((1, 2)) * share).sum()

    @torch.no_grad()
    def _goals(self, target: BoxTarget, boxes: Tensor, match: Tensor) -> Tensor:
        """Return what the branch should draw in the boxes of an image, float32 [P, S, S], 0..1.

        As Detectron2 and unlike torchvision, whose masks lie half a pixel off, these come out where they went in.

        Args:
            target: All objects of the image.
            boxes: float32 [P, 4], xyxy.
            match: int64 [P], the box's object, a position among those that are no crowds.
        """
        side = 2 * self.mask_size
        if target.masks is None or not len(boxes):
            return boxes.new_zeros(len(boxes), side, side)
        used, place = torch.unique(match, return_inverse=True)  # only these become pixels
        real = torch.nonzero(~target.crowd)[:, 0].tolist()
        dense = target.masks.select([real[k] for k in used.tolist()]).dense()
        pixels = torch.from_numpy(dense).to(boxes.device).to(boxes.dtype)[:, None]  # [U, 1, H, W]
        rois = torch.cat([place[:, None].to(boxes), boxes], 1)
        goals: Tensor = torchvision_roi_align(pixels, rois, side, aligned=True)  # else half a pixel off
        return goals[:, 0]
