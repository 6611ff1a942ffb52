"""IdentityNeck changes nothing."""

import torch

from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.identity import IdentityNeck


def test_features_pass_through():
    spec = FeatureSpec((8, 16), (4, 8))
    neck = IdentityNeck(spec)
    levels = [torch.randn(1, 8, 4, 4), torch.randn(1, 16, 2, 2)]
    out = neck(levels)
    assert neck.features is spec
    assert [a is b for a, b in zip(out, levels, strict=True)] == [True, True]
    assert list(neck.parameters()) == []
