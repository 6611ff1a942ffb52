"""A run that is killed before or after any of its renames goes on bit-equal, with and without hard links."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

CHILD = """
import os, sys
kill_at, links = int(sys.argv[1]), sys.argv[2] == "links"
def refuse(*arguments, **settings):
    raise OSError(95, "Operation not supported")
if not links:
    os.link = refuse
count, rename = 0, os.replace
def replace(old, new):
    global count
    for after in (False, True):
        count += 1
        if after:
            rename(old, new)
        if count == kill_at:
            os._exit(137)
os.replace = replace
from visionkit.cli.main import run
status = run(sys.argv[3:])
print("renames", count // 2)
sys.stdout.flush()
os._exit(status)
"""
TASKS = {
    "classify": ("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic"),
    "detect": ("--model.backbone.depth=18",),
    "segment": ("--model.backbone.depth=18",),
}


def train(task, folder, kill_at, links):
    """Train 3 tiny epochs on drawn shapes, from where there is something to go on from; return the process."""
    arguments = ["fit", "-c", f"{task}.yaml", *TASKS[task], "--data.size=32", "--data.batch_size=8", "--data.num_workers=0",
                 "--trainer.logger=false", "--trainer.max_epochs=3", "--trainer.limit_train_batches=2",
                 "--trainer.limit_val_batches=1", "--trainer.default_root_dir", str(folder), "--ckpt_path", "auto"]  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(kill_at), links, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def results(folder):
    """Return all that two runs must have alike; best.ckpt is of the epoch that metrics.json names."""
    last, best = (torch.load(folder / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("last", "best"))
    values = json.loads((folder / "metrics.json").read_text())
    assert best["epoch"] + 1 == values["epoch"]
    rows = [
        {k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader((folder / "metrics.csv").open())
    ]
    return [c[part] for c in (last, best) for part in ("state_dict", "optimizer_states")] + [rows, values]


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def check(task, links, tmp_path, points=None):
    whole = train(task, tmp_path / "whole", 0, links)
    assert whole.returncode == 0, whole.stderr[-2000:]
    expected = results(tmp_path / "whole")
    for point in points or range(1, 2 * int(whole.stdout.split()[-1]) + 1):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        assert train(task, tmp_path / "cut", point, links).returncode == 137
        assert train(task, tmp_path / "cut", 0, links).returncode == 0
        assert equal(results(tmp_path / "cut"), expected), point
        assert not list((tmp_path / "cut").rglob(".*.*")), "nothing half written is left"


def test_killed_between_last_and_best_and_after_the_last_epoch(tmp_path):
    """Point 5 is before the rename of best.ckpt, after that of last.ckpt, in the first epoch.

    Point 21 is after last.ckpt of the last epoch, before its tables: there is nothing left to train then.
    """
    check("classify", "no links", tmp_path, points=[5, 21])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("links", ["links", "no links"])
@pytest.mark.parametrize("task", TASKS)
def test_killed_at_every_rename(task, links, tmp_path):
    check(task, links, tmp_path)
