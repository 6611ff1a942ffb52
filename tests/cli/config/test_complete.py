"""The config that is told from source is the parser's, and what is not certain is left to the parser."""

import pytest
import yaml

from visionkit.cli.commands import train
from visionkit.cli.config import configs
from visionkit.cli.config.complete import complete
from visionkit.cli.config.names import UnclearError
from visionkit.cli.main import run

CLASSIFY = ["-c", "classify.yaml"]
CERTAIN = {
    **{name: ["-c", name] for name in configs.shipped()},
    "options": [*CLASSIFY, "--data.size=32", "--data.root", "photos", "--model.backbone.depth", "50", "--trainer.max_epochs", "3"],
    "null": [*CLASSIFY, "--model.recipe.ema", "null", "--model.recipe.schedule=constant", "--data.val_fraction", "0.5"],
    "int as float": [*CLASSIFY, "--model.recipe.warmup_epochs", "2", "--model.head.dropout=0", "--trainer.overfit_batches=1"],
    "numbers of the trainer": [*CLASSIFY, "--trainer.limit_train_batches=3", "--trainer.limit_val_batches", "0.5", "--trainer.gradient_clip_val=2"],
    "words of the trainer": [*CLASSIFY, "--trainer.accelerator", "cpu", "--trainer.strategy=ddp", "--trainer.logger=false"],
    "optimizer": [*CLASSIFY, "--model.recipe.optimizer.lr", "0.1", "--model.recipe.optimizer.amsgrad=true"],
    "init_args": [*CLASSIFY, "--model.init_args.backbone.init_args.depth=34"],
    "heads": ["-c", "multitask.yaml", "--model.heads.classification.dropout", "0.2", "--data.datasets.detection.root", "boxes"],
    "union": [*CLASSIFY, "--model.recipe.freeze", "2", "--model.recipe.early_stopping=5"],
    "word of a union": [*CLASSIFY, "--model.recipe.freeze=backbone", "--model.recipe.cache_features", "true"],
    "seed": [*CLASSIFY, "--seed_everything", "7", "--ckpt_path", "last"],
}  # fmt: skip


def both(arguments, monkeypatch, capsys):
    """Return what is printed from source, and what the parser's config is printed as."""
    assert run(["fit", *arguments, "--print_config"]) == 0
    told = capsys.readouterr().out

    def unclear(_):
        raise UnclearError

    monkeypatch.setattr(train, "complete", unclear)
    assert run(["fit", *arguments, "--print_config"]) == 0
    return told, capsys.readouterr().out


@pytest.mark.parametrize("case", CERTAIN)
def test_the_parser_says_the_same(case, monkeypatch, capsys):
    complete(configs.resolve(CERTAIN[case]))  # it is certain
    told, parsed = both(CERTAIN[case], monkeypatch, capsys)
    assert told.splitlines() == parsed.splitlines()


def test_several_files_merge_as_the_parser_merges_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "over.yaml").write_text(
        "trainer: {max_epochs: 5}\nmodel:\n  init_args:\n    recipe: {warmup_epochs: 9}\n"
        "    backbone: {class_path: visionkit.ResNet, init_args: {depth: 34}}\ndata:\n  init_args: {augment: null, size: [32, 64]}\n"
    )
    (tmp_path / "first.yaml").write_text(
        (configs.folder() / "classify.yaml").read_text().replace("class_path: ResNet", "class_path: visionkit.ResNet")
    )
    arguments = ["-c", str(tmp_path / "first.yaml"), "-c", str(tmp_path / "over.yaml")]
    told, parsed = both(arguments, monkeypatch, capsys)
    assert told == parsed
    assert yaml.safe_load(told)["data"]["init_args"]["size"] == [32, 64]


UNSURE = {
    "another class": ["--model.backbone", "TimmBackbone"],
    "a class of the user's": ["--model.head.class_path=my_heads.WideHead"],
    "a callback": ["--trainer.callbacks+=my.Callback"],
    "a key that is not there": ["--data.sise", "3"],
    "a top key that is not there": ["--trianer.max_epochs", "3"],
    "a wrong type": ["--data.batch_size", "many"],
    "a wrong word": ["--data.resize", "sqush"],
    "a truth for a number": ["--data.batch_size", "true"],
    "text that may be a number": ["--data.root", "1e-3"],
    "a number for text": ["--data.root", "2024"],
    "a linked key": ["--model.seed", "3"],
    "a list": ["--data.augment", "[HorizontalFlip]"],
    "a bare word": ["word"],
    "an empty value": ["--data.root="],
    "several kinds": ["--trainer.devices", "2"],
}


@pytest.mark.parametrize("case", UNSURE)
def test_what_is_not_certain_is_the_parsers(case):
    with pytest.raises(UnclearError):
        complete(configs.resolve([*CLASSIFY, *UNSURE[case]]))


def test_the_parser_answers_for_what_is_not_certain(capsys):
    arguments = [*CLASSIFY, "--model.backbone", "TimmBackbone", "--model.backbone.name", "resnet18d"]
    assert run(["fit", *arguments, "--print_config"]) == 0
    text = capsys.readouterr().out
    backbone = yaml.safe_load(text)["model"]["init_args"]["backbone"]
    assert (backbone["class_path"], backbone["init_args"]["name"]) == ("visionkit.TimmBackbone", "resnet18d")
    assert "# " in text
    assert run(["fit", *CLASSIFY, "--data.sise", "3", "--print_config"]) == 2
    assert "did you mean 'size'" in capsys.readouterr().err


def test_a_broken_file_is_told_with_its_line(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2")
    assert run(["fit", "-c", str(tmp_path / "a.yaml"), "--print_config"]) == 2
    assert "a.yaml:2: not valid YAML" in capsys.readouterr().err
