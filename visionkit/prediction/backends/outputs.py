"""Outputs of any head taken apart into tensors, and put together again from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Rebuild", "flatten_outputs"]

Rebuild: TypeAlias = Callable[[Sequence[Tensor]], Any]
"""Makes outputs of their tensors."""


def flatten_outputs(outputs: Any, tensors: list[Tensor]) -> Rebuild:
    """Append the tensors of a head's outputs to a list, and return what puts others in their places.

    Tuples (named or not), lists, dicts and dataclasses are gone through. All else stays as it is, and so do tensors
    without any element, which no exported network returns.

    Args:
        outputs: What ``VisionModel.forward`` returned.
        tensors: Where they go.
    """
    if isinstance(outputs, Tensor):
        return _tensor(outputs, tensors)
    if isinstance(outputs, dict):
        named = {key: flatten_outputs(value, tensors) for key, value in outputs.items()}
        return lambda new: {key: part(new) for key, part in named.items()}
    if isinstance(outputs, list | tuple):
        parts = [flatten_outputs(value, tensors) for value in outputs]
        kind: Any = type(outputs)
        if hasattr(kind, "_fields"):  # a NamedTuple
            return lambda new: kind(*(part(new) for part in parts))
        return lambda new: kind(part(new) for part in parts)
    if is_dataclass(outputs) and not isinstance(outputs, type):
        held = {f.name: flatten_outputs(getattr(outputs, f.name), tensors) for f in fields(outputs) if f.init}
        return lambda new: replace(outputs, **{name: part(new) for name, part in held.items()})
    return lambda _: outputs


def _tensor(value: Tensor, tensors: list[Tensor]) -> Rebuild:
    if value.numel() == 0:
        shape, dtype = tuple(value.shape), value.dtype  # not the tensor: an exporter may have made it
        return lambda new: torch.empty(shape, dtype=dtype, device=new[0].device if new else None)
    place = len(tensors)
    tensors.append(value)
    return lambda new: new[place]
