import importlib.util
from functools import partial

import pytest
import torch
from torch import nn

import visionkit
from visionkit import DataError, UsageError
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.prediction.backends import available, convert, exported
from visionkit.prediction.backends.convert import PredictionModel
from visionkit.prediction.backends.folding import Folded
from visionkit.prediction.backends.packing import PackedConv2d
from visionkit.tasks.detection.heads.faster_rcnn import FasterRCNNHead
from visionkit.tasks.detection.heads.fcos import FCOSHead
from visionkit.tasks.detection.heads.mask_rcnn import MaskRCNNHead
from visionkit.tasks.multitask.head import MultiTaskHead
from visionkit.tasks.multitask.neck import MultiTaskNeck
from visionkit.tasks.segmentation.heads.base import FCNHead
from visionkit.tasks.segmentation.heads.deeplab import DeepLabV3PlusHead

CLASSES = ("blue", "green", "red")
PYRAMID = partial(visionkit.FPN, channels=16, min_level=2, max_level=6, extra="pool")
FEW = {"pre_nms_eval": 50, "post_nms_eval": 10, "width": 32, "score_threshold": 0.0}


def several(features, num_classes):
    heads = {
        "kind": visionkit.LinearHead,
        "boxes": partial(FCOSHead, channels=32, depth=1),
        "mask": FCNHead,
    }
    sizes = {"kind": 3, "boxes": 3, "mask": 3}
    return MultiTaskHead(features, num_classes, heads=heads, sizes=sizes, levels=4)


def pieces(room):
    return {
        "classification": (visionkit.LinearHead, visionkit.IdentityNeck),
        "one-stage": (partial(FCOSHead, channels=32, depth=1), partial(visionkit.FPN, channels=16)),
        "focal": (partial(FCOSHead, channels=32, class_loss="focal", bins=0), partial(visionkit.FPN, channels=16)),
        "two-stage": (partial(FasterRCNNHead, **FEW), PYRAMID),
        "instances": (partial(MaskRCNNHead, mask_channels=8, **FEW), PYRAMID),
        "segmentation": (partial(DeepLabV3PlusHead, channels=16), visionkit.IdentityNeck),
        "multitask": (several, partial(MultiTaskNeck, neck=partial(visionkit.FPN, channels=16))),
    }[room]


ROOMS = ("classification", "one-stage", "focal", "two-stage", "instances", "segmentation", "multitask")


def build(room):
    """A small network of random weights, whose batch normalisation does something."""
    torch.manual_seed(0)
    head, neck = pieces(room)
    classes = [f"{k}/{c}" for k in ("kind", "boxes", "mask") for c in CLASSES] if room == "multitask" else CLASSES
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic")
    model = visionkit.VisionModel(backbone, head, classes, neck, preprocessing=visionkit.Preprocessing(64)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def images(count=2):
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def need(backend):
    for package in available.PACKAGES.get(backend, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'visionkit[{backend}]'")


def same(found, truth, tolerance):
    """The same nesting and constants, and tensors that differ by a part of the largest value at most."""
    assert type(found) is type(truth)
    if isinstance(truth, torch.Tensor):
        assert found.shape == truth.shape
        if truth.numel():
            assert (found.float() - truth.float()).abs().max() <= tolerance * truth.abs().max()
    elif isinstance(truth, dict):
        assert found.keys() == truth.keys()
        for key, value in truth.items():
            same(found[key], value, tolerance)
    elif isinstance(truth, list | tuple):
        assert len(found) == len(truth)
        for a, b in zip(found, truth, strict=True):
            same(a, b, tolerance)
    else:
        assert found == truth


CASES = [
    *((room, "torch", "32", 1e-5) for room in ROOMS),
    *((room, "torch", "bf16", 0.05) for room in ROOMS),
    *((room, "openvino", "32", 1e-4) for room in ("multitask", "instances", "segmentation")),  # all heads are in these
    *((room, "onnx", "32", 1e-4) for room in ("multitask", "instances")),
]


@pytest.mark.parametrize(("room", "backend", "precision", "tolerance"), CASES)
def test_outputs_are_the_model_s(room, backend, precision, tolerance):
    need(backend)
    model, pixels = build(room), images()
    with torch.no_grad():
        truth = model(pixels)
    fast = convert.convert(model, backend, precision=precision)
    for _ in range(2):  # the second call uses what the first prepared
        same(fast(pixels), truth, tolerance)
    if backend != "torch":
        assert fast.compute.whole, "the head was exported, too"
    found = fast.decode(pixels)
    assert [type(p) for p in found] == [type(p) for p in model.decode(pixels)]
    if room == "two-stage" and precision == "32":
        for a, b in zip(found, model.decode(pixels), strict=True):
            torch.testing.assert_close(a.boxes, b.boxes, atol=0.05, rtol=0)
            torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=0)


def test_openvino_in_bf16():
    need("openvino")
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    model, pixels = build("two-stage"), images()
    with torch.no_grad():
        truth = model(pixels)
    fast = convert.convert(model, "openvino", precision="bf16")
    same(fast(pixels), truth, 0.05)
    assert len(fast.decode(pixels)) == 2


class Small(Backbone):
    """One convolution, which is all that a compiler needs to be seen."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4)
        self.features = FeatureSpec((4,), (2,))
        self.in_channels, self.mean, self.std = 3, (0.5,) * 3, (0.25,) * 3

    def forward(self, x):
        return [torch.relu(self.norm(self.conv(x)))]


def small(head=visionkit.LinearHead):
    torch.manual_seed(0)
    return visionkit.VisionModel(Small(), head, CLASSES, preprocessing=visionkit.Preprocessing(64)).eval()


def test_compiled_code_computes_the_same():
    if not available.has_compiler():
        pytest.skip("no C++ compiler")
    model, pixels = small(), images()
    with torch.no_grad():
        truth = model(pixels)
    same(convert.convert(model, "compile", precision="32")(pixels), truth, 1e-4)


def test_what_torch_cannot_compile_is_one_line(monkeypatch, tiny_model):
    def fail(images):
        raise torch._dynamo.exc.Unsupported("\ngraph break in user code\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    monkeypatch.setattr(available, "has_compiler", lambda: True)
    with pytest.raises(UsageError, match=r"torch cannot compile this network \(graph break in user code\)$"):
        convert.convert(tiny_model, "compile")(images())


class TestTorch:
    def test_norms_are_gone_and_weights_lie_ready(self):
        fast = convert.convert(build("two-stage"), precision="bf16")
        kinds = [type(m) for m in fast.modules()]
        assert nn.BatchNorm2d not in kinds
        assert Folded in kinds
        if torch.backends.mkldnn.is_available():
            assert PackedConv2d in kinds
            assert nn.Conv2d not in kinds
        assert fast.head.classifier.weight.dtype == torch.bfloat16

    def test_weights_are_cast_once_and_the_rest_is_not(self):
        fast = convert.convert(build("one-stage"), precision="bf16")
        norms = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms, "the towers' norms share a convolution, and stay"
        assert {p.dtype for m in norms for p in m.parameters()} == {torch.float32}

    def test_the_model_itself_is_not_changed(self, tiny_model):
        before = {k: v.clone() for k, v in tiny_model.state_dict().items()}
        calls = []
        tiny_model.backbone.register_forward_hook(lambda *_: calls.append(1))
        fast = convert.convert(tiny_model, precision="bf16")
        assert calls == [], "looking at the network is no prediction"
        fast.decode(images())
        assert isinstance(fast, PredictionModel)
        assert type(tiny_model) is visionkit.VisionModel
        assert all(torch.equal(v, before[k]) for k, v in tiny_model.state_dict().items())
        assert all(p.requires_grad for p in tiny_model.parameters())

    def test_other_shapes_and_orders(self):
        model = build("classification")
        fast = convert.convert(model, precision="32")
        for pixels in (
            images(),
            images(5),
            images(1)[..., :32, :48],
            images().contiguous(memory_format=torch.channels_last),
        ):
            with torch.no_grad():
                same(fast(pixels), model(pixels), 1e-5)

    def test_predictions_of_an_original_size(self):
        model = build("two-stage")
        for a, b in zip(convert.convert(model, precision="32").predict(images()), model.predict(images()), strict=True):
            torch.testing.assert_close(a.boxes, b.boxes, atol=0.01, rtol=0)


class Stubborn(visionkit.LinearHead):
    """A head whose code depends on values, which nothing exports."""

    def forward(self, features):
        if features[-1].mean().item() > 1e6:
            raise AssertionError
        return super().forward(features)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_head_that_cannot_be_exported_is_computed_by_torch(backend):
    need(backend)
    model = small(Stubborn)
    fast = convert.convert(model, backend, precision="32")
    with torch.no_grad():
        same(fast(images()), model(images()), 1e-4)
    assert not fast.compute.whole


def test_a_network_that_cannot_be_exported_is_refused():
    need("openvino")
    model = small()
    model.backbone.norm.register_forward_hook(lambda m, i, o: o * 2 if o.mean().item() > 0 else o)
    with pytest.raises(
        UsageError, match="--backend openvino: this network cannot be exported: take --backend torch"
    ) as e:
        convert.convert(model, "openvino", precision="32")(images())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("147456 requested and 25408 written")]
)
def test_a_full_disk_is_not_laid_to_the_network(monkeypatch, tiny_model, error):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def save(self, *_, **__):
        raise error

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", save)
    images = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(DataError, match=r"the network cannot be written there \((No space|147456).*set TMPDIR"):
        convert.convert(tiny_model.eval(), "onnx")(images)


def test_each_shape_is_exported_once(monkeypatch):
    made = []

    def engine(program):
        made.append(program)
        module = program.module()
        return lambda pixels: list(module(pixels))

    monkeypatch.setattr(exported, "engine", lambda *_: engine)
    monkeypatch.setattr(convert, "check_backend", lambda *_: None)
    model = small()
    fast = convert.convert(model, "onnx", precision="32")
    for count in (2, 3, 2, 3):
        with torch.no_grad():
            same(fast(images(count)), model(images(count)), 1e-5)
    assert len(made) == 2


def test_a_model_in_training_is_refused(tiny_model):
    with pytest.raises(UsageError, match=r"model\.eval\(\)"):
        convert.convert(tiny_model.train())
