"""MaskRCNNHead beside torchvision's Mask R-CNN, and what a mask branch promises."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, roi_heads
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from visionkit import FeatureSpec, UsageError
from visionkit.core.component import build, spec_of
from visionkit.core.sample import ImageInfo
from visionkit.data.labels.masks import ObjectMasks
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.necks.fpn import FPN
from visionkit.tasks.detection.heads.faster_rcnn import FasterRCNNHead
from visionkit.tasks.detection.heads.mask_rcnn import MaskRCNNHead
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.detection.task import Detector
from visionkit.tasks.detection.types import BoxTarget

CHANNELS, CLASSES, SIZE = 16, 3, (128, 192)
STRIDES = (4, 8, 16, 32, 64)
SPEC = FeatureSpec((CHANNELS,) * 5, STRIDES)
LOSSES = {"rpn_objectness", "rpn_box", "classification", "box", "mask"}


def maps(batch=2, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, CHANNELS, -(-size[0] // s), -(-size[1] // s), generator=generator) for s in STRIDES]


def discs(boxes, size=SIZE):
    """The largest ellipse in each box."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    dense = torch.zeros(len(boxes), *size)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        dense[k] = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    return ObjectMasks.from_dense(dense.numpy())


def target(boxes, labels, crowd=None, size=SIZE):
    return BoxTarget.make(boxes, labels, crowd, masks=discs(boxes, size))


EMPTY = target([], [])


def targets(batch=2, size=SIZE):
    objects = [
        target([[10.0, 12, 50, 60], [100, 20, 180, 110]], [0, 2], size=size),
        target([[60.0, 40, 90, 120], [0, 0, 20, 20], [4, 6, 190, 126]], [1, 0, 2], size=size),
        target([], [], size=size),
    ]
    return [objects[k % 3] for k in range(batch)]


def head(**settings):
    torch.manual_seed(0)
    return MaskRCNNHead(SPEC, CLASSES, **{"width": 32, "mask_channels": 8, "mask_depth": 2, **settings})


# ---- the same numbers as torchvision


class Twins:
    """torchvision's model, and visionkit's neck and head with the same weights; scores and masks differ widely."""

    def __init__(self):
        torch.manual_seed(1)  # with 0, two proposals are so much alike that rounding decides which one is kept
        body = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
        )
        body.fpn = type(body.fpn)([64, 128, 256, 512], CHANNELS, body.fpn.extra_blocks)
        body.out_channels = CHANNELS
        self.theirs = MaskRCNN(body, CLASSES + 1)
        spec = FeatureSpec((64, 128, 256, 512), (4, 8, 16, 32))
        self.neck = FPN(spec, CHANNELS, min_level=2, max_level=6, extra="pool", norm=None)
        wide = {"width": 1024, "rois_per_image": 512, "pre_nms_train": 2000, "post_nms_train": 2000}
        self.head = MaskRCNNHead(self.neck.features, CLASSES, **wide, post_nms_eval=1000, mask_channels=256)
        rooms = self.theirs.roi_heads
        for part in (self.theirs.rpn, rooms):
            for name, p in part.named_parameters():
                if "cls" in name or "bbox" in name:
                    nn.init.normal_(p, std=0.1 if "cls" in name else 0.05)
        nn.init.normal_(rooms.mask_predictor.mask_fcn_logits.weight, std=0.3)
        self.copy()
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randn(3, 3, *SIZE, generator=generator)
        self.images = ImageList(pixels, [SIZE] * 3)
        with torch.no_grad():
            self.body = list(body.body(pixels).values())

    def copy(self):
        fpn, neck, head = self.theirs.backbone.fpn, self.neck, self.head
        for k in range(4):
            neck.lateral[k].load_state_dict(fpn.inner_blocks[k][0].state_dict())
            neck.output[k].load_state_dict(fpn.layer_blocks[k][0].state_dict())
        first, second = self.theirs.rpn.head, self.theirs.roi_heads
        head.rpn_conv.load_state_dict(first.conv[0][0].state_dict())
        for name in ("weight", "bias"):
            joined = torch.cat([getattr(first.cls_logits, name), getattr(first.bbox_pred, name)])
            getattr(head.rpn_output, name).data.copy_(joined)
        by_cell = second.box_head.fc6.weight.view(-1, CHANNELS, 49).transpose(1, 2).flatten(1)
        head.hidden[0].load_state_dict({"weight": by_cell, "bias": second.box_head.fc6.bias})
        head.hidden[2].load_state_dict(second.box_head.fc7.state_dict())
        head.classifier.load_state_dict(second.box_predictor.cls_score.state_dict())
        head.regressor.load_state_dict(second.box_predictor.bbox_pred.state_dict())
        for k, layer in enumerate(second.mask_head):
            head.mask_branch[2 * k].load_state_dict(layer[0].state_dict())
        head.mask_branch[8].load_state_dict(second.mask_predictor.conv5_mask.state_dict())
        logits = second.mask_predictor.mask_fcn_logits
        head.mask_branch[10].load_state_dict({"weight": logits.weight[1:], "bias": logits.bias[1:]})

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


def test_masks_of_given_boxes_equal_torchvision(twins):
    boxes = [t.boxes for t in targets(3)]
    labels = torch.cat([t.labels for t in targets(3)])
    with torch.no_grad():
        rooms = twins.theirs.roi_heads
        theirs = rooms.mask_predictor(rooms.mask_head(rooms.mask_roi_pool(twins.features(), boxes, [SIZE] * 3)))
        ours = twins.head._draw(twins.outputs().levels, boxes, labels)
    assert ours.shape == (5, 28, 28)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs[torch.arange(5), labels + 1], atol=1e-4, rtol=1e-4)


def test_losses_and_gradients_equal_torchvision(twins, monkeypatch):
    def project(masks, boxes, match, side):  # torchvision's, with masks where they belong instead of half a pixel off
        rois = torch.cat([match[:, None].to(boxes), boxes], 1)
        return roi_align(masks[:, None].to(rois), rois, side, aligned=True)[:, 0]

    monkeypatch.setattr(roi_heads, "project_masks_on_boxes", project)
    twins.train(True)
    truth = targets(3)
    theirs = [
        {"boxes": t.boxes, "labels": t.labels + 1, "masks": torch.from_numpy(t.masks.dense())} for t in truth
    ]  # fmt: skip
    torch.manual_seed(5)
    features = twins.features()
    proposals, losses = twins.theirs.rpn(twins.images, features, theirs)
    losses |= twins.theirs.roi_heads(features, proposals, twins.images.image_sizes, theirs)[1]
    torch.manual_seed(5)
    ours = twins.head.loss(twins.outputs(), truth)
    names = {"rpn_objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "classification": "loss_classifier",
             "box": "loss_box_reg", "mask": "loss_mask"}  # fmt: skip
    assert set(ours) == set(names)
    for name, value in ours.items():
        torch.testing.assert_close(value, losses[names[name]], atol=1e-4, rtol=1e-4)
    sum(losses.values()).backward()
    sum(ours.values()).backward()
    rooms, branch = twins.theirs.roi_heads, twins.head.mask_branch
    pairs = [
        (twins.neck.lateral[0].weight.grad, twins.theirs.backbone.fpn.inner_blocks[0][0].weight.grad),
        (branch[0].weight.grad, rooms.mask_head[0][0].weight.grad),
        (branch[8].weight.grad, rooms.mask_predictor.conv5_mask.weight.grad),
        (branch[10].weight.grad, rooms.mask_predictor.mask_fcn_logits.weight.grad[1:]),
    ]
    for a, b in pairs:
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_detections_equal_torchvision(twins):
    twins.train(False)
    with torch.no_grad():
        features = twins.features()
        proposals, _ = twins.theirs.rpn(twins.images, features)
        theirs, _ = twins.theirs.roi_heads(features, proposals, twins.images.image_sizes)
    found = twins.head.decode(twins.outputs())
    assert len({label for p in found for label in p.labels.tolist()}) > 1
    for a, b in zip(found, theirs, strict=True):
        assert type(a) is InstancePrediction
        assert len(a) > 10
        torch.testing.assert_close(a.labels, b["labels"] - 1, atol=0, rtol=0)
        torch.testing.assert_close(a.boxes, b["boxes"], atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(a.masks, b["masks"][:, 0], atol=1e-3, rtol=0)
        assert a.frames is a.boxes


# ---- what every head promises


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [SIZE, (321, 243), (64, 64)])
@pytest.mark.parametrize("count", [1, 3])
def test_losses_are_named_finite_and_reach_every_parameter(count, size, train):
    model = head().train(train)
    features = [x.requires_grad_() for x in maps(count, size)]
    losses = model.loss(model(features), targets(count, size))
    assert set(losses) == LOSSES
    assert all(v.ndim == 0 and v.isfinite() and v > 0 and v.dtype == torch.float32 for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in features)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("nothing", [EMPTY, BoxTarget.make([], []), target([[0.0, 0, 60, 60]], [1], [True])])
def test_pictures_without_objects(nothing, train):
    model = head().train(train)
    losses = model.loss(model(maps(2)), [nothing, nothing])
    assert losses["mask"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_nothing_is_found():
    model = head(score_threshold=1.0).eval()
    for prediction in model.decode(model(maps(2))):
        assert len(prediction) == 0
        assert prediction.masks.shape == (0, 28, 28)
        restored = prediction.restore(ImageInfo("a", (50, 60)))
        assert (restored.rles(), restored.rows(["a"] * 3), restored.record(["a"] * 3)["objects"]) == ([], [], [])


def test_one_class():
    torch.manual_seed(0)
    model = MaskRCNNHead(SPEC, 1, width=32, mask_channels=8, mask_size=7)
    truth = target([[10.0, 12, 50, 60]], [0])
    assert set(model.loss(model(maps(1)), [truth])) == LOSSES
    (found,) = model.eval().decode(model(maps(1)))
    assert found.masks.shape == (len(found), 14, 14)
    assert len(found) > 0


def test_objects_without_masks_are_refused():
    model = head()
    with pytest.raises(UsageError, match="the boxes have none: set --data.masks true, or use FasterRCNNHead"):
        model.loss(model(maps(1)), [BoxTarget.make([[10.0, 12, 50, 60]], [0])])
    crowd = BoxTarget.make([[10.0, 12, 50, 60]], [0], [True])
    assert model.loss(model(maps(1)), [crowd])["mask"] == 0


def test_a_head_without_masks_does_not_look_at_them():
    torch.manual_seed(0)
    model = FasterRCNNHead(SPEC, CLASSES, width=32).eval()
    outputs = model(maps(2))
    bare = [BoxTarget.make(t.boxes, t.labels) for t in targets()]
    assert model.loss(outputs, targets()) == model.loss(outputs, bare)


def test_spec_makes_the_same_head():
    model = head(mask_size=5, roi_size=5).eval()
    assert spec_of(model)["init_args"] == {
        "width": 32, "mask_channels": 8, "mask_depth": 2, "mask_size": 5, "roi_size": 5
    }  # fmt: skip
    again = build(spec_of(model), features=SPEC, num_classes=CLASSES).eval()
    again.load_state_dict(model.state_dict())
    for a, b in zip(again.decode(again(maps())), model.decode(model(maps())), strict=True):
        torch.testing.assert_close(a.masks, b.masks, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_size": 0}, r"head.mask_size=0: a whole number from 1 on"),
        ({"mask_channels": 0}, r"head.mask_channels=0: a whole number from 1 on"),
        ({"mask_depth": 0}, r"head.mask_depth=0: a whole number from 1 on"),
        ({"mask_loss_weight": -1.0}, r"head.mask_loss_weight=-1.0: a number from 0 on"),
        ({"width": 0}, r"head.width=0: a whole number from 1 on"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        head(**settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="widht"):
        head(widht=3)


def test_bfloat16_autocast_trains_and_decodes():
    model = head()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train().loss(model([x.bfloat16() for x in maps()]), targets())
        exact = model.train().loss(model(maps()), targets())
        predictions = model.eval().decode(model(maps()))
        goals = model._goals(targets()[0], targets()[0].boxes, torch.arange(2))
    assert losses["mask"].dtype == torch.float32
    assert all(p.masks.dtype == torch.float32 for p in predictions)
    torch.testing.assert_close(losses["mask"], exact["mask"], atol=0.05, rtol=0.2)
    torch.testing.assert_close(goals, model._goals(targets()[0], targets()[0].boxes, torch.arange(2)), atol=0, rtol=0)


def test_losses_of_evaluation_do_not_depend_on_the_batch():
    model = head(anchors_per_image=16, rois_per_image=8).eval()
    features, truth = maps(3), targets(3)
    together = model.loss(model(features), truth)["mask"]
    alone = [model.loss(model([x[k : k + 1] for x in features]), truth[k : k + 1])["mask"] for k in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-5, rtol=1e-4)


# ---- what the branch learns


def test_each_box_learns_the_mask_of_its_object():
    """Crowds stand among the objects, but the positions of the second stage do not count them."""
    boxes = [[0.0, 0, 192, 128], [10, 10, 60, 60], [0, 0, 9, 9], [100, 30, 160, 120]]
    truth = target(boxes, [0, 1, 2, 0], [True, False, True, False])
    model = head()
    goals = model._goals(truth, truth.boxes[[3, 1, 3]], torch.tensor([1, 0, 1]))
    assert goals.shape == (3, 28, 28)
    for goal in goals:  # the disc that fills its box
        assert goal[14, 14] == 1
        assert goal[0, 0] == goal[-1, -1] == 0
        assert goal.mean().item() == pytest.approx(torch.pi / 4, abs=0.03)
    wrong = model._goals(truth, truth.boxes[[1]], torch.tensor([1]))
    assert wrong.sum() == 0


def test_perfect_masks_decode_to_their_targets():
    truth = targets(2)
    model = head()
    for t in truth:
        goals = model._goals(t, t.boxes, torch.arange(len(t)))
        perfect = InstancePrediction(t.boxes, torch.ones(len(t)), t.labels, masks=goals, frames=t.boxes)
        drawn = torch.from_numpy(perfect.restore(ImageInfo("a", SIZE)).pasted.dense())
        real = torch.from_numpy(t.masks.dense())
        overlap = (drawn & real).sum((1, 2)) / (drawn | real).sum((1, 2))
        assert overlap.min() > 0.95
    logits = (torch.cat([model._goals(t, t.boxes, torch.arange(len(t))) for t in truth]) - 0.5) * 100
    model._draw = lambda levels, boxes, labels: logits
    model.roi_sample = (8, 1.0)
    model._propose = lambda outputs: [t.boxes[:0] for t in truth]  # the true boxes alone
    torch.manual_seed(0)
    order = model._sample(model._propose(None), [t.boxes for t in truth], [t.labels for t in truth], [EMPTY.boxes] * 2)
    shuffled = torch.cat([m + k for m, k in zip(order.match, (0, 2), strict=True)])
    model._draw = lambda levels, boxes, labels: logits[shuffled]
    torch.manual_seed(0)
    sampled = model._sample(
        model._propose(None), [t.boxes for t in truth], [t.labels for t in truth], [EMPTY.boxes] * 2
    )
    assert model._mask_loss([], sampled, truth) < 1
    model._draw = lambda levels, boxes, labels: -logits[shuffled]
    assert model._mask_loss([], sampled, truth) > 10


def test_four_pictures_are_learnt_by_heart():
    from visionkit import ResNet, VisionModel

    torch.manual_seed(1)
    data = ShapesDetection(30, seed=3, size=128, masks=True)
    few = [k for k, i in enumerate(data.ids) if 1 <= len(data._shown[i]) <= 2][:4]
    samples = [data[k] for k in few]
    images, truth = torch.stack([s.image for s in samples]), [s.target for s in samples]

    def make(spec, k):
        return MaskRCNNHead(spec, k, width=64, mask_channels=16, mask_depth=1, rois_per_image=32, post_nms_train=100)

    backbone = ResNet(layers=(1, 1, 1, 1), block="basic")
    neck = lambda spec: FPN(spec, 32, min_level=2, max_level=5)  # noqa: E731
    model = VisionModel(backbone, make, data.classes, neck, preprocessing=Preprocessing(128)).train()
    optimizer = torch.optim.AdamW(model.parameters())
    steps = 60
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        loss = sum(model.loss(model(images), truth).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    for module in model.modules():  # statistics of these pictures, as in training
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model(images)
    metric = DetectionMetric(data.classes, masks=True)
    metric.update(model.eval().predict(images), truth)
    values = metric.compute()
    assert values["mask_map_50"] > 0.8
    assert values["mask_map"] > 0.5


def test_the_task_measures_masks_where_the_head_draws_them():
    from visionkit import ResNet

    def backbone():
        return ResNet(layers=(1, 1, 1, 1), block="basic")

    neck = {"neck": lambda spec: FPN(spec, 16, min_level=2, max_level=6, extra="pool")}
    with_masks = Detector(backbone(), head=lambda s, k: MaskRCNNHead(s, k, width=8), classes=["a"], **neck)
    without = Detector(backbone(), head=lambda s, k: FasterRCNNHead(s, k, width=8), classes=["a"], **neck)
    assert (with_masks.monitor, without.monitor) == ("val/mask_map", "val/map")
