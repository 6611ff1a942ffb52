import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from visionkit.tasks.classification.losses import binary_cross_entropy, focal_loss, soft_cross_entropy

B, K = 13, 5


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(B, K, generator=g) * 3
    labels = torch.randint(0, K, (B,), generator=g)
    multi = (torch.rand(B, K, generator=g) < 0.4).float()
    weights = torch.rand(K, generator=g) + 0.2
    return logits, labels, multi, weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs_for_one_hot_scores(data, smoothing, weighted):
    logits, labels, _, weights = data
    logits.requires_grad_()
    w = weights if weighted else None
    ours = soft_cross_entropy(logits, F.one_hot(labels, K).float(), weights=w, label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, labels, weight=w, label_smoothing=smoothing)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_cross_entropy_of_a_blend_is_the_blend_of_cross_entropies(data):
    logits, labels, _, _ = data
    one, other = F.one_hot(labels, K).float(), F.one_hot(labels.flip(0), K).float()
    blend = soft_cross_entropy(logits, 0.3 * one + 0.7 * other)
    parts = 0.3 * soft_cross_entropy(logits, one) + 0.7 * soft_cross_entropy(logits, other)
    assert blend.item() == pytest.approx(parts.item(), abs=1e-6)
    theirs = F.cross_entropy(logits, 0.3 * one + 0.7 * other)
    assert blend.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # probabilities 3/4, 1/4 and 1/2, 1/2
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([1.0, 3.0])
    assert soft_cross_entropy(logits, scores).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    expected = (math.log(4 / 3) + 3 * math.log(2)) / 4
    assert soft_cross_entropy(logits, scores, weights=weights).item() == pytest.approx(expected)


def test_binary_cross_entropy_is_torchs(data):
    logits, _, multi, weights = data
    ours = binary_cross_entropy(logits, multi, weights=weights)
    assert torch.allclose(ours, F.binary_cross_entropy_with_logits(logits, multi, pos_weight=weights))
    smooth = binary_cross_entropy(logits, multi, label_smoothing=0.2)
    assert torch.allclose(smooth, F.binary_cross_entropy_with_logits(logits, multi * 0.8 + 0.1))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
def test_sigmoid_focal_loss_is_torchvisions(data, gamma, alpha):
    logits, _, multi, _ = data
    ours = focal_loss(logits, multi, multilabel=True, gamma=gamma, alpha=alpha)
    theirs = sigmoid_focal_loss(logits, multi, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_without_focus_is_cross_entropy(data, smoothing):
    logits, labels, multi, weights = data
    options = {"weights": weights, "label_smoothing": smoothing}
    one_hot = F.one_hot(labels, K).float()
    one = focal_loss(logits, one_hot, multilabel=False, gamma=0, **options)
    assert torch.allclose(one, soft_cross_entropy(logits, one_hot, **options))
    several = focal_loss(logits, multi, multilabel=True, gamma=0, **options)
    assert torch.allclose(several, binary_cross_entropy(logits, multi, **options))


def test_softmax_focal_loss_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = (0.25**2 * math.log(4 / 3) + 0.5**2 * math.log(2)) / 2
    assert focal_loss(logits, scores, multilabel=False, gamma=2).item() == pytest.approx(expected)


def test_alpha_needs_several_labels(data):
    logits, _, multi, _ = data
    with pytest.raises(ValueError, match="weights"):
        focal_loss(logits, multi, multilabel=False, alpha=0.25)


LOSSES = [
    soft_cross_entropy,
    binary_cross_entropy,
    lambda x, y, **o: focal_loss(x, y, multilabel=True, **o),
    lambda x, y, **o: focal_loss(x, y, multilabel=False, **o),
    lambda x, y, **o: focal_loss(x, y, multilabel=True, gamma=0.5, **o),
    lambda x, y, **o: focal_loss(x, y, multilabel=False, gamma=0.5, **o),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_under_autocast(data, loss):
    logits, labels, _, weights = data
    half = logits.bfloat16()
    one_hot = F.one_hot(labels, K).float()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, one_hot, weights=weights)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.float(), one_hot, weights=weights).item(), abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e-3, 50.0, 1e4])
def test_finite_for_extreme_logits(loss, size):
    logits = torch.tensor([[size, -size], [-size, size], [0.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[1.0, 0.0]] * 3))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_descending_finds_the_truth(data, loss):
    _, labels, _, weights = data
    scores = F.one_hot(labels, K).float()
    logits = torch.zeros(B, K, requires_grad=True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(loss(logits, scores, weights=weights), logits)
        logits = (logits - 20 * gradient).detach().requires_grad_()
    assert torch.equal(logits.argmax(1), labels)
