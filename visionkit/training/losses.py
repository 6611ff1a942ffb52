"""The means of an epoch's training losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["EpochLosses"]

_Sums = dict[tuple[str, ...], tuple[Tensor, int]]
"""Names of losses -> their sums over images [L], and how many images those are."""


class EpochLosses:
    """Sums of the losses of an epoch on one process; it can be saved within the epoch."""

    def __init__(self) -> None:
        self._running: _Sums = {}
        self._taken: _Sums = {}

    def start(self) -> None:
        """Forget all: an epoch begins."""
        self._running, self._taken = {}, {}

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Add a batch's losses to those of the images since the means were taken last.

        Args:
            losses: Means over the batch, scalars.
            images: Images of the batch.
        """
        names, values = tuple(losses), torch.stack([v.detach().float() for v in losses.values()]) * images
        sums, before = self._running.get(names, (None, 0))
        self._running[names] = (values if sums is None else sums.add_(values), before + images)

    def take(self) -> list[tuple[dict[str, Tensor], int]]:
        """Return the means since they were taken last, and over how many images each set of them goes."""
        for names, (sums, images) in self._running.items():
            others, before = self._taken.get(names, (torch.zeros_like(sums), 0))
            self._taken[names] = (others + sums, before + images)
        means, self._running = _means(self._running), {}
        return means

    def taken(self) -> list[tuple[dict[str, Tensor], int]]:
        """Return the means that were taken in this epoch already: a resumed run must say them again."""
        return _means(self._taken)

    def state(self) -> tuple[Any, Any]:
        """Return all, as plain data."""
        return self._running, self._taken

    def load(self, state: tuple[Any, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises:
            TypeError, ValueError: It is something else.
        """
        running, taken = ({names: (sums, int(n)) for names, (sums, n) in part.items()} for part in state)
        self._running, self._taken = running, taken


def _means(losses: _Sums) -> list[tuple[dict[str, Tensor], int]]:
    return [
        (dict(zip(names, (sums / images).unbind(), strict=True)), images) for names, (sums, images) in losses.items()
    ]
