"""What every segmentation head promises, run over every head and several backbones; then what is each one's own."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation.fcn import FCNHead as TorchvisionFCNHead

from visionkit import FPN, FeatureSpec, ResNet, UsageError
from visionkit.core.component import build, spec_of
from visionkit.tasks.segmentation.heads.base import LOSSES, FCNHead, SegmentationOutputs
from visionkit.tasks.segmentation.heads.deeplab import DeepLabV3PlusHead
from visionkit.tasks.segmentation.heads.fpn import FPNSegmentationHead
from visionkit.tasks.segmentation.heads.losses import dice_loss, pixel_cross_entropy
from visionkit.tasks.segmentation.types import MaskTarget

BACKBONES = {
    "stride 32": FeatureSpec((8, 12, 16, 24), (4, 8, 16, 32)),
    "stride 16": FeatureSpec((8, 12, 16, 24), (4, 8, 16, 16)),
    "stride 8": FeatureSpec((8, 12, 16, 24), (4, 8, 8, 8)),
    "small stem": FeatureSpec((8, 12, 16, 24), (1, 2, 4, 8)),
    "no stride 4": FeatureSpec((12, 16, 24), (8, 16, 32)),
}
PYRAMIDS = {
    "pyramid of detection": FeatureSpec((16,) * 5, (8, 16, 32, 64, 128)),
    "fine": FeatureSpec((16,) * 3, (4, 8, 16)),
}
DEEPLAB = partial(DeepLabV3PlusHead, channels=16, low_level_channels=6)
FPN_HEAD = partial(FPNSegmentationHead, channels=8)
CASES = {
    **{f"deeplab, {k}": (DEEPLAB, v) for k, v in BACKBONES.items()},
    "deeplab, dense": (partial(DEEPLAB, separable=False, atrous_rates=(2, 3)), BACKBONES["stride 16"]),
    **{f"fcn, {k}": (FCNHead, v) for k, v in BACKBONES.items()},
    "fcn, one level": (FCNHead, FeatureSpec((8,), (8,))),
    "fcn, level 1": (partial(FCNHead, level=1), PYRAMIDS["pyramid of detection"]),
    **{f"fpn, {k}": (FPN_HEAD, v) for k, v in PYRAMIDS.items()},
    "fpn, finest level": (partial(FPN_HEAD, max_stride=8), PYRAMIDS["pyramid of detection"]),
}
EACH = pytest.mark.parametrize(("make", "features"), CASES.values(), ids=CASES)
SIZES = [(64, 96), (65, 77), (33, 49)]


def maps(features, size=(64, 96), batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = [[-(-n // s) for n in size] for s in features.strides]
    return [torch.randn(batch, c, *hw, generator=g) for c, hw in zip(features.channels, sizes, strict=True)]


def targets(size=(64, 96), batch=2, classes=4, ignored=0.2, weights=None):
    g = torch.Generator().manual_seed(1)
    mask = torch.randint(0, classes, (batch, *size), generator=g, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=g) < ignored] = 255
    return [MaskTarget(m, weights) for m in mask]


def made(make, features, classes=4, **settings):
    torch.manual_seed(0)
    return make(features, classes, **settings)


def total(head, features, truth):
    return sum(head.loss(head(features), truth).values())


@EACH
class TestContract:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("classes", [2, 130])
    def test_logits_are_cells_of_the_stride(self, make, features, size, classes):
        head = made(make, features, classes)
        outputs = head.eval()(maps(features, size))
        assert outputs.logits.shape == (2, classes, *(-(-n // head.stride) for n in size))
        assert outputs.aux is None
        assert type(head.train()(maps(features, size))) is type(outputs) is SegmentationOutputs
        predictions = head.decode(outputs)
        assert len(predictions) == 2
        assert predictions[0].labels.shape == tuple(n * head.stride for n in outputs.logits.shape[-2:])

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("batch", [1, 2])
    def test_losses_are_named_finite_and_reach_every_parameter(self, make, features, size, batch):
        head = made(make, features, losses=dict.fromkeys(LOSSES, 0.5)).train()
        losses = head.loss(head(maps(features, size, batch)), targets(size, batch))
        assert set(losses) == set(LOSSES)
        assert all(x.ndim == 0 and x.dtype == torch.float32 and x.isfinite() and x > 0 for x in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    def test_the_auxiliary_loss_is_of_training_alone(self, make, features):
        if len(features.strides) == 1:
            with pytest.raises(UsageError, match="head.aux=0.4: needs two levels"):
                made(make, features, aux=0.4)
            return
        head = made(make, features, aux=0.4).train()
        outputs = head(maps(features, (65, 77)))
        losses = head.loss(outputs, targets((65, 77)))
        assert list(losses) == ["cross_entropy", "aux"]
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in head.parameters())
        truth = torch.stack([t.mask for t in targets((65, 77))])
        pixels = F.interpolate(outputs.aux, scale_factor=head.aux_stride, mode="bilinear")[..., :65, :77]
        torch.testing.assert_close(losses["aux"], 0.4 * pixel_cross_entropy(pixels, truth))
        assert list(head.eval().loss(head(maps(features)), targets())) == ["cross_entropy"]

    def test_nothing_said_is_nothing_learnt(self, make, features):
        head = made(make, features, losses=dict.fromkeys(LOSSES, 1.0)).train()
        value = total(head, maps(features), targets(ignored=2.0))
        assert value == 0
        value.backward()
        assert not any(p.grad.any() for p in head.parameters())
        assert total(head.eval(), maps(features), targets(ignored=2.0)) == 0

    @pytest.mark.parametrize("size", SIZES)
    def test_perfect_outputs_decode_to_their_target(self, make, features, size):
        head = made(make, features, losses=dict.fromkeys(LOSSES, 1.0))
        h, w = (-(-n // head.stride) for n in size)
        halves = torch.zeros(2, h, w, dtype=torch.long)
        halves[0, :, w // 2 :], halves[1, h // 2 :] = 3, 1
        logits = F.one_hot(halves, 4).permute(0, 3, 1, 2).float() * 60
        cells = halves.to(torch.uint8).repeat_interleave(head.stride, 1).repeat_interleave(head.stride, 2)
        truth = [MaskTarget(m[: size[0], : size[1]]) for m in cells]
        for prediction, target in zip(head.decode(SegmentationOutputs(logits)), truth, strict=True):
            assert torch.equal(prediction.labels[: size[0], : size[1]], target.mask)
        sure = [MaskTarget(torch.full_like(t.mask, k)) for k, t in enumerate(truth)]
        same = torch.tensor([0, 1])[:, None, None].expand(2, h, w)
        losses = head.loss(SegmentationOutputs(F.one_hot(same, 4).permute(0, 3, 1, 2).float() * 60), sure)
        assert sum(losses.values()) < 1e-5

    def test_in_evaluation_losses_do_not_depend_on_how_images_are_batched(self, make, features):
        head = made(make, features, losses=dict.fromkeys(LOSSES, 1.0)).eval()
        outputs, truth = head(maps(features, batch=3)), targets(batch=3, weights=torch.tensor([1.0, 2, 0.5, 0.1]))
        truth[1] = MaskTarget(torch.full_like(truth[1].mask, 255), truth[1].weights)
        together = head.loss(outputs, truth)
        alone = [head.loss(SegmentationOutputs(outputs.logits[k : k + 1]), [truth[k]]) for k in range(3)]
        for name, value in together.items():
            torch.testing.assert_close(value, torch.stack([a[name] for a in alone]).mean())

    def test_autocast_changes_little(self, make, features):
        head = made(make, features, losses=dict.fromkeys(LOSSES, 1.0), dropout=0.0, aux=float(len(features.strides) > 1)).train()  # fmt: skip
        exact = head.loss(head(maps(features)), targets())
        with torch.autocast("cpu", torch.bfloat16):
            outputs = head(maps(features))
            losses = head.loss(outputs, targets())
        assert outputs.logits.dtype == torch.bfloat16
        assert head.decode(outputs)[0].views[0].scores.dtype == torch.bfloat16
        outside = head.loss(outputs, targets())
        for name, value in losses.items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, outside[name])  # the loss itself is not rounded
            torch.testing.assert_close(value, exact[name], atol=0.02, rtol=0.02)

    def test_spec_makes_the_same_head(self, make, features):
        head = made(make, features, losses={"dice": 2.0}).eval()
        spec = spec_of(head)
        assert not {"features", "num_classes"} & set(spec["init_args"])
        again = build(spec, features=features, num_classes=4).eval()
        again.load_state_dict(head.state_dict())
        assert again.weights == head.weights
        torch.testing.assert_close(again(maps(features)).logits, head(maps(features)).logits)

    def test_memory_order_changes_nothing(self, make, features):
        head = made(make, features).eval()
        levels = [x.contiguous(memory_format=torch.channels_last) for x in maps(features)]
        torch.testing.assert_close(head(levels).logits, head(maps(features)).logits, atol=1e-5, rtol=1e-4)

    def test_at_first_all_classes_are_about_equally_likely(self, make, features):
        head = made(make, features).train()
        assert total(head, maps(features), targets()).item() == pytest.approx(torch.tensor(4.0).log().item(), abs=0.05)


def test_losses_are_weighted_and_those_of_all_pixels():
    features = BACKBONES["stride 32"]
    head = made(FCNHead, features, losses={"cross_entropy": 1.0, "dice": 0.5, "focal": 0.0}, label_smoothing=0.1)
    weights = torch.tensor([1.0, 2, 0.5, 0.1])
    outputs, truth = head.train()(maps(features, (65, 77))), targets((65, 77), weights=weights)
    losses = head.loss(outputs, truth)
    pixels = F.interpolate(outputs.logits, scale_factor=32, mode="bilinear", align_corners=False)[..., :65, :77]
    mask = torch.stack([t.mask for t in truth])
    assert list(losses) == ["cross_entropy", "dice"]
    expected = F.cross_entropy(pixels, mask.long(), weights, ignore_index=255, label_smoothing=0.1)
    torch.testing.assert_close(losses["cross_entropy"], expected)
    torch.testing.assert_close(losses["dice"], 0.5 * dice_loss(pixels, mask))


def test_logits_of_half_precision_are_upsampled_in_float32():
    head = made(FCNHead, BACKBONES["stride 32"], losses=dict.fromkeys(LOSSES, 1.0))
    half = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    for name, value in head.loss(SegmentationOutputs(half), targets()).items():
        torch.testing.assert_close(value, head.loss(SegmentationOutputs(half.float()), targets())[name])


class Segmenter(nn.Module):
    """A small backbone, a pyramid or none, and a head."""

    def __init__(self, pyramid):
        super().__init__()
        self.backbone = ResNet(layers=(1, 1, 1, 1), block="basic")
        self.neck = FPN(self.backbone.features, 32, min_level=2, max_level=6) if pyramid else nn.Identity()
        if pyramid:
            self.head = FPNSegmentationHead(self.neck.features, 3, channels=32)
        else:
            losses = {"cross_entropy": 1.0, "dice": 1.0}
            self.head = DeepLabV3PlusHead(self.backbone.features, 3, channels=32, aux=0.4, losses=losses)

    def forward(self, images):
        return self.head(self.neck(self.backbone(images)))


@pytest.mark.parametrize("pyramid", [False, True])
def test_a_small_picture_is_learnt(pyramid):
    """Discs of two classes on a ground, of an odd size, until at most a few pixels at their borders are wrong."""
    torch.manual_seed(0)
    size = (61, 75)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[(y - 20) ** 2 + (x - 20) ** 2 < 150] = 1
    mask[(y - 40) ** 2 + (x - 50) ** 2 < 250] = 2
    image = torch.randn(1, 3, *size) * 0.1 + F.one_hot(mask.long(), 3).permute(2, 0, 1)
    model = Segmenter(pyramid)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        loss = sum(model.head.loss(model(image), [MaskTarget(mask)]).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for module in model.modules():  # statistics of the network as it is now
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(image)
        (prediction,) = model.head.decode(model.eval()(image))
    wrong = prediction.labels[: size[0], : size[1]] != mask
    assert wrong.float().mean() < 0.03


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplab_is_that_of_segmentation_models_pytorch(depth, output_stride):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    backbone = ResNet(depth, output_stride=output_stride).eval()
    rates = (12, 24, 36) if output_stride == 8 else (6, 12, 18)
    theirs = smp.DeepLabV3Plus(
        f"resnet{depth}", encoder_weights=None, encoder_output_stride=output_stride, decoder_channels=32,
        decoder_atrous_rates=rates, decoder_aspp_separable=True, classes=5,
    ).eval()  # fmt: skip
    for module in theirs.modules():
        if isinstance(module, nn.Upsample):
            module.align_corners = False
    ours = DeepLabV3PlusHead(backbone.features, 5, channels=32).eval()
    tensors = [*theirs.decoder.state_dict().values(), *theirs.segmentation_head.state_dict().values()]
    tensors = [torch.rand_like(x) + 0.5 if x.ndim == 1 else x for x in tensors]  # statistics that do something
    names = list(ours.state_dict())
    assert len(names) == len(tensors)
    ours.load_state_dict(dict(zip(names, tensors, strict=True)))
    parts = [*theirs.decoder.state_dict(), *theirs.segmentation_head.state_dict()]
    split = len(theirs.decoder.state_dict())
    theirs.decoder.load_state_dict(dict(zip(parts[:split], tensors[:split], strict=True)))
    theirs.segmentation_head.load_state_dict(dict(zip(parts[split:], tensors[split:], strict=True)))

    image = torch.randn(2, 3, 96, 128)
    levels = backbone(image)
    expected = theirs.decoder([image, image, *levels])
    logits = ours(levels).logits
    torch.testing.assert_close(logits, theirs.segmentation_head[0](expected), atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1
    pixels = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(pixels, theirs.segmentation_head(expected), atol=1e-4, rtol=1e-4)


def test_deeplab_keeps_cells_in_place_where_sizes_do_not_divide():
    """What lies left of the cut does not depend on how much was cut off."""
    features = FeatureSpec((8, 16), (4, 16))
    head = made(DEEPLAB, features).eval()
    head.aspp = nn.Conv2d(16, 16, 1)  # of itself it would see everything
    head.context = head.low_level = nn.Identity()
    head.decoder, head.classifier = nn.Identity(), nn.Identity()
    fine, coarse = torch.randn(1, 8, 24, 24), torch.randn(1, 16, 6, 6)
    whole = head([fine, coarse]).logits
    cut = head([fine[..., :22, :21], coarse]).logits
    torch.testing.assert_close(cut, whole[..., :22, :21])


@pytest.mark.parametrize(
    ("strides", "rates", "fine"),
    [
        ((4, 8, 16, 32), [3, 6, 9], 0),
        ((4, 8, 16, 16), [6, 12, 18], 0),
        ((4, 8, 8, 8), [12, 24, 36], 0),
        ((1, 2, 4, 8), [12, 24, 36], 2),
        ((2, 8, 16), [6, 12, 18], 1),
    ],
)
def test_deeplab_fits_its_rates_and_its_fine_level_to_the_strides(strides, rates, fine):
    head = made(DEEPLAB, FeatureSpec(range(8, 8 + len(strides)), strides))
    dilations = [m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert dilations == rates
    assert (head.fine, head.stride) == (fine, strides[fine])


def test_fpn_head_is_that_of_segmentation_models_pytorch(monkeypatch):
    """Its blocks with batch for group normalisation, and with corners that are not aligned."""
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.fpn.decoder")
    monkeypatch.setattr(
        decoder, "F", SimpleNamespace(interpolate=lambda x, **o: F.interpolate(x, **{**o, "align_corners": False}))
    )
    torch.manual_seed(0)
    ours = FPNSegmentationHead(FeatureSpec((16,) * 6, (4, 8, 16, 32, 64, 128)), 5, channels=32).eval()
    theirs = nn.ModuleList(decoder.SegmentationBlock(16, 32, n) for n in range(4)).eval()
    for level, block in enumerate(theirs):
        for step, conv in enumerate(block.block):
            conv.block[1] = nn.BatchNorm2d(32).eval()
            mine = ours.branches[level][step]
            for p in (mine[1].running_mean, mine[1].running_var, mine[1].weight, mine[1].bias):
                p.data.uniform_(0.5, 1.5)
            conv.block.load_state_dict(mine.state_dict())
    levels = maps(FeatureSpec((16,) * 6, (4, 8, 16, 32, 64, 128)), (128, 192))
    summed = decoder.MergeBlock("add")([block(x) for block, x in zip(theirs, levels[:4], strict=True)])
    torch.testing.assert_close(ours(levels).logits, ours.classifier(summed), atol=1e-4, rtol=1e-4)
    assert len(ours.branches) == 4


def test_fpn_head_cuts_each_step_to_the_level_of_its_stride():
    """What is beyond the picture must not reach the next convolution: 33 rows are 9, 5 and 3 cells, not 9, 6 and 3."""
    features = FeatureSpec((16,) * 3, (4, 8, 16))
    head = made(FPN_HEAD, features).eval()
    fine, middle, coarse = maps(features, (33, 49))

    def twice(x, like):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[
            ..., : like.shape[2], : like.shape[3]
        ]

    first, second, third = head.branches
    summed = first[0](fine) + twice(second[0](middle), fine)
    summed = summed + twice(third[1](twice(third[0](coarse), middle)), fine)
    torch.testing.assert_close(head([fine, middle, coarse]).logits, head.classifier(summed))


@pytest.mark.parametrize("level", [-1, 1])
def test_fcn_head_is_torchvisions(level):
    features = BACKBONES["stride 32"]
    ours = made(FCNHead, features, level=level).eval()
    theirs = TorchvisionFCNHead(features.channels[level], 4).eval()
    for x in theirs.state_dict().values():
        if x.ndim == 1:
            x.uniform_(0.5, 1.5)
    ours.layers.load_state_dict(theirs.state_dict())
    levels = maps(features)
    torch.testing.assert_close(ours(levels).logits, theirs(levels[level]))


def test_the_auxiliary_level_is_that_of_stride_16():
    strides = [(4, 8, 16, 32), (4, 8, 16, 16), (4, 8, 8, 8), (4, 8, 16), (8, 16, 32, 64, 128)]
    found = [made(FCNHead, FeatureSpec(range(8, 8 + len(s)), s), level=0, aux=0.4).aux_level for s in strides]
    assert found == [2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(FCNHead, losses={"dise": 1.0}), "'dise': .*; did you mean dice"),
        (partial(FCNHead, losses={"crossentropy": 1.0}), "did you mean cross_entropy"),
        (partial(FCNHead, losses={"dice": -1.0}), r"head.losses.dice=-1.0: a weight from 0 on"),
        (partial(FCNHead, losses={"dice": float("nan")}), r"head.losses.dice=nan"),
        (partial(FCNHead, losses={}), r"head.losses=\{\}: nothing to learn"),
        (partial(FCNHead, losses={"dice": 0.0}), r"nothing to learn"),
        (partial(FCNHead, label_smoothing=1.0), r"head.label_smoothing=1.0"),
        (partial(FCNHead, focal_gamma=-1.0), r"head.focal_gamma=-1.0"),
        (partial(FCNHead, ohem_fraction=0.0), r"head.ohem_fraction=0.0"),
        (partial(FCNHead, aux=-0.1), r"head.aux=-0.1"),
        (partial(FCNHead, dropout=1.0), r"head.dropout=1.0"),
        (partial(FCNHead, level=4), r"head.level=4: the features have levels 0..3"),
        (partial(FCNHead, level=-5), r"head.level=-5"),
        (partial(DEEPLAB, channels=0), r"head.channels=0"),
        (partial(DEEPLAB, low_level_channels=0), r"head.low_level_channels=0"),
        (partial(DEEPLAB, atrous_rates=()), r"head.atrous_rates=\[\]"),
        (partial(DEEPLAB, atrous_rates=(6, 0)), r"head.atrous_rates=\[6, 0\]"),
        (FPN_HEAD, r"put an FPN before it"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UsageError, match=message) as caught:
        make(BACKBONES["stride 32"], 4)
    assert "\n" not in str(caught.value)


def test_features_that_do_not_fit_are_named():
    pyramid = PYRAMIDS["pyramid of detection"]
    with pytest.raises(UsageError, match="own levels, got a pyramid's .*leave the neck out"):
        DeepLabV3PlusHead(pyramid, 4)
    with pytest.raises(UsageError, match="own levels, got a pyramid's"):
        DeepLabV3PlusHead(PYRAMIDS["fine"], 4)
    with pytest.raises(UsageError, match="needs a level of stride 4 or more that is finer than the last"):
        DeepLabV3PlusHead(FeatureSpec((8, 16), (1, 2)), 4)
    with pytest.raises(UsageError, match="needs a level of stride 4"):
        DeepLabV3PlusHead(FeatureSpec((8,), (16,)), 4)
    with pytest.raises(UsageError, match="cells of 128 pixels are too coarse"):
        FCNHead(pyramid, 4)
    with pytest.raises(UsageError, match="head.max_stride=4: the finest level has 8"):
        FPNSegmentationHead(pyramid, 4, max_stride=4)
    with pytest.raises(UsageError, match="put an FPN before it"):
        FPNSegmentationHead(FeatureSpec((8, 8), (4, 16)), 4)


@pytest.mark.parametrize("make", [FCNHead, DEEPLAB])
def test_numbers_of_classes_that_cannot_be_are_refused(make):
    with pytest.raises(UsageError, match="two classes or more: name the background as a class too"):
        make(BACKBONES["stride 32"], 1)
    with pytest.raises(UsageError, match="256 classes: .*255 at most"):
        make(BACKBONES["stride 32"], 256)
