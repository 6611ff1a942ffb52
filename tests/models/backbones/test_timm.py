"""TimmBackbone against timm itself."""

import pytest
import timm
import torch

from visionkit.core.errors import UsageError
from visionkit.models.backbones.timm import TimmBackbone
from visionkit.models.ops.dilated import DilatedConv2d


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18d", "regnetx_002", "mobilenetv3_small_050", "convnext_atto"])
def test_levels_are_those_of_features_only(name):
    theirs = timm.create_model(name, features_only=True).eval()
    ours = TimmBackbone(name).eval()
    missing = ours.net.load_state_dict(timm_state(name, theirs), strict=False).missing_keys
    assert missing == []
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b)
    assert list(ours.features.channels) == theirs.feature_info.channels()
    assert list(ours.features.strides) == theirs.feature_info.reduction()


def timm_state(name, net):
    """Give the tensors of a features_only network the names of the whole one."""
    whole = {k.replace(".", "_"): k for k in timm.create_model(name).state_dict()}
    return {whole[k.replace(".", "_")]: v for k, v in net.state_dict().items()}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "swin_tiny_patch4_window7_224", "hrnet_w18_small"])
def test_last_level_is_the_networks_final_map(name):
    ours = TimmBackbone(name).eval()
    x = images(1, 3, 224, 224)
    with torch.no_grad():
        last, final = ours(x)[-1], ours.net.forward_features(x)
    if name.startswith("swin"):
        final = final.permute(0, 3, 1, 2)
    torch.testing.assert_close(last, final)
    assert ours.features.channels[-1] == ours.net.num_features


def test_a_plain_transformer_has_one_normalised_level():
    ours = TimmBackbone("vit_tiny_patch16_224").eval()
    x = images(1, 3, 224, 224)
    with torch.no_grad():
        (level,) = ours(x)
        tokens = ours.net.forward_features(x)[:, 1:]  # without the class token
    torch.testing.assert_close(level.flatten(2).transpose(1, 2), tokens)
    assert (ours.features.channels, ours.features.strides) == ((192,), (16,))


def test_parts_after_the_pooling_are_dropped_and_nothing_else():
    whole = dict(timm.create_model("mobilenetv3_small_050").named_parameters())
    ours = {k.removeprefix("net.") for k, _ in TimmBackbone("mobilenetv3_small_050").named_parameters()}
    assert set(whole) - ours == {"conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"}


def test_building_leaves_training_mode_and_statistics():
    ours = TimmBackbone("resnet18d")
    assert all(m.training for m in ours.modules())
    assert ours.net.bn1.running_mean.abs().sum() == 0
    assert all(p.device.type == "cpu" and p.grad is None for p in ours.parameters())


def test_statistics_are_those_of_timms_weights():
    assert TimmBackbone("tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    assert TimmBackbone("resnet18d").std == (0.229, 0.224, 0.225)
    assert TimmBackbone("tf_efficientnet_lite0", in_channels=2, mean=(0.1, 0.2)).mean == (0.1, 0.2)


def test_output_stride_and_stochastic_depth_reach_timm():
    assert TimmBackbone("resnet18d", output_stride=8).features.strides == (2, 4, 8)
    deep = TimmBackbone("resnet18d", stochastic_depth=0.7)
    assert deep.net.layer4[1].drop_path.drop_prob == pytest.approx(0.7)


def test_stages_are_timms_coarse_groups():
    stages = TimmBackbone("tf_efficientnet_lite0").stages()
    assert list(stages) == ["stem", *(f"blocks.{i}" for i in range(7))]
    net = TimmBackbone("resnet18d")
    assert net.stages()["stem"] == [net.net.conv1, net.net.bn1]
    assert net.stages()["layer2"] == [net.net.layer2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18dd"}, "no network 'resnet18dd': did you mean .*resnet18d"),
        ({"name": "qqqqqqqq"}, "no network 'qqqqqqqq'$"),
        ({"name": "regnetx_002", "output_stride": 4}, "cannot make regnetx_002 with .*output_stride"),
        ({"name": "swin_tiny_patch4_window7_224", "output_stride": 8}, "output_stride"),
        ({"name": "resnet18d", "in_channels": 0}, "at least one channel"),
        ({"name": "resnet18d", "stochastic_depth": 1.0}, "stochastic_depth is 1.0"),
        ({"name": "resnet18d", "mean": (0.5, 0.5)}, "mean has 2 values"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        TimmBackbone(**arguments)


def test_a_refused_size_is_named():
    with pytest.raises(UsageError, match=r"swin_tiny\S+ does not take images of 65 x 64 pixels: .*divisible"):
        TimmBackbone("swin_tiny_patch4_window7_224")(images(1, 3, 65, 64))


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="expected input"):
        TimmBackbone("resnet18d")(images(1, 5, 64, 64))


def test_dilated_convolutions_take_the_fast_form_and_give_the_same_numbers():
    backbone = TimmBackbone("tf_efficientnet_lite0", output_stride=16).eval()
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0, output_stride=16).eval()
    plain.load_state_dict(backbone.net.state_dict())
    assert sum(type(m) is DilatedConv2d for m in backbone.net.modules()) == 4
    x = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[-1], plain.forward_features(x), rtol=1e-4, atol=1e-5)
