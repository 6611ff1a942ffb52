"""Layers as oneDNN computes them: weights ready for the processor, and a row's result whatever stands beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.prediction.backends.folding import is_same_padded, replace_module

__all__ = ["PackedConv2d", "PackedLinear", "pack_convolutions", "pack_linears"]


class PackedConv2d(nn.Module):
    """A convolution on a CPU, for prediction alone, with weights in the order that oneDNN wants.

    torch's own convolution brings the weights into that order each time, which takes a quarter of the time of one
    picture. The order is chosen by the first input; others work, too.

    Args:
        conv: Where weights and settings come from; zero padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.geometry = ([int(p) for p in conv.padding], list(conv.stride), list(conv.dilation), conv.groups)
        self.dtype = conv.weight.dtype
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H', W'], without gradients."""
        x = x.to(self.dtype)
        if self.packed is None:
            plain = self.weight.contiguous().to_mkldnn()
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks the last argument
            self.packed = pack(plain, *self.geometry, list(x.shape))
            self.weight = torch.empty(0)
        convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, *self.geometry, "none", [], ""
        )
        return convolved


class SamePadding(nn.Module):
    """Zeros around a map, so that a convolution without padding makes as many pixels as there are strides in it.

    They are TensorFlow's: where their number is odd, one more lies at the bottom and at the right.

    Args:
        conv: The convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.sides = [*zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H', W']."""
        (top, bottom), (left, right) = (
            _around(int(edge), *side) for edge, side in zip(x.shape[2:], self.sides, strict=True)
        )
        return F.pad(x, (left, right, top, bottom))


def _around(edge: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the zeros before and behind a side of so many pixels."""
    zeros = max(0, (-(-edge // stride) - 1) * stride + (kernel - 1) * dilation + 1 - edge)
    return zeros // 2, zeros - zeros // 2


def pack_convolutions(model: nn.Module) -> int:
    """Replace, in place, each convolution that is known by a PackedConv2d, and return how many there were.

    Nothing happens where torch comes without oneDNN.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return 0
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and (type(m) is nn.Conv2d or is_same_padded(m))]
    known = [m for m in convs if m.padding_mode == "zeros" and not isinstance(m.padding, str)]
    for conv in known:
        packed = PackedConv2d(conv)
        replace_module(model, conv, nn.Sequential(SamePadding(conv), packed) if is_same_padded(conv) else packed)
    return len(known)


class PackedLinear(nn.Module):
    """A linear layer on a CPU, for prediction alone, whose result for a row does not depend on how many there are.

    torch's own takes another order of sums for one row, for few and for many: a picture alone would get other digits
    than among others.

    Args:
        linear: Where weights come from.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.detach()
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C'], without gradients."""
        rows = x.to(self.weight.dtype).reshape(-1, x.shape[-1])
        count = len(rows)
        if count == 0:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        if count == 1:
            rows = rows.expand(2, -1).contiguous()  # of one row oneDNN has an order of its own
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return mapped[:count].reshape(*x.shape[:-1], -1)


def pack_linears(model: nn.Module) -> int:
    """Replace, in place, each linear layer by a PackedLinear, and return how many there were.

    Nothing happens where torch comes without oneDNN.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    linears = [m for m in model.modules() if type(m) is nn.Linear]
    for linear in linears:
        replace_module(model, linear, PackedLinear(linear))
    return len(linears)
