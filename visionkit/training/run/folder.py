"""The run folder: config, metrics by epoch, the best values, and pictures of them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from visionkit.core.files import make_folder, read_text, write_text
from visionkit.training.plots import draw_learning_curves
from visionkit.training.task import Task

__all__ = ["RunFolder"]

Row = dict[str, float | int]


class RunFolder(Callback):
    """Write config.yaml, metrics.csv (a row an epoch), metrics.json (the best epoch's values) and pictures.

    After a resume, rows of epochs that are trained again are replaced, all others kept.

    Args:
        folder: The run folder; made when training starts.
        config: Text of config.yaml, or None to write none.
    """

    def __init__(self, folder: str | os.PathLike[str], *, config: str | None = None) -> None:
        self.folder = Path(folder)
        self.config = config
        self.deferred = False
        """Whether whoever saves checkpoints calls :meth:`write` after that: the tables then never run ahead of them."""
        self.rows: list[Row] = []
        self.bests: dict[str, dict[str, Any]] = {}
        """Values of the best epoch by each of the task's monitors; ``best`` is the one that matters most."""
        self.best_values: dict[str, Tensor] = {}
        self._images = 0
        self._stale = False  # whether the validation values that Lightning keeps are those of an earlier epoch
        self._epoch_start = 0.0
        self._last_batch = 0.0
        self._waited = 0.0

    @property
    def best(self) -> dict[str, Any]:
        """Values of the best epoch."""
        return self.bests.get("best", {})

    @property
    def metrics_file(self) -> Path:
        """Where the best values are."""
        return self.folder / "metrics.json"

    # ---- training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder; after a resume keep the rows of the epochs that stand."""
        self._start_clock()
        done = trainer.current_epoch  # epochs
        if done and not self.rows:  # a checkpoint of an earlier version holds none
            self.rows = _read_rows(self.folder / "metrics.csv")
        self.rows = [r for r in self.rows if r["epoch"] <= done]
        if not trainer.is_global_zero:
            return
        make_folder(self.folder)
        if self.config is not None:
            write_text(self.folder / "config.yaml", self.config)
        self.write()

    def write(self) -> None:
        """Write metrics.csv and metrics.json."""
        if self.rows:
            _write_rows(self.folder / "metrics.csv", self.rows)
        else:
            (self.folder / "metrics.csv").unlink(missing_ok=True)  # of a run that was killed in its first epoch
        others = ((name, best) for name, best in self.bests.items() if name != "best")
        values = self.best | {f"{name}/{k}": v for name, best in others for k, v in best.items()}
        self._merge_metrics(values, stays=lambda key: key.startswith("test/"))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._stale = True
        self._start_clock()

    def _start_clock(self) -> None:
        self._images = 0
        self._waited = 0.0
        self._epoch_start = self._last_batch = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that this epoch has validation values of its own."""
        self._stale = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the seconds for which the step waited for its pictures."""
        self._waited += time.perf_counter() - self._last_batch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch)
        self._last_batch = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row; remember its values when it is the best."""
        assert isinstance(pl_module, Task)
        training = max(self._last_batch - self._epoch_start, 1e-9)
        row: Row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        kinds = ("train/",) if self._stale else ("train/", "val/")
        row |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(kinds)}
        row["lr"] = max(g["lr"] for o in trainer.optimizers for g in o.param_groups)
        row["images_per_second"] = self._images * trainer.world_size / training
        row["seconds"] = time.perf_counter() - self._epoch_start
        row["seconds_waiting"] = self._waited  # of the training, for its pictures
        self._take(row, pl_module)
        if trainer.is_global_zero and not self.deferred:
            self.write()

    def take_start(self, trainer: L.Trainer, pl_module: Task) -> None:
        """Take the validation values from before the first step as those of epoch 0."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self._take({"epoch": 0, "step": 0, **values}, pl_module)

    def _take(self, row: Row, pl_module: Task) -> None:
        """Add a row, and remember its values where it is the best."""
        self.rows.append(row)
        for name, (key, mode) in pl_module.monitors.items():
            if key in row and _better(float(row[key]), self.bests.get(name, {}).get(key), mode):
                values = {k: v for k, v in row.items() if k.startswith("val/")} if name == "best" else {key: row[key]}
                self.bests[name] = {"epoch": row["epoch"], **values}
                self.best_values = pl_module.values.get("val", {}) if name == "best" else self.best_values

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the learning curves and the best epoch's pictures."""
        assert isinstance(pl_module, Task)
        if not trainer.is_global_zero or not self.rows:
            return
        draw_learning_curves(self.rows, self.folder / "learning_curves.png", monitor=pl_module.monitor)
        if self.best_values:
            pl_module.metric("val").plot(self.best_values, self.folder, "")

    # ---- evaluation

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the test values to metrics.json and draw their pictures."""
        assert isinstance(pl_module, Task)
        if not trainer.is_global_zero:
            return
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        self._merge_metrics(values, stays=lambda key: not key.startswith("test/"))
        pl_module.metric("test").plot(pl_module.values["test"], self.folder, "test_")

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Return the best values and all rows so far, for a resume."""
        return {"bests": self.bests, "best_values": self.best_values, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best values and rows so far."""
        self.bests = state_dict["bests"]
        self.best_values = state_dict["best_values"]
        self.rows = list(state_dict.get("rows", ()))

    def _merge_metrics(self, values: dict[str, Any], stays: Callable[[str], bool]) -> None:
        """Write metrics.json: new values beside those in it that stay; a number that is not finite is null."""
        old = json.loads(read_text(self.metrics_file)) if self.metrics_file.is_file() else {}
        merged = {k: v for k, v in old.items() if stays(k)} | values
        if merged or old:
            plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in merged.items()}
            write_text(self.metrics_file, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _better(value: float, best: float | None, mode: str) -> bool:
    """Return whether a value is the best so far; one that is not finite never is."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best if mode == "max" else value < best


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    return [
        {k: int(v) if k in ("epoch", "step") else float(v) for k, v in row.items() if v not in ("", None)}
        for row in csv.DictReader(io.StringIO(read_text(path)))
    ]


def _write_rows(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(k for row in rows for k in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())
