"""Components describe themselves in plain data and are made again from it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

import visionkit
from visionkit.core.component import Component, build, checked, class_path, spec_of
from visionkit.core.errors import DataError, UsageError
from visionkit.models.backbones.base import Backbone
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.head import Head


@dataclass
class Point:
    x: int
    y: int


class Leaf(Component, nn.Module):
    def __init__(self, size, *, name="leaf", options=None):
        super().__init__()
        self.size, self.name, self.options = size, name, options


class Child(Leaf):
    """A subclass whose constructor passes other arguments on: only the outermost call is recorded."""

    def __init__(self, doubled):
        super().__init__(doubled // 2, name="child")


class Tree(Component):
    def __init__(self, leaf, others=()):
        self.leaf, self.others = leaf, others


class Dropping(Leaf):
    def recorded_arguments(self):
        return {**super().recorded_arguments(), "name": None}


def test_arguments_are_recorded_by_name_without_defaults():
    assert Leaf(3).recorded_arguments() == {"size": 3}
    assert Leaf(3, name="a").recorded_arguments() == {"size": 3, "name": "a"}
    assert Child(8).recorded_arguments() == {"doubled": 8}
    assert Child(8).size == 4


class Passing(Leaf):
    def __init__(self, size, *, colour="green", **options):
        super().__init__(size, **options)
        self.colour = colour


class PassingFurther(Passing):
    def __init__(self, *, height=1, **more):
        super().__init__(2, **more)


def test_arguments_that_are_passed_on_are_recorded_as_if_they_were_declared():
    assert Passing(3).recorded_arguments() == {"size": 3}
    made = Passing(3, name="a", colour="red", options=(1,))
    assert made.recorded_arguments() == {"size": 3, "colour": "red", "name": "a", "options": (1,)}
    further = PassingFurther(height=4, name="b")
    assert further.recorded_arguments() == {"height": 4, "name": "b"}
    for one in (made, further):
        again = build(spec_of(one), trust=[__name__.partition(".")[0]])
        assert spec_of(again) == spec_of(one)
        assert (again.name, again.colour) == (one.name, one.colour)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        PassingFurther(sise=3)


def test_what_a_checkpoint_cannot_repeat_by_name_is_refused_where_it_is_defined():
    with pytest.raises(TypeError, match=r"^Unnamed\.__init__\(\*sizes\): .* declare each"):

        class Unnamed(Leaf):
            def __init__(self, *sizes):
                super().__init__(sizes)

    with pytest.raises(TypeError, match=r"^ByPlace\.__init__\(size\): "):

        class ByPlace(Leaf):
            def __init__(self, size, /):
                super().__init__(size)

    with pytest.raises(
        TypeError, match=r"^Undeclared\.__init__\(\*\*options\): .* pass \*\*options on to a base that does"
    ):

        class Undeclared(Component, nn.Module):
            def __init__(self, **options):
                super().__init__()


def test_recorded_arguments_are_a_copy():
    leaf = Leaf(3)
    leaf.recorded_arguments()["size"] = 4
    assert leaf.recorded_arguments() == {"size": 3}


def test_a_wrong_call_raises_the_constructors_own_message():
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        Leaf(sise=3)


def test_spec_is_plain_data():
    values = {"a": (1, 2.5), "b": [None, True, "x"], "c": Path("d") / "e", "f": Point(1, 2), 7: {"g": 0}}
    spec = spec_of(Tree(Leaf(3, options=values), others=[Child(2), Leaf(1)]))
    assert json.loads(json.dumps(spec)) == spec
    assert spec["init_args"]["leaf"]["init_args"]["options"] == {
        "a": [1, 2.5], "b": [None, True, "x"], "c": str(Path("d") / "e"), "f": {"x": 1, "y": 2}, "7": {"g": 0}
    }  # fmt: skip
    assert [s["init_args"] for s in spec["init_args"]["others"]] == [{"doubled": 2}, {"size": 1}]


def test_override_and_drop():
    assert spec_of(Dropping(3, name="a"))["init_args"] == {"size": 3, "name": None}
    assert spec_of(Leaf(3, name="a"), drop=["size"])["init_args"] == {"name": "a"}


@pytest.mark.parametrize("value", [object(), nn.Linear(1, 1), {1, 2}, b"bytes", len])
def test_what_is_not_plain_is_named(value):
    with pytest.raises(UsageError, match=rf"Leaf\(options=\.\.\.\) holds a {type(value).__name__}"):
        spec_of(Leaf(3, options=[value]))


def test_public_classes_have_their_public_path():
    assert class_path(ResNet) == "visionkit.ResNet"
    assert class_path(Component) == "visionkit.core.component.Component"

    class ResNetElsewhere(ResNet):
        pass

    ResNetElsewhere.__name__ = "ResNet"
    assert class_path(ResNetElsewhere) != "visionkit.ResNet"


def test_build_makes_visionkits_classes_with_given_arguments():
    spec = {"class_path": "visionkit.ResNet", "init_args": {"layers": [1, 1, 1, 1], "block": "basic"}}
    net = build(spec, depth=18)
    assert type(net) is ResNet
    assert net.recorded_arguments()["depth"] == 18
    assert build(spec_of(net)).features == net.features


def test_build_makes_nested_components():
    from visionkit.models.backbones.base import FeatureSpec

    neck = visionkit.IdentityNeck(FeatureSpec((8,), (4,)))
    spec = spec_of(neck)
    assert spec["init_args"] == {"features": {"channels": [8], "strides": [4]}}


class Inner(Component):
    """A head inside another one: who holds it passes the features."""

    def __init__(self, features, *, width=1):
        self.features, self.width = features, width


class Outer(Component):
    def __init__(self, features, heads=(), neck=None, leaf=None):
        self.heads = {k: make(features) for k, make in dict(heads).items()}
        self.neck = neck(features) if neck else None
        self.leaf = leaf

    def recorded_arguments(self):
        inner = {k: spec_of(h, drop=("features",)) for k, h in self.heads.items()}
        return {"heads": inner, "neck": spec_of(self.neck, drop=("features",)), "leaf": self.leaf}


def test_parts_that_want_more_arguments_come_back_as_what_makes_them():
    heads = {"a": lambda f: Inner(f, width=3), "b": Inner}
    whole = Outer("levels", heads, lambda f: Inner(f, width=5), leaf=Leaf(2))
    spec = json.loads(json.dumps(spec_of(whole)))
    assert spec["init_args"]["heads"]["a"]["init_args"] == {"width": 3}
    again = build(spec, trust=[__name__.partition(".")[0]], features="others")
    assert {k: (h.features, h.width) for k, h in again.heads.items()} == {"a": ("others", 3), "b": ("others", 1)}
    assert (again.neck.features, again.neck.width) == ("others", 5)
    assert again.leaf.size == 2, "one that wants none is made at once"
    assert spec_of(again) == spec_of(whole)


def test_parts_inside_are_no_way_around_trust(outside):
    inner = {"class_path": "outsider.Mine", "init_args": {}}
    spec = {"class_path": "visionkit.MultiTaskHead", "init_args": {"heads": {"a": inner}}}
    with pytest.raises(UsageError, match=r"outsider\.Mine, outside visionkit"):
        build(spec)
    assert not outside.exists()


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package outside visionkit, whose import leaves a trace."""
    package = tmp_path / "outsider"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from visionkit.core.component import Component\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Mine(Component):\n"
        "    def __init__(self, inner=None, size=1):\n"
        "        self.inner, self.size = inner, size\n"
        "def function(): pass\n"
        "class Plain: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    import sys

    sys.modules.pop("outsider", None)


def test_classes_outside_are_neither_made_nor_imported_untrusted(outside):
    spec = {"class_path": "outsider.Mine", "init_args": {}}
    with pytest.raises(UsageError, match=r"outsider\.Mine, outside visionkit.*--trust outsider"):
        build(spec)
    assert not outside.exists()
    assert build(spec, trust=["outsider"], size=5).size == 5
    assert outside.exists()


def test_trust_holds_inside_and_only_for_the_named(outside):
    inner = {"class_path": "outsider.Mine", "init_args": {"size": 2}}
    spec = {"class_path": "outsider.Mine", "init_args": {"inner": {"deep": [inner]}}}
    assert build(spec, trust=["outsider"]).inner["deep"][0].size == 2
    with pytest.raises(UsageError, match="outside visionkit"):
        build(spec, trust=["outside"])
    inner["class_path"] = "os.system"
    with pytest.raises(UsageError, match=r"os\.system, outside visionkit"):
        build(spec, trust=["outsider"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("visionkit.NoSuchClass", "cannot be imported"),
        ("visionkit.no_module.X", "cannot be imported"),
        ("visionkit.models.backbones.resnet.DEPTHS", "no component"),
        ("visionkit.core.errors.DataError", "no component"),
        ("visionkit.core.component.build", "no component"),
        ("outsider.Plain", "no component"),
        ("outsider.function", "no component"),
        ("visionkit", "no path of a class"),
        ("", "no path of a class"),
        (None, "no path of a class"),
    ],
)
def test_what_is_no_component_is_refused(outside, path, message):
    with pytest.raises(DataError, match=message):
        build({"class_path": path, "init_args": {}}, trust=["outsider"])


def test_a_name_that_begins_like_visionkit_is_outside():
    with pytest.raises(UsageError, match="outside visionkit"):
        build({"class_path": "visionkitty.X", "init_args": {}})


class TestChecked:
    def spec(self, path="visionkit.ResNet", **arguments):
        return {"class_path": path, "init_args": arguments}

    def test_weights_are_left_out_at_any_depth(self):
        assert checked(self.spec(depth=18, weights="/etc/passwd", partial=True)) == self.spec(depth=18)
        inner = self.spec("visionkit.FPN", channels=8, weights="hf-hub:nobody/evil")
        neck = self.spec("visionkit.MultiTaskNeck", neck=inner)
        assert checked(neck) == self.spec("visionkit.MultiTaskNeck", neck=self.spec("visionkit.FPN", channels=8))
        head = self.spec("visionkit.MultiTaskHead", weights={"a": 2.0}, heads={"b": inner})
        kept = checked(head)["init_args"]
        assert kept["weights"] == {"a": 2.0}, "of losses"
        assert kept["heads"]["b"]["init_args"] == {"channels": 8}
        assert inner["init_args"]["weights"] == "hf-hub:nobody/evil", "what was given is not changed"

    def test_kind(self):
        assert checked(self.spec(depth=18), kind=Backbone) == self.spec(depth=18)
        with pytest.raises(DataError, match=r"visionkit\.ResNet, which is no Head; refused"):
            checked(self.spec(), kind=Head)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (None, "describes no Component with a class_path"),
            ("visionkit.ResNet", "describes no Component with a class_path"),
            ({"class_path": "visionkit.ResNet", "init_args": [1]}, "describes visionkit.ResNet by"),
            ({"class_path": "visionkit.ResNet", "dict_kwargs": {}}, "describes visionkit.ResNet by"),
            ({"class_path": "visionkit.ResNet", "init_args": {"dpth": 1}}, "an argument 'dpth', which it has not"),
            ({"class_path": "visionkit.MultiTaskNeck", "init_args": {"neck": "os.system"}}, "the word 'os.system'"),
        ],
    )
    def test_what_is_no_spec(self, spec, message):
        with pytest.raises(DataError, match=message):
            checked(spec)

    def test_trust_holds_inside(self, outside):
        spec = self.spec("visionkit.MultiTaskNeck", neck=self.spec("outsider.Mine", size=2))
        with pytest.raises(UsageError, match=r"outsider\.Mine, outside visionkit.*--trust outsider"):
            checked(spec)
        assert not outside.exists()
        assert checked(spec, trust=["outsider"]) == spec
