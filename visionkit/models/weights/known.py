"""Weights that were trained on ImageNet-1k, by name: what they are, what they weigh, and which ones `auto` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KNOWN", "KnownWeights", "by_name", "network_of", "recommended"]

_PLAIN: dict[str, Any] = {
    "stem": "conv7",
    "avg_down": False,
    "squeeze_excitation": False,
    "depthwise_separable": False,
    "groups": 1,
    "width_per_group": 64,
}
"""The arguments of ResNet, beside depth, that say which parameters it has, and their defaults."""


@dataclass(frozen=True)
class KnownWeights:
    """Weights on the hub, under https://huggingface.co/timm.

    Args:
        name: Timm's name of them, NETWORK.TAG. Tags tv_in1k and tv2_in1k are torchvision's own (IMAGENET1K_V1, _V2).
        depth: Depth of the ResNet.
        parameters: Parameters of the network with its classifier, in millions.
        megabytes: Size of the file, 10**6 bytes.
        top1: Published top-1 accuracy on ImageNet-1k's validation set, 0 to 100: of timm's, its results-imagenet.csv;
            of torchvision's, its documentation.
        top1_size: Side of the square, in pixels, at which that was measured; training was at 224 or less.
        licence: SPDX name of the licence of the weights.
        style: Arguments of ResNet beside depth, where they are not the defaults.
        auto: Whether ``weights: auto`` takes them.
    """

    name: str
    depth: int
    parameters: float
    megabytes: float
    top1: float
    top1_size: int
    licence: str = "Apache-2.0"
    style: Mapping[str, Any] = field(default_factory=dict)
    auto: bool = True

    @property
    def network(self) -> str:
        """Timm's name of the network, without the tag."""
        return self.name.partition(".")[0]

    @property
    def source(self) -> str:
        """The hub name, as ``weights`` takes it."""
        return f"timm/{self.name}"


_BSD = "BSD-3-Clause"
_D = {"stem": "deep", "avg_down": True}
KNOWN = (
    KnownWeights("resnet18.a1_in1k", 18, 11.7, 46.8, 73.2, 288),
    KnownWeights("resnet34.a1_in1k", 34, 21.8, 87.3, 77.9, 288),
    KnownWeights("resnet50.a1_in1k", 50, 25.6, 102.5, 81.2, 288),
    KnownWeights("resnet101.a1h_in1k", 101, 44.5, 178.7, 82.8, 288),
    KnownWeights("resnet152.a1h_in1k", 152, 60.2, 241.5, 83.5, 288),
    KnownWeights("resnet18d.ra2_in1k", 18, 11.7, 46.9, 73.8, 288, style=_D),
    KnownWeights("resnet34d.ra2_in1k", 34, 21.8, 87.4, 78.4, 288, style=_D),
    KnownWeights("resnet50d.ra2_in1k", 50, 25.6, 102.6, 81.4, 288, style=_D),
    KnownWeights("resnet101d.ra2_in1k", 101, 44.6, 178.8, 83.0, 320, style=_D),
    KnownWeights("resnet152d.ra2_in1k", 152, 60.2, 241.6, 83.7, 320, style=_D),
    KnownWeights("seresnet50.ra2_in1k", 50, 28.1, 112.6, 81.3, 288, style={"squeeze_excitation": True}),
    KnownWeights("resnext50_32x4d.a1h_in1k", 50, 25.0, 100.4, 82.0, 288, style={"groups": 32, "width_per_group": 4}),
    KnownWeights(
        "resnext101_32x8d.tv2_in1k", 101, 88.8, 356.1, 82.8, 224, _BSD, style={"groups": 32, "width_per_group": 8}
    ),
    KnownWeights("wide_resnet50_2.racm_in1k", 50, 68.9, 275.9, 82.3, 288, style={"width_per_group": 128}),
    KnownWeights("wide_resnet101_2.tv2_in1k", 101, 126.9, 508.2, 82.5, 224, _BSD, style={"width_per_group": 128}),
    KnownWeights("resnet18.tv_in1k", 18, 11.7, 46.8, 69.8, 224, _BSD, auto=False),
    KnownWeights("resnet34.tv_in1k", 34, 21.8, 87.3, 73.3, 224, _BSD, auto=False),
    KnownWeights("resnet50.tv_in1k", 50, 25.6, 102.5, 76.1, 224, _BSD, auto=False),
    KnownWeights("resnet50.tv2_in1k", 50, 25.6, 102.5, 80.9, 224, _BSD, auto=False),
    KnownWeights("resnet101.tv_in1k", 101, 44.5, 178.7, 77.4, 224, _BSD, auto=False),
    KnownWeights("resnet101.tv2_in1k", 101, 44.5, 178.7, 81.9, 224, _BSD, auto=False),
    KnownWeights("resnet152.tv_in1k", 152, 60.2, 241.5, 78.3, 224, _BSD, auto=False),
    KnownWeights("resnet152.tv2_in1k", 152, 60.2, 241.5, 82.3, 224, _BSD, auto=False),
)
"""For each network those first that ``auto`` takes: timm's own choice for it, of ImageNet-1k alone, with a licence that
allows any use. All expect ImageNet's mean and standard deviation. Weights of the recipe "A1" (Wightman et al. 2021,
https://arxiv.org/abs/2110.00476) are also the better start for dense tasks: Faster R-CNN from ResNet-50's reached 3.4
box AP more than from torchvision's first ones (MMDetection, configs/resnet_strikes_back)."""


def by_name(name: str) -> KnownWeights | None:
    """Return weights by their name, with or without ``timm/`` before it, or None."""
    return next((k for k in KNOWN if name in (k.name, k.source)), None)


def recommended(what: int | str) -> KnownWeights | None:
    """Return the weights that ``auto`` takes for a network, or None where this table has none.

    Args:
        what: Depth of a plain ResNet (18, 34, 50, 101, 152), or timm's name of a network, such as resnet50d.
    """
    network = f"resnet{what}" if isinstance(what, int) else what
    return next((k for k in KNOWN if k.auto and network in (k.network, k.name)), None)


def network_of(depth: int, style: Mapping[str, Any]) -> str | None:
    """Return timm's name of the network that has the parameters of a ResNet, or None where no weights are known.

    Args:
        depth: Its depth.
        style: Its other arguments, by name; those that are left out have their defaults, those that change no
            parameter (output_stride, stochastic_depth) are passed over.
    """
    asked = {key: style.get(key, default) for key, default in _PLAIN.items()}
    fitting = (k for k in KNOWN if k.auto and k.depth == depth and {**_PLAIN, **k.style} == asked)
    return next((k.network for k in fitting), None)
