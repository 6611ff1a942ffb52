"""Several heads on one backbone do what each would do alone on the pictures that are labelled for it."""

import math

import pytest
import torch

from visionkit import (
    FPN,
    BoxTarget,
    ClassTarget,
    DeepLabV3PlusHead,
    FasterRCNNHead,
    FCNHead,
    FCOSHead,
    FeatureSpec,
    FPNSegmentationHead,
    Head,
    IdentityNeck,
    LinearHead,
    MultiTask,
    UsageError,
)
from visionkit.core.component import build, spec_of
from visionkit.tasks.multitask.head import MultiTaskHead
from visionkit.tasks.multitask.neck import MultiTaskNeck
from visionkit.tasks.multitask.types import MultiTaskTarget
from visionkit.tasks.segmentation.types import MaskTarget
from visionkit.training.recipe import parameter_groups

OWN = FeatureSpec((8, 12, 16, 20), (4, 8, 16, 32))
SIZE = 64
FACTORIES = {
    "kind": lambda f, k: LinearHead(f, k, label_smoothing=0.1),
    "cars": lambda f, k: FCOSHead(f, k, channels=16, depth=1),
    "ground": lambda f, k: FPNSegmentationHead(f, k, channels=16, dropout=0.0, losses={"cross_entropy": 1.0, "dice": 0.5}),
    "quality": lambda f, k: LinearHead(f, k),
}  # fmt: skip
SIZES = {"kind": 3, "cars": 4, "ground": 5, "quality": 2}


def neck():
    torch.manual_seed(1)
    return MultiTaskNeck(OWN, lambda f: FPN(f, channels=16, min_level=3, max_level=6))


def make(factories=FACTORIES, *, sizes=SIZES, seed=2, **settings):
    torch.manual_seed(seed)
    sizes = {name: sizes[name] for name in factories}
    return MultiTaskHead(neck().features, sum(sizes.values()), heads=factories, sizes=sizes, levels=4, **settings)


def maps(batch, seed=0):
    """What a backbone gives, of different magnitude a picture: rows cannot be confused."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1.0, batch + 1).view(-1, 1, 1, 1) / batch
    found = zip(OWN.channels, OWN.strides, strict=True)
    return [
        (torch.randn(batch, c, SIZE // s, SIZE // s, generator=generator) * spread).requires_grad_() for c, s in found
    ]


def target(row, *names):
    generator = torch.Generator().manual_seed(row)
    corner = torch.rand(2, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 8 + 20 * torch.rand(2, 2, generator=generator)], 1)
    parts = {
        "kind": ClassTarget(torch.eye(3)[row % 3]),
        "cars": BoxTarget.make(boxes, [row % 4, (row + 1) % 4]),
        "ground": MaskTarget(torch.randint(0, 5, (SIZE, SIZE), generator=generator, dtype=torch.uint8)),
        "quality": ClassTarget(torch.eye(2)[row % 2]),
    }
    return MultiTaskTarget({name: parts[name] for name in names})


MIXED = [
    target(0, "kind"),
    target(1, "cars", "ground"),
    target(2, "ground"),
    target(3, "kind", "cars", "ground"),
    target(4),
    target(5, "kind", "quality"),
]
ROWS = {"kind": [0, 3, 5], "cars": [1, 3], "ground": [1, 2, 3], "quality": [5]}


def own_levels(name, levels):
    return levels[:4] if name in ("kind", "quality") else levels[4:]


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_those_of_each_head_on_its_pictures(training):
    head, levels = make().train(training), neck()(maps(6))
    losses = head.loss(head.forward_for(levels, MIXED), MIXED)
    again = make().train(training)  # the same weights, as statistics have moved
    expected = {}
    for name, rows in ROWS.items():
        part = again.each()[name]
        outputs = part([level[rows] for level in own_levels(name, levels)])
        found = part.loss(outputs, [MIXED[row].parts[name] for row in rows])
        expected |= {f"{name}/{key}": value for key, value in found.items()}
    assert losses.keys() == expected.keys()
    assert {"kind/loss", "cars/classification", "ground/dice"} <= losses.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_each_head_alone():
    head, given = make().train(), maps(6)
    sum(head.loss(head.forward_for(neck().eval()(given), MIXED), MIXED).values()).backward()
    again, separately = make().train(), maps(6)
    levels = neck().eval()(separately)
    for name, rows in ROWS.items():
        part = again.each()[name]
        outputs = part([level[rows] for level in own_levels(name, levels)])
        total = sum(part.loss(outputs, [MIXED[row].parts[name] for row in rows]).values())
        total.backward(retain_graph=True)
    for (name, a), b in zip(head.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert given[0].grad is separately[0].grad is None, "no head reads it"
    for a, b in zip(given[1:], separately[1:], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
        assert a.grad[4].abs().max() == 0, "a picture without any label teaches nothing"
        assert a.grad[2].abs().max() > 0
    assert given[1].grad[0].abs().max() == 0, "a class is read off the last level"


@pytest.mark.parametrize("labels", [("kind",), ("cars",), ()])
@pytest.mark.parametrize("balance", ["fixed", "uncertainty"])
def test_what_a_batch_has_no_label_for_gets_zero_gradients(labels, balance):
    """Every parameter has a gradient, as several processes need; those of heads without a label have zero."""
    trunk, head = neck(), make(balance=balance).train()
    batch = [target(0, *labels), target(1, *labels)]
    losses = head.loss(head.forward_for(trunk(maps(2)), batch), batch)
    for name in set(FACTORIES) - set(labels):
        assert losses[f"{name}/none"] == 0
    sum(losses.values()).backward()
    for name, parameter in [*head.named_parameters(), *trunk.named_parameters()]:
        assert parameter.grad is not None, name
    for name, part in head.each().items():
        largest = max(float(p.grad.abs().max()) for p in part.parameters())
        assert (largest > 0) == (name in labels), name
    largest = max(float(p.grad.abs().max()) for p in trunk.parameters())
    assert (largest > 0) == ("cars" in labels), "the neck learns from those that read it"
    if balance == "uncertainty":
        moved = [name for name, g in zip(FACTORIES, head.log_variances.grad.tolist(), strict=True) if g]
        assert moved == list(labels)


def test_a_frozen_head_without_labels_is_no_obstacle():
    head = make({k: v for k, v in FACTORIES.items() if k in ("kind", "cars")}).train()
    head.each()["cars"].requires_grad_(False)
    batch = [target(0, "kind")]
    losses = head.loss(head.forward_for(neck()(maps(1)), batch), batch)
    assert losses["kind/loss"] > 0
    assert losses["cars/none"] == 0
    sum(losses.values()).backward()


def test_evaluation_asks_for_what_is_labelled_and_forward_for_all():
    head, levels = make().eval(), neck()(maps(6))
    asked = []
    for name, part in head.each().items():
        part.register_forward_hook(lambda m, inputs, out, name=name: asked.append((name, len(inputs[0][0]))))
    found = head.decode(head.forward_for(levels, MIXED))
    assert dict(asked) == {name: len(rows) for name, rows in ROWS.items()}
    assert [set(p.parts) for p in found] == [set(t.parts) for t in MIXED]
    everything = head.decode(head(levels))
    assert [list(p.parts) for p in everything] == [list(FACTORIES)] * 6
    assert all(isinstance(p, head.prediction) for p in everything)
    torch.testing.assert_close(found[3].parts["kind"].probabilities, everything[3].parts["kind"].probabilities)
    torch.testing.assert_close(found[1].parts["cars"].boxes, everything[1].parts["cars"].boxes)
    assert torch.equal(found[2].parts["ground"].labels, everything[2].parts["ground"].labels)
    assert "cars/none" not in head.loss(head.forward_for(levels, [target(0, "kind")] * 6), [target(0, "kind")] * 6)


def test_a_batch_whose_pictures_have_no_label_is_decoded():
    head = make().eval()
    outputs = head.forward_for(neck()(maps(2)), [target(0), target(1)])
    assert [p.parts for p in head.decode(outputs)] == [{}, {}]
    assert head.loss(outputs, [target(0), target(1)]) == {}


def test_how_many_pictures_a_loss_speaks_of():
    head = make()
    assert [head.count_labelled(f"{name}/x", MIXED) for name in FACTORIES] == [3, 2, 3, 1]


def test_weights_scale_the_losses_of_their_heads():
    levels = neck()(maps(6))
    plain, weighted = make().eval(), make(weights={"cars": 2.5, "kind": 0.1}).eval()
    a, b = (h.loss(h.forward_for(levels, MIXED), MIXED) for h in (plain, weighted))
    factors = {"cars": 2.5, "kind": 0.1}
    for key, value in a.items():
        torch.testing.assert_close(b[key], value * factors.get(key.partition("/")[0], 1.0))


class TestUncertainty:
    def losses(self, head, **changes):
        levels = neck()(maps(6))
        with torch.no_grad():
            for name, value in changes.items():
                head.log_variances[list(FACTORIES).index(name)] = value
        return head.loss(head.forward_for(levels, MIXED), MIXED)

    def test_it_starts_as_the_plain_sum(self):
        torch.testing.assert_close(
            sum(self.losses(make(balance="uncertainty").train()).values()), sum(self.losses(make().train()).values())
        )

    def test_formula_and_gradient(self):
        """exp(-s) w L + s / 2; its derivative is 1/2 - exp(-s) w L."""
        plain = self.losses(make().train())
        head = make(balance="uncertainty", weights={"kind": 3.0}).train()
        losses = self.losses(head, kind=0.7, cars=-0.4)
        torch.testing.assert_close(losses["uncertainty"], torch.tensor(0.15))
        torch.testing.assert_close(losses["kind/loss"], plain["kind/loss"] * 3 * math.exp(-0.7))
        torch.testing.assert_close(losses["cars/box"], plain["cars/box"] * math.exp(0.4))
        sum(losses.values()).backward()
        for k, (name, s, w) in enumerate((("kind", 0.7, 3.0), ("cars", -0.4, 1.0))):
            total = sum(v for key, v in plain.items() if key.startswith(f"{name}/")).item()
            assert head.log_variances.grad[k].item() == pytest.approx(0.5 - math.exp(-s) * w * total, rel=1e-4)

    def test_the_least_sum_is_where_s_is_the_log_of_twice_the_loss(self):
        plain = self.losses(make().train())
        best = {
            name: math.log(2 * sum(v for k, v in plain.items() if k.startswith(f"{name}/")).item()) for name in ROWS
        }
        head = make(balance="uncertainty").train()
        losses = self.losses(head, **best)
        sum(losses.values()).backward()
        assert head.log_variances.grad.abs().max() < 1e-4
        for name in best:
            assert sum(v for k, v in losses.items() if k.startswith(f"{name}/")).item() == pytest.approx(0.5, abs=1e-4)

    def test_evaluation_is_without_it(self):
        a = self.losses(make(balance="uncertainty").eval(), kind=2.0, cars=-1.0)
        b = self.losses(make().eval())
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key])

    def test_it_is_learnt_without_weight_decay(self):
        head = make(balance="uncertainty")
        with_decay, without = parameter_groups(head.parameters())
        assert "weight_decay" not in with_decay
        assert without["weight_decay"] == 0
        assert any(p is head.log_variances for p in without["params"])
        assert all(p is not head.log_variances for p in with_decay["params"])
        assert make().log_variances is None


class Remembers(Head):
    """Keeps what it is given."""

    def __init__(self, features, num_classes):
        super().__init__()
        self.features, self.num_classes = features, num_classes

    def forward(self, features):
        self.given = features
        return features[0]

    def metric(self, classes):
        raise NotImplementedError


class OfTheBackbone(Remembers):
    reads = "backbone"


def test_levels_are_exactly_the_backbones_or_the_necks():
    trunk = neck()
    head = make({"a": OfTheBackbone, "b": Remembers}, sizes={"a": 2, "b": 3})
    given = maps(2)
    head(trunk(given))
    a, b = head.each().values()
    assert a.features == OWN
    assert b.features == trunk.neck.features
    assert (a.num_classes, b.num_classes) == (2, 3)
    assert all(x is y for x, y in zip(a.given, given, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(b.given, trunk.neck(given), strict=True))


@pytest.mark.parametrize(
    ("cls", "reads"),
    [(LinearHead, "backbone"), (FCNHead, "backbone"), (DeepLabV3PlusHead, "backbone"), (FPNSegmentationHead, "neck"),
     (FCOSHead, "neck"), (FasterRCNNHead, "neck")],
)  # fmt: skip
def test_what_our_heads_read(cls, reads):
    assert cls.reads == reads
    whole = make({"x": cls}, sizes={"x": 4})
    assert whole.each()["x"].reads == reads
    assert make({"x": lambda f, k: cls(f, k)}, sizes={"x": 4}).each()["x"].reads == reads, "made by a function"


def test_neck_hands_on_both():
    trunk, given = neck(), maps(1)
    levels = trunk(given)
    assert trunk.features.channels == (8, 12, 16, 20, 16, 16, 16, 16)
    assert trunk.features.strides == (4, 8, 16, 32, 8, 16, 32, 64)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (c, SIZE // s, SIZE // s) for c, s in zip(trunk.features.channels, trunk.features.strides, strict=True)
    ]
    assert trunk.summary() == trunk.neck.summary()
    assert MultiTaskNeck(OWN).features.channels == OWN.channels * 2
    assert isinstance(MultiTaskNeck(OWN).neck, IdentityNeck)


def test_spec_makes_the_same_heads_and_neck():
    head = make(weights={"cars": 2.0}, balance="uncertainty").eval()
    sizes = {"features": neck().features, "num_classes": 14}
    again = build(spec_of(head), **sizes).eval()
    again.load_state_dict(head.state_dict())
    assert spec_of(again) == spec_of(head)
    assert again.weights == {"kind": 1.0, "cars": 2.0, "ground": 1.0, "quality": 1.0}
    levels = neck()(maps(2))
    for a, b in zip(head(levels).parts.values(), again(levels).parts.values(), strict=True):
        for x, y in zip(a, b, strict=True):
            assert x is y is None or (torch.equal(x, y) if isinstance(x, torch.Tensor) else True)
    trunk = build(spec_of(neck(), drop=("features",)), features=OWN)
    trunk.load_state_dict(neck().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(trunk(maps(1)), neck()(maps(1)), strict=True))


def test_metric_has_the_classes_of_each_head():
    metric = make().metric(("kind/a", "kind/b", "kind/c", *(f"cars/{k}" for k in range(4)), *(f"ground/{k}" for k in range(5)),
                            "quality/x", "quality/y"))  # fmt: skip
    assert {name: m.classes for name, m in metric.each().items()}["quality"] == ("x", "y")


def test_description_names_all_heads():
    assert make().summary() == (
        "LinearHead (kind) + FCOSHead (cars) + FPNSegmentationHead (ground) + LinearHead (quality)"
    )


WRONG = {
    "balance": ({"balance": "dwa"}, "balance='dwa': fixed or uncertainty"),
    "unknown weight": ({"weights": {"car": 1.0}}, "weights: there is no head 'car'; there are kind, cars, ground"),
    "zero": ({"weights": {"cars": 0.0}}, "weights.cars=0.0: a number above 0"),
    "not a number": ({"weights": {"cars": math.nan}}, "weights.cars=nan: a number above 0"),
    "endless": ({"weights": {"cars": math.inf}}, "weights.cars=inf: a number above 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_one_line(name):
    given, words = WRONG[name]
    with pytest.raises(UsageError) as raised:
        make(**given)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a/b", "a b", "1st", "", "a.b", "ä"])
def test_names_that_would_not_do_as_keys_and_folders(name):
    with pytest.raises(UsageError, match=r"a name has letters, digits, _ and - alone"):
        make({name: LinearHead}, sizes={name: 2})


@pytest.mark.parametrize("name", ["keys", "type", "float", "training", "forward", "_modules"])
def test_names_that_torch_uses_itself(name):
    with pytest.raises(UsageError, match=rf"head '{name}': torch uses this name itself; choose another one"):
        make({name: LinearHead}, sizes={name: 2})


def test_numbers_of_classes_must_add_up():
    with pytest.raises(UsageError, match="add up to 5 classes, there are 6"):
        MultiTaskHead(neck().features, 6, heads={"a": LinearHead}, sizes={"a": 5}, levels=4)


def test_what_a_head_refuses_is_said_with_its_name():
    with pytest.raises(UsageError, match=r"^heads\.cars: .*FPN"):
        MultiTaskHead(MultiTaskNeck(OWN).features, 3, heads={"cars": FCOSHead}, sizes={"cars": 3}, levels=4)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("kind/a", "kind/b"), "model.heads are kind, cars, data.datasets are kind: give both the same names"),
        (("kind/a", "car/b"), "model.heads are kind, cars, data.datasets are kind, car: give both the same names"),
        (("a", "b"), "model.heads are kind, cars, data.datasets are a, b: give both the same names"),
    ],
)
def test_heads_and_data_sets_have_the_same_names(classes, said):
    from visionkit import ResNet

    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")
    with pytest.raises(UsageError) as raised:
        MultiTask(backbone, {"kind": LinearHead, "cars": FCOSHead}, classes=classes)
    assert str(raised.value) == said
