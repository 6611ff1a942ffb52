"""Types in words that do not depend on the version of Python or on what was asked for before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import pytest

from visionkit import FeatureSpec, Head, Neck, Recipe
from visionkit.cli.config.described import _say_type, _taken, ask, say_default

if TYPE_CHECKING:
    from decimal import Decimal

TYPES = {
    "int": int,
    "None": type(None),
    "Any": Any,
    "Path": Path,
    "int | str | None": Optional[Union[str, int]],  # noqa: UP007, UP045
    "float | int | None": int | None | float,
    "Literal['b', 'a'] | None": Literal["b", "a"] | None,
    "list[dict[str, Any] | str]": list[str | dict[str, Any]],
    "tuple[float, ...]": tuple[float, ...],
    "Callable[[FeatureSpec, int], Head]": Callable[[FeatureSpec, int], Head],
    "Callable[..., Any]": Callable[..., Any],
    "Mapping[str, Sequence[int]]": Mapping[str, Sequence[int]],
}


@pytest.mark.parametrize("said", TYPES)
def test_types(said):
    assert _say_type(TYPES[said]) == said


def test_the_order_of_a_union_does_not_matter():
    assert _say_type(Union[float, int, None]) == _say_type(Optional[Union[int, float]])  # noqa: UP007, UP045


@pytest.mark.parametrize(
    ("hint", "taken"),
    [
        (int, ("", "", 0)),
        (Path, ("", "", 0)),
        (dict[str, float], ("", "", 0)),
        (Neck | None, ("Neck", "class", 0)),
        (Callable[[FeatureSpec, int], Head], ("Head", "class", 2)),
        (dict[str, Callable[[FeatureSpec, int], Head]], ("Head", "named", 2)),
        (Mapping[str, Neck] | None, ("Neck", "named", 0)),
        (Recipe | None, ("Recipe", "settings", 0)),
        (Callable[[Iterable[Any]], None], ("", "", 0)),
    ],
)
def test_what_an_argument_takes(hint, taken):
    assert _taken(hint) == taken


@dataclass
class Settings:
    """Some settings.

    Args:
        a: The first.
    """

    a: int
    b: tuple[int, ...] = (1, 2)


def test_a_dataclass():
    asked = ask(Settings)
    assert asked.summary == "Some settings."
    assert [argument.explain() for argument in asked.arguments.values()] == [
        "The first. (int, required)",
        "(tuple[int, ...], default: (1, 2))",
    ]


class ForCheckers:
    linked = {"seed": "seed_everything"}  # noqa: RUF012
    in_common = ("b",)

    def __init__(self, a: Decimal, b: int = 3, seed: int = 0):
        """Make it.

        Args:
            a: Stands here.
        """


def test_names_for_type_checkers_stay_text():
    asked = ask(ForCheckers)
    assert asked.in_common == ("b",)
    assert [a.explain() for a in asked.arguments.values()] == ["Stands here. (Decimal, required)", "(int, default: 3)"]


def test_defaults_in_words():
    said = [say_default(v) for v in (None, FeatureSpec, [1, 2], [1, 2, 3], (1, 2, 3), "x", 0.5)]
    assert said == ["none", "FeatureSpec", "[1, 2]", "a list of 3, see the config", "(1, 2, 3)", "x", "0.5"]
