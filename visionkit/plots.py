"""Pictures of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from visionkit.ops.files import replacing

__all__ = ["draw_learning_curves"]


def draw_learning_curves(rows: Sequence[Mapping[str, float]], path: Path, *, monitor: str) -> None:
    """Draw losses, the monitored metric and the learning rate over the epochs into a PNG file.

    Args:
        rows: One mapping an epoch with "epoch", "train/loss", "val/loss", the monitored key and "lr".
        path: File to write.
        monitor: Key of the metric that chooses the best checkpoint.
    """
    from matplotlib.figure import Figure  # 0.5 s, needed at the end of a run only

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = (("loss", ("train/loss", "val/loss")), (monitor, (monitor,)), ("learning rate", ("lr",)))
    for axes, (title, keys) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for key in keys:
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=key)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(keys) > 1 and axes.lines:
            axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
