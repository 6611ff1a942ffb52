"""ResNet against the published numbers, torchvision and timm."""

import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from visionkit.core.errors import UsageError
from visionkit.models.backbones.resnet import ResNet


def tensors(module):
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


@pytest.mark.parametrize(
    ("depth", "params", "gmacs"),
    [(18, 11.69, 1.81), (34, 21.80, 3.66), (50, 25.56, 4.09), (101, 44.55, 7.80), (152, 60.19, 11.51)],
)
def test_published_parameters_and_multiply_adds(depth, params, gmacs):
    with torch.device("meta"):
        net = ResNet(depth).eval()
        fc = nn.Linear(net.features.channels[-1], 1000)
        with FlopCounterMode(display=False) as counter:
            fc(net(torch.empty(1, 3, 224, 224))[-1].mean((2, 3)))
    count = sum(p.numel() for m in (net, fc) for p in m.parameters())
    assert count / 1e6 == pytest.approx(params, abs=0.006)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.011)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_are_torchvisions(depth):
    with torch.device("meta"):
        theirs = tensors(getattr(torchvision.models, f"resnet{depth}")())
        ours = tensors(ResNet(depth))
    assert ours == {k: v for k, v in theirs.items() if not k.startswith("fc.")}


def randomise(module):
    """Give every tensor values that tell a wrong order of layers, BatchNorm's statistics included."""
    generator = torch.Generator().manual_seed(0)
    for name, t in module.state_dict().items():
        if (
            name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight"))
            and t.dim() == 1
        ):
            t.copy_(torch.rand(t.shape, generator=generator) * 0.5 + 0.75)
        elif t.dim() == 1 and t.is_floating_point():
            t.copy_(torch.randn(t.shape, generator=generator) * 0.1)
    return module


def torchvision_levels(net, x):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    levels = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def assert_same_features(ours, theirs, theirs_levels):
    """Compare the features in eval and train mode, and the statistics that training moved."""
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(2, 3, 64, 72, generator=torch.Generator().manual_seed(1))  # 72: odd sizes inside
    for training in (False, True):
        ours.train(training)
        theirs.train(training)
        with torch.no_grad():
            for a, b in zip(ours(x), theirs_levels(theirs, x), strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() <= 1e-5 * max(1, b.abs().max())
    moved = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, moved[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"depth": 18}),
        ("resnet50", {"depth": 50}),
        ("resnext50_32x4d", {"depth": 50, "groups": 32, "width_per_group": 4}),
        ("wide_resnet50_2", {"depth": 50, "width_per_group": 128}),
    ],
)
def test_features_equal_torchvisions(name, arguments):
    theirs = randomise(getattr(torchvision.models, name)())
    assert_same_features(ResNet(**arguments), theirs, torchvision_levels)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("resnet50d", {"depth": 50, "stem": "deep", "avg_down": True}, {}),
        ("seresnet50", {"depth": 50, "squeeze_excitation": True}, {}),
        ("seresnet18", {"depth": 18, "squeeze_excitation": True}, {}),
        ("resnet18d", {"depth": 18, "stem": "deep", "avg_down": True, "output_stride": 8}, {"output_stride": 8}),
        ("resnet50d", {"depth": 50, "stem": "deep", "avg_down": True, "output_stride": 16}, {"output_stride": 16}),
        ("resnet50", {"depth": 50, "output_stride": 8}, {"output_stride": 8}),
        ("resnet18", {"depth": 18, "output_stride": 16}, {"output_stride": 16}),
    ],
)
def test_features_equal_timms(name, arguments, options):
    theirs = randomise(timm.create_model(name, **options))
    ours = ResNet(**arguments)
    assert_same_features(
        ours, theirs, lambda net, x: net.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
    )
    assert list(ours.features.strides) == [info["reduction"] for info in theirs.feature_info[1:]]
    assert list(ours.features.channels) == [info["num_chs"] for info in theirs.feature_info[1:]]


@pytest.mark.parametrize(
    ("arguments", "strides"),
    [
        ({}, (4, 8, 16, 32)),
        ({"output_stride": 16}, (4, 8, 16, 16)),
        ({"output_stride": 8}, (4, 8, 8, 8)),
        ({"stem": "small"}, (1, 2, 4, 8)),
        ({"stem": "small", "output_stride": 8}, (1, 2, 4, 8)),
        ({"stem": "deep"}, (4, 8, 16, 32)),
    ],
)
def test_strides(arguments, strides):
    with torch.device("meta"):
        net = ResNet(18, **arguments)
        assert net.features.strides == strides
        assert [64 // x.shape[-1] for x in net(torch.empty(2, 3, 64, 64))] == list(strides)


def test_dilation_keeps_weights_and_receptive_field():
    with torch.device("meta"):
        plain, dilated = ResNet(50), ResNet(50, output_stride=8)
    assert tensors(plain) == tensors(dilated)
    assert dilated.layer3[1].conv2.dilation == (2, 2)
    assert dilated.layer4[0].conv2.dilation == (2, 2)  # the first block still sees the stage before
    assert dilated.layer4[1].conv2.dilation == (4, 4)


def test_zero_init_makes_blocks_start_as_their_shortcut():
    x = torch.randn(2, 64, 8, 8).relu()
    block = ResNet(18).eval().layer1[0]
    assert torch.equal(block(x), x)
    block = ResNet(18, zero_init_last=False).eval().layer1[0]
    assert not torch.allclose(block(x), x)


def test_initial_activations_keep_their_size():
    torch.manual_seed(0)
    for arguments in ({}, {"depthwise_separable": True}):
        levels = ResNet(18, **arguments)(torch.randn(4, 3, 64, 64))
        assert all(0.1 < level.std() < 10 for level in levels)


def test_inplace_operations_leave_the_input_and_the_levels():
    net = ResNet(18, zero_init_last=False).train()
    x = torch.randn(2, 3, 64, 64)
    before = x.clone()
    levels = net(x)
    assert torch.equal(x, before)
    again = net.layer4(levels[2])  # level 3 is still what layer4 was given
    torch.testing.assert_close(again, levels[3])


class TestDepthwiseSeparable:
    def test_one_basic_block_by_hand(self):
        block = ResNet(18, depthwise_separable=True).layer2[0]
        assert block.conv1[0].weight.shape == (64, 1, 3, 3)
        assert block.conv1[1].weight.shape == (128, 64, 1, 1)
        conv1, conv2, shortcut = 64 * 9 + 64 * 128, 128 * 9 + 128 * 128, 64 * 128
        norms = 3 * 2 * 128
        assert sum(p.numel() for p in block.parameters()) == conv1 + conv2 + shortcut + norms == 35_264

    @pytest.mark.parametrize("depth", [18, 50])
    def test_smaller_network_of_the_same_features(self, depth):
        with torch.device("meta"):
            plain, small = ResNet(depth), ResNet(depth, depthwise_separable=True)
        assert small.features == plain.features
        ratio = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in plain.parameters())
        assert ratio < (0.2 if depth == 18 else 0.65)

    def test_nothing_lies_between_depthwise_and_pointwise(self):
        conv = ResNet(18, depthwise_separable=True).layer1[0].conv1
        x = torch.randn(1, 64, 8, 8)
        depthwise, pointwise = conv[0].weight, conv[1].weight
        dense = torch.einsum("oi,ihw->oihw", pointwise[:, :, 0, 0], depthwise[:, 0])  # one 3x3 of rank one a channel
        torch.testing.assert_close(conv(x), nn.functional.conv2d(x, dense, padding=1), rtol=1e-4, atol=1e-4)


class TestStochasticDepth:
    def test_linear_rule(self):
        with torch.device("meta"):
            net = ResNet(18, stochastic_depth=0.7)
            theirs = timm.create_model("resnet18", drop_path_rate=0.7)
        ours = [b.skip for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for b in stage]
        assert ours == pytest.approx([0.1 * i for i in range(8)])
        their_blocks = [b for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for b in stage]
        assert ours == pytest.approx([b.drop_path.drop_prob if b.drop_path else 0.0 for b in their_blocks])

    def test_each_image_is_skipped_or_scaled_up_and_the_mean_is_kept(self):
        torch.manual_seed(0)
        block = ResNet(18, stochastic_depth=0.4, zero_init_last=False).layer4[1]
        assert block.skip == 0.4
        block.bn1.eval()
        block.bn2.eval()
        block.bn2.weight.data.abs_()
        x = torch.full((1, 512, 1, 1), 1000.0)  # so large that the last ReLU cuts nothing
        with torch.no_grad():
            branch = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            block.conv2.weight /= branch.abs().max() / 100
            branch = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            out = block(x.expand(4000, -1, -1, -1)) - x
        channel = branch.abs().argmax()
        share = out[:, channel, 0, 0] / branch[0, channel, 0, 0]
        kept = share > 0.5
        torch.testing.assert_close(share[kept], torch.full((int(kept.sum()),), 1 / 0.6), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(share[~kept], torch.zeros(int((~kept).sum())), rtol=0, atol=1e-3)
        assert kept.float().mean() == pytest.approx(0.6, abs=0.03)  # 4 standard deviations

    def test_does_nothing_in_eval(self):
        torch.manual_seed(0)
        plain = ResNet(18, zero_init_last=False).eval()
        deep = ResNet(18, zero_init_last=False, stochastic_depth=0.9).eval()
        deep.load_state_dict(plain.state_dict())
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(plain(x)[-1], deep(x)[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth is 20: choose one of 18, 34, 50, 101, 152"),
        ({"depth": 50, "block": "basic"}, "give layers too"),
        ({"layers": (1, 1, 1)}, "four numbers"),
        ({"layers": (1, 0, 1, 1)}, "at least 1"),
        ({"layers": (1, 1, 1, 1), "block": "dense"}, "block is 'dense'"),
        ({"depth": 18, "groups": 2}, "bottleneck blocks only"),
        ({"depth": 34, "width_per_group": 128}, "bottleneck blocks only"),
        ({"groups": 0}, "groups is 0"),
        ({"groups": 32, "depthwise_separable": True}, "exclude each other"),
        ({"stochastic_depth": 1.0}, "stochastic_depth is 1.0"),
        ({"stochastic_depth": -0.1}, "stochastic_depth is -0.1"),
        ({"output_stride": 4}, "choose 8, 16 or 32"),
        ({"stem": "tiny"}, "stem is 'tiny'"),
        ({"in_channels": 0}, "at least one channel"),
        ({"mean": (0.5,)}, "mean has 1 values"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        ResNet(**arguments)


def test_layers_take_the_block_of_depth_unless_named():
    with torch.device("meta"):
        assert ResNet(layers=[1, 1, 1, 1]).features.channels == (256, 512, 1024, 2048)
        assert ResNet(18, layers=(1, 1, 1, 1)).features.channels == (64, 128, 256, 512)
        assert ResNet(layers=(1, 1, 1, 1), block="basic").features.channels == (64, 128, 256, 512)


def test_timm_stays_unloaded():
    code = "import sys; from visionkit import ResNet; ResNet(18); sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
