"""The contract of a neck: feature maps in, feature maps out, with known channels and strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from visionkit.core.component import Component
from visionkit.models.backbones.base import FeatureSpec

if TYPE_CHECKING:
    from visionkit.models.weights.load import WeightsReport

__all__ = ["Neck", "NeckFactory"]


class Neck(Component, nn.Module):
    """Turns a backbone's feature maps into those that a head takes.

    The first argument of a constructor is the incoming :class:`FeatureSpec`, named ``features``, which the model
    passes; subclasses set the attribute of the same name to what ``forward`` returns.
    """

    weights_arguments = frozenset({"weights", "partial"})
    features: FeatureSpec
    """Channels and strides of what ``forward`` returns."""

    weights_report: WeightsReport | None = None
    """What was loaded from a file, or None when the neck starts from scratch."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Compute the outgoing feature maps.

        Args:
            features: One tensor [B, C_l, H/s_l, W/s_l] an incoming level, fine to coarse.

        Returns:
            One such tensor an outgoing level, fine to coarse.
        """
        raise NotImplementedError

    def summary(self) -> str:
        """Return its name, for the first lines of a run."""
        return type(self).__name__

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the neck without the file its weights came from."""
        return {k: v for k, v in super().recorded_arguments().items() if k != "weights"}


NeckFactory = Callable[[FeatureSpec], Neck]
"""Makes a neck for given incoming features; the configuration's arguments are bound already."""
