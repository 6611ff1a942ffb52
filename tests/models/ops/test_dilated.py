"""Dilated convolutions in another form: the numbers and gradients of torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from visionkit.models.ops import dilated
from visionkit.models.ops.dilated import DilatedConv2d


def pair(channels, out, dilation, groups, dtype=torch.float64, kernel=3):
    ours = DilatedConv2d(channels, out, dilation, groups=groups, kernel_size=kernel).to(dtype)
    padding = dilation * (kernel // 2)
    torchs = nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, groups=groups, bias=False).to(dtype)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def results(conv, x, goal):
    conv.zero_grad()
    x = x.clone().requires_grad_()
    y = conv(x)
    (y * goal).sum().backward()
    return y.detach(), x.grad, conv.weight.grad


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.sampled_from([(6, 6, 6), (6, 4, 2), (6, 4, 1)]),
    st.booleans(), st.integers(1, 3), st.sampled_from([1, 3, 5]),
)  # fmt: skip
def test_numbers_and_gradients_are_torchs(height, width, dilation, sizes, channels_last, batch, kernel):
    channels, out, groups = sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dilated, "_wants_plain", lambda: True)
        ours, torchs = pair(channels, out, dilation, groups, kernel=kernel)
        x = torch.randn(batch, channels, height, width, dtype=torch.float64)
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        goal = torch.randn(batch, out, height, width, dtype=torch.float64)
        for one, other in zip(results(ours, x, goal), results(torchs, x, goal), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(24, 30), (9, 13), (6, 6), (5, 30)])  # sub-images of many and of few cells
@pytest.mark.parametrize("dilation", [2, 6])
def test_depthwise_in_bfloat16(size, dilation):
    ours, torchs = pair(8, 8, dilation, 8, torch.bfloat16)
    x, goal = torch.randn(2, 8, *size).bfloat16(), torch.randn(2, 8, *size).bfloat16()
    exact = results(torchs.double(), x.double(), goal.double())
    for one, other in zip(results(ours, x, goal), exact, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.double(), other, rtol=2e-2, atol=2e-2 * float(other.abs().max()))


def test_gradcheck():
    conv = DilatedConv2d(3, 3, 2, groups=3).double()
    x = torch.randn(1, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, (x,))


def test_under_autocast_it_computes_in_bfloat16_and_learns_in_float32():
    ours, torchs = pair(8, 8, 6, 8, torch.float32)
    x, goal = torch.randn(2, 8, 20, 24), torch.randn(2, 8, 20, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
        (y * goal).sum().backward()
        wanted = torchs(x)
        (wanted * goal).sum().backward()
    assert y.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(y, wanted)
    assert ours.weight.grad.dtype == torch.float32
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, rtol=2e-2, atol=0.2)


def test_the_other_form_is_taken_for_depthwise_ones_on_a_cpu(monkeypatch):
    taken = []
    plain = dilated._plain
    monkeypatch.setattr(dilated, "_plain", lambda *a: taken.append(a) or plain(*a))
    monkeypatch.setattr(dilated, "_wants_plain", lambda: False)
    x = torch.randn(1, 4, 9, 9)
    DilatedConv2d(4, 4, 2)(x)
    DilatedConv2d(4, 4, 1, groups=4)(x)
    DilatedConv2d(4, 4, 2, groups=2)(x)
    assert not taken
    DilatedConv2d(4, 4, 2, groups=4)(x)
    assert len(taken) == 1
    monkeypatch.setattr(dilated, "_wants_plain", lambda: True)
    DilatedConv2d(4, 4, 2)(x)
    assert len(taken) == 2


def test_frozen_weights_and_inputs_without_gradient():
    conv = DilatedConv2d(4, 4, 3, groups=4)
    x = torch.randn(1, 4, 9, 9)
    conv(x).square().sum().backward()
    weight, y = conv.weight.detach().clone().requires_grad_(), x.clone().requires_grad_()
    F.conv2d(y, weight, padding=3, dilation=3, groups=4).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, weight.grad)
    conv.weight.grad = None
    conv.weight.requires_grad_(False)
    x.requires_grad_()
    conv(x).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert conv.weight.grad is None


def test_an_exported_graph_holds_torchs_own():
    exported = torch.export.export(nn.Sequential(DilatedConv2d(4, 4, 3, groups=4)), (torch.randn(1, 4, 9, 9),))
    names = [str(n.target) for n in exported.graph.nodes if n.op == "call_function"]
    assert names == ["aten.conv2d.default"]


def test_convolutions_of_a_network_are_adopted():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4, bias=False),
    )
    x = torch.randn(1, 4, 20, 20)
    before = network(x)
    names = list(network.state_dict())
    DilatedConv2d.adopt(network)
    assert [type(m) is DilatedConv2d for m in network] == [True, False, False, False, False]
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(x), before)
