"""A run that is killed before or after any of its renames goes on bit-equal, with and without hard links."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

SERVER = """
import json, os, sys
import visionkit.cli.commands.train, visionkit.cli.lightning
from visionkit import Classifier, ClassificationData, Detector, DetectionData, SegmentationData, Segmenter
from visionkit.cli.main import run

def refuse(*arguments, **settings):
    raise OSError(95, "Operation not supported")

def work(kill_at, links, arguments, out, err):
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if not links:
        os.link = refuse
    count, rename, names = 0, os.replace, []
    def replace(old, new):
        nonlocal count
        names.append(os.path.basename(new))
        for after in (False, True):
            count += 1
            if after:
                rename(old, new)
            if count == kill_at:
                os._exit(137)
    os.replace = replace
    status = run(arguments)
    print("renames", *names)
    sys.stdout.flush()
    os._exit(status)

answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        try:
            work(*asked)
        finally:
            os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""
TASKS = {
    "classify": ("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic"),
    "detect": ("--model.backbone.depth=18",),
    "segment": ("--model.backbone.depth=18",),
}


@pytest.fixture
def train(tmp_path):
    """Return a function that trains 3 tiny epochs on drawn shapes, from where there is something to go on from.

    Each training is a process of its own, forked from one that has imported all: most of its time would be imports.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(task, folder, kill_at, links):
        arguments = ["fit", "-c", f"{task}.yaml", *TASKS[task], "--data.size=32", "--data.batch_size=8", "--data.num_workers=0",
                     "--trainer.logger=false", "--trainer.max_epochs=3", "--trainer.limit_train_batches=2",
                     "--trainer.limit_val_batches=1", "--trainer.default_root_dir", str(folder), "--ckpt_path", "auto"]  # fmt: skip
        out, err = tmp_path / "out.txt", tmp_path / "err.txt"
        server.stdin.write(json.dumps([kill_at, links == "links", arguments, str(out), str(err)]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), out.read_text(), err.read_text()

    yield run
    server.stdin.close()
    server.wait(30)


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


def renames(out):
    """Return the names that files got, in order."""
    return out.splitlines()[-1].split()[1:]


def check(train, task, links, tmp_path, choose=lambda names: range(1, 2 * len(names) + 1)):
    """Kill trainings at points: 2 k + 1 is before rename k, 2 k + 2 after it."""
    status, out, err = train(task, tmp_path / "whole", 0, links)
    assert status == 0, err[-2000:]
    expected = results(tmp_path / "whole")
    for point in choose(renames(out)):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        assert train(task, tmp_path / "cut", point, links)[0] == 137
        status, _, err = train(task, tmp_path / "cut", 0, links)
        assert status == 0, err[-2000:]
        assert equal(results(tmp_path / "cut"), expected), point
        assert not list((tmp_path / "cut").rglob(".*.*")), "nothing half written is left"


def test_killed_between_last_and_best_and_after_the_last_epoch(train, tmp_path):
    """After last.ckpt of the first epoch, before best.ckpt; and after that of the last: nothing is left to train then."""

    def choose(names):
        last = [k for k, name in enumerate(names) if name == "last.ckpt"]
        assert len(last) == 3
        assert names[last[0] + 1] == "best.ckpt"
        return [2 * (last[0] + 1) + 1, 2 * last[-1] + 2]

    check(train, "classify", "no links", tmp_path, choose)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("links", ["links", "no links"])
@pytest.mark.parametrize("task", TASKS)
def test_killed_at_every_rename(train, task, links, tmp_path):
    check(train, task, links, tmp_path)
