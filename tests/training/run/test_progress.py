import io
import re
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from visionkit.core.text import say
from visionkit.data.dataset import DataSplits
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.run.folder import RunFolder
from visionkit.training.run.progress import EpochLines, QuietBar


@pytest.fixture
def line(tmp_path, told_task, told_trainer, capsys):
    """Return what is printed for the last of these epochs."""

    def after(*epochs, mode="max", **settings):
        run, task = RunFolder(tmp_path), told_task(mode)
        for k, logged in enumerate(epochs):
            capsys.readouterr()
            trainer = told_trainer(k, **{**settings, **logged})
            run.on_train_epoch_end(trainer, task)
            run.rows[-1] |= {"images_per_second": 123.4, "seconds": 4.56}
            EpochLines(run).on_train_epoch_end(trainer, task)
        return capsys.readouterr().out

    return after


def test_a_line_says_all_that_matters(line):
    logged = {"train_loss": 0.12344, "val_loss": 0.5, "val_score": 0.75}
    assert line(logged, lrs=(0.001,)) == (
        "epoch   1/10  loss 0.1234  val/loss 0.5000  val/score 0.7500*  lr 1.00e-03  123 img/s  4.6 s\n"
    )


@pytest.mark.parametrize(("mode", "scores", "star"), [("max", (0.5, 0.6), True), ("max", (0.6, 0.5), False), ("min", (0.6, 0.5), True)])  # fmt: skip
def test_a_star_marks_the_best_so_far(line, mode, scores, star):
    assert ("*" in line(*({"val_score": s} for s in scores), mode=mode)) == star


def test_epochs_without_validation(line):
    text = line({"train_loss": 0.25})
    assert "val/" not in text
    assert "loss 0.2500  lr" in text


@pytest.mark.parametrize("endless", [-1, None])
def test_endless_training(line, endless):
    assert line({"train_loss": 0.25}, max_epochs=endless).startswith("epoch   1/?  ")


def test_only_the_first_process_prints(line):
    assert line({"train_loss": 0.25}, rank=1) == ""


def test_lines_stand_under_each_other(line):
    first = line({"val_score": 0.5})
    second = line({"val_score": 0.5}, {"val_score": 0.25})
    places = [[m.start() for m in re.finditer("lr|img/s", text)] for text in (first, second)]
    assert places[0] == places[1]


@pytest.fixture
def said_at_the_end(tmp_path, told_task, told_trainer, capsys):
    """Return what is said after epochs that waited for these shares of their time."""

    def after(*waiting, data=None, rank=0):
        run, trainer = RunFolder(tmp_path), told_trainer(2, rank=rank)
        trainer.datamodule = data
        run.rows = [{"seconds": 2.0, "seconds_waiting": 2.0 * share} for share in waiting]
        EpochLines(run).on_train_end(trainer, told_task("max"))
        return capsys.readouterr().out

    return after


@pytest.mark.parametrize(
    ("waiting", "rank", "said"),
    [((0.9, 0.5, 0.3), 0, "40%"), ((0.9, 0.1, 0.1), 0, ""), ((0.9,), 0, ""), ((0.9, 0.5), 1, "")],
)
def test_training_that_waited_for_pictures_says_so(said_at_the_end, waiting, rank, said):
    out = said_at_the_end(*waiting, rank=rank)
    assert (said in out and "--data.num_workers" in out) if said else out == ""


@pytest.mark.parametrize(
    ("cache", "files", "advised"), [("none", True, True), ("ram", True, False), ("none", False, False)]
)
def test_a_cache_is_advised_where_it_would_help(said_at_the_end, tmp_path, cache, files, advised):
    """Drawn pictures are not kept, and what is kept is not read again."""
    pictures = ShapesClassification(4, size=32)
    if files:
        (tmp_path / "a").mkdir()
        for k in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{k}.png")
        pictures = ClassDataset([Entry(str(f), (0,), f.name) for f in sorted((tmp_path / "a").iterdir())], ["a", "b"])
    data = VisionDataModule(DataSplits(pictures, None, source=""), preprocessing=Preprocessing(8), cache=cache)
    assert ("--data.cache" in said_at_the_end(0.5, 0.5, data=data)) == advised


def test_bar_shows_no_numbers_of_its_own():
    bar = QuietBar()
    assert bar.get_metrics(None, None) == {}
    assert bar._leave is False


def test_a_loss_that_is_no_number_is_remarked(line):
    text = line({"train_loss": 0.5, "val_loss": float("nan"), "val_score": 0.75})
    assert "note     val/loss of epoch 1 is no finite number" in text
    assert "note" not in line({"train_loss": 0.5, "val_loss": 0.5, "val_score": 0.75})


def test_bar_counts_epochs_as_the_lines_do():
    bar = QuietBar()
    bar._trainer = SimpleNamespace(max_epochs=10)
    assert bar._get_train_description(0).split() == ["Epoch", "1/10"]
    bar._trainer = SimpleNamespace(max_epochs=-1)
    assert bar._get_train_description(4).split() == ["Epoch", "5"]


def test_no_line_above_the_bar_is_in_pieces():
    shown, line = io.StringIO(), "results  /a/place/" + "of/many/folders/" * 8 + "classify-1"
    console = Console(**QuietBar()._console_kwargs, file=shown, width=80, force_terminal=True)
    with Progress(console=console, auto_refresh=False):
        say(line)
    assert line in shown.getvalue()
