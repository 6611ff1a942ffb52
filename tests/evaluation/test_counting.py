"""The loop over pictures: what is counted, what is left out, what is watched."""

import hashlib
from pathlib import Path

import pytest
import torch

from visionkit.core.errors import DataError
from visionkit.evaluation.counting import Count, count, count_predictions
from visionkit.evaluation.output import records_of, writing_predictions
from visionkit.prediction.predictor import Predictor
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.readers.folder import FolderDataset
from visionkit.tasks.classification.types import ClassPrediction


class Seen:
    def __init__(self):
        self.calls = []

    def update(self, predictions, targets, groups=None):
        self.calls.append((len(predictions), len(targets), groups))


@pytest.fixture
def data(photos):
    return FolderDataset(photos)


def new(data, **more):
    return Count(ClassificationMetric(data.classes), **more)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_come_in_order_with_their_bytes(tiny_model, data, workers):
    kept = []
    groups = {data.ids[0]: "a", data.ids[1]: "a"}
    evidence, watcher = Seen(), Seen()
    counted = new(data, groups=groups, evidence=evidence, band=watcher)
    count(Predictor(tiny_model), data, counted, workers=workers,
          keep=lambda sample, prediction, number: kept.append((sample.info.id, sample.info.extra, number)))  # fmt: skip
    assert [image.id for image in counted.images] == data.ids == counted.metric.image_ids()
    assert kept == [(id, {}, k) for k, id in enumerate(data.ids)]
    assert counted.images[5].sha256 == hashlib.sha256(data.files()[5].read_bytes()).hexdigest()
    assert counted.images[5].size == (20, 24)
    assert [image.group for image in counted.images[:3]] == ["a", "a", None]
    assert [n for n, _, _ in evidence.calls] == [n for n, _, _ in watcher.calls] == [16, 8]
    assert evidence.calls[0][2] == ["a", "a", *[None] * 14]
    assert counted.metric.images == 24 == len(counted.margins)
    assert counted.seconds > 0


def test_what_cannot_be_read_or_kept_is_left_out(tiny_model, data):
    data.files()[3].write_bytes(b"")

    def keep(sample, prediction, number):
        if number == 7:
            raise DataError("no name for it")

    counted = count(Predictor(tiny_model), data, new(data), keep=keep)
    first, second = map(str, counted.problems)
    assert first.startswith(f"{data.ids[3]}: the file is empty")
    assert second == "no name for it"
    left = [id for k, id in enumerate(data.ids) if k not in (3, 7)]
    assert [image.id for image in counted.images] == left == counted.metric.image_ids()


def test_nothing_left(tiny_model, data):
    for file in data.files():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no picture is left to count"):
        count(Predictor(tiny_model), data, new(data))


def test_every_one_of_several_models_is_heard(tiny_model, data):
    class Two:
        def __init__(self):
            self.one = Predictor(tiny_model)
            self.views, self.batch_size, self.scale = self.one.views, self.one.batch_size, self.one.scale
            self.prepare, self.results = self.one.prepare, self.one.results

        def each(self, items):
            for result in self.one.results(items):
                yield result if isinstance(result, DataError) else (result[0], (result[1], result[1]))

        def combine(self, parts):
            return ClassPrediction(torch.stack([p.probabilities for p in parts]).mean(0))

    class Judge:
        heard = 0

        def update(self, parts, target):
            assert len(parts) == 2
            assert target.scores.sum() == 1
            self.heard += 1

    judge = Judge()
    heard = count(Two(), data, new(data), judge=judge)
    alone = count(Two(), data, new(data))
    assert judge.heard == 24
    assert float(heard.metric.compute()["top1"]) == float(alone.metric.compute()["top1"])


def test_predictions_that_are_there(data):
    said = {k: ClassPrediction(torch.eye(3)[k % 3]) for k in (5, 0, 9)}
    kept = []
    counted = count_predictions(said, data, new(data), keep=lambda s, p, n: kept.append((s.info.id, n)))
    assert [image.id for image in counted.images] == [data.ids[k] for k in (0, 5, 9)]
    assert kept == [(data.ids[k], n) for n, k in enumerate((0, 5, 9))]
    assert counted.images[1].sha256 == hashlib.sha256(data.files()[5].read_bytes()).hexdigest()
    assert counted.seconds is None
    with pytest.raises(DataError, match="no picture is left"):
        count_predictions({}, data, new(data))


def test_files_are_listed_once(data, monkeypatch):
    asked = []
    monkeypatch.setattr(type(data), "files", lambda self: asked.append(1) or [Path(id) for id in self.ids])
    count_predictions({k: ClassPrediction(torch.eye(3)[0]) for k in range(len(data))}, data, new(data))
    assert len(asked) == 1


def test_what_goes_wrong_while_several_are_counted_is_no_picture_that_is_left_out(tiny_model, data):
    class Broken(ClassificationMetric):
        def update(self, predictions, targets):
            if len(predictions) == 16:  # the rest could be
                raise DataError("cannot be counted")

    for begin in (
        lambda counted: count(Predictor(tiny_model), data, counted),
        lambda counted: count_predictions({k: ClassPrediction(torch.eye(3)[0]) for k in range(24)}, data, counted),
    ):
        with pytest.raises(DataError, match="cannot be counted"):
            begin(Count(Broken(data.classes)))


def test_a_lost_evaluation_is_told_of(tmp_path):
    (tmp_path / "evaluation.json").write_text("{}")
    for lines in (["nothing is left", f"{tmp_path}: the evaluation that was there is gone, as it was to be replaced"],
                  ["nothing is left"]):  # fmt: skip
        with (
            pytest.raises(DataError) as e,
            writing_predictions(str(tmp_path), records_of("classification"), ("a",), (), overwrite=True),
        ):
            raise DataError("nothing is left")
        assert e.value.lines == lines
