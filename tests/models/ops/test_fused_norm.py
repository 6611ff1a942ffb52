"""Compiled batch normalisation, shortcut and ReLU beside torch's three functions."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from visionkit import ResNet
from visionkit.models.ops import fused_norm
from visionkit.models.ops.fused_norm import ConvNorm, ConvNormReLU, norm_relu
from visionkit.models.ops.norm import BatchNorm2d

compiled = pytest.mark.skipif(fused_norm._library() is None, reason="the compiled part was not built")

BOTH = [(False, False), (False, True), (True, False), (True, True)]  # adds, relu
SHAPES = [(8, 64, 20, 20), (4, 513, 7, 7), (3, 5, 5, 9), (2, 2048, 3, 3), (1, 3, 1, 2), (1, 16, 33, 31)]


def maps(shape, dtype, seed, grad=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 3 + 5
    return x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_(grad)


def norm_of(channels, seed=0, **arguments):
    norm = nn.BatchNorm2d(channels, **arguments)
    generator = torch.Generator().manual_seed(seed)
    for parameter in norm.parameters():
        parameter.data.normal_(generator=generator)
    return norm


def torchs(norm, x, shortcut, relu):
    y = norm(x)
    y = y if shortcut is None else y + shortcut
    return F.relu(y) if relu else y


def calls(monkeypatch):
    """Count the calls of the compiled code."""
    counted = []
    real = fused_norm._call
    monkeypatch.setattr(fused_norm, "_call", lambda name, *a, **k: (counted.append(name), real(name, *a, **k))[1])
    return counted


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("adds", "relu"), BOTH)
def test_equal_to_torch(shape, adds, relu, monkeypatch):
    counted = calls(monkeypatch)
    x, given = maps(shape, torch.float32, 0), maps(shape, torch.float32, 1)
    ours, theirs = norm_of(shape[1]), norm_of(shape[1])
    dy = maps(shape, torch.float32, 2, grad=False)
    exact = copy.deepcopy(theirs).double()
    results = []
    for norm, function, dtype in (
        (ours, lambda *a: norm_relu(*a[:3], relu=a[3]), torch.float32),
        (theirs, torchs, torch.float32),
        (exact, torchs, torch.float64),
    ):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, *([given] if adds else []))]
        y = function(norm, leaves[0], leaves[1] if adds else None, relu)
        y.backward(dy.to(dtype))
        results.append([t.detach().double() for t in (y, *(t.grad for t in [*leaves, *norm.parameters()]))])
    assert counted == ["norm_forward", "norm_backward"]
    for mine, torchs_own, truth in zip(*results, strict=True):
        largest = max(1.0, float(truth.abs().max()))
        torch.testing.assert_close(mine, truth, rtol=1e-5, atol=1e-5 * largest)
        assert (mine - truth).abs().max() <= 2 * (torchs_own - truth).abs().max() + 2e-6 * largest
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 1


@compiled
@pytest.mark.parametrize(("adds", "relu"), BOTH)
def test_bf16_is_nearer_to_float64_than_torch(adds, relu):
    shape = (8, 64, 20, 20)
    x, given = maps(shape, torch.bfloat16, 0), maps(shape, torch.bfloat16, 1)
    dy = maps(shape, torch.bfloat16, 2, grad=False)
    results = []
    for dtype, function in (
        (torch.bfloat16, lambda *a: norm_relu(*a[:3], relu=a[3])),
        (torch.bfloat16, torchs),
        (torch.float64, torchs),
    ):
        norm = norm_of(64).to(torch.float64 if dtype == torch.float64 else torch.float32)
        own = [t.detach().to(dtype).requires_grad_() for t in (x, given)]
        y = function(norm, own[0], own[1] if adds else None, relu)
        y.backward(dy.to(dtype))
        grads = [own[0].grad, norm.weight.grad, norm.bias.grad, *([own[1].grad] if adds else [])]
        results.append([t.detach().double() for t in (y, *grads)])
    for mine, torchs_own, exact in zip(*results, strict=True):
        # ReLU's gradient jumps: where rounding changes the sign of a sum, one value counts or does not
        far = [((t - exact).abs() > 0.02 * exact.abs().max()).float().mean() for t in (mine, torchs_own)]
        assert far[0] <= max(1e-3, far[1])
        assert (mine - exact).abs().median() <= 1.05 * (torchs_own - exact).abs().median() + 1e-9


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_running_statistics_without_gradients(dtype, monkeypatch):
    counted = calls(monkeypatch)
    norm = norm_of(12).eval()
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 2)
    before = copy.deepcopy(norm.state_dict())
    x, other = maps((2, 12, 5, 7), dtype, 0, grad=False), maps((2, 12, 5, 7), dtype, 1, grad=False)
    with torch.no_grad():
        y = norm_relu(norm, x, other)
    assert counted == ["norm_forward"]
    exact = torchs(copy.deepcopy(norm).double(), x.double(), other.double(), True)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5 if dtype == torch.float32 else 4e-3, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


@compiled
def test_evaluation_with_gradients_is_torchs(monkeypatch):
    counted = calls(monkeypatch)
    norm, x = norm_of(4).eval(), maps((2, 4, 3, 3), torch.float32, 0)
    norm_relu(norm, x).sum().backward()
    assert not counted
    assert x.grad is not None


@compiled
@given(
    rows=st.integers(2, 700),
    channels=st.sampled_from([1, 3, 16, 65, 600]),
    offset=st.sampled_from([0.0, 1e3, -3e4]),
    threads=st.sampled_from([1, 2]),
)
def test_large_means_do_not_cancel(rows, channels, offset, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(rows)
        x = (
            torch.randn(rows, channels, 1, 1, generator=generator).contiguous(memory_format=torch.channels_last)
            + offset
        )
        norm, exact = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
        y, wanted = norm_relu(norm, x, relu=False), exact(x.double())
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(y.double(), wanted, rtol=0, atol=4e-7 * max(1.0, abs(offset)) * 4 + 1e-5)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-4, atol=1e-6)


@compiled
def test_not_a_number_shows():
    x = maps((2, 4, 3, 3), torch.bfloat16, 0, grad=False)
    x[0, 1, 0, 0] = float("nan")
    y = norm_relu(norm_of(4), x)
    assert y[:, 1].isnan().all()
    assert not y[:, [0, 2, 3]].isnan().any()


@pytest.mark.parametrize(
    ("momentum", "affine", "track"), [(None, True, True), (0.3, False, True), (0.1, True, False), (0.0, True, True)]
)
def test_kinds_of_batch_norm(momentum, affine, track):
    arguments = {"momentum": momentum, "affine": affine, "track_running_stats": track}
    ours, theirs = norm_of(6, **arguments), norm_of(6, **arguments)
    for seed in range(3):
        x = maps((2, 6, 4, 4), torch.float32, seed)
        torch.testing.assert_close(norm_relu(ours, x), torchs(theirs, x, None, True), rtol=1e-5, atol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    with torch.no_grad():
        x = maps((2, 6, 4, 4), torch.float32, 5)
        mine, yours = norm_relu(ours.eval(), x), torchs(theirs.eval(), x, None, True)
    torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda norm, x: (nn.Identity(), x),
        lambda norm, x: (nn.GroupNorm(2, 4), x),
        lambda norm, x: (nn.SyncBatchNorm(4).eval(), x),
        lambda norm, x: (norm, x.contiguous()),
        lambda norm, x: (norm.double(), x.double()),
        lambda norm, x: (norm, x[:, :, ::2, ::2]),
        lambda norm, x: (norm, x[:0]),
    ],
)
def test_whatever_else_is_torchs(prepare, monkeypatch):
    counted = calls(monkeypatch)
    norm, x = prepare(norm_of(4), maps((2, 4, 6, 6), torch.float32, 0, grad=False))
    kept = x.clone()
    if len(x) == 0:
        norm.eval()
        norm.weight.requires_grad_(True)
    y = norm_relu(norm, x, x)
    assert not counted
    assert torch.equal(x, kept), "the input is the shortcut, too"
    torch.testing.assert_close(y, torchs(copy.deepcopy(norm).eval() if len(x) == 0 else norm, x, x, True))


@compiled
def test_hooks_see_the_norm(monkeypatch):
    counted = calls(monkeypatch)
    norm, seen = norm_of(4), []
    handle = norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    norm_relu(norm, maps((2, 4, 6, 6), torch.float32, 0))
    assert len(seen) == 1
    assert not counted
    handle.remove()
    norm_relu(norm, maps((2, 4, 6, 6), torch.float32, 0))
    assert counted == ["norm_forward"]


def test_one_value_a_channel():
    with pytest.raises(ValueError, match="more than 1 value"):
        norm_relu(nn.BatchNorm2d(3), torch.ones(1, 3, 1, 1))
    assert torch.isfinite(norm_relu(BatchNorm2d(3), torch.ones(1, 3, 1, 1))).all()


def test_sequences_have_the_names_of_their_modules():
    parts = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()]
    x = maps((2, 3, 6, 6), torch.float32, 0)
    for ours, theirs in (
        (ConvNorm(*parts[:2]), nn.Sequential(*parts[:2])),
        (ConvNormReLU(*parts), nn.Sequential(*parts)),
    ):
        assert list(ours.state_dict()) == list(theirs.state_dict())
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@compiled
@pytest.mark.parametrize("arguments", [{"depth": 18}, {"depth": 50, "stem": "deep", "avg_down": True}])
def test_a_network_trains_to_the_same_weights(arguments, monkeypatch):
    def trained():
        torch.manual_seed(0)
        network = ResNet(**arguments).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        x = x.contiguous(memory_format=torch.channels_last)
        for _ in range(2):
            loss = network(x)[-1].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return network.state_dict()

    counted = calls(monkeypatch)
    ours = trained()
    norms = sum(k.endswith("running_mean") for k in ours)
    assert len(counted) == 2 * 2 * norms, "every norm of the network, forward and backward, in both steps"
    monkeypatch.setattr(fused_norm, "_library", lambda: None)
    for name, value in trained().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4 * max(1.0, float(value.abs().max())))


@compiled
def test_functional_transforms_and_exports_see_torchs_functions(monkeypatch):
    counted = calls(monkeypatch)
    norm, x = norm_of(4).eval(), maps((2, 4, 6, 6), torch.float32, 0, grad=False)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return norm_relu(self.norm, x)

    with torch.no_grad():
        program = torch.export.export(Whole(), (x,))
        assert any("relu" in str(node.target) for node in program.graph.nodes)
        assert any("relu" in str(node) for node in torch.jit.trace(Whole(), x, check_trace=False).graph.nodes())
    gradient = torch.func.grad(lambda x: norm_relu(norm, x).sum())(x)
    assert gradient.shape == x.shape
    assert not counted


@pytest.mark.parametrize(
    "settings",
    [{}, {"squeeze_excitation": True}, {"stochastic_depth": 0.5}, {"stem": "deep"}, {"depthwise_separable": True}],
    ids=str,
)
@pytest.mark.parametrize("train", [True, False])
def test_every_module_may_have_backward_hooks(settings, train):
    """What a module with such hooks returns is a view, which must not be changed in place."""

    def gradients(watched):
        torch.manual_seed(0)
        net = ResNet(layers=(1, 1, 1, 1), block="basic", zero_init_last=False, **settings).train(train)
        seen = []
        for name, module in net.named_modules() if watched else ():
            if name:
                module.register_full_backward_hook(lambda *_, name=name: seen.append(name))
        torch.manual_seed(1)
        x = torch.randn(2, 3, 64, 64, requires_grad=True)
        sum(level.square().mean() for level in net(x)).backward()
        return x.grad, seen

    (plain, _), (hooked, seen) = gradients(False), gradients(True)
    torch.testing.assert_close(hooked, plain, rtol=1e-3, atol=1e-5)
    assert {"conv1", "layer1", "layer4.0.bn2"} <= set(seen)
