"""The small decisions of fit, validate and test; whole runs are in tests/test_cli.py."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

import visionkit
from visionkit import UsageError
from visionkit.cli.commands.train import _complete, _nulls, _run_folders, _trusted
from visionkit.cli.lightning import _as_list, _config_name, _device, _holds_run
from visionkit.cli.main import run


class TestComplete:
    def test_a_config_is_enough(self):
        asked = ["-c", "a.yaml", "--ckpt_path", "nothere"]
        assert _complete("validate", asked) == asked

    @pytest.mark.parametrize("more", [[], ["--ckpt_path", "last"]])
    @pytest.mark.parametrize("command", ["fit", "test"])
    def test_without_config_and_checkpoint_file(self, command, more, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = rf"{command} needs -c CONFIG.*classify\.yaml"
        if command != "fit":
            words = (
                rf"{command}: --ckpt \S+: no such checkpoint"
                if more
                else rf"{command} needs --ckpt RUN, .* or -c CONFIG"
            )
        with pytest.raises(UsageError, match=words):
            _complete(command, ["--data.root", "x", *more])

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("nothere.ckpt", r"--ckpt_path nothere\.ckpt: no such file or folder; check the path"),
            ("https://a.b/c.ckpt", r"--ckpt_path https://a\.b/c\.ckpt: is an address, .*; download it first"),
        ],
    )
    def test_a_checkpoint_that_is_not_there(self, given, said):
        for command in ("fit", "validate"):
            with pytest.raises(UsageError, match=said):
                _complete(command, [f"--ckpt_path={given}"])

    def test_a_checkpoint_stands_for_a_config_and_the_command_line_comes_after_it(self, tiny_model, tmp_path):
        visionkit.save(tiny_model, tmp_path / "m.ckpt", task="visionkit.Classifier")
        asked = ["--ckpt_path", str(tmp_path / "m.ckpt"), "--data.size", "64", "--data.root", "photos"]
        completed = _complete("validate", asked)
        assert completed[0] == "-c"
        assert completed[1].endswith("classify.yaml")
        assert completed[-6:] == asked
        assert any(a.startswith(("--data.size=32", "--data.size=[32")) for a in completed)

    def test_a_model_that_no_task_trained_needs_a_config(self, tiny_model, tmp_path):
        visionkit.save(tiny_model, tmp_path / "m.ckpt")
        with pytest.raises(UsageError, match="name a config with -c"):
            _complete("validate", ["--ckpt_path", str(tmp_path / "m.ckpt")])


def test_a_folder_with_a_last_checkpoint_holds_a_run(tmp_path):
    assert not _holds_run(tmp_path / "nothere")
    (tmp_path / "config.yaml").touch()
    (tmp_path / "metrics.csv").touch()
    (tmp_path / "checkpoints").mkdir()
    assert not _holds_run(tmp_path), "it was killed before there was one"
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert _holds_run(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("visionkit.Classifier", "classify"),
        ("Classifier", "classify"),
        ("outside.MyTask", "run"),
        ("visionkit.Task", "run"),
    ],
)
def test_runs_are_named_after_the_tasks_config(path, name):
    assert visionkit.Classifier  # imported, as the command line does
    assert _config_name(Namespace(model=Namespace(class_path=path))) == name


def test_tasks_outside_that_inherit_share_the_name():
    class OwnClassifier(visionkit.Classifier):
        pass

    assert _config_name(Namespace(model=Namespace(class_path="outside.OwnClassifier"))) == "classify"


def test_as_list():
    one = object()
    assert _as_list(None) == []
    assert _as_list(one) == [one]
    assert _as_list((one, 2)) == [one, 2]
    given = [one]
    assert _as_list(given) == [one]
    assert _as_list(given) is not given, "what the user gave is not added to"


@pytest.mark.parametrize(
    ("accelerator", "cuda", "mps", "device"),
    [
        ("cpu", True, True, "cpu"), ("auto", True, False, "cuda"), ("gpu", True, False, "cuda"), ("auto", False, False, "cpu"),
        ("auto", False, True, "mps"), ("cpu", False, True, "cpu"), ("gpu", False, False, "cpu"),
    ],
)  # fmt: skip
def test_device_whose_precision_is_chosen(monkeypatch, accelerator, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert _device(accelerator) == torch.device(device)


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        (["--model.recipe.ema", "null"], ['--model.recipe={"ema": null}']),
        (["--model.recipe.freeze=null", "--a", "b"], ['--model.recipe={"freeze": null}', "--a", "b"]),
        (["--model.recipe.ema=0.9"], None),
        (["--model.recipe.optimizer.lr=1", "--data.augment", "null"], None),
    ],
)
def test_null_of_a_recipe(asked, written):
    assert _nulls(asked) == (asked if written is None else written)


def test_null_reaches_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["--model.recipe.ema", "null", "--model.recipe.final_lr=0.5", "--print_config"]
    assert run(["fit", "-c", "segment.yaml", *asked]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["recipe"]
    assert (recipe["ema"], recipe["final_lr"], recipe["optimizer"]["init_args"]["weight_decay"]) == (None, 0.5, 0.05)


def test_a_model_alone_is_no_training_to_go_on_with(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    visionkit.save(tiny_model, "m.ckpt", task="visionkit.Classifier")
    assert run(["fit", "-c", "classify.yaml", "--ckpt_path", "m.ckpt", "--trainer.default_root_dir=out"]) == 2
    assert "holds a model alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class TestWhatACheckpointNames:
    """Without -c the checkpoint takes a config's place, but it is a file from anywhere: nothing of it runs."""

    @pytest.fixture
    def foreign(self, tiny_model, tmp_path, monkeypatch):
        """Return a function that writes a checkpoint whose description was changed, and the mark of a module that ran."""
        (tmp_path / "zoo.py").write_text(
            "open('RAN', 'w').close()\nfrom visionkit import LinearHead\nclass Head(LinearHead): pass\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)

        def write(change):
            described = visionkit.models.checkpoint.spec_of_model(tiny_model, task="visionkit.Classifier")
            change(described["model"])
            state = {f"model.{k}": v for k, v in tiny_model.state_dict().items()}
            visionkit.models.checkpoint.write({"state_dict": state, "visionkit": described}, "zoo.ckpt")

        yield write
        sys.modules.pop("zoo", None)

    @pytest.mark.parametrize("command", ["fit", "validate", "test"])
    @pytest.mark.parametrize("part", ["backbone", "neck", "head", "preprocessing"])
    def test_a_foreign_class_is_not_imported(self, foreign, photos, command, part, capsys):
        foreign(lambda model: model[part].update(class_path="zoo.Head"))
        assert run([command, "--ckpt_path", "zoo.ckpt", "--data.root", str(photos)]) == 2
        assert "zoo.ckpt: the checkpoint names the class zoo.Head, outside visionkit" in capsys.readouterr().err
        assert not Path("RAN").exists()

    def test_neither_within_another_nor_as_a_word(self, foreign, photos, capsys):
        inner = {"class_path": "zoo.Head", "init_args": {}}
        neck = {"class_path": "visionkit.MultiTaskNeck", "init_args": {"neck": inner}}
        foreign(lambda model: model.update(neck=neck))
        assert run(["validate", "--ckpt_path", "zoo.ckpt", "--data.root", str(photos)]) == 2
        assert "zoo.Head, outside visionkit" in capsys.readouterr().err
        foreign(lambda model: model.update(neck={**neck, "init_args": {"neck": "zoo.Head"}}))
        assert run(["validate", "--ckpt_path", "zoo.ckpt", "--data.root", str(photos)]) == 1
        assert "the word 'zoo.Head'; refused" in capsys.readouterr().err
        foreign(lambda model: model.update(head="zoo.Head"))
        assert run(["validate", "--ckpt_path", "zoo.ckpt", "--data.root", str(photos)]) == 1
        assert not Path("RAN").exists()

    def test_it_is_where_its_package_is_trusted(self, foreign, photos, capsys):
        foreign(lambda model: model["head"].update(class_path="zoo.Head"))
        asked = ["validate", "--ckpt_path", "zoo.ckpt", "--data.root", str(photos), "--trainer.default_root_dir", "run"]
        assert run([*asked, "--trust", "zoo"]) == 0
        assert "val/top1" in capsys.readouterr().out
        assert Path("RAN").exists()

    @pytest.mark.parametrize("key", ["root", "cache_folder", "num_workers"])
    def test_it_sets_no_option_of_the_data(self, foreign, key, photos, capsys):
        foreign(lambda model: model["preprocessing"]["init_args"].update({key: str(photos)}))
        assert run(["validate", "--ckpt_path", "zoo.ckpt"]) == 1
        assert f"visionkit.Preprocessing an argument '{key}', which it has not" in capsys.readouterr().err


def test_trust_wants_a_package():
    for arguments in (["--trust"], ["--trust="], ["--trust", "--data.size"]):
        with pytest.raises(UsageError, match="--trust needs the name of a package"):
            _trusted(arguments)
    assert _trusted(["-c", "a", "--trust", "x", "--trust=y", "b"]) == (["-c", "a", "b"], ["x", "y"])


class TestRunFolders:
    """A run folder in place of a checkpoint, and a run's config alone."""

    @pytest.fixture
    def run_folder(self, tmp_path):
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        for name in ("best", "last"):
            (tmp_path / "run" / "checkpoints" / f"{name}.ckpt").touch()
        config = "model: {class_path: visionkit.Classifier}\ndata: {class_path: visionkit.ClassificationData}\n"
        (tmp_path / "run" / "config.yaml").write_text(config)
        return tmp_path / "run"

    def test_a_config_of_a_run_means_its_best(self, run_folder):
        asked = ["-c", str(run_folder / "config.yaml")]
        assert _run_folders("validate", asked) == [*asked, f"--ckpt_path={run_folder / 'checkpoints' / 'best.ckpt'}"]
        assert _run_folders("fit", asked) == asked
        assert _run_folders("test", [*asked, "--ckpt_path=last"]) == [*asked, "--ckpt_path=last"]

    def test_a_folder_alone_is_measured_on_the_data_of_its_run(self, run_folder):
        assert _run_folders("validate", [f"--ckpt_path={run_folder}"]) == [
            *("-c", str(run_folder / "config.yaml"), f"--trainer.default_root_dir={run_folder}"),
            f"--ckpt_path={run_folder / 'checkpoints' / 'best.ckpt'}",
        ]

    def test_a_file_of_a_run_is_measured_on_its_data_too(self, run_folder, monkeypatch, capsys):
        monkeypatch.chdir(run_folder.parent)
        asked = ["--ckpt_path=run/checkpoints/best.ckpt"]
        assert _run_folders("validate", asked) == ["-c", "run/config.yaml", *asked]
        assert _run_folders("fit", asked) == asked
        assert _run_folders("test", ["-c", "mine.yaml", *asked]) == ["-c", "mine.yaml", *asked]
        (run_folder / "config.yaml").write_text("model: {init_args: {metric: my_metrics.Mine}}\n")
        with pytest.raises(
            UsageError, match=r"run/config.yaml names the class my_metrics\.Mine, outside visionkit: .*-c"
        ):
            _run_folders("validate", asked)
        asked.append("--data.root=photos")
        assert _run_folders("validate", asked) == asked
        assert capsys.readouterr().err.startswith(
            "run/config.yaml names the class my_metrics.Mine, outside visionkit, and is"
        )

    def test_training_goes_on_with_the_last(self, run_folder):
        asked = ["-c", "classify.yaml", f"--ckpt_path={run_folder}"]
        assert _run_folders("fit", asked)[-1] == f"--ckpt_path={run_folder / 'checkpoints' / 'last.ckpt'}"

    @pytest.mark.parametrize("head", ["{class_path: run.evil.Head}", "run.evil.Head"])
    def test_a_folder_by_itself_imports_nothing_of_others(self, run_folder, head):
        (run_folder / "config.yaml").write_text(f"model: {{init_args: {{heads: [{head}]}}}}\n")
        with pytest.raises(UsageError, match=r"names the class run\.evil\.Head, outside visionkit: .* say -c"):
            _run_folders("validate", [f"--ckpt_path={run_folder}"])


class TestWordsOfNoOption:
    @pytest.fixture(autouse=True)
    def run_folder(self, tmp_path, monkeypatch):
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
        (tmp_path / "run" / "config.yaml").touch()
        (tmp_path / "photos").mkdir()
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ("validate run", "run belongs to no option: write --ckpt run"),
            ("test --data.root photos run/checkpoints/best.ckpt", "run/checkpoints/best.ckpt belongs to no option: write --ckpt run/checkpoints/best.ckpt"),
            ("fit run", "run belongs to no option: --ckpt_path run goes on with its training, -c run/config.yaml begins it anew"),
            ("fit run/config.yaml", "run/config.yaml belongs to no option: write -c run/config.yaml"),
            ("fit classify --epochs 1", "classify belongs to no option: write -c classify"),
            ("fit photos", "photos belongs to no option: write --data photos"),
            ("fit -c classify.yaml --data.size 32 48", "48 belongs to no option: --data.size takes one value, which is 32"),
            ("fit epochs=3", "epochs=3 belongs to no option: visionkit fit --help lists them"),
        ],
    )  # fmt: skip
    def test_which_option_is_meant(self, asked, said, capsys):
        assert run(asked.split()) == 2
        assert capsys.readouterr().err == f"error: {said}\n"

    @pytest.mark.parametrize("word", ["run", "run/checkpoints/best.ckpt"])
    def test_predict_says_it_too(self, word, capsys):
        assert run(["predict", "photos", word, "--out", "o"]) == 2
        said = f"error: {word} is a checkpoint or the folder of a run, no picture: write --ckpt {word}\n"
        assert capsys.readouterr().err == said
