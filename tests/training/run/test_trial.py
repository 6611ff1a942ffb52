"""What a stopwatch makes of the times that it took."""

import pytest

from visionkit.training.run.trial import Stopwatch


class Trainer:
    """As much of a Trainer as a stopwatch asks."""

    should_stop = False


def watch(train, val=(), judging=0.0, least=0.0, waits=None):
    found = Stopwatch(least=least)
    found._waits = waits if waits is not None else [0.0 for epoch in train for _ in epoch]
    found._times = {"train": list(train), "val": list(val)}
    found.judging = judging
    return found


def test_the_first_batch_of_all_does_not_count():
    assert watch([[9.0, 1.0, 3.0, 2.0]]).seconds("train") == 2.0
    assert watch([[9.0]]).seconds("train") == 9.0, "there is no other"
    assert watch([]).seconds("val") == 0.0


def test_steps_later_on_are_like_the_faster_half():
    assert watch([[9.0, 1.6, 0.8, 0.6], [2.0, 0.7, 0.9]]).steady() == pytest.approx((0.6 + 0.7 + 0.8 + 0.9) / 4)
    assert watch([[9.0]]).steady() == 9.0
    waiting = watch([[2.0] + 9 * [1.0] + 6 * [4.0]], waits=[1.0] + 9 * [0.0] + 6 * [3.0])
    assert waiting.steady() == 4.0, "a step of 1 second waits for 3 once nothing is read beforehand"
    assert watch([]).steady() == 0.0


def test_a_validation_waits_once_for_its_pictures_and_judges_all():
    found = watch([], [[5.0, 5.0], [1.4, 0.4, 0.4]], judging=0.1)
    assert found.validation(10) == pytest.approx(1.0 + 10 * 0.5)
    assert found.validation(0) == 0.0
    assert watch([]).validation(10) == 0.0


@pytest.mark.parametrize(
    ("epochs", "least", "stops"),
    [([[1.0]], 0.0, True), ([[1.0]], 5.0, False), ([[3.0], [2.0]], 5.0, True), ([[0.1]] * 8, 5.0, True)],
)
def test_epochs_follow_while_there_is_too_little_to_go_by(epochs, least, stops):
    trainer = Trainer()
    watch(epochs, least=least).on_train_epoch_end(trainer, None)
    assert trainer.should_stop is stops
