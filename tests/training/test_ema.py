from types import SimpleNamespace

import lightning as L
import pytest
import torch

from visionkit.training.ema import EMA


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def become(self, value):
        with torch.no_grad():
            self.weight.fill_(value)
            self.mean.fill_(10 * value)
            self.count.fill_(int(value))


def averaged(decay, values, steps=None):
    """Return the average after optimizer steps that brought the weights to these values."""
    net, ema = Net(), EMA(decay)
    ema.setup(SimpleNamespace(), net, "fit")
    for k, value in enumerate(values):
        net.become(value)
        step = steps[k] if steps else k + 1
        ema.on_train_batch_end(SimpleNamespace(global_step=step), net, None, None, k)
    return ema._average_model.module


def test_decay_warms_up_to_its_value():
    # the first step copies; then min(decay, 2/11), min(decay, 3/12), min(decay, 4/13), ...
    second = 2 / 11 * 1 + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 4
    fourth = 4 / 13 * third + 9 / 13 * 8
    for expected, values in ((1.0, [1]), (second, [1, 2]), (third, [1, 2, 4]), (fourth, [1, 2, 4, 8])):
        torch.testing.assert_close(averaged(0.999, values).weight.data, torch.full((2,), expected))


def test_decay_never_exceeds_what_was_asked():
    second = 0.1 * 1 + 0.9 * 2  # 2/11 is more than 0.1
    third = 0.1 * second + 0.9 * 4
    torch.testing.assert_close(averaged(0.1, [1, 2, 4]).weight.data, torch.full((2,), third))


def test_long_trainings_reach_the_full_decay():
    ema = EMA(0.9)
    assert ema.weight(80) == pytest.approx(1 - 81 / 90)
    assert ema.weight(10_000) == pytest.approx(0.1)


def test_buffers_are_averaged_and_counters_copied():
    average = averaged(0.999, [1, 2, 4])
    torch.testing.assert_close(average.mean, 10 * average.weight.data[:1])
    assert average.count.dtype == torch.int64
    assert average.count == 4


def test_a_batch_without_an_optimizer_step_does_not_count():
    accumulated = averaged(0.999, [1, 5, 2], steps=[1, 1, 2])
    torch.testing.assert_close(accumulated.weight, averaged(0.999, [1, 2]).weight)


@pytest.mark.parametrize("hook", ["on_validation_epoch_start", "on_validation_epoch_end"])
def test_validation_sees_the_average_and_training_goes_on_without_it(hook):
    net, ema = Net(), EMA(0.999)
    ema.setup(SimpleNamespace(), net, "fit")
    for step, value in enumerate((1.0, 2.0), 1):
        net.become(value)
        ema.on_train_batch_end(SimpleNamespace(global_step=step), net, None, None, 0)
    ema.on_validation_epoch_start(SimpleNamespace(), net)
    if hook == "on_validation_epoch_start":
        torch.testing.assert_close(net.weight.data, torch.full((2,), 20 / 11))
    else:
        ema.on_validation_epoch_end(SimpleNamespace(), net)
        assert net.weight.tolist() == [2, 2]
        assert net.count == 2
