import csv
import json
from types import SimpleNamespace

import pytest
import torch

from visionkit.training.run import folder as run_folder
from visionkit.training.run.folder import RunFolder


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_row_has_the_numbers_of_its_epoch(tmp_path, told_task, told_trainer, monkeypatch):
    clock = iter([100.0, 100.5, 101.0, 101.25, 102.0, 105.0])  # start, two batches from start to end, end of validation
    monkeypatch.setattr(run_folder, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    run, task = RunFolder(tmp_path), told_task("max")
    trainer = told_trainer(2, lrs=(0.01, 0.2), world_size=3, train_loss=0.5, val_score=0.75, test_x=1.0, other=2.0)
    run.on_train_epoch_start(trainer, task)
    for size in (4, 2):
        run.on_train_batch_start(trainer, task, [0] * size, 0)
        run.on_train_batch_end(trainer, task, None, [0] * size, 0)
    run.on_validation_end(trainer, task)
    run.on_train_epoch_end(trainer, task)
    assert table(tmp_path) == [
        {
            "epoch": "3",
            "step": "21",
            "train/loss": "0.5",
            "val/score": "0.75",
            "lr": "0.2",  # the largest
            "images_per_second": "9",  # 6 images, 3 processes, 2 s of training without the validation
            "seconds": "5",
            "seconds_waiting": "0.75",  # 0.5 and 0.25 before a batch was there
        }
    ]


def test_an_epoch_without_validation_has_no_validation_values(tmp_path, told_task, told_trainer):
    """Lightning keeps the values of the last validation; they are no news."""
    run, task = RunFolder(tmp_path), told_task("max")
    for epoch in range(2):
        trainer = told_trainer(epoch, train_loss=0.5, val_score=0.75)
        run.on_train_epoch_start(trainer, task)
        if epoch == 0:
            run.on_validation_end(trainer, task)
        run.on_train_epoch_end(trainer, task)
    assert [r["val/score"] for r in table(tmp_path)] == ["0.75", ""]
    assert values(tmp_path)["epoch"] == 1


@pytest.mark.parametrize(("mode", "epoch", "score"), [("max", 2, 0.875), ("min", 3, 0.125)])
def test_metrics_file_holds_the_best_epoch(tmp_path, told_task, told_trainer, mode, epoch, score):
    run, task = RunFolder(tmp_path), told_task(mode)
    for k, value in enumerate((0.5, 0.875, 0.125, 0.125)):
        run.on_train_epoch_end(told_trainer(k, train_loss=1.0, val_score=value, val_loss=float(k)), task)
    assert values(tmp_path) == {"epoch": epoch, "val/score": score, "val/loss": epoch - 1.0}


def test_values_of_the_former_best_do_not_stay(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    run.on_train_epoch_end(told_trainer(0, val_score=0.5, val_rare=1.0), task)
    run.on_train_epoch_end(told_trainer(1, val_score=0.75), task)
    assert values(tmp_path) == {"epoch": 2, "val/score": 0.75}


def test_test_values_join_and_do_not_erase(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    run.on_train_epoch_end(told_trainer(0, val_score=0.5), task)
    for score in (0.25, 0.375):  # tested twice
        task.values["test"] = {"score": torch.tensor(score)}
        RunFolder(tmp_path).on_test_end(told_trainer(0, test_score=score, val_score=0.0), task)
    assert values(tmp_path) == {"epoch": 1, "val/score": 0.5, "test/score": 0.375}
    run.on_train_epoch_end(told_trainer(1, val_score=1.0), task)
    assert values(tmp_path) == {"epoch": 2, "val/score": 1.0, "test/score": 0.375}
    assert [prefix for *_, prefix in task.made.plotted] == ["test_", "test_"]


def test_testing_alone_makes_the_folder(tmp_path, told_task, told_trainer):
    task = told_task("max")
    task.values["test"] = {}
    RunFolder(tmp_path / "new").on_test_end(told_trainer(0, test_score=0.5), task)
    assert values(tmp_path / "new") == {"test/score": 0.5}


def test_rows_of_epochs_that_are_trained_again_are_replaced(tmp_path, told_task, told_trainer):
    task, first = told_task("max"), RunFolder(tmp_path)
    first.on_train_start(told_trainer(0), task)
    for k in range(3):
        first.on_train_epoch_end(told_trainer(k, train_loss=float(k)), task)
    again = RunFolder(tmp_path)
    again.on_train_start(told_trainer(1), task)  # epoch 1 stands, 2 and 3 are trained again
    again.on_train_epoch_end(told_trainer(1, train_loss=11.0), task)
    assert [(r["epoch"], r["train/loss"]) for r in table(tmp_path)] == [("1", "0"), ("2", "11")]


def test_values_that_come_every_other_epoch_leave_empty_cells(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    run.on_train_epoch_end(told_trainer(0, train_loss=1.0), task)
    run.on_train_epoch_end(told_trainer(1, train_loss=1.0, val_score=0.5), task)
    assert [r["val/score"] for r in table(tmp_path)] == ["", "0.5"]
    assert values(tmp_path)["epoch"] == 2
    again = RunFolder(tmp_path)
    again.on_train_start(told_trainer(2), task)
    assert ["val/score" in r for r in again.rows] == [False, True]
    assert isinstance(again.rows[0]["step"], int)


def test_the_best_survives_a_resume(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    task.values["val"] = {"score": torch.tensor(0.75)}
    run.on_train_epoch_end(told_trainer(0, val_score=0.75), task)
    again, task.values = RunFolder(tmp_path), {"val": {"score": torch.tensor(0.5)}}
    again.load_state_dict(run.state_dict())
    again.on_train_epoch_end(told_trainer(1, val_score=0.5), task)
    assert again.best == {"epoch": 1, "val/score": 0.75}
    again.on_train_end(told_trainer(1), task)
    assert task.made.plotted == [({"score": torch.tensor(0.75)}, tmp_path, "")], "the best epoch's, not the last's"
    assert (tmp_path / "learning_curves.png").is_file()


def test_without_validation_there_is_no_best(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    run.on_train_epoch_end(told_trainer(0, train_loss=1.0), task)
    run.on_train_end(told_trainer(0), task)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["learning_curves.png", "metrics.csv"]
    assert not task.made.plotted


@pytest.mark.parametrize("config", ["a: ü\n", None])
def test_config_is_written_at_the_start(tmp_path, told_task, told_trainer, config):
    RunFolder(tmp_path / "run", config=config).on_train_start(told_trainer(0), told_task("max"))
    written = [(p.name, p.read_text(encoding="utf-8")) for p in (tmp_path / "run").iterdir()]
    assert written == ([("config.yaml", config)] if config else [])


def test_other_processes_write_nothing_and_know_the_best(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path / "run", config="a: 1"), told_task("max")
    task.values = {"val": {}, "test": {}}
    trainer = told_trainer(0, rank=1, val_score=0.5)
    for hook in (run.on_train_start, run.on_train_epoch_end, run.on_train_end, run.on_test_end):
        hook(trainer, task)
    assert not list(tmp_path.iterdir())
    assert run.best == {"epoch": 1, "val/score": 0.5}


SEVERAL = {"best-cars": ("cars", "max"), "best-age": ("age", "min")}


def test_each_monitor_has_a_best_epoch_of_its_own(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max", SEVERAL)
    epochs = [(0.25, 0.5, 4.0), (0.75, 0.25, 2.0), (0.5, 0.625, 3.0)]
    for k, (score, cars, age) in enumerate(epochs):
        task.values["val"] = {"score": torch.tensor(score)}
        run.on_train_epoch_end(told_trainer(k, val_score=score, val_cars=cars, val_age=age), task)
    assert values(tmp_path) == {
        "epoch": 2, "val/score": 0.75, "val/cars": 0.25, "val/age": 2.0,
        "best-cars/epoch": 3, "best-cars/val/cars": 0.625, "best-age/epoch": 2, "best-age/val/age": 2.0,
    }  # fmt: skip
    assert run.best["epoch"] == 2
    assert run.best_values == {"score": torch.tensor(0.75)}, "those of the best of all"


def test_all_bests_survive_a_resume(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max", SEVERAL)
    run.on_train_epoch_end(told_trainer(0, val_score=0.5, val_cars=0.75, val_age=1.0), task)
    again = RunFolder(tmp_path)
    again.load_state_dict(run.state_dict())
    again.on_train_epoch_end(told_trainer(1, val_score=0.625, val_cars=0.5, val_age=2.0), task)
    assert {name: best["epoch"] for name, best in again.bests.items()} == {"best": 2, "best-cars": 1, "best-age": 1}
    assert values(tmp_path)["best-cars/val/cars"] == 0.75


def test_a_monitor_that_has_no_value_yet_has_no_best(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max", SEVERAL)
    run.on_train_epoch_end(told_trainer(0, val_score=0.5), task)
    assert set(run.bests) == {"best"}
    run.on_train_epoch_end(told_trainer(1, val_score=0.25, val_cars=0.125), task)
    assert values(tmp_path)["best-cars/epoch"] == 2
    assert values(tmp_path)["epoch"] == 1


def test_what_is_no_number_is_never_best_and_null(tmp_path, told_task, told_trainer):
    run, task = RunFolder(tmp_path), told_task("max")
    nan = float("nan")
    for k, (score, loss) in enumerate(((nan, 1.0), (0.25, nan), (float("inf"), 1.0), (nan, nan))):
        run.on_train_epoch_end(told_trainer(k, val_score=score, val_loss=loss), task)
    strict = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert strict == {"epoch": 2, "val/score": 0.25, "val/loss": None}


def test_rows_come_from_the_checkpoint(tmp_path, told_task, told_trainer):
    """A run that was killed between last.ckpt and metrics.csv has the row in the former alone."""
    run, task = RunFolder(tmp_path), told_task("max")
    for k in range(2):
        run.on_train_epoch_end(told_trainer(k, val_score=0.5 - k / 4), task)
    written = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_text("epoch,step\n1,7\n")
    (tmp_path / "metrics.json").unlink()
    again = RunFolder(tmp_path)
    again.load_state_dict(run.state_dict())
    again.on_train_start(told_trainer(2), task)
    assert (tmp_path / "metrics.csv").read_bytes() == written
    assert values(tmp_path) == {"epoch": 1, "val/score": 0.5}
