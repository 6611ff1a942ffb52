"""The floor: a head solved on frozen features is epoch 0 of a training, and the best one where nothing is better."""

import csv
import json

import lightning as L
import pytest
import torch

import visionkit
from visionkit.cli.main import run
from visionkit.training.task import Task

SMALL = ("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small")


def fit(photos, folder, *further):
    return run(["fit", "-c", "classify.yaml", *SMALL, f"--data.root={photos}", "--data.size=32", "--data.batch_size=8",
                "--data.num_workers=0", "--trainer.logger=false", "--model.recipe.probe=true", "--trainer.max_epochs=2",
                f"--trainer.default_root_dir={folder}", *further])  # fmt: skip


def rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_epoch_0_is_the_solved_head_and_is_kept_where_training_makes_it_worse(photos, tmp_path, capsys):
    assert fit(photos, tmp_path, "--model.recipe.optimizer.lr=5", "--trainer.gradient_clip_val=1") in (0, 1)
    said = capsys.readouterr().out
    assert "probe    a linear layer on 18 frozen features" in said
    found = rows(tmp_path)
    assert [row["epoch"] for row in found][:1] == ["0"]
    assert float(found[0]["val/top1"]) == 1.0, "colours are told apart by features of random weights, too"
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 0
    assert best["global_step"] == 0
    model = visionkit.load(tmp_path / "checkpoints" / "best.ckpt")
    assert model.classes[int(model.predict(str(photos / "red" / "0.png")).probabilities.argmax())] == "red"


def test_with_averaging_the_average_starts_from_the_solved_head(photos, tmp_path):
    assert fit(photos, tmp_path, "--model.recipe.ema=0.9") == 0
    assert float(rows(tmp_path)[0]["val/top1"]) == 1.0


def test_a_resumed_training_has_it_behind_it(photos, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert fit(photos, whole) == 0
    stopped = [False]
    original = Task.on_train_epoch_end

    def stop(self):
        original(self)
        if self.current_epoch == 0 and not stopped[0]:
            stopped[0] = True
            self.trainer.should_stop = True
            self.trainer.fit_loop.min_epochs = 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "on_train_epoch_end", stop)
        assert fit(photos, cut) == 0
    capsys.readouterr()
    assert fit(photos, cut, "--ckpt_path=last") == 0
    assert "probe    " not in capsys.readouterr().out
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, cut))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert [r["epoch"] for r in rows(cut)] == ["0", "1", "2"]


def test_a_head_that_cannot_be_solved_is_refused(photos, tmp_path, capsys):
    assert fit(photos, tmp_path, "--model.head=MLPHead") == 2
    assert "recipe.probe needs a head that is one linear layer, such as LinearHead: MLPHead" in capsys.readouterr().err


def test_in_python(photos, tmp_path, capsys):
    torch.manual_seed(0)
    data = visionkit.ClassificationData(str(photos), size=32, batch_size=8, num_workers=0)
    task = visionkit.Classifier(
        visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", stem="small"),
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=visionkit.Recipe(probe=True),
    )
    trainer = L.Trainer(max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip
    trainer.fit(task, datamodule=data)
    assert "probe    a linear layer on 18 frozen features" in capsys.readouterr().out
    assert trainer.callback_metrics["val/top1"] == 1.0
