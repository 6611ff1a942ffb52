import pytest
import torch
from torch import nn

from visionkit import UsageError
from visionkit.recipe import Recipe, learning_rate_factor, parameter_groups


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_learning_rate_rises_then_follows_half_a_cosine():
    factors = [learning_rate_factor(s, warmup=4, total=104, final=0.01) for s in range(106)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[54] == pytest.approx(0.01 + 0.99 * 0.5)
    assert factors[104] == factors[105] == pytest.approx(0.01)
    assert all(a > b for a, b in zip(factors[4:104], factors[5:105], strict=True))


def test_cosine_equals_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    for step in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            learning_rate_factor(step, warmup=0, total=50, final=0.1)
        )
        optimizer.step()
        scheduler.step()


def test_no_weight_decay_on_biases_and_norms():
    decayed, free = parameter_groups(model())
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert all(p.ndim == 1 for p in free["params"])
    assert free["weight_decay"] == 0
    optimizer, _ = Recipe().configure(model(), total_steps=10, steps_per_epoch=5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.05, 0.0]


def test_frozen_parameters_are_left_out_and_all_frozen_is_an_error():
    net = model()
    net[0].requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(net)) == 4
    net.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing is left to train"):
        Recipe().configure(net, total_steps=10, steps_per_epoch=5)


def test_any_torch_optimizer():
    recipe = Recipe(
        optimizer=lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2), schedule="constant", warmup_epochs=2
    )
    optimizer, scheduler = recipe.configure(model(), total_steps=10, steps_per_epoch=2)
    assert type(optimizer) is torch.optim.AdamW
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08] + [0.1] * 6)


@pytest.mark.parametrize("bad", [{"warmup_epochs": -1}, {"final_lr": 2}, {"ema": 1.0}, {"early_stopping": 0}])
def test_values_out_of_range(bad):
    with pytest.raises(UsageError, match=f"recipe.{next(iter(bad))}"):
        Recipe(**bad)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_fused_update_equals_the_plain_one(make):
    torch.manual_seed(0)
    start = model()
    results = []
    for fused in (None, False):
        net = model()
        net.load_state_dict(start.state_dict())
        optimizer, _ = Recipe(optimizer=lambda p, f=fused: make(p, lr=0.1, fused=f)).configure(
            net, total_steps=5, steps_per_epoch=5
        )
        assert all(g["fused"] is (fused is None) for g in optimizer.param_groups)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 3, 3, 3)).square().sum().backward()
            optimizer.step()
        results.append(net.state_dict())
    for k in results[0]:
        torch.testing.assert_close(results[0][k], results[1][k])
