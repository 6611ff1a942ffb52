"""The command line as a person uses it: exact forms, precedence, files that a run leaves."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import visionkit
from tests.pictures import colour_of
from visionkit.cli.config import configs
from visionkit.cli.main import COMMANDS, run
from visionkit.core.output import OUTPUT_MARK
from visionkit.core.thresholds import Thresholds
from visionkit.models.store_thresholds import store_thresholds

SMALL = [
    "--model.backbone.layers=[1,1,1,1]",
    "--model.backbone.block=basic",
    "--model.backbone.stem=small",
    "--data.size=32",
    "--data.batch_size=8",
    "--data.num_workers=0",
    "--trainer.max_epochs=2",
    "--trainer.logger=false",
]


def fit(root, out, *more):
    return run(
        ["fit", "-c", "classify.yaml", "--data.root", str(root), *SMALL, "--trainer.default_root_dir", str(out), *more]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder and its photos, trained once for all tests here that only look."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("blue", "green", "red")):
        for split, count in (("train", 8), ("val", 4), ("test", 3)):
            (folder / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., 2 - k] += 150
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{i}.png")
    assert fit(folder / "photos", folder / "out", "--trainer.max_epochs=4") == 0
    return folder


def test_run_folder_holds_what_it_should(trained):
    out = trained / "out"
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml", "metrics.csv", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "confusion_matrix.png", "learning_curves.png",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3", "4"]
    best = json.loads((out / "metrics.json").read_text())
    assert best["val/top1"] == pytest.approx(max(float(r["val/top1"]) for r in rows), abs=1e-5)
    assert {p.name for p in out.rglob(".*")} == {OUTPUT_MARK}, "no temporary files are left"


def test_saved_config_is_complete_and_runs_again_to_the_same_weights(trained, tmp_path):
    config = yaml.safe_load((trained / "out" / "config.yaml").read_text())
    assert config["model"]["init_args"]["backbone"]["init_args"]["layers"] == [1, 1, 1, 1]
    assert "ckpt_path" not in config
    again = tmp_path / "again"
    assert run(["fit", "-c", str(trained / "out" / "config.yaml"), "--trainer.default_root_dir", str(again)]) == 0
    first, second = (visionkit.load(f / "checkpoints" / "last.ckpt").state_dict() for f in (trained / "out", again))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_validate_test_and_predict_agree(trained, tmp_path, capsys):
    out = trained / "out"
    best = json.loads((out / "metrics.json").read_text())
    assert run(["validate", "-c", str(out / "config.yaml"), "--ckpt_path", str(out / "checkpoints" / "best.ckpt")]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(printed["val/top1"]) == pytest.approx(best["val/top1"], abs=1e-4)

    pictures = str(trained / "photos" / "val")
    assert (
        run(["predict", "--ckpt", str(out / "checkpoints" / "best.ckpt"), "--out", str(tmp_path / "p"), pictures]) == 0
    )
    records = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    right = [r["label"] == Path(r["image"]).parent.name for r in records]
    assert len(records) == 12
    assert sum(right) / len(right) == pytest.approx(best["val/top1"])

    before = (out / "config.yaml").read_text()
    assert run(["test", "-c", str(out / "config.yaml"), "--ckpt_path", "best"]) == 0
    after = json.loads((out / "metrics.json").read_text())
    assert after["val/top1"] == best["val/top1"]
    assert 0 <= after["test/top1"] <= 1
    assert (out / "test_confusion_matrix.png").is_file()
    assert (out / "config.yaml").read_text() == before


def test_checkpoint_alone_is_enough_to_validate(trained, tmp_path, capsys):
    best = shutil.copy(trained / "out" / "checkpoints" / "best.ckpt", tmp_path / "mine.ckpt")
    assert (
        run(["validate", "--ckpt_path", str(best), "--data.root", str(trained / "photos"), "--data.num_workers=0"]) == 0
    )
    out = capsys.readouterr().out
    assert "32 x 32 pixels" in out
    assert "val/top1" in out


def test_classes_of_the_checkpoint_are_those_of_the_test(trained, tmp_path, capsys):
    """A test folder without one of the classes still has the checkpoint's ids."""
    for name in ("red", "green"):
        (tmp_path / "only" / "test" / name).mkdir(parents=True)
        for f in (trained / "photos" / "test" / name).iterdir():
            (tmp_path / "only" / "test" / name / f.name).write_bytes(f.read_bytes())
    best = trained / "out" / "checkpoints" / "best.ckpt"
    assert run(["test", "--ckpt_path", str(best), "--data.root", str(tmp_path / "only"), "--data.num_workers=0",
                "--trainer.default_root_dir", str(tmp_path / "o")]) == 0  # fmt: skip
    values = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert {k for k in values if "accuracy" in k} == {"test/accuracy/red", "test/accuracy/green"}


def test_command_line_beats_yaml_beats_checkpoint(trained, tmp_path, capsys):
    out = trained / "out"
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["model"]["init_args"]["head"]["init_args"]["label_smoothing"] = 0.5
    config["trainer"]["default_root_dir"] = str(tmp_path / "o")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    losses = {}
    for name, arguments in {
        "checkpoint's": ["-c", str(out / "config.yaml")],
        "yaml": ["-c", str(tmp_path / "c.yaml")],
        "command line": ["-c", str(tmp_path / "c.yaml"), "--model.head.label_smoothing", "0.1"],
    }.items():
        assert run(["validate", *arguments, "--ckpt_path", str(out / "checkpoints" / "best.ckpt")]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/loss")]
        losses[name] = float(lines[0].split()[1])
    assert losses["yaml"] != losses["checkpoint's"]
    assert losses["command line"] == losses["checkpoint's"]


def test_a_training_goes_on_from_a_checkpoint_with_thresholds_and_drops_them(trained, tmp_path, capsys):
    shutil.copytree(trained / "out", tmp_path / "out")
    best = tmp_path / "out" / "checkpoints" / "best.ckpt"
    store_thresholds(best, Thresholds("precision>=0.95", {"blue": 0.62, "green": None, "red": 0.5}))
    config = ["fit", "-c", str(tmp_path / "out" / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "out")]
    capsys.readouterr()
    assert run([*config, "--ckpt_path", str(best), "--trainer.max_epochs=5"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "thresholds" in line]
    assert said == [
        f"note     the thresholds of {best} (precision>=0.95) are left out, since the model changes now: visionkit "
        "evaluate --choose finds new ones"
    ]
    assert visionkit.load(best.with_name("last.ckpt")).thresholds is None
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 6


def test_a_second_fit_never_overwrites(trained, capsys):
    before = {p: p.read_bytes() for p in (trained / "out").rglob("*") if p.is_file()}
    assert fit(trained / "photos", trained / "out") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in (trained / "out").rglob("*") if p.is_file()}


def test_last_without_a_checkpoint_is_an_error(trained, tmp_path, capsys, monkeypatch):
    assert fit(trained / "photos", tmp_path / "new", "--ckpt_path", "last") == 2
    assert "there is no file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "classify.yaml", "--ckpt_path", "last"]) == 2
    assert "no run under runs/classify-*" in capsys.readouterr().err


def test_a_checkpoint_of_a_run_is_measured_on_the_data_of_the_run(trained, capsys):
    best = str(trained / "out" / "checkpoints" / "best.ckpt")
    assert run(["validate", "--ckpt", best, "--data.num_workers=0"]) == 0
    assert str(trained / "photos") in capsys.readouterr().out


def test_what_else_there_is_in_place_of_the_last(trained, tmp_path, capsys):
    shutil.copytree(trained / "out", tmp_path / "out")
    config, last = str(tmp_path / "out" / "config.yaml"), tmp_path / "out" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    for asked in ("auto", "last"):
        assert run(["fit", "-c", config, "--ckpt_path", asked]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {last}: damaged")
        assert said.endswith(
            "; or go on from the best epoch with --ckpt_path best, or remove the file, and --ckpt_path auto starts from "
            "the beginning\n"
        )
    assert run(["validate", "-c", config, "--ckpt_path", "last"]) == 1
    assert "go on" not in capsys.readouterr().err
    last.unlink()
    assert run(["fit", "-c", config, "--ckpt_path", "last"]) == 2
    assert capsys.readouterr().err == f"error: --ckpt_path last: there is no file {last}; there is --ckpt_path best\n"
    assert run(["fit", "-c", config, "--ckpt_path", "best", "--trainer.max_epochs=5"]) == 0, "as both messages say"
    assert last.is_file()


def test_loggers_without_a_folder_take_that_of_the_run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    (tmp_path / "own.yaml").write_text(
        "trainer: {logger: [{class_path: CSVLogger}, {class_path: TensorBoardLogger}]}\n"
    )
    config = ["fit", "-c", "classify.yaml", "-c", "own.yaml", "--data.root", str(trained / "photos"), *SMALL[:-1], *few]
    assert run([*config, "--trainer.default_root_dir=a"]) == 0
    written = {p.name.partition(".")[0] for p in (tmp_path / "a" / "lightning_logs").rglob("*") if p.is_file()}
    assert {"metrics", "events"} <= written
    shutil.copytree("a", "b")
    shutil.rmtree(tmp_path / "b" / "lightning_logs")
    assert run(["fit", "-c", "b/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert (tmp_path / "b" / "lightning_logs").is_dir(), "config.yaml names no folder: it belongs to its own"
    assert not (tmp_path / "lightning_logs").exists()


def test_a_place_in_a_config_of_another_folder_has_its_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    text = (configs.folder() / "classify.yaml").read_text()
    line = next(k for k, row in enumerate(text.splitlines(), 1) if "depth: 18" in row)
    (tmp_path / "sub" / "a.yaml").write_text(text.replace("depth: 18", "dpth: 18"))
    assert run(["fit", "-c", "sub/a.yaml"]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: sub/a.yaml:{line}: model.backbone.dpth: ResNet has no key 'dpth'"
    )
    (tmp_path / "sub" / "b.yaml").write_text("model: {init_args: {metric: my_nothing.Mine}}\n")
    assert run(["fit", "-c", "classify.yaml", "-c", "sub/b.yaml"]) == 2
    said = "sub/b.yaml:1: model.metric: there is no module 'my_nothing'; start where my_nothing.py lies, or name its folder"
    assert capsys.readouterr().err == f"error: {said} in PYTHONPATH\n"


@pytest.mark.parametrize(
    "word", ["--resume", "--resume=last", "--resume_from", "--resume-from-checkpoint", "--continue"]
)
def test_words_of_other_tools_for_going_on(word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "classify.yaml", word]) == 2
    name = word.partition("=")[0]
    assert capsys.readouterr().err.startswith(
        f"error: {name}: there is no such option; a training goes on with --ckpt_path"
    )


def test_runs_are_numbered(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "-c", "classify.yaml", "--data.root", str(trained / "photos"), *SMALL, "--trainer.max_epochs=1"]
    assert run(arguments) == 0
    assert run(arguments) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["classify-1", "classify-2"]
    assert run([*arguments, "--ckpt_path", "last", "--trainer.max_epochs=2"]) == 0
    assert len((tmp_path / "runs" / "classify-2" / "metrics.csv").read_text().splitlines()) == 3


KILLED = """
import os, signal, sys
import lightning as L
class Kill(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_goes_on_to_bit_equal_weights(trained, tmp_path):
    """Four epochs at once, and four epochs with a SIGKILL in the third: augmentation, order, dropout and mix included."""
    (tmp_path / "kill_callback.py").write_text(KILLED)
    extra = ["--model.head.dropout", "0.3", "--model.mix", "MixUpCutMix", "--model.backbone.stochastic_depth", "0.2",
             "--trainer.max_epochs", "4", "--data.num_workers", "1"]  # fmt: skip
    assert fit(trained / "photos", tmp_path / "whole", *extra) == 0
    command = [sys.executable, "-m", "visionkit", "fit", "-c", "classify.yaml", "--data.root", str(trained / "photos"),
               *SMALL, *extra, "--trainer.default_root_dir", str(tmp_path / "cut")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run(
        [*command, "--trainer.callbacks+=kill_callback.Kill"],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert fit(trained / "photos", tmp_path / "cut", *extra, "--ckpt_path", "last") == 0
    whole, cut = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "cut"))
    assert all(torch.equal(whole["state_dict"][k], cut["state_dict"][k]) for k in whole["state_dict"])
    rows = [list(csv.DictReader((tmp_path / n / "metrics.csv").open())) for n in ("whole", "cut")]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}


def test_backbone_by_name_with_weights_from_a_file(trained, tmp_path, capsys):
    import timm

    torch.save(timm.create_model("mobilenetv3_small_050", num_classes=7).state_dict(), tmp_path / "w.pth")
    arguments = [a for a in SMALL if "backbone" not in a]
    assert run(["fit", "-c", "classify.yaml", "--data.root", str(trained / "photos"), *arguments,
                "--model.backbone", "TimmBackbone", "--model.backbone.name", "mobilenetv3_small_050",
                "--model.backbone.weights", str(tmp_path / "w.pth"),
                "--trainer.max_epochs=1", "--trainer.default_root_dir", str(tmp_path / "o")]) == 0  # fmt: skip
    assert "100.0% of the tensors loaded" in capsys.readouterr().out
    (tmp_path / "w.pth").unlink()
    assert type(visionkit.load(tmp_path / "o" / "checkpoints" / "best.ckpt").backbone).__name__ == "TimmBackbone"
    assert run(["validate", "-c", str(tmp_path / "o" / "config.yaml"), "--ckpt_path", "best"]) == 0


def test_multilabel_manifest_end_to_end(trained, tmp_path, capsys):
    photos = sorted((trained / "photos").rglob("*.png"))
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "text"])
        for i, path in enumerate(photos):
            labels = [path.parent.name] + (["odd"] if i % 2 else [])
            writer.writerow([path, "|".join(labels), f"note {i}"])
    assert fit(tmp_path / "m.csv", tmp_path / "o", "--data.balance", "loss") == 0
    values = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert {"val/map", "val/micro_f1", "val/ap/odd"} <= values.keys()
    best = str(tmp_path / "o" / "checkpoints" / "best.ckpt")
    assert run(["predict", "--ckpt", best, "--out", str(tmp_path / "p"), str(tmp_path / "m.csv"), "--save-images"]) == 0
    records = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert records[1]["text"] == "note 1"
    assert "odd" in records[1]["truth"]
    assert isinstance(records[1]["labels"], list)
    assert len(list((tmp_path / "p" / "images").glob("*.jpg"))) == len(photos)


def test_own_head_outside_the_package_trains_and_predicts(trained, tmp_path, monkeypatch):
    (tmp_path / "outside_heads.py").write_text(
        "from visionkit import MLPHead\n\n\nclass WideHead(MLPHead):\n    '''Another head.'''\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = [a for a in SMALL if "max_epochs" not in a]
    assert run(["fit", "-c", "classify.yaml", "--data.root", str(trained / "photos"), *arguments,
                "--trainer.max_epochs=1", "--model.head", "outside_heads.WideHead", "--model.head.width", "16",
                "--trainer.default_root_dir", "o"]) == 0  # fmt: skip
    predict = ["predict", "--ckpt", "o/checkpoints/best.ckpt", "--out", "p", str(trained / "photos" / "test")]
    assert run(predict) == 2
    assert run([*predict, "--trust", "outside_heads"]) == 0


def test_print_config_is_complete_commented_and_runs(trained, tmp_path, capsys):
    assert (
        run(["fit", "-c", "classify.yaml", *SMALL, "--data.root", str(trained / "photos"), "--print_config", "full"])
        == 0
    )
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["model"]["init_args"]["backbone"]["init_args"]["squeeze_excitation"] is False
    assert text.count("#") > 50
    assert "Number of layers of the classic networks" in text
    (tmp_path / "printed.yaml").write_text(text)
    assert run(["fit", "-c", str(tmp_path / "printed.yaml"), "--trainer.default_root_dir", str(tmp_path / "o"),
                "--trainer.max_epochs=1"]) == 0  # fmt: skip


def test_help_explains_every_argument_with_its_default(capsys):
    from jsonargparse import ArgumentParser

    assert run(["fit", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.partition("Keys of this config's classes:")[2].split())
    for cls, prefix in (
        (visionkit.ResNet, "--model.backbone"), (visionkit.LinearHead, "--model.head"), (visionkit.ClassificationData, "--data"),
    ):  # fmt: skip
        keys = ArgumentParser().add_class_arguments(cls, skip={"features", "num_classes", "seed"}, fail_untyped=False)
        said = {word.removeprefix(f"{prefix}.") for word in text.split() if word.startswith(f"{prefix}.")}
        assert {name for name in said if "." not in name} == {key.partition(".")[0] for key in keys}
    assert "--model.recipe.warmup_epochs" in text
    assert "default: 18" in text
    assert run(["fit", "-c", "classify.yaml", "--help"]) == 0


BAD = {
    "no such command": (["predct"], 2, "did you mean 'predict'"),
    "no config": (["fit"], 2, "shipped classify.yaml"),
    "missing config": (["fit", "-c", "nothere.yaml"], 2, "there is no config file nothere.yaml"),
    "wrong key": (["fit", "-c", "{tmp}/key.yaml"], 2, "key.yaml:18: model.backbone.dpeth: ResNet has no key 'dpeth'; did you mean 'depth'"),
    "wrong type": (["fit", "-c", "{tmp}/type.yaml"], 2, "type.yaml:37: model.recipe.backbone_lr: expected float, got slow"),
    "wrong top key": (["fit", "-c", "{tmp}/top.yaml"], 2, "trianer: there is no such key; did you mean 'trainer'"),
    "bad yaml": (["fit", "-c", "{tmp}/bad.yaml"], 2, "bad.yaml:2: not valid YAML"),
    "option": (["fit", "-c", "classify.yaml", "--model.backbone.dpth", "3"], 2, "did you mean 'depth'"),
    "short option": (["fit", "-c", "classify.yaml", "--max_epochs", "3"], 2, "did you mean '--trainer.max_epochs'"),
    "class": (["fit", "-c", "classify.yaml", "--model.backbone", "BgNet"], 2, "no class 'BgNet'; there are ResNet, TimmBackbone"),
    "literal": (["fit", "-c", "classify.yaml", "--data.resize", "sqush"], 2, "--data.resize: expected one of 'squash'"),
    "range": (["fit", "-c", "classify.yaml", "--model.recipe.ema", "3"], 2, "recipe.ema must lie"),
    "optimizer": (["fit", "-c", "classify.yaml", *SMALL, "--model.recipe.optimizer.lr", "-1"], 2, "nvalid learning rate"),
    "transform": (["fit", "-c", "classify.yaml", "--data.augment", '["HorizontlFlip"]'], 2, "did you mean 'HorizontalFlip'"),
    "no folder": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/nowhere"], 1, "nowhere: no such folder"),
    "empty folder": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/empty"], 1, "holds no images and no class folders"),
    "one class": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/one"], 1, "only one class"),
    "corrupt": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/corrupt"], 1, "--data.skip_corrupt true"),
    "val class": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/val"], 1, "train does not have: zebra"),
    "manifest": (["fit", "-c", "classify.yaml", "--data.root", "{tmp}/m.csv"], 1, "m.csv:3: no label"),
    "channels": (["fit", "-c", "classify.yaml", "--data.channels", "1"], 2, "--model.backbone.in_channels 1"),
    "weights file": (["fit", "-c", "classify.yaml", "--model.backbone.weights", "no.pth"], 2, "no.pth: no such file; check the path (hub names"),
    "no checkpoint": (["validate", "-c", "classify.yaml"], 2, "needs --ckpt_path"),
    "zero bytes": (["predict", "--ckpt", "{tmp}/zero.ckpt", "--out", "{tmp}/p", "{tmp}/one"], 1, "zero.ckpt: the file is empty (0 bytes)"),
    "malicious": (["predict", "--ckpt", "{tmp}/evil.ckpt", "--out", "{tmp}/p", "{tmp}/one"], 1, "refused, it holds the Python object posix.system"),
    "malicious resume": (["fit", "-c", "classify.yaml", "--ckpt_path", "{tmp}/evil.ckpt", "--trainer.default_root_dir", "{tmp}/o"], 1, "refused"),
    "other kind": (["predict", "--ckpt", "{tmp}/w.pth", "--out", "{tmp}/p", "{tmp}/one"], 1, "not a visionkit checkpoint"),
    "no picture": (["predict", "--ckpt", "{tmp}/w.pth", "--out", "{tmp}/p", "{tmp}/*.gif"], 2, "no file matches it as a glob"),
    "predict option": (["predict", "--ckpt", "x", "--out", "y", "z", "--bath-size", "3"], 2, "did you mean --batch-size"),
    "unset root": (["fit", "-c", "classify.yaml", "--data.root", ""], 2, "--data.root: an empty value follows; is a variable"),
    "unset value": (["fit", "-c", "classify.yaml", "--data.root="], 2, "--data.root=: an empty value follows"),
    "unset out": (["predict", "--ckpt", "x", "--out", "", "{tmp}/one"], 2, "--out: an empty value follows"),
    "unset pictures": (["predict", "--ckpt", "x", "--out", "y", ""], 2, "y: an empty value follows"),
    "shapes folder": (["shapes", "--out", "{tmp}/one"], 2, "nothing is overwritten"),
}  # fmt: skip


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    config = (Path(visionkit.__file__).parents[1] / "configs" / "classify.yaml").read_text()
    (folder / "key.yaml").write_text(config.replace("depth: 18", "dpeth: 18"))
    (folder / "type.yaml").write_text(config.replace("backbone_lr: 1.0", "backbone_lr: slow"))
    (folder / "top.yaml").write_text(config.replace("trainer:", "trianer:"))
    (folder / "bad.yaml").write_text("model: {a: [1\ndata: 3\n")
    (folder / "empty").mkdir()
    for name in ("one/a", "corrupt/a", "corrupt/b", "val/train/a", "val/train/b", "val/val/a", "val/val/zebra"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), colour_of(f"{name}{i}")).save(folder / name / f"{i}.png")
    (folder / "corrupt" / "a" / "1.png").write_bytes(b"")
    (folder / "m.csv").write_text("path,label\none/a/0.png,a\none/a/1.png,\n")
    (folder / "zero.ckpt").write_bytes(b"")
    torch.save({"a": Evil(folder / "ran")}, folder / "evil.ckpt")
    torch.save({"conv1.weight": torch.zeros(3)}, folder / "w.pth")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name, faults, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, status, words = BAD[name]
    before = sorted(faults.rglob("*"))
    assert run([a.replace("{tmp}", str(faults)) for a in arguments]) == status
    err = capsys.readouterr().err.strip().splitlines()
    assert words in err[-1]
    assert err[-1].startswith("error: ")
    assert not any("Traceback" in line for line in err)
    assert sorted(faults.rglob("*")) == before, "nothing is written"
    assert not list(tmp_path.iterdir())


def test_corrupt_pictures_are_skipped_when_asked_and_counted(faults, tmp_path, capsys):
    assert fit(faults / "corrupt", tmp_path / "o", "--data.skip_corrupt", "true", "--trainer.max_epochs=1") == 0
    captured = capsys.readouterr()
    assert "skipped  1 pictures" in captured.out
    assert "1.png: the file is empty" in captured.err


def test_predict_goes_on_past_corrupt_pictures_and_never_overwrites(trained, tmp_path, capsys):
    best = str(trained / "out" / "checkpoints" / "best.ckpt")
    for i in range(3):
        Image.new("RGB", (9, 7)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG broken")
    arguments = ["predict", "--ckpt", best, "--out", str(tmp_path / "p"), str(tmp_path / "*.png"), "--batch-size", "2"]
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert "1.png: " in captured.err
    assert "1 of 3 pictures could not be predicted" in captured.err
    written = (tmp_path / "p" / "predictions.jsonl").read_text()
    assert [Path(json.loads(line)["image"]).name for line in written.splitlines()] == ["0.png", "2.png"]
    assert run(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 1


def test_predictions_table_equals_the_records(trained, tmp_path):
    best = str(trained / "out" / "checkpoints" / "best.ckpt")
    assert run(["predict", "--ckpt", best, "--out", str(tmp_path / "p"), str(trained / "photos" / "test")]) == 0
    records = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((tmp_path / "p" / "predictions.csv").open()))
    for record, row in zip(records, rows, strict=True):
        assert row["image"] == record["image"]
        assert row["label"] == record["label"] == max(record["probabilities"], key=record["probabilities"].get)
        assert float(row["probabilities/red"]) == record["probabilities"]["red"]
        assert record["score"] == record["probabilities"][record["label"]]
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_two_processes_from_the_command_line(trained, tmp_path):
    """Lightning starts the second process from the first one's arguments; both use one numbered run folder."""
    command = [sys.executable, "-m", "visionkit", "fit", "-c", "classify.yaml", "--data.root", str(trained / "photos"),
               *SMALL, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.devices=2",
               "--trainer.strategy=ddp"]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch   1/1") == 1, "one process speaks"
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["classify-1"]
    assert "2 processes" in done.stdout
    values = json.loads((tmp_path / "runs" / "classify-1" / "metrics.json").read_text())
    assert 0 <= values["val/top1"] <= 1


def test_a_command_is_a_module_and_a_line_of_the_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_count.py").write_text(
        "def main(command, arguments):\n    print(command, len(arguments))\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "count", ("my_count", "count words"))
    assert run(["count", "--a", "b"]) == 3
    assert capsys.readouterr().out == "count 2\n"
    assert run(["--help"]) == 0
    assert "  count      count words\n" in capsys.readouterr().out
    assert run(["coun"]) == 2
    assert "did you mean 'count'?" in capsys.readouterr().err


def test_help_lists_all_commands_as_the_first_hour_goes_within_eighty_columns(capsys, monkeypatch):
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    named = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert set(COMMANDS) <= set(named)
    assert named.index("shapes") < named.index("fit") < named.index("predict") < named.index("heads")
    monkeypatch.setitem(COMMANDS, "paint", ("nowhere", "a command under no heading " * 5))
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "\nmore\n  paint      a command" in text
    assert max(map(len, text.splitlines())) <= 80
