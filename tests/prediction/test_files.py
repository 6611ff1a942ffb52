import csv
import json
import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import DataError, UsageError
from visionkit.data.images.reading import read_image
from visionkit.prediction import files as inference
from visionkit.prediction import predictor
from visionkit.prediction.backends import available, convert
from visionkit.prediction.backends.convert import PredictionModel
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.stream import results_of
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.types import BoxPrediction


@pytest.fixture
def pictures(tmp_path):
    """Six pictures of different sizes; number 1 and 4 cannot be read."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)).save(path)
    paths[1].write_bytes(b"")
    paths[4].unlink()
    return [ImageFile(str(p), {"n": i}) for i, p in enumerate(paths)]


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def expected(model, picture):
    pixels = torch.from_numpy(visionkit.read_image(picture.path)).permute(2, 0, 1)
    sample = model.preprocessing(visionkit.Sample(pixels, None, visionkit.ImageInfo(picture.path, pixels.shape[1:])))
    return model.predict(sample.image[None])[0].probabilities


class TestPredictFiles:
    @pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 0), (32, 0), (2, 2)])
    def test_everything_comes_in_order(self, tiny_model, pictures, batch_size, num_workers):
        found = list(results_of(tiny_model, pictures, batch_size=batch_size, num_workers=num_workers, precision="32"))
        assert [isinstance(f, DataError) for f in found] == [False, True, False, False, True, False]
        for i, (picture, result) in enumerate(zip(pictures, found, strict=True)):
            if isinstance(result, DataError):
                assert str(result).startswith(f"{picture.path}: ")
                assert "\n" not in str(result)
            else:
                info, prediction = result
                assert (info.id, info.size, info.extra) == (picture.path, (20 + i, 30 - i), {"n": i})
                torch.testing.assert_close(prediction.probabilities, expected(tiny_model, picture))

    def test_a_batch_of_faults_alone(self, tiny_model, pictures):
        bad = [pictures[1], pictures[4]]
        found = list(results_of(tiny_model, [*bad, pictures[0], *bad], batch_size=2, precision="32"))
        assert [isinstance(f, DataError) for f in found] == [True, True, False, True, True]
        assert list(map(type, results_of(tiny_model, bad, batch_size=1))) == [DataError, DataError]

    def test_no_pictures(self, tiny_model):
        assert list(results_of(tiny_model, [])) == []

    def test_each_prediction_is_restored_with_its_own_picture(self, tiny_model, pictures, monkeypatch):
        @dataclass
        class Told:
            mean: float
            restored: list = field(default_factory=list)

            def restore(self, info):
                return Told(self.mean, [*self.restored, info])

        monkeypatch.setattr(
            type(tiny_model), "decode", lambda self, images: [Told(x.float().mean().item()) for x in images]
        )
        found = [f for f in results_of(tiny_model, pictures, batch_size=3) if not isinstance(f, DataError)]
        assert len(found) == 4
        for info, told in found:
            (seen,) = told.restored  # once
            height, width = info.size
            assert (seen.id, seen.size, seen.extra) == (info.id, info.size, info.extra)
            assert seen.scale == pytest.approx((32 / height, 32 / width))
            pixels = visionkit.read_image(info.id)
            assert told.mean == pytest.approx(pixels.mean(), abs=2)

    @pytest.mark.parametrize(("precision", "fast"), [("32", False), ("bf16", True), ("auto", True)])
    def test_precision_is_what_was_asked(self, tiny_model, pictures, monkeypatch, precision, fast):
        monkeypatch.setattr(convert, "choose_precision", lambda device: "bf16-mixed")
        seen = []
        tiny_model.backbone.layer1.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
        ((_, prediction),) = results_of(tiny_model, pictures[:1], precision=precision)
        assert seen == [fast]
        assert prediction.probabilities.dtype == torch.float32

    @pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 4), (2, [2, 2]), (3, [3, 3]), (100, [4])])
    def test_batches_of_a_backend_of_fixed_shapes_are_filled_up(self, tiny_model, pictures, batch_size, sizes):
        seen = []

        def compute(images):
            seen.append(len(images))
            return tiny_model(images)

        fast = PredictionModel(tiny_model, compute, fast=False, fixed=True)
        found = list(results_of(fast, pictures, batch_size=batch_size))
        assert seen == sizes
        for picture, result in zip(pictures, found, strict=True):
            if not isinstance(result, DataError):
                assert result[0].id == picture.path
                torch.testing.assert_close(result[1].probabilities, expected(tiny_model, picture))

    def test_what_convert_made_is_used_as_it_is(self, tiny_model, pictures, monkeypatch):
        fast = convert.convert(tiny_model, precision="32")
        monkeypatch.setattr(predictor, "convert", None)
        assert len(list(results_of(fast, pictures))) == 6


class TestPredictToFolder:
    def test_records_and_table_say_the_same(self, tiny_model, ckpt, pictures, tmp_path):
        done = predict_to_folder(ckpt, pictures, tmp_path / "new" / "out", num_workers=0, precision="32")
        lines = done.records.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert done.records == tmp_path / "new" / "out" / "predictions.jsonl"
        assert done.count == len(records) == 4
        assert [r["n"] for r in records] == [0, 2, 3, 5]
        assert [p.partition(": ")[0] for p in done.problems] == [pictures[1].path, pictures[4].path]
        for record in records:
            probabilities = expected(tiny_model, pictures[record["n"]])
            assert list(record["probabilities"]) == ["blue", "green", "red"]
            assert list(record["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)
        with (tmp_path / "new" / "out" / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            "n",
            "image",
            "label",
            "score",
            "probabilities/blue",
            "probabilities/green",
            "probabilities/red",
        ]
        for row, record in zip(rows, records, strict=True):
            assert (row["image"], int(row["n"]), float(row["score"])) == (record["image"], record["n"], record["score"])

    @pytest.mark.parametrize("backend", ["openvino", "onnx"])
    def test_backends_predict_the_same(self, tiny_model, ckpt, pictures, tmp_path, backend):
        for package in available.PACKAGES[backend]:
            pytest.importorskip(package)
        before = set(tmp_path.iterdir())
        done = predict_to_folder(ckpt, pictures, tmp_path / "out", batch_size=3, precision="32", backend=backend)
        records = [json.loads(line) for line in done.records.read_text(encoding="utf-8").splitlines()]
        assert [r["n"] for r in records] == [0, 2, 3, 5]
        for record in records:
            probabilities = expected(tiny_model, pictures[record["n"]])
            assert list(record["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}

    def test_a_backend_that_is_not_there_is_said_before_the_checkpoint_is_read(self, pictures, tmp_path, monkeypatch):
        monkeypatch.setattr(available.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match="--backend openvino needs the package openvino"):
            predict_to_folder(tmp_path / "no.ckpt", pictures, tmp_path / "out", backend="openvino")
        assert not (tmp_path / "out").exists()

    def test_further_columns_never_hide_the_prediction(self, ckpt, pictures, tmp_path):
        extra = {"label": "mine", "image": "mine", "truth": ["a", "b"], "text": 'Käse, "hart"\nzwei Zeilen'}
        predict_to_folder(ckpt, [ImageFile(pictures[0].path, extra)], tmp_path / "out")
        (line,) = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        record = json.loads(line)
        assert record["label"] in ("blue", "green", "red")
        assert record["image"] == pictures[0].path
        assert (record["text"], record["truth"]) == (extra["text"], ["a", "b"])
        with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        assert (row["text"], row["truth"]) == (extra["text"], "a|b")

    def test_saved_pictures_have_the_size_of_the_originals(self, ckpt, pictures, tmp_path):
        Image.new("L", (50, 40)).save(tmp_path / "grey.png")
        more = [*pictures, ImageFile(str(tmp_path / "grey.png"))]
        predict_to_folder(ckpt, more, tmp_path / "out", batch_size=2, save_images=True)
        sizes = {p.name: Image.open(p).size for p in (tmp_path / "out" / "images").iterdir()}
        assert sizes == {
            "00000_0.jpg": (30, 20), "00002_2.jpg": (28, 22), "00003_3.jpg": (27, 23), "00005_5.jpg": (25, 25),
            "00006_grey.jpg": (50, 40),
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.csv"])
    def test_results_are_replaced_only_when_asked(self, ckpt, pictures, tmp_path, name):
        (tmp_path / name).write_text("old")
        with pytest.raises(UsageError, match="already holds predictions: .*--overwrite"):
            predict_to_folder(ckpt, pictures[:1], tmp_path)
        assert (tmp_path / name).read_text() == "old"
        assert predict_to_folder(ckpt, pictures[:1], tmp_path, overwrite=True).count == 1
        assert "old" not in (tmp_path / name).read_text()

    def test_a_folder_with_other_files_is_no_hindrance(self, ckpt, pictures, tmp_path):
        assert predict_to_folder(ckpt, pictures[:1], tmp_path / "in").count == 1
        assert Path(pictures[0].path).is_file()

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
    def test_an_unreadable_checkpoint_leaves_nothing(self, pictures, tmp_path, content):
        if content is not None:
            (tmp_path / "bad.ckpt").write_bytes(content)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match=r"bad\.ckpt: "):
            predict_to_folder(tmp_path / "bad.ckpt", pictures, tmp_path / "out")
        assert sorted(tmp_path.rglob("*")) == before

    def test_cut_off_on_the_way_keeps_what_is_done_and_goes_on(self, ckpt, pictures, tmp_path, monkeypatch):
        predict_to_folder(ckpt, pictures, tmp_path / "whole")
        predict_to_folder(ckpt, pictures[:1], tmp_path / "out")
        calls = []
        monkeypatch.setattr(inference.VisionModel, "decode", predict_then_stop(calls))
        with pytest.raises(KeyboardInterrupt):
            predict_to_folder(ckpt, pictures, tmp_path / "out", batch_size=1, num_workers=0, overwrite=True)
        assert len(calls) == 2
        monkeypatch.undo()
        whole, out = tmp_path / "whole", tmp_path / "out"
        lines = (whole / "predictions.jsonl").read_text()
        done = (out / "predictions.jsonl").read_text()
        assert done
        assert lines.startswith(done)
        assert not (out / "predictions.csv").exists(), "it was that of other records"
        with (out / "predictions.jsonl").open("a") as file:
            file.write('{"image": "cut o')  # killed while it wrote
        with pytest.raises(UsageError, match="already holds predictions: .*--resume"):
            predict_to_folder(ckpt, pictures, out)
        again = predict_to_folder(ckpt, pictures, out, resume=True)
        assert again.count == lines.count("\n")
        assert again.problems
        for name in ("predictions.jsonl", "predictions.csv"):
            assert (out / name).read_text() == (whole / name).read_text()
        assert predict_to_folder(ckpt, pictures, out, resume=True).count == again.count, "nothing is left to do"
        assert (out / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()

    def test_several_labels_and_further_columns_come_back_on_going_on(self, pictures, tmp_path):
        torch.manual_seed(0)
        head = partial(visionkit.LinearHead, multilabel=True)
        model = visionkit.VisionModel(
            visionkit.ResNet(layers=(1, 1, 1, 1), block="basic"), head, ["a", "b", "c"],
            preprocessing=visionkit.Preprocessing(32),
        )  # fmt: skip
        visionkit.save(model.eval(), tmp_path / "m.ckpt")
        asked = [ImageFile(p.path, {"n": k, "label": f"mine {k}"}) for k, p in enumerate(pictures)]
        predict_to_folder(tmp_path / "m.ckpt", asked, tmp_path / "whole")
        predict_to_folder(tmp_path / "m.ckpt", asked, tmp_path / "out")
        records = tmp_path / "out" / "predictions.jsonl"
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:3]))
        predict_to_folder(tmp_path / "m.ckpt", asked, tmp_path / "out", resume=True)
        for name in ("predictions.jsonl", "predictions.csv"):
            assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()

    def test_what_was_made_otherwise_is_not_gone_on_with(self, ckpt, pictures, tmp_path):
        out = tmp_path / "out"
        assert predict_to_folder(ckpt, pictures, out, resume=True).count, "nothing there: it starts"
        with pytest.raises(UsageError, match="made with another --precision;"):
            predict_to_folder(ckpt, pictures, out, resume=True, precision="bf16")
        with pytest.raises(UsageError, match="give one of them"):
            predict_to_folder(ckpt, pictures, out, resume=True, overwrite=True)
        (out / ".predictions.json").unlink()
        with pytest.raises(UsageError, match="nothing there says what its predictions were made with"):
            predict_to_folder(ckpt, pictures, out, resume=True)
        (out / "predictions.jsonl").write_text('{"image": "a"}\n{"imag\n{"image": "b"}\n')
        with pytest.raises(DataError, match=r"predictions\.jsonl:2: no record of a picture"):
            predict_to_folder(ckpt, pictures, out, resume=True)

    def test_whatever_is_wrong_with_a_picture_costs_that_picture(self, ckpt, pictures, tmp_path, monkeypatch):
        good = [p for k, p in enumerate(pictures) if k not in (1, 4)]
        long = tmp_path / ("n" * 240 + ".png")
        shutil.copy(good[0].path, long)
        odd = ImageFile(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
        shutil.copy(good[0].path, odd.path)
        draw = ClassPrediction.draw

        def faulty(self, image, names):
            if image.shape[2] == drawn_badly[2]:
                raise RuntimeError("no colours left")
            return draw(self, image, names)

        drawn_badly = read_image(good[1].path).transpose(2, 0, 1).shape
        monkeypatch.setattr(ClassPrediction, "draw", faulty)
        asked = [good[0], odd, good[1], ImageFile(str(long))]
        done = predict_to_folder(ckpt, asked, tmp_path / "out", save_images=True, batch_size=1)
        assert done.count == 2
        assert [p.partition(": ")[2] for p in done.problems] == [
            "its name is no UTF-8, as records must be; rename it",
            "its prediction cannot be written (RuntimeError: no colours left)",
        ]
        assert len(list((tmp_path / "out" / "images").glob("*.jpg"))) >= 2

    def test_when_no_picture_can_be_read_the_results_are_empty(self, ckpt, pictures, tmp_path):
        done = predict_to_folder(ckpt, [pictures[1]], tmp_path / "out", save_images=True)
        assert (done.count, len(done.problems)) == (0, 1)
        assert done.records.read_text() == ""
        assert (tmp_path / "out" / "predictions.csv").read_text() == "n,image\n"

    @pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
    def test_a_device_that_is_not_there(self, ckpt, pictures, tmp_path, device):
        with pytest.raises(UsageError, match=f"--device {device}: not available here") as raised:
            predict_to_folder(ckpt, pictures, tmp_path / "out", device=device)
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "out").exists()


def predict_then_stop(calls):
    whole = visionkit.VisionModel.decode

    def decode(model, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(model, images)

    return decode


def test_overwrite_removes_no_file_that_predict_did_not_write(tiny_model, tmp_path):
    """`--out .` beside a folder of one's own that happens to be called images."""
    from PIL import Image

    import visionkit
    from visionkit import UsageError
    from visionkit.prediction.files import ImageFile, predict_to_folder

    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "mine.png")
    pictures = [ImageFile(str(tmp_path / "images" / "mine.png"))]
    with pytest.raises(UsageError, match="already holds predictions"):
        predict_to_folder(tmp_path / "m.ckpt", pictures, tmp_path, save_images=True)
    predict_to_folder(tmp_path / "m.ckpt", pictures, tmp_path, save_images=True, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["00000_mine.jpg", "mine.png"]


@pytest.fixture
def detector(ckpt, monkeypatch):
    """A checkpoint whose model finds in each picture: red at 0.9, blue at 0.25; in the second of a batch nothing."""

    def decode(self, outputs):
        box = torch.tensor([[4.0, 8, 16, 24], [0, 0, 32, 32]])
        found = BoxPrediction(box, torch.tensor([0.9, 0.25]), torch.tensor([2, 0]))
        return [found if i != 1 else found.at_least(1) for i in range(len(outputs.logits))]

    monkeypatch.setattr(visionkit.LinearHead, "decode", decode)
    for name in ("prediction", "writers", "columns", "scored"):
        monkeypatch.setattr(visionkit.LinearHead, name, getattr(visionkit.FCOSHead, name))
    return ckpt


def table(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class TestObjects:
    header = ("n", "image", "label", "score", "x1", "y1", "x2", "y2", "width", "height")

    def test_one_record_a_picture_and_one_row_an_object(self, detector, pictures, tmp_path):
        done = predict_to_folder(detector, pictures, tmp_path / "out", num_workers=0, precision="32")
        records = [json.loads(line) for line in done.records.read_text().splitlines()]
        assert done.count == len(records) == 4
        assert [len(r["objects"]) for r in records] == [2, 0, 2, 2]
        assert list(records[0]) == ["n", "image", "width", "height", "objects"]
        assert (records[2]["n"], records[2]["width"], records[2]["height"]) == (3, 27, 23)
        header, *rows = table(tmp_path / "out")
        assert tuple(header) == self.header
        flat = [(r["n"], r["image"], o["label"], o["score"], *o["box"]) for r in records for o in r["objects"]]
        assert [(int(r[0]), r[1], r[2], *map(float, r[3:8])) for r in rows] == flat
        assert rows[-1][8:] == ["25", "25"]
        assert records[0]["objects"][0]["box"] == pytest.approx([4 * 30 / 32, 8 * 20 / 32, 15, 15])
        assert [o["label"] for o in records[0]["objects"]] == ["red", "blue"]

    def test_the_table_has_its_header_without_any_object(self, detector, pictures, tmp_path):
        predict_to_folder(detector, pictures[:1], tmp_path / "none", min_score=1)
        assert table(tmp_path / "none") == [list(self.header)]
        predict_to_folder(detector, pictures[1:2], tmp_path / "unreadable")
        assert table(tmp_path / "unreadable") == [list(self.header)]

    def test_objects_below_the_score_are_left_out_everywhere(self, detector, pictures, tmp_path):
        more = {"formats": ["coco", "yolo"], "save_images": True, "precision": "32"}
        predict_to_folder(detector, pictures[:1], tmp_path / "out", min_score=0.5, **more)
        (record,) = map(json.loads, (tmp_path / "out" / "predictions.jsonl").read_text().splitlines())
        assert [o["label"] for o in record["objects"]] == ["red"]
        assert [row[2] for row in table(tmp_path / "out")[1:]] == ["red"]
        assert len(json.loads((tmp_path / "out" / "predictions.coco.json").read_text())) == 1
        assert len((tmp_path / "out" / "labels" / "0.txt").read_text().splitlines()) == 1
        predict_to_folder(detector, pictures[:1], tmp_path / "all", **more)
        assert len(json.loads((tmp_path / "all" / "predictions.coco.json").read_text())) == 2
        predict_to_folder(detector, pictures[:1], tmp_path / "strong", min_score=0.95, **more)
        drawn, plain = (np.asarray(Image.open(tmp_path / d / "images" / "00000_0.jpg")) for d in ("out", "strong"))
        assert not np.array_equal(drawn, plain)

    def test_formats_beside_the_records(self, detector, pictures, tmp_path):
        predict_to_folder(detector, pictures, tmp_path / "out", num_workers=0, formats=["yolo", "coco", "yolo"])
        assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
            ".predictions.json", ".predictions.pictures.jsonl", ".visionkit-output", "labels/0.txt", "labels/2.txt", "labels/3.txt", "labels/5.txt", "labels/classes.txt",
            "predictions.coco.json", "predictions.coco_images.json", "predictions.csv", "predictions.jsonl",
        ]  # fmt: skip
        objects = json.loads((tmp_path / "out" / "predictions.coco.json").read_text())
        assert [o["image_id"] for o in objects] == [1, 1, 4, 4, 6, 6]

    def test_ids_of_an_annotation_file(self, detector, pictures, tmp_path):
        content = {
            "images": [{"id": 70 + i, "file_name": f"{i}.png"} for i in range(6)],
            "categories": [{"id": i, "name": n} for i, n in ((5, "red"), (6, "green"), (8, "blue"))],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        more = {"formats": ["coco"], "annotations": tmp_path / "a.json"}
        predict_to_folder(detector, pictures[:1], tmp_path / "out", **more)
        objects = json.loads((tmp_path / "out" / "predictions.coco.json").read_text())
        assert [(o["image_id"], o["category_id"]) for o in objects] == [(70, 5), (70, 8)]
        assert not (tmp_path / "out" / "predictions.coco_images.json").exists()

    def test_what_cannot_be_is_said_before_any_work(self, detector, pictures, tmp_path, monkeypatch):
        monkeypatch.setattr(inference, "make_applied", None)
        with pytest.raises(UsageError, match="--format voc: this model's predictions offer coco, yolo"):
            predict_to_folder(detector, pictures, tmp_path / "out", formats=["coco", "voc"])
        with pytest.raises(DataError, match=r"nothing\.json"):
            predict_to_folder(detector, pictures, tmp_path / "out", formats=["coco"], annotations="nothing.json")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["labels", "predictions.coco.json", "predictions.coco_images.json"])
    def test_results_are_replaced_only_when_asked(self, detector, pictures, tmp_path, name):
        out = tmp_path / "out"
        (out / name).mkdir(parents=True) if name == "labels" else (out.mkdir(), (out / name).write_text("old"))
        formats = ["coco", "yolo"]
        with pytest.raises(UsageError, match="already holds predictions"):
            predict_to_folder(detector, pictures[:1], out, formats=formats)
        assert [p.name for p in out.iterdir()] == [name]
        assert predict_to_folder(detector, pictures[:1], out, formats=formats, overwrite=True).count == 1
        assert len([p for p in out.iterdir() if not p.name.startswith(".")]) == 5

    def test_a_classifier_offers_neither(self, ckpt, pictures, tmp_path):
        with pytest.raises(UsageError, match="--format coco: this model's predictions offer no further formats"):
            predict_to_folder(ckpt, pictures, tmp_path / "out", formats=["coco"])
        with pytest.raises(UsageError, match="--min-score: this model's predictions are not filtered by score"):
            predict_to_folder(ckpt, pictures, tmp_path / "out", min_score=0.5)
        assert not (tmp_path / "out").exists()

    def test_cut_off_on_the_way_leaves_no_format_half_written(self, detector, pictures, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(inference.VisionModel, "decode", predict_then_stop([]))
            with pytest.raises(KeyboardInterrupt):
                predict_to_folder(detector, pictures, tmp_path / "out", batch_size=1, num_workers=0, formats=["coco"])
        assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")] == ["predictions.jsonl"]
        asked = {"batch_size": 1, "num_workers": 0, "formats": ["coco"]}
        predict_to_folder(detector, pictures, tmp_path / "out", resume=True, **asked)
        predict_to_folder(detector, pictures, tmp_path / "whole", **asked)
        for path in (tmp_path / "whole").glob("predictions.*"):
            assert (tmp_path / "out" / path.name).read_text() == path.read_text()


def test_a_table_grows_with_its_rows(tmp_path):
    from visionkit.prediction.writers import open_table

    with open_table(tmp_path / "t.csv", ["a", "a"]) as rows:
        rows.add({"a": "x,\ny"})
        rows.add({"a": 1, "b": {"c": 2.5, "d": None}, "e": [1, 2]})
        rows.add({})
    assert (tmp_path / "t.csv").read_text() == 'a,b/c,b/d,e\n"x,\ny",,,\n1,2.5,,1|2\n,,,\n'
    with pytest.raises(RuntimeError), open_table(tmp_path / "u.csv", ["a"]):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
