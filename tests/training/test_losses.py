import pytest
import torch

from visionkit.training.losses import EpochLosses


def test_means_go_over_images():
    losses = EpochLosses()
    losses.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)}, 1)
    losses.add({"a": torch.tensor(5.0), "b": torch.tensor(0.0)}, 3)
    losses.add({"a": torch.tensor(7.0)}, 2)
    assert losses.take() == [({"a": torch.tensor(4.0), "b": torch.tensor(1.0)}, 4), ({"a": torch.tensor(7.0)}, 2)]
    assert losses.take() == []


def test_all_of_an_epoch_survives_a_resume_within_it():
    losses, again = EpochLosses(), EpochLosses()
    losses.add({"a": torch.tensor(1.0)}, 1)
    losses.take()
    losses.add({"a": torch.tensor(3.0)}, 1)
    again.load(losses.state())
    assert again.taken() == [({"a": torch.tensor(1.0)}, 1)]
    assert again.take() == [({"a": torch.tensor(3.0)}, 1)]
    assert again.taken() == [({"a": torch.tensor(2.0)}, 2)]
    again.start()
    assert again.taken() == again.take() == []


@pytest.mark.parametrize("state", [{}, 3, ({},), ({}, {("a",): 3}), ("ab", {})])
def test_a_damaged_state_is_refused(state):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        EpochLosses().load(state)
