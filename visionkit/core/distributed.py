"""Several processes that work on one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

__all__ = ["gather_objects", "order_of_images"]

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


def order_of_images(held: Sequence[int]) -> NDArray[np.int64]:
    """Return how what the processes hold, one process after another, is brought into the order of a single one.

    Process r of W holds the images r, r + W, r + 2 W, ...

    Args:
        held: Number of images on each process.

    Returns:
        int64 [N]: position k holds the place, one process after another, of the image that a single one meets as k-th.
    """
    turns: list[Any] = [np.arange(n) for n in held]
    return np.argsort(np.concatenate([*turns, np.zeros(0, np.int64)]), kind="stable")
