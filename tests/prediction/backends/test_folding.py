import pytest
import torch
from torch import nn
from torch.nn import functional as F

from visionkit.models.ops import dilated
from visionkit.models.ops.dilated import DilatedConv2d
from visionkit.prediction.backends.folding import Folded, fold_batch_norm
from visionkit.prediction.backends.packing import PackedConv2d, pack_convolutions


class Net(nn.Module):
    """conv -> norm, in the ways that networks are written."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=kind == "bias")
        self.norm = nn.BatchNorm2d(4, affine=kind != "plain", track_running_stats=kind != "batch")
        self.other = nn.BatchNorm2d(4)
        if kind == "alias":
            self.same = nn.ModuleList([self.conv, self.norm])

    def forward(self, images):
        y = self.conv(images.float())
        z = F.relu(self.norm(y), inplace=True)
        if self.kind == "read twice":
            z = z + y
        if self.kind == "two norms":
            z = z + self.other(y)
        if self.kind == "called twice":
            z = z + self.norm(self.conv(images.float() * 2))
        if self.kind == "in between":
            z = self.other(z + 1)
        return z


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("simple", 1),
        ("bias", 1),
        ("plain", 1),
        ("alias", 1),
        ("in between", 1),
        ("read twice", 0),
        ("two norms", 0),
        ("called twice", 0),
        ("batch", 0),
    ],
)
def test_norms_are_folded_where_nobody_else_sees_the_convolution(kind, count):
    torch.manual_seed(0)
    net = Net(kind).eval()
    for norm in (net.norm, net.other):
        if norm.running_mean is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.2, 3)
        if norm.weight is not None:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        truth = net(pixels)
        assert fold_batch_norm(net, torch.zeros_like(pixels[:1])) == count
        assert sum(isinstance(m, Folded) for m in net.modules()) == count
        torch.testing.assert_close(net(pixels), truth, atol=1e-4, rtol=1e-4)


def test_timm_s_norms_keep_their_activation():
    from timm.layers import BatchNormAct2d

    net = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)).double().eval()
    nn.init.normal_(net[1].running_mean)
    pixels = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        truth = net(pixels)
        assert fold_batch_norm(net, pixels) == 1
        torch.testing.assert_close(net(pixels), truth)
    assert (truth == 0).any(), "there is an activation"


def test_timm_s_convolutions_that_pad_unevenly_are_folded_and_packed():
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    layers = [
        (Conv2dSame(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)),
        (Conv2dSame(8, 8, (5, 3), stride=(2, 1), groups=8), nn.BatchNorm2d(8)),
        (Conv2dSame(8, 4, 2, dilation=2), nn.BatchNorm2d(4)),
    ]
    net = nn.Sequential(*(module for pair in layers for module in pair)).eval()
    for _, norm in layers:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.2, 3)
    sizes = ((1, 3, 16, 16), (2, 3, 15, 18), (1, 3, 7, 1))
    pixels = [torch.randn(size).to(memory_format=torch.channels_last) for size in sizes]
    with torch.no_grad():
        truth = [net(x) for x in pixels]
        assert fold_batch_norm(net, pixels[0]) == 3
        folded = [net(x) for x in pixels]
        torch.testing.assert_close(folded, truth, atol=1e-5, rtol=1e-4)
        packed = pack_convolutions(net)
        assert packed in (0, 3)  # 0: torch without oneDNN
        torch.testing.assert_close([net(x) for x in pixels], folded, atol=1e-5, rtol=1e-4)
    assert not packed or not any(isinstance(m, nn.Conv2d) for m in net.modules())


@pytest.mark.parametrize("plain", [True, False])
def test_dilated_convolutions_are_folded_where_this_machine_computes_them_as_torch_does(plain, monkeypatch):
    monkeypatch.setattr(dilated, "_wants_plain", lambda: plain)
    torch.manual_seed(0)
    shapes = [(3, 4, 2, 1), (4, 4, 3, 4), (4, 4, 1, 4)]  # the second is depthwise, in sub-images on any processor
    convs = [DilatedConv2d(width, out, dilation, groups=groups) for width, out, dilation, groups in shapes]
    norms = [nn.BatchNorm2d(4) for _ in convs]
    for norm in norms:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.2, 3)
    net = nn.Sequential(*(module for pair in zip(convs, norms, strict=True) for module in pair)).eval()
    pixels = torch.randn(2, 3, 11, 9).to(memory_format=torch.channels_last)
    with torch.no_grad():
        truth = net(pixels)
        assert fold_batch_norm(net, pixels) == (1 if plain else 2)
        torch.testing.assert_close(net(pixels), truth, atol=1e-5, rtol=1e-4)
        pack_convolutions(net)
        torch.testing.assert_close(net(pixels), truth, atol=1e-5, rtol=1e-4)
    assert sum(isinstance(m, DilatedConv2d) for m in net.modules()) == (2 if plain else 1)


def test_the_memory_order_of_one_picture_is_kept():
    x = torch.empty((1, 4, 6, 6)).to(memory_format=torch.channels_last)
    assert Folded()(x).stride() == x.stride()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1, "bias": False},
        {"groups": 2, "dilation": 2, "padding": (2, 0)},
        {"groups": 4},
    ],
)
def test_packed_convolutions_compute_the_same(settings, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, **settings))
    sizes = ((2, 4, 9, 12), (1, 4, 20, 7), (2, 4, 9, 12))
    pixels = [torch.randn(size).to(memory_format=torch.channels_last) for size in sizes]
    with torch.no_grad():
        truth = [net(x) for x in pixels]
        net.to(dtype)
        assert pack_convolutions(net) == 1
        assert isinstance(net[0], PackedConv2d)
        for x, t in zip(pixels, truth, strict=True):
            found = net(x)
            assert found.dtype == dtype
            assert found.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found.float(), t, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0.02)


def test_other_convolutions_stay():
    net = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding="same"), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.Conv1d(3, 3, 1)
    )
    assert pack_convolutions(net) == 0
