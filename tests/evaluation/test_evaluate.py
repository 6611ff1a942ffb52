"""Evaluations in Python: of a predictor, of predictions, and what such predictions cannot tell."""

import pytest

from visionkit.core.errors import DataError
from visionkit.evaluation.counting import count_predictions
from visionkit.evaluation.evaluate import evaluate, evaluate_predictions, evaluation_of, new_count
from visionkit.evaluation.folder import new_metric, read_evaluation
from visionkit.prediction.predictor import Predictor
from visionkit.tasks.classification.readers.folder import FolderDataset


def test_a_predictor_and_its_predictions_agree(tiny_model, photos, tmp_path):
    data = FolderDataset(photos)
    predictor = Predictor(tiny_model)
    made = evaluate(predictor, data, new_metric("classification", data.classes), task="classification")
    said = dict(enumerate(predictor(data[i] for i in range(len(data)))))
    again = evaluate_predictions(said, data, new_metric("classification", data.classes), task="classification")
    assert {k: m.value for k, m in made.metrics.items()} == {k: m.value for k, m in again.metrics.items()}
    assert made.confusion == again.confusion
    assert made.worst == again.worst
    assert made.calibration is not None
    made.write(tmp_path / "out")
    assert read_evaluation(tmp_path / "out").metrics == made.metrics


def test_what_predictions_cannot_tell_is_left_out(tiny_model, photos):
    data = FolderDataset(photos)
    said = dict(enumerate(Predictor(tiny_model)(data[i] for i in range(len(data)))))
    counted = count_predictions(said, data, new_count(data, new_metric("classification", data.classes)))
    told = evaluation_of(counted, task="classification", unknown=("ece", "accuracy/"))
    assert set(told.metrics) == {"top1", "macro_f1"}
    assert told.calibration is None


def test_a_picture_that_cannot_be_read_is_raised_or_given_away(tiny_model, photos):
    data = FolderDataset(photos)
    data.files()[2].write_bytes(b"")
    arguments = (Predictor(tiny_model), data)
    with pytest.raises(DataError, match="the file is empty"):
        evaluate(*arguments, new_metric("classification", data.classes), task="classification")
    problems = []
    made = evaluate(*arguments, new_metric("classification", data.classes), task="classification",
                    on_error=problems.append)  # fmt: skip
    assert len(made.images) == 23
    assert len(problems) == 1
