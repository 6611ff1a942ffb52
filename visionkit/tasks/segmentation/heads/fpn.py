"""The semantic branch of panoptic feature pyramid networks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.tasks.segmentation.heads.base import (
    SegmentationHead,
    check_channels,
    convolution,
    initialise,
    last_convolution,
    upsample,
)

__all__ = ["FPNSegmentationHead"]


class FPNSegmentationHead(SegmentationHead):
    """Semantic branch of panoptic FPN (Kirillov et al., CVPR 2019, section 3.1, figure 3), on a pyramid of detection.

    Each level is brought to the finest one's grid by 3x3 convolutions with batch normalisation (the paper: group
    normalisation) and ReLU, each followed by bilinear upsampling by two; their sum is classified. The logits have the
    finest level's stride: model.neck.min_level 2 gives the paper's 4, and 3 takes a quarter of the time.

    Args:
        features: Spec of the feature maps, those of an FPN: equal channels, each stride twice the one before.
        num_classes: Number of classes, K, 2..255.
        channels: Channels of the convolutions.
        max_stride: Coarsest level that is used, in pixels a cell.
        options: Those of all segmentation heads, see SegmentationHead.

    Raises:
        UsageError: A value is out of range, or the features are no pyramid.
    """

    reads = "neck"

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        channels: int = 128,
        max_stride: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(features, num_classes, **options)
        check_channels(channels)
        strides = features.strides
        if len(set(features.channels)) > 1 or any(b != 2 * a for a, b in zip(strides, strides[1:], strict=False)):
            raise UsageError(
                f"FPNSegmentationHead takes levels of equal channels, each of twice the stride before, got channels "
                f"{list(features.channels)} and strides {list(strides)}: put an FPN before it "
                "(model.neck.class_path FPN)"
            )
        if max_stride < strides[0]:
            raise UsageError(f"head.max_stride={max_stride}: the finest level has {strides[0]}: give that or more")
        self.stride = strides[0]
        used = sum(s <= max_stride for s in strides)
        self.branches = nn.ModuleList(
            nn.ModuleList(convolution(features.channels[0] if n == 0 else channels, channels, 3) for n in range(count))
            for count in (max(level, 1) for level in range(used))
        )
        initialise(self.branches)
        self.dropout = nn.Dropout(self.dropout_share)
        self.classifier = last_convolution(channels, num_classes)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Compute the logits [B, K, h, w] on the grid of the finest level."""
        sizes = [x.shape[-2:] for x in features]
        total: Tensor | None = None
        for level, branch in enumerate(self.branches):
            x = features[level]
            assert isinstance(branch, nn.ModuleList)
            for step, conv in enumerate(branch, 1):
                x = conv(x)
                if level:
                    x = upsample(x, 2, sizes[level - step])
            total = x if total is None else total + x
        assert total is not None  # there is a finest level
        logits: Tensor = self.classifier(self.dropout(total))
        return logits
