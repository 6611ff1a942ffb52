"""Every shipped config, through the real command line."""

import csv

import pytest
import yaml

from visionkit.cli.config import configs
from visionkit.cli.main import run
from visionkit.data.transforms.augmentation import (
    CLASSIFICATION_AUGMENTATION,
    DETECTION_AUGMENTATION,
    SEGMENTATION_AUGMENTATION,
)

NAMES = configs.shipped()
DATASETS = ("segmentation", "detection", "classification")  # of multitask.yaml


def content(name):
    return yaml.safe_load((configs.folder() / name).read_text(encoding="utf-8"))


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def at(config, path):
    for key in path:
        config = config[key]
    return config


def test_there_are_configs():
    assert "classify.yaml" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_known_and_keeps_its_value(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", name, "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for path, value in leaves(content(name)):
        if path[-1] == "class_path":
            assert at(printed, path).rpartition(".")[2] == value.rpartition(".")[2], path
        else:
            assert at(printed, path) == value, path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_trains_without_any_other_file(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    several = [f"--data.datasets.{k}.batch_size=2" for k in DATASETS]
    batch = several if name == "multitask.yaml" else ["--data.batch_size=4"]
    arguments = ["--data.size=32", *batch, "--data.num_workers=0", "--trainer.max_epochs=1",
                 "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.logger=false"]  # fmt: skip
    assert run(["fit", "-c", name, *arguments, "--trainer.default_root_dir=out"]) == 0
    assert "shapes" in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "out" / "metrics.csv").open())
    assert row["step"] == "1"
    assert (tmp_path / "out" / "checkpoints" / "best.ckpt").is_file()


DEFAULTS = {
    "ClassificationData": CLASSIFICATION_AUGMENTATION,
    "DetectionData": DETECTION_AUGMENTATION,
    "SegmentationData": SEGMENTATION_AUGMENTATION,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_augmentation_written_out_is_the_default(name):
    data = content(name)["data"]
    if name == "multitask.yaml":  # which leaves it to the data sets
        assert [k for k in DATASETS if "augment" in data["init_args"]["datasets"][k]["init_args"]] == []
    else:
        written = data["init_args"]["augment"]
        assert {"HorizontalFlip": {"p": "auto"}} in written
        usual = DEFAULTS[data["class_path"]]
        shares = {name: options["p"] for t in usual for name, options in t.items() if "p" in options}
        settled = [
            {name: {k: shares[name] if v == "auto" else v for k, v in options.items()} for name, options in t.items()}
            for t in written
        ]
        assert settled == usual
