"""Frozen stages of every backbone: no gradient reaches them, and no statistic moves, whoever calls train()."""

import copy
import pickle

import pytest
import torch

from visionkit import ResNet, TimmBackbone, UsageError

LAYERS = {"layers": (1, 1, 1, 1), "stochastic_depth": 0.2}
BACKBONES = {
    "conv7": lambda: ResNet(**LAYERS, block="basic"),
    "small stem": lambda: ResNet(**LAYERS, block="basic", stem="small"),
    "deep stem": lambda: ResNet(**LAYERS, stem="deep", avg_down=True, squeeze_excitation=True),
    "mobilenetv3": lambda: TimmBackbone("mobilenetv3_small_050"),
    "regnet": lambda: TimmBackbone("regnetx_002"),
    "convnext": lambda: TimmBackbone("convnext_atto", stochastic_depth=0.2),
    "vit": lambda: TimmBackbone("vit_tiny_patch16_224"),
    "efficientnet": lambda: TimmBackbone("tf_efficientnet_lite0"),
}


@pytest.fixture(scope="module", params=BACKBONES)
def made(request):
    torch.manual_seed(0)
    return BACKBONES[request.param]()


@pytest.fixture
def backbone(made):
    return copy.deepcopy(made)


def state(backbone):
    return {k: v.clone() for k, v in backbone.state_dict().items()}


def a_step(backbone):
    """Train one step in a plain loop, at the size that suits the transformer too."""
    backbone.train()
    size = 224 if "vit" in getattr(backbone, "name", "") else 64
    trained = [p for p in backbone.parameters() if p.requires_grad]
    levels = backbone(torch.randn(2, 3, size, size))
    if not trained:
        return
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.5)
    sum(x.square().mean() for x in levels).backward()
    optimizer.step()
    optimizer.zero_grad()


def staged(backbone, names):
    """Names, in the state dict, of all that belongs to stages."""
    modules = {id(m) for n in names for top in backbone.stages()[n] for m in top.modules()}
    parameters = {id(p) for n in names for p in backbone.stage_parameters()[n]}
    found = {n for n, p in backbone.named_parameters() if id(p) in parameters}
    for path, module in backbone.named_modules():
        if id(module) in modules:
            found |= {f"{path}.{n}" for n, _ in module.named_buffers(recurse=False)}
    return found & set(backbone.state_dict())


def test_all_stages_frozen_freeze_everything(backbone):
    before = state(backbone)
    backbone.freeze()
    assert backbone.frozen == tuple(backbone.stages())
    assert not any(p.requires_grad for p in backbone.parameters())
    a_step(backbone)
    assert not any(m.training for m in backbone.modules() if m is not backbone)
    after = state(backbone)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_first_stages_frozen_leave_the_rest_trained(backbone):
    names = list(backbone.stages())
    backbone.freeze(names[:2])
    before = state(backbone)
    a_step(backbone)
    still = staged(backbone, names[:2])
    moved = {k for k, v in state(backbone).items() if not torch.equal(v, before[k])}
    assert not moved & still
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in backbone.named_parameters()} - still
    assert {n for n, p in backbone.named_parameters() if n in trained and p.ndim > 1} <= moved  # weight decay moves all


def test_thawed_stages_train_again_and_what_never_was_trained_does_not(backbone):
    first, second, *_ = backbone.stages()
    never = backbone.stage_parameters()[second][0]
    never.requires_grad_(False)
    had = [p.requires_grad for p in backbone.parameters()]
    modes = [m.training for m in backbone.modules()]
    backbone.freeze()
    backbone.thaw([second])
    assert second not in backbone.frozen
    assert not never.requires_grad
    assert all(p.requires_grad for p in backbone.stage_parameters()[second] if p is not never)
    assert not any(p.requires_grad for p in backbone.stage_parameters()[first])
    backbone.thaw()
    assert [p.requires_grad for p in backbone.parameters()] == had
    assert [m.training for m in backbone.modules()] == modes


@pytest.mark.parametrize("again", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))], ids=["deepcopy", "pickle"])
def test_a_copy_is_frozen_and_thaws_by_itself(backbone, again):
    first = next(iter(backbone.stages()))
    backbone.freeze([first])
    other = again(backbone)
    assert other.frozen == (first,)
    other.train()
    assert not any(m.training for top in other.stages()[first] for m in top.modules())
    other.thaw()
    assert all(p.requires_grad for p in other.parameters())
    assert not any(p.requires_grad for p in backbone.stage_parameters()[first])


def test_statistics_of_a_frozen_resnet_stay_in_a_plain_loop():
    backbone = ResNet(50)
    backbone.freeze(["stem", "layer1"])
    before = state(backbone)
    backbone.train()
    backbone(torch.randn(2, 3, 32, 32))
    after = state(backbone)
    still = ("conv1", "bn1", "layer1")
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(still))
    assert not torch.equal(before["layer2.0.bn1.running_mean"], after["layer2.0.bn1.running_mean"])
    assert after["layer1.0.bn1.num_batches_tracked"] == 0


def test_a_stage_that_is_not_there():
    with pytest.raises(UsageError, match="no stage 'layer5'; it has stem, layer1"):
        ResNet(18).freeze(["layer5"])
