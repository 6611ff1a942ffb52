"""Signals that end a training: what is saved, the exit status, and that going on is bit-equal."""

import csv
import os
import signal
import subprocess
import sys

import pytest
import torch

from visionkit.cli.main import run

TOLD = """
import os, signal
import lightning as L
class Told(L.Callback):
    def at(self, place):
        if place == os.environ["PLACE"]:
            for _ in range(int(os.environ.get("TIMES", 1))):
                os.kill(os.getpid(), int(os.environ["NUMBER"]))
    def setup(self, trainer, module, stage):
        self.at("setup")
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.at(f"batch {trainer.current_epoch}.{batch_idx}")
    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.at(f"validation {trainer.current_epoch}.{batch_idx}")
"""
SETTINGS = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    *("--data.size=32", "--data.batch_size=4", "--data.num_workers=1", "--trainer.logger=false"),
    *("--trainer.max_epochs=2", "--model.recipe.ema=0.9", "--model.head.dropout=0.3"),
]


@pytest.fixture
def stopped(photos, tmp_path):
    """Return a function that trains in a process of its own, in which a signal comes at a place."""
    (tmp_path / "told_callback.py").write_text(TOLD)

    def train(place, number, times=1):
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        facts = {"PYTHONPATH": path, "PLACE": place, "NUMBER": str(int(number)), "TIMES": str(times)}
        command = [sys.executable, "-m", "visionkit", "fit", "-c", "classify.yaml", "--data.root", str(photos), *SETTINGS,
                   "--trainer.default_root_dir", str(tmp_path / "cut"), "--trainer.callbacks+=told_callback.Told"]  # fmt: skip
        return subprocess.run(
            command, env={**os.environ, **facts}, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    return train


def results(folder):
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return weights, [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.mark.parametrize(
    ("place", "number", "status", "saved"),
    [
        ("batch 1.1", signal.SIGTERM, 143, "epoch 2, 2 of 4 batches"),
        ("validation 1.0", signal.SIGINT, 130, "epoch 2 up to its validation"),
    ],
)
def test_the_running_epoch_is_saved_and_goes_on_bit_equal(stopped, photos, tmp_path, place, number, status, saved):
    done = stopped(place, number)
    assert done.returncode == status, done.stderr[-2000:]
    config = tmp_path / "cut" / "config.yaml"
    assert done.stderr.splitlines()[-1] == (
        f"stopped by {signal.Signals(number).name}; saved: {saved}; go on with: visionkit fit -c {config} --ckpt_path last"
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cut" / "run.lock").exists()
    fit = ["fit", "-c", "classify.yaml", "--data.root", str(photos), *SETTINGS, "--trainer.default_root_dir"]
    assert run([*fit, str(tmp_path / "cut"), "--ckpt_path", "auto"]) == 0
    assert run([*fit, str(tmp_path / "whole"), "--ckpt_path", "auto"]) == 0
    (cut, cut_rows), (whole, whole_rows) = results(tmp_path / "cut"), results(tmp_path / "whole")
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    assert cut_rows == whole_rows
    assert (tmp_path / "cut" / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()


def test_before_the_training_there_is_nothing_to_save(stopped, tmp_path):
    done = stopped("setup", signal.SIGTERM)
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1].startswith("stopped by SIGTERM; nothing of this epoch is saved; start again")
    assert not (tmp_path / "cut").exists()


def test_a_second_signal_ends_at_once(stopped):
    done = stopped("batch 1.1", signal.SIGINT, times=2)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "stopped at once"
    assert "Traceback" not in done.stderr
