"""FCOSHead beside torchvision's FCOS, and what every setting of it promises."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from visionkit.core.component import build, spec_of
from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.necks.fpn import FPN
from visionkit.tasks.detection.heads import fcos
from visionkit.tasks.detection.heads.fcos import FCOSHead, FCOSOutputs
from visionkit.tasks.detection.types import BoxTarget

CHANNELS = 32
STRIDES = (8, 16, 32, 64, 128)
TORCHVISION = {"assign": "centre", "class_loss": "focal", "bins": 0, "norm": "group", "channels": CHANNELS, "depth": 2,
               "cell": 0.0, "box_weight": 1.0, "score_threshold": 0.2}  # fmt: skip
SETTINGS = [
    {},
    TORCHVISION,
    {"assign": "centre", "bins": 0},
    {"class_loss": "focal", "candidates": 1, "nms": "soft"},
    {"depth": 0, "nms": "none", "box_loss": "ciou"},
]


def truth(sizes=((5, 60), (20, 100), (3, 30)), seed=0, width=200, height=160):
    """One image with a box of each range of sides."""
    g = torch.Generator().manual_seed(seed)
    boxes = []
    for low, high in sizes:
        w, h = (low + torch.rand(2, generator=g) * (high - low)).tolist()
        x, y = (torch.rand(2, generator=g) * torch.tensor([width - w, height - h])).tolist()
        boxes.append([x, y, x + w, y + h])
    return BoxTarget.make(boxes, [k % 3 for k in range(len(boxes))])


class Backbone(nn.Module):
    """Two maps from pooled pixels, then torchvision's own pyramid."""

    def __init__(self):
        super().__init__()
        self.out_channels = CHANNELS
        self.stem = nn.ModuleList(nn.Conv2d(3, c, s, s, padding=0) for c, s in ((8, 8), (16, 16), (24, 32)))
        self.fpn = FeaturePyramidNetwork([8, 16, 24], CHANNELS, LastLevelP6P7(CHANNELS, CHANNELS))

    def maps(self, x):
        return [conv(x) for conv in self.stem]

    def forward(self, x):
        return self.fpn(OrderedDict(enumerate(self.maps(x))))


def pair():
    """torchvision's FCOS and ours with its weights, both with weights large enough to say something."""
    torch.manual_seed(0)
    theirs = FCOS(Backbone(), num_classes=3, score_thresh=0.2, nms_thresh=0.6)
    theirs.head = type(theirs.head)(CHANNELS, 1, 3, num_convs=2)
    with torch.no_grad():
        for p in theirs.head.parameters():
            p += 0.15 * torch.randn(p.shape)
        theirs.head.classification_head.cls_logits.bias.fill_(-1.0)
        theirs.head.regression_head.bbox_reg.bias.fill_(2.0)
    neck = FPN(FeatureSpec((8, 16, 24), (8, 16, 32)), CHANNELS, min_level=3, max_level=7, norm=None)
    ours = FCOSHead(neck.features, 3, **TORCHVISION)
    with torch.no_grad():
        for part, blocks in (
            (neck.lateral, theirs.backbone.fpn.inner_blocks),
            (neck.output, theirs.backbone.fpn.layer_blocks),
        ):
            for mine, block in zip(part, blocks, strict=True):
                mine.load_state_dict(block[0].state_dict())
        for mine, name in zip(neck.coarser, ("p6", "p7"), strict=True):
            mine.load_state_dict(getattr(theirs.backbone.fpn.extra_blocks, name).state_dict())
        towers = (
            (ours.class_tower, theirs.head.classification_head.conv),
            (ours.box_tower, theirs.head.regression_head.conv),
        )
        for tower, sequence in towers:
            for k in range(2):
                tower.convs[k].load_state_dict(sequence[3 * k].state_dict())
                tower.norms[0][k].load_state_dict(sequence[3 * k + 1].state_dict())
        ours.classes.load_state_dict(theirs.head.classification_head.cls_logits.state_dict())
        ours.edges.load_state_dict(theirs.head.regression_head.bbox_reg.state_dict())
        ours.centerness.load_state_dict(theirs.head.regression_head.bbox_ctrness.state_dict())
    return theirs, neck, ours


@pytest.mark.parametrize("size", [(128, 256), (256, 128)])
@pytest.mark.parametrize("empty", [False, True])
def test_outputs_losses_and_detections_are_torchvisions(size, empty):
    # torchvision stretches its grid over sizes that the coarsest stride does not divide; ours keeps its stride
    theirs, neck, ours = pair()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    targets = [truth(seed=3, width=size[1], height=size[0]), BoxTarget.make([], [])]
    if not empty:
        targets[1] = truth(((40, 120), (10, 20), (60, 64), (100, 120)), seed=4, width=size[1], height=size[0])
    levels = list(theirs.backbone(images).values())
    outputs = ours(neck(theirs.backbone.maps(images)))
    expected = theirs.head(levels)
    torch.testing.assert_close(outputs.logits, expected["cls_logits"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.edges.relu(), expected["bbox_regression"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.centerness, expected["bbox_ctrness"], atol=1e-4, rtol=1e-4)

    anchors = theirs.anchor_generator(ImageList(images, [size] * 2), levels)
    counts = [x.shape[2] * x.shape[3] for x in levels]
    losses = ours.loss(outputs, targets)
    reference = theirs.compute_loss(
        [{"boxes": t.boxes, "labels": t.labels} for t in targets], expected, anchors, counts
    )
    assert float(reference["bbox_regression"].detach()) > 0.1
    for mine, name in (
        ("classification", "classification"),
        ("box", "bbox_regression"),
        ("centerness", "bbox_ctrness"),
    ):
        torch.testing.assert_close(losses[mine], reference[name], atol=1e-4, rtol=1e-4)
    sum(losses.values()).backward()
    mine = ours.edges.weight.grad.clone(), ours.class_tower.convs[0].weight.grad.clone()
    sum(reference.values()).backward()
    other = theirs.head.regression_head.bbox_reg.weight.grad, theirs.head.classification_head.conv[0].weight.grad
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)

    detections = theirs.postprocess_detections(
        {k: list(v.split(counts, dim=1)) for k, v in expected.items()},
        [list(a.split(counts)) for a in anchors],
        [size] * 2,
    )
    for prediction, reference in zip(ours.decode(outputs), detections, strict=True):
        assert len(prediction) == len(reference["scores"]) > 10
        torch.testing.assert_close(prediction.scores, reference["scores"], atol=1e-4, rtol=1e-4)
        assert prediction.labels.tolist() == reference["labels"].tolist()
        clipped = torch.minimum(prediction.boxes.clamp(min=0), torch.tensor([size[1], size[0]] * 2))
        torch.testing.assert_close(clipped, reference["boxes"], atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("settings", [{}, TORCHVISION, {"class_loss": "focal"}, {"assign": "centre"}])
def test_losses_of_boxes_are_the_same_from_positive_and_from_all_locations(monkeypatch, settings, training):
    targets = [truth(seed=5), BoxTarget.make([], []), truth(seed=6)]
    found = []
    plain = fcos.learning_of
    for every in (False, True):
        monkeypatch.setattr(fcos, "learning_of", lambda *a, every, e=every: plain(*a, every=e))
        made = head(**settings).train(training)
        losses = made.loss(made(levels(3)), targets)
        sum(losses.values()).backward()
        found.append({**losses, **{n: p.grad for n, p in made.named_parameters()}})
    assert found[0]["box"] > 0
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-6, rtol=1e-4)


def levels(batch=2, height=160, width=200, channels=CHANNELS):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(batch, channels, -(-height // s), -(-width // s), generator=g) for s in STRIDES]


def head(**settings):
    torch.manual_seed(0)
    return FCOSHead(FeatureSpec((CHANNELS,) * 5, STRIDES), 3, **{"channels": CHANNELS, **settings})


@pytest.mark.parametrize("settings", SETTINGS)
class TestContract:
    def test_outputs_are_the_same_kind_in_training_and_evaluation(self, settings):
        made = head(**settings)
        assert type(made.train()(levels())) is type(made.eval()(levels()))

    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("kind", ["boxes", "one empty", "all empty", "crowds"])
    def test_losses_are_named_finite_and_reach_every_parameter(self, settings, batch, kind):
        made = head(**settings).train()
        targets = [truth(seed=k) for k in range(batch)]
        if kind == "one empty":
            targets[0] = BoxTarget.make([], [])
        if kind == "all empty":
            targets = [BoxTarget.make([], [])] * batch
        if kind == "crowds":
            targets = [BoxTarget.make(t.boxes, t.labels, [True, True, True]) for t in targets]
        losses = made.loss(made(levels(batch)), targets)
        total = sum(losses.values())
        assert total.isfinite()
        assert total > 0
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
        if kind in ("all empty", "crowds"):
            assert losses["box"] == 0

    def test_odd_sizes_and_a_batch_of_one(self, settings):
        made = head(**settings).eval()
        outputs = made(levels(1, 163, 77))
        assert outputs.logits.shape[1] == len(outputs.centres) == sum(-(-163 // s) * -(-77 // s) for s in STRIDES)
        assert made.loss(outputs, [truth(width=77, height=163)])["classification"].isfinite()
        assert len(made.decode(outputs)) == 1

    def test_spec_makes_the_same_head(self, settings):
        made = head(**settings).eval()
        again = build(spec_of(made), features=FeatureSpec((CHANNELS,) * 5, STRIDES), num_classes=3).eval()
        again.load_state_dict(made.state_dict())
        for a, b in zip(made(levels()), again(levels()), strict=True):
            torch.testing.assert_close(a, b)

    def test_perfect_outputs_decode_to_their_target(self, settings):
        made = head(**settings).eval()
        targets = [truth(((40, 60), (30, 90), (16, 20), (100, 140)), seed=5), BoxTarget.make([], []), truth(seed=6)]
        outputs = perfect(made, targets)
        losses = made.loss(outputs, targets)
        assert losses["classification"] < 1e-2
        assert losses["box"] < 0.02
        for prediction, target in zip(made.decode(outputs), targets, strict=True):
            found = {}
            for box, score, label in zip(prediction.boxes, prediction.scores, prediction.labels, strict=True):
                if made.nms != "none" or (int(label), *box.round().tolist()) not in found:
                    found.setdefault((int(label), *box.round().tolist()), float(score))
            strong = [k for k, s in found.items() if s > 0.5]
            assert len(strong) == len(target)
            for box, label in zip(target.boxes, target.labels, strict=True):
                assert any(k[0] == int(label) and (torch.tensor(k[1:]) - box).abs().max() < 1 for k in strong)


def perfect(made, targets):
    """Outputs that say exactly what the targets are, at the locations that own them."""
    plain = made(levels(len(targets)))
    count = plain.logits.shape[1]
    logits = torch.full((len(targets), count, 3), -20.0)
    boxes = torch.zeros(len(targets), count, 4)
    for i, target in enumerate(targets):
        for box, label in sorted(zip(target.boxes, target.labels.tolist(), strict=True), key=lambda x: -x[0][2:].sub(x[0][:2]).prod()):  # fmt: skip
            reach = torch.cat([plain.centres - box[:2], box[2:] - plain.centres], 1)
            far = reach.amax(1)
            fits = (far > torch.where(plain.strides == 8, 0, 4 * plain.strides)) & (far < 8 * plain.strides)
            middle = (plain.centres - (box[:2] + box[2:]) / 2).abs().amax(1) < made.radius * plain.strides
            mine = (reach.amin(1) > 0) & fits & middle
            logits[i, mine] = -20.0
            logits[i, mine, label] = 20.0
            boxes[i, mine] = reach[mine] / plain.strides[mine][:, None]
    if made.bins:
        bins = torch.arange(made.bins)
        lower = boxes.floor()
        share = (boxes - lower).clamp(1e-6, 1 - 1e-6)[..., None]
        exact = torch.where(bins == lower[..., None], (1 - share).log(), -40.0)
        exact = torch.where(bins == lower[..., None] + 1, share.log(), exact)
        edges = exact.flatten(2)
    else:
        edges = boxes
    centerness = torch.full((len(targets), count, plain.centerness.shape[2]), 20.0)
    return FCOSOutputs(logits, edges, centerness, plain.centres, plain.strides)


def test_crowds_are_neither_learnt_nor_background():
    made = head().eval()
    outputs = made(levels(1))
    outputs = outputs._replace(logits=torch.full_like(outputs.logits, 3.0))  # finds objects everywhere
    everywhere = BoxTarget.make([[-1.0, -1, 400, 400]], [0], [True])
    assert made.loss(outputs, [everywhere])["classification"] == 0
    assert made.loss(outputs, [BoxTarget.make([], [])])["classification"] > 100


@pytest.mark.parametrize("bins", [0, 16])
def test_autocast_leaves_boxes_their_digits(bins):
    made = head(bins=bins).eval()
    outputs = made(levels(1))
    exact = made.boxes(outputs)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made.boxes(outputs), exact)
        (found,) = made.decode(outputs)
    assert found.boxes.dtype == torch.float32


def test_a_single_small_image_trains():
    """The coarsest level has one cell: no batch statistics, and no error."""
    torch.manual_seed(0)
    neck = FPN(FeatureSpec((8, 16, 24), (8, 16, 32)), CHANNELS, min_level=3, max_level=7)
    made = FCOSHead(neck.features, 3, channels=CHANNELS)
    maps = [torch.randn(1, c, 96 // s, 96 // s) for c, s in ((8, 8), (16, 16), (24, 32))]
    sum(made.loss(made(neck(maps)), [truth(width=96, height=96)]).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*neck.parameters(), *made.parameters()])


def test_tiny_objects_are_learnt():
    """A box between the locations still has one to learn it."""
    made = head().eval()
    losses = made.loss(made(levels(1)), [BoxTarget.make([[33.0, 33, 35, 35]], [1])])
    assert losses["box"] > 0


def test_scores_are_limited_and_thresholded():
    made = head(score_threshold=0.3, detections=5).eval()
    outputs = made(levels(1))
    outputs = outputs._replace(logits=torch.randn(outputs.logits.shape, generator=torch.Generator().manual_seed(0)))
    (prediction,) = made.decode(outputs)
    assert len(prediction) == 5
    (nothing,) = made.decode(outputs._replace(logits=outputs.logits - 20))
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_in_evaluation_losses_do_not_depend_on_how_images_are_batched(settings):
    made = head(**settings).eval()
    outputs = made(levels(3))
    targets = [truth(seed=1), truth(((10, 90),) * 9, seed=2), BoxTarget.make([], [])]
    together = made.loss(outputs, targets)
    alone = [made.loss(FCOSOutputs(*(x[k : k + 1] for x in outputs[:3]), *outputs[3:]), [targets[k]]) for k in range(3)]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([a[name] for a in alone]).mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assign": "center"}, "assign='center'"),
        ({"class_loss": "bce"}, "quality, focal"),
        ({"box_loss": "l1"}, "box_loss='l1'"),
        ({"nms": "maybe"}, "nms='maybe'"),
        ({"norm": "layer"}, "batch, group"),
        ({"bins": 1}, "bins=1"),
        ({"nms_threshold": 1.5}, "nms_threshold=1.5"),
        ({"norm": "group", "channels": 40}, "multiple of 32"),
        ({"detections": 0}, "detections=0"),
        ({"candidates_before_nms": 0}, "candidates_before_nms=0"),
        ({"box_weight": -1.0}, "box_weight=-1"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        head(**settings)


def test_without_a_neck_it_says_what_is_missing():
    with pytest.raises(UsageError, match="put an FPN before it"):
        FCOSHead(FeatureSpec((64, 128), (8, 16)), 3)
