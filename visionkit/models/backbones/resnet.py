"""ResNet and its relatives in plain PyTorch, under torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, FeatureSpec
from visionkit.models.backbones.residual import BLOCKS, DEPTHS, STEM_STRIDE, BasicBlock, Bottleneck, Style, make_stem
from visionkit.models.backbones.statistics import per_channel
from visionkit.models.ops.fused_norm import norm_relu
from visionkit.models.weights.known import network_of

__all__ = ["DEPTHS", "ResNet"]


class ResNet(Backbone):
    """Residual network (He et al. 2016, https://arxiv.org/abs/1512.03385; stride in the 3x3 convolution, "v1.5").

    It returns four levels, layer1 to layer4, of (64, 128, 256, 512) channels, four times as many with bottleneck
    blocks, at strides (4, 8, 16, 32), with the small stem (1, 2, 4, 8).

    Args:
        depth: Number of layers of the classic networks: 18, 34, 50, 101 or 152.
        layers: Blocks of each of the four stages, for any other depth, each at least 1; default: those of depth.
        block: Kind of residual block, basic (two 3x3) or bottleneck (1x1, 3x3, 1x1); default: that of depth. It may
            differ from depth's only where layers is given.
        groups: Groups of the 3x3 convolutions, at least 1; 32 with width_per_group 4 is ResNeXt-50 32x4d
            (https://arxiv.org/abs/1611.05431). Bottleneck only.
        width_per_group: Channels of a group in layer1, at least 1; 128 is Wide ResNet-50-2
            (https://arxiv.org/abs/1605.07146). Bottleneck only.
        stem: conv7 is a 7x7 convolution and max-pooling; deep replaces the 7x7 by three 3x3 (32, 32, 64 channels,
            https://arxiv.org/abs/1812.01187); small is one 3x3 at full resolution, for images under about 64 pixels.
        avg_down: Average-pool before the 1x1 convolution of a down-sampling shortcut (ResNet-D,
            https://arxiv.org/abs/1812.01187).
        squeeze_excitation: Weigh the channels of each block by squeeze-and-excitation
            (https://arxiv.org/abs/1709.01507).
        depthwise_separable: Replace the 3x3 convolutions of the blocks by a depthwise 3x3 and a pointwise 1x1, with
            nothing between them (Xception, section 4.7, https://arxiv.org/abs/1610.02357).
        stochastic_depth: Probability, 0 up to but not 1, that the last block is skipped in training; earlier blocks
            linearly less, the first never (https://arxiv.org/abs/1603.09382).
        output_stride: Largest stride of a level, 8, 16 or 32 pixels; later stages dilate instead of striding
            (https://arxiv.org/abs/1706.05587).
        in_channels: Channels of the input image, at least 1.
        zero_init_last: Start each residual branch at zero (https://arxiv.org/abs/1706.02677).
        weights: What to start from: a file (.pth, .pt, .ckpt, .safetensors), a hub name (timm/NAME,
            hf-hub:OWNER/NAME), or auto for the recommended ImageNet weights of this network (fetched once); default:
            random weights. FILE#PART takes what lies under PART where a file holds several networks.
        partial: Go on where the weights cover less than 95 % of the network or hold parts it lacks.
        mean: Mean of each channel, 0 to 1, that the weights expect; default: what their file says, else ImageNet's
            (its average repeated for another number of channels).
        std: Standard deviation of each channel, 0 to 1, that the weights expect; default: what their file says, else
            ImageNet's (its average repeated for another number of channels).

    Raises:
        UsageError: A value is out of range or a combination is impossible.
        DataError: The weights cannot be read or do not fit.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        *,
        layers: tuple[int, int, int, int] | None = None,
        block: Literal["basic", "bottleneck"] | None = None,
        groups: int = 1,
        width_per_group: int = 64,
        stem: Literal["conv7", "deep", "small"] = "conv7",
        avg_down: bool = False,
        squeeze_excitation: bool = False,
        depthwise_separable: bool = False,
        stochastic_depth: float = 0.0,
        output_stride: Literal[8, 16, 32] = 32,
        in_channels: int = 3,
        zero_init_last: bool = True,
        weights: str | None = None,
        partial: bool = False,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        kind, repeats = _plan(depth, layers, block)
        _check(kind, groups, width_per_group, depthwise_separable, stochastic_depth, output_stride, in_channels)
        if stem not in STEM_STRIDE:
            raise UsageError(f"stem is {stem!r}: choose one of {', '.join(STEM_STRIDE)}")
        self.in_channels = in_channels
        self.mean = per_channel("mean", mean, IMAGENET_MEAN, in_channels)
        self.std = per_channel("std", std, IMAGENET_STD, in_channels)

        self.conv1 = make_stem(stem, in_channels)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = None if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)

        style = Style(groups, width_per_group, avg_down, squeeze_excitation, depthwise_separable)
        block_class = BLOCKS[kind]
        channels, stride, dilation, before, done = 64, STEM_STRIDE[stem], 1, 1, 0
        level_channels, level_strides = [], []
        for stage, (planes, repeat) in enumerate(zip((64, 128, 256, 512), repeats, strict=True)):
            step = 1 if stage == 0 else 2
            if stride * step > output_stride:
                dilation, step = dilation * step, 1
            stride *= step
            blocks: list[nn.Module] = []
            for i in range(repeat):
                skip = stochastic_depth * done / (sum(repeats) - 1)
                blocks.append(block_class(channels, planes, step if i == 0 else 1, (before, dilation), skip, style))
                channels, before, done = planes * block_class.expansion, dilation, done + 1
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            level_channels.append(channels)
            level_strides.append(stride)
        self.features = FeatureSpec(tuple(level_channels), tuple(level_strides))
        self._init_weights(zero_init_last)
        if weights is not None:
            self.load(weights, partial=partial, mean=mean, std=std)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the four feature maps of normalised images [B, C, H, W]."""
        x = norm_relu(self.bn1, self.conv1(x))  # [B, 64, H/2, W/2], full size with the small stem
        if self.maxpool is not None:
            x = self.maxpool(x)  # [B, 64, H/4, W/4]
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)  # [B, C_l, H/s_l, W/s_l]
            levels.append(x)
        return levels

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the stem and the four residual stages."""
        return {
            "stem": [self.conv1, self.bn1],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3],
            "layer4": [self.layer4],
        }

    @classmethod
    def network_name(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return timm's name of the network that constructor arguments make, or None where no weights are known."""
        layers, depth, block = (arguments.get(key) for key in ("layers", "depth", "block"))
        plan = _plan(50 if depth is None else depth, layers, block)
        classic = next((d for d, known in DEPTHS.items() if known == plan), None)
        return None if classic is None else network_of(classic, arguments)

    def _init_weights(self, zero_init_last: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module.groups == module.in_channels > 1:  # depthwise: torch's fan_out would count every channel
                    nn.init.normal_(module.weight, std=(2 / (module.kernel_size[0] * module.kernel_size[1])) ** 0.5)
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck) and zero_init_last:
                nn.init.zeros_(module.last_norm.weight)


def _plan(depth: int, layers: Sequence[int] | None, block: str | None) -> tuple[str, tuple[int, ...]]:
    """Return the kind of block and the blocks a stage."""
    if depth not in DEPTHS:
        raise UsageError(f"depth is {depth}: choose one of {', '.join(map(str, DEPTHS))}, or give layers and block")
    kind, repeats = DEPTHS[depth]
    if block not in (None, *BLOCKS):
        raise UsageError(f"block is {block!r}: choose one of {', '.join(BLOCKS)}")
    if layers is None:
        if block not in (None, kind):
            raise UsageError(f"block {block} does not go with depth {depth}, which has {kind} blocks: give layers too")
        return kind, repeats
    if len(layers) != 4 or min(layers) < 1:
        raise UsageError(f"layers is {list(layers)}: give four numbers of blocks, each at least 1")
    return block or kind, tuple(layers)


def _check(
    kind: str,
    groups: int,
    width_per_group: int,
    depthwise_separable: bool,
    stochastic_depth: float,
    output_stride: int,
    in_channels: int,
) -> None:
    if kind == "basic" and (groups != 1 or width_per_group != 64):
        raise UsageError("groups and width_per_group go with bottleneck blocks only: take depth 50 or more")
    if groups < 1 or width_per_group < 1:
        raise UsageError(f"groups is {groups}, width_per_group {width_per_group}: each is at least 1")
    if depthwise_separable and groups != 1:
        raise UsageError(
            "depthwise_separable and groups exclude each other: a depthwise convolution has its own groups"
        )
    if not 0 <= stochastic_depth < 1:
        raise UsageError(f"stochastic_depth is {stochastic_depth}: give a probability from 0 up to, but not, 1")
    if output_stride not in (8, 16, 32):
        raise UsageError(f"output_stride is {output_stride}: choose 8, 16 or 32")
    if in_channels < 1:
        raise UsageError(f"in_channels is {in_channels}: an image has at least one channel")
