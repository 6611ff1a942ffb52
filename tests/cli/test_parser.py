"""Lightning's parser in which a class has its own defaults; messages are in tests/cli/config/test_messages.py."""

import inspect

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from visionkit.cli.parser import _at, _whole_numbers_first, names_class


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"class_path": "a.B"}, True),
        (Namespace(class_path="a.B"), True),
        ({"init_args": {}}, False),
        ("a.B", False),
        (None, False),
    ],
)
def test_what_names_a_class(value, named):
    assert names_class(value) is named


def test_what_stands_below_a_key():
    config = Namespace(model=Namespace(init_args={"head": {"depth": 3}}))
    assert _at(config, "model.init_args.head.depth") == 3
    assert _at(config, "model.init_args.neck.depth") is None
    assert _at(None, "model") is None


def test_whole_numbers_come_first_whatever_was_asked_for_before():
    def function(batches: float | int | None = None, name: str = ""): ...

    _whole_numbers_first(function)
    assert [a for a in function.__annotations__["batches"].__args__ if a in (int, float)] == [int, float]
    assert function.__annotations__["name"] is str
    limits = inspect.signature(Trainer).parameters["limit_train_batches"]
    assert str(limits.annotation).index("int") < str(limits.annotation).index("float")
