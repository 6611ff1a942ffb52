"""The file of descriptions is what the classes say; what it does not hold is imported and asked."""

import inspect
import json

import pytest

import visionkit
from visionkit.cli.config import descriptions
from visionkit.cli.config.descriptions import FILE, TRAINER, describe, import_class, keys_of_form, kind_of, known, write


def test_the_file_is_what_the_classes_say(tmp_path):
    write(tmp_path / "new.json")
    new, old = (json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "new.json", FILE))
    if new["lightning"] != old["lightning"]:  # then Trainer is asked, not read
        new["lightning"], new["classes"][TRAINER] = old["lightning"], old["classes"][TRAINER]
    changed = sorted(k for k in {**new["classes"], **old["classes"]} if new["classes"].get(k) != old["classes"].get(k))
    assert new == old, f"{FILE.name} is old (see {', '.join(changed)}): run python -m {descriptions.__name__}"


def test_kinds_are_the_public_classes_that_a_config_names():
    kinds = known().kinds
    assert kinds["Backbone"] == ["ResNet", "TimmBackbone"]
    assert kinds["Neck"] == ["IdentityNeck", "FPN"], "MultiTaskNeck is made by MultiTask"
    assert {"LinearHead", "MaskRCNNHead"} < set(kinds["Head"])
    assert "MultiTaskHead" not in kinds["Head"]
    assert kinds["MultiScale"] == ["MultiScale"]
    assert {name for names in kinds.values() for name in names} == known().classes.keys() - {TRAINER}


def test_keys_that_take_classes():
    assert keys_of_form("named") == {"heads", "datasets", "metrics"}
    assert keys_of_form("settings") == {"recipe"}
    assert {"backbone", "neck", "head", "mix", "multi_scale"} <= keys_of_form("class")
    assert (kind_of("model"), kind_of("heads"), kind_of("mix")) == ("Task", "Head", "MixUpCutMix")
    assert kind_of("optimizer") == "torch.optim.optimizer.Optimizer"
    assert kind_of("size") is None


@pytest.mark.parametrize("name", [n for n in known().classes if n != TRAINER])
def test_what_the_command_line_or_the_maker_fills_is_no_key(name):
    keys = describe(name).arguments.keys()
    assert not {"self", "features", "num_classes", "preprocessing", "seed"} & keys
    linked = getattr(getattr(visionkit, name), "linked", {})
    for key, parameter in inspect.signature(getattr(visionkit, name)).parameters.items():
        if key in keys or key in linked:
            continue
        assert key in ("features", "num_classes") or parameter.kind is parameter.VAR_KEYWORD or key == "classes"


def test_defaults_types_and_explanations():
    arguments = describe("visionkit.FPN").arguments
    assert (arguments["channels"].type, arguments["channels"].default) == ("int", "128")
    assert arguments["channels"].text
    own = inspect.signature(visionkit.FPN).parameters
    assert list(arguments) == [name for name in own if name != "features"]
    assert describe("Detector").arguments["backbone"].default is None
    assert (
        describe("Detector")
        .arguments["neck"]
        .explain("none")
        .endswith("(Callable[[FeatureSpec], Neck], default: none)")
    )
    assert describe("visionkit.models.necks.fpn.FPN") == describe("FPN")


def test_arguments_that_are_passed_on_to_a_base():
    mask, base = describe("MaskRCNNHead").arguments, describe("FasterRCNNHead").arguments
    assert next(iter(mask)) == "mask_size"
    assert list(mask)[-len(base) :] == list(base)
    assert mask["detections"] == base["detections"]


def test_the_trainer_of_another_version_is_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(descriptions, "ask", lambda cls: asked.append(cls) or known().classes[TRAINER])
    assert describe(TRAINER) == known().classes[TRAINER]
    assert len(asked) == (known().lightning != descriptions.importlib.metadata.version("lightning"))
    monkeypatch.setattr(descriptions.importlib.metadata, "version", lambda _: "0")
    asked.clear()
    describe(TRAINER)
    assert asked == [import_class(TRAINER)]


def test_the_trainers_defaults_are_ours():
    arguments = describe(TRAINER).arguments
    assert arguments["num_sanity_val_steps"].default == "0"
    assert arguments["use_distributed_sampler"].default == "False"


OWN = '''
import visionkit
class Own(visionkit.MLPHead):
    """An own head
    in two lines.

    Args:
        wide: How wide.
    """
    def __init__(self, features, num_classes: int, *, wide: "int | None" = None, **more):
        super().__init__(features, num_classes, hidden=8, **more)
class Inherits(Own):
    pass
'''


def test_a_class_of_the_users_is_imported_and_asked(tmp_path, monkeypatch):
    (tmp_path / "own_described.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = describe("own_described.Own")
    assert (own.name, own.summary) == ("Own", "An own head in two lines.")
    assert own.arguments["wide"].explain() == "How wide. (int | None, default: none)"
    base = describe("MLPHead").arguments
    assert own.arguments.keys() == {"wide", *base} - {"hidden"}, "what it gives itself is not passed on"
    assert own.arguments["dropout"] == base["dropout"]
    assert describe("own_described.Inherits").arguments == own.arguments


@pytest.mark.parametrize("path", ["nowhere.Net", "visionkit.NoSuchNet", "NoSuchNet", "torch.manual_seed", "null", ""])
def test_what_is_no_class(path):
    assert describe(path) is None


def test_an_optimizer_is_described_without_what_it_trains():
    arguments = describe("torch.optim.AdamW").arguments
    assert "lr" in arguments
    assert "params" not in arguments
