"""The plan of a training that ends in time."""

import itertools

import pytest

from visionkit.core.errors import UsageError
from visionkit.training.run.budget import Pace, plan


def needed(made, pace):
    steps = made.epochs * made.batches * pace.step
    return pace.once + steps + made.epochs * pace.checkpoint + made.epochs // made.every * pace.validation


PACES = [
    Pace(*values) for values in itertools.product((0.01, 0.3, 2.0), (0.0, 0.5, 20.0), (0.0, 0.3, 2.0), (0.0, 15.0))
]


@pytest.mark.parametrize("seconds", [60, 180, 600, 7200])
@pytest.mark.parametrize("batches", [1, 7, 31, 2500])
def test_the_time_is_filled_and_never_exceeded(seconds, batches):
    made = 0
    for pace in PACES:
        try:
            p = plan(seconds, pace, batches)
        except UsageError:
            assert pace.once + pace.step + pace.checkpoint + pace.validation > seconds, "not even one epoch of one"
            continue
        made += 1
        assert p.seconds == pytest.approx(needed(p, pace))
        assert p.seconds <= seconds + 1e-6
        unused = max(p.epochs * pace.step, p.every * (batches * pace.step + pace.checkpoint) + pace.validation)
        assert seconds - p.seconds <= 1.001 * unused, "a step an epoch or a validation, no more, stays unused"
        assert p.epochs % p.every == 0, "the last epoch is validated"
        assert 1 <= p.batches <= batches
    assert made > len(PACES) // 2


def test_epochs_are_about_as_long_as_the_data():
    p = plan(300, Pace(step=1.0, validation=4.0, checkpoint=0.5, once=10.0), 31)
    assert (p.epochs, p.every) == (9, 1)  # an epoch of 31 + 0.5 + 4 seconds: 8.2 of them
    assert p.batches == 27  # (290 - 9 * 4.5) / 9


def test_validations_take_a_tenth_at_most():
    pace = Pace(step=0.1, validation=5.0, checkpoint=0.2, once=5.0)
    p = plan(600, pace, 20)
    assert p.epochs // p.every * pace.validation <= 0.12 * 600
    assert p.epochs // p.every >= 5


def test_large_data_are_divided():
    p = plan(300, Pace(step=0.5, validation=3.0, checkpoint=0.2, once=10.0), 10_000)
    assert p.epochs == 5
    assert p.batches == 109  # (290 - 5 * 3.2) / 5 / 0.5


def test_a_long_validation_is_made_once():
    p = plan(100, Pace(step=0.5, validation=40.0, checkpoint=0.0, once=0.0), 1000)
    assert (p.epochs, p.every, p.batches) == (1, 1, 120)


def test_given_epochs_stay():
    pace = Pace(step=1.0, validation=2.0, checkpoint=0.0, once=0.0)
    assert plan(100, pace, 10, epochs=4).batches == 10, "they fit"
    assert plan(100, pace, 10, epochs=20).batches == 4, "they are shortened: validation of every second one"
    assert plan(100, pace, 10, epochs=20).every == 2
    assert plan(100, Pace(step=1.0, validation=10.0, checkpoint=0.0, once=0.0), 1000, epochs=20).batches >= 4


def test_no_more_than_is_useful():
    p = plan(3600, Pace(step=0.1, validation=0.5, checkpoint=0.1, once=5.0), 10, most=60)
    assert p.epochs <= 60
    assert p.batches == 10
    assert p.seconds == 101


def test_too_short():
    with pytest.raises(UsageError, match=r"--minutes: 10 s are left .* and one step .* take 34 s"):
        plan(10, Pace(step=1.0, validation=12.0, checkpoint=1.0, once=20.0), 10)
    with pytest.raises(UsageError, match=r"and 3 epochs of one step .* take 19 s"):
        plan(5, Pace(step=1.0, validation=2.0, checkpoint=1.0, once=11.0), 10, epochs=3)
