import pytest
import torch
import torchmetrics

from visionkit.training.metric import TaskMetric


class Share(TaskMetric):
    """Share of right answers, the least that a metric has to say."""

    monitor = "share"

    def __init__(self, classes):
        super().__init__(classes)
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions, targets):
        self.right += sum(p == t for p, t in zip(predictions, targets, strict=True))
        self.count += len(targets)

    def compute(self):
        return {"share": self.right / self.count, "both": torch.stack([self.right, self.count])}


def test_defaults():
    metric = TaskMetric(["b", "a"])
    assert isinstance(metric, torchmetrics.Metric)
    assert metric.classes == ("b", "a"), "in the order of their ids"
    assert metric.monitor_mode == "max"
    assert metric.full_state_update is False, "a forward must not update twice"


def test_update_and_compute_are_each_metrics_own():
    metric = TaskMetric(["a"])
    with pytest.raises(NotImplementedError):
        metric.update([], [])
    with pytest.raises(NotImplementedError), pytest.warns(UserWarning, match="before the ``update``"):
        TaskMetric(["a"]).compute()


def test_the_key_to_monitor_has_no_default():
    assert not hasattr(TaskMetric(["a"]), "monitor"), "a metric that forgets it must not pass for another"


def test_nothing_is_drawn_unless_a_metric_does_so(tmp_path):
    assert TaskMetric(["a"]).plot({"x": torch.tensor(1.0)}, tmp_path, "test_") == []
    assert not list(tmp_path.iterdir())


def test_values_are_over_all_updates_since_the_last_reset():
    metric = Share(["a", "b"])
    metric.update([0, 1, 1], [0, 1, 0])
    metric.update([1], [0])
    assert metric.compute()["share"] == 0.5
    metric.reset()
    metric.update([1], [1])
    assert metric.compute()["share"] == 1
    assert metric.compute()["both"].tolist() == [1, 1]


def test_states_are_kept_out_of_checkpoints():
    metric = Share(["a"])
    metric.update([0], [0])
    assert not metric.state_dict()
