"""Predicting pictures by the thresholds of a checkpoint: the command, predict_files and a loaded model say the same."""

import csv
import json

import pytest
import torch

import visionkit
from visionkit import FPN, FCOSHead, Preprocessing, ResNet, UsageError, VisionModel
from visionkit.cli.main import run
from visionkit.core.thresholds import Thresholds
from visionkit.models.store_thresholds import store_thresholds
from visionkit.prediction.files import ImageFile, predict_to_folder

CLASSES = ("blue", "green", "red")


@pytest.fixture
def classifier(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "c.ckpt")
    return tmp_path / "c.ckpt"


@pytest.fixture
def detector(tmp_path):
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")
    model = VisionModel(
        backbone,
        lambda f, k: FCOSHead(f, k, channels=16, depth=1, score_threshold=0.01),
        CLASSES,
        lambda f: FPN(f, channels=16, max_level=5),
        preprocessing=Preprocessing(32),
    ).eval()
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if name.endswith("bias") and parameter.shape == (3,):
                parameter.copy_(torch.tensor([-1.0, -0.5, 0.0]))
    visionkit.save(model, tmp_path / "d.ckpt", task="visionkit.Detector")
    return tmp_path / "d.ckpt"


def records(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def predict(ckpt, photos, out, *more, status=0):
    assert run(["predict", "--ckpt", str(ckpt), "--out", str(out), str(photos), "--num-workers", "0", *more]) == status
    return records(out) if status == 0 else None


def scores(ckpt, photos):
    found = list(visionkit.predict_files(ckpt, photos, num_workers=0))
    return [(f.record(), f) for f in found]


def test_a_classifier_says_which_labels_are_sure(classifier, photos, tmp_path, capsys):
    plain = predict(classifier, photos, tmp_path / "plain")
    assert "thresholds" not in capsys.readouterr().out
    values = sorted(r["score"] for r in plain)
    middle = values[len(values) // 2]
    store_thresholds(classifier, Thresholds("precision>=0.95", dict.fromkeys(CLASSES, middle)))
    found = predict(classifier, photos, tmp_path / "sure")
    out = capsys.readouterr().out
    assert [r["sure"] for r in found] == [r["score"] >= middle for r in plain]
    assert 0 < sum(r["sure"] for r in found) < len(found)
    assert [{k: v for k, v in r.items() if k != "sure"} for r in found] == plain
    said = f"blue {middle:.3g}, green {middle:.3g}, red {middle:.3g}"
    assert out.count("thresholds") == 1
    assert f"thresholds (precision>=0.95): {said}" in out
    assert f"(not sure) {sum(not r['sure'] for r in found)}" in out
    rows = list(csv.DictReader((tmp_path / "sure" / "predictions.csv").open()))
    assert [row["sure"] for row in rows] == [str(r["sure"]) for r in found]
    assert [f.record()["sure"] for f in visionkit.predict_files(classifier, photos)] == [r["sure"] for r in found]
    assert visionkit.load(classifier)(found[0]["image"]).sure is found[0]["sure"]


def test_a_detector_leaves_out_what_is_below(detector, photos, tmp_path, capsys):
    plain = predict(detector, photos, tmp_path / "plain")
    every = sorted(o["score"] for r in plain for o in r["objects"] if o["label"] == "red")
    assert len(every) > 10, "the network of this test finds something"
    middle = every[len(every) // 2]
    chosen = Thresholds("precision>=0.9", {"blue": None, "green": 1.0, "red": middle})
    store_thresholds(detector, chosen)
    found = predict(detector, photos, tmp_path / "chosen", "--save-images", "--save-crops")
    out = capsys.readouterr().out
    least = {"blue": 0.3, "green": 1.0, "red": middle}
    wanted = [[o for o in r["objects"] if o["score"] >= least[o["label"]]] for r in plain]
    assert [r["objects"] for r in found] == wanted
    count = sum(map(len, wanted))
    assert "by the thresholds)" in out
    assert f"thresholds (precision>=0.9): green 1, red {middle:.3g}\n         nothing is promised of blue\n" in out
    assert len(list((tmp_path / "chosen" / "crops").rglob("*.jpg"))) == count
    with (tmp_path / "chosen" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == count
    loaded = visionkit.load(detector)(found[0]["image"])
    assert loaded.record(CLASSES)["objects"] == found[0]["objects"]
    files = list(visionkit.predict_files(detector, photos, num_workers=0))
    assert [f.record()["objects"] for f in files] == wanted


def test_those_of_each_of_several_models_are_not_used_and_that_is_said(classifier, photos, tmp_path, capsys):
    other = tmp_path / "other.ckpt"
    visionkit.save(visionkit.load(classifier), other)
    picture = str(next(photos.rglob("*.png")))
    given = ["predict", "--ckpt", str(classifier), str(other), picture, "--out"]
    assert run([*given, str(tmp_path / "a")]) == 0
    assert "thresholds" not in "".join(capsys.readouterr())
    store_thresholds(classifier, Thresholds("f1", dict.fromkeys(CLASSES, 0.5)))
    assert run([*given, str(tmp_path / "b")]) == 0
    assert f"thresholds in {classifier} are that model's own and are not used" in "".join(capsys.readouterr())
    store_thresholds(other, Thresholds("f1", dict.fromkeys(CLASSES, 0.5)))
    assert run([*given, str(tmp_path / "c")]) == 0
    said = "".join(capsys.readouterr())
    assert said.count(f"thresholds in {classifier} and {other} are each model's own and are not used: ") == 1
    assert "--choose RULE makes some for all together, predict --fitted takes them\n" in said
    assert "sure" not in records(tmp_path / "c")[0]


def test_a_list_of_one_checkpoint_goes_by_its_thresholds(classifier, detector, photos):
    picture = str(next(photos.rglob("*.png")))
    for ckpt in (classifier, detector):
        store_thresholds(ckpt, Thresholds("f1", dict.fromkeys(CLASSES, 1.0)))
        alone, listed = visionkit.load(ckpt), visionkit.load([ckpt])
        assert listed(picture).record(CLASSES) == alone(picture).record(CLASSES)
        assert [p.record(CLASSES) for p in listed([picture])] == [p.record(CLASSES) for p in alone([picture])]


def test_a_score_given_by_hand_wins_and_that_is_said(detector, photos, tmp_path, capsys):
    plain = predict(detector, photos, tmp_path / "plain", "--min-score", "0.2")
    store_thresholds(detector, Thresholds("f1", dict.fromkeys(CLASSES, 0.99)))
    capsys.readouterr()
    found = predict(detector, photos, tmp_path / "hand", "--min-score", "0.2")
    out = capsys.readouterr().out
    assert found == plain
    assert "--min-score 0.2 is taken in place of the thresholds (f1)\n" in out
    assert out.count("thresholds") == 1
    by_hand = visionkit.predict_files(detector, photos, min_score=0.2, num_workers=0)
    assert [f.record()["objects"] for f in by_hand] == [r["objects"] for r in plain]


def test_going_on_with_other_thresholds_is_refused(classifier, photos, tmp_path, capsys):
    pictures = [ImageFile(str(p)) for p in sorted(photos.rglob("*.png"))]
    own = dict.fromkeys(CLASSES, 0.4)
    out = tmp_path / "out"
    predict_to_folder(classifier, pictures[:4], out, thresholds=Thresholds("f1", own))
    predict_to_folder(classifier, pictures[:6], out, thresholds=Thresholds("f1", own), resume=True)
    assert len(records(out)) == 6
    with pytest.raises(
        UsageError, match="its predictions were made with another set of thresholds; choose another --out"
    ):
        predict_to_folder(classifier, pictures, out, thresholds=Thresholds("f1", {**own, "red": 0.5}), resume=True)
    with pytest.raises(UsageError, match="made with another set of thresholds"):
        predict_to_folder(classifier, pictures, out, resume=True)


def test_thresholds_that_are_given_take_the_place_of_the_checkpoints(classifier, photos):
    store_thresholds(classifier, Thresholds("f1", dict.fromkeys(CLASSES, 1.0)))
    given = Thresholds("f1", dict.fromkeys(CLASSES, 0.0))
    assert all(f.record()["sure"] for f in visionkit.predict_files(classifier, photos, thresholds=given))
    with pytest.raises(UsageError, match="thresholds: 'cow' is no class of the model; it has blue, green, red"):
        visionkit.predict_files(classifier, photos, thresholds=Thresholds("f1", {"cow": 0.5}))


def test_a_predictor_and_samples_stay_as_the_network_says_them(detector, photos):
    from visionkit.data.images.given import samples_of

    picture = sorted(photos.rglob("*.png"))[0]
    before = list(visionkit.load(detector).predict_samples(samples_of([picture], 3)))
    store_thresholds(detector, Thresholds("f1", dict.fromkeys(CLASSES, 1.0)))
    model = visionkit.load(detector)
    after = list(model.predict_samples(samples_of([picture], 3)))
    assert len(after[0]) == len(before[0]) > 0
    assert len(model(picture)) == 0
