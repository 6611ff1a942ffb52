import pytest
import torch
from torch import nn

from visionkit.models.ops.norm import BatchNorm2d


def test_it_is_torchs_wherever_that_works():
    torch.manual_seed(0)
    ours, theirs, x = BatchNorm2d(4), nn.BatchNorm2d(4), torch.randn(2, 4, 3, 3)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert set(ours.state_dict()) == set(theirs.state_dict())


def test_one_value_takes_the_running_statistics():
    norm, x = BatchNorm2d(4), torch.randn(1, 4, 1, 1)
    norm(torch.randn(2, 4, 3, 3))
    before = norm.running_mean.clone()
    torch.testing.assert_close(norm(x), nn.Module.eval(norm)(x))
    assert torch.equal(norm.running_mean, before)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(4)(x)
