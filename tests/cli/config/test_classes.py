"""Another class starts from its own defaults; what is said of itself counts wherever it stands."""

import pytest
import yaml

import visionkit
from visionkit.cli.config import configs
from visionkit.cli.config.classes import drop_replaced, is_same
from visionkit.cli.config.train_help import train_help
from visionkit.cli.main import run
from visionkit.core.component import parameters_of

HEAD = ("model", "init_args", "head")
TWO_STAGE = {
    "model": {
        "class_path": "Detector",
        "init_args": {"head": {"class_path": "FasterRCNNHead", "init_args": {"detections": 7}}},
    }
}
TIMM = {"model": {"init_args": {"backbone": {"class_path": "TimmBackbone", "init_args": {"name": "resnet18d"}}}}}


def at(config, keys):
    for key in keys:
        config = config[key]
    return config


@pytest.fixture
def printed(tmp_path, capsys):
    """Return the config of a command line; names in braces are files."""

    def answer(arguments, files=None):
        for name, content in (files or {}).items():
            (tmp_path / name).write_text(yaml.safe_dump(content))
        status = run(["fit", *(a.format(tmp=tmp_path) for a in arguments), "--print_config", "full"])
        said = capsys.readouterr()
        assert status == 0, said.err
        return yaml.safe_load(said.out)

    return answer


def own_defaults(cls, *skip):
    return {k: p.default for k, p in parameters_of(cls).items() if k not in skip}


@pytest.mark.parametrize("option", ["--model.head", "--model.head.class_path", "--model.init_args.head"])
def test_a_class_of_the_command_line_has_its_own_defaults(printed, option):
    config = printed(["-c", "detect.yaml", option, "FasterRCNNHead"])
    head = at(config, HEAD)
    assert head["class_path"] == "visionkit.FasterRCNNHead"
    expected = own_defaults(visionkit.FasterRCNNHead, "features", "num_classes")
    assert head["init_args"] == {k: list(v) if isinstance(v, tuple) else v for k, v in expected.items()}
    assert head["init_args"]["nms_threshold"] != own_defaults(visionkit.FCOSHead)["nms_threshold"], "else nothing shown"


def test_a_class_of_a_config_has_its_own_defaults_too(printed):
    """Detector's own default head is another one."""
    config = yaml.safe_load((configs.folder() / "detect.yaml").read_text())
    at(config, HEAD[:-1])["head"] = {"class_path": "FasterRCNNHead"}
    head = at(printed(["-c", "{tmp}/own.yaml"], {"own.yaml": config}), HEAD)
    assert head["init_args"]["nms_threshold"] == 0.5


GIVEN = {
    "option after": (["-c", "detect.yaml", "--model.head", "FasterRCNNHead", "--model.head.detections", "7"], {}),
    "option before": (["-c", "detect.yaml", "--model.head.detections=7", "--model.head=FasterRCNNHead"], {}),
    "file on top": (["-c", "detect.yaml", "-c", "{tmp}/a.yaml"], {"a.yaml": TWO_STAGE}),
    "file below": (
        ["-c", "{tmp}/a.yaml", "-c", "detect.yaml", "--model.head", "FasterRCNNHead"],
        {"a.yaml": TWO_STAGE},
    ),
    "both": (
        ["-c", "detect.yaml", "--model.head", "visionkit.FasterRCNNHead", "-c", "{tmp}/a.yaml"],
        {"a.yaml": TWO_STAGE},
    ),
    "without the class": (
        ["-c", "detect.yaml", "-c", "{tmp}/a.yaml", "--model.head", "FasterRCNNHead"],
        {"a.yaml": {"model": {"init_args": {"head": {"init_args": {"detections": 7}}}}}},
    ),
    "data in place": (
        ["-c", "detect.yaml", "--model.head", "{{class_path: FasterRCNNHead, init_args: {{detections: 7}}}}"],
        {},
    ),
    "a file as the value": (
        ["-c", "detect.yaml", "--model.head", "{tmp}/head.yaml"],
        {"head.yaml": at(TWO_STAGE, HEAD)},
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_said_of_the_class_counts(printed, case):
    head = at(printed(*GIVEN[case]), HEAD)
    assert head["class_path"] == "visionkit.FasterRCNNHead"
    assert (head["init_args"]["detections"], head["init_args"]["nms_threshold"]) == (7, 0.5)


def test_any_part_and_the_optimizer(printed):
    arguments = ["-c", "detect.yaml", "--model.neck", "IdentityNeck", "--model.recipe.optimizer", "torch.optim.SGD"]
    config = printed(arguments)["model"]["init_args"]
    assert config["neck"] == {"class_path": "visionkit.IdentityNeck"}
    assert config["recipe"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert config["recipe"]["optimizer"]["init_args"]["weight_decay"] == 0, "AdamW's decay was not meant for it"
    assert config["recipe"]["ema"] == 0.98333, "what stands beside it stays"
    timm = printed(["-c", "detect.yaml", "-c", "{tmp}/timm.yaml"], {"timm.yaml": TIMM})
    assert at(timm, ("model", "init_args", "backbone", "init_args", "name")) == "resnet18d"


def test_heads_by_name(printed):
    config = printed(["-c", "multitask.yaml", "--model.heads.classification", "MLPHead"])
    head = at(config, ("model", "init_args", "heads", "classification"))
    assert head["class_path"] == "visionkit.MLPHead"
    defaults = own_defaults(visionkit.MLPHead)
    assert head["init_args"]["label_smoothing"] == defaults["label_smoothing"]


def test_the_same_class_keeps_the_config(printed):
    arguments = ["-c", "detect.yaml", "--model.neck", "visionkit.FPN", "--model.head=FCOSHead"]
    assert drop_replaced(arguments) == arguments
    config = printed(arguments)["model"]["init_args"]
    assert config["neck"]["init_args"]["channels"] == 128


def test_a_task_of_ones_own_keeps_the_parts_of_the_config():
    arguments = configs.resolve(["-c", "detect.yaml", "--model", "my.Own", "--data.class_path", "my.Data"])
    assert drop_replaced(arguments) == arguments


def test_what_is_no_config_is_left_to_others(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- 1")
    for words in (["-c", str(tmp_path / "bad.yaml")], ["-c", str(tmp_path / "list.yaml")], ["-c", "no.yaml"], ["-c"]):
        arguments = [*words, "--model.head", "{", "word", "--trainer.callbacks+=X", "--model.head"]
        assert drop_replaced(arguments) == arguments


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("FPN", "FPN", True),
        ("FPN", "visionkit.FPN", True),
        ("visionkit.models.necks.fpn.FPN", "visionkit.FPN", True),
        ("my.FPN", "FPN", True),
        ("my.FPN", "visionkit.FPN", False),
        ("my.FPN", "your.FPN", False),
        ("FPN", "IdentityNeck", False),
    ],
)
def test_names_of_a_class(name, other, same):
    assert is_same(name, other) is same
    assert is_same(other, name) is same


def test_an_option_that_the_class_does_not_have_is_refused(capsys):
    for option in ("--model.neck.channels=8", "--model.neck.channel=8"):
        for arguments in ([option, "--model.neck", "IdentityNeck"], ["--model.neck", "IdentityNeck", option]):
            assert run(["fit", "-c", "detect.yaml", *arguments]) == 2
            name = option[13:-2]
            assert capsys.readouterr().err == (
                f"error: --model.neck.{name}: IdentityNeck has no key '{name}'; it has none\n"
            )


def test_help_says_the_same(tmp_path):
    file = str(configs.folder() / "detect.yaml")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TWO_STAGE))
    named = train_help("fit", ["-c", file, "--model.head", "FasterRCNNHead"])
    merged = train_help("fit", ["-c", file, "-c", str(tmp_path / "own.yaml")])
    for text in (named, merged):
        line = next(x for x in text.splitlines() if x.startswith("  --model.head.nms_threshold"))
        assert "default: 0.5" in text[text.index(line) :][:300]
    kept = train_help("fit", ["-c", file, "--model.neck=FPN"])
    line = next(x for x in kept.splitlines() if x.startswith("  --model.neck.channels"))
    assert "default: 128" in kept[kept.index(line) :][:200]


def test_null_below_a_name_of_the_users_counts_as_in_a_config(printed):
    data = ["data", "init_args", "datasets", "classification", "init_args"]
    augment = [*data, "augment"]
    assert at(printed(["-c", "multitask.yaml"]), augment) is not None
    off = ["--data.datasets.classification.augment", "null"]
    assert at(printed(["-c", "multitask.yaml", *off]), augment) is None
    on = ["--data.datasets.classification.augment", "[HorizontalFlip]"]
    assert at(printed(["-c", "multitask.yaml", *off, *on]), augment) == ["HorizontalFlip"], "the last counts"
    config = printed(["-c", "multitask.yaml", *on, *off, "--model.heads.classification.loss=null"])
    assert at(config, augment) is None
    assert at(config, ["model", "init_args", "heads", "classification", "init_args", "loss"]) is None
    assert at(config, [*data, "batch_size"]) == 8, "the rest stays"


def test_null_for_a_key_that_the_class_lacks_is_refused(capsys):
    assert run(["fit", "-c", "multitask.yaml", "--data.datasets.classification.augmnt", "null", "--print_config"]) == 2
    assert "ClassificationData has no key 'augmnt'; did you mean 'augment'?" in capsys.readouterr().err
