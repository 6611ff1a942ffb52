"""FasterRCNNHead beside torchvision's Faster R-CNN, and what every head promises."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList

from visionkit import FeatureSpec, UsageError
from visionkit.core.component import build, spec_of
from visionkit.models.necks.fpn import FPN
from visionkit.tasks.detection.heads import rpn
from visionkit.tasks.detection.heads.anchors import encode_offsets
from visionkit.tasks.detection.heads.faster_rcnn import FasterRCNNHead, FasterRCNNOutputs
from visionkit.tasks.detection.types import BoxTarget

CHANNELS, CLASSES, SIZE = 16, 3, (128, 192)
STRIDES = (4, 8, 16, 32, 64)
SPEC = FeatureSpec((CHANNELS,) * 5, STRIDES)
TORCHVISION = {  # its defaults
    "width": 1024,
    "rois_per_image": 512,
    "pre_nms_train": 2000,
    "post_nms_train": 2000,
    "post_nms_eval": 1000,
}


def maps(batch=2, size=SIZE, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [[-(-side // s) for side in size] for s in STRIDES]
    return [scale * torch.randn(batch, CHANNELS, h, w, generator=generator) for h, w in sizes]


def target(boxes, labels, crowd=None):
    return BoxTarget.make(boxes, labels, crowd)


def targets(batch=2):
    objects = [
        target([[10.0, 12, 50, 60], [100, 20, 180, 110]], [0, 2]),
        target([[60.0, 40, 90, 120], [0, 0, 20, 20], [4, 6, 190, 126]], [1, 0, 2]),
        target([], []),
    ]
    return [objects[k % 3] for k in range(batch)]


# ---- the same numbers as torchvision


class Twins:
    """torchvision's model, and visionkit's neck and head with the same weights."""

    def __init__(self, **settings):
        torch.manual_seed(0)
        body = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
        )
        body.fpn = type(body.fpn)([64, 128, 256, 512], CHANNELS, body.fpn.extra_blocks)
        body.out_channels = CHANNELS
        self.theirs = FasterRCNN(body, CLASSES + 1, **{k: v for k, v in settings.items() if k not in TORCHVISION})
        self.neck = FPN(
            FeatureSpec((64, 128, 256, 512), (4, 8, 16, 32)),
            CHANNELS,
            min_level=2,
            max_level=6,
            extra="pool",
            norm=None,
        )
        self.head = FasterRCNNHead(self.neck.features, CLASSES, **TORCHVISION)
        for part in (self.theirs.rpn, self.theirs.roi_heads):  # scores and boxes that differ from each other
            for name, p in part.named_parameters():
                if "cls" in name or "bbox" in name:
                    nn.init.normal_(p, std=0.1 if "cls" in name else 0.05)
        self.copy()
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randn(3, 3, *SIZE, generator=generator)
        self.images = ImageList(pixels, [SIZE] * 3)
        with torch.no_grad():
            self.body = list(body.body(pixels).values())

    def copy(self):
        fpn, neck = self.theirs.backbone.fpn, self.neck
        for k in range(4):
            neck.lateral[k].load_state_dict(fpn.inner_blocks[k][0].state_dict())
            neck.output[k].load_state_dict(fpn.layer_blocks[k][0].state_dict())
        first, second, head = self.theirs.rpn.head, self.theirs.roi_heads, self.head
        head.rpn_conv.load_state_dict(first.conv[0][0].state_dict())
        for name in ("weight", "bias"):
            joined = torch.cat([getattr(first.cls_logits, name), getattr(first.bbox_pred, name)])
            getattr(head.rpn_output, name).data.copy_(joined)
        by_cell = second.box_head.fc6.weight.view(-1, CHANNELS, 49).transpose(1, 2).flatten(1)
        head.hidden[0].load_state_dict({"weight": by_cell, "bias": second.box_head.fc6.bias})
        head.hidden[2].load_state_dict(second.box_head.fc7.state_dict())
        head.classifier.load_state_dict(second.box_predictor.cls_score.state_dict())
        head.regressor.load_state_dict(second.box_predictor.bbox_pred.state_dict())

    def train(self, mode):
        for part in (self.theirs.rpn, self.theirs.roi_heads, self.head):
            part.train(mode)
        return self

    def features(self):
        return self.theirs.backbone.fpn({str(k): x for k, x in enumerate(self.body)})

    def outputs(self):
        return self.head(self.neck(self.body))


@pytest.fixture(scope="module")
def twins():
    return Twins()


def test_pyramid_and_first_stage_equal_torchvision(twins):
    theirs = twins.features()
    ours = twins.outputs()
    for a, b in zip(ours.levels, theirs.values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    objectness, deltas = twins.theirs.rpn.head(list(theirs.values()))
    count = ours.objectness.shape[1]
    assert count == sum(x.shape[1] * x.shape[2] * x.shape[3] for x in objectness)
    flat = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in objectness], 1)
    torch.testing.assert_close(ours.objectness, flat, atol=1e-4, rtol=1e-4)
    moves = torch.cat([x.permute(0, 2, 3, 1).reshape(3, -1, 4) for x in deltas], 1)
    torch.testing.assert_close(ours.offsets, moves, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampled", [True, False])
def test_losses_and_gradients_equal_torchvision(twins, sampled):
    """Both take the same random numbers in the same order, so even what they sample is the same."""
    twins.train(True)
    first, second = twins.theirs.rpn.fg_bg_sampler, twins.theirs.roi_heads.fg_bg_sampler
    many = 10**6
    first.batch_size_per_image, second.batch_size_per_image = (256, 512) if sampled else (many, many)
    twins.head.rpn_sample, twins.head.roi_sample = ((256, 0.5), (512, 0.25)) if sampled else ((many, 0.5), (many, 0.25))
    truth = targets(3)
    theirs = [{"boxes": t.boxes, "labels": t.labels + 1} for t in truth]
    torch.manual_seed(5)
    features = twins.features()
    proposals, losses = twins.theirs.rpn(twins.images, features, theirs)
    losses |= twins.theirs.roi_heads(features, proposals, twins.images.image_sizes, theirs)[1]
    torch.manual_seed(5)
    ours = twins.head.loss(twins.outputs(), truth)
    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classification": "loss_classifier",
        "box": "loss_box_reg",
    }
    assert set(ours) == set(names)
    for name, value in ours.items():
        assert value > 1e-4
        torch.testing.assert_close(value, losses[names[name]], atol=1e-4, rtol=1e-4)
    sum(losses.values()).backward()
    sum(ours.values()).backward()
    pairs = [
        (twins.neck.lateral[0].weight, twins.theirs.backbone.fpn.inner_blocks[0][0].weight),
        (twins.head.rpn_conv.weight, twins.theirs.rpn.head.conv[0][0].weight),
        (twins.head.hidden[2].weight, twins.theirs.roi_heads.box_head.fc7.weight),
        (twins.head.regressor.weight, twins.theirs.roi_heads.box_predictor.bbox_pred.weight),
    ]
    for a, b in pairs:
        assert b.grad.abs().max() > 0
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3)
        a.grad = b.grad = None


def test_proposals_and_detections_equal_torchvision(twins):
    twins.train(False)
    with torch.no_grad():
        features = twins.features()
        proposals, _ = twins.theirs.rpn(twins.images, features)
        outputs = twins.outputs()
        for a, b in zip(twins.head._propose(outputs), proposals, strict=True):
            assert len(b) > 50
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
        theirs, _ = twins.theirs.roi_heads(features, proposals, twins.images.image_sizes)
    found = twins.head.decode(outputs)
    assert len({label for p in found for label in p.labels.tolist()}) > 1
    for a, b in zip(found, theirs, strict=True):
        assert len(a) > 10
        torch.testing.assert_close(a.scores, b["scores"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.labels, b["labels"] - 1, atol=0, rtol=0)
        torch.testing.assert_close(a.boxes, b["boxes"], atol=1e-2, rtol=1e-4)


# ---- what every head promises


def head(**settings):
    torch.manual_seed(0)
    return FasterRCNNHead(SPEC, CLASSES, **{"width": 32, **settings})


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [SIZE, (321, 243), (64, 64)])
@pytest.mark.parametrize(
    "truth", [targets(1), targets(3), targets(3)[2:], [target([], [])] * 2], ids=["one", "three", "empty", "all empty"]
)
def test_losses_are_named_finite_and_reach_every_parameter(truth, size, train):
    model = head().train(train)
    features = [x.requires_grad_() for x in maps(len(truth), size)]
    losses = model.loss(model(features), truth)
    assert set(losses) == {"rpn_objectness", "rpn_box", "classification", "box"}
    assert all(v.ndim == 0 and v.isfinite() and v.dtype == torch.float32 for v in losses.values())
    sum(losses.values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    assert all(x.grad is not None and x.grad.isfinite().all() for x in features)
    if any(len(t) for t in truth):
        assert all(v > 0 for v in losses.values())
        assert all(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("train", [True, False])
def test_losses_without_any_proposal_are_finite(train):
    model = head().train(train)
    outputs = model(maps(2))
    outputs = outputs._replace(offsets=outputs.offsets - torch.tensor([0.0, 0, 50, 50]))  # all too thin
    assert [len(p) for p in model._propose(outputs)] == [0, 0]
    losses = model.loss(outputs, [target([], [])] * 2)
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [len(p) for p in model.decode(outputs)] == [0, 0]


def test_outputs_are_the_same_in_training_and_evaluation():
    model = head()
    a, b = model.train()(maps()), model.eval()(maps())
    assert type(a) is type(b) is FasterRCNNOutputs
    torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_spec_makes_the_same_head():
    model = head(anchor_ratios=(0.7, 1.3), anchor_scale=6, roi_size=5, nms="soft").eval()
    again = build(spec_of(model), features=SPEC, num_classes=CLASSES).eval()
    assert "features" not in spec_of(model)["init_args"]
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(maps()), model(maps()), atol=0, rtol=0)
    for a, b in zip(again.decode(again(maps())), model.decode(model(maps())), strict=True):
        torch.testing.assert_close(a.boxes, b.boxes, atol=0, rtol=0)


def test_bfloat16_autocast_trains_and_decodes():
    model = head()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train().loss(model([x.bfloat16() for x in maps()]), targets())
        exact = model.train().loss(model(maps()), targets())
        predictions = model.eval().decode(model(maps()))
    assert all(v.dtype == torch.float32 for v in losses.values())
    assert all(p.boxes.dtype == p.scores.dtype == torch.float32 for p in predictions)
    for name in losses:
        torch.testing.assert_close(losses[name], exact[name], atol=0.05, rtol=0.2)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def perfect(truth, batch):
    """A head that reads classes from the channels, and the outputs of a first stage that finds the boxes exactly."""
    model = head(
        width=CHANNELS, post_nms_eval=20, rpn_nms_threshold=0.9, anchors_per_image=256, rois_per_image=8
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        by_cell = model.hidden[0].weight.view(CHANNELS, 49, CHANNELS)
        for k in range(CLASSES):
            by_cell[k, :, k] = 1 / 49  # unit k is the mean of channel k
            model.classifier.weight[k + 1, k] = 100
        model.hidden[2].weight.copy_(torch.eye(CHANNELS))
        model.classifier.bias[0] = 30
    levels = [torch.zeros_like(x) for x in maps(batch)]
    for k, t in enumerate(truth):
        for box, label in zip(t.boxes.tolist(), t.labels.tolist(), strict=True):
            for x, s in zip(levels, STRIDES, strict=True):
                x1, y1, x2, y2 = (round(v / s) for v in box)
                x[k, label, y1 : y2 + 1, x1 : x2 + 1] = 1
    outputs = model(levels)
    anchors = torch.cat(model._anchors(outputs))
    objectness, offsets = torch.full_like(outputs.objectness, -40), torch.full_like(outputs.offsets, -50)
    for k, t in enumerate(truth):
        objects, match, _ = rpn.match_anchors(anchors, t.boxes, 0.7, 0.3)
        objectness[k, objects] = 40
        offsets[k, objects] = encode_offsets(t.boxes[match], anchors[objects])
    return model, FasterRCNNOutputs(tuple(levels), objectness, offsets)


def test_perfect_outputs_decode_to_their_targets_with_little_loss():
    truth = [
        target([[8.0, 8, 40, 48], [120, 40, 184, 120]], [0, 2]),  # label 0 is a class like any other
        target([[64.0, 32, 120, 96]], [1]),
        target([], []),
    ]
    model, outputs = perfect(truth, 3)
    for prediction, t in zip(model.decode(outputs), truth, strict=True):
        order = prediction.labels.argsort()
        torch.testing.assert_close(prediction.labels[order], t.labels, atol=0, rtol=0)
        torch.testing.assert_close(prediction.boxes[order], t.boxes, atol=1e-3, rtol=0)
        assert (prediction.scores > 0.99).all()
    losses = model.loss(outputs, truth)
    assert losses["rpn_objectness"] < 1e-6
    assert losses["rpn_box"] < 1e-6
    assert losses["box"] < 1e-6
    wrong = [target(t.boxes, (t.labels + 1) % CLASSES) for t in truth]
    assert model.loss(outputs, wrong)["classification"] > losses["classification"] + 1


# ---- sampling


def test_losses_of_evaluation_do_not_depend_on_random_numbers_or_on_the_batch():
    model = head(anchors_per_image=16, rois_per_image=8).eval()
    features, truth = maps(3), targets(3)
    before = torch.get_rng_state()
    together = model.loss(model(features), truth)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    again = model.loss(model(features), truth)
    alone = [model.loss(model([x[k : k + 1] for x in features]), truth[k : k + 1]) for k in range(3)]
    for name, value in together.items():
        assert torch.equal(value, again[name])
        torch.testing.assert_close(value, torch.stack([a[name] for a in alone]).mean(), atol=1e-5, rtol=1e-4)


def test_losses_of_training_follow_the_seed():
    model = head(anchors_per_image=16, rois_per_image=8).train()
    outputs = model(maps(2))
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(sum(model.loss(outputs, targets()).values()))
    assert values[0] == values[1] != values[2]


def test_sample_holds_both_kinds_in_their_shares():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(100, 1)
    free = torch.arange(100) >= 40
    matched = (torch.arange(40), torch.zeros(40, dtype=torch.int64), free)
    none = boxes[:0]
    objects, match, background = rpn.choose(boxes, matched, none, 32, 0.25)
    assert (len(objects), len(match), len(background)) == (8, 8, 24)
    assert (objects < 40).all()
    assert (background >= 40).all()
    assert len(set(background.tolist())) == 24
    objects, _, background = rpn.choose(boxes, matched, none, 200, 0.5)
    assert (len(objects), len(background)) == (40, 60)


# ---- crowds


def test_what_lies_in_a_crowd_is_no_background():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [26, 0, 36, 10], [60, 0, 70, 10], [0, 0, 60, 60]])
    crowd = torch.tensor([[20.0, 0, 30, 10]])
    assert rpn.in_crowd(anchors, crowd).tolist() == [False, True, False, False, False]
    real = torch.tensor([[0.0, 0, 10, 10]])
    matched = rpn.match_anchors(anchors, real, 0.7, 0.3)
    objects, match, background = rpn.choose(anchors, matched, crowd, 100, 0.5)
    assert (objects.tolist(), match.tolist(), sorted(background.tolist())) == ([0], [0], [2, 3, 4])
    inside = rpn.match_rois(anchors, anchors[1:2], 0.5)  # a real object in a crowd is still an object
    assert rpn.choose(anchors, inside, crowd, 100, 0.5)[0].tolist() == [1]


def test_crowds_are_neither_objects_nor_background():
    model = head(anchors_per_image=10**6, rois_per_image=10**6).train()
    outputs = model(maps(1))
    whole = [[0.0, 0, 192, 128]]
    empty = model.loss(outputs, [target([], [])])
    crowd = model.loss(outputs, [target(whole, [1], [True])])
    real = model.loss(outputs, [target(whole, [1], [False])])
    assert crowd["rpn_box"] == crowd["box"] == crowd["classification"] == 0  # all proposals lie in it
    assert real["rpn_box"] > 0
    assert empty["classification"] > 0
    assert 0 < crowd["rpn_objectness"] != empty["rpn_objectness"]  # some anchors reach out of the picture


def test_an_object_that_no_anchor_touches_changes_nothing():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    objects, _, background = rpn.match_anchors(anchors, torch.tensor([[500.0, 500, 510, 510]]), 0.7, 0.3)
    assert objects.tolist() == []
    assert background.all()


# ---- settings


def test_boxes_are_cut_off_at_the_network_input_and_limited():
    model = head(score_threshold=0.0, detections=7, nms_threshold=1.0).eval()
    outputs = model(maps(2, (321, 243), scale=20.0))
    for prediction in model.decode(outputs):
        assert len(prediction) == 7
        assert prediction.boxes.min() >= 0
        assert prediction.boxes[:, 2].max() <= 244
        assert prediction.boxes[:, 3].max() <= 324
        assert (prediction.scores.diff() <= 0).all()
        assert set(prediction.labels.tolist()) <= set(range(CLASSES))


def test_proposals_of_training_and_evaluation_differ_in_number():
    model = head(post_nms_train=30, post_nms_eval=20)
    outputs = model(maps())
    assert [len(p) for p in model.train()._propose(outputs)] == [30, 30]
    assert [len(p) for p in model.eval()._propose(outputs)] == [20, 20]


@pytest.mark.parametrize("kind", ["soft", "none"])
def test_other_suppressions_keep_more(kind):
    hard, other = head(score_threshold=0.0).eval(), head(score_threshold=0.0, nms=kind, detections=10**6).eval()
    assert len(other.decode(other(maps(1)))[0]) > len(hard.decode(hard(maps(1)))[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, r"head.width=0: a whole number from 1 on"),
        ({"nms_threshold": 1.5}, r"head.nms_threshold=1.5: 0..1"),
        ({"rpn_negative_iou": 0.8}, "at most rpn_positive_iou"),
        ({"anchor_ratios": (1.0, -1.0)}, "anchor_ratios"),
        ({"anchor_scale": 0.0}, "anchor_scale"),
        ({"nms": "best"}, "hard, soft, none"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        head(**settings)


@pytest.mark.parametrize("spec", [FeatureSpec((8, 16), (4, 8)), FeatureSpec((8, 8), (3, 6))])
def test_levels_that_are_no_pyramid_are_refused(spec):
    with pytest.raises(UsageError, match="put an FPN before it"):
        FasterRCNNHead(spec, CLASSES)
