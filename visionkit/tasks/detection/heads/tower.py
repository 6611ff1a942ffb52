"""The convolutions of a dense head that all levels of a pyramid share."""

from __future__ import annotations

from torch import Tensor, nn

from visionkit.models.ops.fused_norm import norm_relu
from visionkit.models.ops.norm import BatchNorm2d

__all__ = ["Tower"]


class Tower(nn.Module):
    """3x3 convolutions that all levels share; with batch normalisation each level has its own.

    Args:
        channels: Channels of the input.
        width: Channels of each convolution.
        depth: Number of convolutions.
        norm: "batch" or "group".
        levels: Number of levels.
    """

    def __init__(self, channels: int, width: int, depth: int, norm: str, levels: int) -> None:
        super().__init__()
        own = norm == "batch"
        inputs = [channels, *[width] * depth]
        self.convs = nn.ModuleList(nn.Conv2d(inputs[k], width, 3, padding=1, bias=not own) for k in range(depth))
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        self.norms = nn.ModuleList(
            nn.ModuleList((BatchNorm2d(width) if own else nn.GroupNorm(32, width)) for _ in range(depth))
            for _ in range(levels if own else 1)
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map [B, channels, H, W] of a level to [B, width, H, W]."""
        norms = self.norms[level if len(self.norms) > 1 else 0]
        assert isinstance(norms, nn.ModuleList)
        for conv, norm in zip(self.convs, norms, strict=True):
            x = norm_relu(norm, conv(x))
        return x
