"""Thresholds in checkpoints: written into a file, kept by all that copies a model, dropped by what changes it."""

import os

import pytest
import torch

import visionkit
from visionkit import DataError
from visionkit.cli.main import run
from visionkit.core.thresholds import Thresholds
from visionkit.models import checkpoint
from visionkit.models.checkpoint import KEY
from visionkit.models.model_digest import model_digest
from visionkit.models.store_thresholds import store_thresholds

CHOSEN = Thresholds("precision>=0.95", {"blue": 0.62, "green": None, "red": 0.5})


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt", task="visionkit.Classifier")
    return tmp_path / "m.ckpt"


def same(a, b):
    """Whether all of two files is equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_checkpoint_without_says_nothing_of_them(ckpt):
    assert set(torch.load(ckpt, weights_only=True)[KEY]) == {"format", "version", "task", "model", "passport"}
    assert visionkit.load(ckpt).thresholds is None


def test_they_are_put_in_replaced_and_taken_out_and_all_else_stays(ckpt):
    content = torch.load(ckpt, weights_only=True)
    content["optimizer_states"] = [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}]
    content["epoch"] = 7
    torch.save(content, ckpt)
    before = checkpoint.read(ckpt)
    assert store_thresholds(ckpt, CHOSEN) == ckpt
    assert visionkit.load(ckpt).thresholds == CHOSEN
    after = checkpoint.read(ckpt)
    assert after[KEY].pop("thresholds") == CHOSEN.plain()
    assert same(after, before)
    store_thresholds(ckpt, Thresholds("f1", {"blue": 0.1}))
    assert visionkit.load(ckpt).thresholds.values == {"blue": 0.1}
    store_thresholds(ckpt, None)
    assert same(checkpoint.read(ckpt), before)


def test_a_file_that_shares_its_bytes_stays(ckpt, tmp_path):
    os.link(ckpt, tmp_path / "last.ckpt")
    store_thresholds(ckpt, CHOSEN)
    assert visionkit.load(tmp_path / "last.ckpt").thresholds is None


def test_the_folder_of_a_run_means_its_best(ckpt, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    ckpt.rename(best)
    assert store_thresholds(tmp_path / "run", CHOSEN) == best
    assert visionkit.load(tmp_path / "run").thresholds == CHOSEN


def test_those_of_other_classes_are_refused_and_the_file_stays(ckpt):
    before = ckpt.read_bytes()
    with pytest.raises(DataError, match=r"m\.ckpt: it has a threshold of 'cow', which is none of its classes"):
        store_thresholds(ckpt, Thresholds("f1", {"cow": 0.5}))
    assert ckpt.read_bytes() == before


@pytest.mark.parametrize("said", [3, {"rule": "f1", "values": {"blue": 2}}, {"rule": "f1", "values": {"x": 0.5}}])
def test_a_file_that_says_something_else_is_refused_in_one_line(ckpt, said):
    content = torch.load(ckpt, weights_only=True)
    content[KEY]["thresholds"] = said
    torch.save(content, ckpt)
    with pytest.raises(DataError, match=r"^\S*m\.ckpt: .*threshold") as caught:
        visionkit.load(ckpt)
    assert len(caught.value.lines) == 1


def test_saving_exporting_and_converting_keep_them(ckpt, tmp_path, capsys):
    store_thresholds(ckpt, CHOSEN)
    model = visionkit.load(ckpt)
    visionkit.save(model, tmp_path / "again.ckpt")
    assert visionkit.load(tmp_path / "again.ckpt").thresholds == CHOSEN
    assert run(["model", "export", str(ckpt), str(tmp_path / "alone.ckpt")]) == 0
    assert visionkit.load(tmp_path / "alone.ckpt").thresholds == CHOSEN
    assert visionkit.convert(model, precision="32").thresholds == CHOSEN


def test_heads_that_are_joined_and_taken_out_keep_theirs(ckpt, tmp_path, capsys):
    visionkit.save(visionkit.load(ckpt), tmp_path / "plain.ckpt", task="visionkit.Classifier")
    store_thresholds(ckpt, CHOSEN)
    joint = tmp_path / "joint.ckpt"
    assert run(["heads", "join", str(joint), f"a={ckpt}", f"b={tmp_path / 'plain.ckpt'}"]) == 0
    assert visionkit.load(joint).thresholds.values == {"a/blue": 0.62, "a/green": None, "a/red": 0.5}
    assert run(["heads", "take", str(joint), "a", str(tmp_path / "a.ckpt")]) == 0
    assert run(["heads", "take", str(joint), "b", str(tmp_path / "b.ckpt")]) == 0
    assert visionkit.load(tmp_path / "a.ckpt").thresholds == CHOSEN
    assert visionkit.load(tmp_path / "b.ckpt").thresholds is None


def test_those_of_one_head_leave_the_others_alone(ckpt, tmp_path, capsys):
    joint = tmp_path / "joint.ckpt"
    assert run(["heads", "join", str(joint), f"a={ckpt}", f"b={ckpt}"]) == 0
    store_thresholds(joint, CHOSEN, head="a")
    store_thresholds(joint, Thresholds("f1", {"red": 0.25}), head="b")
    assert visionkit.load(joint).thresholds.part("a") == CHOSEN
    assert visionkit.load(joint).thresholds.part("b") == Thresholds("f1", {"red": 0.25})
    store_thresholds(joint, None, head="a")
    assert visionkit.load(joint).thresholds == Thresholds("f1", {"b/red": 0.25})
    store_thresholds(joint, None, head="b")
    assert visionkit.load(joint).thresholds is None


def test_another_model_in_the_file_is_left_alone(ckpt):
    digest = model_digest(ckpt)
    model = visionkit.load(ckpt)
    with torch.no_grad():
        model.head.classifier[-1].bias.add_(1)
    visionkit.save(model, ckpt)
    before = ckpt.read_bytes()
    with pytest.raises(DataError, match=r"m\.ckpt: holds another model now, which these thresholds say nothing of"):
        store_thresholds(ckpt, CHOSEN, digest=digest)
    assert ckpt.read_bytes() == before
    store_thresholds(ckpt, CHOSEN, digest=model_digest(ckpt))
    assert visionkit.load(ckpt).thresholds == CHOSEN


def test_permissions_and_what_is_not_known_stay(ckpt):
    content = torch.load(ckpt, weights_only=True)
    content[KEY] |= {"of_tomorrow": {"a": [1, 2]}, "thresholds": None}
    torch.save(content, ckpt)
    ckpt.chmod(0o600)
    store_thresholds(ckpt, CHOSEN)
    assert ckpt.stat().st_mode & 0o777 == 0o600
    assert torch.load(ckpt, weights_only=True)[KEY] == {**content[KEY], "thresholds": CHOSEN.plain()}
    store_thresholds(ckpt, None)
    assert torch.load(ckpt, weights_only=True)[KEY]["of_tomorrow"] == {"a": [1, 2]}
