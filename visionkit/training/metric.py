"""The contract of a task's metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torchmetrics
from torch import Tensor

__all__ = ["MetricFactory", "TaskMetric"]


class TaskMetric(torchmetrics.Metric):
    """Compares predictions with targets over a whole data set, on one process or several.

    Args:
        classes: Class names, in the order of their ids.
    """

    full_state_update = False
    monitor: str
    """Key of ``compute()`` that says which checkpoint is the best."""
    monitor_mode: ClassVar[str] = "max"
    """Whether a higher ("max") or a lower ("min") value of it is better."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)

    @property
    def monitors(self) -> dict[str, tuple[str, str]]:
        """Name of each checkpoint that is kept for a best value -> key of the value, and "max" or "min"."""
        return {"best": (self.monitor, self.monitor_mode)}

    def update(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None:
        """Add the predictions and targets of a batch, both of length B."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; values with 0 dimensions are logged."""
        raise NotImplementedError

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Draw what ``compute`` returned into files of ``folder`` whose names start with ``prefix``."""
        return []


MetricFactory = Callable[[Sequence[str]], TaskMetric]
"""Makes a metric for these class names."""
