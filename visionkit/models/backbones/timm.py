"""Any timm network with feature maps as a backbone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, FeatureSpec
from visionkit.models.backbones.statistics import per_channel
from visionkit.models.ops.dilated import DilatedConv2d

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """Feature maps of a timm network (https://github.com/huggingface/pytorch-image-models), without its classifier.

    It returns one level a stride, the deepest of each, fine to coarse; the last is the network's own final feature
    map (for EfficientNet that of its last 1x1 convolution). A plain vision transformer has one level. Networks
    whose patches do not overlap (ConvNeXt, for one) round the sizes of their levels down, not up.

    Args:
        name: Name of the network in timm, with or without a tag, for example resnet50d or convnext_atto.d2_in1k.
        weights: What to start from: a file (.pth, .pt, .ckpt, .safetensors), a hub name (timm/NAME,
            hf-hub:OWNER/NAME), or auto for the recommended ImageNet weights of this network (fetched once); default:
            random weights. FILE#PART takes what lies under PART where a file holds several networks.
        partial: Go on where the weights cover less than 95 % of the network or hold parts it lacks.
        in_channels: Channels of the input image, at least 1.
        output_stride: Largest stride of a level, 8 or 16 pixels, of networks that can dilate; default: the network's.
        mean: Mean of each channel, 0 to 1, that the weights expect; default: what their file says, else that of
            timm's weights (its average repeated for another number of channels).
        std: Standard deviation of each channel, 0 to 1, that the weights expect; default: what their file says, else
            that of timm's weights (its average repeated for another number of channels).
        stochastic_depth: Probability, 0 up to but not 1, that the last block is skipped in training, of networks that
            have timm's drop_path_rate.

    Raises:
        UsageError: timm has no such network, or the network cannot do what is asked.
        DataError: The weights cannot be read or do not fit.
    """

    net: Any
    """The timm network, under whose own names the parameters are."""

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        partial: bool = False,
        in_channels: int = 3,
        output_stride: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise UsageError(f"in_channels is {in_channels}: an image has at least one channel")
        if not 0 <= stochastic_depth < 1:
            raise UsageError(f"stochastic_depth is {stochastic_depth}: give a probability from 0 up to, but not, 1")
        self.name = name
        self.in_channels = in_channels
        asked = {"output_stride": output_stride, "drop_path_rate": stochastic_depth or None}
        self.net = _create(name, in_channels, {k: v for k, v in asked.items() if v is not None})
        DilatedConv2d.adopt(self.net)
        cfg: dict[str, Any] = self.net.pretrained_cfg
        self.mean = per_channel("mean", mean, cfg.get("mean") or IMAGENET_MEAN, in_channels)
        self.std = per_channel("std", std, cfg.get("std") or IMAGENET_STD, in_channels)

        plan = _dry_run(self.net, name, in_channels, cfg)
        self.features = plan.features
        self._levels, self._final_is_map, self._channels_last = plan.levels, plan.final_is_map, plan.channels_last
        if weights is not None:
            whose = f"those of timm's {name}" if cfg.get("mean") else "ImageNet's"
            self.load(weights, partial=partial, mean=mean, std=std, assumed=whose)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps of normalised images [B, C, H, W].

        Raises:
            UsageError: The network does not take images of this size.
        """
        try:
            final, levels = self.net.forward_intermediates(x, indices=self._levels, norm=not self._final_is_map)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as e:
            height, width, stride = x.shape[2], x.shape[3], self.features.strides[-1]
            fixed = self.net.pretrained_cfg.get("fixed_input_size", False)
            if isinstance(e, AssertionError) or fixed or height % stride or width % stride:  # how timm refuses a size
                raise UsageError(f"{self.name} does not take images of {height} x {width} pixels: {e}") from e
            raise
        if self._final_is_map:
            levels[-1] = final.permute(0, 3, 1, 2) if self._channels_last else final  # [B, C_L, H/s_L, W/s_L]
        return list(levels)

    @classmethod
    def network_name(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return timm's name of the network, as the arguments give it."""
        return arguments.get("name")

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the stem and the network's coarse groups of layers, as timm divides them for layer-wise decay.

        Parameters outside any module but the network itself (a transformer's position embedding) are in no stage.
        """
        from timm.models import group_parameters

        if not hasattr(self.net, "group_matcher"):
            return {name: [child] for name, child in self.net.named_children() if _has_parameters(child)}
        group_of = group_parameters(self.net, self.net.group_matcher(coarse=True), reverse=True)
        groups: dict[int, list[tuple[str, nn.Module]]] = {}
        for path, module, group in _whole_modules(self.net, group_of):
            groups.setdefault(group, []).append((path, module))
        ordered = [groups[i] for i in sorted(groups)]
        return {"stem" if i == 0 else g[0][0]: [module for _, module in g] for i, g in enumerate(ordered)}


def _create(name: str, in_channels: int, asked: dict[str, Any]) -> Any:
    """Make the network without its classifier, for images of any size where it can take them."""
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise UsageError(f"timm has no network {name!r}" + (f": did you mean {', '.join(close)}?" if close else ""))
    try:
        net = timm.create_model(name, in_chans=in_channels, num_classes=0, **asked)
        accepted = inspect.signature(type(net).__init__).parameters
        if dynamic := {k: True for k in ("dynamic_img_size", "dynamic_img_pad") if k in accepted}:
            net = timm.create_model(name, in_chans=in_channels, num_classes=0, **asked, **dynamic)
    except (TypeError, NotImplementedError, AssertionError, RuntimeError) as e:
        raise UsageError(f"timm cannot make {name} with {asked or 'these arguments'}: {e}") from e
    if not hasattr(net, "forward_intermediates"):
        raise UsageError(f"timm gives no feature maps of {name}: take another network")
    return net


@dataclass(frozen=True)
class _Plan:
    """Which outputs of a network are its levels."""

    features: FeatureSpec
    levels: list[int]
    final_is_map: bool
    channels_last: bool


def _dry_run(net: Any, name: str, in_channels: int, cfg: dict[str, Any]) -> _Plan:
    """Run the network once without data to see its outputs, and drop what they do not need (heads after pooling)."""
    stand_ins = {k: torch.empty_like(v, device="meta") for k, v in (*net.named_parameters(), *net.named_buffers())}
    for key, parameter in net.named_parameters():
        stand_ins[key].requires_grad_(parameter.requires_grad)
    image = torch.empty(2, in_channels, *cfg.get("input_size", (3, 224, 224))[1:], device="meta")
    called: set[nn.Module] = set()
    hooks = [m.register_forward_pre_hook(lambda module, _: called.add(module)) for m in net.modules()]
    net.eval()
    try:
        for norm in (False, True):  # the norm is part of a final map; where there is none, the levels need it
            run = _Intermediates(net, norm)
            final, maps = torch.func.functional_call(run, {f"net.{k}": v for k, v in stand_ins.items()}, image)
            plan = _plan([int(info["reduction"]) for info in net.feature_info], final, maps)
            if plan.final_is_map:
                break
        used = [maps[i] for i in plan.levels] + ([final] if plan.final_is_map else [])
        torch.autograd.backward([t.sum() for t in used])
    except (RuntimeError, NotImplementedError, AssertionError, ValueError) as e:
        raise UsageError(f"timm gives no feature maps of {name}: {str(e).partition(chr(10))[0]}") from e
    finally:
        for hook in hooks:
            hook.remove()
    net.train()
    idle = {k for k, p in net.named_parameters() if p.requires_grad and stand_ins[k].grad is None}
    for path, module, unused in _whole_modules(net, {k: k in idle for k, _ in net.named_parameters()}):
        if unused and called.isdisjoint(module.modules()):
            net.set_submodule(path, nn.Identity())
    for key, parameter in net.named_parameters():
        if key in idle:
            parameter.requires_grad_(False)
    return plan


def _plan(strides: list[int], final: Any, maps: list[Tensor]) -> _Plan:
    """Choose one level a stride, the deepest, and see whether the final output is the map of the last level."""
    if len(strides) != len(maps):
        raise ValueError("timm does not know their strides")
    levels = [max(i for i, s in enumerate(strides) if s == stride) for stride in sorted(set(strides))]
    channels, size = [maps[i].shape[1] for i in levels], maps[levels[-1]].shape[2:]
    is_map = isinstance(final, Tensor) and final.dim() == 4 and size in (final.shape[2:], final.shape[1:3])
    channels_last = is_map and final.shape[2:] != size
    if is_map:
        channels[-1] = final.shape[3 if channels_last else 1]
    return _Plan(FeatureSpec(tuple(channels), tuple(strides[i] for i in levels)), levels, is_map, channels_last)


class _Intermediates(nn.Module):
    """Makes timm's second way to call a network its forward."""

    net: Any

    def __init__(self, net: nn.Module, norm: bool) -> None:
        super().__init__()
        self.net = net
        self.norm = norm

    def forward(self, x: Tensor) -> Any:
        return self.net.forward_intermediates(x, norm=self.norm)


def _whole_modules(net: nn.Module, group_of: dict[str, Any], path: str = "") -> list[tuple[str, nn.Module, Any]]:
    """Return the largest modules below net whose parameters are all in one group: name, module, group."""
    found = []
    for child_name, child in net.named_children():
        child_path = f"{path}{child_name}"
        names = (f"{child_path}.{k}" for k, _ in child.named_parameters())
        groups = {group_of[k] for k in names if k in group_of}  # shared parameters count where they come first
        if len(groups) == 1:
            found.append((child_path, child, groups.pop()))
        elif groups:
            found += _whole_modules(child, group_of, f"{child_path}.")
    return found


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
