"""fit --members: one start, several trainings, each a run; what was stopped goes on."""

import csv
import json
import re
import sys

import pytest
import torch
import yaml

from visionkit.cli.config import configs
from visionkit.cli.config.auto import last_value
from visionkit.cli.main import run
from visionkit.cli.members import _own_settings, _words, asked_members, divided
from visionkit.models import checkpoint

TINY = [
    *("-c", "classify.yaml", "--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic"),
    *("--model.backbone.stem=small", "--data.size=32", "--data.num_workers=0", "--trainer.logger=false"),
    *("--pictures=none", "--data.batch_size=8", "--model.recipe.ema=null", "--trainer.limit_train_batches=2"),
]


@pytest.fixture
def fit(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISIONKIT_CHOSEN", raising=False)

    def call(*more):
        status = run(["fit", *more])
        printed = capsys.readouterr()
        return status, printed.out.splitlines() + printed.err.splitlines()

    return call


def rows(folder):
    shown = csv.DictReader((folder / "metrics.csv").open())
    return [{k: v for k, v in row.items() if "second" not in k} for row in shown]


def config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def rate(folder):
    return config(folder)["model"]["init_args"]["recipe"]["optimizer"]["init_args"]["lr"]


def test_members_have_one_start_and_what_is_missing_follows(fit, photos, tmp_path):
    given = [*TINY, "--data.root", str(photos), "--epochs=1", "--seed_everything=5", "--model.recipe.optimizer.lr=1e-9"]
    status, said = fit(*given, "--members=2")
    assert status == 0, said
    group = tmp_path / "runs" / "classify-1"
    first, second = folders = [group / f"member-{k}" for k in (1, 2)]
    assert [config(f)["seed_everything"] for f in folders] == [5, 6]
    assert [config(f)["start_seed"] for f in folders] == [None, 5]
    assert rate(second) / rate(first) == pytest.approx(0.7)
    names = " ".join(f"runs/classify-1/member-{k}" for k in (1, 2))
    assert f"next     visionkit evaluate --ckpt {names} --data {photos} --out runs/classify-1/evaluation" in said
    assert f"next     visionkit soup {names} --data {photos} --out runs/classify-1/soup.ckpt" in said
    states = [checkpoint.load(f).state_dict() for f in folders]
    weights = [k for k in states[0] if "running" not in k and "num_batches" not in k]
    for key in weights:
        torch.testing.assert_close(states[0][key], states[1][key], atol=1e-7, rtol=1e-6)
    assert rows(first)[0]["train/loss"] != rows(second)[0]["train/loss"], "other pictures in another order"

    before = rows(second)
    (group / "members.json").write_text('{"complete": [1]}')
    (second / "checkpoints" / "last.ckpt").unlink()  # stopped in its first epoch
    status, said = fit("--members=2", "--ckpt_path=runs/classify-1")
    assert status == 0, said
    assert "member   1 of 2: complete, runs/classify-1/member-1" in said
    assert "plan     that of runs/classify-1/member-1/config.yaml: members go on as they began" in said
    assert rows(second) == before
    assert json.loads((group / "members.json").read_text()) == {"complete": [1, 2]}


@pytest.mark.slow
def test_what_stops_a_member_says_how_all_go_on(fit, photos, tmp_path, cut_off, monkeypatch, capsys):
    given = [*TINY, "--data.root", str(photos), "--epochs=2"]
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(*given, "--members=2", cut_off)
    assert type(raised.value).__name__ == "CutOff"
    end = "members  go on with all of them: visionkit fit --members 2 --ckpt_path runs/classify-1"
    assert capsys.readouterr().err.splitlines()[-1] == end
    monkeypatch.setattr(sys.modules["cut_callback"].Cut, "on_train_batch_start", lambda *a: None)
    assert not (tmp_path / "runs" / "classify-1" / "members.json").exists()
    status, said = fit(*given, "--members=2", "--ckpt_path=last")
    assert status == 0, said
    alone = tmp_path / "alone"  # the first one is the training without the word
    assert fit(*given, f"--trainer.default_root_dir={alone}")[0] == 0
    assert rows(alone) == rows(tmp_path / "runs" / "classify-1" / "member-1")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--members=1"], "error: --members needs how many models to train, 2 to 10, got '1'"),
        (["--members"], "error: --members needs how many models to train, 2 to 10, got ''"),
        (["--members=3", "--dry-run"], "error: --dry-run tries one training"),
        (["--members=3", "--ckpt_path=nowhere"], "error: --ckpt_path nowhere: with --members it holds no members"),
        (
            ["--members=3", "--ckpt_path=last"],
            "error: --ckpt_path last: no folder of members to go on with: runs/classify-*",
        ),
        (
            ["--members=3", "--trainer.devices=2"],
            "error: --members trains one model after another in one process, and 2",
        ),
        (
            ["--members=2", "--seed_everything=false"],
            "error: --seed_everything false: with --members all begin with one",
        ),
        (["--members=2", "--model.backbone.depht=18"], "error: --model.backbone.depht: "),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(fit, photos, tmp_path, more, message):
    status, said = fit(*TINY, "--data.root", str(photos), *more)
    assert status == 2
    assert said[-1].startswith(message)
    assert not list(tmp_path.glob("runs/*"))


def test_what_is_newest_needs_a_config(fit, tmp_path):
    for word in ("auto", "last"):
        status, said = fit("--members=2", f"--ckpt_path={word}")
        assert status == 2
        assert said[-1].startswith(f"error: --ckpt_path {word}: with --members, say by -c CONFIG whose folder is meant")
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_members_is_no_run(fit, photos, tmp_path):
    made = tmp_path / "group" / "member-1" / "checkpoints"
    made.mkdir(parents=True)
    (made / "best.ckpt").write_bytes(b"")
    (made.parent / "config.yaml").write_text("")
    status, said = fit(*TINY, "--members=2", "--trainer.default_root_dir=group")
    assert status == 2
    assert said[-1].startswith("error: group already holds members: go on with them by --ckpt_path group")
    status, said = fit(*TINY, "--members=2", "--ckpt_path=group/member-1")
    assert said[-1] == "error: --ckpt_path group/member-1: with --members give the folder of all members, group"
    assert run(["model", "export", "group", "x.ckpt"]) == 1


def test_a_training_goes_on_with_a_run_and_not_among_members(fit, photos, tmp_path):
    for name in ("classify-1", "classify-2/member-1"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("")
        (tmp_path / "runs" / name / "checkpoints" / "last.ckpt").write_bytes(b"")
    status, said = fit(*TINY, "--data.root", str(photos), "--ckpt_path=auto")
    assert status == 1
    assert said[-1].startswith("error: runs/classify-1/checkpoints/last.ckpt: "), said[-1]
    status, said = fit(*TINY, "--data.root", str(photos), "--trainer.default_root_dir=runs/classify-2")
    assert status == 2
    assert said[-1].startswith("error: runs/classify-2 holds members: go on with them by --members N --ckpt_path runs")


def test_the_time_is_that_of_all(tmp_path):
    assert asked_members("fit", ["-c", "a", "--members", "3", "--epochs=2"]) == (["-c", "a", "--epochs=2"], 3)
    assert asked_members("validate", ["--members=3"]) == (["--members=3"], None)
    assert divided(["-c", "classify.yaml", "--epochs=2"], 3) == ["-c", "classify.yaml", "--epochs=2"]
    words = divided(["-c", "classify.yaml", "--minutes", "3"], 3)
    assert last_value(configs.resolve(words), "trainer.max_time") == {"seconds": 60}
    assert "--minutes" not in words


def test_what_each_member_has_for_itself(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "seed_everything: 4294967295\nstart_seed: 8\n"
        "model: {class_path: M, init_args: {recipe: {optimizer: {class_path: O, init_args: {lr: 0.001}}}}}\n"
    )
    assert _own_settings(tmp_path / "config.yaml", 3) == [
        *("--seed_everything=1", "--start_seed=8", "--model.recipe.optimizer.lr=0.0014"),
    ]
    assert _own_settings(tmp_path / "config.yaml", 4) == ["--seed_everything=2", "--start_seed=8"]
    (tmp_path / "config.yaml").write_text("seed_everything: 0\nmodel: {init_args: {recipe: {optimizer: null}}}\n")
    *_, word = _own_settings(tmp_path / "config.yaml", 2)
    assert word == (
        '--model.recipe.optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.0007, "weight_decay": 0.05}}'
    )
    assert len(_own_settings(tmp_path / "config.yaml", 4)) == 2
    (tmp_path / "config.yaml").write_text("seed_everything: 0\n")
    assert _own_settings(tmp_path / "config.yaml", 2) == ["--seed_everything=1", "--start_seed=0"]


def test_each_member_trusts_what_the_command_does(tmp_path):
    first = tmp_path / "config.yaml"
    first.write_text("seed_everything: 0\n")
    kept = ["-c", "a.yaml", "--trust", "x", "--trust=y"]
    for own, number in ((tmp_path / "member-2", 2), (tmp_path, 1)):  # a new one, and one that was stopped
        words = _words(own, number, first, kept)
        assert [word for word in words if word in kept] == ["-c", "--trust", "x", "--trust=y"]


def test_a_word_of_help_and_of_configs(fit):
    status, said = fit("-c", "classify.yaml", "--members=3", "--help")
    assert status == 0
    assert any(re.match(r"  --members N +trains N models", line) for line in said)
    status, said = fit("-c", "classify.yaml", "--members=3", "--print_config")
    assert status == 0
    assert not any("members" in line for line in said)
