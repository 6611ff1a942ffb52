"""Each model's own numbers beside those of all, with the gain."""

import numpy as np
import pytest
import torch

from visionkit import ClassificationMetric, ClassPrediction, ClassTarget
from visionkit.core.joining import Joining
from visionkit.evaluation.ensembling import FittedWeights, Gain, MembersJudged, mean_gain

NAMES = ("a", "b", "c")


class Said:
    """Stands for an ensemble of models that know these classes."""

    names = ("x.ckpt", "y.ckpt")
    joining = Joining.of([NAMES, ("b", "a")])
    classes, weights = joining.classes, joining.weights

    def alone(self, model, prediction):
        return type(prediction).combine([prediction], self.joining.only(model))

    def combine(self, parts):
        return type(parts[0]).combine(parts, self.joining)

    def cost(self):
        return 1.9


def judged(n=80, seed=0):
    g = np.random.default_rng(seed)
    said, whole = Said(), ClassificationMetric(NAMES)
    members = MembersJudged(said, lambda: ClassificationMetric(NAMES))
    truths, answers = [], ([], [])
    for _ in range(n):
        truth = int(g.integers(3))
        x = g.dirichlet(1 + 2 * np.eye(3)[truth])
        y = g.dirichlet(1 + (2 * np.eye(2)[1 - truth] if truth < 2 else np.zeros(2)))
        parts = (ClassPrediction(torch.tensor(x).float()), ClassPrediction(torch.tensor(y).float()))
        target = ClassTarget.make(truth, 3)
        members.update(parts, target)
        whole.update([said.combine(parts)], [target])
        truths.append(truth)
        answers[0].append(int(x.argmax()))
        answers[1].append(1 - int(y.argmax()))
    return members, whole, truths, answers


def test_members_are_measured_with_the_classes_of_all():
    members, whole, truths, answers = judged()
    entry = members.entry(whole, None, range(80), draws=50)
    for told, own in zip(entry["members"], answers, strict=True):
        assert told["value"] == pytest.approx(np.mean(np.array(own) == truths))
        assert told["metrics"]["top1"] == told["value"]
    assert entry["members"][1]["metrics"]["accuracy/c"] == 0, "it does not know it"
    assert [one["name"] for one in entry["members"]] == ["x.ckpt", "y.ckpt"]
    assert (entry["weights"], entry["fitted"], entry["reason"], entry["cost"]) == ([0.5, 0.5], False, None, 1.9)


def test_the_gain_is_over_the_mean_and_over_the_best():
    members, whole, _, _ = judged()
    entry = members.entry(whole, FittedWeights((0.7, 0.3), True, "because"), range(80), draws=200)
    own = float(whole.compute()["top1"])
    values = [one["value"] for one in entry["members"]]
    assert entry["gain_over_mean"]["value"] == pytest.approx(own - np.mean(values))
    assert entry["gain_over_best"]["value"] == pytest.approx(own - max(values))
    assert entry["gain_over_best"]["best"] == "x.ckpt"
    for gain in (entry["gain_over_mean"], entry["gain_over_best"]):
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert (entry["weights"], entry["measured_with"]) == ([0.7, 0.3], [0.5, 0.5])


def test_a_metric_gains_nothing_over_itself():
    _, whole, _, _ = judged()
    assert mean_gain(whole, [whole], range(80), draws=50) == Gain(0.0, 0.0, 0.0)


def test_one_group_has_no_interval():
    _, whole, _, _ = judged(10)
    assert mean_gain(whole, [whole], [0] * 10, draws=50) == Gain(0.0, None, None)
