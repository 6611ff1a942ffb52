"""Checkpoints that are damaged, or made to do harm: every command says in one line what is wrong, and nothing else happens."""

import copy
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import visionkit
import visionkit.models.weights.load
from visionkit.cli.main import run
from visionkit.core import files
from visionkit.models import checkpoint

FOREIGN = {"class_path": "zoo.Head", "init_args": {}}
NECK = {"class_path": "visionkit.MultiTaskNeck", "init_args": {}}


def at(*keys, value):
    """Return a change: the entry that the keys lead to is another."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def without(*keys):
    """Return a change: the entry that the keys lead to is missing."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def said(*keys, value):
    return at("visionkit", *keys, value=value)


def deep():
    value = []
    for _ in range(200):
        value = [value]
    return value


def looped():
    value = {}
    value["again"] = value
    return value


FORM = {  # a file that no command may use: change, words
    "description: text": (at("visionkit", value="x"), "its description is 'x'"),
    "description: list": (at("visionkit", value=[1]), "its description is [1]"),
    "description: none": (at("visionkit", value=None), "its description is None"),
    "description: tensors": (said("model", "classes", value=[torch.ones(1)]), "holds a Tensor beside plain data"),
    "description: numbers as keys": (said("model", 3, value=1), "has the key 3, no word"),
    "description: a huge number": (said("model", "classes", value=[1 << 1000]), "a number of more than 64 bits"),
    "description: deep": (said("model", "neck", "init_args", "x", value=deep()), "too deep or too large"),
    "description: in itself": (said("model", "neck", "init_args", "x", value=looped()), "too deep or too large"),
    "another format": (said("format", value=99), "checkpoint format 99 of visionkit"),
    "no format": (without("visionkit", "format"), "checkpoint format None"),
    "no version": (without("visionkit", "version"), "its version is None"),
    "no model": (without("visionkit", "model"), "its description has no model"),
    "model: a list": (said("model", value=[]), "its model is []"),
    "no backbone": (without("visionkit", "model", "backbone"), "its description has no backbone"),
    "no neck": (without("visionkit", "model", "neck"), "its description has no neck"),
    "no head": (without("visionkit", "model", "head"), "its description has no head"),
    "no preprocessing": (without("visionkit", "model", "preprocessing"), "its description has no preprocessing"),
    "no classes": (without("visionkit", "model", "classes"), "its description has no class names"),
    "backbone: a word": (said("model", "backbone", value="zoo.Head"), "its backbone is 'zoo.Head', no class_path with"),
    "head: no init_args": (said("model", "head", value={"class_path": "visionkit.LinearHead"}), "its head is"),
    "head: more": (said("model", "head", "dict_kwargs", value={}), "its head is"),
    "head: arguments in a list": (said("model", "head", "init_args", value=[1]), "its head is"),
    "neck: a number as class": (said("model", "neck", "class_path", value=3), "its neck is"),
    "neck: a class with a newline": (said("model", "neck", "class_path", value="zoo.a\nerror: b"), "its neck is"),
    "classes: none": (said("model", "classes", value=[]), "its description has no class names"),
    "classes: text": (said("model", "classes", value="abc"), "its classes are 'abc'"),
    "classes: numbers": (said("model", "classes", value=[1, 2, 3]), "its class names hold 1, no name"),
    "classes: empty": (said("model", "classes", value=["a", "", "c"]), "its class names hold '', no name"),
    "classes: twice": (said("model", "classes", value=["a", "b", "a"]), "it has the class name 'a' twice"),
    "classes: a newline": (said("model", "classes", value=["a\nerror: x", "b", "c"]), "holds control characters"),
    "classes: clear the screen": (said("model", "classes", value=["a\x1b[2J", "b", "c"]), "holds control characters"),
    "task: a list": (said("task", value=["visionkit.Classifier"]), "its task is"),
    "passport: text": (said("passport", value="x"), "the passport of its weights is 'x'"),
    "passport: empty": (said("passport", value={}), "the passport of the weights cannot be read"),
}  # fmt: skip
STATE = {  # of no use but to look at the tensors
    "no description": (without("visionkit"), "not a visionkit checkpoint"),
    "no state": (without("state_dict"), "not a visionkit checkpoint"),
    "state: a list": (at("state_dict", value=[torch.ones(1)]), "its state_dict is a list"),
    "state: plain values": (at("state_dict", "model.x", value=3), "its state_dict holds a int under 'model.x', no tensor"),
    "state: numbers as names": (at("state_dict", 3, value=torch.ones(1)), "under 3, no tensor"),
}  # fmt: skip
MODEL = {  # a description of which no model can be made
    "backbone: no such class": (said("model", "backbone", "class_path", value="visionkit.NoSuch"), "visionkit.NoSuch, which cannot be imported"),
    "backbone: a function": (said("model", "backbone", "class_path", value="visionkit.load_weights"), "which is no component"),
    "backbone: a head": (said("model", "backbone", "class_path", value="visionkit.LinearHead"), "visionkit.LinearHead, which is no Backbone"),
    "backbone: no such argument": (said("model", "backbone", "init_args", "root", value="/"), "an argument 'root', which it has not"),
    "backbone: a wrong value": (said("model", "backbone", "init_args", "layers", value="many"), "ResNet(layers=...) 'many', it takes tuple[int, int, int, int] | None; refused"),
    "backbone: a wrong kind": (said("model", "backbone", "init_args", "layers", value=[[1], {}]), "ResNet(layers=...) [[1], {}], it takes"),
    "backbone: ten million blocks": (said("model", "backbone", "init_args", "layers", value=[10**7] * 4), "far more parameters than the"),
    "backbone: many channels": (said("model", "backbone", "init_args", "in_channels", value=10**9), "an image has at most 1024 channels"),
    "backbone: another depth": (said("model", "backbone", "init_args", "layers", value=[1, 2, 1, 1]), "the file lacks"),
    "backbone: three numbers for a mean": (said("model", "backbone", "init_args", "mean", value=["a", {}, 3]), "ResNet(mean=...) ['a', {}, 3], it takes"),
}  # fmt: skip
WHOLE = {  # likewise, but the backbone alone can be made
    "neck: a head": (said("model", "neck", "class_path", value="visionkit.LinearHead"), "visionkit.LinearHead, which is no Neck"),
    "neck: a word": (said("model", "neck", value={**NECK, "init_args": {"neck": "zoo.Head"}}), "the word 'zoo.Head'; refused"),
    "head: of another model": (said("model", "head", "class_path", value="visionkit.FCOSHead"), "zoo.ckpt: "),
    "head: no such argument": (said("model", "head", "init_args", "colour", value=1), "an argument 'colour', which it has not"),
    "preprocessing: a root": (said("model", "preprocessing", "init_args", "root", value="/"), "an argument 'root', which it has not"),
    "preprocessing: a wrong size": (said("model", "preprocessing", "init_args", "size", value="big"), "Preprocessing(size=...) 'big', it takes int | tuple[int, int]; refused"),
    "preprocessing: a head": (said("model", "preprocessing", "class_path", value="visionkit.LinearHead"), "which is no Preprocessing"),
    "head: ten million layers": (said("model", "head", value={"class_path": "visionkit.MLPHead", "init_args": {"layers": 10**7}}), "1 to 1000 hidden layers"),
    "head: a billion units": (said("model", "head", value={"class_path": "visionkit.MLPHead", "init_args": {"width": 10**9}}), "do not fit the model it describes: the file lacks head"),
    "preprocessing: a large size": (said("model", "preprocessing", "init_args", "size", value=20000), "more than 8192 x 8192 pixels"),
    "channels": (said("model", "preprocessing", "init_args", "channels", value=1), "makes no model"),
}  # fmt: skip
UNTRUSTED = {
    "neck: foreign": (said("model", "neck", value=FOREIGN), "the class zoo.Head, outside visionkit"),
    "head: foreign": (said("model", "head", value=FOREIGN), "the class zoo.Head, outside visionkit"),
    "head: system": (said("model", "head", "class_path", value="os.system"), "the class os.system, outside visionkit"),
    "preprocessing: foreign": (said("model", "preprocessing", value=FOREIGN), "the class zoo.Head, outside visionkit"),
    "within a neck": (said("model", "neck", value={**NECK, "init_args": {"neck": FOREIGN}}), "zoo.Head, outside visionkit"),
}  # fmt: skip
COMMANDS = {
    "predict": ["predict", "--ckpt", "zoo.ckpt", "--out", "out", "photos"],
    "list": ["heads", "list", "zoo.ckpt"],
    "take": ["heads", "take", "zoo.ckpt", "a", "out.ckpt"],
    "join": ["heads", "join", "out.ckpt", "a=zoo.ckpt", "b=zoo.ckpt"],
    "fit": ["fit", "--ckpt_path", "zoo.ckpt", "--data.root", "photos"],
    "validate": ["validate", "--ckpt_path", "zoo.ckpt", "--data.root", "photos"],
    "test": ["test", "--ckpt_path", "zoo.ckpt", "--data.root", "photos"],
    "export": ["backbone", "export", "zoo.ckpt", "out.safetensors"],
    "inspect": ["backbone", "inspect", "zoo.ckpt"],
}
FULL = [name for name in COMMANDS if name not in ("export", "inspect")]
CASES = [
    *((case, 1, commands) for cases, commands in ((FORM, list(COMMANDS)), (STATE, [*FULL, "export"]))
      for case in cases.items()),
    *((case, 1, [*FULL, "export"]) for case in MODEL.items()),
    *((case, 1, FULL) for case in WHOLE.items()),
    *((case, 2, FULL) for case in UNTRUSTED.items()),
    (("backbone: foreign", (said("model", "backbone", value=FOREIGN), "zoo.Head, outside visionkit")), 2, [*FULL, "export"]),
]  # fmt: skip


@pytest.fixture
def content(tiny_model):
    described = checkpoint.spec_of_model(tiny_model, task="visionkit.Classifier")
    state = {f"model.{k}": v for k, v in tiny_model.state_dict().items()}
    return copy.deepcopy({"state_dict": state, "visionkit": described})


@pytest.fixture
def opened(tmp_path, photos, monkeypatch):
    """Stand in a folder with pictures and a module that leaves a trace; return the files that are opened."""
    (tmp_path / "zoo.py").write_text(
        "open('RAN', 'w').close()\nfrom visionkit import LinearHead\nclass Head(LinearHead): pass\n"
    )
    (tmp_path / "secret.pth").write_bytes(b"secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = []

    def open_(path, flags, *args, **kwargs):
        found.append(str(path))
        return real(path, flags, *args, **kwargs)

    real = os.open
    monkeypatch.setattr(files.os, "open", open_)
    yield found
    sys.modules.pop("zoo", None)


def is_ours(path):
    """Whether a file is the checkpoint or of visionkit itself."""
    folder = Path(visionkit.__file__).parent
    return path == "zoo.ckpt" or Path(path).parent == folder.parent / "configs" or Path(path).is_relative_to(folder)


@pytest.mark.parametrize(("case", "status", "commands"), CASES, ids=[case[0][0] for case in CASES])
def test_every_command_says_what_is_wrong(content, opened, capsys, case, status, commands):
    change, words = case[1]
    change(content)
    torch.save(content, "zoo.ckpt")
    for name in commands:
        opened.clear()
        assert run(COMMANDS[name]) == status, name
        error = capsys.readouterr().err
        assert error.startswith("error: zoo.ckpt: "), name
        assert error.count("\n") == 1, name
        assert words in error, name
        assert "zoo" not in sys.modules, name
        assert not Path("RAN").exists(), name
        assert not [path for path in opened if not is_ours(path)], name
        assert not list(Path().glob("out*")), name
        assert not Path("runs").exists(), name


@pytest.mark.parametrize("name", ["no head", "classes: numbers", "passport: empty", "another format"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "-c", "classify.yaml", "--ckpt_path", "zoo.ckpt"],
        ["validate", "-c", "classify.yaml", "--ckpt_path", "zoo.ckpt"],
        ["fit", "-c", "classify.yaml", "--model.backbone.weights", "zoo.ckpt"],
    ],
    ids=["fit", "validate", "weights"],
)
def test_with_a_config_too(content, opened, capsys, name, arguments):
    change, words = FORM[name]
    change(content)
    content["optimizer_states"] = []
    torch.save(content, "zoo.ckpt")
    model = ["--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"]
    assert run([*arguments, *model, "--data.root=photos", "--data.size=32", "--data.num_workers=0"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: zoo.ckpt: ")
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize("weights", ["secret.pth", "hf-hub:nobody/evil", "timm/nobody"])
def test_a_checkpoint_names_no_other_file(content, opened, monkeypatch, weights):
    """It brings its own weights: what it says of a file or of the hub is passed over."""
    monkeypatch.setattr("visionkit.models.weights.file.fetch", pytest.fail)
    content["visionkit"]["model"]["backbone"]["init_args"].update(weights=weights, partial=True)
    torch.save(content, "zoo.ckpt")
    for name in ("predict", "list", "join", "export", "inspect"):
        assert run(COMMANDS[name]) == 0, name
    quick = ["--trainer.limit_val_batches=1", "--data.num_workers=0"]
    assert run([*COMMANDS["validate"], *quick]) == 0
    assert not [path for path in opened if "secret" in path]


def test_within_a_neck_neither(tmp_path, opened):
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic")
    model = visionkit.VisionModel(
        backbone, visionkit.FCOSHead, ["a", "b"], lambda f: visionkit.FPN(f, 8, min_level=2, max_level=5)
    )
    content = {
        "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()},
        "visionkit": checkpoint.spec_of_model(model, task="visionkit.Detector"),
    }
    content["visionkit"]["model"]["neck"]["init_args"]["weights"] = "secret.pth"
    torch.save(content, "zoo.ckpt")
    assert run(["heads", "list", "zoo.ckpt"]) == 0
    assert opened == ["zoo.ckpt"]


def test_looking_needs_no_trust(content, opened, capsys):
    content["visionkit"]["model"]["backbone"] = FOREIGN
    torch.save(content, "zoo.ckpt")
    assert run(["backbone", "inspect", "zoo.ckpt"]) == 0
    assert "zoo.Head" in capsys.readouterr().out
    assert "zoo" not in sys.modules


def test_another_task_than_the_configs(content, opened, capsys):
    torch.save(content, "zoo.ckpt")
    assert run(["validate", "-c", "detect.yaml", "--ckpt_path", "zoo.ckpt"]) == 2
    error = capsys.readouterr().err
    assert "zoo.ckpt is a checkpoint of a Classifier, the config makes a Detector" in error
    assert error.count("\n") == 1


def test_weights_of_another_model_than_the_configs(content, opened, capsys):
    torch.save(content, "zoo.ckpt")
    model = ["--model.backbone.layers=[1,1,2,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"]
    fixed = ["--data.root=photos", "--data.size=32", "--data.num_workers=0"]
    assert run(["validate", "-c", "classify.yaml", "--ckpt_path", "zoo.ckpt", *model, *fixed]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: zoo.ckpt: the weights do not fit this Classifier's model, it is a checkpoint of a")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("visionkit.Detector", "it says that it is of a Detector, but its head is a LinearHead"),
        ("visionkit.MultiTask", "it describes no model of a MultiTask"),
    ],
)
def test_a_task_that_it_is_none_of(content, opened, capsys, task, words):
    content["visionkit"]["task"] = task
    torch.save(content, "zoo.ckpt")
    assert run(COMMANDS["validate"]) == 1
    assert capsys.readouterr().err.startswith(f"error: zoo.ckpt: {words}")


@pytest.mark.parametrize("key", ["epoch", "optimizer_states", "loops", "callbacks"])
def test_no_training_to_go_on_with(content, opened, capsys, key):
    torch.save({**content, "optimizer_states": [], key: "x"}, "zoo.ckpt")
    model = ["--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"]
    fixed = ["--data.root=photos", "--data.size=32", "--data.num_workers=0", "--trainer.default_root_dir=run"]
    assert run(["fit", "-c", "classify.yaml", "--ckpt_path", "zoo.ckpt", *model, *fixed]) == 1
    assert f"error: zoo.ckpt: its {key} is no" in capsys.readouterr().err


def test_a_bomb_is_refused_before_it_is_unpacked(content, opened, capsys):
    torch.save(content, "good.ckpt")
    with zipfile.ZipFile("good.ckpt") as good, zipfile.ZipFile("zoo.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in good.infolist():
            bomb.writestr(entry.filename, good.read(entry))
        bomb.writestr("archive/data/999", bytes(50_000_000))
    for name, arguments in COMMANDS.items():
        assert run(arguments) == 1, name
        error = capsys.readouterr().err
        assert error.startswith("error: zoo.ckpt: refused, its entry "), name
        assert "is compressed, which PyTorch never does" in error, name


def test_entries_that_share_bytes_are_refused(content, opened, capsys):
    torch.save(content, "zoo.ckpt")
    with zipfile.ZipFile("zoo.ckpt", "a") as archive:
        largest = max(archive.infolist(), key=lambda e: e.file_size)
        for number in range(3):
            again = copy.copy(largest)
            again.filename = again.orig_filename = f"archive/data/9{number}"
            archive.filelist.append(again)
        archive._didModify = True
    assert run(COMMANDS["list"]) == 1
    assert "zoo.ckpt: refused, its entries claim more bytes than the file has" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(opened, capsys):
    os.mkfifo("zoo.ckpt")
    for name in ("predict", "list", "join", "export", "inspect"):
        assert run(COMMANDS[name]) == 1, name
        assert capsys.readouterr().err == "error: zoo.ckpt: is a pipe, not a file; give a file, or remove it\n", name


def test_headers_of_safetensors_may_say_anything(opened, capsys):
    from safetensors.torch import save_file

    for backbone in ("[]", "3", "{", '{"class_path": 3}', '{"class_path": "zoo.Head", "init_args": {}}', "[" * 10000):
        header = {"visionkit": "0", "backbone": backbone, "mean": '"x"', "std": "[3, -1, null]", "passport": "null"}
        save_file({"conv1.weight": torch.ones(1, 3, 3, 3)}, "zoo.safetensors", metadata=header)
        assert run(["backbone", "inspect", "zoo.safetensors", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["mean"] is None
        assert "zoo" not in sys.modules


def test_numbers_that_tensors_share_are_no_weights(content, opened, capsys):
    """A network of ten gigabytes, whose every tensor is a view of one number."""
    content["visionkit"]["model"]["head"] = {"class_path": "visionkit.MLPHead", "init_args": {"width": 4_000_000}}
    state, number = content["state_dict"], torch.zeros(1)
    for name in [name for name in state if name.startswith("model.head.")]:
        del state[name]
    for name, shape in {
        "0.weight": (4_000_000, 512), "0.bias": (4_000_000,), "1.weight": (4_000_000,), "1.bias": (4_000_000,),
        "4.weight": (3, 4_000_000), "4.bias": (3,),
    }.items():  # fmt: skip
        state[f"model.head.classifier.{name}"] = number.expand(shape)
    torch.save(content, "zoo.ckpt")
    for name in FULL:
        assert run(COMMANDS[name]) == 1, name
        error = capsys.readouterr().err
        assert error.startswith("error: zoo.ckpt: refused, model.head.classifier."), name
        assert "weight claims more bytes than the file has" in error, name


def test_many_of_them_neither(content, opened, capsys):
    """Each no larger than the file, but a hundred times as large together."""
    content["visionkit"]["model"]["head"] = {
        "class_path": "visionkit.MLPHead",
        "init_args": {"width": 1000, "layers": 100},
    }
    state, number = content["state_dict"], torch.zeros(1)
    for name in [name for name in state if name.startswith("model.head.")]:
        del state[name]
    with torch.device("meta"):
        head = visionkit.MLPHead(visionkit.FeatureSpec((512,), (8,)), 3, width=1000, layers=100)
    for name, tensor in head.state_dict().items():
        state[f"model.head.{name}"] = number.expand(tensor.shape)
    torch.save(content, "zoo.ckpt")
    assert run(COMMANDS["list"]) == 1
    assert "its tensors share their numbers" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["zoo.pth", "zoo.safetensors"])
def test_what_a_file_says_cannot_act_on_a_terminal(content, opened, capsys, form):
    from safetensors.torch import save_file

    state = {k.removeprefix("model.backbone."): v for k, v in content["state_dict"].items() if "backbone" in k}
    state["a\x1b[2J\nerror: all is lost.weight"] = torch.ones(3)
    if form == "zoo.pth":
        torch.save({"state_dict": state, "arch": "x\x1b]0;title\x07\r\nerror: y"}, form)
    else:
        save_file(state, form, metadata={"visionkit": "1\x1b[2J\nerror: z", "backbone": "null"})
    for arguments in (["backbone", "inspect", form], ["backbone", "inspect", form, "--json"]):
        assert run(arguments) == 0
        shown = capsys.readouterr().out
        assert all(line.isprintable() and not line.startswith("error") for line in shown.splitlines())
        assert "\\x1b" in shown or "\\u001b" in shown


def test_nor_can_a_passport(content, opened, capsys):
    for key, value in (("source", "a\x1b[2J"), ("kind", "b\nerror: c"), ("unused", ["\x1b[31mred"])):
        passport = visionkit.models.weights.load.WeightsReport(
            "s", "0" * 64, "k", "", "", False, (), (), (), (), (), (), 1.0, 0.95
        ).plain()
        content["visionkit"]["passport"] = {**passport, key: value}
        torch.save(content, "zoo.ckpt")
        for name in ("list", "inspect", "export"):
            assert run([*COMMANDS[name], *(["--overwrite"] if name == "export" else [])]) == 0, name
            shown = capsys.readouterr()
            lines = [*shown.out.splitlines(), *shown.err.splitlines()]
            assert all(line.isprintable() and not line.startswith("error") for line in lines), (name, key)
