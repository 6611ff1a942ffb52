"""Metrics that keep what each image adds, so that their values can be drawn again over any of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.distributed import gather_objects, order_of_images
from visionkit.core.errors import UsageError
from visionkit.training.metric import TaskMetric

__all__ = ["ImageCounts", "RedrawnMetric"]

Array = NDArray[Any]
Part = TypeVar("Part")
Ready = TypeVar("Ready")


class RedrawnMetric(TaskMetric, Generic[Part, Ready]):
    """A metric whose values are sums over images, or sorted lists of what images bring.

    A subclass calls :meth:`keep` with the part that a batch adds, says how parts are joined and made ready (once), and
    which values they give when each image counts as often as its weight says (often).

    Args:
        classes: Class names, in the order of their ids.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.sync_on_compute = False  # processes hold different numbers of images: compute gathers by itself
        self.compute_with_cache = False  # else a process with new images would wait for one without
        self._held = 0
        self._parts: list[Part] = []
        self._ready: tuple[int, Ready | None] | None = None

    def join(self, parts: Sequence[Part]) -> Part:
        """Return one part, on the CPU, with the images of one or more, in their order."""
        raise NotImplementedError

    def prepare(self, part: Part, order: Array) -> Ready:
        """Return what values are computed from.

        Args:
            part: That of all N images.
            order: int64 [N], positions in the part of the images in their order.
        """
        raise NotImplementedError

    def values(self, ready: Ready, weight: Array) -> dict[str, Tensor]:
        """Return the values when image k counts ``weight[k]`` times; int64 [N] with a sum above 0."""
        raise NotImplementedError

    def keep(self, images: int, part: Part) -> None:
        """Add what a batch of so many images brings; nothing where there are none."""
        self._ready = None
        if images:
            self._held += images
            self._parts.append(part)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._held, self._parts, self._ready = 0, [], None

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; an empty dict without any image."""
        images, ready = self._ready = self.gather()
        return {} if ready is None else self.values(ready, np.ones(images, np.int64))

    def redraw(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the values over some of the images; see :meth:`TaskMetric.redraw`.

        Raises:
            UsageError: There is no such image.
        """
        images, ready = self._ready = self._ready or self.gather()
        chosen = np.asarray(rows, np.int64).reshape(-1)
        if ready is None or not len(chosen):
            if len(chosen):
                raise UsageError(f"row {chosen[0]} of a metric that has no images")
            return {}
        outside = chosen[(chosen < 0) | (chosen >= images)]
        if len(outside):
            raise UsageError(f"row {outside[0]} of a metric that has {images} images: 0 to {images - 1}")
        values = self.values(ready, np.bincount(chosen, minlength=images))
        return {k: v.squeeze() if v.numel() == 1 else v for k, v in values.items()}  # as torchmetrics does it

    def gather(self) -> tuple[int, Ready | None]:
        """Return the number of images of all processes and what is made of them, None without any."""
        shares = gather_objects((self._held, self.join(self._parts) if self._parts else None))
        order = order_of_images([held for held, _ in shares])
        parts = [part for _, part in shares if part is not None]
        return len(order), self.prepare(self.join(parts), order) if parts else None


class ImageCounts(NamedTuple):
    """Whole numbers that each image adds to the cells of a table; most add to few cells, and only those are kept.

    Args:
        image: int32 [E], position of the image.
        cell: int32 [E], where its number is added.
        number: int32 or int64 [E].
    """

    image: Tensor
    cell: Tensor
    number: Tensor

    @classmethod
    def make(cls, image: Array | Tensor, cell: Array | Tensor, number: Array | Tensor | None = None) -> Self:
        """Return counts of plain arrays of whole numbers, ones where there is no ``number``."""
        image, cell = (torch.as_tensor(v, dtype=torch.int32) for v in (image, cell))
        return cls(image, cell, torch.ones_like(cell) if number is None else torch.as_tensor(number))

    def total(self, weight: Array, cells: int) -> Tensor:
        """Return the sums, int64 [cells] on the CPU, exact, when image k counts ``weight[k]`` times."""
        added = torch.from_numpy(weight)[self.image] * self.number
        return torch.zeros(cells, dtype=torch.int64).index_add_(0, self.cell, added)
