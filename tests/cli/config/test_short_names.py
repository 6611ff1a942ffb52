"""The words of other tools stand for keys; a key has one value, under whatever name."""

import pytest

from visionkit.cli.config.short_names import first_positional, written_out
from visionkit.cli.config.train_help import train_help
from visionkit.cli.main import run
from visionkit.core.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        (["--epochs", "3"], ["--trainer.max_epochs=3"]),
        (["--batch=4"], ["--data.batch_size=4"]),
        (["--batch-size", "4"], ["--data.batch_size=4"]),
        (["--imgsz", "64"], ["--data.size=64"]),
        (["--img-size", "32x64"], ["--data.size=[32, 64]"]),
        (["--lr", "3e-4"], ["--model.recipe.optimizer.lr=3e-4"]),
        (["--weights", "timm/resnet18"], ["--model.backbone.weights=timm/resnet18"]),
        (["--workers", "0"], ["--data.num_workers=0"]),
        (["--device", "cpu"], ["--trainer.accelerator=cpu", "--trainer.devices=1"]),
        (["--device", "0"], ["--trainer.accelerator=gpu", "--trainer.devices=[0]"]),
        (["--device", "cuda:1"], ["--trainer.accelerator=gpu", "--trainer.devices=[1]"]),
        (["--data", "some/folder"], ["--data.root=some/folder"]),
        (["--data", "ClassificationData"], ["--data", "ClassificationData"]),
        (["--ckpt", "a"], ["--ckpt_path=a"]),
        (["--epochs", "3", "--trainer.max_epochs", "3"], ["--trainer.max_epochs=3", "--trainer.max_epochs", "3"]),
        (["--data.size", "3", "--data.size", "4"], ["--data.size", "3", "--data.size", "4"]),
    ],
)
def test_written_out(asked, keys):
    assert written_out("fit", asked) == keys


def test_weights_of_a_command_that_measures_are_the_checkpoint():
    assert written_out("validate", ["--weights", "a.ckpt"]) == ["--ckpt_path=a.ckpt"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--epochs", "x"], "--epochs needs a whole number, got 'x'"),
        (["--batch", "0"], "--batch needs a whole number from 1 on, got '0'"),
        (["--lr", "nan"], "--lr needs a rate"),
        (["--lr"], "--lr needs a rate"),
        (["--imgsz", "1e99"], "--imgsz needs pixels"),
        (["--device", "toaster"], "--device needs cpu, cuda"),
        (["--epochs", "3", "--trainer.max_epochs", "4"], "--epochs 3 and --trainer.max_epochs 4 are the same key"),
        (["--trainer.max_epochs", "4", "--epochs", "3"], "--trainer.max_epochs 4 and --epochs 3 are the same key"),
        (["--batch", "3", "--batch-size", "4"], "--batch 3 and --batch-size 4 are the same key"),
        (["--ckpt", "a", "--ckpt_path", "b"], "--ckpt a and --ckpt_path b are the same key"),
        (["--lr", "1", "--model.init_args.recipe.optimizer.lr", "2"], "are the same key"),
    ],
)
def test_refused_in_the_words_that_were_typed(asked, words):
    with pytest.raises(UsageError, match=words):
        written_out("fit", asked)


def test_data_is_a_folder_that_is_there_or_a_config_of_a_class(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: images\n")
    (tmp_path / "cls.yaml").write_text("class_path: DetectionData\n")
    assert written_out("fit", ["--data", str(tmp_path / "data.yaml")]) == [f"--data.root={tmp_path / 'data.yaml'}"]
    assert written_out("fit", ["--data", str(tmp_path / "cls.yaml")]) == ["--data", str(tmp_path / "cls.yaml")]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["list", "--ckpt", "a"], ["list", "a"]),
        (["take", "name", "out", "--ckpt_path=a"], ["take", "a", "name", "out"]),
        (["join", "--ckpt", "a", "--ckpt", "b", "out"], ["join", "out", "a", "b"]),
        (["list", "a"], ["list", "a"]),
    ],
)
def test_checkpoints_of_other_commands(asked, words):
    assert first_positional(asked) == words


def test_help_shows_them():
    text = train_help("fit")
    assert "--trainer.max_epochs: a whole number" in text
    assert "--imgsz, --img-size" in text


def test_a_head_of_several_data_sets_is_told_where_the_key_is(capsys):
    assert run(["fit", "-c", "multitask.yaml", "--batch", "4"]) == 2
    assert "--batch: MultiTaskData has no key 'batch_size'; each of its datasets" in capsys.readouterr().err


def test_a_config_of_the_data_alone_says_what_it_lacks(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text("data: {root: photos}\n")
    assert run(["fit", "-c", str(tmp_path / "small.yaml")]) == 2
    assert "it names no class for model (model.class_path): put a whole config before it" in capsys.readouterr().err
