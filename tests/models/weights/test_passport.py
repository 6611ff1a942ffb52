"""The passport of weights: what it says, that it stays with the model, and from whom it descends."""

import dataclasses
import hashlib
import json

import pytest
import torch
from torch import nn

import visionkit
from visionkit import ResNet
from visionkit.cli.main import run
from visionkit.core.errors import DataError
from visionkit.models import checkpoint
from visionkit.models.backbone_file import export_backbone
from visionkit.models.checkpoint import KEY
from visionkit.models.weights.file import read_state_dict, read_weights
from visionkit.models.weights.load import Generation, WeightsReport, load_weights

SMALL = {"layers": (1, 1, 1, 1), "block": "basic", "stem": "small"}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def save_model(path, *, weights=None, **arguments):
    model = visionkit.VisionModel(ResNet(**SMALL, **arguments, weights=weights), visionkit.LinearHead, ["a", "b"])
    visionkit.save(model, path)
    return model


@pytest.fixture
def source(tmp_path):
    """A file whose names have a prefix and which holds more than a backbone."""
    state = {f"model.backbone.{k}": v for k, v in ResNet(**SMALL).state_dict().items()}
    extra = {"model.head.a": torch.ones(1), "model.head.b": torch.ones(1), "model.neck.c": torch.ones(1)}
    torch.save({"state_dict": state | extra}, tmp_path / "w.ckpt")
    return tmp_path / "w.ckpt"


class TestWhatItSays:
    def test_lines(self, source):
        lines = str(ResNet(**SMALL, weights=str(source)).weights_report).splitlines()
        sha = hashlib.sha256(source.read_bytes()).hexdigest()
        assert lines[0] == f"weights {source}: 100.0% of the tensors loaded (under 'model.backbone.')"
        assert lines[7:] == [
            "left over: head (2), neck (1)",
            "verdict: complete",
            f"passport: PyTorch state dict, sha256 {sha[:12]}",
            "statistics: mean 0.485 0.456 0.406, std 0.229 0.224 0.225: not in the file, ImageNet's assumed",
        ]

    def test_left_over_names_stay_in_the_data(self, source):
        report = ResNet(**SMALL, weights=str(source)).weights_report
        assert report.unused == ("model.head.a", "model.head.b", "model.neck.c")

    def test_averaged_weights_beside_plain_ones(self, tmp_path):
        state = ResNet(**SMALL).state_dict()
        named = {f"{p}.backbone.{k}": v for p in ("ema_model", "model") for k, v in state.items()}
        torch.save({"state_dict": named}, tmp_path / "w.ckpt")
        report = ResNet(**SMALL, weights=str(tmp_path / "w.ckpt")).weights_report
        assert report.prefix == "ema_model.backbone."
        assert "averaged weights (EMA) of state_dict" in str(report)
        assert "left over: model (" in str(report)

    def test_an_incomplete_average_is_left(self, tmp_path):
        state = ResNet(**SMALL).state_dict()
        some = {k: v for k, v in state.items() if "running" not in k}
        torch.save({"state_dict": state, "state_dict_ema": some}, tmp_path / "w.ckpt")
        report = ResNet(**SMALL, weights=str(tmp_path / "w.ckpt")).weights_report
        assert (report.averaged, report.container, report.coverage) == (False, "state_dict", 1)

    def test_verdicts(self, tmp_path):
        state = ResNet(**SMALL).state_dict()
        part = {k: v for k, v in state.items() if not k.startswith("layer4")}
        for name, content in (("part", part), ("more", state | {"layer4.1.conv1.weight": torch.ones(1)})):
            torch.save(content, tmp_path / f"{name}.pth")
        part = ResNet(**SMALL, weights=str(tmp_path / "part.pth"), partial=True).weights_report
        assert part.verdict == "less than the 95% asked for; went on with what fits (partial)"
        more = ResNet(**SMALL, weights=str(tmp_path / "more.pth"), partial=True).weights_report
        assert more.verdict.startswith("1 of the file's tensors have no place here")
        torch.save({k: v for k, v in state.items() if k != "bn1.bias"}, tmp_path / "one.pth")
        assert ResNet(**SMALL, weights=str(tmp_path / "one.pth")).weights_report.verdict == "enough, 95% are asked for"

    def test_a_plain_module_has_no_statistics(self, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
        assert load_weights(nn.Linear(2, 2), tmp_path / "w.pth").statistics is None


class TestPlainData:
    def test_json_and_back(self, tmp_path, source):
        report = ResNet(**SMALL, weights=str(source), mean=MEAN).weights_report
        again = WeightsReport.from_plain(json.loads(json.dumps(report.plain())))
        assert (report.source, again.source) == (str(source), source.name)  # where it lay stays at home
        assert dataclasses.replace(again, source=report.source) == report
        assert str(again) == str(report).replace(str(source), source.name)

    @pytest.mark.parametrize("name", ["timm/resnet18.a1_in1k", "hf-hub:owner/name"])
    def test_names_of_the_hub_stay_whole(self, source, name):
        report = dataclasses.replace(ResNet(**SMALL, weights=str(source)).weights_report, source=name)
        assert WeightsReport.from_plain(report.plain()) == report

    def test_entries_of_later_versions_are_left_out(self, source):
        report = ResNet(**SMALL, weights=str(source)).weights_report
        data = report.plain() | {"colour": "blue"}
        data["statistics"] = data["statistics"] | {"more": 1}
        assert WeightsReport.from_plain(data) == WeightsReport.from_plain(report.plain())

    @pytest.mark.parametrize("data", [{}, {"source": "x"}, [], "x", {"coverage": "much", "required": 1}])
    def test_no_passport(self, data):
        with pytest.raises(DataError, match="passport of the weights cannot be read"):
            WeightsReport.from_plain(data)


class TestInCheckpoints:
    def test_save_and_load(self, tmp_path, source):
        made = save_model(tmp_path / "m.ckpt", weights=str(source))
        content = torch.load(tmp_path / "m.ckpt", weights_only=True)
        assert content[KEY]["passport"]["source"] == source.name
        expected = dataclasses.replace(made.backbone.weights_report, source=source.name)
        loaded = visionkit.load(tmp_path / "m.ckpt")
        assert loaded.backbone.weights_report == expected
        visionkit.save(loaded, tmp_path / "again.ckpt")
        assert visionkit.load(tmp_path / "again.ckpt").backbone.weights_report == expected

    def test_from_scratch(self, tmp_path):
        save_model(tmp_path / "m.ckpt")
        assert checkpoint.read(tmp_path / "m.ckpt")[KEY]["passport"] is None
        assert visionkit.load(tmp_path / "m.ckpt").backbone.weights_report is None

    def test_checkpoints_of_before(self, tmp_path):
        save_model(tmp_path / "m.ckpt")
        content = checkpoint.read(tmp_path / "m.ckpt")
        del content[KEY]["passport"]
        checkpoint.write(content, tmp_path / "m.ckpt")
        assert visionkit.load(tmp_path / "m.ckpt").backbone.weights_report is None

    def test_a_broken_passport_is_named(self, tmp_path):
        save_model(tmp_path / "m.ckpt")
        content = checkpoint.read(tmp_path / "m.ckpt")
        content[KEY]["passport"] = {"source": 1}
        checkpoint.write(content, tmp_path / "m.ckpt")
        for read in (visionkit.load, lambda path: ResNet(**SMALL, weights=str(path))):
            with pytest.raises(DataError, match=r"m\.ckpt: the passport of the weights cannot be read"):
                read(tmp_path / "m.ckpt")

    def test_a_resumed_run_keeps_passport_and_statistics(self, tmp_path, photos, capsys):
        save_model(tmp_path / "start.ckpt", mean=MEAN, std=STD)
        out = tmp_path / "out"
        fit = ["fit", "-c", "classify.yaml", "--data.root", str(photos), "--trainer.default_root_dir", str(out)]
        fit += [f"--model.backbone.{k}={json.dumps(v)}" for k, v in SMALL.items() if k == "layers"]
        fit += ["--model.backbone.block=basic", "--model.backbone.stem=small", "--data.size=32"]
        fit += ["--data.num_workers=0", "--trainer.logger=false"]
        fit += [f"--model.backbone.weights={tmp_path / 'start.ckpt'}"]
        assert run([*fit, "--trainer.max_epochs=1"]) == 0
        assert "100.0% of the tensors loaded" in capsys.readouterr().out
        first = checkpoint.read(out / "checkpoints" / "last.ckpt")[KEY]
        assert first["model"]["backbone"]["init_args"]["mean"] == list(MEAN)
        (tmp_path / "start.ckpt").unlink()
        assert run([*fit, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
        content = checkpoint.read(out / "checkpoints" / "last.ckpt")
        assert content["epoch"] == 1
        assert content[KEY]["passport"] == first["passport"]
        assert content[KEY]["model"] == first["model"]  # with the statistics that the file said

    def test_adopting_statistics_changes_what_the_model_normalises_with(self):
        said = checkpoint.spec_of_model(
            visionkit.VisionModel(ResNet(**SMALL, mean=MEAN, std=STD), visionkit.LinearHead, ["a"])
        )
        images = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
        for given, mean in (({}, MEAN), ({"mean": (0.5, 0.5, 0.5)}, (0.5, 0.5, 0.5))):
            model = visionkit.VisionModel(ResNet(**SMALL, **given), visionkit.LinearHead, ["a"])
            checkpoint.adopt(model, said)
            expected = torch.tensor([(0.2 - m) / s for m, s in zip(mean, STD, strict=True)])
            torch.testing.assert_close(model.normalise(images).flatten(), expected, atol=1e-6, rtol=0)


class TestLineage:
    def test_three_generations(self, tmp_path, source):
        save_model(tmp_path / "1.ckpt", weights=str(source))
        save_model(tmp_path / "2.ckpt", weights=str(tmp_path / "1.ckpt"))
        report = ResNet(**SMALL, weights=str(tmp_path / "2.ckpt")).weights_report
        first, second = report.lineage
        assert first == Generation(
            "1.ckpt", read_weights(tmp_path / "1.ckpt").digest, "visionkit checkpoint, 2 classes", 1.0
        )
        assert second.source == source.name
        assert str(report).splitlines()[-2:] == [
            "itself from 1.ckpt (visionkit checkpoint, 2 classes), 100.0%",
            f"itself from {source.name} (PyTorch state dict), 100.0%",
        ]

    def test_through_an_export(self, tmp_path, source):
        save_model(tmp_path / "m.ckpt", weights=str(source))
        export_backbone(tmp_path / "m.ckpt", tmp_path / "b.safetensors")
        report = ResNet(**SMALL, weights=str(tmp_path / "b.safetensors")).weights_report
        assert [g.source for g in report.lineage] == ["m.ckpt", source.name]
        assert report.kind == f"backbone exported by visionkit {visionkit.__version__}"


class TestFilesThatAreNoWeights:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "the file is empty (0 bytes): download or copy it again"),
            (b"<!DOCTYPE html><html>", "but a web page (HTML), perhaps of a login or an error: download"),
            (b"\n<html>", "but a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git-LFS pointer.*git lfs pull"),
            (b"\x1f\x8b\x08rest", "gzip archive: unpack"),
            (b"\x89HDF\r\n", "Keras"),
        ],
    )
    def test_one_line_each(self, tmp_path, content, words):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(DataError, match=words.replace("(", r"\(").replace(")", r"\)")) as e:
            ResNet(18, weights=str(tmp_path / "w.pth"))
        assert "\n" not in str(e.value)
        assert str(tmp_path / "w.pth") in str(e.value)

    def test_a_changed_byte(self, tmp_path, source):
        data = bytearray(source.read_bytes())
        data[len(data) // 2] ^= 0xFF
        source.write_bytes(data)
        with pytest.raises(DataError, match=r"damaged or tampered with, the check sum of .* is wrong: download"):
            read_state_dict(source)

    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    def test_truncated(self, tmp_path, source, suffix):
        save_model(tmp_path / "m.ckpt")
        export_backbone(tmp_path / "m.ckpt", tmp_path / "m.safetensors")
        data = (tmp_path / f"m.{suffix}").read_bytes()
        (tmp_path / "cut").write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match=r"cut: damaged or no .*: download or copy it again"):
            read_weights(tmp_path / "cut")
