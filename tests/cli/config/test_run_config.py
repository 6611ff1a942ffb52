from pathlib import Path

import yaml
from jsonargparse import Namespace

from visionkit.cli.config.run_config import config_text, home_of


class Parser:
    def dump(self, config, skip_none):
        return "# lightning==2\n" + yaml.safe_dump(config.as_dict())


def test_paths_are_absolute_and_kept_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (tmp_path / "squash").mkdir()
    backbone = Namespace(weights="w.pth", name="timm/resnet18")
    data = Namespace(root="photos", resize="squash", files=[str(tmp_path / "a"), "./w.pth"], cache_folder=None)
    trainer = Namespace(default_root_dir="A", max_epochs=3)
    config = Namespace(ckpt_path="last", trainer=trainer, model=Namespace(backbone=backbone), data=data)
    text = config_text(Parser(), config)
    assert yaml.safe_load(text) == {
        "trainer": {"default_root_dir": None, "max_epochs": 3},
        "model": {"backbone": {"weights": str(tmp_path / "w.pth"), "name": "timm/resnet18"}},
        "data": {
            "root": str(tmp_path / "photos"),
            "resize": "squash",
            "files": [str(tmp_path / "a"), str(tmp_path / "w.pth")],
            "cache_folder": None,
        },
    }
    assert '#   data.root: "photos"\n' in text
    assert config.data.root == "photos", "what is used stays as it was"


def test_auto_is_a_word_even_where_a_folder_has_this_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auto").mkdir()
    config = Namespace(trainer=Namespace(), model=Namespace(weights="auto"), data=Namespace(root="auto"))
    written = yaml.safe_load(config_text(Parser(), config))
    assert (written["model"]["weights"], written["data"]["root"]) == ("auto", str(tmp_path / "auto"))


def test_a_config_belongs_to_the_folder_in_which_a_run_wrote_it(tmp_path):
    path, other = tmp_path / "config.yaml", tmp_path / "mine.yaml"
    for file in (path, other):
        file.write_text("# visionkit 1: visionkit fit -c THIS_FILE repeats the training\na: 1\n")
    assert home_of(["fit", "-c", str(path), "--a", "b"]) == tmp_path, "its checkpoints are gone, not those of another"
    assert home_of(["fit", "-c", str(other)]) is None, "a copy under a name of somebody's"
    (tmp_path / "checkpoints").mkdir()
    assert home_of(["fit", "-c", str(path), "--a", "b"]) == home_of(["fit", "-c", str(other)]) == tmp_path
    path.write_text("a: 1\n")
    assert home_of(["fit", "-c", str(path)]) is None, "a person wrote it"
    assert home_of(["fit"]) is None
    assert home_of(["fit", "-c", str(Path("nothere"))]) is None
