"""Wrong values on the command line: whatever is given, one line names the option or the place; training never begins."""

import sys

import pytest
import yaml

import visionkit
from visionkit.cli import lightning
from visionkit.cli.config import configs
from visionkit.cli.faults import explained
from visionkit.cli.main import run

PYTHONS = (
    "Value Error",
    "NoneType",
    "__init__()",
    "Traceback",
    "not supported between",
    "has no attribute",
    "got None",
)
KEYS = {
    "segment.yaml": [
        *("seed_everything", "trainer", "trainer.max_epochs", "model.backbone.depth", "model.head.losses"),
        *("model.head.losses.dice", "model.recipe.optimizer.lr", "data.batch_size", "data.crop_scale", "data.augment"),
    ],
    "detect.yaml": ["model.neck.min_level", "model.head.nms", "data.mosaic"],
    "multitask.yaml": [
        *("model.heads", "model.heads.segmentation", "model.heads.segmentation.losses.dice", "model.balance"),
        *("data.datasets.detection", "data.datasets.detection.mosaic", "data.datasets.detection.batch_size"),
    ],
}
VALUES = ("null", "word", "[1,2]", "{a: 1}", "")


@pytest.fixture
def asked(tmp_path, monkeypatch, capsys):
    """Return a function that runs fit up to the training and returns exit status and what stands on stderr."""

    def ask(*arguments):
        status = run(["fit", *arguments])
        return status, capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning.CLI, "instantiate_classes", lambda self: setattr(self, "model", None))
    monkeypatch.setattr(lightning.CLI, "_run_subcommand", lambda self, subcommand: None)
    return ask


@pytest.mark.parametrize(("config", "key"), [(config, key) for config, keys in KEYS.items() for key in keys])
def test_no_value_ends_in_pythons_words(asked, config, key):
    for value in VALUES:
        status, said = asked("-c", config, f"--{key}={value}")
        assert status in (0, 2), value
        if status:
            assert said.removeprefix("error: ").removeprefix("--").startswith(key), value
            assert len(said.splitlines()) == 1
            assert not [words for words in PYTHONS if words in said], said


SAID = {
    ("segment", "--data.batch_size=null"): "--data.batch_size needs a whole number, got null",
    ("segment", "--data.batch_size="): "--data.batch_size=: an empty value follows; is a variable of the shell not set? Give a value, or leave the option out",
    ("segment", "--data.root="): "--data.root=: an empty value follows; is a variable of the shell not set? Give a value, or leave the option out",
    ("segment", "--model=null"): "--model needs a class: Classifier, MultiTask, Detector, Segmenter; got null",
    ("segment", "--model.neck=null"): "--model.neck needs a class: IdentityNeck, FPN, got null",
    ("segment", "--model.recipe.backbone_lr=null"): "--model.recipe.backbone_lr needs a number, got null",
    ("segment", "--data.cache=null"): "--data.cache needs one of 'none', 'ram', 'disk', got null",
    ("segment", "--data.augment=word"): "--data.augment: expected list, got word",
    ("segment", "--data.classes=[no, a]"): "--data.classes: expected str, got False; YAML reads such a word (no, on, 010) as something else: put it into quotes, as ['no']",
    ("segment", "--data.ignore=[010]"): "--data.ignore: expected str, got 8; YAML reads such a word (no, on, 010) as something else: put it into quotes, as ['no']",
    ("segment", "--trainer=word"): "--trainer takes a mapping of its keys, or a YAML file with one",
    ("segment", "--seed_everything=-1"): "--seed_everything -1: a whole number from 0 to 4294967295",
    ("segment", "--data=ClassificationData"): "--data: a Segmenter needs SegmentationData, got ClassificationData",
    ("multitask", "--model.heads.detecton.nms=soft"): "--model.heads.detecton.nms: model.heads has none called 'detecton'; did you mean 'detection'? There are segmentation, detection, classification",
    ("multitask", "--data.datasets.segmentaton.root=x"): "--data.datasets.segmentaton.root: data.datasets has none called 'segmentaton'; did you mean 'segmentation'? There are segmentation, detection, classification",
    ("multitask", "--data.datasets.detection=null"): "--data.datasets.detection needs a class: ClassificationData, MultiTaskData, DetectionData, SegmentationData, got null",
    ("multitask", "--model.heads.detection={a: 1}"): "--model.heads.detection: FCOSHead has no key 'a'; did you mean 'assign'?",
}  # fmt: skip


@pytest.mark.parametrize(("config", "option"), SAID)
def test_what_is_said(asked, config, option):
    assert asked("-c", config, option) == (2, f"error: {SAID[config, option]}\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--device", "cuda"], "--device cuda: this machine has none"),
        (["--trainer.accelerator", "gpu"], "--trainer.accelerator gpu: this machine has none"),
        (["--trainer.accelerator", "tpu"], "--trainer.accelerator tpu: this machine has none"),
        (["--trainer.accelerator", "foo"], "--trainer.accelerator foo: no such device; one of auto, cpu, cuda, gpu"),
    ],
)
def test_a_device_that_is_not_here(asked, monkeypatch, given, said):
    monkeypatch.setattr("lightning.pytorch.accelerators.CUDAAccelerator.is_available", lambda: False)
    monkeypatch.setattr("lightning.pytorch.accelerators.MPSAccelerator.is_available", lambda: False)
    status, err = asked("-c", "segment.yaml", *given)
    assert status == 2
    assert err.startswith(f"error: {said}")
    assert err.endswith("here there is cpu\n")


def test_null_in_a_config_names_the_line(asked, tmp_path):
    text = (configs.folder() / "segment.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("batch_size: auto", "batch_size: null"))
    line = next(
        k for k, row in enumerate((tmp_path / "mine.yaml").read_text().splitlines(), 1) if "batch_size: n" in row
    )
    said = f"error: mine.yaml:{line}: data.batch_size needs a whole number, got null\n"
    assert asked("-c", "mine.yaml") == (2, said)
    assert asked("-c", "mine.yaml", "--data.batch_size=4")[0] == 0, "what comes later counts"


def test_every_null_of_the_shipped_configs_is_taken(asked):
    for name in configs.shipped():
        assert asked("-c", name) == (0, "")


@pytest.mark.parametrize(
    ("given", "place", "value"),
    [
        (["--model.backbone.weights", "null"], ("model", "backbone", "weights"), None),
        (
            ["--model.backbone=TimmBackbone", "--model.backbone.name=resnet18d", "--model.backbone.weights=null"],
            ("model", "backbone", "weights"),
            None,
        ),
        (["--model.heads.segmentation.losses.dice=0.5"], ("model", "heads", "segmentation", "losses", "dice"), 0.5),
        (["--model.heads.detection.score_threshold=0.5"], ("model", "heads", "detection", "score_threshold"), 0.5),
    ],
)
def test_what_reaches_the_config(tmp_path, monkeypatch, capsys, given, place, value):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "multitask.yaml", *given, "--print_config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    for key in place:
        found = found["init_args"] if "init_args" in found and key not in found else found
        found = found[key]
    assert found == value


def test_a_constructors_word_is_brought_to_its_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "-c", "detect.yaml", "--data.mosaic=-1"]) == 2
    assert capsys.readouterr().err == "error: --data.mosaic -1: p=-1.0: a share, 0..1\n"


class TestPackagesOfExtras:
    @pytest.mark.parametrize(
        ("package", "extra"),
        [
            *(("tensorboard", "track"), ("onnx", "onnx"), ("onnxruntime", "onnx"), ("openvino", "openvino")),
            *(("nncf", "int8"), ("pi_heif", "heif")),
        ],
    )
    def test_what_brings_them(self, monkeypatch, package, extra):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
        with pytest.raises(ModuleNotFoundError) as raised:
            __import__(package)
        said = explained(raised.value)
        assert isinstance(said, visionkit.UsageError)
        assert str(said) == f"the package {package} is not installed: pip install 'visionkit[{extra}]'"
        assert explained(ModuleNotFoundError("No module named 'mine'", name="mine")) is None

    def test_a_logger_without_its_package(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
        monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
        monkeypatch.setattr("lightning.pytorch.loggers.tensorboard._TENSORBOARD_AVAILABLE", False, raising=False)
        logger = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=x"]
        assert run(["fit", "-c", "classify.yaml", *logger]) == 2
        assert capsys.readouterr().err.endswith("tensorboard is not installed: pip install 'visionkit[track]'\n")


@pytest.mark.parametrize("command", ["validate", "test"])
def test_drawn_shapes_do_not_stand_for_other_data(tiny_model, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    visionkit.save(tiny_model, "m.ckpt", task="visionkit.Classifier")
    assert run([command, "--ckpt", "m.ckpt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {command} needs --data.root PICTURES: m.ckpt knows ")
    assert "without a root drawn shapes are measured (circle, cross" in said
