"""``auto`` in a config: in its place stand what the data choose, what an option says, or what a checkpoint says."""

import pytest
import yaml

from visionkit.cli.config import configs
from visionkit.cli.config.auto import flattened, make_advice, resolve
from visionkit.cli.main import run

CLASSIFY = str(configs.folder() / "classify.yaml")


def resolved(*arguments, command="fit"):
    """Return the values of all keys after ``auto`` was replaced, and the keys that were chosen."""
    argv, choices = resolve(command, ["-c", CLASSIFY, *arguments])
    values = dict(flattened(yaml.safe_load(argv[1])))
    return {".".join(k): v for k, v in values.items()}, {c.key for c in choices}, argv[2:]


def test_the_data_choose_and_what_is_given_wins(photos):
    values, chosen, rest = resolved(f"--data.root={photos}", "--data.size=48")
    assert values["data.batch_size"] == 4
    assert "data.size" not in values, "the option says it"
    assert rest == [f"--data.root={photos}", "--data.size=48"]
    assert "data.size" not in chosen
    assert "auto" not in {str(v) for k, v in values.items()}


def test_auto_as_an_option(photos, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text((configs.folder() / "classify.yaml").read_text().replace("size: auto", "size: 64"))
    argv, choices = resolve("fit", ["-c", str(config), f"--data.root={photos}", "--data.size", "auto"])
    assert argv[-2:] == ["--data.size", "32"]
    assert "data.size" in {c.key for c in choices}


def test_without_auto_nothing_is_read(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data:\n  class_path: ClassificationData\n  init_args: {root: nowhere}\n")
    assert resolve("fit", ["-c", str(config)]) == (["-c", str(config)], [])


def test_to_evaluate_the_checkpoint_says_the_size(tiny_model, tmp_path):
    import visionkit

    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    values, chosen, _ = resolved("--ckpt_path", str(tmp_path / "m.ckpt"), command="validate")
    assert values["data.size"] == 32
    assert not chosen
    assert "trainer.max_epochs" not in values


def test_the_same_data_choose_the_same(photos):
    content = configs.content_of(configs.folder() / "classify.yaml")
    content["data"]["init_args"]["root"] = str(photos)
    first, second = (make_advice(dict(flattened(content))).choices for _ in range(2))
    assert first == second


def test_a_run_writes_what_was_chosen_and_says_why(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "classify.yaml", f"--data.root={photos}", "--trainer.max_epochs=1",
                "--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small",
                "--trainer.logger=false", "--trainer.default_root_dir=r"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "auto     data.size 32: half of the images have no more than 20 px" in said
    assert "hint     it starts from random weights" in said
    text = (tmp_path / "r" / "config.yaml").read_text()
    assert "#   data.size 32: half of the images" in text
    kept = yaml.safe_load(text)
    assert kept["data"]["init_args"]["size"] == 32
    assert kept["trainer"]["max_epochs"] == 1


@pytest.mark.parametrize("value", ["word", "[1]", "-3"])
def test_a_wrong_value_is_said_as_before(photos, tmp_path, capsys, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "classify.yaml", f"--data.root={photos}", f"--data.batch_size={value}"]) == 2
    assert "batch_size" in capsys.readouterr().err


def test_what_nothing_is_chosen_for_is_named(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        run(["fit", "-c", "classify.yaml", f"--data.root={photos}", "--data.val_fraction=0.2", "--model.mix=auto"]) == 2
    )
    assert (
        capsys.readouterr().err
        == "error: model.mix: auto, for which ClassificationData chooses nothing: give a value\n"
    )


def test_a_folder_may_be_called_auto(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / "auto")
    values, chosen, _ = resolved("--data.root=auto")
    assert "data.size" in chosen
    assert values["data.size"] == 32
