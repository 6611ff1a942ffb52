"""fit --model.teacher through the command line: what it says, what it keeps, what it refuses; every task learns."""

import csv
import re
import sys

import pytest
import torch
import yaml

import visionkit
from visionkit import FPN, FCNHead, FCOSHead, LinearHead, Preprocessing, ResNet, VisionModel
from visionkit.cli.main import run
from visionkit.models import checkpoint
from visionkit.models.model_digest import model_digest

TINY = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--data.size=32", "--data.num_workers=0"),
    *("--trainer.logger=false", "--pictures=none", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
]
KINDS = {
    "classify": (LinearHead, {}, visionkit.ShapesClassification, TINY),
    "segment": (FCNHead, {}, visionkit.ShapesSegmentation, [*TINY, "--model.head.channels=16"]),
    "detect": (
        FCOSHead,
        {"neck": lambda f: FPN(f, channels=16)},
        visionkit.ShapesDetection,
        [*TINY, "--model.neck.channels=16", "--model.head.channels=16"],
    ),
}


def network(kind, classes=None, seed=0):
    head, parts, data, _ = KINDS[kind]
    torch.manual_seed(seed)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic")
    return VisionModel(backbone, head, classes or data(1).classes, preprocessing=Preprocessing(32), **parts)


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


@pytest.mark.parametrize(
    "kind", ["classify", *(pytest.param(k, marks=pytest.mark.slow) for k in ("segment", "detect"))]
)
def test_a_run_is_taught_and_says_by_whom(fit, tmp_path, kind):
    for name in ("a", "b"):
        visionkit.save(network(kind, seed=ord(name)), f"{name}.ckpt")
    given = ["-c", f"{kind}.yaml", *KINDS[kind][-1], "--epochs=1", "--model.teacher"]
    status, said = fit(*given, "[a.ckpt, b.ckpt]")
    assert status == 0, said
    digests = [model_digest(tmp_path / f"{name}.ckpt") for name in ("a", "b")]
    lines = [line for line in said if line.startswith("teacher  ")]
    for name, digest, line in zip("ab", digests, lines, strict=False):
        assert line.startswith(f"teacher  {name}.ckpt: ResNet")
        assert line.endswith(f"sha256 {digest[:12]}")
    soft = {"classify": ", temperature 3", "segment": ", temperature 1", "detect": ""}[kind]
    assert lines[2:] == [f"teacher  weight 0.7, labels 0.3{soft}, the mean of 2"]
    student = tmp_path / "runs" / f"{kind}-1"
    (row,) = rows(student)
    assert 0 < float(row["train/teacher"]) < float(row["train/loss"])
    text = (student / "config.yaml").read_text()
    assert f"# teacher: a.ckpt, sha256 {digests[0]}\n# teacher: b.ckpt, sha256 {digests[1]}\n" in text
    assert yaml.safe_load(text)["model"]["init_args"]["teacher"] == [str(tmp_path / f"{name}.ckpt") for name in "ab"]
    saved = checkpoint.read(student)
    assert saved["visionkit"]["teachers"] == [
        {"sha256": d, "source": f"{n}.ckpt"} for n, d in zip("ab", digests, strict=True)
    ]
    assert set(saved["state_dict"]) <= {f"model.{k}" for k in visionkit.load(student).state_dict()}


@pytest.mark.slow
def test_a_run_goes_on_with_its_teacher_and_with_no_other(fit, tmp_path, cut_off):
    teacher = tmp_path / "a.ckpt"
    visionkit.save(network("classify", seed=1), teacher)
    given = ["-c", "classify.yaml", *TINY, "--epochs=2", "--model.teacher=a.ckpt"]
    assert fit(*given, "--trainer.default_root_dir=whole")[0] == 0
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(*given, "--trainer.default_root_dir=cut", cut_off)
    assert type(raised.value).__name__ == "CutOff"
    again = ["-c", "cut/config.yaml", "--trainer.callbacks=null", "--ckpt_path=last"]
    status, said = fit(*again)
    assert status == 0, said
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    visionkit.save(network("classify", seed=2), teacher)
    status, said = fit(*again, "--epochs=3")
    assert status == 1
    assert re.match(
        r"error: cut/checkpoints/last.ckpt: was taught by a.ckpt \(\w{12}\), and model.teacher is ", said[-1]
    )
    teacher.unlink()
    assert fit("--ckpt", "cut", command="validate")[0] == 0, "who measures asks no teacher"


@pytest.mark.parametrize(
    ("config", "more", "status", "message"),
    [
        ("detect_two_stage", [], 2, "model.teacher t.ckpt: FasterRCNNHead learns from labels alone: classifiers, segm"),
        ("multitask", [], 2, "--model.teacher: MultiTask"),
        ("classify", ["--model.teacher=none.ckpt"], 1, "none.ckpt: no such file; check the path"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_a_line(fit, tmp_path, config, more, status, message):
    visionkit.save(network("classify", ["circle", "square"]), "t.ckpt")
    code, said = fit("-c", f"{config}.yaml", TINY[0], *TINY[2:], "--model.teacher=t.ckpt", *more)
    assert code == status, said
    assert said[-1].startswith(f"error: {message}"), said[-1]
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_a_teacher_names_foreign_classes_where_their_package_is_trusted(fit, tmp_path, monkeypatch):
    (tmp_path / "zoo.py").write_text("from visionkit import LinearHead\nclass Head(LinearHead): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = network("classify")
    described = checkpoint.spec_of_model(model, task="visionkit.Classifier")
    described["model"]["head"]["class_path"] = "zoo.Head"
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    checkpoint.write({"state_dict": state, "visionkit": described}, "zoo.ckpt")
    given = ["-c", "classify.yaml", *TINY, "--trainer.max_epochs=0", "--model.teacher=zoo.ckpt"]
    status, said = fit(*given)
    assert status == 2
    assert "zoo.ckpt: the checkpoint names the class zoo.Head, outside visionkit" in said[-1]
    assert "zoo" not in sys.modules
    status, said = fit(*given, "--trust", "zoo")
    sys.modules.pop("zoo", None)
    assert status == 0, said
    assert any(line.startswith("teacher  zoo.ckpt: ResNet") for line in said)


@pytest.mark.slow
def test_a_trial_is_taught_too(fit, tmp_path):
    visionkit.save(network("classify", seed=1), "a.ckpt")
    status, said = fit("-c", "classify.yaml", *TINY, "--epochs=1", "--model.teacher=a.ckpt", "--dry-run")
    assert status == 0, said
    assert any(line.startswith("teacher  weight ") for line in said)
    assert not (tmp_path / "runs").exists()
