"""Several processes that work on one thing."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

__all__ = ["gather_objects"]

T = TypeVar("T")


def gather_objects(value: T) -> list[T]:
    """Return the value of every process, in the order of their ranks; of this one alone where there are no others.

    Args:
        value: Small plain data; processes may bring different amounts.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    gathered: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered
