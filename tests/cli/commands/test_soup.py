"""soup: on pictures of three colours, from the command line."""

import copy

import pytest
import torch

import visionkit
from visionkit.cli.main import run
from visionkit.core.sample import collate
from visionkit.data.images.given import samples_of
from visionkit.models import checkpoint
from visionkit.tasks.classification.types import ClassTarget


@pytest.fixture
def trained(tiny_model, tmp_path):
    """Two checkpoints a little way from one, and one whose head is another."""
    g = torch.Generator().manual_seed(0)
    paths = []
    for k in range(2):
        model = copy.deepcopy(tiny_model)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1e-3 * torch.randn(p.shape, generator=g))
        visionkit.save(model, tmp_path / f"{k}.ckpt", task="visionkit.Classifier")
        paths.append(str(tmp_path / f"{k}.ckpt"))
    return paths


@pytest.fixture
def apart(tiny_model, photos, tmp_path):
    """Two checkpoints that are wrong in opposite directions: one says blue always, one never; half way is right."""
    files = sorted(photos.rglob("*.png"))
    seen = collate([tiny_model.preprocessing(sample) for sample in samples_of(files, 3)])
    targets = [ClassTarget.make(tiny_model.classes.index(file.parent.name), 3) for file in files]
    with torch.no_grad():
        tiny_model.head.fit(tiny_model.backbone(tiny_model.normalise(seen.images)), targets)
    paths = []
    for k, sign in enumerate((1, -1)):
        model = copy.deepcopy(tiny_model)
        with torch.no_grad():
            model.head.classifier[-1].bias[0] += 100 * sign
        model.teachers = ({"source": f"teacher-{k}.ckpt", "sha256": str(k) * 64},)
        visionkit.save(model, tmp_path / f"{k}.ckpt", task="visionkit.Classifier")
        paths.append(str(tmp_path / f"{k}.ckpt"))
    return paths


def test_the_average_is_written_and_can_be_used(apart, photos, tmp_path, capsys):
    out = tmp_path / "soup.ckpt"
    assert run(["soup", *apart, "--data", str(photos), "--out", str(out), "--num-workers", "0"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith(" val pictures choose by top1")
    assert [line.split(":")[0] for line in told[1:3]] == [f"member   {path}" for path in apart]
    assert told[3] == f"average  {apart[1]} + {apart[0]}: 1.0000, {apart[0]} stays"
    assert told[-1].startswith(f"written  {out}: average of 2 of 2")
    model = visionkit.load(out)
    assert checkpoint.read(out)[checkpoint.KEY]["task"] == "visionkit.Classifier"
    assert [g.source for g in model.backbone.weights_report.lineage] == ["1.ckpt", "0.ckpt"]
    assert [one["source"] for one in model.teachers] == ["teacher-1.ckpt", "teacher-0.ckpt"]
    assert run(["predict", "--ckpt", str(out), "--out", str(tmp_path / "o"), str(photos), "--num-workers", "0"]) == 0
    assert run(["soup", *apart, "--data", str(photos), "--out", str(out)]) == 2
    assert "exists: choose another name, or add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.ckpt", "--data", "d", "--out", "o.ckpt"], "averages two checkpoints or more: name another one"),
        (["a.ckpt", "a.ckpt", "--data", "d", "--out", "o.ckpt"], "averages two checkpoints or more"),
        (["a.ckpt", "b.ckpt", "--data", "d", "--out", "o.pt"], "give it a name that ends in .ckpt"),
        (["a.ckpt", "b.ckpt", "--out", "o.ckpt"], "the following arguments are required: --data"),
        (["a.ckpt", "b.ckpt", "--data", "d", "--out", "o.ckpt", "--batch-size", "0"], "--batch-size must be at least"),
        (["a.ckpt", "b.ckpt", "--data", "d", "--out", "o.ckpt", "--num-workers", "-1"], "--num-workers must be at"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    assert run(["soup", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1


def test_other_classes_are_refused(trained, photos, tmp_path, capsys):
    other = visionkit.load(trained[0])
    other.classes = ("x", "y", "z")
    visionkit.save(other, tmp_path / "other.ckpt")
    given = ["--data", str(photos), "--out", str(tmp_path / "o.ckpt")]
    assert run(["soup", trained[0], str(tmp_path / "other.ckpt"), *given]) == 1
    assert "know different classes: such weights have no average; predict with both" in capsys.readouterr().err
    assert not (tmp_path / "o.ckpt").exists()
