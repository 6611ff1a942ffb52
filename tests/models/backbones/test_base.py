"""The contract that every backbone keeps."""

import pytest
import torch

from visionkit.core.component import build, spec_of
from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, FeatureSpec
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.backbones.statistics import per_channel
from visionkit.models.backbones.timm import TimmBackbone

SMALL = {"layers": (1, 1, 1, 1), "block": "basic"}
BACKBONES = {
    "resnet18": lambda: ResNet(18),
    "resnet50": lambda: ResNet(50, layers=(1, 1, 1, 1)),
    "small stem": lambda: ResNet(**SMALL, stem="small"),
    "deep stem": lambda: ResNet(layers=(1, 2, 1, 1), stem="deep", avg_down=True, squeeze_excitation=True),
    "stride 8": lambda: ResNet(**SMALL, output_stride=8, avg_down=True),
    "stride 16": lambda: ResNet(layers=(1, 1, 1, 2), output_stride=16),
    "separable": lambda: ResNet(**SMALL, depthwise_separable=True),
    "separable bottleneck": lambda: ResNet(layers=(1, 1, 1, 1), depthwise_separable=True),
    "resnext": lambda: ResNet(layers=(1, 1, 1, 1), groups=32, width_per_group=4),
    "one channel": lambda: ResNet(**SMALL, in_channels=1),
    "six channels": lambda: ResNet(**SMALL, in_channels=6, mean=(0.1,) * 6, std=(0.2,) * 6),
    "timm efficientnet": lambda: TimmBackbone("tf_efficientnet_lite0"),
    "timm resnet18d": lambda: TimmBackbone("resnet18d"),
    "timm resnet18d stride 8": lambda: TimmBackbone("resnet18d", output_stride=8),
    "timm mobilenetv3": lambda: TimmBackbone("mobilenetv3_small_050", in_channels=1),
    "timm regnet": lambda: TimmBackbone("regnetx_002"),
    "timm vit": lambda: TimmBackbone("vit_tiny_patch16_224"),
    "timm convnext": lambda: TimmBackbone("convnext_atto"),
    "timm swin": lambda: TimmBackbone("swin_tiny_patch4_window7_224", stochastic_depth=0.1),
}
ROUNDS_DOWN = {"timm convnext"}  # patches that do not overlap
FIXED_MULTIPLE = {"timm swin"}  # timm refuses sizes that its patches do not divide


@pytest.fixture(scope="module", params=BACKBONES)
def made(request):
    torch.manual_seed(0)
    return request.param, BACKBONES[request.param]()


class TestContract:
    @staticmethod
    def check_shapes(name, backbone, batch, height, width):
        levels = backbone(torch.randn(batch, backbone.in_channels, height, width))
        assert isinstance(levels, list)
        assert len(levels) == len(backbone.features.channels)
        for x, channels, stride in zip(levels, backbone.features.channels, backbone.features.strides, strict=True):
            rounding = 0 if name in ROUNDS_DOWN else stride - 1
            assert x.shape == (batch, channels, (height + rounding) // stride, (width + rounding) // stride)
            assert x.is_floating_point()
            assert torch.isfinite(x).all()

    def test_shapes_are_those_of_features(self, made):
        self.check_shapes(*made, 2, 64, 96)

    @pytest.mark.parametrize(("height", "width"), [(65, 77), (33, 50)])
    def test_odd_sizes_round_up(self, made, height, width):
        if made[0] in FIXED_MULTIPLE:
            with pytest.raises(UsageError, match=f"{height} x {width}"):
                made[1](torch.randn(2, 3, height, width))
        else:
            self.check_shapes(*made, 2, height, width)

    def test_one_image(self, made):
        name, backbone = made
        backbone.eval()
        self.check_shapes(name, backbone, 1, 64, 64)
        backbone.train()

    def test_strides_grow(self, made):
        strides = made[1].features.strides
        assert list(strides) == sorted(strides)
        if made[0].startswith("timm"):
            assert len(set(strides)) == len(strides)

    def test_gradients_reach_every_parameter(self, made):
        backbone = made[1]
        backbone.zero_grad(set_to_none=True)
        sum(x.square().mean() for x in backbone(torch.randn(2, backbone.in_channels, 64, 64))).backward()
        assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
        backbone.zero_grad(set_to_none=True)

    def test_trains_and_infers_without_each_other(self, made):
        backbone = made[1].eval()
        x = torch.randn(1, backbone.in_channels, 64, 64)
        with torch.no_grad():
            first, second = backbone(x), backbone(x)
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b)
        backbone.train()

    def test_spec_round_trip(self, made):
        backbone = made[1]
        spec = spec_of(backbone)
        assert spec["init_args"]["weights"] is None
        assert spec["init_args"]["mean"] == list(backbone.mean)
        again = build(spec)
        assert type(again) is type(backbone)
        assert again.features == backbone.features
        assert (again.mean, again.std, again.in_channels) == (backbone.mean, backbone.std, backbone.in_channels)
        again.load_state_dict(backbone.state_dict())
        x = torch.randn(1, backbone.in_channels, 64, 64)
        with torch.no_grad():
            for a, b in zip(backbone.eval()(x), again.eval()(x), strict=True):
                assert torch.equal(a, b)
        backbone.train()

    def test_stages_hold_every_module_once(self, made):
        backbone = made[1]
        stages = backbone.stages()
        assert next(iter(stages)) == "stem"
        staged = [p for modules in stages.values() for m in modules for p in m.parameters()]
        assert len({id(p) for p in staged}) == len(staged)
        outside = {id(p) for p in backbone.parameters()} - {id(p) for p in staged}
        named = {n for n, p in backbone.named_parameters() if id(p) in outside}
        assert named == ({"net.cls_token", "net.pos_embed"} if made[0] == "timm vit" else set())

    def test_statistics(self, made):
        backbone = made[1]
        assert len(backbone.mean) == len(backbone.std) == backbone.in_channels
        assert all(0 <= m <= 1 and 0 < s <= 1 for m, s in zip(backbone.mean, backbone.std, strict=True))

    def test_starts_from_scratch(self, made):
        assert made[1].weights_report is None


def test_feature_spec_takes_lists_and_checks_lengths():
    assert FeatureSpec([8, 16], [4, 8]) == FeatureSpec((8, 16), (4, 8))
    for channels, strides in (((8,), (4, 8)), ((), ())):
        with pytest.raises(ValueError, match="one entry a level"):
            FeatureSpec(channels, strides)


def test_statistics_default_to_imagenet_and_to_its_average():
    assert per_channel("mean", None, IMAGENET_MEAN, 3) == IMAGENET_MEAN
    assert per_channel("mean", None, IMAGENET_MEAN, 1) == pytest.approx((0.449,), abs=1e-3)
    assert per_channel("std", None, IMAGENET_STD, 5) == pytest.approx((0.226,) * 5)
    assert per_channel("std", [0.5, 0.25], IMAGENET_STD, 2) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mean", (0.5,), "1 values, in_channels is 3"),
        ("mean", (123.7, 116.3, 103.5), "divide values of the 0..255 scale by 255"),
        ("mean", (-0.1, 0.5, 0.5), "0..1 scale"),
        ("std", (0.2, 0.0, 0.2), "0..1 scale"),
    ],
)
def test_statistics_out_of_range(key, values, message):
    with pytest.raises(UsageError, match=message):
        per_channel(key, values, IMAGENET_MEAN, 3)


def test_a_backbone_of_ones_own_needs_no_weights_mean_or_std_arguments():
    class Own(Backbone):
        def __init__(self, width=4):
            super().__init__()
            self.features, self.in_channels = FeatureSpec((width,), (1,)), 3
            self.mean, self.std = (0.5,) * 3, (0.5,) * 3

    assert spec_of(Own(width=8))["init_args"] == {"width": 8}
    assert Own(width=8).summary() == "Own width 8"
