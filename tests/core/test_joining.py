"""Classes of several models put into one list, with what each model counts for each."""

import pytest
import torch

from visionkit import UsageError
from visionkit.core.joining import Joining


def test_classes_are_those_of_the_first_then_what_others_add():
    joined = Joining.of([("cat", "dog"), ("dog", "bird", "cat"), ("fish",)])
    assert joined.classes == ("cat", "dog", "bird", "fish")
    assert joined.ids == ((0, 1), (1, 2, 0), (3,))
    assert joined.differ
    assert not Joining.of([("a", "b"), ("b", "a")]).differ


def test_shares_are_over_the_models_that_know_a_class():
    joined = Joining.of([("a", "b"), ("b", "c")], [3, 1])
    assert joined.weights == (0.75, 0.25)
    assert joined.shares.tolist() == [[1, 0.75, 0], [0, 0.25, 1]]


def test_a_class_that_models_without_weight_alone_know_is_theirs():
    joined = Joining.of([("a",), ("a", "b"), ("b",)], [1, 0, 0])
    assert joined.shares.tolist() == [[1, 0], [0, 0.5], [0, 0.5]]


def test_one_model_alone_is_brought_to_the_classes_of_all():
    alone = Joining.of([("a", "b"), ("b", "c")], [3, 1]).only(1)
    assert (alone.classes, alone.ids, alone.weights) == (("a", "b", "c"), ((1, 2),), (1.0,))
    assert torch.equal(alone.shares, torch.tensor([[0.0, 1, 1]]))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1], "1 weights for 2 models"),
        ([0, 0], "weights 0, 0: numbers from 0 on"),
        ([-1, 2], "weights -1, 2: numbers from 0 on"),
        ([float("nan"), 1], "weights nan, 1: numbers"),
    ],
)
def test_weights_that_are_none(weights, words):
    with pytest.raises(UsageError, match=words):
        Joining.of([("a",), ("a",)], weights)
