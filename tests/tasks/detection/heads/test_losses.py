import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from visionkit.tasks.detection.heads.losses import distribution_focal_loss, focal_loss, quality_focal_loss


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_focal_loss_is_torchvisions():
    truth = (logits(50, seed=1) > 0).float()
    for alpha, gamma in ((0.25, 2.0), (0.6, 1.0)):
        reference = torchvision.ops.sigmoid_focal_loss(logits(50), truth, alpha=alpha, gamma=gamma)
        torch.testing.assert_close(focal_loss(logits(50), truth, alpha=alpha, gamma=gamma), reference)


def test_quality_focal_loss():
    x = torch.tensor([0.0, 2.0, -1.0])
    quality = torch.tensor([0.5, 0.3, 0.0])
    p = x.sigmoid()
    expected = (quality - p).abs() ** 2 * -(quality * p.log() + (1 - quality) * (1 - p).log())
    torch.testing.assert_close(quality_focal_loss(x, quality), expected)
    assert quality_focal_loss(torch.tensor(0.0), torch.tensor(0.5)) == 0  # just as certain as it should be


@pytest.mark.parametrize("beta", [2.0, 1.0, 1.5])
def test_slope_of_quality_focal_loss_is_that_of_its_formula(beta):
    quality = torch.rand(400, generator=torch.Generator().manual_seed(1)) * (logits(400, seed=2) > 1)
    weight = logits(400, seed=3)
    ours = logits(400).mul(4).requires_grad_()
    plain = ours.detach().double().requires_grad_()
    (quality_focal_loss(ours, quality, beta=beta) * weight).sum().backward()
    wrong = (quality - plain.sigmoid()).abs()
    reference = wrong**beta * F.binary_cross_entropy_with_logits(plain, quality.double(), reduction="none")
    (reference * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad.float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(quality_focal_loss(ours, quality, beta=beta), reference.float(), atol=1e-6, rtol=1e-5)


def test_distribution_focal_loss():
    x = logits(4, 8)
    logs = F.log_softmax(x, -1)
    distance = torch.tensor([2.25, 0.0, 6.5, 3.0])
    expected = [0.75 * logs[0, 2] + 0.25 * logs[0, 3], logs[1, 0], 0.5 * logs[2, 6] + 0.5 * logs[2, 7], logs[3, 3]]
    torch.testing.assert_close(distribution_focal_loss(x, distance), -torch.stack(expected))
    clamped = distribution_focal_loss(x[:1], torch.tensor([99.0]))
    assert float(clamped) == pytest.approx(-float(logs[0, 7]), abs=0.02)
    assert distribution_focal_loss(x[:1], torch.tensor([-5.0])) == pytest.approx(-float(logs[0, 0]))


@pytest.mark.parametrize("loss", [focal_loss, quality_focal_loss])
def test_bfloat16_in_float32_out(loss):
    value = loss(logits(5).bfloat16(), torch.zeros(5))
    assert value.dtype == torch.float32
    assert math.isfinite(float(loss(torch.tensor([1e4]), torch.zeros(1))))
