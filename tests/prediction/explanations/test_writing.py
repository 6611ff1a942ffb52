"""predict with explanations: the files, what is said of them, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import FCOSHead, UsageError
from visionkit.cli.main import run
from visionkit.prediction import files
from visionkit.prediction.explanations.writing import ExplanationWriter
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.views import Views
from visionkit.prediction.writers import WriterJob


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


@pytest.fixture
def detector(tmp_path):
    torch.manual_seed(0)
    model = visionkit.VisionModel(
        visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", stem="small"),
        lambda f, n: FCOSHead(f, n, channels=32, depth=0, score_threshold=0.0, nms_threshold=0.2),
        ["a", "b"],
        lambda f: visionkit.FPN(f, 32, max_level=5),
        preprocessing=visionkit.Preprocessing(32),
    ).eval()
    visionkit.save(model, tmp_path / "d.ckpt")
    return tmp_path / "d.ckpt"


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    names = ["a.png", "a_1.png", "b.png"]
    for name in names:
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    return [ImageFile(str(tmp_path / "in" / name)) for name in names]


def written(out):
    return sorted(str(p.relative_to(out / "explanations")) for p in (out / "explanations").rglob("*.*g"))


def records(out):
    return [json.loads(p.read_text()) for p in sorted((out / "explanations").rglob("*.json"))]


def test_a_classifier_has_one_map_a_picture_and_the_records_stay_as_they_are(ckpt, pictures, tmp_path):
    plain = predict_to_folder(ckpt, pictures, tmp_path / "plain", num_workers=0)
    told = []
    done = predict_to_folder(ckpt, pictures, tmp_path / "out", num_workers=0, explain=3, tell=told.append)
    assert done.records.read_text() == plain.records.read_text()
    assert plain.explained is None
    assert told == ["explaining: each map takes 28 predictions more, to see what it is worth; 1 a picture"]
    assert written(tmp_path / "out") == ["a.jpg", "a_1.jpg", "b.jpg"]
    found = records(tmp_path / "out")
    assert [r["map"] for r in found] == ["a.jpg", "a_1.jpg", "b.jpg"]
    assert [r["image"] for r in found] == [p.path for p in pictures]
    predicted = [json.loads(line) for line in done.records.read_text().splitlines()]
    assert [r["label"] for r in found] == [r["label"] for r in predicted]
    assert [r["score"] for r in found] == pytest.approx([r["score"] for r in predicted], abs=0.01)
    assert done.explained.startswith("on 3 pictures the maps score ")
    assert tmp_path / "out" / "explanations" in done.files
    with Image.open(tmp_path / "out" / "explanations" / "a.jpg") as drawn:
        assert drawn.width == 320


def test_a_detector_has_a_map_an_object_and_no_two_pictures_share_a_file(detector, pictures, tmp_path):
    out = tmp_path / "out"
    done = predict_to_folder(detector, pictures[:2], out, num_workers=0, explain=2, min_score=0.0)
    assert done.problems == []
    assert written(out) == sorted(f"{name}_{k}.jpg" for name in ("a", "a_1") for k in (1, 2))
    found = {r["map"]: r for r in records(out)}
    assert found["a_1.jpg"]["image"] == pictures[0].path
    assert found["a_1_1.jpg"]["image"] == pictures[1].path
    first = json.loads(done.records.read_text().splitlines()[0])["objects"][0]
    assert found["a_1.jpg"]["box"] == pytest.approx(first["box"], abs=1)
    assert found["a_1.jpg"]["label"] == first["label"]
    assert "(4 maps)" in done.explained
    again = predict_to_folder(detector, pictures[:2], out, num_workers=0, explain=1, min_score=0.0, overwrite=True)
    assert written(out) == sorted(f"{name}_1.jpg" for name in ("a", "a_1"))
    assert "maps)" not in again.explained


def test_where_nothing_is_found_nothing_is_written_or_said(detector, pictures, tmp_path):
    done = predict_to_folder(detector, pictures, tmp_path / "out", num_workers=0, explain=2, min_score=1.0)
    assert done.explained is None
    assert not list((tmp_path / "out" / "explanations").glob("*.jpg"))


def test_going_on_sums_up_all_and_keeps_what_is_there(ckpt, pictures, tmp_path):
    out = tmp_path / "out"
    predict_to_folder(ckpt, pictures[:1], out, num_workers=0, explain=3)
    stays = (out / "explanations" / "a.jpg").stat().st_mtime_ns
    done = predict_to_folder(ckpt, pictures, out, num_workers=0, explain=3, resume=True)
    assert (out / "explanations" / "a.jpg").stat().st_mtime_ns == stays
    assert done.explained.startswith("on 3 pictures")
    with pytest.raises(UsageError, match="were made with another --explain"):
        predict_to_folder(ckpt, pictures, out, num_workers=0, resume=True)
    with pytest.raises(UsageError, match="already holds predictions"):
        predict_to_folder(ckpt, pictures, out, num_workers=0, explain=3)


def test_a_record_that_was_changed_by_hand_counts_as_none(tiny_model, tmp_path):
    writer = ExplanationWriter(tiny_model, WriterJob(tmp_path, tiny_model.classes, ("a.png", "b.png", "c.png")), 3)
    (tmp_path / "explanations").mkdir()
    good = {"insertion_minus_deletion": 0.2, "centre_blob": 0.1}
    for name, text in (("a", json.dumps(good)), ("b", "no json"), ("c", '{"centre_blob": []}')):
        (tmp_path / "explanations" / f"{name}.json").write_text(text)
    writer.finish()
    assert writer.verdict.startswith("on 1 picture the maps score 0.20, a blob in the centre 0.10")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"backend": "openvino"},
            "--explain needs gradients, which torch alone computes: leave --backend openvino out",
        ),
        ({"backend": "compile"}, "leave --backend compile out"),
        ({"precision": "int8"}, "--explain needs gradients, which whole numbers have none of: leave --precision int8"),
        ({"views": Views(flip=True)}, "as a whole: leave --flip, --scales and --window out"),
        ({"reduced": True}, "--explain draws on all pixels of a picture: leave --reduced-decode out"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(ckpt, pictures, tmp_path, more, words, monkeypatch):
    monkeypatch.setattr(files.Members, "load", None)
    with pytest.raises(UsageError) as raised:
        predict_to_folder(ckpt, pictures, tmp_path / "out", num_workers=0, explain=3, **more)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_model_is_explained_at_a_time(ckpt, tiny_model, pictures, tmp_path):
    visionkit.save(tiny_model, tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match="^--explain explains what one model goes by: give one --ckpt$"):
        predict_to_folder([ckpt, tmp_path / "other.ckpt"], pictures, tmp_path / "out", explain=3)


def test_pictures_of_many_channels_cannot_be_drawn_on(tmp_path):
    model = visionkit.VisionModel(
        visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", stem="small", in_channels=5),
        visionkit.LinearHead,
        ["a", "b"],
        preprocessing=visionkit.Preprocessing(32, channels=5),
    ).eval()
    with pytest.raises(UsageError, match="--explain draws on RGB and grey pictures; this model takes 5 channels"):
        ExplanationWriter(model, WriterJob(tmp_path, model.classes, ()), 3)


class TestCommand:
    def test_the_flag_before_the_pictures(self, ckpt, pictures, tmp_path, capsys):
        out = tmp_path / "out"
        assert run(["predict", "--ckpt", str(ckpt), "--out", str(out), "--explain", pictures[0].path]) == 0
        said = capsys.readouterr().out
        assert "explaining: each map takes 28 predictions more" in said
        assert "maps     on 1 picture the maps score" in said
        assert "explanations/" in said
        assert written(out) == ["a.jpg"]

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (["--explain-objects", "2", "PICTURE"], "--explain-objects says how many objects --explain explains: add"),
            (["--explain", "--explain-objects", "0", "PICTURE"], "--explain-objects must be at least 1, got 0"),
            (["--explain", "5", "PICTURE"], "--explain takes no number, and no picture is called 5: add --explain-ob"),
            (["--explain", "--flip", "PICTURE"], "leave --flip, --scales and --window out"),
            (["--explain", "--backend", "onnx", "PICTURE"], "leave --backend onnx out"),
        ],
    )
    def test_what_cannot_be_meant_is_one_line(self, ckpt, pictures, tmp_path, capsys, given, words):
        given = [pictures[0].path if word == "PICTURE" else word for word in given]
        assert run(["predict", "--ckpt", str(ckpt), "--out", str(tmp_path / "out"), *given]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
