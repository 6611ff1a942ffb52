"""The neck of models that need none."""

from __future__ import annotations

from torch import Tensor

from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.base import Neck

__all__ = ["IdentityNeck"]


class IdentityNeck(Neck):
    """Hands the backbone's feature maps to the head as they are.

    Args:
        features: Channels and strides of the incoming levels.
    """

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.features = features

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the feature maps unchanged."""
        return features
