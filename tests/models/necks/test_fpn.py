"""FPN beside torchvision's."""

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.fpn import FPN

SPEC = FeatureSpec((8, 16, 32, 64), (4, 8, 16, 32))


def maps(height, width, batch=2):
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, -(-height // s), -(-width // s), generator=g)
        for c, s in zip(SPEC.channels, SPEC.strides, strict=True)
    ]


def copy(theirs, ours):
    with torch.no_grad():
        for part, blocks in ((ours.lateral, theirs.inner_blocks), (ours.output, theirs.layer_blocks)):
            for mine, block in zip(part, blocks, strict=True):
                mine.load_state_dict(block[0].state_dict())
        if len(ours.coarser):
            ours.coarser[0].load_state_dict(theirs.extra_blocks.p6.state_dict())
            ours.coarser[1].load_state_dict(theirs.extra_blocks.p7.state_dict())


@pytest.mark.parametrize("size", [(64, 96), (65, 77), (33, 200)])
def test_same_numbers_as_torchvision(size):
    torch.manual_seed(0)
    theirs = FeaturePyramidNetwork([16, 32, 64], 24, LastLevelP6P7(24, 24))
    ours = FPN(SPEC, 24, min_level=3, max_level=7, norm=None)
    copy(theirs, ours)
    for a, b in zip(ours(maps(*size)), theirs(OrderedDict(enumerate(maps(*size)[1:]))).values(), strict=True):
        torch.testing.assert_close(a, b)
    theirs = FeaturePyramidNetwork([8, 16, 32, 64], 24, LastLevelMaxPool())
    ours = FPN(SPEC, 24, min_level=2, max_level=6, extra="pool", norm=None)
    copy(theirs, ours)
    for a, b in zip(ours(maps(*size)), theirs(OrderedDict(enumerate(maps(*size)))).values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("levels", "strides"), [((2, 3), (4, 8)), ((3, 5), (8, 16, 32)), ((5, 8), (32, 64, 128, 256)), ((4, 4), (16,))]
)
@pytest.mark.parametrize("extra", ["conv", "pool"])
def test_levels(levels, strides, extra):
    neck = FPN(SPEC, 16, min_level=levels[0], max_level=levels[1], extra=extra)
    assert neck.features == FeatureSpec((16,) * len(strides), strides)
    out = neck(maps(130, 75))
    assert [x.shape[-2:] for x in out] == [(-(-130 // s), -(-75 // s)) for s in strides]
    sum(x.square().mean() for x in out).backward()
    assert all(p.grad is not None for p in neck.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_level": 1}, "min_level=1"),
        ({"min_level": 5, "max_level": 4}, "max_level=4"),
        ({"max_level": 9}, "max_level=9"),
        ({"extra": "max"}, "conv or pool"),
        ({"norm": "layer"}, "norm='layer'"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        FPN(SPEC, **settings)


def test_a_level_that_the_backbone_lacks():
    with pytest.raises(UsageError, match=r"has levels \[3, 5\]"):
        FPN(FeatureSpec((8, 8), (8, 32)), 16, min_level=3, max_level=5)
    with pytest.raises(UsageError, match="lacks"):
        FPN(FeatureSpec((8, 8), (8, 16)), 16, min_level=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_levels_of_one_column(dtype):
    torch.manual_seed(0)
    neck = FPN(FeatureSpec((8, 16), (8, 16)), 16, min_level=3, max_level=7, norm=None)
    neck = neck.to(memory_format=torch.channels_last)
    maps = [torch.randn(4, 8, 3, 2), torch.randn(4, 16, 2, 1)]
    for _ in range(20):
        neck.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            levels = neck([m.to(memory_format=torch.channels_last) for m in maps])
        assert [level.shape[2:] for level in levels] == [(3, 2), (2, 1), (1, 1), (1, 1), (1, 1)]
        sum(level.float().square().sum() for level in levels).backward()
        middle = neck.coarser[1].weight.grad[:, :, 1, 1]
        assert 0 < middle.abs().max() < 1e3
        outside = neck.coarser[1].weight.grad.clone()
        outside[:, :, 1, 1] = 0
        assert not outside.any()  # it saw one cell
