import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from visionkit.core.errors import UsageError
from visionkit.data.audit.suspects import _answers, _folds, label_suspects, out_of_fold


def clusters(count=300, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, 16)) * 1.5
    return centres[labels] + rng.normal(size=(count, 16)), labels


def test_planted_errors_come_first_with_the_right_label():
    features, truth = clusters()
    rng = np.random.default_rng(1)
    wrong = rng.choice(300, 15, replace=False)
    given = truth.copy()
    given[wrong] = (truth[wrong] + rng.integers(1, 4, 15)) % 4
    suspects = label_suspects(features, given.tolist())
    first = suspects[:15]
    assert len({s.position for s in first} & set(wrong.tolist())) >= 14
    assert sum(s.likelier == truth[s.position] for s in first) >= 14
    assert all(s.given == given[s.position] and s.likelier != s.given for s in suspects)
    assert [s.probability for s in suspects] == sorted(s.probability for s in suspects)
    assert all(s.probability < s.likelier_probability for s in suspects)


def test_clean_labels_of_classes_that_lie_apart_are_not_doubted():
    features, labels = clusters()
    assert label_suspects(features * 0.1 + np.eye(16)[labels] * 40, labels.tolist()) == []


def test_probabilities_and_types():
    features, labels = clusters(60)
    chances = out_of_fold(torch.from_numpy(features).half(), labels.tolist())
    assert chances.shape == (60, 4)
    assert chances.sum(axis=1) == pytest.approx(np.ones(60))
    assert (out_of_fold(torch.from_numpy(features).half(), labels.tolist()) == chances).all()


def test_copies_do_not_vouch_for_each_other():
    features, labels = clusters(200)
    features[:5], labels[:5] = features[0], 3 - labels[0]  # five copies of a picture, all with a wrong label
    alone = out_of_fold(features, labels.tolist())[0, labels[0]]
    groups = [0] * 5 + list(range(5, 200))
    together = out_of_fold(features, labels.tolist(), groups)[0, labels[0]]
    assert together < alone


def test_folds_keep_groups_whole_and_labels_even():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 200)
    labels = groups % 3
    folds = _folds(labels, groups)
    assert all(len(set(folds[groups == g])) == 1 for g in set(groups))
    counts = np.array([np.bincount(folds[labels == c], minlength=5) for c in range(3)])
    assert counts.min() >= 9


def test_answers_are_those_of_ridge_regression_trained_on_the_other_folds():
    features, labels = clusters(100)
    features = features.astype(np.float32)
    folds = np.arange(100) % 5
    found = _answers(features, labels, folds, 4)
    for k, strength in enumerate((1e-3, 1.0)):
        at = (0, 3)[k]
        for fold in range(5):
            rest = folds != fold
            unit = features[rest].astype(np.float64).var(axis=0).sum() * rest.sum() / 16
            ridge = Ridge(alpha=strength * unit).fit(features[rest].astype(np.float64), np.eye(4)[labels[rest]])
            assert found[at, ~rest] == pytest.approx(ridge.predict(features[~rest].astype(np.float64)), abs=1e-6)


def test_a_label_of_one_picture_and_constant_features_are_survived():
    assert np.isfinite(out_of_fold(np.ones((6, 3)), [0, 0, 0, 1, 1, 2])).all()
    assert out_of_fold(np.ones((1, 3)), [0]).tolist() == [[1.0]]
    assert label_suspects(np.ones((0, 3)), []) == []


@pytest.mark.parametrize(
    ("features", "labels", "groups"),
    [(np.ones((3, 2)), [0, 1], None), (np.ones((2, 2)), [0, 1], [0]), (np.full((2, 2), np.nan), [0, 1], None)],
)
def test_wrong_input_is_refused(features, labels, groups):
    with pytest.raises(UsageError, match="features"):
        out_of_fold(features, labels, groups)
