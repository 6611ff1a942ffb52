"""The table of known weights is true of the networks that it names."""

from functools import cache

import pytest
import timm
import torch

from visionkit.models.backbones.resnet import ResNet
from visionkit.models.weights.known import KNOWN, by_name, network_of, recommended

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@cache
def both(network, **arguments):
    """timm's network and ours, without memory for their weights."""
    with torch.device("meta"):
        return timm.create_model(network), ResNet(**arguments)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_each_is_what_it_says(known):
    config = timm.get_pretrained_cfg(known.name)
    assert (config.mean, config.std) == IMAGENET
    assert (config.license, config.hf_hub_id) == (known.licence.lower(), known.source)
    arguments = {"depth": known.depth, **known.style}
    theirs, ours = both(known.network, **arguments)
    shapes = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes
    assert sum(p.numel() for p in theirs.parameters()) / 1e6 == pytest.approx(known.parameters, abs=0.06)
    size = sum(t.numel() * t.element_size() for t in theirs.state_dict().values()) / 1e6
    assert size <= known.megabytes <= size + 0.3  # names and shapes take a little
    assert ResNet.network_name(arguments) == known.network


def test_auto_takes_one_of_each_network():
    taken = [known.network for known in KNOWN if known.auto]
    assert len(taken) == len(set(taken))
    assert {known.network for known in KNOWN} == set(taken)
    assert [recommended(depth).name for depth in (18, 34, 50, 101, 152)] == [
        *("resnet18.a1_in1k", "resnet34.a1_in1k", "resnet50.a1_in1k", "resnet101.a1h_in1k", "resnet152.a1h_in1k"),
    ]
    assert recommended(26) is recommended("resnet18.tv_in1k") is recommended("resnet26") is None
    assert by_name("timm/resnet18.tv_in1k") is by_name("resnet18.tv_in1k") is not None
    assert by_name("resnet18") is None


def test_arguments_that_change_no_parameter_are_passed_over():
    assert ResNet.network_name({}) == "resnet50"
    assert ResNet.network_name({"depth": 18, "output_stride": 8, "in_channels": 1}) == "resnet18"
    assert ResNet.network_name({"layers": [2, 2, 2, 2], "block": "basic"}) == "resnet18"
    assert network_of(50, {"stem": "deep"}) is None
