"""What the curves of a training say about the next one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

__all__ = ["read_curves"]

Rows = Sequence[Mapping[str, float]]

LEAST_EPOCHS = 6  # before that no curve is read
LEAST_GAIN = 0.005  # of a metric, 0..1, over the last third of the epochs
SURE = 3.0  # standard errors of a slope
NOTABLE = 0.1  # share by which a loss has changed


def read_curves(rows: Rows, monitor: str, mode: str, *, planned: int | None = None) -> list[str]:
    """Return what the epochs of a training say: nothing, or one sentence or two.

    "Still rising": a line through the last third of the monitored values (four at least) climbs by more than three of
    its standard errors and by 0.005 in all, and the best epoch is among the last two.

    "By heart": val/loss was lowest in the first two thirds and has since grown by a tenth or more, while train/loss
    fell by a tenth or more, and the monitored value is not still rising. Each loss is compared with itself alone:
    training losses are those of changed pictures, so the two are not measured alike.

    Args:
        rows: One mapping an epoch, in order, with "epoch", "train/loss" and, where it was validated, "val/loss" and the
            monitored key.
        monitor: Key of the metric that chooses the best epoch.
        mode: "max" or "min", which of its values is the better one.
        planned: Epochs that the training was to have; one that was stopped earlier says nothing of more.
    """
    values = [(row["epoch"], row[monitor]) for row in rows if monitor in row and math.isfinite(row[monitor])]
    if len(values) < LEAST_EPOCHS:
        return []
    sign = 1.0 if mode == "max" else -1.0
    best = max(values, key=lambda point: sign * point[1])[0]
    gain = sign * _gain(values[-max(4, math.ceil(len(values) / 3)) :])
    if gain >= LEAST_GAIN and best in (values[-1][0], values[-2][0]):
        if planned is not None and rows[-1]["epoch"] < planned:
            return []
        word = "rising" if mode == "max" else "falling"
        more = 2 * round(rows[-1]["epoch"])
        return [
            f"{monitor} was still {word} ({sign * gain:+.3f} over the last third): more epochs, such as --epochs {more}"
        ]
    return _learnt_by_heart(rows, best)


def _gain(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much a line through points climbs from the first to the last; 0 where that is not sure."""
    epochs, values = zip(*points, strict=True)
    slope, start = statistics.linear_regression(epochs, values)
    residual = sum((y - start - slope * x) ** 2 for x, y in points)
    spread = sum((x - statistics.fmean(epochs)) ** 2 for x in epochs)
    error = math.sqrt(residual / (len(points) - 2) / spread)
    return slope * (epochs[-1] - epochs[0]) if abs(slope) > SURE * error else 0.0


def _learnt_by_heart(rows: Rows, best: float) -> list[str]:
    losses = [row for row in rows if math.isfinite(row.get("val/loss", math.nan)) and "train/loss" in row]
    if not losses:
        return []
    lowest, last = min(losses, key=lambda row: row["val/loss"]), losses[-1]
    early = lowest["epoch"] <= 2 / 3 * last["epoch"]
    grown = last["val/loss"] >= (1 + NOTABLE) * lowest["val/loss"] > 0
    fell = last["train/loss"] <= (1 - NOTABLE) * lowest["train/loss"]
    if not (early and grown and fell):
        return []
    return [
        f"val/loss grew from {lowest['val/loss']:.3g} (epoch {lowest['epoch']:.0f}) to {last['val/loss']:.3g} while "
        f"train/loss fell: the training pictures are learnt by heart; more pictures or augmentation, or fewer epochs "
        f"(the best was {best:.0f})"
    ]
