"""Thresholds of all classes: chosen here, told there; their entry and their words."""

import json

import numpy as np
import pytest
import torch

from visionkit import ClassPrediction, ClassTarget, DataError, MaskPrediction, MaskTarget, UsageError
from visionkit.evaluation.answers import Evidence
from visionkit.evaluation.intervals import wilson
from visionkit.evaluation.thresholds import Rule, choose, lines_of, thresholds_of

NAMES = ("cat", "dog", "cow")


def evidence(seed, count=900, groups=None):
    random = np.random.default_rng(seed)
    made = Evidence(NAMES)
    truth = random.integers(0, 2, count)
    sure = random.uniform(0.5, 1, count)
    said = np.where(random.random(count) < sure**0.09, truth, 1 - truth)
    rows = np.zeros((count, 3), np.float32)
    rows[np.arange(count), said], rows[np.arange(count), 1 - said] = sure, 1 - sure
    predictions = [ClassPrediction(torch.from_numpy(row)) for row in rows]
    made.update(predictions, [ClassTarget.make(int(k), 3) for k in truth], groups)
    return made, said, truth, sure


def test_chosen_on_val_told_on_test():
    val, (test, said, truth, sure) = evidence(0)[0], evidence(1)
    entry = choose(Rule.parse("precision>=0.95"), val, test, chosen_on="val", told_on="test")
    assert json.loads(json.dumps(entry)) == entry
    facts = entry["classes"]["cat"]
    assert facts["bound"] >= 0.95
    kept = (said == 0) & (sure.astype(np.float32) >= np.float32(facts["threshold"]))
    hits, n = int((kept & (truth == 0)).sum()), int(kept.sum())
    told = wilson(hits, n)
    assert facts["precision"] == {"value": hits / n, "low": told.low, "high": told.high, "method": "wilson", "n": n}
    assert facts["recall"]["n"] == int((truth == 0).sum())
    assert facts["recall"]["value"] == pytest.approx(hits / (truth == 0).sum())
    assert entry["classes"]["cow"]["threshold"] is None
    lines = lines_of(entry)
    assert lines[0] == (
        "thresholds precision>=0.95 (kept 19 times of 20 for each class): chosen on val (900 pictures), told on test "
        "(900 pictures)"
    )
    assert lines[1] == "       from    precision           recall              promised"
    interval = f"{hits / n:.2f} [{told.low:.2f}, {told.high:.2f}]"
    assert lines[2].startswith(f"  cat  {facts['threshold']:<6.4g}  {interval:<18}  0.")
    assert lines[2].endswith("  at least 0.95")
    assert lines[4] == "  cow  none    nothing can be promised: there is none of it in these pictures"
    thresholds = thresholds_of(json.loads(json.dumps(entry)), NAMES)
    assert thresholds.rule == "precision>=0.95"
    assert thresholds.values["cat"] == facts["threshold"]
    assert thresholds.values["cow"] is None


def test_one_split_alone_is_told_of_halves_and_that_is_said():
    val, _, truth, _ = evidence(0)
    whole = choose(Rule.parse("recall~0.8"), val, None, chosen_on="val")
    again = choose(Rule.parse("recall~0.8"), val, None, chosen_on="val")
    assert whole == again
    assert "told of its halves, chosen on one and told on the other: there is no other split" in lines_of(whole)[0]
    same = choose(Rule.parse("recall~0.8"), val, val, chosen_on="val", told_on="val")
    assert whole["classes"]["cat"]["threshold"] == same["classes"]["cat"]["threshold"], "that of all pictures"
    assert whole["classes"]["cat"]["recall"]["n"] == int((truth == 0).sum()), "each picture tells once"
    assert whole["classes"]["cat"]["recall"]["value"] != same["classes"]["cat"]["recall"]["value"]


def test_things_of_one_group_say_less_than_as_many_that_stand_alone():
    val, told = evidence(0)[0], Evidence(NAMES)
    random = np.random.default_rng(3)
    for film in range(30):
        right = random.random() < 0.8
        rows = [ClassPrediction(torch.tensor([0.9, 0.1, 0.0]))] * 20
        told.update(rows, [ClassTarget.make(0 if right else 1, 3)] * 20, [f"film {film}"] * 20)
    entry = choose(Rule.parse("recall~0.8"), val, told, chosen_on="val", told_on="test")
    said = entry["classes"]["cat"]["precision"]
    assert said["n"] == 600
    films = wilson(30 * said["value"], 30)
    assert said["high"] - said["low"] == pytest.approx(films.high - films.low, rel=0.1), "as so many films, about"


def test_halves_hold_whole_groups(monkeypatch):
    groups = [f"film {k // 30}" for k in range(900)]
    val = evidence(0, groups=groups)[0]
    assert val.units == 30
    entry = choose(Rule.parse("recall~0.8"), val, None, chosen_on="val")
    assert entry["chosen_on"] == {"split": "val", "images": 900, "units": 30}
    assert "chosen on val (900 pictures in 30 groups)" in lines_of(entry)[0]


def test_too_few_pictures_say_how_many_more():
    val = evidence(0, count=60)[0]
    facts = choose(Rule.parse("precision>=0.95"), val, None, chosen_on="val")["classes"]["cat"]
    assert facts["threshold"] is None
    assert facts["precision"] is None
    assert 10 <= facts["more"]["images"] <= 2000
    line = lines_of(choose(Rule.parse("precision>=0.95"), val, None, chosen_on="val"))[1]
    assert line.startswith("  cat  none    nothing can be promised: ")
    assert line.endswith(f"; it would take about {facts['more']['images']:,} more pictures like these")


def test_an_estimate_is_said_to_be_one():
    entry = choose(Rule.parse("precision~0.95"), evidence(0)[0], None, chosen_on="train")
    assert "(plain estimates, no promise: about every other one falls short)" in lines_of(entry)[0]
    assert "(the best F1, no promise)" in lines_of(choose(Rule("f1"), evidence(0)[0], None, chosen_on="val"))[0]


def test_pixels_have_none():
    made = Evidence(NAMES)
    made.update([MaskPrediction.of(torch.zeros(3, 4, 4), 1)], [MaskTarget(torch.zeros(4, 4, dtype=torch.uint8))])
    with pytest.raises(UsageError, match="pixels take the most probable class"):
        choose(Rule("f1"), made, None, chosen_on="val")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "it holds no thresholds: evaluate with --choose"),
        ({"rule": "f1", "classes": {"cat": 3}}, "it holds no thresholds"),
        ({"rule": "f1", "classes": {"ship": {"threshold": 0.5}}}, "'ship', which is none of its classes"),
        ({"rule": "f1", "classes": {"cat": {"threshold": "x"}}}, "no number from 0 to 1"),
    ],
)
def test_an_entry_of_something_else_is_refused(entry, reason):
    with pytest.raises(DataError, match=reason):
        thresholds_of(entry, NAMES)
