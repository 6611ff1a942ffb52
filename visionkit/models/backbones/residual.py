"""The parts of a ResNet: its stems and residual blocks, under torchvision's and timm's parameter names."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.models.ops.dilated import DilatedConv2d
from visionkit.models.ops.fused_norm import ConvNorm, add, norm_relu, rectified

__all__ = ["BLOCKS", "DEPTHS", "STEM_STRIDE", "BasicBlock", "Bottleneck", "Style", "make_stem"]


DEPTHS: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, int, int, int]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
"""Depth -> block and blocks a stage (He et al. 2016, table 1)."""


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share.

    Args:
        groups: Groups of the 3x3 convolutions.
        width_per_group: Channels of a group where the stage has 64 planes.
        avg_down: Average-pool before the 1x1 convolution of a down-sampling shortcut.
        squeeze_excitation: Weigh the channels of the residual branch.
        depthwise_separable: Depthwise and pointwise convolutions in place of the 3x3 ones.
    """

    groups: int
    width_per_group: int
    avg_down: bool
    squeeze_excitation: bool
    depthwise_separable: bool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        channels: Channels of the input.
        planes: Channels of the stage before expansion.
        stride: Stride of the block, 1 or 2.
        dilations: Dilation of the first and of a later 3x3 convolution.
        skip: Probability that training skips the residual branch of an image.
        style: What all blocks share.
    """

    expansion = 1

    def __init__(
        self, channels: int, planes: int, stride: int, dilations: tuple[int, int], skip: float, style: Style
    ) -> None:
        super().__init__()
        self.skip = skip
        self.conv1 = _conv3x3(channels, planes, stride, dilations[0], style)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1, dilations[1], style)
        self.bn2 = nn.BatchNorm2d(planes)
        self.se = _SqueezeExcitation(planes) if style.squeeze_excitation else None
        self.downsample = _shortcut(channels, planes, stride, dilations[1], style)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends the residual branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, planes, H/stride, W/stride]."""
        y = norm_relu(self.bn1, self.conv1(x))
        return _join(self, x, self.conv2(y))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution around a shortcut.

    Args:
        channels: Channels of the input.
        planes: Channels of the stage before expansion.
        stride: Stride of the block, 1 or 2.
        dilations: Dilation of the first and of a later 3x3 convolution.
        skip: Probability that training skips the residual branch of an image.
        style: What all blocks share.
    """

    expansion = 4

    def __init__(
        self, channels: int, planes: int, stride: int, dilations: tuple[int, int], skip: float, style: Style
    ) -> None:
        super().__init__()
        self.skip = skip
        width = int(planes * (style.width_per_group / 64)) * style.groups
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, dilations[0], style)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.se = _SqueezeExcitation(out) if style.squeeze_excitation else None
        self.downsample = _shortcut(channels, out, stride, dilations[1], style)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends the residual branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, 4 planes, H/stride, W/stride]."""
        y = norm_relu(self.bn1, self.conv1(x))
        y = norm_relu(self.bn2, self.conv2(y))
        return _join(self, x, self.conv3(y))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _join(block: BasicBlock | Bottleneck, x: Tensor, y: Tensor) -> Tensor:
    """Normalise the residual branch y and add it to the shortcut of x."""
    shortcut = x if block.downsample is None else block.downsample(x)
    if block.se is None and not (block.training and block.skip > 0):
        return norm_relu(block.last_norm, y, shortcut)
    y = norm_relu(block.last_norm, y, relu=False)
    if block.se is not None:
        y = block.se(y)
    if block.training and block.skip > 0:
        keep = 1 - block.skip
        y = y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)  # each image by itself
    return rectified(add(y, shortcut))


class _SqueezeExcitation(nn.Module):
    """Channel weights from the pooled map; a sixteenth of the channels inside, rounded to a multiple of 8 (timm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, int(channels / 16 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        w = x.mean((2, 3), keepdim=True)  # [B, C, 1, 1]
        return x * torch.sigmoid(self.fc2(rectified(self.fc1(w))))


class _DeepStem(nn.Sequential):
    """Three convolutions with norm and ReLU between them."""

    def forward(self, x: Tensor) -> Tensor:
        x = norm_relu(self[1], self[0](x))
        x = norm_relu(self[4], self[3](x))
        return self[6](x)  # type: ignore[no-any-return]


class _AvgPoolSame(nn.Module):
    """2x2 average at stride 1 that keeps the size (timm's ResNet-D where it dilates)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)


STEM_STRIDE = {"conv7": 4, "deep": 4, "small": 1}
"""Pixels of the input per cell after the stem and its pooling."""


def make_stem(stem: str, in_channels: int) -> nn.Module:
    """Return the first convolution (or three), without the norm and the pooling after it.

    Args:
        stem: conv7, deep or small.
        in_channels: Channels of the input image.
    """
    if stem == "conv7":
        return nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    if stem == "small":
        return nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    return _DeepStem(
        nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
    )


def _conv3x3(channels: int, out: int, stride: int, dilation: int, style: Style) -> nn.Module:
    groups = channels if style.depthwise_separable else style.groups
    width = channels if style.depthwise_separable else out
    conv: nn.Module = (
        nn.Conv2d(channels, width, 3, stride, padding=1, groups=groups, bias=False)
        if dilation == 1
        else DilatedConv2d(channels, width, dilation, groups=groups)  # has stride 1: it dilates instead of striding
    )
    return nn.Sequential(conv, nn.Conv2d(channels, out, 1, bias=False)) if style.depthwise_separable else conv


def _shortcut(channels: int, out: int, stride: int, dilation: int, style: Style) -> ConvNorm | None:
    if stride == 1 and channels == out:
        return None
    norm = nn.BatchNorm2d(out)
    if not style.avg_down:
        return ConvNorm(nn.Conv2d(channels, out, 1, stride, bias=False), norm)
    named: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        named["0"] = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    elif dilation > 1:
        named["0"] = _AvgPoolSame()
    named["1"] = nn.Conv2d(channels, out, 1, bias=False)
    named["2"] = norm
    return ConvNorm(named)
