"""A task and a trainer that only say what a callback asks them: epochs with known numbers, no training."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from visionkit.training.metric import TaskMetric
from visionkit.training.task import Task


class Metric(TaskMetric):
    monitor = "score"

    def __init__(self, mode, more=()):
        super().__init__(["a", "b"])
        self.monitor_mode = mode
        self.more = dict(more)
        self.plotted = []

    @property
    def monitors(self):
        return {**super().monitors, **self.more}

    def plot(self, values, folder, prefix):
        self.plotted.append((dict(values), folder, prefix))
        return []


class ToldTask(Task):
    def __init__(self, mode, more=()):
        L.LightningModule.__init__(self)
        self.values = {}
        self.made = Metric(mode, more)

    def metric(self, stage):
        return self.made


@pytest.fixture
def told_task():
    """Make a task that monitors val/score, where higher ("max") or lower ("min") is better, and perhaps more."""
    return ToldTask


@pytest.fixture
def told_trainer():
    """Make a trainer that is in an epoch, counted from 0, with these logged values."""

    def make(epoch=0, *, rank=0, lrs=(0.1,), max_epochs=10, world_size=1, **logged):
        values = {k.replace("_", "/", 1): torch.tensor(v) for k, v in logged.items()}
        return SimpleNamespace(
            current_epoch=epoch,
            global_step=7 * (epoch + 1),
            callback_metrics=values,
            optimizers=[SimpleNamespace(param_groups=[{"lr": lr} for lr in lrs])],
            is_global_zero=rank == 0,
            world_size=world_size,
            max_epochs=max_epochs,
            fast_dev_run=False,
        )

    return make
