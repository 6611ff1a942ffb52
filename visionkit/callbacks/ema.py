"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

__all__ = ["EMA"]


class EMA(WeightAveraging):
    """Keep an exponential moving average of weights and BatchNorm statistics; it validates and is saved.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over updates n, so short trainings profit too (Tan & Le 2019
    use the same rule).

    Args:
        decay: Part of the average that each step keeps, 0..1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__(multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], currents: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        weight = 1.0 - min(self.decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(currents), weight)
        else:  # counters such as num_batches_tracked
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)
