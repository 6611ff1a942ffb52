"""Batch normalisation, the addition of a shortcut and ReLU in one go, where the memory is what takes the time.

With torch's functions a step passes over a map up to 17 times for the three of them; 11 are enough (fused_norm.c,
built with the package where there is a C compiler). Elsewhere, and for whatever the compiled code does not do, torch's
own functions compute the same.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionkit.models.ops.norm import BatchNorm2d

__all__ = ["ConvNorm", "ConvNormReLU", "add", "norm_relu", "rectified"]

SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32"}
KNOWN = (nn.BatchNorm2d, BatchNorm2d)  # no other subclasses, which may do something else: SyncBatchNorm, quantised ones

_P, _L = ctypes.c_void_p, ctypes.c_long
ARGUMENTS = {
    "norm_forward": [*[_P] * 6, ctypes.c_double, ctypes.c_double, ctypes.c_int, ctypes.c_int, *[_P] * 3, _L, _L, _L],
    "norm_backward": [_P, _P, _P, ctypes.c_int, *[_P] * 6, _L, _L, _L],
}
"""Of each function in fused_norm.c, without its suffix."""


class ConvNorm(nn.Sequential):
    """Any modules, then batch normalisation, which is the last one."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H', W']."""
        *others, norm = self
        for module in others:
            x = module(x)
        return norm_relu(norm, x, relu=False)


class ConvNormReLU(nn.Sequential):
    """Any modules, then batch normalisation and ReLU, which are the last two."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H', W']."""
        *others, norm, _ = self
        for module in others:
            x = module(x)
        return norm_relu(norm, x)


def norm_relu(norm: nn.Module, x: Tensor, shortcut: Tensor | None = None, *, relu: bool = True) -> Tensor:
    """Return ``relu(norm(x) + shortcut)``; x may be overwritten only as far as autograd does not need it.

    Equal to the three functions but for rounding: in bf16 the sum is rounded once, not after each of them.

    Args:
        norm: Batch normalisation; any other module is simply called.
        x: Maps [B, C, H, W].
        shortcut: What is added, [B, C, H, W], or None.
        relu: Whether negative values become zero.
    """
    if _fits(norm, x, shortcut):
        return _fused(norm, x, shortcut, relu)  # type: ignore[arg-type]  # that it is a BatchNorm2d was asked
    y: Tensor = norm(x)
    kept = y if y is x else None
    if shortcut is not None:
        y, kept = add(y, shortcut, kept), None
    return rectified(y, kept) if relu else y


def add(y: Tensor, other: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return ``y + other``, in the memory of y, which nobody else needs, where that can be: see :func:`rectified`."""
    return y + other if y is kept or _is_view(y) else y.add_(other)


def rectified(y: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return ``relu(y)``, in the memory of y, which nobody else needs, where that can be.

    What a module with backward hooks returns is a view, which autograd does not let be changed.

    Args:
        y: What a module returned.
        kept: What must not be changed, though it may be the same.
    """
    return F.relu(y, inplace=not (y is kept or _is_view(y)))


def _is_view(y: Tensor) -> bool:
    return not torch.compiler.is_compiling() and y._is_view()  # compiled graphs change nothing in place


def _fits(norm: nn.Module, x: Tensor, shortcut: Tensor | None) -> bool:
    """Return whether the compiled code does this; whoever traces, exports or watches a module sees torch's own."""
    if torch.compiler.is_compiling() or torch.jit._trace.is_tracing():
        return False
    if type(x) is not Tensor or type(norm) not in KNOWN or torch._C._are_functorch_transforms_active():
        return False
    if x.device.type != "cpu" or x.dtype not in SUFFIX or _library() is None:
        return False
    assert isinstance(norm, nn.BatchNorm2d)
    if norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks:
        return False
    if not _is_dense(x) or x.numel() == 0 or (shortcut is not None and not _same(x, shortcut)):
        return False
    known = [t for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var) if t is not None]
    if any(t.dtype != torch.float32 or not t.is_contiguous() or t.device.type != "cpu" for t in known):
        return False
    if norm.training or norm.running_mean is None:  # statistics of the batch
        return x.numel() > x.shape[1]
    learns = x.requires_grad or any(p.requires_grad for p in norm.parameters())
    return not (torch.is_grad_enabled() and (learns or (shortcut is not None and shortcut.requires_grad)))


def _is_dense(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _same(x: Tensor, other: Tensor) -> bool:
    return type(other) is Tensor and other.dtype == x.dtype and other.shape == x.shape and _is_dense(other)


def _fused(norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None, relu: bool) -> Tensor:
    momentum = norm.momentum if norm.momentum is not None else 0.0
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    batch = norm.training or norm.running_mean is None
    result = _NormRelu.apply(
        x,
        norm.weight,
        norm.bias,
        shortcut,
        (norm.running_mean, norm.running_var, momentum, norm.eps, batch, relu),
    )
    assert isinstance(result, Tensor)
    return result


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, shortcut: Tensor | None, settings: Any
    ) -> Tensor:
        mean, var, momentum, eps, batch, relu = settings
        channels, threads = x.shape[1], torch.get_num_threads()
        y = torch.empty_like(x)
        saved = torch.empty(4, channels)
        space = torch.empty(threads + 1, 2, channels, dtype=torch.float64)
        given = (x, shortcut, weight, bias, mean, var, momentum, eps, batch, relu)
        _call("norm_forward", x, *given, y, saved, space, threads=threads)
        ctx.relu, ctx.adds = relu, shortcut is not None
        ctx.has = weight is not None, bias is not None
        ctx.save_for_backward(x, y if relu and shortcut is not None else None, saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, saved = ctx.saved_tensors
        channels, threads = x.shape[1], torch.get_num_threads()
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, g = torch.empty_like(x), None if y is None else torch.empty_like(x)
        dweight, dbias = torch.empty(channels), torch.empty(channels)
        space = torch.empty(threads + 1, 2, channels, dtype=torch.float64)
        _call("norm_backward", x, dy, y, x, ctx.relu, saved, g, dx, dweight, dbias, space, threads=threads)
        shortcut = None if not ctx.adds else dy if g is None else g
        return dx, dweight if ctx.has[0] else None, dbias if ctx.has[1] else None, shortcut, None


def _call(name: str, x: Tensor, *arguments: Any, threads: int) -> None:
    """Call a compiled function for maps like x."""
    channels = x.shape[1]
    function = getattr(_library(), f"{name}_{SUFFIX[x.dtype]}")
    pointers = (a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    function(*pointers, x.numel() // channels, channels, threads)


@cache
def _library() -> ctypes.CDLL | None:
    """Return the compiled code, or None where it was not built or would bring threads of its own beside torch's."""
    if list(Path(torch.__file__).parent.glob("lib/libgomp-*")):  # torch's OpenMP has a name that no other code finds
        return None
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name("_fused_norm.so")))
    except OSError:
        return None
    for name, types in ARGUMENTS.items():
        for suffix in SUFFIX.values():
            function = getattr(library, f"{name}_{suffix}")
            function.argtypes, function.restype = types, None
    return library
