"""Pictures of classification results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visionkit.training.plots import name_ticks, save_figure, short

__all__ = ["write_average_precision"]

MAX_NAMED_CLASSES = 200
"""At most this many classes are named."""


def write_average_precision(precisions: Mapping[str, float], folder: Path, prefix: str) -> list[Path]:
    """Write ``<prefix>average_precision.png``: a bar a class, best first.

    Args:
        precisions: Average precision by class name, 0..1.
        folder: Where to write; made if missing.
        prefix: Begin of the file name.
    """
    from matplotlib.figure import Figure

    ranked = sorted(precisions.items(), key=lambda item: -item[1])
    figure = Figure(
        figsize=(6.4, 1.2 + 0.22 * max(4, min(len(ranked), MAX_NAMED_CLASSES))), dpi=100, layout="constrained"
    )
    axes = figure.subplots()
    axes.barh(range(len(ranked)), [v for _, v in ranked], color="#3b6ea5")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("average precision")
    name_ticks(axes.yaxis, [f"{short(n)}  {v:.2f}" for n, v in ranked], MAX_NAMED_CLASSES)
    axes.grid(axis="x", alpha=0.3)
    picture = folder / f"{prefix}average_precision.png"
    save_figure(figure, picture)
    return [picture]
