"""The contract of what can be explained, over every head."""

from functools import partial

import pytest
import torch

import visionkit
from visionkit import (
    DeepLabV3PlusHead,
    FasterRCNNHead,
    FCNHead,
    FCOSHead,
    FPNSegmentationHead,
    LinearHead,
    MaskRCNNHead,
    MLPHead,
    MultiTaskHead,
    UsageError,
)
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.head import Head

BACKBONE = FeatureSpec((8, 16, 32, 64), (4, 8, 16, 32))
PYRAMID = FeatureSpec((32, 32, 32, 32), (4, 8, 16, 32))
BOTH = FeatureSpec(BACKBONE.channels + PYRAMID.channels, BACKBONE.strides + PYRAMID.strides)
BOXES = {"score_threshold": 0.0, "nms_threshold": 1.0}
SECOND = {**BOXES, "width": 16, "post_nms_eval": 20}
JOINT = {
    "heads": {"kind": LinearHead, "things": partial(FCOSHead, channels=32, **BOXES), "ground": FCNHead},
    "sizes": {"kind": 2, "things": 3, "ground": 2},
    "levels": 4,
}
HEADS = {
    "linear": (LinearHead, BACKBONE, 3, {}),
    "several labels": (LinearHead, BACKBONE, 3, {"multilabel": True, "threshold": 0.0}),
    "bce": (LinearHead, BACKBONE, 3, {"loss": "bce"}),
    "mlp": (MLPHead, BACKBONE, 3, {}),
    "fcos": (FCOSHead, PYRAMID, 3, {"channels": 32, **BOXES}),
    "fcos with centerness": (
        FCOSHead,
        PYRAMID,
        3,
        {"channels": 32, "class_loss": "focal", "bins": 0, "norm": "group", **BOXES},
    ),
    "faster r-cnn": (FasterRCNNHead, PYRAMID, 3, SECOND),
    "mask r-cnn": (MaskRCNNHead, PYRAMID, 3, SECOND),
    "fcn": (FCNHead, BACKBONE, 3, {}),
    "deeplab": (DeepLabV3PlusHead, BACKBONE, 3, {"channels": 16}),
    "fpn segmentation": (FPNSegmentationHead, PYRAMID, 3, {"channels": 16}),
    "joint": (MultiTaskHead, BOTH, 7, JOINT),
}


def all_heads(kind=Head):
    for child in kind.__subclasses__():
        if child.__module__.startswith("visionkit."):
            yield child
            yield from all_heads(child)


def test_every_head_of_the_package_is_among_them():
    public = {getattr(visionkit, name) for name in visionkit.PUBLIC}
    assert {head for head in all_heads() if head in public} == {head for head, *_ in HEADS.values()}


@pytest.fixture(params=HEADS, ids=list(HEADS))
def asked(request):
    """A head with weights that say something, features of a picture of 64 x 96 pixels that want gradients, outputs."""
    head, spec, classes, options = HEADS[request.param]
    torch.manual_seed(0)
    made = head(spec, classes, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    levels = [
        torch.randn(1, c, 64 // s, 96 // s).requires_grad_() for c, s in zip(spec.channels, spec.strides, strict=True)
    ]
    return made, levels, made([x * 1 for x in levels])


def test_what_it_says_has_a_class_a_score_and_a_place(asked):
    head, _, outputs = asked
    found = head.subjects(outputs, most=2, min_score=0.0)
    assert 0 < len(found) <= 2 * (3 if isinstance(head, MultiTaskHead) else 1)
    assert len(found) == 1 or not head.says_one
    for subject in found:
        assert 0 <= subject.label < 7
        assert 0 <= subject.score <= 1
        if subject.box is not None:
            x1, y1, x2, y2 = subject.box
            assert 0 <= x1 < x2 <= 96
            assert 0 <= y1 < y2 <= 64
        if subject.mask is not None:
            assert subject.mask.dtype == torch.bool
            assert subject.mask.shape == (64, 96)
            assert subject.mask.any()


def test_the_first_ones_are_those_that_it_predicts(asked):
    head, _, outputs = asked
    found = head.subjects(outputs, most=1, min_score=0.0)[0]
    (prediction,) = head.decode(outputs)
    prediction = getattr(prediction, "parts", {"": prediction}).get("kind", prediction)
    if hasattr(prediction, "probabilities") and hasattr(prediction, "multilabel"):
        assert found.label == int(prediction.probabilities.argmax())
        assert found.score == pytest.approx(float(prediction.probabilities.detach().max()))
    elif hasattr(prediction, "boxes"):
        assert found.label == int(prediction.labels[0])
        assert found.score == pytest.approx(float(prediction.scores[0]))
        assert found.box == pytest.approx(prediction.boxes[0].tolist())
    else:
        assert (prediction.labels[found.mask] == found.label).float().mean() > 0.7  # edges lie between cells


def test_evidence_is_the_score_that_it_predicts_and_reaches_the_features(asked):
    head, levels, outputs = asked
    for subject in head.subjects(outputs, most=2, min_score=0.0):
        evidence = head.evidence(outputs, subject)
        assert evidence.logits.shape == evidence.scores.shape == (1,)
        assert float(evidence.scores.detach()) == pytest.approx(subject.score, abs=1e-5)
        gradients = torch.autograd.grad(evidence.logits.sum(), levels, retain_graph=True, allow_unused=True)
        assert any(g is not None and bool(g.any()) for g in gradients)


def test_evidence_of_several_images_is_that_of_each(asked):
    head, levels, outputs = asked
    subject = head.subjects(outputs, most=1, min_score=0.0)[-1]
    other = [torch.randn_like(x) for x in levels]
    both = head([torch.cat([a, b]) for a, b in zip(levels, other, strict=True)])
    evidence, alone = head.evidence(both, subject), head.evidence(head(other), subject)
    assert evidence.scores.shape == (2,)
    assert float(evidence.scores[0].detach()) == pytest.approx(subject.score, abs=1e-4)
    assert float(evidence.scores[1].detach()) == pytest.approx(float(alone.scores.detach()), abs=1e-4)


def test_a_background_is_no_subject_of_a_segmenter_and_counts_by_the_head_in_a_joint_model():
    torch.manual_seed(0)
    fcn = FCNHead(BACKBONE, 2).eval()
    features = [torch.randn(1, c, 64 // s, 96 // s) for c, s in zip(BACKBONE.channels, BACKBONE.strides, strict=True)]
    labels = {s.label for s in fcn.subjects(fcn(features), most=50)}
    assert labels == {0, 1}
    assert {s.label for s in fcn.subjects(fcn(features), most=50, without={0})} == {1}
    joint = MultiTaskHead(BOTH, 7, **JOINT).eval()
    outputs = joint([torch.randn(1, c, 64 // s, 96 // s) for c, s in zip(BOTH.channels, BOTH.strides, strict=True)])
    own = [s for s in joint.subjects(outputs, most=50, without={5}) if s.place[0] == "ground"]
    assert {s.label for s in own} == {6}
    assert {s.place[1].label for s in own} == {1}


def test_a_class_of_a_joint_model_has_the_threshold_of_its_own_head():
    torch.manual_seed(0)
    joint = MultiTaskHead(BOTH, 7, **JOINT).eval()
    outputs = joint([torch.randn(1, c, 64 // s, 96 // s) for c, s in zip(BOTH.channels, BOTH.strides, strict=True)])

    def things(**given):
        return [s for s in joint.subjects(outputs, most=500, **given) if s.place[0] == "things"]

    every = things(min_score=0.0)
    assert {s.label for s in every} == {2, 3, 4}
    assert [s.score for s in things(least={0: 0.0, 1: 0.0})] == [s.score for s in things()], (
        "those of kind are no boxes'"
    )
    assert {s.label for s in things(min_score=2.0, least={3: 0.0})} == {3}


def test_several_labels_are_those_from_the_threshold_on_and_one_where_there_is_none():
    features = [torch.ones(1, 8, 2, 2)]
    head = LinearHead(FeatureSpec((8,), (32,)), 3, multilabel=True, threshold=0.6).eval()
    linear = head.classifier[-1]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([1.0, -1.0, 2.0]))
    assert [s.label for s in head.subjects(head(features), most=3)] == [2, 0]
    assert [s.label for s in head.subjects(head(features), most=1)] == [2]
    own = {"most": 3, "least": {1: 0.2, 2: 0.95}}  # probabilities 0.73, 0.27 and 0.88
    assert [s.label for s in head.subjects(head(features), **own)] == [0, 1]
    with torch.no_grad():
        linear.bias.sub_(10)
    assert [s.label for s in head.subjects(head(features), most=3)] == [2]


def test_a_head_without_evidence_is_refused_by_name():
    class Own(Head):
        pass

    with pytest.raises(UsageError, match=r"^Own cannot be explained: it defines no subjects\(outputs\)"):
        Own().subjects(None, most=1)
    with pytest.raises(UsageError, match="^Own cannot be explained"):
        Own().evidence(None, None)
