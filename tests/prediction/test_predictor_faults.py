"""What goes wrong with one picture is said of it, and all others are predicted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from visionkit import (
    ClassPrediction,
    DataError,
    ImageInfo,
    LinearHead,
    Predictor,
    Sample,
    UsageError,
    Views,
    VisionModel,
)


def samples(count=5):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, 40, 40), dtype=np.uint8))
    return [Sample(image, None, ImageInfo(f"{i}.png", (40, 40))) for i, image in enumerate(images)]


def results(predictor, some):
    return list(predictor.results(predictor.prepare(sample, keep=False) for sample in some))


def faulty(found):
    return {i: str(result) for i, result in enumerate(found) if isinstance(result, DataError)}


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd\nvalue"), DataError("3.png: no")])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_prediction_that_cannot_be_brought_back(tiny_model, monkeypatch, batch_size, error):
    restore = ClassPrediction.restore

    def some(self, info):
        if info.id == "3.png":
            raise error
        return restore(self, info)

    monkeypatch.setattr(ClassPrediction, "restore", some)
    found = results(Predictor(tiny_model, batch_size=batch_size), samples())
    assert list(faulty(found)) == [3]
    words = {MemoryError: "memory does not suffice for it", ValueError: "ValueError: odd value"}.get(type(error), "no")
    assert faulty(found)[3].startswith("3.png: ")
    assert words in faulty(found)[3]
    assert [found[i][0].info.id for i in (0, 1, 2, 4)] == ["0.png", "1.png", "2.png", "4.png"]


def test_views_that_cannot_be_made_or_put_together(tiny_model, monkeypatch):
    views = Views(window=32)
    make = Views.__call__

    def some(self, sample, preprocessing):
        for number, view in enumerate(make(self, sample, preprocessing)):
            if sample.info.id == "1.png" and number == 2:
                raise MemoryError
            yield view

    monkeypatch.setattr(Views, "__call__", some)
    merge = ClassPrediction.merge.__func__

    def merged(cls, parts, regions):
        if torch.equal(parts[0].probabilities, expected[2][1].probabilities):
            raise RuntimeError("no")
        return merge(cls, parts, regions)

    alone = Predictor(tiny_model, views=replace(views, window=None))
    corner = [Sample(s.image[:, :32, :32], None, ImageInfo(s.info.id, (32, 32))) for s in samples()]
    expected = results(alone, corner)
    monkeypatch.setattr(ClassPrediction, "merge", classmethod(merged))
    found = results(Predictor(tiny_model, views=views, batch_size=3), samples())
    assert faulty(found) == {
        1: "1.png: cannot be predicted (memory does not suffice for it)",
        2: "2.png: cannot be predicted (RuntimeError: no)",
    }


def test_a_batch_that_memory_does_not_suffice_for_is_predicted_one_by_one(tiny_model, monkeypatch):
    expected = results(Predictor(tiny_model), samples())
    dark = samples()
    dark[2] = dark[2].replace(image=torch.zeros_like(dark[2].image))
    forward = LinearHead.forward
    sizes = []

    def some(self, features):
        sizes.append(len(features[-1]))
        if len(features[-1]) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if len(sizes) == 4:  # the third picture alone
            raise MemoryError
        return forward(self, features)

    predictor = Predictor(tiny_model)
    monkeypatch.setattr(LinearHead, "forward", some)
    found = results(predictor, dark)
    assert sizes == [5, 1, 1, 1, 1, 1]
    assert list(faulty(found)) == [2]
    for i in (0, 1, 3, 4):
        assert torch.equal(found[i][1].probabilities, expected[i][1].probabilities)


def test_faults_of_the_network_and_of_what_was_asked_are_no_pictures(tiny_model, monkeypatch):
    monkeypatch.setattr(VisionModel, "decode", lambda self, images: 1 / 0)
    predictor = Predictor(tiny_model)
    monkeypatch.setattr(type(predictor.model), "decode", lambda self, images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        results(predictor, samples())
    monkeypatch.undo()
    monkeypatch.setattr(ClassPrediction, "merge", classmethod(lambda cls, parts, regions: cls._refuse("merge()", "no")))
    with pytest.raises(UsageError, match="no: it defines no merge"):
        results(Predictor(tiny_model, views=Views(flip=True)), samples())
