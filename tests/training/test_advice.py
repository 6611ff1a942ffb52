"""The rules behind ``auto``: each by hand-made numbers."""

import pytest

from visionkit.training.advice import (
    Advice,
    Updates,
    advise_recipe,
    directed,
    settle_batch,
    settle_flip,
    spread,
    steps_an_epoch,
)

UPDATES = Updates(random=600, pretrained=400, gpu=3000, drawn=100)

ASKED = dict.fromkeys(
    (
        "trainer.max_epochs",
        "model.recipe.optimizer.lr",
        "model.recipe.ema",
        "model.recipe.warmup_epochs",
        "data.batch_size",
        "data.augment.HorizontalFlip.p",
    ),
    "auto",
)


def advised(steps, batch=32, processes=1, **settings):
    advice = Advice({**ASKED, **settings}, processes=processes)
    advise_recipe(advice, steps, updates=UPDATES, drawn=False, batch=batch, usual=32)
    return {key.rpartition(".")[2]: choice.value for key, choice in advice.choices.items()}


def test_epochs_come_from_updates_within_bounds():
    assert advised(20)["max_epochs"] == 30
    assert advised(1)["max_epochs"] == 300, "no more"
    assert advised(1000)["max_epochs"] == 5, "no fewer"


@pytest.mark.parametrize(("batch", "processes", "rate"), [(32, 1, 1e-3), (8, 1, 5e-4), (32, 4, 2e-3), (16, 1, 7.1e-4)])
def test_the_rate_goes_with_the_root_of_the_batch(batch, processes, rate):
    assert advised(20, batch, processes)["lr"] == pytest.approx(rate)


def test_updates_depend_on_the_start_and_the_machine():
    tuned = {"model.backbone.weights": "a.pth"}
    assert UPDATES.wanted(Advice({}), drawn=False) == 600
    assert UPDATES.wanted(Advice(tuned), drawn=False) == 400
    assert UPDATES.wanted(Advice(tuned, gpu=True), drawn=False) == 3000
    assert UPDATES.wanted(Advice({}, gpu=True), drawn=True) == 100


def test_average_and_warm_up_are_shares_of_the_updates():
    found = advised(20)
    assert found["ema"] == pytest.approx(1 - 1 / 60, abs=1e-5)
    assert found["warmup_epochs"] == pytest.approx(0.05 * 30)
    assert advised(20, **{"trainer.max_epochs": 3})["ema"] is None, "60 updates are too few"


def test_what_is_set_by_hand_stays_and_counts():
    found = advised(20, **{"trainer.max_epochs": 10, "model.recipe.optimizer.lr": 0.5})
    assert "max_epochs" not in found
    assert "lr" not in found
    assert found["warmup_epochs"] == pytest.approx(0.5)


@pytest.mark.parametrize(("images", "batch"), [(10_000, 32), (128, 32), (100, 16), (65, 16), (20, 4), (3, 4)])
def test_a_batch_leaves_four_steps_an_epoch(images, batch):
    assert settle_batch(Advice(ASKED), images, usual=32, gpu=64) == batch


def test_a_batch_of_several_processes():
    assert settle_batch(Advice(ASKED, processes=4), 300, usual=32, gpu=64) == 16
    assert settle_batch(Advice(ASKED, gpu=True), 10_000, usual=32, gpu=64) == 64


@pytest.mark.parametrize("name", ["turn left", "right_arrow", "Left-Turn", "7", "b", "digit 3"])
def test_classes_that_say_left_right_or_digits_are_not_mirrored(name):
    assert directed(["cat", name]) == name
    advice = Advice(ASKED)
    settle_flip(advice, ["cat", name])
    assert advice.choices["data.augment.HorizontalFlip.p"].value == 0.0
    assert name in advice.choices["data.augment.HorizontalFlip.p"].reason


@pytest.mark.parametrize("name", ["bright", "lefty", "cat", "arrowhead plant", "upright piano"])
def test_other_classes_are_mirrored(name):
    assert directed([name]) is None


def test_entries_that_stand_for_all():
    assert list(spread(5, 10)) == [0, 1, 2, 3, 4]
    assert list(spread(100, 4)) == [0, 25, 50, 75]
    assert steps_an_epoch(65, 16, 1) == 4
    assert steps_an_epoch(3, 16, 1) == 1
