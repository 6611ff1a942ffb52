"""fit --dry-run: what it says, that it leaves nothing behind, and the batch that fits."""

import pytest

from visionkit.cli import dry_run
from visionkit.cli.main import run
from visionkit.cli.trial import _fewer, whole
from visionkit.training.run.trial import duration

TINY = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    *("--data.size=32", "--data.num_workers=0"),
]


@pytest.fixture
def tried(photos, tmp_path, monkeypatch, capsys):
    """Return a function that runs fit in an empty folder: its exit status and what it printed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def fit(*more):
        status = run(["fit", "-c", "classify.yaml", "--data.root", str(photos), *TINY, *more])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return fit


def too_large(most, error):
    """Return a training step that lacks memory for more than so many pictures."""
    from visionkit.training.task import Task

    step = Task.training_step

    def training_step(self, batch, batch_idx):
        if len(batch) > most:
            raise error
        return step(self, batch, batch_idx)

    return training_step


def test_memory_and_time_and_nothing_left(tried, tmp_path):
    status, out, err = tried("--dry-run", "--epochs=30", "--batch=4")
    assert status == 0
    assert "run      none: a trial of 6 steps, of which nothing is kept" in out
    assert out[-3].startswith("memory   ")
    assert out[-2].startswith("time     a step of 4 pictures ")
    assert "an epoch of 4 + 2 batches about " in out[-1]
    assert ", all 30 about " in out[-1]
    assert list((tmp_path / "here").iterdir()) == [], "no run folder"
    assert not any("epoch   1" in line for line in (*out, *err))


def test_the_batch_that_fits(tried, monkeypatch):
    error = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    monkeypatch.setattr("visionkit.training.task.Task.training_step", too_large(4, error))
    status, out, err = tried("--dry-run", "--epochs=2", "--batch=16")
    assert status == 1
    assert [line for line in out if line.startswith("try ")] == [
        "try      not enough memory on the GPU with --data.batch_size 16",
        "try      not enough memory on the GPU with --data.batch_size 8",
    ]
    assert any(line.startswith("time     a step of 4 pictures ") for line in out)
    assert err[-1] == "error: not enough memory on the GPU with --data.batch_size 16; what fits: --data.batch_size 4"


def test_not_even_one_picture(tried, monkeypatch):
    monkeypatch.setattr("visionkit.training.task.Task.training_step", too_large(0, MemoryError()))
    status, _, err = tried("--dry-run", "--batch=2")
    assert status == 1
    assert err[-1] == "error: not enough memory for a single picture: lower --data.size"


def test_a_training_says_what_to_try(tried, monkeypatch):
    monkeypatch.setattr("visionkit.training.task.Task.training_step", too_large(4, MemoryError()))
    status, _, err = tried("--batch=16", "--trainer.logger=false")
    assert status == 1
    assert err[-1] == (
        "error: not enough memory with --data.batch_size 16: try --data.batch_size 8; the same command with --dry-run "
        "finds what fits"
    )


def test_faults_of_other_kinds_stay_what_they_are(tried, monkeypatch):
    monkeypatch.setattr("visionkit.training.task.Task.training_step", too_large(0, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        tried("--dry-run")


def test_the_option(tried, capsys):
    status, _, err = tried("--dry-run=5")
    assert (status, err) == (2, ["error: --dry-run takes no value, got '5'"])
    assert run(["validate", "-c", "classify.yaml", "--dry-run", "--ckpt_path", "nothing"]) == 2
    assert run(["fit", "--help"]) == 0
    assert "--dry-run " in capsys.readouterr().out


def test_batches():
    assert [_fewer(limit, 6) for limit in (None, 1.0, 0.5, 3, 100, 0, 0.0)] == [6, 6, 6, 3, 6, 0, 0]
    assert [whole(limit, 40) for limit in (None, 1.0, 0.5, 3, 100, 0)] == [40, 40, 20, 3, 40, 0]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0123, "0.012 s"), (3.44, "3.4 s"), (42.2, "42 s"), (110, "2 min"), (5000, "84 min"), (7200, "2.0 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
    assert dry_run.duration is duration
