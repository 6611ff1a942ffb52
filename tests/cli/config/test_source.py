"""What is read from source is what the imported classes say."""

import inspect

import pytest

import visionkit
from visionkit.cli.config.names import UnclearError
from visionkit.cli.config.source import Described, describe, describe_class, describe_source
from visionkit.cli.config.train_help import TRAINER, say_type

OTHERS = ["torch.optim.AdamW", "torch.optim.SGD", TRAINER]
UNCLEAR = {"ImageInfo", "Sample", "Batch", "Target", "SpatialTarget", "Prediction", "ObjectMasks", "DataSplits",
           "VisionDataset", "InstancePrediction", "Neck", "Head"}  # fmt: skip
CLASSES = [n for n in visionkit.PUBLIC if n[0].isupper() and not n.endswith("Error")]


def imported(path):
    module, _, name = path.rpartition(".")
    return getattr(__import__(module or "visionkit", fromlist=[name]), name)


def plain(parameter):
    default = parameter.default
    return (
        parameter.name,
        parameter.kind,
        default.__name__ if isinstance(default, type) else default,
        say_type(parameter.annotation),
    )


@pytest.mark.parametrize("path", [*(n for n in CLASSES if n not in {*UNCLEAR, "VisionDataModule"}), *OTHERS])
def test_source_and_class_say_the_same(path):
    told, known = describe_source(path), describe_class(imported(path))
    assert (told.name, told.module, told.doc, told.init_doc) == (known.name, known.module, known.doc, known.init_doc)
    assert [plain(p) for p in told.parameters.values()] == [plain(p) for p in known.parameters.values()]
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in told.parameters.values()):  # what the base takes
        assert told.bases[:1] == known.bases[:1]


@pytest.mark.parametrize("path", sorted(UNCLEAR))
def test_unclear_classes_are_imported(path):
    with pytest.raises(UnclearError):
        describe_source(path)
    assert describe(path) == describe_class(imported(path))


@pytest.mark.parametrize("path", ["nowhere.Net", "visionkit.NoSuchNet", "NoSuchNet", "torch.manual_seed"])
def test_what_is_no_class(path):
    assert describe(path) is None


SOURCE = '''
from __future__ import annotations
from typing import TYPE_CHECKING
import visionkit as vk
if TYPE_CHECKING:
    from decimal import Decimal
raise SystemExit("never imported")
LEVELS = (1, 2)
class Own(vk.MLPHead):
    """An own head.

    Args:
        width: Channels.
    """
    def __init__(self, features, *, width: "int | None" = None, levels: tuple[int, ...] = LEVELS, kind: type = vk.ResNet):
        """Make it."""
class Inherits(Own):
    pass
class ForCheckers:
    def __init__(self, a: Decimal, b: int = 3): ...
class Calls:
    def __init__(self, a: int = int("3")): ...
@vk.decorated
class Decorated:
    def __init__(self, a: int): ...
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"own_{tmp_path.name.replace('-', '_')}"  # modules are read once
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_module_of_the_users_is_read_and_not_run(own):
    told = describe_source(f"{own}.Own")
    assert isinstance(told, Described)
    assert told.summary == "An own head."
    assert told.init_doc == "Make it."
    assert told.bases == ("visionkit.tasks.classification.heads.MLPHead",)
    parameters = told.parameters
    assert list(parameters) == ["features", "width", "levels", "kind"]
    assert parameters["features"].annotation is inspect.Parameter.empty
    assert parameters["width"].annotation == int | None
    assert parameters["levels"].default == (1, 2)
    assert say_type(parameters["kind"].default) == "ResNet"
    assert describe_source(f"{own}.Inherits").parameters == parameters


def test_names_for_type_checkers_stay_text(own):
    parameters = describe_source(f"{own}.ForCheckers").parameters
    assert (parameters["a"].annotation, parameters["b"].annotation) == ("Decimal", "int")


@pytest.mark.parametrize("name", ["Calls", "Decorated", "LEVELS", "NoSuch"])
def test_what_source_does_not_tell(own, name):
    with pytest.raises(UnclearError):
        describe_source(f"{own}.{name}")
