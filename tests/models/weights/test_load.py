"""Weights of every format, prefix and shape go in, or say why not."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from visionkit.core.errors import DataError, UsageError
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.backbones.timm import TimmBackbone
from visionkit.models.weights import match as weights_match
from visionkit.models.weights.file import find_weights, read_state_dict
from visionkit.models.weights.load import StageCount, load_weights


@pytest.fixture
def real(data_root):
    """Paths of the real weights and photos by name."""

    def path(name):
        found = data_root / "weights" / name
        if not found.exists():
            pytest.skip(f"{name} is not in {found.parent}")
        return found

    return path


def tiny(**arguments):
    """A small ResNet; two of them never have equal values."""
    return ResNet(18, layers=(1, 1, 1, 1), zero_init_last=False, **arguments)


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    net = tiny()
    state = net.state_dict()
    for i, t in enumerate(state.values()):
        t.add_(i % 7 + 1)  # integer counters too
    return {k: v.clone() for k, v in state.items()}


def assert_loaded(module, expected):
    state = module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, msg=name)


def snapshot(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


class TestFormats:
    @pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".weights"])
    def test_torch_files(self, tmp_path, source, suffix):
        path = tmp_path / f"w{suffix}"
        torch.save(source, path)
        net = tiny(weights=str(path))
        assert_loaded(net, source)
        assert net.weights_report.coverage == 1
        assert net.weights_report.source == str(path)

    def test_the_older_torch_format(self, tmp_path, source):
        torch.save(source, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        assert_loaded(tiny(weights=str(tmp_path / "w.pth")), source)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
    def test_safetensors_whatever_the_name(self, tmp_path, source, name):
        save_file(source, tmp_path / name)
        assert_loaded(tiny(weights=str(tmp_path / name)), source)

    @pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_state_dict"])
    def test_containers(self, tmp_path, source, key):
        torch.save({"epoch": 3, "optimizer": {"state": {}}, key: OrderedDict(source)}, tmp_path / "w.ckpt")
        assert_loaded(tiny(weights=str(tmp_path / "w.ckpt")), source)

    def test_nested_containers_and_the_averaged_of_two(self, tmp_path, source):
        other = {k: torch.zeros_like(v) for k, v in source.items()}
        torch.save({"model": other, "ema": {"module": {"state_dict": source}}}, tmp_path / "w.pt")
        assert_loaded(tiny(weights=str(tmp_path / "w.pt")), source)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_cast(self, tmp_path, source, dtype):
        half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in source.items()}
        save_file(half, tmp_path / "w.safetensors")
        net = tiny(weights=str(tmp_path / "w.safetensors"))
        assert {t.dtype for t in net.state_dict().values()} == {torch.float32, torch.int64}
        assert_loaded(net, {k: v.to(source[k].dtype) for k, v in half.items()})


class TestPrefixes:
    @pytest.mark.parametrize(
        "prefix", ["", "model.", "module.", "backbone.", "model.backbone.", "encoder.", "net.", "a.b.c.d."]
    )
    def test_any_prefix(self, tmp_path, source, prefix):
        named = {prefix + k: v for k, v in source.items()} | {"head.fc.weight": torch.ones(5, 512)}
        torch.save({"state_dict": named}, tmp_path / "w.ckpt")
        net = tiny(weights=str(tmp_path / "w.ckpt"))
        assert_loaded(net, source)
        assert net.weights_report.prefix == prefix
        assert net.weights_report.unused == ("head.fc.weight",)

    def test_the_prefix_that_fits_best_wins(self, tmp_path, source):
        student = {f"student.{k}": v for k, v in source.items()}
        teacher = {f"teacher.{k}": v.new_zeros([3] * v.dim()) for k, v in source.items()}
        torch.save(teacher | student, tmp_path / "w.pth")
        net = tiny(weights=str(tmp_path / "w.pth"))
        assert_loaded(net, source)
        assert net.weights_report.prefix == "student."

    @pytest.mark.parametrize(
        ("prefix", "reported"), [("", ""), ("net.", ""), ("model.backbone.net.", "model.backbone.")]
    )
    def test_a_module_that_wraps_its_names(self, tmp_path, source, prefix, reported):
        torch.save({prefix + k: v for k, v in source.items()}, tmp_path / "w.pth")
        wrapper = nn.Module()
        wrapper.net = tiny()
        report = load_weights(wrapper, tmp_path / "w.pth")
        assert (report.coverage, report.prefix) == (1, reported)
        assert_loaded(wrapper.net, source)

    def test_names_of_timms_features_only(self, tmp_path):
        import timm

        theirs = timm.create_model("regnetx_002", features_only=True)
        assert not {k.split(".")[0] for k in theirs.state_dict()} - {"stem", "s1", "s2", "s3", "s4"}
        theirs = timm.create_model("mobilenetv3_small_050", features_only=True)
        flat = {k.replace("blocks.", "blocks_", 1): v for k, v in theirs.state_dict().items()}
        torch.save(flat, tmp_path / "w.pth")
        ours = TimmBackbone("mobilenetv3_small_050", weights=str(tmp_path / "w.pth"))
        assert ours.weights_report.coverage == 1
        assert torch.equal(ours.net.blocks[1][0].conv_pw.weight, theirs.blocks[1][0].conv_pw.weight)


class TestAdaptation:
    @pytest.mark.parametrize(("channels", "rule"), [(1, "summed over 3"), (5, "scaled by 3/5"), (2, "scaled by 3/2")])
    def test_first_convolution(self, tmp_path, source, channels, rule):
        torch.save(source, tmp_path / "w.pth")
        net = tiny(in_channels=channels, weights=str(tmp_path / "w.pth"))
        w = source["conv1.weight"]
        expected = {
            1: w.sum(1, keepdim=True),
            2: w[:, :2] * 1.5,
            5: torch.stack([w[:, i % 3] for i in range(5)], 1) * 0.6,
        }[channels]
        torch.testing.assert_close(net.conv1.weight.data, expected)
        report = net.weights_report
        assert report.coverage == 1
        assert len(report.adapted) == 1
        assert report.adapted[0].startswith("conv1.weight: ")
        assert rule in report.adapted[0]
        assert rule in str(report)
        assert report.stages[0] == StageCount("stem", 4, 1, 0)

    @pytest.mark.parametrize("channels", [1, 2, 5, 7])
    def test_the_rule_is_timms(self, channels):
        from timm.models import adapt_input_conv

        w = torch.randn(4, 3, 3, 3)
        torch.testing.assert_close(weights_match.adapt_input(w, channels)[0], adapt_input_conv(channels, w))

    def test_one_channel_to_three_answers_grey_alike(self, tmp_path):
        grey = tiny(in_channels=1).eval()
        torch.save(grey.state_dict(), tmp_path / "w.pth")
        colour = tiny(weights=str(tmp_path / "w.pth")).eval()
        x = torch.randn(1, 1, 32, 32)
        torch.testing.assert_close(colour(x.expand(-1, 3, -1, -1))[-1], grey(x)[-1], rtol=1e-3, atol=1e-4)

    def test_deep_stem(self, tmp_path):
        net = tiny(stem="deep")
        torch.save(net.state_dict(), tmp_path / "w.pth")
        report = tiny(stem="deep", in_channels=1, weights=str(tmp_path / "w.pth")).weights_report
        assert report.adapted[0].startswith("conv1.0.weight: ")

    def test_other_shapes_are_not_adapted(self, tmp_path, source):
        torch.save(source | {"conv1.weight": torch.ones(64, 3, 3, 3)}, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"98\.\d%.*first missing: conv1\.weight \(64x3x3x3 in the file"):
            tiny(weights=str(tmp_path / "w.pth"))  # one of 50 tensors, above 95 %, but the one that all others build on
        report = tiny(weights=str(tmp_path / "w.pth"), partial=True).weights_report
        assert "another shape" in report.verdict
        assert report.mismatched == ("conv1.weight (64x3x3x3 in the file, 64x3x7x7 here)",)
        assert report.coverage == pytest.approx(1 - 1 / len([k for k in source if "tracked" not in k]))


class TestCoverage:
    def test_counters_may_be_absent_and_are_not_counted(self, tmp_path, source):
        bare = {k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}
        torch.save(bare, tmp_path / "w.pth")
        report = tiny(weights=str(tmp_path / "w.pth")).weights_report
        assert report.coverage == 1
        assert report.missing == ()
        assert sum(s.loaded for s in report.stages) == len(bare)

    def test_classifier_leftovers_do_no_harm(self, tmp_path, source):
        torch.save(source | {"fc.weight": torch.ones(9, 512), "fc.bias": torch.ones(9)}, tmp_path / "w.pth")
        report = tiny(weights=str(tmp_path / "w.pth")).weights_report
        assert report.unused == ("fc.weight", "fc.bias")
        assert report.surplus == ()

    def test_a_smaller_file_names_coverage_first_names_and_depth(self, tmp_path):
        torch.save(ResNet(18).state_dict(), tmp_path / "r18.pth")
        net = ResNet(34)
        before = snapshot(net)
        with pytest.raises(DataError) as e:
            load_weights(net, tmp_path / "r18.pth")
        assert "\n" not in str(e.value)
        for part in ("r18.pth", "55.6%", "first missing: layer1.2.conv1.weight", "depth: 18", "partial: true"):
            assert part in str(e.value)
        assert_loaded(net, before)  # nothing was written

    def test_a_deeper_file_is_refused_though_every_tensor_is_there(self, tmp_path):
        torch.save(ResNet(34).state_dict(), tmp_path / "r34.pth")
        with pytest.raises(DataError, match=r"100\.0%.*first: layer1\.2\.conv1\.weight.*depth: 34"):
            ResNet(18, weights=str(tmp_path / "r34.pth"))
        net = ResNet(18, weights=str(tmp_path / "r34.pth"), partial=True)
        assert net.weights_report.surplus[0] == "layer1.2.conv1.weight"

    def test_another_kind_of_block(self, tmp_path, source):
        torch.save({f"backbone.{k}": v for k, v in source.items()}, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"prefix 'backbone\.'.*layers: \[1, 1, 1, 1\], block: basic"):
            ResNet(50, weights=str(tmp_path / "w.pth"))

    def test_squeeze_excitation_and_stem_are_named(self, tmp_path):
        torch.save(tiny(squeeze_excitation=True, stem="deep", avg_down=True).state_dict(), tmp_path / "w.pth")
        with pytest.raises(DataError, match="stem: deep, avg_down: true, squeeze_excitation: true"):
            tiny(weights=str(tmp_path / "w.pth"))

    def test_a_renamed_layer_counts_in_its_stage(self, tmp_path, source):
        renamed = {k.replace("layer3.", "stage3."): v for k, v in source.items()}
        torch.save(renamed, tmp_path / "w.pth")
        net = tiny()
        before = snapshot(net)
        with pytest.raises(DataError, match=r"first missing: layer3\.0\.conv1\.weight.*first: stage3"):
            load_weights(net, tmp_path / "w.pth")
        assert_loaded(net, before)
        report = load_weights(net, tmp_path / "w.pth", partial=True)
        assert {s.name: s.missing for s in report.stages} == {
            "stem": 0, "layer1": 0, "layer2": 0, "layer3": 15, "layer4": 0
        }  # fmt: skip
        assert_loaded(net, {k: v for k, v in source.items() if not k.startswith("layer3.")})
        assert_loaded(net, {k: v for k, v in before.items() if k.startswith("layer3.")})

    def test_threshold(self, tmp_path, source):
        some = {k: v for k, v in source.items() if not k.startswith("layer3.")}
        torch.save(some, tmp_path / "w.pth")
        report = load_weights(tiny(), tmp_path / "w.pth", min_coverage=0.7)
        total = len([k for k in source if "tracked" not in k])
        assert report.coverage == pytest.approx(1 - 15 / total)
        with pytest.raises(DataError):
            load_weights(tiny(), tmp_path / "w.pth", min_coverage=0.9)

    def test_partial_still_wants_something(self, tmp_path):
        torch.save({"other.thing": torch.ones(2)}, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"0\.0%"):
            load_weights(tiny(), tmp_path / "w.pth", partial=True)

    def test_stages_may_be_given_or_are_the_children(self, tmp_path):
        net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
        torch.save(net.state_dict(), tmp_path / "w.pth")
        assert [s.name for s in load_weights(net, tmp_path / "w.pth").stages] == ["a", "b", "c"]
        report = load_weights(net, tmp_path / "w.pth", stages={"late": [net["b"], net["c"]]})
        assert report.stages == (StageCount("late", 4, 0, 0), StageCount("other", 2, 0, 0))

    def test_report_reads_as_aligned_lines(self, tmp_path, source):
        torch.save({f"m.{k}": v for k, v in source.items()} | {"fc.bias": torch.ones(1)}, tmp_path / "w.pth")
        lines = str(tiny(weights=str(tmp_path / "w.pth")).weights_report).splitlines()
        assert lines[0].endswith("w.pth: 100.0% of the tensors loaded (under 'm.')")
        assert lines[1].split() == ["stage", "loaded", "adapted", "missing"]
        assert lines[2].split() == ["stem", "5", "0", "0"]
        assert len({len(line) for line in lines[1:7]}) == 1
        assert lines[7] == "left over: fc (1)"


class TestFaultyFiles:
    def check(self, path, pattern):
        with pytest.raises(DataError, match=pattern) as e:
            read_state_dict(path)
        assert "\n" not in str(e.value)
        assert path.name in str(e.value)

    def test_zero_bytes(self, tmp_path):
        (tmp_path / "w.pth").touch()
        self.check(tmp_path / "w.pth", "empty")

    @pytest.mark.parametrize("keep", [1, 5, 50, 1000, -1000, -1])
    @pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
    def test_truncated(self, tmp_path, kind, keep):
        path = tmp_path / "w.file"
        state = {"a": torch.randn(40, 40), "b": torch.randn(3)}
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
        path.write_bytes(path.read_bytes()[:keep])
        self.check(path, "damaged|neither")

    @pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a photo", b"<!doctype html>", b"PK\x03\x04 a zip"])
    def test_other_formats(self, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        self.check(tmp_path / "w.pth", "neither|damaged")

    @pytest.mark.parametrize("content", [{"epoch": 1}, [torch.ones(1)], torch.ones(1), {"state_dict": {}}])
    def test_no_tensors(self, tmp_path, content):
        torch.save(content, tmp_path / "w.pth")
        self.check(tmp_path / "w.pth", "no tensors")

    @pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
    def test_code_does_not_run(self, tmp_path, kind):
        marker = tmp_path / "marker"

        class Malicious:
            def __reduce__(self):
                return os.system, (f"touch {marker}",)

        path = tmp_path / "w.pth"
        content = {"state_dict": {"a": torch.ones(1)}, "x": Malicious()}
        if kind == "pickle":
            path.write_bytes(pickle.dumps({"x": Malicious()}, protocol=2))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
        self.check(path, r"refused, it holds the Python object posix\.system")
        assert not marker.exists()

    def test_a_whole_pickled_model_is_refused_by_name(self, tmp_path):
        torch.save(nn.Linear(1, 1), tmp_path / "w.pth")
        self.check(tmp_path / "w.pth", r"torch\.nn\.modules\.linear\.Linear")


class TestFinding:
    def test_an_address(self):
        with pytest.raises(UsageError, match="weights https://x.org/w.pth: is an address, .*; download it first"):
            find_weights("https://x.org/w.pth")

    @pytest.mark.parametrize("name", ["nothere.pth", "timm/nothere.pth", "some/where"])
    def test_no_such_file(self, name):
        with pytest.raises(UsageError, match=f"{name}: no such file; check the path"):
            find_weights(name)

    def test_a_folder_without_a_run_is_no_file(self, tmp_path):
        with pytest.raises(DataError, match="is a folder, and no run folder"):
            find_weights(tmp_path)

    def test_a_local_file_comes_before_a_hub_name(self, tmp_path, monkeypatch):
        (tmp_path / "timm").mkdir()
        (tmp_path / "timm" / "resnet18.x").write_bytes(b"x")
        monkeypatch.chdir(tmp_path)
        assert find_weights("timm/resnet18.x") == Path("timm/resnet18.x")


class TestRealFiles:
    def test_tiny_imagenet_resnet18(self, real):
        path = real("resnet18_tinyimagenet.safetensors")
        net = ResNet(18, weights=str(path))
        assert net.weights_report.coverage == 1
        assert set(net.weights_report.unused) == {"fc.weight", "fc.bias"}
        tensors = read_state_dict(path)
        assert tensors["layer4.1.conv2.weight"].dtype == torch.float16
        assert torch.equal(net.layer4[1].conv2.weight, tensors["layer4.1.conv2.weight"].float())
        with pytest.raises(DataError, match="depth: 18"):
            ResNet(34, weights=str(path))

    def test_efficientnet_recognises_the_check_images(self, real):
        from PIL import Image
        from torchvision.transforms import v2

        path = real("tf_efficientnet_lite0.safetensors")
        net = TimmBackbone("tf_efficientnet_lite0", weights=str(path)).eval()
        assert net.weights_report.coverage == 1
        assert set(net.weights_report.unused) == {"classifier.weight", "classifier.bias"}
        rows = [line.split("\t") for line in real("imagenet_classes.txt").read_text().splitlines()]
        index = {row[1]: int(row[0]) for row in rows}
        prepare = v2.Compose(
            [
                v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(224),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(net.mean, net.std),
            ]
        )
        photos = sorted(real("check_images").glob("*.JPEG"))
        assert len(photos) == 8
        x = torch.stack([prepare(Image.open(p).convert("RGB")) for p in photos])
        classifier = read_state_dict(path)
        with torch.no_grad():
            pooled = net(x)[-1].mean((2, 3))
            found = (pooled @ classifier["classifier.weight"].T + classifier["classifier.bias"]).argmax(1).tolist()
        assert found == [index[p.name.split("_")[0]] for p in photos]


SEPARABLE = {"layers": (1, 1, 1, 1), "block": "basic", "depthwise_separable": True}


class TestSeveralNetworks:
    """A file with two whole networks: the averaged one, or the one that the user names."""

    def two(self, path, first, second, *, same=False):
        torch.manual_seed(0)
        nets = [ResNet(**SEPARABLE).state_dict() for _ in range(2)]
        state = {first + k: v for k, v in nets[0].items()}
        state |= {second + k: v for k, v in nets[0 if same else 1].items()}
        torch.save({"state_dict": state}, path)
        return nets

    @pytest.mark.parametrize("first", [True, False])
    def test_the_teacher_is_averaged(self, tmp_path, first):
        names = ("teacher.backbone.", "student.backbone.")
        nets = self.two(tmp_path / "w.pth", *(names if first else reversed(names)))
        net = ResNet(weights=str(tmp_path / "w.pth"), **SEPARABLE)
        assert torch.equal(net.conv1.weight, nets[0 if first else 1]["conv1.weight"])
        assert net.weights_report.averaged

    def test_two_without_a_reason_are_refused_and_can_be_named(self, tmp_path):
        nets = self.two(tmp_path / "w.pth", "module.encoder_k.", "module.encoder_q.")
        where = (
            rf"under state_dict\.module\.encoder_\w, state_dict\.module\.encoder_\w: say which, as {tmp_path}/w\.pth#"
        )
        with pytest.raises(DataError, match=where):
            ResNet(weights=str(tmp_path / "w.pth"), **SEPARABLE)
        for name, wanted in zip(("encoder_k", "state_dict.module.encoder_q"), nets, strict=True):
            net = ResNet(weights=f"{tmp_path}/w.pth#{name}", **SEPARABLE)
            assert torch.equal(net.conv1.weight, wanted["conv1.weight"])
            assert net.weights_report.source.endswith(f"w.pth#{name}")
        with pytest.raises(DataError, match=r"w\.pth: no tensor's name has a part 'encoder'"):
            ResNet(weights=f"{tmp_path}/w.pth#encoder", **SEPARABLE)

    def test_the_same_for_mappings_of_a_file(self, tmp_path):
        nets = [ResNet(**SEPARABLE).state_dict() for _ in range(2)]
        torch.save({"one": nets[0], "two": nets[1]}, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"2 times, under one, two: say which, as .*w\.pth#one"):
            ResNet(weights=str(tmp_path / "w.pth"), **SEPARABLE)
        net = ResNet(weights=f"{tmp_path}/w.pth#two", **SEPARABLE)
        assert torch.equal(net.conv1.weight, nets[1]["conv1.weight"])
        torch.save({"student": nets[0], "teacher": nets[1]}, tmp_path / "w.pth")
        net = ResNet(weights=str(tmp_path / "w.pth"), **SEPARABLE)
        assert torch.equal(net.conv1.weight, nets[1]["conv1.weight"])

    def test_the_same_twice_is_one(self, tmp_path):
        nets = self.two(tmp_path / "w.pth", "a.", "b.", same=True)
        net = ResNet(weights=str(tmp_path / "w.pth"), **SEPARABLE)
        assert torch.equal(net.conv1.weight, nets[0]["conv1.weight"])

    def test_a_hash_in_a_path_is_a_path(self, tmp_path):
        torch.save(ResNet(**SEPARABLE).state_dict(), tmp_path / "w#1.pth")
        assert ResNet(weights=str(tmp_path / "w#1.pth"), **SEPARABLE).weights_report.coverage == 1
