"""evaluate --choose, then predict: thresholds go into the checkpoint, and predictions go by them."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import ClassTarget
from visionkit.cli.main import run
from visionkit.evaluation.model_weights import FittedWeights
from visionkit.evaluation.thresholds import choose
from visionkit.models.model_digest import model_digest

NAMES = ("blue", "green", "red")


@pytest.fixture
def root(tmp_path):
    """Pictures told apart by colour: 8 a class in val, 4 in test."""
    rng = np.random.default_rng(0)
    for split, count in (("val", 8), ("test", 4)):
        for k, name in enumerate(NAMES):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., 2 - k] += 150
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def ckpt(tiny_model, root, tmp_path):
    """A classifier that tells the colours apart."""
    paths = sorted((root / "val").rglob("*.png"))
    samples = [tiny_model.preprocessing(s).image for s in visionkit.data.images.given.samples_of(paths, 3)]
    with torch.no_grad():
        features = tiny_model.neck(tiny_model.backbone(tiny_model.normalise(torch.stack(samples))))
    tiny_model.head.fit(features, [ClassTarget.make(NAMES.index(p.parent.name), 3) for p in paths])
    visionkit.save(tiny_model, tmp_path / "m.ckpt", task="visionkit.Classifier")
    return tmp_path / "m.ckpt"


def evaluate(ckpt, root, tmp_path, *more):
    given = ["--data", str(root), "--out", str(tmp_path / "e"), "--overwrite", "--num-workers", "0"]
    return run(["evaluate", "--ckpt", str(ckpt), *given, *more])


def test_chosen_stored_used_and_taken_out(ckpt, root, tmp_path, capsys):
    assert evaluate(ckpt, root, tmp_path, "--choose", "precision>=0.5") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "chosen on val (24 pictures), told on test (12 pictures)" in out
    assert f"stored in {ckpt}: " in out
    entry = json.loads((tmp_path / "e" / "evaluation.json").read_text())["thresholds"]
    model = visionkit.load(ckpt)
    assert model.thresholds.rule == "precision>=0.5"
    assert model.thresholds.values == {name: facts["threshold"] for name, facts in entry["classes"].items()}
    assert all(facts["bound"] >= 0.5 for facts in entry["classes"].values()), "8 of 8 right"
    assert run(["predict", "--ckpt", str(ckpt), "--out", str(tmp_path / "p"), str(root / "test")]) == 0
    assert "thresholds (precision>=0.5): blue " in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert [r["sure"] for r in records] == [r["score"] >= model.thresholds.values[r["label"]] for r in records]
    assert evaluate(ckpt, root, tmp_path, "--choose", "none") == 0
    assert visionkit.load(ckpt).thresholds is None
    assert str(ckpt) in capsys.readouterr().out


def test_numbers_do_not_go_by_thresholds(ckpt, root, tmp_path, capsys):
    assert evaluate(ckpt, root, tmp_path) == 0
    plain = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert plain["thresholds"] is None
    assert plain["calibration"]["kind"] == "pictures"
    assert evaluate(ckpt, root, tmp_path, "--choose", "f1") == 0
    records = (tmp_path / "e" / "predictions.jsonl").read_text()
    assert evaluate(ckpt, root, tmp_path) == 0
    again = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert again["metrics"] == plain["metrics"]
    assert (tmp_path / "e" / "predictions.jsonl").read_text() == records, "as the network says them"
    assert '"sure"' not in records


def test_nothing_can_be_promised_of_a_few_pictures(ckpt, root, tmp_path, capsys):
    assert evaluate(ckpt, root, tmp_path, "--choose", "precision>=0.95") == 0
    out = capsys.readouterr().out
    assert "nothing can be promised: 8 answers, and 59 are needed, all of them right" in " ".join(out.split())
    assert "it would take about 160 more pictures like these" in " ".join(out.split())
    assert set(visionkit.load(ckpt).thresholds.values.values()) == {None}


@pytest.mark.parametrize("rule", ["precision>=2", "precision", "best"])
def test_a_rule_that_is_none_is_refused_before_anything_else(rule, ckpt, root, tmp_path, capsys):
    assert evaluate(ckpt, root, tmp_path, "--choose", rule) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: --choose {rule}: ")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "e" / "evaluation.json").exists()


@pytest.fixture
def other(ckpt, tmp_path):
    """A model that says the same with less certainty."""
    model = visionkit.load(ckpt)
    with torch.no_grad():
        model.head.classifier[-1].weight.mul_(0.5)
    visionkit.save(model, tmp_path / "other.ckpt", task="visionkit.Classifier")
    return tmp_path / "other.ckpt"


def scores_of(folder):
    return sorted(json.loads(line)["score"] for line in (folder / "predictions.jsonl").read_text().splitlines())


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_was_chosen_for_several_is_what_predict_goes_by(ckpt, other, root, tmp_path, capsys, monkeypatch, split):
    def fitted(ensemble, *_, **__):
        return FittedWeights((0.9, 0.1), True, "0.9 and 0.1: as the test says")

    monkeypatch.setattr("visionkit.evaluation.ensembling.fit_weights", fitted)
    both = ("--ckpt", str(ckpt), str(other), "--split", split)
    assert evaluate(ckpt, root, tmp_path, *both, "--choose", "precision>=0.5") == 0
    said = " ".join(capsys.readouterr().out.split())
    told = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    entry = told["ensemble"]
    assert entry["weights"] == entry["measured_with"] == ([0.5, 0.5] if split == "val" else [0.9, 0.1])
    assert entry["fitted"] == (split == "test")
    assert "the numbers here are those of these weights" in said
    given = ["--ckpt", str(other), str(ckpt), "--fitted", str(tmp_path / "e"), "--out", str(tmp_path / "p")]
    assert run(["predict", *given, str(root / split)]) == 0
    by = {name: facts["threshold"] for name, facts in told["thresholds"]["classes"].items()}
    lines = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert [r["sure"] for r in lines] == [r["score"] >= by[r["label"]] for r in lines]
    assert scores_of(tmp_path / "p") == pytest.approx(scores_of(tmp_path / "e"), abs=1e-5), "those that were measured"
    if split == "val":
        assert evaluate(ckpt, root, tmp_path, *both) == 0
        entry = json.loads((tmp_path / "e" / "evaluation.json").read_text())["ensemble"]
        assert (entry["weights"], entry["measured_with"]) == ([0.9, 0.1], [0.5, 0.5])
        assert "the numbers here are those of equal weights" in " ".join(capsys.readouterr().out.split())


def test_a_file_that_holds_another_model_by_then_is_left_alone(ckpt, other, root, tmp_path, capsys, monkeypatch):
    def overtaken(*given, **more):
        shutil.copy(other, ckpt)  # as a training that goes on does
        return choose(*given, **more)

    monkeypatch.setattr("visionkit.cli.choosing.choose", overtaken)
    assert evaluate(ckpt, root, tmp_path, "--choose", "f1") == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: the thresholds stand in evaluation.json, and are not stored: ")
    assert f"{ckpt}: holds another model now" in said.err
    assert "stored in" not in said.out
    assert visionkit.load(ckpt).thresholds is None
    told = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert told["thresholds"]["rule"] == "f1"
    assert told["model"]["checkpoints"][0]["sha256"] != model_digest(ckpt), "that of the model that was measured"


def test_thresholds_of_other_scores_than_plain_ones_are_not_stored(ckpt, root, tmp_path, capsys):
    before = ckpt.read_bytes()
    assert evaluate(ckpt, root, tmp_path, "--choose", "f1", "--flip") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"they stand in evaluation.json, and not in {ckpt}: plain predictions have other scores" in said
    assert "than those with --flip; evaluate --choose without to store some" in said
    assert "stored in" not in said
    assert ckpt.read_bytes() == before
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["thresholds"]["rule"] == "f1"
