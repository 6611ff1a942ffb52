import pytest
import torch
import yaml
from torch import nn

from visionkit import FPN, LinearHead, ResNet, UsageError, VisionModel
from visionkit.cli.main import run
from visionkit.models.necks.identity import IdentityNeck
from visionkit.training.recipe import Recipe, learning_rate_factor, parameter_groups, thaw_factor

STAGES = ["stem", "layer1", "layer2", "layer3", "layer4"]


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def vision_model(neck=IdentityNeck):
    return VisionModel(ResNet(layers=(1, 1, 1, 1), block="basic"), LinearHead, ["a", "b"], neck)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def rates(optimizer, net):
    """Learning rate of each named parameter that is trained."""
    group_of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    return {n: group_of[id(p)]["lr"] for n, p in net.named_parameters() if id(p) in group_of}


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
    decayed, free = parameter_groups(model().parameters())
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert all(p.ndim == 1 for p in free["params"])
    assert free["weight_decay"] == 0
    optimizer, _ = Recipe().configure(model(), total_steps=10, steps_per_epoch=5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.05, 0.0]


def test_frozen_parameters_are_left_out_and_all_frozen_is_an_error():
    net = model()
    net[0].requires_grad_(False)
    optimizer, _ = Recipe().configure(net, total_steps=10, steps_per_epoch=5)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 4
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


# ---- freezing and rates by stage


def test_without_freezing_there_are_the_two_groups_that_older_checkpoints_hold():
    net = vision_model(FPN)
    net.backbone.layer2.requires_grad_(False)
    optimizer, scheduler = Recipe().configure(net, total_steps=10, steps_per_epoch=5)
    trained = [p for p in net.parameters() if p.requires_grad]
    expected = [[p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]]
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == [[id(p) for p in g] for g in expected]
    assert scheduler.base_lrs == [1e-3, 1e-3]


def test_layer_decay_and_backbone_lr_give_each_stage_its_rate():
    net = vision_model(FPN)
    recipe = Recipe(sgd, schedule="constant", warmup_epochs=0, backbone_lr=0.5, layer_decay=0.1)
    optimizer, _ = recipe.configure(net, total_steps=10, steps_per_epoch=5)
    found = rates(optimizer, net)
    assert len(found) == len(list(net.parameters()))
    for name, rate in found.items():
        part = name.split(".")[1] if name.startswith("backbone.layer") else name.partition(".")[0]
        stage = "stem" if part == "backbone" else part
        expected = 0.05 * 0.1 ** (4 - STAGES.index(stage)) if stage in STAGES else 0.1
        assert rate == pytest.approx(expected), name
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 0
        assert len({p.ndim > 1 for p in group["params"]}) == 1


@pytest.mark.parametrize("frozen_before", [False, True])
def test_thawed_stages_rise_to_the_schedule_and_the_others_do_not_wait(frozen_before):
    net = vision_model(FPN)
    net.backbone.layer4[0].bn1.weight.requires_grad_(False)  # never trained
    if frozen_before:  # as the callback does it before the optimizer is made
        net.backbone.freeze()
        net.neck.requires_grad_(False)
    recipe = Recipe(
        sgd, schedule="constant", warmup_epochs=0.5, freeze="trunk", thaw={3: ["layer4", "neck"]}, thaw_warmup=1
    )
    optimizer, scheduler = recipe.configure(net, total_steps=20, steps_per_epoch=4)
    names = {n for n, _ in net.named_parameters() if n.startswith(("backbone.layer4", "neck", "head"))}
    assert set(rates(optimizer, net)) == names - {"backbone.layer4.0.bn1.weight"}
    seen = []
    for _ in range(20):
        found = rates(optimizer, net)
        assert found["neck.lateral.0.0.weight"] == found["backbone.layer4.0.conv1.weight"]
        seen.append((found["backbone.layer4.0.conv1.weight"], found["head.classifier.1.weight"]))
        optimizer.step()
        scheduler.step()
    thawed, head = zip(*seen, strict=True)
    assert head == pytest.approx([0.1 / 3, 0.2 / 3] + [0.1] * 18)
    assert thawed == pytest.approx([0] * 8 + [0.02, 0.04, 0.06, 0.08] + [0.1] * 8)


def test_thaw_factor_without_a_rise_is_a_step():
    assert [thaw_factor(s, start=2, rise=0) for s in range(4)] == [0, 0, 1, 1]


def test_the_first_epoch_that_thaws_a_stage_counts():
    parts = Recipe(freeze="backbone", thaw={2: "layer4", 5: "all", 7: ["stem"]}).parts(vision_model())
    assert {p.name: p.thaw for p in parts if p.frozen} == {"layer4": 2} | dict.fromkeys(STAGES[:4], 5)


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("backbone", STAGES),
        ("trunk", [*STAGES, "neck"]),
        (2, STAGES[:2]),
        (["layer3", "stem"], ["stem", "layer3"]),
        (["neck"], ["neck"]),
        (None, []),
    ],
)
def test_what_is_frozen(freeze, frozen):
    assert [p.name for p in Recipe(freeze=freeze).parts(vision_model(FPN)) if p.frozen] == frozen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": "layer1"}, r'recipe.freeze must be backbone, trunk, .*\["layer1"\]'),
        ({"freeze": 0}, "recipe.freeze must be at least 1"),
        ({"freeze": True}, "recipe.freeze must be at least 1"),
        ({"thaw": {2: "all"}}, "recipe.thaw needs recipe.freeze"),
        ({"freeze": 1, "thaw": {0: "all"}}, "recipe.thaw counts epochs from 1"),
        ({"thaw_warmup": -1}, "recipe.thaw_warmup"),
        ({"backbone_lr": 0}, "recipe.backbone_lr"),
        ({"layer_decay": 0}, "recipe.layer_decay"),
        ({"layer_decay": 1.5}, "recipe.layer_decay"),
        ({"freeze": 6}, "recipe.freeze is 6, the backbone has 5 stages: stem, layer1"),
        ({"freeze": ["layer5"]}, "recipe.freeze: there is no stage 'layer5'; there are stem, layer1"),
        ({"freeze": 2, "thaw": {2: "layer5"}}, "recipe.thaw: there is no stage 'layer5'; there are stem, layer1"),
        ({"freeze": 2, "thaw": {2: ["stem", "layer2"]}}, "recipe.thaw names layer2, which is not frozen"),
        ({"freeze": "backbone", "thaw": {2: "neck"}}, "recipe.thaw names neck, which is not frozen"),
    ],
)
def test_freezing_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**settings).parts(vision_model())


def test_a_model_without_a_backbone_cannot_be_frozen():
    with pytest.raises(UsageError, match="needs a model with a backbone"):
        Recipe(freeze="backbone").configure(model(), total_steps=1, steps_per_epoch=1)


def test_nothing_left_to_train_with_a_frozen_trunk():
    net = vision_model()
    net.head.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing is left to train"):
        Recipe(freeze="trunk").configure(net, total_steps=1, steps_per_epoch=1)


@pytest.mark.parametrize(
    ("settings", "neck", "words"),
    [
        ({}, FPN, ""),
        ({"freeze": "trunk"}, IdentityNeck, f"head; frozen: the backbone ({', '.join(STAGES)})"),
        (
            {"freeze": "trunk", "thaw": {6: "all", 3: ["layer3", "layer4"]}},
            FPN,
            f"head; frozen: the backbone ({', '.join(STAGES)}) and neck; "
            "thawed: layer3 and layer4 from epoch 3, all from epoch 6",
        ),
        (
            {"freeze": 2, "backbone_lr": 0.1},
            FPN,
            "layer2, layer3, layer4, neck and head; frozen: stem and layer1; rates layer2 to layer4 1.0e-04, neck and head 1.0e-03",
        ),
        (
            {"layer_decay": 0.5},
            IdentityNeck,
            "all; rates stem 6.3e-05, layer1 1.3e-04, layer2 2.5e-04, layer3 5.0e-04, layer4 and head 1.0e-03",
        ),
    ],
)
def test_words(settings, neck, words):
    assert Recipe(**settings).summary(vision_model(neck)) == words


def test_the_command_line_and_the_yaml_understand_the_keys(tmp_path, capsys):
    fit = ["fit", "-c", "classify.yaml", "--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic",
           "--data.size=32", "--data.num_workers=0", "--data.batch_size=4", "--trainer.logger=false",
           "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_epochs=2"]  # fmt: skip
    out = str(tmp_path / "names")
    keys = ["--model.recipe.freeze=[layer3, layer4]", "--model.recipe.thaw={2: layer4}", "--model.recipe.thaw_warmup=0"]
    assert run([*fit, *keys, "--trainer.default_root_dir", out]) == 0
    assert (
        "train    stem, layer1, layer2 and head; frozen: layer3 and layer4; thawed: layer4" in capsys.readouterr().out
    )
    again = [
        "fit",
        "-c",
        f"{out}/config.yaml",
        "--trainer.default_root_dir",
        out,
        "--ckpt_path=last",
        "--trainer.max_epochs=3",
    ]
    assert run(again) == 0
    assert "thawed: layer4 from epoch 2" in capsys.readouterr().out
    assert run([*fit, *keys, "--trainer.max_epochs=1", "--trainer.default_root_dir", str(tmp_path / "short")]) == 2
    assert "recipe.thaw names epoch 2, but training ends with epoch 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--model.recipe.freeze", "3"], {"freeze": 3}),
        (["--model.recipe.freeze", "backbone", "--model.recipe.thaw", "{3: layer4, 6: all}"],
         {"freeze": "backbone", "thaw": {"3": "layer4", "6": "all"}}),
    ],
)  # fmt: skip
def test_forms_on_the_command_line(arguments, printed, capsys):
    assert run(["fit", "-c", "detect.yaml", *arguments, "--print_config=full"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["recipe"]
    for key, value in printed.items():
        got = {str(k): v for k, v in found[key].items()} if isinstance(value, dict) else found[key]
        assert got == value
