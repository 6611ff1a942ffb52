"""What a checkpoint holds of an optimizer takes the settings that are asked for now."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from visionkit import DataError, UsageError
from visionkit.training.recipe import Recipe
from visionkit.training.resuming import KEY, go_on, told


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 1)


def adam(groups, **settings):
    return torch.optim.AdamW(groups, **{"lr": 0.1, "weight_decay": 0.5, **settings})


def checkpoint_of(model, optimizer, scheduler, steps=3, per_epoch=3):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
    states = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()]}
    return {**states, KEY: told(model, optimizer, per_epoch)}


def load(checkpoint, optimizer, scheduler):
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    scheduler.load_state_dict(checkpoint["lr_schedulers"][0])


def resume(checkpoint, model, optimizer, factor=lambda step: 0.5**step, per_epoch=3, make=adam):
    scheduler = LambdaLR(optimizer, factor)
    go_on(checkpoint, model, optimizer, scheduler, per_epoch, "x.ckpt", make=make)
    load(checkpoint, optimizer, scheduler)
    return scheduler


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def saved(model):
    optimizer = adam(model.parameters())
    return checkpoint_of(model, optimizer, LambdaLR(optimizer, lambda step: 0.5**step)), optimizer


def test_settings_are_those_of_now_and_the_state_stays(model, saved):
    checkpoint, old = saved
    optimizer = adam(model.parameters(), lr=0.01, weight_decay=0.25, betas=(0.5, 0.75))
    scheduler = resume(checkpoint, model, optimizer)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.01 / 8, 0.25, (0.5, 0.75))
    assert scheduler.base_lrs == [0.01]
    for p in model.parameters():
        assert torch.equal(optimizer.state[p]["exp_avg"], old.state[p]["exp_avg"])
    optimizer.step()
    scheduler.step()
    assert group["lr"] == 0.01 / 16


def test_unchanged_settings_change_no_bit(model, saved):
    checkpoint, old = saved
    optimizer = adam(model.parameters())
    resume(checkpoint, model, optimizer)
    assert optimizer.state_dict()["param_groups"] == old.state_dict()["param_groups"]


def test_the_state_follows_its_parameter_into_other_groups(model, saved):
    """Another backbone_lr or freeze makes other groups, in another order."""
    checkpoint, old = saved
    optimizer = adam([{"params": [model.second.weight], "lr": 1.0}, {"params": [model.first.weight]}])
    resume(checkpoint, model, optimizer)
    for p in (model.first.weight, model.second.weight):
        assert torch.equal(optimizer.state[p]["exp_avg"], old.state[p]["exp_avg"])
    assert [g["lr"] for g in optimizer.param_groups] == [1 / 8, 0.1 / 8]


def test_what_was_frozen_has_no_state_yet(model):
    frozen = adam(model.second.parameters())
    checkpoint = checkpoint_of(model, frozen, LambdaLR(frozen, lambda step: 1.0))
    optimizer = adam(model.parameters())
    resume(checkpoint, model, optimizer)
    assert set(optimizer.state) == set(model.second.parameters())


def test_the_schedule_stays_at_its_place_with_other_batches(model, saved):
    checkpoint, _ = saved
    optimizer = adam(model.parameters())
    scheduler = resume(checkpoint, model, optimizer, per_epoch=6)
    assert scheduler.last_epoch == 6


def test_another_optimizer_is_refused(model, saved):
    with pytest.raises(UsageError, match="x.ckpt was trained with AdamW, the command asks for SGD"):
        resume(saved[0], model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_setting_that_needs_what_is_not_there_is_refused(model, saved):
    def make(groups):
        return adam(groups, amsgrad=True)

    with pytest.raises(UsageError, match="has no max_exp_avg_sq"):
        resume(saved[0], model, make(model.parameters()), make=make)


def test_a_damaged_state_is_refused(model, saved):
    for broken in (
        {"optimizer_states": [{}]},
        {"lr_schedulers": []},
        {KEY: 3},
        {"optimizer_states": [{"param_groups": 1}]},
    ):
        with pytest.raises(DataError, match="x.ckpt: its optimizer's state is damaged"):
            resume({**saved[0], **broken}, model, adam(model.parameters()))


def test_a_checkpoint_of_an_earlier_version_goes_on_with_the_same_groups(model, saved):
    checkpoint = {k: v for k, v in saved[0].items() if k != KEY}
    optimizer = adam(model.parameters(), lr=0.01)
    resume(dict(checkpoint), model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.01 / 8
    with pytest.raises(UsageError, match="was written by an earlier version"):
        resume(dict(checkpoint), model, adam([{"params": [model.first.weight]}]))


def test_a_recipe_makes_the_optimizer_alone():
    optimizer = Recipe().make_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])
    assert isinstance(optimizer, torch.optim.AdamW)
