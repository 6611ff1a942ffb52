"""The linear layer that is solved: the minimum itself, and what cross-validation says of it."""

import pytest
import torch
import torch.nn.functional as F

from visionkit.tasks.classification.losses import binary_cross_entropy, soft_cross_entropy
from visionkit.tasks.classification.solve import judge, solve


def blobs(count=60, classes=3, apart=3.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    centres = apart * torch.eye(classes, 5)
    return centres[labels] + torch.randn(count, 5, generator=generator), labels


def test_the_layer_is_the_minimum_of_the_penalised_loss():
    x, labels = blobs()
    solved, strength = solve(x, F.one_hot(labels).float(), soft_cross_entropy)
    weight, bias = (part.clone().requires_grad_() for part in solved)
    loss = F.cross_entropy(x @ weight.T + bias, labels)
    deviation = x.std(0, correction=0)
    loss = loss + strength / 2 * (weight * deviation).square().sum() / 3  # of standardised features
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 2e-3


def test_the_same_images_give_the_same_layer_within_inference_mode_and_autocast():
    x, labels = blobs()
    scores = F.one_hot(labels).float()
    first, _ = solve(x, scores, soft_cross_entropy)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        second, _ = solve(x, scores, soft_cross_entropy)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_noise_is_penalised_more_than_what_can_be_told_apart():
    x, labels = blobs()
    noise = torch.randn(60, 200, generator=torch.Generator().manual_seed(1))
    scores = F.one_hot(labels).float()
    assert solve(noise, scores, soft_cross_entropy)[1] > solve(x, scores, soft_cross_entropy)[1]


@pytest.mark.parametrize("apart", [0.0, 4.0])
def test_judge_counts_answers_of_layers_that_have_not_seen_the_image(apart):
    x, labels = blobs(90, apart=apart)
    found = judge(x, F.one_hot(labels).float(), soft_cross_entropy)
    assert (found > 0.9) if apart else (0.1 < found < 0.6)  # chance is a third


def test_several_labels_are_judged_each():
    x, labels = blobs(90, apart=5.0)
    scores = F.one_hot(labels).float()
    scores[:, 1] = (x[:, 0] > 2.5).float()  # goes with class 0
    assert judge(x, scores, binary_cross_entropy) > 0.9


def test_one_image_is_enough_not_to_fail():
    solved, _ = solve(torch.ones(1, 4), torch.tensor([[1.0, 0.0]]), soft_cross_entropy)
    assert torch.isfinite(solved.weight).all()
