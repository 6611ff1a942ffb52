"""The metrics of several heads in one, with a combined value."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visionkit.core.distributed import order_of_images
from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget
from visionkit.training.metric import TaskMetric
from visionkit.training.redraw import Counted, RedrawnMetric, taken

__all__ = ["MultiTaskMetric"]

Array = NDArray[Any]


class MultiTaskMetric(RedrawnMetric[Array, dict[str, Array]]):
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
        if not targets:
            return
        metrics = self.each()
        labelled = np.array([[name in target.parts for name in metrics] for target in targets], bool)
        for (name, metric), rows in zip(metrics.items(), labelled.T, strict=True):
            some = np.flatnonzero(rows).tolist()
            if some:
                metric.update([predictions[k].parts[name] for k in some], [targets[k].parts[name] for k in some])
        turns = self._held + np.arange(len(targets))
        self.keep(len(targets), np.column_stack([turns, labelled]))

    def join(self, parts: Sequence[Array]) -> Array:
        """Return of all images, one after another, their position on their process and for which heads they count.

        Whole numbers [B, 1 + H].
        """
        return np.concatenate(parts)

    def prepare(self, part: Array, order: Array) -> dict[str, Array]:
        """Return by head the positions of its images among all, int64 [N_h], in the order of its own metric."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        processes = np.flatnonzero(part[:, 0] == 0)  # where those of another process begin
        owners = {}
        for name, labelled in zip(self.each(), part[:, 1:].T, strict=True):
            own = order_of_images(np.add.reduceat(labelled, processes).tolist())
            owners[name] = place[np.flatnonzero(labelled)[own]]
        return owners

    def pack(self, part: Array) -> dict[str, Array]:
        """Return which images count for which heads, and what they add to these, as ``head/array``.

        Raises:
            UsageError: A head's metric does not keep what each image adds.
        """
        packed = {"labelled": part}
        for name, metric in self.redrawn().items():
            packed |= {f"{name}/{key}": array for key, array in metric.arrays().items()}
        return packed

    def unpack(self, arrays: Mapping[str, Array], images: int) -> Array:
        """Return the part of so many images that :meth:`pack` told; each head's metric takes what is its own.

        Raises:
            DataError: These are no such arrays, or they do not fit the heads and their classes.
            UsageError: A head's metric does not keep what each image adds.
        """
        metrics = self.redrawn()
        part = taken(arrays, "labelled", (images, 1 + len(metrics)), "iu", below=max(images, 2))
        if (part[:, 0] != np.arange(images)).any() or (part[:, 1:] > 1).any():
            raise DataError("the array 'labelled' does not say which images count for which heads")
        for (name, metric), labelled in zip(metrics.items(), part[:, 1:].T, strict=True):
            own = {key.removeprefix(f"{name}/"): v for key, v in arrays.items() if key.startswith(f"{name}/")}
            metric.take_arrays(own)
            if metric.images != labelled.sum():
                raise DataError(f"head {name}: {metric.images} images, {labelled.sum()} are labelled for it")
        return part.astype(np.int64)

    def redrawn(self) -> dict[str, RedrawnMetric[Any, Any]]:
        """Return the metrics by head.

        Raises:
            UsageError: One does not keep what each image adds.
        """
        found = {name: metric for name, metric in self.each().items() if isinstance(metric, RedrawnMetric)}
        for name in self.each().keys() - found:
            raise UsageError(f"head {name}: {type(self.each()[name]).__name__} does not keep what each image adds")
        return found

    def count(self, ready: dict[str, Array], images: int) -> Iterator[tuple[str, Counted]]:
        """Yield what the values of each head rest on, as ``head/value``."""
        for name, metric in self.redrawn().items():
            for key, own in metric.counted():
                hits = None if own.hits is None else _placed(own.hits, ready[name], images)
                yield f"{name}/{key}", Counted(_placed(own.of, ready[name], images), hits, own.unit)

    def find_faults(self, ready: dict[str, Array], images: int) -> Array:
        """Return the faults of all heads together."""
        faults = [_placed(m.faults(), ready[name], images) for name, m in self.redrawn().items() if len(ready[name])]
        together: Array = np.stack([np.zeros(images), *faults]).sum(0)
        return together

    def compute(self) -> dict[str, Tensor]:
        """Return the values of all heads, and "combined"."""
        self._ready = self.gather()
        own = {}
        for name, metric in self.each().items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The ``compute`` method")  # another process may have its images
                own[name] = metric.compute()
        return self._combined(own)

    def values(self, ready: dict[str, Array], weight: Array) -> dict[str, Tensor]:
        """Return the values when each image counts as often as its weight says."""
        own = {}
        for name, metric in self.each().items():
            times = weight[ready[name]]
            own[name] = metric.redraw(np.repeat(np.arange(len(times)), times).tolist())
        return self._combined(own)

    def _combined(self, own: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        chosen = []
        for name, metric in self.each().items():
            values |= {f"{name}/{key}": value for key, value in own[name].items()}
            if metric.monitor_mode == "max" and metric.monitor in own[name]:
                chosen.append(own[name][metric.monitor].float())
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


def _placed(values: Array, place: Array, images: int) -> Array:
    """Return what is known of some images [n] among all, [images]; 0 of the others."""
    among = np.zeros(images, values.dtype)
    among[place] = values
    return among
