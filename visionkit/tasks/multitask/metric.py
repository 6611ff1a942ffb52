"""The metrics of several heads in one, with a combined value."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget
from visionkit.training.metric import TaskMetric

__all__ = ["MultiTaskMetric"]


class MultiTaskMetric(TaskMetric):
    """Judges each head by its own metric over the images that are labelled for it.

    Values are named ``head/value``; "combined" is the mean of the values that the heads' metrics monitor (those of
    which higher is better).

    Args:
        classes: Class names of all heads, as ``head/class``.
        metrics: Metric of each head, by its name.

    Raises:
        UsageError: No head has a value of which higher is better.
    """

    monitor = "combined"

    def __init__(self, classes: Sequence[str], metrics: Mapping[str, TaskMetric]) -> None:
        super().__init__(classes)
        self.metrics = nn.ModuleDict(metrics)
        if all(m.monitor_mode != "max" for m in metrics.values()):
            raise UsageError("no head has a metric of which higher is better, to choose checkpoints by")

    @property
    def monitors(self) -> dict[str, tuple[str, str]]:
        """Name of each checkpoint that is kept -> key of its value, and "max" or "min": one of all, one a head."""
        own = {f"best-{name}": (f"{name}/{m.monitor}", m.monitor_mode) for name, m in self.each().items()}
        return {**super().monitors, **own}

    def each(self) -> dict[str, TaskMetric]:
        """Return the metrics by head."""
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, TaskMetric)}

    def update(self, predictions: Sequence[MultiTaskPrediction], targets: Sequence[MultiTaskTarget]) -> None:
        """Add a batch: to each head's metric the images that are labelled for it."""
        for name, metric in self.each().items():
            rows = [k for k, target in enumerate(targets) if name in target.parts]
            if rows:
                metric.update([predictions[k].parts[name] for k in rows], [targets[k].parts[name] for k in rows])

    def compute(self) -> dict[str, Tensor]:
        """Return the values of all heads, and "combined"."""
        values: dict[str, Tensor] = {}
        chosen = []
        for name, metric in self.each().items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The ``compute`` method")  # another process may have its images
                own = metric.compute()
            values |= {f"{name}/{key}": value for key, value in own.items()}
            if metric.monitor_mode == "max" and metric.monitor in own:
                chosen.append(own[metric.monitor].float())
        return {"combined": torch.stack(chosen).mean(), **values} if chosen else values

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        for metric in self.each().values():
            metric.reset()

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Draw each head's values into files whose names start with the head's name."""
        drawn: list[Path] = []
        for name, metric in self.each().items():
            own = {k.removeprefix(f"{name}/"): v for k, v in values.items() if k.startswith(f"{name}/")}
            if own:
                drawn += metric.plot(own, folder, f"{prefix}{name}_")
        return drawn
