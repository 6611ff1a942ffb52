"""What every head promises, run over every head."""

import pytest
import torch

from visionkit import ClassTarget, FeatureSpec, LinearHead, MLPHead, UsageError
from visionkit.core.component import build, spec_of

FEATURES = FeatureSpec((8, 16), (4, 8))
HEADS = [(LinearHead, {}), (LinearHead, {"multilabel": True}), (MLPHead, {"layers": 2, "width": 32, "dropout": 0.1})]


def maps(batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, c, 16 // s, 16 // s, generator=generator) for c, s in zip((8, 16), (1, 2), strict=True)]


def targets(batch, classes, multilabel):
    scores = torch.zeros(batch, classes)
    for i in range(batch):
        scores[i, i % classes] = 1
        if multilabel:
            scores[i, (i + 1) % classes] = 1
    return [ClassTarget(s) for s in scores]


@pytest.mark.parametrize(("cls", "settings"), HEADS)
class TestContract:
    def test_outputs_are_the_same_kind_in_training_and_evaluation(self, cls, settings):
        head = cls(FEATURES, 5, **settings)
        assert type(head.train()(maps())) is type(head.eval()(maps()))

    @pytest.mark.parametrize("batch", [1, 3])
    def test_loss_is_named_finite_and_differentiable(self, cls, settings, batch):
        head = cls(FEATURES, 5, **settings).train()
        losses = head.loss(head(maps(batch)), targets(batch, 5, settings.get("multilabel")))
        total = sum(losses.values())
        assert total.ndim == 0
        assert total.isfinite()
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    def test_one_prediction_an_image(self, cls, settings):
        head = cls(FEATURES, 5, **settings).eval()
        predictions = head.decode(head(maps(3)))
        assert len(predictions) == 3
        assert set(predictions[0].record("abcde")["probabilities"]) == set("abcde")

    def test_perfect_outputs_decode_to_their_target_with_no_loss(self, cls, settings):
        head = cls(FEATURES, 5, **settings)
        truth = targets(4, 5, settings.get("multilabel"))
        outputs = type(head(maps()))(torch.stack([t.scores for t in truth]) * 60 - 30)
        for prediction, target in zip(head.decode(outputs), truth, strict=True):
            torch.testing.assert_close(prediction.probabilities, target.scores, atol=1e-5, rtol=0)
        assert sum(head.loss(outputs, truth).values()) < 1e-4

    def test_spec_makes_the_same_head(self, cls, settings):
        head = cls(FEATURES, 5, **settings).eval()
        again = build(spec_of(head), features=FEATURES, num_classes=5).eval()
        again.load_state_dict(head.state_dict())
        torch.testing.assert_close(again(maps()), head(maps()))


def test_loss_of_each_name_equals_torch():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 1, 1])
    truth = [ClassTarget(s) for s in torch.nn.functional.one_hot(labels, 4).float()]
    outputs = type(LinearHead(FEATURES, 4)(maps()))(logits)
    smooth = LinearHead(FEATURES, 4, label_smoothing=0.1).loss(outputs, truth)["loss"]
    torch.testing.assert_close(smooth, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))
    bce = LinearHead(FEATURES, 4, multilabel=True).loss(outputs, truth)["loss"]
    scores = torch.stack([t.scores for t in truth])
    torch.testing.assert_close(bce, torch.nn.functional.binary_cross_entropy_with_logits(logits, scores))
    focal = LinearHead(FEATURES, 4, loss="focal", focal_gamma=0.0).loss(outputs, truth)["loss"]
    torch.testing.assert_close(focal, torch.nn.functional.cross_entropy(logits, labels))


def test_class_weights_of_the_targets_reach_the_loss():
    weights = torch.tensor([1.0, 5.0, 1.0, 1.0])
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 1, 1])
    truth = [ClassTarget(s, weights) for s in torch.nn.functional.one_hot(labels, 4).float()]
    outputs = type(LinearHead(FEATURES, 4)(maps()))(logits)
    value = LinearHead(FEATURES, 4).loss(outputs, truth)["loss"]
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, labels, weight=weights))


def test_bce_with_one_label_decodes_to_probabilities_that_sum_to_one():
    head = LinearHead(FEATURES, 4, loss="bce").eval()
    for prediction in head.decode(head(maps())):
        torch.testing.assert_close(prediction.probabilities.sum(), torch.tensor(1.0))


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="cross_entropy is for one label"):
        LinearHead(FEATURES, 4, multilabel=True, loss="cross_entropy")
    with pytest.raises(UsageError, match="label_smoothing"):
        LinearHead(FEATURES, 4, label_smoothing=1.5)
    with pytest.raises(UsageError, match="an MLP has 1 to 1000 hidden layers"):
        MLPHead(FEATURES, 4, layers=0)


def test_mlp_has_the_layers_it_was_asked_for():
    head = MLPHead(FEATURES, 4, layers=3, width=7)
    shapes = [tuple(m.weight.shape) for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert shapes == [(7, 16), (7, 7), (7, 7), (4, 7)]
