import importlib.util
import json
import logging
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from PIL import Image

import visionkit
from visionkit import DataError, ImageInfo, Prediction, Sample, UsageError
from visionkit.cli.main import run
from visionkit.core.prediction import Agreement
from visionkit.prediction.backends import quantised
from visionkit.prediction.backends.agreement import Comparison, compare
from visionkit.prediction.backends.available import check_backend
from visionkit.prediction.backends.calibration import MAX_IMAGES, calibration_views, spaced
from visionkit.prediction.backends.convert import convert
from visionkit.prediction.files import ImageFile
from visionkit.prediction.stream import results_of
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.heads.fcos import FCOSHead
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.multitask.types import MultiTaskPrediction
from visionkit.tasks.segmentation.types import MaskPrediction

pytestmark = pytest.mark.skipif(  # not imported here: see cli.parser._whole_numbers_first
    any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")), reason="needs openvino and nncf"
)


def images(count, size=32, seed=1):
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture
def detector():
    """Its outputs are lists, constants and tensors whose shapes do not all begin with the batch."""
    torch.manual_seed(0)
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic")
    head, neck = partial(FCOSHead, channels=16, depth=1), partial(visionkit.FPN, channels=16)
    return visionkit.VisionModel(backbone, head, ["a", "b"], neck, preprocessing=visionkit.Preprocessing(64)).eval()


class TestConvert:
    def test_it_is_in_8_bits_and_near_float32(self, tiny_model, capfd):
        made = []
        whole = quantised.quantise

        def watched(model, pictures):
            made.append((whole(model, pictures), len(pictures)))
            return made[-1][0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantised, "quantise", watched)
            fast = convert(tiny_model, "openvino", precision="int8", calibration=[images(5), images(3, seed=2)])
            kind = logging.getLoggerClass()
            found = fast(images(3)).logits
        ((model, count),) = made
        kinds = [op.get_type_name() for op in model.get_ops()]
        assert count == 8
        assert kinds.count("FakeQuantize") >= kinds.count("Convolution") >= 8, "maps are rounded"
        assert kinds.count("Convolution") >= 8
        assert any(str(op.get_element_type()) == "<Type: 'int8_t'>" for op in model.get_ops()), "and weights"
        with torch.no_grad():
            truth = tiny_model(images(3)).logits
        assert 0 < (found - truth).abs().max() <= 0.15 * truth.abs().max()
        assert logging.getLoggerClass() is kind
        assert capfd.readouterr() == ("", ""), "no progress bars"

    def test_the_batch_does_not_matter(self, detector):
        fast = convert(detector, "openvino", precision="int8", calibration=images(4, 64))
        pixels = images(3, 64, seed=3)
        together, alone = fast(pixels), [fast(p[None]) for p in pixels]
        assert fast.compute.whole
        for a, *b in zip(together, *alone, strict=True):
            if isinstance(a, torch.Tensor) and a.shape[0] == 3:
                assert torch.equal(a, torch.cat(b))
        assert len(fast.decode(pixels)) == 3
        assert len(fast.compute.singles) == 1, "ranges are learnt once"

    def test_another_size_than_the_calibration_s(self, tiny_model):
        fast = convert(tiny_model, "openvino", precision="int8", calibration=images(4))
        assert fast(images(2, 64)).logits.shape == (2, 3)
        resized = quantised._of_size(images(2).split(1), torch.Size((64, 48)))
        assert [tuple(r.shape) for r in resized] == [(1, 3, 64, 48)] * 2

    def test_what_cannot_be(self, tiny_model):
        with pytest.raises(UsageError, match=r"learns the range of each map from pictures: give calibration="):
            convert(tiny_model, "openvino", precision="int8")
        with pytest.raises(UsageError, match="calibration: no pictures"):
            convert(tiny_model, "openvino", precision="int8", calibration=[])
        for wrong in (images(2).float(), images(2)[:, :1], images(2)[0], "x"):
            with pytest.raises(UsageError, match=r"calibration: images are uint8 \[B, 3, H, W\], not "):
                convert(tiny_model, "openvino", precision="int8", calibration=[wrong])
        with pytest.raises(UsageError, match="only precision='int8' learns from pictures: leave it out"):
            convert(tiny_model, "openvino", precision="32", calibration=[images(2)])
        for backend in ("torch", "compile", "onnx"):
            with pytest.raises(
                UsageError, match="--precision int8 is computed by OpenVINO alone: add --backend openvino"
            ):
                convert(tiny_model, backend, precision="int8", calibration=[images(2)])

    def test_a_missing_package(self, monkeypatch):
        there = object()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nncf" else there)
        with pytest.raises(UsageError, match=r"int8 needs the package nncf: pip install 'visionkit\[int8\]'$"):
            check_backend("openvino", torch.device("cpu"), "int8")


def test_nncf_reports_to_nobody():
    code = (
        "import sys, torch, visionkit\n"
        "from visionkit.prediction.backends.convert import convert\n"
        "assert 'nncf' not in sys.modules\n"
        "model = visionkit.VisionModel(visionkit.ResNet(layers=(1, 1, 1, 1), block='basic'), visionkit.LinearHead, ['a'])\n"
        "images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)\n"
        "convert(model.eval(), 'openvino', precision='int8', calibration=images)(images)\n"
        "import nncf.telemetry\n"
        "print(type(nncf.telemetry.telemetry).__name__)\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m] is not None])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["[]"]
    assert done.stdout.splitlines()[0] != "NNCFTelemetry"


def test_one_batch_is_not_all_of_them_where_nncf_came_first():
    code = (
        "import nncf\n"
        "from visionkit.cli import lightning\n"
        "from lightning.pytorch import Trainer\n"
        "from jsonargparse import ArgumentParser\n"
        "parser = ArgumentParser()\n"
        "parser.add_class_arguments(Trainer, 'trainer')\n"
        "names = ['limit_train_batches', 'limit_val_batches', 'overfit_batches', 'val_check_interval']\n"
        "found = parser.parse_args([f'--trainer.{name}=1' for name in names]).trainer\n"
        "print([repr(getattr(found, name)) for name in names])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(["1"] * 4)


def sample():
    return Sample(torch.zeros(3, 1, 1, dtype=torch.uint8), None, ImageInfo("a.png", (1, 1)))


class TestSelection:
    def test_it_is_even_and_the_same_each_time(self):
        seen = spaced(list(range(200)))
        assert (len(seen), seen[0], seen == sorted(set(seen))) == (MAX_IMAGES, 0, True)
        assert {b - a for a, b in zip(seen, seen[1:], strict=False)} == {1, 2}

    def test_one_view_of_each_size(self):
        views = [torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.ones(3, 8, 8)]
        first, second = calibration_views([sample(), sample()], lambda _: views)
        assert [tuple(v.shape) for v in first] == [(1, 3, 4, 4), (1, 3, 8, 8)]
        assert (first[0].max(), second[0].max()) == (0, 1)

    def test_pictures_that_cannot_be_read(self):
        broken = DataError("a.png: broken")
        assert len(calibration_views([broken, sample()], lambda s: [s.image])) == 1
        with pytest.raises(DataError, match=r"no picture to learn ranges from can be read \(a.png: broken\)"):
            calibration_views([broken], lambda s: [s.image])
        with pytest.raises(DataError, match=r"no picture to learn ranges from can be read \(there are none\)"):
            calibration_views([], lambda s: [s.image])


class TestAgreement:
    def test_classes(self):
        a, b = ClassPrediction(torch.tensor([0.7, 0.3])), ClassPrediction(torch.tensor([0.4, 0.6]))
        both = a.agreement(a) + a.agreement(b)
        assert (both.share, both.difference / both.scores) == (0.5, pytest.approx(0.15))
        assert both.summary() == "50.0% of the pictures keep their class, mean difference of a probability 0.1500"
        several = partial(ClassPrediction, multilabel=True)
        found = several(torch.tensor([0.9, 0.6, 0.1])).agreement(several(torch.tensor([0.8, 0.2, 0.1])))
        assert found.share == 0.5

    def test_objects(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]])
        a = BoxPrediction(boxes, torch.tensor([0.9, 0.8, 0.2]), torch.tensor([0, 1, 0]))
        b = BoxPrediction(boxes + 1, torch.tensor([0.8, 0.7, 0.2]), torch.tensor([0, 0, 0]))
        found = a.agreement(b)
        assert (found.same, found.total) == (2, 4), "the second has another class, the third is too weak"
        assert found.difference / found.scores == pytest.approx(0.1)
        assert a.agreement(b.at_least(1)).share == 0
        assert a.at_least(1).agreement(b.at_least(1)).share == 1

    def test_pixels_and_several_heads(self):
        a, b = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
        a[0] = 1
        b[0], b[1, 0, 0] = 1, 5
        a, b = MaskPrediction.of(a, 1), MaskPrediction.of(b, 1)
        assert a.agreement(b).share == 0.75
        found = MultiTaskPrediction({"m": a, "own": Prediction()}).agreement(
            MultiTaskPrediction({"m": b, "own": Prediction()})
        )
        assert found["own"] is None
        told = Comparison(found)
        assert (
            told.summary()
            == "m: 75.0% of the pixels keep their class; own: not compared (its predictions offer no agreement())"
        )
        assert not told.good
        assert Comparison({"own": None, "x": Agreement("x", 95, 100)}).good

    def test_a_model_agrees_with_itself(self, tiny_model):
        found = compare(tiny_model, tiny_model, [images(3), images(2)])
        assert found.heads[""].share == 1
        assert found.heads[""].total == 5


class TestPredict:
    @pytest.fixture
    def pictures(self, tmp_path):
        (tmp_path / "in").mkdir()
        for k, image in enumerate(images(5)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "in" / f"{k}.png")
        return tmp_path / "in"

    @pytest.mark.parametrize("own", [False, True])
    def test_from_pictures_to_records(self, tiny_model, tmp_path, pictures, capsys, own):
        visionkit.save(tiny_model, tmp_path / "m.ckpt")
        arguments = ["predict", str(pictures), "--ckpt", str(tmp_path / "m.ckpt"), "--backend", "openvino"]
        more = ["--calibrate", str(pictures / "0.png")] if own else []
        assert run([*arguments, "--precision", "int8", "--out", str(tmp_path / "a"), *more]) == 0
        said = capsys.readouterr()
        first = (said.out + said.err).splitlines()[0]
        assert re.search(
            rf"int8: ranges from {'1 picture;' if own else '5 pictures;'} on the same .*keep their class", first
        )
        assert run([*arguments, "--precision", "32", "--out", str(tmp_path / "b")]) == 0
        assert "int8" not in capsys.readouterr().out
        rows = [
            [json.loads(line) for line in (tmp_path / k / "predictions.jsonl").read_text().splitlines()] for k in "ab"
        ]
        for a, b in zip(*rows, strict=True):
            assert list(a) == list(b)
            assert a["probabilities"] == pytest.approx(b["probabilities"], abs=0.1)

    def test_calibrate_alone(self, tiny_model, tmp_path, pictures):
        with pytest.raises(UsageError, match="--calibrate names pictures for --precision int8"):
            results_of(tiny_model, [], calibrate=[ImageFile(str(pictures / "0.png"))])

    def test_thirty_pictures_keep_ten_apart_and_poor_agreement_warns(self, tiny_model, monkeypatch):
        from visionkit.prediction.backends import calibration

        told = []
        seen = [[image[None]] for image in images(30)]
        calibration.quantised(tiny_model, seen, told.append)
        assert "ranges from 20 pictures; on 10 others " in told[0]
        poor = Comparison({"": Agreement("of the pictures keep their class", 9, 10)})
        monkeypatch.setattr(calibration, "compare", lambda *_: poor)
        calibration.quantised(tiny_model, seen, told.append)
        assert told[1] == (
            "warning: int8: ranges from 20 pictures; on 10 others 90.0% of the pictures keep their class: "
            "give more or other pictures with --calibrate, or take --precision bf16"
        )
