"""The contract that every neck keeps."""

import pytest
import torch

from visionkit.core.component import build, spec_of
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.fpn import FPN
from visionkit.models.necks.identity import IdentityNeck

INCOMING = FeatureSpec((8, 16, 32), (4, 8, 16))
NECKS = {
    "identity": lambda: IdentityNeck(INCOMING),
    "fpn": lambda: FPN(INCOMING, 24, min_level=2, max_level=6),
    "fpn without norm": lambda: FPN(INCOMING, 24, min_level=3, max_level=5, extra="pool", norm=None),
}


@pytest.fixture(params=NECKS)
def neck(request):
    return NECKS[request.param]()


class TestContract:
    @pytest.mark.parametrize(("batch", "height", "width"), [(2, 64, 96), (1, 65, 77)])
    def test_shapes_are_those_of_features(self, neck, batch, height, width):
        incoming = [
            torch.randn(batch, c, -(-height // s), -(-width // s))
            for c, s in zip(INCOMING.channels, INCOMING.strides, strict=True)
        ]
        levels = neck(incoming)
        assert isinstance(levels, list)
        for x, c, s in zip(levels, neck.features.channels, neck.features.strides, strict=True):
            assert x.shape == (batch, c, -(-height // s), -(-width // s))

    def test_spec_round_trip(self, neck):
        spec = spec_of(neck, drop=("features",))
        assert "features" not in spec["init_args"]
        again = build(spec, features=INCOMING)
        assert type(again) is type(neck)
        assert again.features == neck.features

    def test_the_incoming_features_are_recorded(self, neck):
        assert neck.recorded_arguments()["features"] == INCOMING
