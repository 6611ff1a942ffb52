"""The contract of a task's metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torchmetrics
from torch import Tensor

from visionkit.core.distributed import gather_objects, order_of_images
from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo

__all__ = ["MetricFactory", "TaskMetric"]


class TaskMetric(torchmetrics.Metric):
    """Compares predictions with targets over a whole data set, on one process or several.

    A metric of your own says ``update`` and ``compute``. One whose values can be drawn again over some of the images
    says ``redraw`` too, most easily as a :class:`visionkit.training.redraw.RedrawnMetric`.

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
        self._ids: list[str] = []

    @property
    def monitors(self) -> dict[str, tuple[str, str]]:
        """Name of each checkpoint that is kept for a best value -> key of the value, and "max" or "min"."""
        return {"best": (self.monitor, self.monitor_mode)}

    def update(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None:
        """Add the predictions and targets of a batch, both of length B."""
        raise NotImplementedError

    def add_infos(self, infos: Sequence[ImageInfo]) -> None:
        """Remember whose images the last update brought, so that two runs can be compared image by image."""
        self._ids += [info.id for info in infos]

    def image_ids(self) -> list[str]:
        """Return the ids of the images of all processes, in the order of ``redraw``'s rows; all processes must ask."""
        parts = gather_objects(self._ids)
        ids = [i for part in parts for i in part]
        return [ids[k] for k in order_of_images([len(part) for part in parts])]

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; values with 0 dimensions are logged."""
        raise NotImplementedError

    def redraw(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the values over some of the images, as a new metric with these images alone would compute them.

        ``redraw(range(n))`` of all n images is ``compute()``. On several processes all must have computed since the
        last update; then each can draw on its own, over the images of all.

        Args:
            rows: Positions of images, 0..n-1 in the order in which a single process would have met them; any number, in
                any order. One that stands twice counts twice.

        Raises:
            UsageError: This metric does not know what each image adds.
        """
        raise UsageError(
            f"{type(self).__name__} cannot be drawn again over some of the images, since it does not keep what each "
            "one adds; give it a method redraw(rows)"
        )

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._ids = []

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Draw what ``compute`` returned into files of ``folder`` whose names start with ``prefix``."""
        return []


MetricFactory = Callable[[Sequence[str]], TaskMetric]
"""Makes a metric for these class names."""
