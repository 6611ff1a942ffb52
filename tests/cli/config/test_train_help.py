import re

import pytest
import yaml

from visionkit import UsageError
from visionkit.cli.config import configs
from visionkit.cli.config.train_help import train_help
from visionkit.cli.main import run


def help_of(*files):
    return train_help("fit", [word for file in files for word in ("-c", str(file))])


def explained(text):
    """Return what stands behind each key, in one line."""
    text = text.partition("Keys of this config's classes:")[2]
    blocks = re.findall(r"^  (--[\w.]+)  ((?:.*\n)(?: {6}.*\n)*)", text + "\n", re.MULTILINE)
    return {key: " ".join(words.split()) for key, words in blocks}


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_usage_names_command_and_configs(command):
    text = train_help(command, [])
    assert text.startswith(f"usage: visionkit {command} -c CONFIG")
    for name in configs.shipped():
        assert name in text
    assert ("go on from a checkpoint" in text) == (command == "fit")


def test_without_a_config_the_first_shipped_one_is_explained():
    first = configs.folder() / configs.shipped()[0]
    assert train_help("fit", []) == help_of(first)


def test_lines_fit_a_terminal():
    assert max(map(len, train_help("fit", []).splitlines())) <= 120


def test_values_of_the_config_are_the_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "trainer: {max_epochs: 77}\n"
        "model:\n  class_path: Classifier\n  init_args:\n    backbone:\n      class_path: TimmBackbone\n"
        "      init_args: {name: resnet18d}\n    recipe: {warmup_epochs: 3.5}\n"
    )
    keys = explained(help_of(tmp_path / "a.yaml"))
    assert keys["--trainer.max_epochs"].endswith("default: 77)")
    assert keys["--model.backbone.name"].endswith("default: resnet18d)")
    assert keys["--model.recipe.warmup_epochs"].endswith("default: 3.5)")
    assert keys["--model.recipe.final_lr"].endswith("default: 0.01)")
    assert keys["--model.backbone"].endswith("default: TimmBackbone)")
    assert not any(k.startswith("--data") for k in keys)
    assert "--model.backbone.depth" not in keys


def test_what_the_command_line_fills_itself_is_left_out():
    keys = explained(help_of(configs.folder() / "classify.yaml"))
    assert {"--model.mix", "--data.root", "--data.classes", "--model.head.dropout"} <= keys.keys()
    assert (
        not {"--model.classes", "--model.seed", "--model.preprocessing", "--data.seed", "--model.head.features"}
        & keys.keys()
    )
    assert all(len(words.rpartition(" (")[0]) > 8 for key, words in keys.items() if not key.startswith("--trainer"))


def test_several_configs_merge_in_order(tmp_path):
    (tmp_path / "over.yaml").write_text("model: {init_args: {recipe: {warmup_epochs: 9}}}\ntrainer: {max_epochs: 5}\n")
    keys = explained(help_of(configs.folder() / "classify.yaml", tmp_path / "over.yaml"))
    assert keys["--model.recipe.warmup_epochs"].endswith("default: 9)")
    assert keys["--trainer.max_epochs"].endswith("default: 5)")
    assert keys["--trainer.accelerator"].endswith("default: auto)")
    assert keys["--model.backbone.depth"].endswith("default: 18)")


@pytest.mark.parametrize(
    "text",
    ["{}", "model: null\n", "model: {init_args: {}}\n", "model: {class_path: Classifier}\n", "model: Classifier\n"],
)
def test_parts_of_configs_are_explained_as_far_as_they_go(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    keys = explained(help_of(tmp_path / "a.yaml"))
    assert "--trainer.max_epochs" in keys
    assert ("--model.mix" in keys) == ("{class_path" in text)


@pytest.mark.parametrize("name", ["nowhere.Net", "visionkit.NoSuchNet", "NoSuchNet", "torch.manual_seed"])
def test_classes_that_cannot_be_found_are_named(tmp_path, name):
    (tmp_path / "a.yaml").write_text(f"model: {{class_path: {name}}}\n")
    assert name.rpartition(".")[2] in help_of(tmp_path / "a.yaml")


def test_a_broken_config_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(UsageError, match=r"a\.yaml:2: not valid YAML"):
        help_of(tmp_path / "a.yaml")


def test_classes_named_on_the_command_line_are_explained():
    text = train_help("fit", ["--model.backbone", "TimmBackbone", "--model.mix=MixUpCutMix"])
    assert "--model.backbone.name " in text
    assert "--model.backbone.stem " not in text
    assert "--model.mix.cutmix " in text


def test_keys_that_a_head_passes_on_to_its_base():
    text = help_of(configs.folder() / "detect_masks.yaml")
    assert "--model.head.mask_size  Cells along each side" in text
    assert "--model.head.detections  Boxes of an image" in text
    assert "box_settings" not in text
    assert text.count("--model.head.nms  ") == 1


OWN = '''
import visionkit
class Taught(visionkit.Classifier):
    """A classifier with a teacher.

    Args:
        teacher: Knows more.
    """
    def __init__(self, backbone: visionkit.Backbone, *, teacher: visionkit.Backbone | None = None, **common):
        super().__init__(backbone, **common)
'''


def test_a_new_part_of_a_task_is_an_argument_of_its_constructor(tmp_path, monkeypatch, capsys):
    """Nothing else names the parts: help explains it, the command line names a class for it, links go on as before."""
    (tmp_path / "own_part.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        (configs.folder() / "classify.yaml")
        .read_text()
        .replace("class_path: Classifier", "class_path: own_part.Taught")
    )
    (tmp_path / "own.yaml").write_text(text)
    asked = ["-c", str(tmp_path / "own.yaml"), "--model.teacher", "TimmBackbone", "--model.teacher.name=resnet18d"]
    said = train_help("fit", asked)
    assert explained(said)["--model.teacher"] == "Knows more. (Backbone | None, default: TimmBackbone)"
    assert "--model.teacher TimmBackbone: " in said
    assert "--model.mix  " in said
    assert "--model.seed" not in said
    assert "--model.classes" not in said
    assert run(["fit", *asked, "--print_config"]) == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["teacher"]["init_args"]["name"] == "resnet18d"
    assert model["backbone"]["class_path"] == "visionkit.ResNet"
