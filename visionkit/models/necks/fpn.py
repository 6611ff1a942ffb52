"""Feature pyramid network: every level sees what the coarse ones understand."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.base import Neck
from visionkit.models.ops.fused_norm import ConvNorm
from visionkit.models.ops.norm import BatchNorm2d
from visionkit.models.weights.load import load_weights

__all__ = ["FPN"]


class FPN(Neck):
    """Feature pyramid network (Lin et al., CVPR 2017): the coarse levels' meaning on the fine levels' grid.

    Level n has cells of 2**n pixels. The finest level finds the smallest objects: 2 for objects from about 8 pixels on
    (four times the cells of 3), 3 for those from about 16 on. Levels coarser than the backbone's last one (usually 5)
    are made by strided convolutions or pooling, for objects that fill the picture.

    Args:
        features: Channels and strides of the incoming levels.
        channels: Channels of every outgoing level.
        min_level: Finest level, 2 to 5; the backbone must have it.
        max_level: Coarsest level, from min_level to 8.
        extra: How levels beyond the backbone's last one are made: "conv" by strided 3x3 convolutions of the
            level before (RetinaNet and FCOS call them P6 and P7), "pool" by taking every second cell (Faster R-CNN).
        norm: "batch" puts batch normalisation behind each convolution, which trains faster from scratch;
            none has biases instead, as in the paper.
        weights: Checkpoint whose neck to start from, for a head on a trained trunk; none starts at random.

    Raises:
        UsageError: A value is out of range, or the backbone lacks a level.
        DataError: The weights cannot be read or do not fit.
    """

    def __init__(
        self,
        features: FeatureSpec,
        channels: int = 128,
        *,
        min_level: int = 3,
        max_level: int = 7,
        extra: Literal["conv", "pool"] = "conv",
        norm: Literal["batch"] | None = "batch",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise UsageError(f"neck.channels={channels}: a whole number from 1 on")
        if extra not in ("conv", "pool"):
            raise UsageError(f"neck.extra={extra!r}: conv or pool")
        if norm not in ("batch", None):
            raise UsageError(f"neck.norm={norm!r}: batch, or null for none")
        levels = {s.bit_length() - 1: k for k, s in enumerate(features.strides) if s & (s - 1) == 0}
        if not 2 <= min_level <= max_level <= 8:
            raise UsageError(f"neck.min_level={min_level} and max_level={max_level}: 2 <= min_level <= max_level <= 8")
        taken = [n for n in range(min_level, max_level + 1) if n in levels]
        if not taken or taken[0] != min_level or taken != list(range(min_level, taken[-1] + 1)):
            raise UsageError(
                f"neck.min_level={min_level}: the backbone has levels {sorted(levels)} "
                f"(strides {list(features.strides)}) and lacks one of those asked for"
            )
        self.extra = extra
        self.incoming = [levels[n] for n in taken]  # positions in the backbone's list
        bias = norm is None
        self.lateral = nn.ModuleList(
            _convolution(features.channels[k], channels, 1, 1, bias=bias) for k in self.incoming
        )
        self.output = nn.ModuleList(_convolution(channels, channels, 3, 1, bias=bias) for _ in taken)
        count = max_level - taken[-1] if extra == "conv" else 0
        self.coarser = nn.ModuleList(_convolution(channels, channels, 3, 2, bias=bias) for _ in range(count))
        self.pooled = max_level - taken[-1] if extra == "pool" else 0
        total = max_level - min_level + 1
        self.features = FeatureSpec((channels,) * total, tuple(2**n for n in range(min_level, max_level + 1)))
        if weights is not None:
            self.weights_report = load_weights(self, weights)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Compute the pyramid.

        Args:
            features: The backbone's levels, [B, C_l, H/s_l, W/s_l] each; sizes may be odd.

        Returns:
            One [B, channels, H/2**n, W/2**n] a level n, fine to coarse.
        """
        sides = [conv(features[k]) for conv, k in zip(self.lateral, self.incoming, strict=True)]
        for fine in range(len(sides) - 2, -1, -1):  # coarse to fine
            sides[fine] = sides[fine] + F.interpolate(sides[fine + 1], size=sides[fine].shape[-2:], mode="nearest")
        levels = [conv(x) for conv, x in zip(self.output, sides, strict=True)]
        for k, conv in enumerate(self.coarser):
            x = levels[-1] if k == 0 else torch.relu(levels[-1])
            # oneDNN's gradient of a strided 3x3 convolution in bf16 is garbage where one column comes in; a second one
            # of zeros changes nothing else
            levels.append(conv(F.pad(x, (0, 1)) if x.shape[-1] == 1 else x))
        for _ in range(self.pooled):
            levels.append(levels[-1][..., ::2, ::2])
        return levels


def _convolution(channels: int, out: int, kernel: int, stride: int, *, bias: bool) -> nn.Module:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if bias:
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return conv
    return ConvNorm(conv, BatchNorm2d(out))
