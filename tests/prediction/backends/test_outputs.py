from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionkit.prediction.backends.outputs import flatten_outputs


class Named(NamedTuple):
    first: Tensor
    rest: Any = None


@dataclass(frozen=True)
class Held:
    value: Tensor
    size: tuple[int, int]


def test_any_nesting_comes_back_with_other_tensors():
    a, b, c, d = (torch.full((2,), float(k)) for k in range(4))
    outputs = Named(a, {"x": [b, (c, "text", 3)], "y": Held(d, (4, 5)), "none": None, "empty": torch.zeros(2, 0)})
    found: list[Tensor] = []
    rebuild = flatten_outputs(outputs, found)
    assert all(x is y for x, y in zip(found, (a, b, c, d), strict=True))
    again = rebuild([t + 10 for t in found])
    assert isinstance(again, Named)
    assert torch.equal(again.first, a + 10)
    assert list(again.rest) == ["x", "y", "none", "empty"]
    assert torch.equal(again.rest["x"][0], b + 10)
    assert torch.equal(again.rest["x"][1][0], c + 10)
    assert again.rest["x"][1][1:] == ("text", 3)
    assert torch.equal(again.rest["y"].value, d + 10)
    assert again.rest["y"].size == (4, 5)
    assert again.rest["none"] is None
    assert again.rest["empty"].shape == (2, 0)
    assert torch.equal(outputs.first, a), "what came in is not changed"


def test_a_tensor_alone():
    found: list[Tensor] = []
    rebuild = flatten_outputs(torch.ones(3), found)
    assert torch.equal(rebuild([found[0] * 2]), torch.full((3,), 2.0))
