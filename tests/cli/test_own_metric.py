"""A metric of the user's own, in one file outside the package, named in a config."""

import csv
import json

import pytest
import yaml

from visionkit.cli.config import configs
from visionkit.cli.main import run

METRIC = '''
import torch
from visionkit import TaskMetric

class Counted(TaskMetric):
    """Pictures, weighted.

    Args:
        classes: Class names.
        weight: What each picture counts.
    """

    monitor = "counted"
    monitor_mode = "min"

    def __init__(self, classes, *, weight: float = 1.0):
        super().__init__(classes)
        self.weight = weight
        self.add_state("pictures", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions, targets):
        assert len(predictions) == len(targets)
        self.pictures += len(targets)

    def compute(self):
        return {"counted": self.pictures * self.weight, "classes": torch.tensor(float(len(self.classes)))}

def heavy(classes) -> Counted:
    return Counted(classes, weight=100.0)
'''
FEW = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    *("--data.size=32", "--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.logger=false"),
    *("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.default_root_dir=out"),
]
OWN = {"class_path": "my_metrics.Counted", "init_args": {"weight": 2.0}}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train with a config and more on top; return the row of metrics.csv."""
    (tmp_path / "my_metrics.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def train(name, more, *options):
        config = yaml.safe_load((configs.folder() / name).read_text())
        config["model"]["init_args"] |= more
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        assert run(["fit", "-c", "own.yaml", *FEW, *options]) == 0
        (row,) = csv.DictReader((tmp_path / "out" / "metrics.csv").open())
        return row

    return train


@pytest.mark.parametrize("name", ["classify.yaml", "detect.yaml", "segment.yaml"])
def test_every_task_takes_it(trained, tmp_path, name, capsys):
    row = trained(name, {"metric": OWN}, "--data.batch_size=4")
    assert float(row["val/counted"]) == 8.0
    assert float(row["val/classes"]) > 1
    assert not {"val/top1", "val/map", "val/miou"} & row.keys()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["val/counted"] == 8.0
    assert "best     epoch 1: val/counted 8.0000" in capsys.readouterr().out


def test_a_function_and_the_command_line(trained):
    row = trained("classify.yaml", {"metric": "my_metrics.heavy"}, "--data.batch_size=4")
    assert float(row["val/counted"]) == 400.0


def test_several_heads_take_one_each_by_name(trained, tmp_path, capsys):
    small = [f"--data.datasets.{k}.batch_size=2" for k in ("segmentation", "detection", "classification")]
    row = trained("multitask.yaml", {"metrics": {"detection": OWN}}, *small)
    assert float(row["val/detection/classes"]) == 6.0  # shapes
    assert "val/detection/map" not in row
    assert "val/segmentation/miou" in row, "the first batch of the validation is labelled for it"
    assert (tmp_path / "out" / "checkpoints" / "best-detection.ckpt").is_file()
    capsys.readouterr()
    config = yaml.safe_load((tmp_path / "own.yaml").read_text())
    config["model"]["init_args"]["metrics"] = {"boxes": OWN}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert run(["fit", "-c", "own.yaml", *FEW, "--trainer.default_root_dir=another"]) == 2
    assert (
        "model.metrics: there is no head 'boxes'; there are segmentation, detection, classification"
        in capsys.readouterr().err
    )


def test_help_and_messages_know_it(trained, capsys):
    config = ["-c", "classify.yaml", "--model.metric", "my_metrics.Counted"]
    assert run(["fit", *config, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--model.metric Counted: Pictures, weighted." in said
    assert "--model.metric.weight What each picture counts. (float, default: 1.0)" in said
    assert "--model.metric.classes" not in said
    assert run(["fit", *config, "--model.metric.wieght", "2"]) == 2
    assert "--model.metric.wieght: Counted has no key 'wieght'; did you mean 'weight'?" in capsys.readouterr().err
    assert run(["fit", "-c", "classify.yaml", "--model.metric", "Acuracy"]) == 2
    assert "there is no class 'Acuracy'; there are ClassificationMetric, DetectionMetric," in capsys.readouterr().err
