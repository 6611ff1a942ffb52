"""The order in which samples are asked for: the same for the same (seed, epoch), on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from visionkit.core.seeds import derive_seed

__all__ = ["EpochSampler", "EvaluationSampler", "Key"]

Key = tuple[int, ...]
"""(epoch, index): what a training sample is asked for by; a third number counts its repeats within an epoch."""


class EpochSampler(DistributedSampler[Any]):
    """The order of training samples: a new one each epoch, the same for the same (seed, epoch), on any machine.

    It is a DistributedSampler only so that Lightning leaves it in place and tells it the epoch. Every process gets
    equally many samples; up to (processes - 1) samples are left out of an epoch, other ones each time.

    Args:
        dataset: A view with a length.
        seed: Seed of the order.
        weights: float64 [N], how often each image is drawn (with replacement) relative to the others, or None for
            each exactly once.
        num_replicas: Number of processes.
        rank: This process, from 0.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        seed: int,
        weights: Tensor | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed, drop_last=True)
        self.weights = weights
        self.start = 0
        """Samples of the epoch that a resumed run has seen already."""

    def __len__(self) -> int:
        """Return the number of samples of this process in an epoch."""
        return len(self.dataset) // self.num_replicas  # type: ignore[arg-type]  # views have a length

    def __iter__(self) -> Iterator[Key]:
        """Return the keys of this epoch, in order."""
        return iter([(self.epoch, i) for i in self.order(self.epoch)[self.start :]])

    def order(self, *number: int) -> list[int]:
        """Return the positions of this process's samples, in an order of its own for each number.

        Args:
            number: The epoch, and which of several orders within it.
        """
        n = len(self.dataset)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, *number))
        if self.weights is None:
            order = torch.randperm(n, generator=generator)
        else:
            order = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        mine = order[: n // self.num_replicas * self.num_replicas][self.rank :: self.num_replicas]
        return [int(i) for i in mine.tolist()]


class EvaluationSampler(DistributedSampler[Any]):
    """Every sample exactly once over all processes: nothing is repeated to fill up, so metrics are exact.

    Args:
        dataset: A view with a length.
        num_replicas: Number of processes.
        rank: This process, from 0.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)

    def __len__(self) -> int:
        """Return the number of samples of this process."""
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        """Return the indices of this process."""
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]
