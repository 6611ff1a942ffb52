"""DeepLabV3+: context at several scales from dilated convolutions, borders from a fine level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.ops.dilated import DilatedConv2d
from visionkit.models.ops.fused_norm import ConvNormReLU
from visionkit.models.ops.norm import BatchNorm2d
from visionkit.tasks.segmentation.heads.base import (
    MAX_STRIDE,
    SegmentationHead,
    check_channels,
    convolution,
    initialise,
    last_convolution,
    upsample,
)

__all__ = ["DeepLabV3PlusHead"]

FINE_STRIDE = 4
RATES = (6, 12, 18)  # of the paper, at an output stride of 16
RATES_STRIDE = 16
MAX_RATE = 1024  # cells: wider than any map


class DeepLabV3PlusHead(SegmentationHead):
    """DeepLabV3+ (Chen et al., ECCV 2018): atrous spatial pyramid pooling and a decoder that sees a fine level.

    It takes a backbone's own levels: the last one for the context and the one of stride 4 (the finest coarser one where
    there is none) for the borders, at whose stride the logits are. An output_stride of 16 or 8 in the backbone gives
    finer context and takes longer. The layers are those of segmentation_models_pytorch: one 3x3 convolution behind the
    pyramid, and one in the decoder where the paper has two.

    Args:
        features: Spec of the feature maps, without a neck.
        num_classes: Number of classes, K, 2..255.
        channels: Channels of the pyramid's branches and of the decoder. 128 save a fifth of the time with a ResNet-18,
            and cost four points of intersection over union on some dozens of street pictures.
        atrous_rates: Dilation of each 3x3 branch, in cells of the last level, from 1 on. None takes the paper's
            6, 12 and 18 at stride 16, twice as many at 8 and half as many at 32: the same distance in pixels.
        low_level_channels: Channels that the fine level is reduced to.
        separable: Whether 3x3 convolutions are a depthwise and a pointwise one (section 3.1): several times faster.
        options: Those of all segmentation heads, see SegmentationHead.

    Raises:
        UsageError: A value is out of range, or the features come from a pyramid or have no fine level.
    """

    def __init__(
        self,
        features: FeatureSpec,
        num_classes: int,
        *,
        channels: int = 256,
        atrous_rates: tuple[int, ...] | None = None,
        low_level_channels: int = 48,
        separable: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(features, num_classes, **options)
        check_channels(channels)
        if low_level_channels < 1:
            raise UsageError(f"head.low_level_channels={low_level_channels}: a whole number from 1 on")
        self.fine = _fine_level(features)
        self.stride = features.strides[self.fine]
        coarse = features.strides[-1]
        self.factor = coarse // self.stride
        if atrous_rates is None:
            atrous_rates = tuple(max(1, rate * RATES_STRIDE // coarse) for rate in RATES)
        if not atrous_rates or min(atrous_rates) < 1 or max(atrous_rates) > MAX_RATE:
            raise UsageError(
                f"head.atrous_rates={list(atrous_rates)}: whole numbers from 1 to {MAX_RATE}, one a branch; leave it "
                "out for those of the paper"
            )
        self.aspp = ASPP(features.channels[-1], channels, tuple(atrous_rates), separable, self.dropout_share)
        self.context = _convolution3x3(channels, channels, separable)
        self.low_level = convolution(features.channels[self.fine], low_level_channels, 1)
        self.decoder = _convolution3x3(low_level_channels + channels, channels, separable)
        for part in (self.aspp, self.context, self.low_level, self.decoder):
            initialise(part)
        self.classifier = last_convolution(channels, num_classes)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Compute the logits [B, K, h, w] on the grid of the fine level."""
        borders = self.low_level(features[self.fine])  # [B, low_level_channels, h, w]
        context = upsample(self.context(self.aspp(features[-1])), self.factor, borders.shape[-2:])
        logits: Tensor = self.classifier(self.decoder(torch.cat([context, borders], 1)))
        return logits


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., "Rethinking atrous convolution", 2017, section 3.3).

    Args:
        channels: Channels of the input.
        out: Channels of each branch and of the output.
        rates: Dilation of each 3x3 branch.
        separable: Whether those are depthwise and pointwise convolutions.
        dropout: Part of the output that is dropped in training.
    """

    def __init__(self, channels: int, out: int, rates: tuple[int, ...], separable: bool, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [convolution(channels, out, 1), *(_convolution3x3(channels, out, separable, rate) for rate in rates)]
        )
        self.pooling = convolution(channels, out, 1)
        self.project = nn.Sequential(*convolution((len(rates) + 2) * out, out, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, h, w] to [B, out, h, w]."""
        branches = [branch(x) for branch in self.branches]
        whole = self.pooling(x.mean((2, 3), keepdim=True))  # [B, out, 1, 1]
        projected: Tensor = self.project(torch.cat([*branches, whole.expand_as(branches[0])], 1))
        return projected


def _convolution3x3(channels: int, out: int, separable: bool, rate: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with holes that keeps the size, batch normalisation and ReLU."""
    if separable:
        depthwise = DilatedConv2d(channels, channels, rate, groups=channels)
        convs = [depthwise, nn.Conv2d(channels, out, 1, bias=False)]
    else:
        convs = [DilatedConv2d(channels, out, rate)]
    return ConvNormReLU(*convs, BatchNorm2d(out), nn.ReLU(inplace=True))


def _fine_level(features: FeatureSpec) -> int:
    """Return the position of the level that shows the borders."""
    strides = features.strides
    remedy = "leave the neck out (model.neck IdentityNeck) or take FPNSegmentationHead"
    if strides[-1] > MAX_STRIDE or (len(strides) > 1 and len(set(features.channels)) == 1):
        raise UsageError(
            f"DeepLabV3PlusHead takes a backbone's own levels, got a pyramid's (strides {list(strides)}, channels "
            f"{list(features.channels)}): {remedy}"
        )
    finer = [k for k, s in enumerate(strides) if FINE_STRIDE <= s < strides[-1] and strides[-1] % s == 0]
    if not finer:
        raise UsageError(
            f"DeepLabV3PlusHead needs a level of stride {FINE_STRIDE} or more that is finer than the last, got strides "
            f"{list(strides)}: take a backbone with such a level, or FCNHead"
        )
    return min(finer, key=lambda k: strides[k])
