"""--print_config: short by default, and what it prints is a config that means the same."""

import pytest
import yaml

from visionkit import UsageError
from visionkit.cli.config.print_config import asked_to_print
from visionkit.cli.config.short_config import shortened_config
from visionkit.cli.main import run

CASES = {
    "other classes": ["-c", "classify.yaml", "--model.backbone", "TimmBackbone", "--model.backbone.name=resnet18d",
                      "--model.head=MLPHead", "--model.mix", "MixUpCutMix", "--data.augment", "null",
                      "--model.recipe.freeze=backbone", "--epochs", "3", "--imgsz=96",
                      "--model.recipe.optimizer=SGD", "--model.recipe.optimizer.lr=0.05"],
    "several heads": ["-c", "multitask.yaml", "--model.heads.segmentation.losses.dice=0.5",
                      "--data.datasets.detection.batch_size=3", "--model.weights", "{detection: 2.0}",
                      '--model.heads.segmentation={"class_path": "FPNSegmentationHead", "init_args": {"dropout": 0.25}}'],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_short_is_a_config_again_that_means_the_same(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def printed(*arguments):
        assert run(["fit", *arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    short = printed(*CASES[case], "--print_config")
    whole = printed(*CASES[case], "--print_config", "full")
    (tmp_path / "short.yaml").write_text(short)
    assert len(short.splitlines()) < 0.6 * len(whole.splitlines())
    assert yaml.safe_load(printed("-c", "short.yaml", "--print_config=full")) == yaml.safe_load(whole)
    assert "auto" in short.partition("data:")[2], "what was left to the data is left to the next data, too"


def test_it_holds_the_keys_of_the_config_and_those_that_were_set(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "seed_everything: 1\n"
        "model:\n  class_path: M\n  init_args:\n    backbone: {class_path: ResNet, init_args: {depth: 18}}\n    mix: null\n"
        "data: part.yaml\n"
    )
    net = {"class_path": "v.Net", "init_args": {"depth": 34, "stem": "s", "name": "n"}}
    whole = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 5, "devices": "auto"},
        "model": {"class_path": "v.M", "init_args": {"backbone": net, "mix": None, "recipe": {"ema": 1, "lr": 2}}},
        "data": {
            "class_path": "v.D",
            "init_args": {"root": None, "augment": [{"Flip": {"p": 0.5}}, {"Blur": {"p": 0.5}}]},
        },
    }
    arguments = ["-c", str(tmp_path / "a.yaml"), "--model.backbone.init_args.name", "n", "--trainer.max_epochs=5"]
    auto = [("model", "backbone", "depth"), ("model", "backbone", "stem"), ("data", "augment", "Flip", "p")]
    data = {
        "class_path": "v.D",
        "init_args": {"root": None, "augment": [{"Flip": {"p": "auto"}}, {"Blur": {"p": 0.5}}]},
    }
    assert shortened_config(whole, arguments, auto) == {
        "seed_everything": 1,
        "trainer": {"max_epochs": 5},
        "model": {
            "class_path": "v.M",
            "init_args": {
                "backbone": {"class_path": "v.Net", "init_args": {"depth": "auto", "name": "n"}},
                "mix": None,
            },
        },
        "data": data,
    }


def test_words_of_the_option():
    assert asked_to_print(["-c", "a.yaml"]) == (["-c", "a.yaml"], None)
    for given, how in (
        (["--print_config"], "short"),
        (["--print_config", "full"], "full"),
        (["--print_config=short"], "short"),
    ):
        assert asked_to_print([*given, "-c", "a.yaml"]) == (["-c", "a.yaml", "--print_config"], how)
    with pytest.raises(UsageError, match="--print_config all: short, the keys that are set, or full, all keys"):
        asked_to_print(["--print_config", "all"])
