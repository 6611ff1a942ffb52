"""visionkit heads: list, take and join, on files."""

import pytest
import torch

import visionkit
from visionkit import FPN, FCOSHead, LinearHead, MultiTask, Preprocessing, ResNet, VisionModel
from visionkit.cli.main import run
from visionkit.models import checkpoint


def backbone(seed=0):
    torch.manual_seed(seed)
    return ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """joint.ckpt with a detector and a classifier; kind.ckpt on its backbone; other.ckpt on another."""
    folder = tmp_path_factory.mktemp("ckpt")
    heads = {"cars": lambda f, k: FCOSHead(f, k, channels=16, depth=1), "day": LinearHead}
    classes = ["cars/car", "cars/bus", *(f"day/{k}" for k in range(8))]
    same = Preprocessing(32)
    model = MultiTask(backbone(), heads, lambda f: FPN(f, channels=16, max_level=5), classes, preprocessing=same).model
    visionkit.save(model, folder / "joint.ckpt", task="visionkit.MultiTask")
    for name, seed in (("kind", 0), ("other", 1)):
        alone = VisionModel(backbone(seed), LinearHead, ["a", "b"], preprocessing=same)
        visionkit.save(alone, folder / f"{name}.ckpt", task="visionkit.Classifier")
    return folder


@pytest.fixture
def heads(folder, capsys):
    """Run the command with names of files; return what it prints."""

    def call(*arguments, status=0):
        capsys.readouterr()
        given = [a.replace("@", f"{folder}/") for a in arguments]
        assert run(["heads", *given]) == status
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return call


JOINT = [
    "cars             FCOSHead, 2 classes: car, bus",
    "day              LinearHead, 8 classes: 0, 1, 2, 3, 4, 5, ...",
]


def test_list(heads):
    assert heads("list", "@joint.ckpt").splitlines() == JOINT
    assert heads("list", "@kind.ckpt").splitlines() == ["(one head)       LinearHead, 2 classes: a, b"]


@pytest.mark.parametrize(("name", "task"), [("cars", "visionkit.Detector"), ("day", "visionkit.Classifier")])
def test_take(heads, tmp_path, folder, name, task):
    out = str(tmp_path / "taken.ckpt")
    said = heads("take", "@joint.ckpt", name, out).splitlines()
    assert said == [JOINT[name == "day"], f"written {out}"]
    assert checkpoint.read(out)["visionkit"]["task"] == task
    taken, whole = visionkit.load(out), visionkit.load(folder / "joint.ckpt")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for a, b in zip(taken.predict(images), whole.predict(images), strict=True):
        assert a.record(taken.classes) == b.parts[name].record(taken.classes)


def test_join(heads, tmp_path):
    out = str(tmp_path / "joined.ckpt")
    said = heads("join", out, "@joint.ckpt", "kind=@kind.ckpt").splitlines()
    assert said == [*JOINT, "kind             LinearHead, 2 classes: a, b", f"written {out}"]
    assert checkpoint.read(out)["visionkit"]["task"] == "visionkit.MultiTask"
    assert heads("list", out).splitlines() == said[:3]


def test_a_file_name_with_an_equals_sign(heads, tmp_path, folder):
    odd = tmp_path / "lr=0.1.ckpt"
    odd.write_bytes((folder / "joint.ckpt").read_bytes())
    out = str(tmp_path / "j.ckpt")
    assert heads("join", out, str(odd), "kind=@kind.ckpt").splitlines()[:2] == JOINT


def test_nothing_is_overwritten_unasked(heads, tmp_path):
    out = tmp_path / "x.ckpt"
    out.write_bytes(b"mine")
    assert "choose another file, or replace it with --overwrite" in heads(
        "take", "@joint.ckpt", "day", str(out), status=2
    )
    assert out.read_bytes() == b"mine"
    heads("take", "@joint.ckpt", "day", str(out), "--overwrite")
    assert visionkit.load(out).classes == tuple(map(str, range(8)))


WRONG = {
    "no such head": (("take", "@joint.ckpt", "dog", "@x.ckpt"), 2, "the model has no head 'dog'; it has cars, day"),
    "one head": (("take", "@kind.ckpt", "kind", "@x.ckpt"), 2, "the model has one head alone, a LinearHead"),
    "no file": (("list", "@nothere.ckpt"), 1, "nothere.ckpt: no such file"),
    "one part": (("join", "@x.ckpt", "a=@kind.ckpt"), 2, "give the models of two heads or more"),
    "name twice": (("join", "@x.ckpt", "a=@kind.ckpt", "a=@other.ckpt", "@joint.ckpt"), 2, "two heads are named 'a'"),
    "name of a joint one": (("join", "@x.ckpt", "day=@kind.ckpt", "@joint.ckpt"), 2, "two heads are named 'day'"),
    "no name": (("join", "@x.ckpt", "@kind.ckpt", "@joint.ckpt"), 2, "kind.ckpt: it has one head: name it, NAME="),
    "other backbone": (("join", "@x.ckpt", "a=@kind.ckpt", "b=@other.ckpt"), 1, "the backbones of a and b differ in"),
    "no verb": ((), 2, "VERB"),
    "option": (("list", "@joint.ckpt", "--trsut", "x"), 2, "--trsut"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_line(heads, folder, name):
    arguments, status, words = WRONG[name]
    said = heads(*arguments, status=status)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert words in said
    assert not (folder / "x.ckpt").exists()


def test_foreign_heads_want_trust(heads, tmp_path, folder, monkeypatch):
    (tmp_path / "outsider.py").write_text("from visionkit import LinearHead\nclass Mine(LinearHead):\n    pass\n")
    content = torch.load(folder / "joint.ckpt", weights_only=True)
    content["visionkit"]["model"]["head"]["init_args"]["heads"]["day"]["class_path"] = "outsider.Mine"
    torch.save(content, tmp_path / "m.ckpt")
    monkeypatch.syspath_prepend(tmp_path)
    assert "--trust outsider" in heads("list", str(tmp_path / "m.ckpt"), status=2)
    assert "day              Mine" in heads("list", str(tmp_path / "m.ckpt"), "--trust", "outsider")
