"""Heads are taken out of a model and put together, and say what they said before, bit by bit."""

import pytest
import torch

import visionkit
from visionkit import (
    FPN,
    DataError,
    DeepLabV3PlusHead,
    FCOSHead,
    FPNSegmentationHead,
    IdentityNeck,
    LinearHead,
    MLPHead,
    MultiTask,
    Preprocessing,
    ResNet,
    UsageError,
    VisionModel,
)
from visionkit.models import checkpoint
from visionkit.tasks.multitask.take_join import join_heads, single_heads, take_head

HEADS = {
    "ground": lambda f, k: FPNSegmentationHead(f, k, channels=16),
    "cars": lambda f, k: FCOSHead(f, k, channels=16, depth=1, score_threshold=0.0),
    "kind": lambda f, k: MLPHead(f, k, width=8),
}
NAMES = {"ground": ("road", "grass"), "cars": ("car", "bus"), "kind": ("day", "night")}


def resnet(seed=0, **settings):
    torch.manual_seed(seed)
    return ResNet(**{"layers": (1, 1, 1, 1), "block": "basic", "stem": "small", **settings})


def pyramid(features):
    return FPN(features, channels=16, max_level=5)


def lively(model, seed=5):
    """Statistics and weights that are unlike those at the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_mean"):
                value.add_(torch.randn(value.shape, generator=generator) * 0.05)
            if "running_var" in name:
                value.mul_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


def joint(heads=HEADS, **settings):
    torch.manual_seed(1)
    classes = [f"{head}/{name}" for head in heads for name in NAMES[head]]
    task = MultiTask(resnet(), dict(heads), pyramid, classes, preprocessing=Preprocessing(64), **settings)
    return lively(task.model)


def single(name, *, like=None, neck=pyramid, seed=7, **settings):
    """A model of one head, with the weights of another's backbone and neck."""
    settings = {"preprocessing": Preprocessing(64), **settings}
    backbone = resnet(seed)
    made = lively(VisionModel(backbone, HEADS[name], NAMES[name], neck, **settings), seed)
    if like is not None:
        made.backbone.load_state_dict(like.backbone.state_dict())
        if type(made.neck) is type(like.neck):
            made.neck.load_state_dict(like.neck.state_dict())
    return made


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same(a, b):
    """Whether two predictions are equal in every bit."""
    assert type(a) is type(b)
    if hasattr(a, "views"):
        return torch.equal(a.views[0].scores, b.views[0].scores) and a.size == b.size
    values = [(getattr(a, n), getattr(b, n)) for n in ("probabilities", "boxes", "scores", "labels") if hasattr(a, n)]
    return all(torch.equal(x, y) for x, y in values)


def assert_same(joined, models, images):
    everything = joined.predict(images)
    for name, model in models.items():
        for whole, alone in zip(everything, model.predict(images), strict=True):
            assert same(whole.parts[name], alone), name


class TestTake:
    @pytest.mark.parametrize("name", HEADS)
    def test_predictions_stay_and_the_rest_goes(self, name, images):
        whole = joint()
        taken = take_head(whole, name)
        assert taken.classes == NAMES[name]
        assert not taken.training
        assert_same(whole, {name: taken}, images)
        assert type(taken.neck) is (IdentityNeck if name == "kind" else FPN)
        assert taken.preprocessing.size == (64, 64)
        assert taken.backbone is whole.backbone, "shared, not copied"

    @pytest.mark.parametrize("name", HEADS)
    def test_it_is_a_model_like_any_other(self, name, images, tmp_path):
        taken = take_head(joint(), name)
        visionkit.save(taken, tmp_path / "t.ckpt")
        again = checkpoint.load(tmp_path / "t.ckpt")
        assert again.classes == NAMES[name]
        for a, b in zip(taken.predict(images), again.predict(images), strict=True):
            assert same(a, b)
        names = checkpoint.read(tmp_path / "t.ckpt")["state_dict"]
        assert not [k for k in names if "heads." in k or "log_variances" in k]

    def test_what_cannot_be_taken(self):
        with pytest.raises(UsageError, match="the model has no head 'car'; it has ground, cars, kind"):
            take_head(joint(), "car")
        with pytest.raises(UsageError, match="the model has one head alone, a FCOSHead"):
            take_head(single("cars"), "cars")

    def test_single_heads_of_both_kinds(self):
        found = single_heads({"x": joint(), "y": single("cars")})
        assert list(found) == ["ground", "cars", "kind", "y"]
        assert all(isinstance(m, VisionModel) and len(m.classes) == 2 for m in found.values())


class TestJoin:
    def models(self):
        """A detector, a segmenter on its frozen trunk, a classifier on its frozen backbone."""
        cars = single("cars")
        return {
            "cars": cars,
            "ground": single("ground", like=cars, seed=8),
            "kind": single("kind", like=cars, neck=IdentityNeck, seed=9),
        }

    @pytest.mark.parametrize("names", [("cars", "kind"), ("kind", "ground", "cars"), ("ground", "kind")])
    def test_predictions_are_those_of_each(self, names, images):
        models = {name: self.models()[name] for name in names}
        joined = join_heads(models)
        assert joined.classes == tuple(f"{name}/{c}" for name in names for c in NAMES[name])
        assert list(joined.predict(images)[0].parts) == list(names)
        assert_same(joined, models, images)
        assert not joined.training

    def test_two_of_one_kind_without_a_neck(self, images):
        first = single("kind", neck=IdentityNeck)
        models = {"a": first, "b": single("kind", like=first, neck=IdentityNeck, seed=3)}
        joined = join_heads(models)
        assert_same(joined, models, images)
        assert joined.predict(images)[0].parts["a"].probabilities.tolist() != (
            joined.predict(images)[0].parts["b"].probabilities.tolist()
        )

    def test_joint_and_single(self, images):
        whole = joint()
        other = lively(VisionModel(resnet(3), LinearHead, ["x", "y", "z"], preprocessing=Preprocessing(64)))
        other.backbone.load_state_dict(whole.backbone.state_dict())
        joined = join_heads({"any": whole, "more": other})
        assert list(joined.head.each()) == ["ground", "cars", "kind", "more"]
        assert_same(joined, {"more": other} | single_heads({"": whole}), images)

    def test_there_and_back(self, images, tmp_path):
        whole = joint()
        parts = {name: take_head(whole, name) for name in HEADS}
        for name, part in parts.items():
            visionkit.save(part, tmp_path / f"{name}.ckpt")
        joined = join_heads({name: checkpoint.load(tmp_path / f"{name}.ckpt") for name in parts})
        assert joined.classes == whole.classes
        theirs = whole.state_dict()
        assert joined.state_dict().keys() == theirs.keys()
        assert all(torch.equal(v, theirs[k]) for k, v in joined.state_dict().items())
        assert_same(joined, parts, images)

    def test_it_is_saved_and_loaded(self, images, tmp_path):
        joined = join_heads(self.models())
        visionkit.save(joined, tmp_path / "j.ckpt")
        torch.load(tmp_path / "j.ckpt", weights_only=True)
        again = checkpoint.load(tmp_path / "j.ckpt")
        assert again.classes == joined.classes
        assert_same(again, single_heads({"": joined}), images)


def on_cars(name="kind", neck=IdentityNeck, change=None, **settings):
    """A detector, and another model on its backbone that something is done to."""
    cars = single("cars")
    other = single(name, like=cars, neck=neck, **settings)
    if change is not None:
        with torch.no_grad():
            change(other)
    return {"a": cars, "b": other}


def other_backbone():
    backbone = resnet(stem="deep")
    return {
        "a": single("cars"),
        "b": VisionModel(backbone, HEADS["kind"], NAMES["kind"], preprocessing=Preprocessing(64)),
    }


def other_neck():
    return {"a": single("cars"), "b": single("ground", neck=lambda f: FPN(f, channels=16, max_level=6))}


def equal_backbones(models):
    models["b"].backbone.load_state_dict(models["a"].backbone.state_dict())
    return models


REFUSED = {
    "other settings": (other_backbone, DataError, "the backbones of a and b are not the same network (stem small and deep)"),
    "other weights": (lambda: {"a": single("cars"), "b": single("kind", neck=IdentityNeck, seed=3)}, DataError, "train one from the other's checkpoint with the backbone frozen (--model.recipe.freeze backbone)"),
    "other statistics": (lambda: on_cars(change=lambda m: m.backbone.get_buffer("layer3.0.bn1.running_mean").add_(1e-4)), DataError, "the backbones of a and b differ in 1 tensors, first layer3.0.bn1.running_mean"),
    "other neck": (lambda: on_cars("ground", pyramid, lambda m: next(m.neck.parameters()).add_(1e-4)), DataError, "the necks of a and b differ in 1 tensors"),
    "other neck's settings": (lambda: equal_backbones(other_neck()), DataError, "the necks of a and b are not the same network (max_level 5 and 6)"),
    "no neck": (lambda: equal_backbones({"a": single("cars"), "b": VisionModel(resnet(), FCOSLike, NAMES["kind"], preprocessing=Preprocessing(64))}), DataError, "the necks of a and b are not the same network (FPN and IdentityNeck)"),
    "size": (lambda: on_cars(preprocessing=Preprocessing(32)), DataError, 'a was trained with size "[64, 64]", b with "[32, 32]": one pass cannot serve both; train b with --data.size "[64, 64]"'),
    "resize": (lambda: on_cars(preprocessing=Preprocessing(64, resize="letterbox")), DataError, "a was trained with resize squash, b with letterbox"),
    "resize, other way": (lambda: dict(reversed(on_cars(preprocessing=Preprocessing(64, resize="letterbox")).items())), DataError, "b was trained with resize letterbox, a with squash"),
    "denoise": (lambda: on_cars(preprocessing=Preprocessing(64, denoise="median")), DataError, "train b with --data.denoise null"),
    "one model": (lambda: {"a": single("cars")}, UsageError, "give the models of two heads or more"),
    "a name twice": (lambda: {"a": joint(), "kind": single("cars")}, UsageError, "two heads are named 'kind'"),
    "a name that is none": (lambda: {"a/c" if k == "a" else k: m for k, m in on_cars().items()}, UsageError, "head 'a/c'"),
}  # fmt: skip


class FCOSLike(LinearHead):
    reads = "neck"


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_together_is_one_clear_line(name):
    models, error, words = REFUSED[name]
    with pytest.raises(error) as raised:
        join_heads(models())
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_that_are_spelt_out_are_the_same_as_the_defaults(images):
    cars = single("cars")
    spelt = Preprocessing((64, 64), resize="squash", denoise=None, denoise_strength=1.0, channels=3)
    kind = single("kind", like=cars, neck=IdentityNeck, preprocessing=spelt)
    kind.backbone = resnet(avg_down=False, stochastic_depth=0.0)
    kind.backbone.load_state_dict(cars.backbone.state_dict())
    kind.eval()
    for models in ({"a": cars, "b": kind}, {"b": kind, "a": cars}):
        assert_same(join_heads(models), models, images)


class TestCheckpoint:
    def test_round_trip_of_a_joint_model(self, images, tmp_path):
        whole = joint(weights={"cars": 2.0}, balance="uncertainty")
        visionkit.save(whole, tmp_path / "m.ckpt", task="visionkit.MultiTask")
        content = torch.load(tmp_path / "m.ckpt", weights_only=True)
        assert content[checkpoint.KEY]["task"] == "visionkit.MultiTask"
        assert "model.head.log_variances" in content["state_dict"]
        again = checkpoint.load(tmp_path / "m.ckpt")
        assert again.spec() == whole.spec()
        assert again.head.weights == {"ground": 1.0, "cars": 2.0, "kind": 1.0}
        for a, b in zip(whole.predict(images), again.predict(images), strict=True):
            assert all(same(a.parts[name], b.parts[name]) for name in HEADS)

    def test_heads_with_settings_of_all_kinds_come_back(self, tmp_path):
        heads = {
            "ground": lambda f, k: DeepLabV3PlusHead(f, k, channels=16, losses={"cross_entropy": 1.0, "dice": 0.5}),
            "kind": lambda f, k: LinearHead(f, k, multilabel=True, dropout=0.25),
        }
        torch.manual_seed(0)
        classes = [f"{head}/{name}" for head in heads for name in NAMES[head]]
        model = MultiTask(resnet(output_stride=16), heads, IdentityNeck, classes).model.eval()
        visionkit.save(model, tmp_path / "m.ckpt")
        again = checkpoint.load(tmp_path / "m.ckpt")
        assert again.spec() == model.spec()
        assert again.head.each()["kind"].multilabel

    def test_heads_of_a_foreign_package_want_trust(self, tmp_path, monkeypatch):
        (tmp_path / "outsider.py").write_text(
            "from pathlib import Path\n"
            "from visionkit import LinearHead\n"
            f"Path({str(tmp_path / 'imported')!r}).touch()\n"
            "class Mine(LinearHead):\n    pass\n"
        )
        visionkit.save(joint(), tmp_path / "m.ckpt")
        content = torch.load(tmp_path / "m.ckpt", weights_only=True)
        spec = content[checkpoint.KEY]["model"]["head"]["init_args"]["heads"]["kind"]
        spec["class_path"], spec["init_args"] = "outsider.Mine", {}
        kept = {k: v for k, v in content["state_dict"].items() if ".heads.kind." not in k}
        fresh = LinearHead(visionkit.FeatureSpec((512,), (32,)), 2).state_dict()
        content["state_dict"] = kept | {f"model.head.heads.kind.{k}": v for k, v in fresh.items()}
        torch.save(content, tmp_path / "m.ckpt")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UsageError, match=r"outsider\.Mine, outside visionkit.*--trust outsider"):
            checkpoint.load(tmp_path / "m.ckpt")
        assert not (tmp_path / "imported").exists()
        model = checkpoint.load(tmp_path / "m.ckpt", trust=["outsider"])
        assert type(model.head.each()["kind"]).__name__ == "Mine"
        assert take_head(model, "kind").spec()["head"]["class_path"] == "outsider.Mine"
