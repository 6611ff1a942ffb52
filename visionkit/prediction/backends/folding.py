"""Batch normalisation folded into the convolutions before it: the same numbers, one pass over the maps less."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visionkit.models.ops.dilated import DilatedConv2d
from visionkit.models.ops.norm import BatchNorm2d

__all__ = ["Folded", "fold_batch_norm", "is_same_padded", "replace_module"]


class Folded(nn.Module):
    """Stands where a batch normalisation was."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, as a tensor of its own name: code that may overwrite what a norm returned still does."""
        return x.detach()  # unlike a view of its shape it keeps the memory order of a batch of one


@torch.no_grad()
def fold_batch_norm(model: nn.Module, images: Tensor) -> int:
    """Fold, in place, each batch normalisation into its convolution, where nothing else sees what that computes.

    Which convolution feeds which norm, and whether it is called once and by nobody else, is watched in one pass.
    Dilated convolutions that this machine computes as torch does become torch's.

    Args:
        model: In evaluation mode, with floats of 32 bits.
        images: What to show it, uint8 [B, C, H, W].

    Returns:
        How many were folded.
    """
    DilatedConv2d.release(model)
    seen = _watch(model, images)
    count = 0
    for norm, conv in seen.pairs():
        weight, bias = conv.weight, conv.bias
        if norm.running_mean is None or norm.running_var is None:
            continue  # it goes by the statistics of each batch
        conv.weight, folded = fuse_conv_bn_weights(
            weight,
            bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.bias = folded
        replace_module(model, norm, _without_norm(norm))
        count += 1
    return count


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in another's place, under all names that it has."""
    for name in [name for name, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(name, new)


def _without_norm(norm: Any) -> nn.Module:
    """Return what is left of a norm: timm's may hold an activation, too."""
    return Folded() if _is_plain(norm) else nn.Sequential(Folded(), norm.drop, norm.act)


def _is_plain(norm: nn.Module) -> bool:
    return type(norm) in (nn.BatchNorm2d, BatchNorm2d)


def is_same_padded(module: nn.Module) -> bool:
    """Return whether a module is timm's convolution that pads as TensorFlow does; timm is slow to import."""
    kind = type(module)
    return isinstance(module, nn.Conv2d) and kind.__name__ == "Conv2dSame" and kind.__module__.startswith("timm.")


def _is_known(norm: nn.Module) -> bool:
    """Return whether a module is a batch normalisation that computes nothing unknown; timm is slow to import."""
    kind = type(norm)
    return _is_plain(norm) or (kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm."))


class _Watch(TorchDispatchMode):
    """Counts who uses the outputs of convolutions, however the model's code is written."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the id of the output, which is kept alive
        self.uses: dict[int, int] = {}
        self.calls: dict[nn.Module, int] = {}
        self.read: dict[nn.BatchNorm2d, int] = {}  # the id of the output that it read

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self.made:
                self.uses[id(value)] = self.uses.get(id(value), 0) + 1
        return func(*args, **(kwargs or {}))

    def called(self, module: nn.Module) -> None:
        self.calls[module] = self.calls.get(module, 0) + 1

    def convolved(self, conv: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        self.called(conv)
        self.made[id(output)] = (conv, output)

    def normed(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        self.called(norm)
        if id(inputs[0]) in self.made:  # asked now: later the id can be another tensor's
            self.read[norm] = id(inputs[0])

    def pairs(self) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
        """Return norms with the convolution that feeds them alone."""
        found = []
        for norm, key in self.read.items():
            conv = self.made[key][0]
            if self.uses.get(key) == self.calls[norm] == self.calls[conv] == 1:
                found.append((norm, conv))
        return found


def _watch(model: nn.Module, images: Tensor) -> _Watch:
    watch = _Watch()
    own = [(module, module._forward_hooks, module._forward_pre_hooks) for module in model.modules()]
    for module, _, _ in own:
        module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()  # this pass is not for them
        if type(module) is nn.Conv2d or is_same_padded(module):
            module.register_forward_hook(watch.convolved)
        elif _is_known(module):
            module.register_forward_pre_hook(watch.normed)
    try:
        with watch:
            model(images)
    finally:
        for module, after, before in own:
            module._forward_hooks, module._forward_pre_hooks = after, before
    return watch
