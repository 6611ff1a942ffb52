"""The same features out of every kind of file, compared with the network that the file came from."""

import argparse
import re

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import visionkit
from visionkit import ResNet, TimmBackbone
from visionkit.core.errors import DataError
from visionkit.models import checkpoint
from visionkit.models.backbone_file import export_backbone

SMALL = {"layers": (1, 1, 1, 1), "block": "basic"}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def randomise(net):
    """Give each BatchNorm statistics and weights of its own, so that a mix-up shows."""
    torch.manual_seed(0)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.8, 1.2)
            m.weight.data.uniform_(0.3, 0.6)
            m.bias.data.normal_(0, 0.1)
    return net.eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def theirs():
    """A ResNet of torchvision's, with one block a stage to be fast."""
    return randomise(torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]))


@pytest.fixture(scope="module")
def expected(theirs, x):
    """Torchvision's own levels."""
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        levels = []
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            y = layer(y)
            levels.append(y)
    return levels


def features(net, x):
    with torch.no_grad():
        return net.eval()(x)


def same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(1, float(b.abs().max()))


def under(prefix, state):
    return {prefix + k: v for k, v in state.items()}


def backbone_of(theirs):
    return {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}


def noise(state):
    """Tensors like these that must not be taken."""
    return {k: torch.full_like(v, 7) for k, v in state.items()}


def files(state, bare):
    """Kind of file -> its content, and whether its weights are averaged."""
    plain = noise(state)
    args = argparse.Namespace(model="resnet18", lr=0.1)
    return {
        "torchvision": (state, False),
        "torchvision, data parallel": ({"model": under("module.", state)}, False),
        "torchvision's reference": ({"model": state, "epoch": 1, "args": args}, False),
        "torchvision's reference, averaged": (
            {"model": plain, "model_ema": {"n_averaged": torch.tensor(9), **under("module.", state)}, "args": args},
            True,
        ),
        "timm's training": ({"arch": "resnet18", "state_dict": state, "args": args, "epoch": 1}, False),
        "timm's training, averaged": ({"arch": "resnet18", "state_dict": plain, "state_dict_ema": state}, True),
        "an average without counters": (
            {"state_dict": plain, "state_dict_ema": {k: v for k, v in state.items() if "num_batches" not in k}}, True
        ),
        "features only": (bare, False),
        **{
            f"Lightning, {p}": ({"state_dict": under(p, state), "pytorch-lightning_version": "2.6"}, False)
            for p in ("model.backbone.", "encoder.", "net.")
        },
        **{
            f"Lightning, {p}": ({"state_dict": under("model.backbone.", plain) | under(p, state)}, True)
            for p in ("ema_model.backbone.", "model_ema.module.backbone.")
        },
        "Lightning's WeightAveraging": (
            {
                "state_dict": under("model.backbone.", state),
                "current_model_state": under("model.backbone.", plain),
                "averaging_state": {"n_averaged": torch.tensor(3)},
            },
            True,
        ),
        "several state dicts": ({"encoder": state, "head": {"weight": torch.ones(3, 512)}, "step": 4}, False),
    }  # fmt: skip


KINDS = list(files({}, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_files(tmp_path, theirs, expected, x, kind):
    content, averaged = files(theirs.state_dict(), backbone_of(theirs))[kind]
    torch.save(content, tmp_path / "w.pth")
    net = ResNet(**SMALL, weights=str(tmp_path / "w.pth"))
    same(features(net, x), expected)
    assert net.weights_report.coverage == 1
    assert net.weights_report.averaged is averaged
    assert ("averaged weights (EMA)" in str(net.weights_report)) is averaged


@pytest.mark.parametrize(
    ("room", "kind"),
    [
        *(("Classifier", k) for k in ("visionkit.save", "task", "task, averaged", "export", "export of an average")),
        *(("Detector", k) for k in ("visionkit.save", "task", "export")),
        *(("Segmenter", k) for k in ("visionkit.save", "task, averaged", "export")),
    ],
)
def test_visionkits_own(tmp_path, theirs, expected, x, room, kind):
    backbone = ResNet(**SMALL, mean=MEAN, std=STD)
    backbone.load_state_dict(backbone_of(theirs))
    head, neck = {
        "Classifier": (visionkit.LinearHead, visionkit.IdentityNeck),
        "Detector": (visionkit.FCOSHead, lambda features: visionkit.FPN(features, channels=32)),
        "Segmenter": (visionkit.FCNHead, visionkit.IdentityNeck),
    }[room]
    model = visionkit.VisionModel(backbone, head, ["a", "b"], neck)
    path = tmp_path / "m.ckpt"
    if kind in ("visionkit.save", "export"):
        visionkit.save(model, path)
    else:
        state = under("model.", model.state_dict())
        content = {"state_dict": state, "visionkit": checkpoint.spec_of_model(model, task=f"visionkit.{room}")}
        if "average" in kind:
            content["current_model_state"] = noise(state)
        checkpoint.write(content, path)
    averaged = "average" in kind
    if "export" in kind:
        passport = export_backbone(path, tmp_path / "b.safetensors")
        assert passport.averaged is averaged
        path, averaged = tmp_path / "b.safetensors", False
    net = ResNet(**SMALL, weights=str(path))
    same(features(net, x), expected)
    report = net.weights_report
    assert (report.coverage, report.averaged) == (1, averaged)
    assert (net.mean, net.std) == (MEAN, STD)  # inherited
    assert report.statistics.mean_from == "file"
    if kind.startswith("task"):
        assert report.kind == f"visionkit checkpoint of a {room}, 2 classes"
        assert re.search(r"left over: (neck .*)?head \(", str(report))


@pytest.mark.parametrize("form", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18d", "tf_efficientnet_lite0"])
def test_timms_networks(tmp_path, x, name, form):
    theirs = randomise(timm.create_model(name))
    path = tmp_path / f"w{form}"
    (torch.save if form == ".pth" else save_file)(theirs.state_dict(), path)
    with torch.no_grad():
        final, levels = theirs.forward_intermediates(x)
    ours = TimmBackbone(name, weights=str(path))
    got = features(ours, x)
    same(got[:-1], [levels[i] for i in ours._levels[:-1]])
    same(got[-1:], [final])
    if name == "resnet18d":
        net = ResNet(18, stem="deep", avg_down=True, weights=str(path))
        same(features(net, x)[-1:], [final])


def test_names_of_features_only(tmp_path, x):
    theirs = randomise(timm.create_model("mobilenetv3_small_050", features_only=True))
    torch.save({k.replace("blocks.", "blocks_", 1): v for k, v in theirs.state_dict().items()}, tmp_path / "w.pth")
    ours = TimmBackbone("mobilenetv3_small_050", weights=str(tmp_path / "w.pth"))
    with torch.no_grad():
        same(features(ours, x), theirs(x))


def test_half_precision_is_exact_after_the_cast(tmp_path, x):
    theirs = randomise(torchvision.models.resnet18()).half()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    whole = theirs.float()
    with torch.no_grad():
        y = whole.layer1(whole.maxpool(whole.relu(whole.bn1(whole.conv1(x)))))
        level = whole.layer4(whole.layer3(whole.layer2(y)))
    same(features(ResNet(18, weights=str(tmp_path / "w.safetensors")), x)[-1:], [level])


class TestExportedFilesInOtherPrograms:
    def export(self, tmp_path, backbone):
        visionkit.save(visionkit.VisionModel(randomise(backbone), visionkit.LinearHead, ["a"]), tmp_path / "m.ckpt")
        export_backbone(tmp_path / "m.ckpt", tmp_path / "b.safetensors")
        return str(tmp_path / "b.safetensors")

    def test_torchvision(self, tmp_path, x):
        from safetensors.torch import load_file

        ours = ResNet(18).to(memory_format=torch.channels_last)
        path = self.export(tmp_path, ours)
        theirs = torchvision.models.resnet18()
        theirs.fc = nn.Identity()
        state = load_file(path)
        assert all(t.is_contiguous() and t.dtype in (torch.float32, torch.int64) for t in state.values())
        theirs.load_state_dict(state)
        with torch.no_grad():
            same([theirs.eval()(x)], [ours(x)[-1].mean((2, 3))])

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("resnet18", lambda: ResNet(18)),
            ("resnet18d", lambda: ResNet(18, stem="deep", avg_down=True)),
            ("resnet18d", lambda: TimmBackbone("resnet18d")),
            ("tf_efficientnet_lite0", lambda: TimmBackbone("tf_efficientnet_lite0")),
        ],
    )
    def test_timm(self, tmp_path, x, name, ours):
        net = ours()
        path = self.export(tmp_path, net)
        theirs = timm.create_model(name, num_classes=0, checkpoint_path=path).eval()
        with torch.no_grad():
            same([theirs.forward_features(x)], [features(net, x)[-1]])
        again = TimmBackbone(name, weights=path)
        assert again.weights_report.coverage == 1
        same(features(again, x)[-1:], [features(net, x)[-1]])


class TestStatistics:
    @pytest.fixture
    def ckpt(self, tmp_path):
        backbone = ResNet(**SMALL, mean=MEAN, std=STD)
        visionkit.save(visionkit.VisionModel(backbone, visionkit.LinearHead, ["a"]), tmp_path / "m.ckpt")
        return str(tmp_path / "m.ckpt")

    def net(self, path, **arguments):
        return ResNet(**SMALL, weights=path, **arguments)

    def test_the_model_normalises_with_the_inherited_ones(self, ckpt):
        model = visionkit.VisionModel(self.net(ckpt), visionkit.LinearHead, ["a"])
        images = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)  # 0.2
        expected = torch.tensor([(0.2 - m) / s for m, s in zip(MEAN, STD, strict=True)])
        torch.testing.assert_close(model.normalise(images)[0, :, 0, 0], expected, atol=1e-6, rtol=0)

    def test_what_is_given_wins_and_both_are_said(self, ckpt):
        net = self.net(ckpt, mean=(0.5, 0.5, 0.5))
        assert (net.mean, net.std) == ((0.5, 0.5, 0.5), STD)
        line = str(net.weights_report.statistics)
        assert line == (
            "mean 0.5 0.5 0.5: as given; std 0.4 0.5 0.6: from the checkpoint; the checkpoint says mean 0.1 0.2 0.3"
        )

    def test_other_channels_take_the_average(self, ckpt):
        net = self.net(ckpt, in_channels=1)
        assert net.mean == pytest.approx((0.2,))
        assert net.std == pytest.approx((0.5,))

    def test_nothing_in_the_file(self, tmp_path):
        torch.save(ResNet(**SMALL).state_dict(), tmp_path / "w.pth")
        report = self.net(str(tmp_path / "w.pth")).weights_report
        assert str(report).endswith("not in the file, ImageNet's assumed")
        torch.save(timm.create_model("resnet18d").state_dict(), tmp_path / "w.pth")
        report = TimmBackbone("resnet18d", weights=str(tmp_path / "w.pth")).weights_report
        assert str(report).endswith("not in the file, those of timm's resnet18d assumed")

    def test_hub_names_have_timms(self, tmp_path, monkeypatch):
        path = tmp_path / "model.safetensors"
        net = timm.create_model("vit_tiny_patch16_224")
        save_file(net.state_dict(), path)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(path))
        name = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
        net = TimmBackbone("vit_tiny_patch16_224", weights=name)
        assert net.mean == (0.5, 0.5, 0.5)
        assert f"from timm's configuration of {name[5:]}" in str(net.weights_report)

    def test_a_backbone_of_the_users_own(self, tmp_path, ckpt):
        class Mine(ResNet):
            def __init__(self, weights):
                super().__init__(**SMALL)
                self.load(weights, mean=(0.3, 0.3, 0.3), assumed="mine")

        net = Mine(ckpt)
        assert (net.mean, net.std) == (ResNet(18).mean, STD)  # the constructor sets what was given
        assert net.weights_report.statistics.mean_from == "given"


class TestWaysOut:
    def refused(self, make):
        with pytest.raises(DataError) as e:
            make()
        assert "\n" not in str(e.value)
        return str(e.value)

    def test_resnet_into_timm_and_back(self, tmp_path):
        path = str(tmp_path / "resnet18d.pth")
        torch.save(timm.create_model("resnet18d").state_dict(), path)
        said = self.refused(lambda: TimmBackbone("convnext_atto", weights=path))
        assert (
            "the file holds a ResNet of depth 18, stem deep, avg_down true: use --model.backbone ResNet "
            "--model.backbone.depth 18 --model.backbone.stem deep --model.backbone.avg_down true" in said
        )
        path = str(tmp_path / "convnext_atto.pth")
        torch.save(timm.create_model("convnext_atto").state_dict(), path)
        said = self.refused(lambda: ResNet(18, weights=path))
        assert (
            "the file holds timm's convnext_atto: use --model.backbone TimmBackbone --model.backbone.name convnext_atto"
            in said
        )
        said = self.refused(lambda: TimmBackbone("resnet18d", weights=path))
        assert "name: convnext_atto" in said

    def test_other_depth_and_back_to_the_plain_one(self, tmp_path):
        torch.save(ResNet(18).state_dict(), tmp_path / "w.pth")
        said = self.refused(lambda: ResNet(34, weights=str(tmp_path / "w.pth")))
        assert "depth: 18: use --model.backbone.depth 18" in said
        said = self.refused(lambda: ResNet(18, layers=(1, 1, 1, 1), weights=str(tmp_path / "w.pth")))
        assert "--model.backbone.depth 18 --model.backbone.layers null" in said

    def test_a_renamed_layer_has_its_name_in_the_file(self, tmp_path):
        state = {k.replace("layer3.", "stage3."): v for k, v in ResNet(18).state_dict().items()}
        torch.save(under("m.", state), tmp_path / "w.pth")
        said = self.refused(lambda: ResNet(18, weights=str(tmp_path / "w.pth")))
        assert "first missing: layer3.0.conv1.weight (the file has m.stage3.0.conv1.weight)" in said

    def test_a_visionkit_checkpoint_says_it_itself(self, tmp_path):
        backbone = TimmBackbone("tf_efficientnet_lite0", output_stride=16)
        visionkit.save(visionkit.VisionModel(backbone, visionkit.LinearHead, ["a"]), tmp_path / "m.ckpt")
        said = self.refused(lambda: ResNet(18, weights=str(tmp_path / "m.ckpt")))
        assert "--model.backbone.name tf_efficientnet_lite0 --model.backbone.output_stride 16" in said

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("features.0.0.weight", None),
            ("features.1.0.block.0.0.weight", "torchvision's EfficientNet"),
            ("encoder.layers.encoder_layer_0.ln_1.weight", "torchvision's vision transformer"),
            ("vit.embeddings.patch_embeddings.projection.weight", "Hugging Face"),
            ("model.2.cv1.conv.weight", "YOLO"),
        ],
    )
    def test_families_that_cannot_be_loaded(self, tmp_path, name, words):
        torch.save({name: torch.ones(2, 2)}, tmp_path / "zzzz.pth")
        said = self.refused(lambda: ResNet(18, weights=str(tmp_path / "zzzz.pth")))
        assert (words in said) if words else ("looks like" not in said)
