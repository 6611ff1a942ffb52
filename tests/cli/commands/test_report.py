"""visionkit report from outside: what it writes and says, and how it ends."""

import json
import re

import pytest
import torch

import visionkit
from tests import corpus, evaluations
from visionkit.cli.main import run
from visionkit.core.thresholds import Thresholds
from visionkit.models.store_thresholds import store_thresholds


@pytest.fixture
def evaluated(tmp_path):
    evaluations.make("classification", tmp_path / "out", tmp_path / "data")
    return tmp_path / "out"


def test_a_page(evaluated, tmp_path, capsys):
    out = tmp_path / "a.html"
    assert run(["report", str(evaluated), "--out", str(out)]) == 0
    assert re.fullmatch(rf"report   {out} \(0\.\d MB\)\n", capsys.readouterr().out)
    assert out.read_text().count("<img ") == 6
    assert run(["report", str(evaluated), "--out", str(out)]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run(["report", str(evaluated), "--out", str(out), "--overwrite", "--pictures", "1"]) == 0
    assert out.read_text().count("<img ") == 1


def test_what_could_not_be_shown_is_said(evaluated, tmp_path, capsys):
    (tmp_path / "data" / "p000.jpg").unlink()
    assert run(["report", str(evaluated), "--out", str(tmp_path / "a.html")]) == 0
    assert "note     1 picture left out: is not there any more\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--out", "a.txt"], 2, "ends in .html"),
        (["--out", "a.html", "--pictures", "-1"], 2, "--pictures -1"),
        (["--out", "a.html", "--picture", "1"], 2, "did you mean --pictures"),
        (["--out", "a.html", "--data", "none"], 1, "--data none: no such folder or file"),
        ([], 2, "--out"),
    ],
)
def test_wrongly_asked(evaluated, capsys, arguments, status, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(evaluated), *arguments]) == status
    assert words in capsys.readouterr().err


def test_neither_evaluation_nor_run(tmp_path, capsys):
    assert run(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 1
    assert "holds neither evaluation.json of visionkit evaluate nor metrics.csv" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_true_pixels_come_from_the_data(tmp_path):
    pytest.importorskip("visionkit.cli.measured")
    evaluations.make("segmentation", tmp_path / "out", tmp_path / "data")
    out = tmp_path / "a.html"
    assert run(["report", str(tmp_path / "out"), "--out", str(out)]) == 0
    assert out.read_text().count('alt="truth: ') == 3
    assert out.read_text().count('alt="prediction: ') == 3
    (tmp_path / "data").rename(tmp_path / "moved")
    assert (
        run(["report", str(tmp_path / "out"), "--out", str(out), "--overwrite", "--data", str(tmp_path / "moved")]) == 0
    )
    assert out.read_text().count('alt="truth: ') == 3


def test_evidence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus, "COUNTS", {"val": 4})
    corpus.class_folders(tmp_path / "data")
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic")
    small = visionkit.Preprocessing(64)
    model = visionkit.VisionModel(backbone, visionkit.LinearHead, corpus.NAMES, preprocessing=small)
    visionkit.save(model.eval(), "a.ckpt")
    assert run(["evaluate", "--ckpt", "a.ckpt", "--data", "data", "--out", "out"]) == 0
    assert run(["report", "out", "--out", "plain.html"]) == 0
    assert run(["report", "out", "--out", "a.html", "--explain", "--explain-pictures", "3"]) == 0
    plain, page = ((tmp_path / name).read_text() for name in ("plain.html", "a.html"))
    assert page.count("<img ") == plain.count("<img ") + 3
    assert "What the model goes by" in page
    assert "What the model goes by" not in plain
    assert page.count("where the evidence for ") == 3
    assert "On 3 pictures the maps score " in page

    capsys.readouterr()
    store_thresholds("a.ckpt", Thresholds("f1", {corpus.NAMES[0]: 0.5}))
    assert run(["report", "out", "--out", "again.html", "--explain", "--explain-pictures", "1"]) == 0
    with torch.no_grad():
        model.head.classifier[-1].bias.add_(1)
    visionkit.save(model, "a.ckpt")
    capsys.readouterr()
    assert run(["report", "out", "--out", "b.html", "--explain"]) == 1
    assert capsys.readouterr().err.startswith("error: a.ckpt: holds another model than the one that was evaluated")


def test_nothing_to_explain(evaluated, tmp_path, capsys):
    asked = ["report", str(evaluated), "--out", str(tmp_path / "a.html")]
    assert run([*asked, "--explain"]) == 1
    assert capsys.readouterr().err == "error: runs/a/checkpoints/best.ckpt: no such file; check the path\n"
    told = json.loads((evaluated / "evaluation.json").read_text())
    for models, words in (([], "no model"), (told["model"]["checkpoints"] * 2, "an ensemble")):
        told["model"]["checkpoints"] = models
        (evaluated / "evaluation.json").write_text(json.dumps(told))
        assert run([*asked, "--explain"]) == 2
        assert f"is an evaluation of {words}" in capsys.readouterr().err
    assert run([*asked, "--explain-pictures", "3"]) == 2
    assert "--explain explains: add that" in capsys.readouterr().err
