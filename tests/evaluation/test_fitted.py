"""Weights that an evaluation fitted, taken for the checkpoints that it measured alone."""

import json

import pytest
import torch

import visionkit
from visionkit import DataError, UsageError
from visionkit.core.thresholds import Thresholds
from visionkit.evaluation.fitted import read_fitted
from visionkit.models.model_digest import model_digest
from visionkit.models.store_thresholds import store_thresholds
from visionkit.prediction.resuming import digest


@pytest.fixture
def files(tiny_model, tmp_path):
    for k in range(3):
        with torch.no_grad():
            tiny_model.head.classifier[-1].bias.fill_(k)
        visionkit.save(tiny_model, tmp_path / f"{k}.ckpt")
    return [tmp_path / f"{k}.ckpt" for k in range(3)]


def evaluation(folder, files, ensemble, name=model_digest, **more):
    told = {"model": {"checkpoints": [{"sha256": name(f)} for f in files]}, "ensemble": ensemble, **more}
    (folder / "evaluation.json").write_text(json.dumps(told))
    return folder


def test_they_go_by_the_models_in_any_order(tmp_path, files):
    folder = evaluation(tmp_path, files, {"weights": [0.5, 0.3, 0.2]})
    assert read_fitted(folder, files[::-1]).weights == (0.2, 0.3, 0.5)
    store_thresholds(files[0], Thresholds("f1", {"red": 0.5}))
    assert read_fitted(folder, files[::-1]).weights == (0.2, 0.3, 0.5), "the model is the same"
    folder = evaluation(tmp_path, files, {"weights": [0.5, 0.3, 0.2]}, digest)
    assert read_fitted(folder, files[::-1]).weights == (0.2, 0.3, 0.5), "as evaluations of before named it"
    model = visionkit.load(files[0])
    with torch.no_grad():
        model.head.classifier[-1].bias.fill_(9)
    visionkit.save(model, files[0])
    with pytest.raises(UsageError, match=r"0\.ckpt: is none of the 3 checkpoints"):
        read_fitted(folder, files)


def test_all_of_them_must_be_there(tmp_path, files):
    folder = evaluation(tmp_path, files, {"weights": [0.5, 0.3, 0.2]})
    with pytest.raises(UsageError, match="fitted 3 checkpoints together, not 2: give all of them"):
        read_fitted(folder, files[:2])


@pytest.mark.parametrize(
    ("ensemble", "kind", "words"),
    [
        (None, UsageError, "of one model fitted no weights; evaluate --ckpt A B together"),
        ({}, DataError, "says no weights of checkpoints"),
        ({"weights": [0.5, 0.5]}, DataError, "says no weights of checkpoints"),
        ({"weights": [0.5, -1, 0.5]}, DataError, "says no weights of checkpoints"),
        ({"weights": ["a", 1, 1]}, DataError, "says no weights of checkpoints"),
        ({"weights": [0, 0, 0]}, DataError, "says no weights of checkpoints"),
        ({"weights": [10**400, 1, 1]}, DataError, "says no weights of checkpoints"),
        ({"weights": [1e308, 1e308, 1]}, DataError, "says no weights of checkpoints"),
    ],
)
def test_what_says_none(tmp_path, files, ensemble, kind, words):
    with pytest.raises(kind, match=words):
        read_fitted(evaluation(tmp_path, files, ensemble), files)


def test_what_is_no_evaluation(tmp_path, files):
    with pytest.raises(DataError, match=r"holds no evaluation\.json; give the --out"):
        read_fitted(tmp_path, files)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match=r"is no evaluation \(not JSON\)"):
        read_fitted(tmp_path, files)
    (tmp_path / "evaluation.json").write_text("[1]")
    with pytest.raises(DataError, match="says no weights"):
        read_fitted(tmp_path, files)


def test_thresholds_come_with_them(tmp_path, files):
    entry = {"rule": "f1", "classes": {"cat": {"threshold": 0.4}, "dog": {"threshold": None}}}
    weights = {"weights": [1, 1, 1]}
    found = read_fitted(evaluation(tmp_path, files, weights, thresholds=entry, classes=["cat", "dog"]), files)
    assert found.thresholds.values == {"cat": 0.4, "dog": None}
    assert read_fitted(evaluation(tmp_path, files, weights), files).thresholds is None
    with pytest.raises(DataError, match=r"evaluation\.json: it has a threshold of 'cat'"):
        read_fitted(evaluation(tmp_path, files, weights, thresholds=entry, classes=["dog"]), files)
