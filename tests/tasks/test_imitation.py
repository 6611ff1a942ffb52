"""What every head promises that learns from a teacher, run over every such head; then the right values of each kind."""

import math

import pytest
import torch
from torch.nn import functional as F

from visionkit import (
    BoxTarget,
    ClassTarget,
    DeepLabV3PlusHead,
    FasterRCNNHead,
    FCNHead,
    FCOSHead,
    FeatureSpec,
    FPNSegmentationHead,
    LinearHead,
    MaskRCNNHead,
    MaskTarget,
    MLPHead,
    UsageError,
)
from visionkit.models.head import Lesson
from visionkit.tasks.classification.losses import binary_divergence, softmax_divergence
from visionkit.tasks.detection.heads.assign import Points
from visionkit.tasks.detection.heads.imitation import nearest_locations
from visionkit.tasks.detection.heads.locations import grid_of
from visionkit.tasks.segmentation.heads.base import SegmentationHead
from visionkit.tasks.segmentation.heads.imitation import at_cells, cell_weights, taught_pixels

CLASSES, SIZE, BATCH = 4, 64, 2
WIDE = (32, 64)
BACKBONE = FeatureSpec((8, 12, 16, 24), (4, 8, 16, 32))
PYRAMID = FeatureSpec((16, 16, 16), (8, 16, 32))
FCOS = {"channels": 16, "depth": 1}
TORCHVISION = {"assign": "centre", "class_loss": "focal", "bins": 0, "norm": "group", "channels": 32, "cell": 0.0}
HEADS = {
    "linear": (LinearHead, BACKBONE, {}),
    "bce": (LinearHead, BACKBONE, {"loss": "bce"}),
    "several labels": (MLPHead, BACKBONE, {"multilabel": True, "width": 16, "dropout": 0.0}),
    "fcn": (FCNHead, BACKBONE, {"dropout": 0.0, "level": 1}),
    "deeplab": (DeepLabV3PlusHead, BACKBONE, {"channels": 16, "low_level_channels": 6, "dropout": 0.0, "aux": 0.4}),
    "fpn": (FPNSegmentationHead, PYRAMID, {"channels": 8, "dropout": 0.0}),
    "fcos": (FCOSHead, PYRAMID, FCOS),
    "fcos of torchvision": (FCOSHead, PYRAMID, TORCHVISION),
}
EACH = pytest.mark.parametrize("name", HEADS)


def made(name, seed=0, classes=CLASSES):
    cls, features, settings = HEADS[name]
    torch.manual_seed(seed)
    head = cls(features, classes, **settings).train()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return head


def maps(name, size=SIZE, seed=0):
    g = torch.Generator().manual_seed(seed)
    features = HEADS[name][1]
    return [torch.randn(BATCH, c, size // s, size // s, generator=g) for c, s in zip(features.channels, features.strides, strict=True)]  # fmt: skip


def truth(name):
    if name in ("linear", "bce", "several labels"):
        return [ClassTarget.make(k, CLASSES) for k in range(BATCH)]
    if name.startswith("fcos"):
        return [BoxTarget.make([[8, 8, 40, 50]], [k]) for k in range(BATCH)]
    return [MaskTarget(torch.full((SIZE, SIZE), k, dtype=torch.uint8)) for k in range(BATCH)]


def pictures(size=(SIZE, SIZE)):
    return torch.randint(0, 256, (BATCH, 3, *size), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def lesson(name, head, outputs, own=None, theirs=None, scale=(1.0, 1.0), images=None):
    ids = torch.arange(CLASSES)
    temperature = head.teacher_temperature or 1.0
    return Lesson(head, outputs, ids if own is None else own, ids if theirs is None else theirs, temperature, pictures() if images is None else images, scale)  # fmt: skip


def said_of_places(name, head, scale=(1.0, 1.0), off=0.0):
    """What a head would say of wide pictures at a scale: numbers of each place, and the box of one object, or a bit off."""
    height, width = (round(edge * s) for edge, s in zip(WIDE, scale, strict=True))
    spec = HEADS[name][1]
    outputs = head([torch.ones(BATCH, c, height // s, width // s) for c, s in zip(spec.channels, spec.strides, strict=True)])  # fmt: skip
    if not isinstance(head, FCOSHead | SegmentationHead):
        return outputs  # of the whole picture
    if isinstance(head, SegmentationHead):
        y, x = (
            2 - 2 * torch.cos(math.pi * (torch.arange(n) + 0.5) / n) for n in outputs.logits.shape[2:]
        )  # flat at edges
        return outputs._replace(logits=numbers_of(x[None, :], y[:, None], off / 2).expand(BATCH, -1, -1, -1))
    x, y = (outputs.centres / torch.tensor([width, height])).unbind(1)
    places = outputs.centres / torch.tensor(scale[::-1])  # in the wide pictures, each of one object that fills it
    object_, off_ = torch.tensor([-2.0, -3, 66, 35]), off * torch.tensor([4.0, -2, 3, -4])
    sides = torch.cat([places - object_[:2] - off_[:2], object_[2:] + off_[2:] - places], 1)
    edges = sides * torch.tensor(scale[::-1]).repeat(2) / outputs.strides[:, None]
    if head.bins:
        edges = (1 - (edges[..., None] - torch.arange(head.bins)).abs()).clamp(min=1e-9).log().flatten(1)
    middle = outputs.centerness * 0 + (2 * x - y + off)[:, None]
    logits = numbers_of(x, y, off).T.expand(BATCH, -1, -1)
    return outputs._replace(logits=logits, edges=edges.expand(BATCH, -1, -1), centerness=middle)


def numbers_of(x, y, off):
    return torch.stack([(k - 3) * x + k * y / 2 + (k - 1) * off for k in range(CLASSES)])


def taught(name, seed=1):
    teacher = made(name, seed).eval()
    with torch.no_grad():
        return teacher, teacher(maps(name))


@EACH
class TestContract:
    def test_the_teacher_itself_has_nothing_to_learn(self, name):
        teacher, outputs = taught(name)
        teacher.check_teacher(teacher, CLASSES)
        losses = teacher.train().imitate(outputs, truth(name), lesson(name, teacher, outputs))
        assert losses
        for value in losses.values():
            assert value.ndim == 0
            torch.testing.assert_close(value, torch.tensor(0.0), atol=2e-5, rtol=0)

    def test_steps_bring_a_head_nearer_to_its_teacher(self, name):
        teacher, outputs = taught(name)
        head = made(name, 7)
        optimizer = torch.optim.Adam(head.parameters(), 0.01)
        totals = []
        for _ in range(8):
            losses = head.imitate(head(maps(name)), truth(name), lesson(name, teacher, outputs))
            total = sum(losses.values())
            assert total.isfinite()
            optimizer.zero_grad()
            total.backward()
            totals.append(float(total))
            optimizer.step()
        assert totals[0] > totals[-1] > 0
        assert all(p.grad is None for p in teacher.parameters())

    def test_classes_are_those_of_the_same_name_in_whatever_order(self, name):
        teacher, outputs = taught(name)
        head = made(name, 7)
        own = head(maps(name))
        plain = head.imitate(own, truth(name), lesson(name, teacher, outputs))
        order = torch.tensor([2, 0, 3, 1])  # place of each of the teacher's classes among the head's
        places = order.argsort()
        moved = outputs._replace(
            logits=outputs.logits[..., order] if outputs.logits.ndim < 4 else outputs.logits[:, order]
        )
        got = head.imitate(own, truth(name), lesson(name, teacher, moved, theirs=places))
        for key, value in plain.items():
            torch.testing.assert_close(got[key], value)

    def test_what_only_one_of_both_knows_is_left_alone(self, name):
        teacher, outputs = taught(name)
        head = made(name, 7)
        own = head(maps(name))
        own.logits.retain_grad()
        shared = torch.tensor([0, 1, 2])
        sum(head.imitate(own, truth(name), lesson(name, teacher, outputs, shared, shared)).values()).backward()
        rows = own.logits.grad if own.logits.ndim < 4 else own.logits.grad.movedim(1, -1)
        assert not rows[..., 3].any()
        assert rows[..., :3].any()

    def test_another_size_of_the_teachers_pictures_teaches_the_same_places(self, name):
        teacher, head = made(name, 1).eval(), made(name, 7)
        wide = pictures(WIDE)
        target = MaskTarget(torch.zeros(WIDE, dtype=torch.uint8))
        targets = [target] * BATCH if isinstance(head, SegmentationHead) else truth(name)
        own = said_of_places(name, head, off=1.0)
        values = []
        for scale in ((1.0, 1.0), (2.0, 1.5)):  # height, width
            theirs = said_of_places(name, teacher, scale)
            losses = head.imitate(own, targets, lesson(name, teacher, theirs, scale=scale, images=wide))
            values.append({key: float(value.detach()) for key, value in losses.items()})
        assert min(values[0].values()) > 0.001
        assert values[1] == pytest.approx(values[0], rel=0.25)  # between cells; swapped or shifted ones differ by more


def test_heads_of_other_kinds_are_refused_in_a_line():
    linear, fcn, fcos = (made(name) for name in ("linear", "fcn", "fcos"))
    several = made("several labels")
    for head, teacher, shared, words in (
        (linear, fcn, 4, "a FCNHead says no classes of whole pictures"),
        (linear, several, 4, "it says several classes a picture, the data have one class a picture"),
        (linear, linear, 1, "it knows one of the data's classes"),
        (fcn, linear, 4, "a LinearHead says no classes of pixels"),
        (fcn, fcn, 1, "it knows one of the data's classes"),
        (fcos, linear, 4, "give a model with FCOSHead"),
    ):
        with pytest.raises(UsageError, match=words):
            head.check_teacher(teacher, shared)
    several.check_teacher(several, 1)
    fcos.check_teacher(fcos, 1)


@pytest.mark.parametrize("cls", [FasterRCNNHead, MaskRCNNHead])
def test_heads_that_learn_from_labels_alone_name_those_that_do_not(cls):
    head = cls(FeatureSpec((16, 16), (8, 16)), 3)
    words = f"{cls.__name__} learns from labels alone: classifiers, segmenters and FCOSHead learn from teachers"
    with pytest.raises(UsageError, match=words):
        head.check_teacher(head, 3)
    with pytest.raises(UsageError, match=words):
        head.imitate(None, [], lesson("fcos", head, None))


# ---- right values


def test_centerness_is_learnt_from_labels_where_the_teacher_has_none():
    torch.manual_seed(0)
    teacher = FCOSHead(PYRAMID, CLASSES, **{**TORCHVISION, "class_loss": "quality"}).eval()
    head = made("fcos of torchvision", 7)
    outputs, targets = head(maps("fcos of torchvision")), truth("fcos of torchvision")
    with torch.no_grad():
        theirs = teacher(maps("fcos of torchvision"))
    losses = head.imitate(outputs, targets, lesson("fcos of torchvision", teacher, theirs))
    assert set(losses) == {"classification", "box", "centerness"}
    torch.testing.assert_close(losses["centerness"], head.loss(outputs, targets)["centerness"])


def test_divergence_of_probabilities_by_hand():
    logits, truth = torch.tensor([[math.log(4.0), 0.0]]), torch.tensor([[0.5, 0.5]])
    plain = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    torch.testing.assert_close(softmax_divergence(logits, truth, temperature=1.0), torch.tensor([plain]))
    soft = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))  # the root of 4 to 1
    torch.testing.assert_close(softmax_divergence(logits, truth, temperature=2.0), torch.tensor([4 * soft]))
    sure = softmax_divergence(logits, torch.tensor([[1.0, 0.0]]), temperature=1.0)
    torch.testing.assert_close(sure, torch.tensor([-math.log(0.8)]))
    yes = binary_divergence(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0, 0.75]]), temperature=1.0)
    torch.testing.assert_close(yes, torch.tensor([math.log(2) / 2]))  # the second is equal


def test_the_slope_towards_an_ensemble_is_that_towards_its_mean():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=g, requires_grad=True)
    one, two = (torch.randn(5, 4, generator=g).softmax(1) for _ in range(2))
    both = (softmax_divergence(logits, one, temperature=2.0) + softmax_divergence(logits, two, temperature=2.0)) / 2
    mean = softmax_divergence(logits, (one + two) / 2, temperature=2.0)
    slopes = [torch.autograd.grad(x.sum(), logits)[0] for x in (both, mean)]
    torch.testing.assert_close(*slopes)


def test_pictures_of_classes_that_the_teacher_does_not_know_learn_from_labels_alone():
    teacher, outputs = taught("linear")
    head = made("linear", 7)
    own = head(maps("linear"))
    shared = torch.tensor([1, 2, 3])

    def value(*scores):
        targets = [ClassTarget(torch.tensor(s)) for s in scores]
        return float(head.imitate(own, targets, lesson("linear", teacher, outputs, shared, shared))["imitation"])

    unknown, known, blend = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.25, 0.75, 0, 0]
    assert value(unknown, unknown) == 0
    first, second = value(known, unknown), value(unknown, known)
    assert value(known, known) == pytest.approx(first + second)
    assert value(blend, unknown) == pytest.approx(0.75 * first)


def test_pixels_that_show_nothing_are_the_flat_ones_without_a_label():
    image = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[..., 5:] = 114  # bars
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[..., 5:] = 255
    mask[0, 0, :5] = 255  # pixels that nobody labelled
    mask[0, 7, :5] = 3  # of a class that the teacher does not know
    expected = torch.ones(8, 8, dtype=torch.bool)
    expected[:, 6:] = False  # the first column of the bar is no neighbour of its own colour
    expected[7, :5] = False
    assert torch.equal(taught_pixels(image, mask, torch.tensor([0, 1, 2]))[0], expected)


def test_cells_lie_where_torch_resizes_to():
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    finer = at_cells(x, (8, 8), torch.empty(1, 1, 12, 8), (4, 4))
    torch.testing.assert_close(
        finer, F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(at_cells(x, (8, 8), x, (8, 8)), x, atol=1e-5, rtol=0)


def test_a_cell_counts_by_the_share_of_its_pixels():
    pixels = torch.ones(1, 6, 8, dtype=torch.bool)
    pixels[0, :2, :4] = False
    weights = cell_weights(pixels, (2, 2), (4, 4))  # the lower cells reach two pixels beyond the picture
    torch.testing.assert_close(weights, torch.tensor([[[0.5, 1.0], [0.5, 0.5]]]))


def points(size, strides, cell=0.5, scale=1.0):
    grids = [grid_of(size // s, size // s, cell, torch.device("cpu")) * s * scale for s in strides]
    return Points(torch.cat(grids), torch.cat([torch.full((len(g),), s * scale) for g, s in zip(grids, strides, strict=True)]))  # fmt: skip


def test_the_nearest_location_is_on_the_level_of_the_same_cells():
    own = points(64, (8, 16))
    assert nearest_locations(own, points(64, (8, 16))) is None
    twice = points(128, (16, 32), scale=0.5)  # the same cells, of pictures twice as large
    assert nearest_locations(own, twice) is None
    more = points(64, (8, 16, 32))
    assert torch.equal(nearest_locations(own, more), torch.arange(64 + 16))
    coarse = nearest_locations(own, points(64, (16,)))
    assert coarse[:4].tolist() == [0, 0, 1, 1]
    assert coarse[16:20].tolist() == [4, 4, 5, 5]
    assert torch.equal(coarse[64:], torch.arange(16))
    assert int(coarse.max()) == 15
