import json
import sys
import types
from functools import partial

import pytest
import yaml

import visionkit
from visionkit import UsageError
from visionkit.cli.config import configs
from visionkit.cli.config.configs import content_of, from_checkpoint, line_of, paths, resolve, shipped
from visionkit.models import checkpoint


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestResolve:
    @pytest.mark.parametrize("name", ["classify.yaml", "classify"])
    @pytest.mark.parametrize("form", ["-c {}", "--config {}", "-c={}", "--config={}"])
    def test_shipped_names_become_paths(self, here, name, form):
        path = str(configs.folder() / "classify.yaml")
        asked = ["--a", "classify.yaml", *form.format(name).split()]
        assert resolve(asked) == ["--a", "classify.yaml", *form.format(path).split()]

    def test_a_file_of_the_user_wins(self, here):
        (here / "classify.yaml").touch()
        assert resolve(["-c", "classify.yaml"]) == ["-c", "classify.yaml"]

    def test_several_stay_in_order(self, here):
        (here / "mine.yaml").touch()
        asked = resolve(["-c", "classify.yaml", "--x=1", "-c", "mine.yaml"])
        assert [p.name for p in paths(asked)] == ["classify.yaml", "mine.yaml"]
        assert paths(asked)[0].is_file()

    @pytest.mark.parametrize("name", ["nothere.yaml", "sub/classify.yaml", "../configs/classify.yaml", ""])
    def test_what_is_nowhere_is_refused_with_what_is_there(self, here, name):
        with pytest.raises(UsageError, match=r"no config file .*shipped with visionkit: .*classify\.yaml"):
            resolve(["-c", name])

    def test_an_option_without_its_value(self):
        with pytest.raises(UsageError, match=r"--config needs a config: .*classify\.yaml"):
            resolve(["--x", "1", "--config"])

    def test_the_arguments_given_are_not_changed(self, here):
        asked = ["-c", "classify"]
        resolve(asked)
        assert asked == ["-c", "classify"]


def test_paths_are_those_of_config_options():
    asked = ["-c", "a.yaml", "--config=b.yaml", "--ckpt_path", "one", "--config"]
    assert [str(p) for p in paths(asked)] == ["a.yaml", "b.yaml"]


def test_configs_lie_inside_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "visionkit" / "configs").mkdir(parents=True)
    monkeypatch.setattr(visionkit, "__file__", str(tmp_path / "visionkit" / "__init__.py"))
    (tmp_path / "configs").mkdir()
    assert configs.folder() == tmp_path / "visionkit" / "configs"
    for name in ("b.yaml", "a.yaml", "note.txt"):
        (configs.folder() / name).touch()
    assert shipped() == ["a.yaml", "b.yaml"]


class TestCheckSyntax:
    @pytest.mark.parametrize("text", ["{}", "a: 1\nb: [1, 2]\n", "ü: ß"])
    def test_mappings_pass(self, tmp_path, text):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        content_of(tmp_path / "a.yaml")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"a: [1\nb: 2\n", r"a\.yaml:2: not valid YAML: did not find expected ',' or ']'"),
            (b"a: 1\n\tb: 2\n", r"a\.yaml:2: not valid YAML: found a tab character that violates indentation"),
            (b"a: !!python/object:os.system x\n", r"a\.yaml:1: not valid YAML: could not determine a constructor"),
            (b"a: \xff\xfe\n", r"a\.yaml:1: is not UTF-8 text; save the file"),
            (b"a: 2024-13-45\n", r"a\.yaml: not valid YAML: month must be"),
            (b"a: \x07\n", r"a\.yaml:1: not valid YAML"),
            (b"", r"a\.yaml: a config is a mapping .*holds none"),
            (b"- a\n- b\n", r"a\.yaml: a config is a mapping"),
            (b"just words\n", r"a\.yaml: a config is a mapping"),
        ],
    )
    def test_others_are_refused_in_one_line(self, tmp_path, content, words):
        (tmp_path / "a.yaml").write_bytes(content)
        with pytest.raises(UsageError, match=words) as raised:
            content_of(tmp_path / "a.yaml")
        assert "\n" not in str(raised.value)


class TestLineOf:
    TEXT = """\
trainer:
  depth: 1
model:
  class_path: Classifier
  init_args:
    backbone:
      class_path: ResNet
      init_args:
        depth: 18
    recipe: {ema: 1,
      schedule: cosine}
data:
  depth: 3
"""

    @pytest.mark.parametrize(
        ("keys", "line"),
        [
            ("model", 3),
            ("model.class_path", 4),
            ("model.backbone", 6),
            ("model.init_args.backbone", 6),
            ("model.backbone.depth", 9),
            ("model.init_args.backbone.init_args.depth", 9),
            ("model.backbone.class_path", 7),
            ("model.recipe.schedule", 11),
            ("trainer.depth", 2),
            ("data.depth", 13),
            ("depth", None),
            ("model.depth", None),
            ("model.backbone.depth.more", None),
            ("init_args", None),
        ],
    )
    def test_the_line_of_a_key(self, tmp_path, keys, line):
        (tmp_path / "a.yaml").write_text(self.TEXT)
        assert line_of(tmp_path / "a.yaml", keys.split(".")) == line

    @pytest.mark.parametrize("text", ["", "- a\n", "a: [1\n"])
    def test_files_without_keys(self, tmp_path, text):
        (tmp_path / "a.yaml").write_text(text)
        assert line_of(tmp_path / "a.yaml", ["a"]) is None
        assert line_of(tmp_path / "nothere.yaml", ["a"]) is None
        assert line_of(tmp_path / "a.yaml", []) is None


class TestFromCheckpoint:
    def test_the_tasks_config_with_the_checkpoints_model(self, tiny_model):
        tiny_model.preprocessing = visionkit.Preprocessing((24, 32), resize="crop", denoise=None)
        described = checkpoint.spec_of_model(tiny_model, task="visionkit.Classifier")
        first, config, *rest = from_checkpoint(described, "x.ckpt")
        assert (first, config) == ("-c", str(configs.folder() / "classify.yaml"))
        given = dict(a.split("=", 1) for a in rest)
        assert json.loads(given["--model.backbone"]) == described["model"]["backbone"]
        assert json.loads(given["--model.head"]) == described["model"]["head"]
        data = {k.removeprefix("--data."): yaml.safe_load(v) for k, v in given.items() if k.startswith("--data.")}
        again = visionkit.Preprocessing(**data)
        assert (tuple(again.size), again.resize, data["denoise"]) == ((24, 32), "crop", None)

    @pytest.mark.parametrize(
        ("head", "name"),
        [("FCOSHead", "detect.yaml"), ("FasterRCNNHead", "detect_two_stage.yaml"),
         ("MaskRCNNHead", "detect_masks.yaml"), ("my_heads.OwnHead", "detect.yaml")],
    )  # fmt: skip
    def test_the_config_of_the_head_where_there_is_one(self, head, name, monkeypatch):
        class OwnHead(visionkit.FCOSHead):
            __module__ = "my_heads"
            __qualname__ = "OwnHead"

        monkeypatch.setitem(sys.modules, "my_heads", types.SimpleNamespace(OwnHead=OwnHead))
        backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic")
        neck = partial(visionkit.FPN, channels=8, min_level=2, max_level=5)
        made = OwnHead if "." in head else getattr(visionkit, head)
        described = checkpoint.spec_of_model(
            visionkit.VisionModel(backbone, made, ["a", "b"], neck), task="visionkit.Detector"
        )
        assert from_checkpoint(described, "x.ckpt", ["my_heads"])[1] == str(configs.folder() / name)

    @pytest.mark.parametrize("task", [None, "outside.MyTask", "visionkit.NoSuch", "visionkit.ResNet"])
    def test_other_checkpoints_need_a_config(self, tiny_model, task):
        described = checkpoint.spec_of_model(tiny_model, task=task)
        with pytest.raises(UsageError, match=r"x\.ckpt was not made by a task of visionkit: name a config with -c"):
            from_checkpoint(described, "x.ckpt")
