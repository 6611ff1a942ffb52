"""What the curves of a training say: each sentence where it is true, and nothing else."""

import pytest

from visionkit.training.run.guidance import read_curves


def rows(monitored, val=None, train=None):
    losses = val or [1.0] * len(monitored), train or [1.0] * len(monitored)
    values = zip(monitored, *losses, strict=True)
    return [{"epoch": k + 1, "val/top1": m, "val/loss": v, "train/loss": t} for k, (m, v, t) in enumerate(values)]


RISING = [0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.54, 0.59, 0.63]
FLAT = [0.1, 0.3, 0.5, 0.7, 0.8, 0.81, 0.8, 0.81, 0.8]


def test_a_curve_that_still_rises():
    (line,) = read_curves(rows(RISING), "val/top1", "max")
    assert line == "val/top1 was still rising (+0.132 over the last third): more epochs, such as --epochs 18"


def test_a_value_of_which_less_is_better():
    (line,) = read_curves(rows([1 - v for v in RISING]), "val/top1", "min")
    assert line.startswith("val/top1 was still falling (-0.132 ")
    assert read_curves(rows(RISING), "val/top1", "min") == []


@pytest.mark.parametrize(
    "values",
    [
        FLAT,
        RISING[:5],  # too few epochs
        [*RISING[:-3], 0.70, 0.40, 0.72],  # too rough for a line
        [0.9000, 0.9003, 0.9006, 0.9009, 0.9012, 0.9015, 0.9018, 0.9021],  # hardly anything
        [float("nan")] * 9,
        [],
    ],
)
def test_nothing_to_say(values):
    assert read_curves(rows(values), "val/top1", "max") == []


def test_a_training_that_was_stopped_has_more_epochs_already():
    assert read_curves(rows(RISING), "val/top1", "max", planned=30) == []
    assert read_curves(rows(RISING), "val/top1", "max", planned=9)
    assert read_curves(rows(RISING), "val/top1", "max", planned=-1)


def test_learnt_by_heart():
    val = [1.0, 0.8, 0.6, 0.5, 0.52, 0.55, 0.58, 0.6, 0.63]
    train = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    (line,) = read_curves(rows(FLAT, val, train), "val/top1", "max")
    assert line.startswith("val/loss grew from 0.5 (epoch 4) to 0.63 while train/loss fell")
    assert "(the best was 6)" in line
    assert read_curves(rows(FLAT, val, val), "val/top1", "max") == [], "both grew: something else is wrong"
    assert read_curves(rows(FLAT, train, train), "val/top1", "max") == []
    (line,) = read_curves(rows(RISING, val, train), "val/top1", "max")
    assert "still rising" in line, "what counts gets better: the loss has become too sure of its mistakes alone"


def test_epochs_without_a_validation_of_their_own():
    sparse = [row if row["epoch"] % 2 else {"epoch": row["epoch"], "train/loss": 1.0} for row in rows(RISING * 2)]
    assert read_curves(sparse, "val/top1", "max") == []
