"""fit --model.teacher through the command line: what it says, what it keeps, what it refuses; every task learns."""

import csv
import hashlib
import re

import pytest
import torch
import yaml

import visionkit
from visionkit import Preprocessing, ResNet, VisionModel
from visionkit.cli.main import run
from visionkit.models import checkpoint

TINY = ["--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--data.size=32", "--data.num_workers=0",
        "--trainer.logger=false", "--pictures=none", "--epochs=1", "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1"]  # fmt: skip
KINDS = {
    "classify": ["-c", "classify.yaml", *TINY],
    "segment": ["-c", "segment.yaml", *TINY, "--model.head.channels=16"],
    "detect": ["-c", "detect.yaml", *TINY, "--model.neck.channels=16", "--model.head.channels=16"],
}


@pytest.fixture
def fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISIONKIT_CHOSEN", raising=False)

    def call(*more, command="fit"):
        status = run([command, *more])
        printed = capsys.readouterr()
        return status, printed.out.splitlines() + printed.err.splitlines()

    return call


def rows(folder):
    shown = csv.DictReader((folder / "metrics.csv").open())
    return [{k: v for k, v in row.items() if "second" not in k} for row in shown]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_taught_and_says_by_whom(fit, tmp_path, kind):
    given = KINDS[kind]
    assert fit(*given)[0] == 0
    teacher = tmp_path / "runs" / f"{kind}-1"
    status, said = fit(*given, "--model.teacher", f"runs/{kind}-1")
    assert status == 0, said
    digest = hashlib.sha256((teacher / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()
    (line,) = [line for line in said if line.startswith(f"teacher  runs/{kind}-1/checkpoints/best.ckpt: ResNet")]
    assert line.endswith(f"sha256 {digest[:12]}")
    student = tmp_path / "runs" / f"{kind}-2"
    assert float(rows(student)[0]["train/teacher"]) > 0
    text = (student / "config.yaml").read_text()
    assert f"# teacher: runs/{kind}-1/checkpoints/best.ckpt, sha256 {digest}\n" in text
    assert yaml.safe_load(text)["model"]["init_args"]["teacher"] == str(teacher)
    assert checkpoint.read(student)["visionkit"]["teachers"] == [{"sha256": digest, "source": "best.ckpt"}]
    counted = [re.search(r"([\d.]+ M) parameters", line)[1] for line in said if line.startswith("model ")]
    status, said = fit(*given, "--model.teacher", f"[runs/{kind}-1, runs/{kind}-2]")
    assert status == 0, said
    assert sum(line.startswith(f"teacher  runs/{kind}-") for line in said) == 2
    assert any(line.startswith("teacher  weight ") and line.endswith(", the mean of 2") for line in said)
    assert counted == [re.search(r"([\d.]+ M) parameters", line)[1] for line in said if line.startswith("model ")]
    assert isinstance(visionkit.load(student), VisionModel)


def test_a_run_goes_on_with_its_teacher_and_with_no_other(fit, tmp_path, cut_off):
    given = [*KINDS["classify"], "--epochs=2"]
    assert fit(*given, "--epochs=1", "--seed_everything=3")[0] == 0
    teacher = ["--model.teacher=runs/classify-1/checkpoints/best.ckpt"]
    assert fit(*given, *teacher, "--trainer.default_root_dir=whole")[0] == 0
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(*given, *teacher, "--trainer.default_root_dir=cut", cut_off)
    assert type(raised.value).__name__ == "CutOff"
    again = ["-c", "cut/config.yaml", "--trainer.callbacks=null", "--ckpt_path=last"]
    status, said = fit(*again)
    assert status == 0, said
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    best = tmp_path / "runs" / "classify-1" / "checkpoints" / "best.ckpt"
    model = visionkit.load(best)
    best.unlink()
    visionkit.save(model, best, task="visionkit.Classifier")
    status, said = fit(*again, "--epochs=3")
    assert status == 1
    assert re.match(
        r"error: cut/checkpoints/last.ckpt: was taught by best.ckpt \(\w{12}\), and model.teacher is ", said[-1]
    )
    assert fit(*again, "--epochs=3", "--model.teacher=null")[0] == 0
    best.unlink()
    assert fit("--ckpt", "cut", command="validate")[0] == 0, "who measures asks no teacher"


def test_what_cannot_be_taught_is_refused_in_a_line(fit, tmp_path):
    torch.manual_seed(0)
    net = ResNet(layers=(1, 1, 1, 1), block="basic")
    visionkit.save(
        VisionModel(net, visionkit.LinearHead, ["circle", "square"], preprocessing=Preprocessing(32)), "t.ckpt"
    )
    for config, more, status, message in (
        (
            "detect_two_stage",
            [],
            2,
            r"model.teacher t.ckpt: FasterRCNNHead learns from labels alone: classifiers, segm",
        ),
        ("detect", [], 2, r"model.teacher t.ckpt: a LinearHead says nothing of each location: give a model with FCOS"),
        ("multitask", [], 2, r"--model.teacher: MultiTask"),
        ("classify", ["--model.teacher=none.ckpt"], 1, r"none.ckpt: no such file; check the path"),
        (
            "detect",
            ["--model.recipe.teacher_temperature=2"],
            2,
            r"recipe.teacher_temperature: FCOSHead imitates scores",
        ),
    ):
        code, said = fit("-c", f"{config}.yaml", *TINY[:1], *TINY[2:], "--model.teacher=t.ckpt", *more)
        assert code == status, said
        assert re.match(f"error: {message}", said[-1]), said[-1]
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_a_trial_is_taught_too(fit, tmp_path):
    given = KINDS["classify"]
    assert fit(*given)[0] == 0
    status, said = fit(*given, "--model.teacher=runs/classify-1", "--dry-run")
    assert status == 0, said
    assert any(line.startswith("teacher  weight ") for line in said)
    assert not (tmp_path / "runs" / "classify-2").exists()
