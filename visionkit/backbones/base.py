"""The contract of a backbone: named feature maps, their channels and strides, and the pixel statistics it expects."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from visionkit.component import Component

if TYPE_CHECKING:
    from visionkit.weights import WeightsReport

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Backbone", "FeatureSpec"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureSpec:
    """Channels and strides of a list of feature maps, one entry a level, fine to coarse.

    Args:
        channels: Channels of each level.
        strides: Pixels of the input per cell of each level.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Accept lists (as YAML and checkpoints bring them) and check the lengths."""
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "strides", tuple(self.strides))
        if len(self.channels) != len(self.strides) or not self.channels:
            raise ValueError(f"channels {self.channels} and strides {self.strides} must have one entry a level")


class Backbone(Component, nn.Module):
    """Turns images into feature maps.

    Subclasses set ``features``, ``in_channels``, ``mean`` and ``std`` in their constructor and implement ``forward``.
    """

    features: FeatureSpec
    """Channels and strides of what ``forward`` returns."""
    in_channels: int
    """Channels of the input image."""
    mean: tuple[float, ...]
    """Mean of each input channel, on the 0..1 scale, that the weights expect to be subtracted."""
    std: tuple[float, ...]
    """Standard deviation of each input channel, on the 0..1 scale, that the weights expect to be divided by."""
    weights_report: WeightsReport | None = None
    """What was loaded from ``weights``, or None when the backbone starts from scratch."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            x: Normalised float images [B, C, H, W].

        Returns:
            One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse; sizes round up.
        """
        raise NotImplementedError

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the modules of each stage in order (stem first), for reports and freezing."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return class and settings in words, for the first lines of a run."""
        hidden = ("weights", "partial", "mean", "std")
        settings = (f"{k} {v}" for k, v in self._arguments.items() if k not in hidden and v != _default(self, k))
        return " ".join([type(self).__name__, ", ".join(settings)]).strip()

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the backbone with the statistics in force and without the file its weights came from."""
        in_force = {"weights": None, "mean": list(self.mean), "std": list(self.std)}
        accepted = inspect.signature(type(self)).parameters  # a backbone of the user's need not take them all
        return {**super().recorded_arguments(), **{k: v for k, v in in_force.items() if k in accepted}}


def _default(backbone: Backbone, name: str) -> Any:
    return None if name in ("depth", "name") else inspect.signature(type(backbone)).parameters[name].default
