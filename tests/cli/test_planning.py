"""fit --minutes: a plan from a trial, which a run that goes on keeps."""

import csv
import json
import os
import re
import time

import pytest
import yaml

from visionkit.cli.config import configs
from visionkit.cli.config.auto import flattened, last_value
from visionkit.cli.main import run
from visionkit.cli.planning import planned
from visionkit.training.run.budget import time_limit

TINY = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    *("--data.size=32", "--data.num_workers=0", "--trainer.logger=false"),
]


@pytest.fixture
def fit(photos, tmp_path, monkeypatch, capsys):
    """Return a function that runs fit in a folder of its own: its exit status and the lines that it printed."""
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


def test_a_run_ends_in_time_and_goes_on_as_it_was_planned(fit, photos, tmp_path):
    out = tmp_path / "run"
    given = ["-c", "classify.yaml", "--data.root", str(photos), *TINY, f"--trainer.default_root_dir={out}"]
    start = time.monotonic()
    status, said = fit(*given, "--minutes=0.25")
    assert status == 0, said
    assert time.monotonic() - start < 30, "of 15 seconds, on a machine that others use, too"
    config = yaml.safe_load((out / "config.yaml").read_text())["trainer"]
    assert config["max_time"] is None
    epochs = config["max_epochs"]
    assert epochs == int(rows(out)[-1]["epoch"]) >= 2
    assert "val/top1" in rows(out)[-1], "the last epoch is validated"
    assert any(line.startswith(f"auto     trainer.max_epochs {epochs}: what 15 s hold: a step ") for line in said)

    again = tmp_path / "again"
    assert fit("-c", str(out / "config.yaml"), f"--trainer.default_root_dir={again}")[0] == 0
    assert rows(again) == rows(out), "the trial has left no trace"

    status, said = fit(*given, "--minutes=9", "--ckpt_path=auto")
    assert status == 0, said
    assert yaml.safe_load((out / "config.yaml").read_text())["trainer"]["max_epochs"] == epochs
    assert rows(out) == rows(again)
    assert any(line.startswith("plan     that of ") for line in said)
    status, said = fit(*given, "--minutes=9", "--ckpt_path=last", f"--epochs={epochs + 1}")
    assert status == 0, said
    assert len(rows(out)) == epochs + 1, "what is given wins"


def test_no_plan_to_go_on_with(fit, photos, tmp_path):
    out = tmp_path / "run"
    given = ["-c", "classify.yaml", "--data.root", str(photos), *TINY, f"--trainer.default_root_dir={out}"]
    assert fit(*given, "--epochs=1")[0] == 0
    status, said = fit(*given, "--minutes=5", "--ckpt_path=last")
    assert status == 2
    assert said[-1].endswith("config.yaml was not planned for a time: go on without, or begin another one")
    os.remove(out / "config.yaml")
    status, said = fit(*given, "--minutes=5", "--ckpt_path=last")
    assert status == 2
    assert said[-1].startswith("error: --minutes: ")
    assert said[-1].endswith("config.yaml that says how its training was planned")


def test_too_short_and_no_time(fit, photos):
    given = ["-c", "classify.yaml", "--data.root", str(photos), *TINY]
    status, said = fit(*given, "--minutes=0.02")
    assert status == 2
    assert re.match(r"error: --minutes: \S+ s are left once the data are there, and one step ", said[-1])
    status, said = fit(*given, "--minutes=soon")
    assert status == 2
    assert said[-1] == "error: --minutes needs minutes of the whole command, such as 5 or 0.5, got 'soon'"


def test_epochs_that_are_given_stay(fit, photos, tmp_path):
    given = ["-c", "classify.yaml", "--data.root", str(photos), *TINY, "--epochs=3", "--minutes=0.5"]
    assert fit(*given, f"--trainer.default_root_dir={tmp_path / 'run'}")[0] == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]
    assert config["max_epochs"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trainer.max_steps=5"], "--minutes plans steps and validations itself: leave out --trainer.max_steps 5"),
        (["--trainer.val_check_interval=0.5"], "leave out --trainer.val_check_interval 0.5"),
        (["--trainer.limit_train_batches=0"], "--minutes: --trainer.limit_train_batches 0 leaves nothing to train"),
        (["--trainer.check_val_every_n_epoch=5"], "leave out --trainer.check_val_every_n_epoch 5"),
        (["--epochs=0"], "--minutes: --trainer.max_epochs 0 leaves nothing to train"),
        (["--trainer.num_nodes=2"], "several machines cannot plan for one another: set --trainer.max_epochs"),
        (["--dry-run"], "--dry-run measures, and --minutes plans by such a measurement: give one of them"),
    ],
)
def test_what_a_plan_does_not_know_is_refused(fit, photos, more, message):
    status, said = fit("-c", "classify.yaml", "--data.root", str(photos), *TINY, "--minutes=5", *more)
    assert status == 2
    assert said[-1].startswith("error: --")
    assert message in said[-1]


def test_processes_of_others_are_refused(fit, photos, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    status, said = fit("-c", "classify.yaml", "--data.root", str(photos), *TINY, "--minutes=5")
    assert status == 2
    assert "processes that others start cannot plan for one another" in said[-1]


def test_a_process_that_lightning_starts_takes_the_plan_of_the_first(photos, monkeypatch):
    found = {"trainer.max_epochs": 7, "trainer.limit_train_batches": 3, "trainer.check_val_every_n_epoch": 1}
    choices = [{"key": "data.size", "value": 48, "reason": "r"}]
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("VISIONKIT_PLAN", json.dumps({"found": found, "choices": choices}))
    monkeypatch.delenv("VISIONKIT_CHOSEN", raising=False)
    config = str(configs.folder() / "classify.yaml")
    argv, taken = planned(["-c", config, f"--data.root={photos}", '--trainer.max_time={"seconds": 300}'], [])
    assert [c.value for c in taken] == [48]
    assert argv[-4:] == [*(f"--{key}={value}" for key, value in found.items()), "--trainer.max_time=null"]
    assert dict(flattened(yaml.safe_load(argv[1])))["data", "size"] == 48


def test_the_last_time_counts(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("trainer: {max_time: {hours: 2}}\n")
    options = ["-c", str(config), "--trainer.max_time=00:00:01:00"]
    assert time_limit(last_value(options, "trainer.max_time")) == 60
    assert time_limit(last_value(options[:2], "trainer.max_time")) == 7200
    assert last_value([*options, "--trainer.max_time=null"], "trainer.max_time") is None
    assert last_value([], "trainer.max_time") is None


def test_times():
    assert time_limit("00:00:05:30") == 330
    assert time_limit("01:02:03:04") == 93784
    assert time_limit({"minutes": 3}) == 180
    assert [time_limit(v) for v in (None, "soon", "5", {"centuries": 1}, 12)] == [None] * 5
