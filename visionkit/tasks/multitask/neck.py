"""MultiTaskNeck: the backbone's own levels beside those of a neck, for heads that want either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from visionkit.core.component import spec_of
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.base import Neck
from visionkit.models.necks.identity import IdentityNeck

__all__ = ["MultiTaskNeck"]


class MultiTaskNeck(Neck):
    """Hands on the incoming levels and, behind them, those of another neck.

    Args:
        features: Channels and strides of the incoming levels.
        neck: Makes the other neck, such as FPN.
    """

    def __init__(self, features: FeatureSpec, neck: Callable[[FeatureSpec], Neck] = IdentityNeck) -> None:
        super().__init__()
        self.neck = neck(features)
        self.weights_report = self.neck.weights_report
        own = self.neck.features
        self.features = FeatureSpec(features.channels + own.channels, features.strides + own.strides)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Compute the levels: first the incoming ones, then the neck's, each fine to coarse."""
        return [*features, *self.neck(features)]

    def summary(self) -> str:
        """Return the name of the neck inside, for the first lines of a run."""
        return self.neck.summary()

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the neck inside instead of what made it."""
        return {**super().recorded_arguments(), "neck": spec_of(self.neck, drop=("features",))}
