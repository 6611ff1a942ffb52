"""Dilated convolutions that are fast on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionkit.core.machine import cpu_bf16

__all__ = ["DilatedConv2d"]

MIN_CELLS = 4  # cells along a side of sub-images, below which torch's gradient of a depthwise weight is slow


class DilatedConv2d(nn.Conv2d):
    """A convolution with dilation d and stride 1 that keeps the size, without bias, in the fastest form there is.

    A dilated convolution never mixes pixels whose positions differ modulo d: it is a plain convolution of each of the
    d * d sub-images of every d-th pixel ("space to batch"; Chen et al., DeepLab, 2016, section 3.1). Processors have
    fast code for plain convolutions alone: on a CPU a depthwise one is computed so, and any one where matrix units
    (AMX) want it. Numbers and gradients are torch's, up to rounding. Elsewhere, and in exported graphs, it is torch's.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        dilation: Pixels from tap to tap, d, 1 or more.
        groups: As in torch; as many as channels makes it depthwise.
        kernel_size: Taps along each side, k, odd.
    """

    def __init__(self, channels: int, out: int, dilation: int, *, groups: int = 1, kernel_size: int = 3) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(channels, out, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False)

    @staticmethod
    def adopt(network: nn.Module) -> None:
        """Make such convolutions of all those of a network that can be; parameters and their names stay."""
        for m in network.modules():
            if type(m) is nn.Conv2d and m.bias is None and m.stride == (1, 1) and m.dilation[0] == m.dilation[1] > 1:
                kernel = m.kernel_size[0]
                same = m.padding == (m.dilation[0] * (kernel // 2),) * 2 and m.padding_mode == "zeros"
                if same and kernel % 2 and kernel == m.kernel_size[1]:
                    m.__class__ = DilatedConv2d

    @staticmethod
    def release(network: nn.Module) -> None:
        """Make torch's convolutions of those that compute as they do on this machine's processor: others know them."""
        found: list[nn.Module] = [m for m in network.modules() if type(m) is DilatedConv2d and not m._splits]
        for m in found:
            m.__class__ = nn.Conv2d

    @property
    def _splits(self) -> bool:
        """Whether sub-images are faster on this machine's processor."""
        return self.dilation[0] > 1 and (self.groups == self.in_channels == self.out_channels or _wants_plain())

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to [B, out, H, W]."""
        d, depthwise = int(self.dilation[0]), self.groups == self.in_channels == self.out_channels
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not self._splits:
            return super().forward(x)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            x, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight))
        rows, columns = (_taps(weight.shape[2], d, edge) for edge in x.shape[2:])
        weight = weight[:, :, rows, columns]
        if not depthwise:
            return _plain(x, weight, d, self.groups)
        y: Tensor = _Depthwise.apply(x, weight, d)
        return y


def _taps(kernel: int, dilation: int, edge: int) -> slice:
    """Return the taps that meet a pixel somewhere; the others always lie outside and add nothing."""
    reach = min(kernel // 2, (edge - 1) // dilation)
    return slice(kernel // 2 - reach, kernel // 2 + reach + 1)


@cache
def _wants_plain() -> bool:
    return cpu_bf16() == "AMX"


class _Depthwise(torch.autograd.Function):
    """A depthwise dilated convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        """Return [B, C, H, W] from x of that shape and weight [C, 1, k, l], both odd."""
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _plain(x, weight, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of x and weight."""
        x, weight = ctx.saved_tensors
        d = ctx.dilation
        with torch.autocast("cpu", enabled=False):
            to_x = _plain(gradient, weight.flip(2, 3), d, len(weight)) if ctx.needs_input_grad[0] else None
            to_weight = _weight_gradient(x, gradient, weight, d) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    height, width = x.shape[2:]
    step = _step(weight, dilation)
    if min(height // step[0], width // step[1]) >= MIN_CELLS:
        parts, goals = _split(x, step), _split(gradient, step)
        padding = [weight.shape[2] // 2, weight.shape[3] // 2]
        found = torch.ops.aten.convolution_backward(
            goals, parts, weight, None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), [False, True, False]
        )
        return found[1]  # type: ignore[no-any-return]
    result = torch.empty(weight.shape, dtype=torch.float32 if weight.dtype == torch.bfloat16 else weight.dtype)
    x, gradient = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)  # [B, H, W, C]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            down = (i - weight.shape[2] // 2) * dilation
            right = (j - weight.shape[3] // 2) * dilation
            seen = x[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
            met = gradient[:, max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
            result[:, 0, i, j] = torch.sum(seen * met, (0, 1, 2), dtype=result.dtype)
    return result.to(weight.dtype)


def _step(weight: Tensor, dilation: int) -> tuple[int, int]:
    return (dilation if weight.shape[2] > 1 else 1), (dilation if weight.shape[3] > 1 else 1)


def _plain(x: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
    """Return the dilated convolution of x [B, C, H, W] as a plain one of its sub-images."""
    batch, _, height, width = x.shape
    step = _step(weight, dilation)
    parts = _split(x, step)
    y = F.conv2d(parts, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=groups)
    rows, columns = parts.shape[2:]
    y = y.permute(0, 2, 3, 1).reshape(*step, batch, rows, columns, len(weight)).permute(2, 3, 0, 4, 1, 5)
    y = y.reshape(batch, rows * step[0], columns * step[1], len(weight))
    return y[:, :height, :width].permute(0, 3, 1, 2)


def _split(x: Tensor, step: tuple[int, int]) -> Tensor:
    """Return the sub-images of every d-th row and e-th column, [d * e * B, C, H/d, W/e], in channels_last order."""
    batch, channels, height, width = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % step[1], 0, -height % step[0]))  # [B, H', W', C]
    rows, columns = x.shape[1] // step[0], x.shape[2] // step[1]
    parts = x.reshape(batch, rows, step[0], columns, step[1], channels).permute(2, 4, 0, 1, 3, 5)
    return parts.reshape(step[0] * step[1] * batch, rows, columns, channels).permute(0, 3, 1, 2)
