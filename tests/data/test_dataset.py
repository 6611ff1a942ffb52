"""The contract of readers, held by each of them."""

import copy
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from visionkit import FolderDataset, ManifestDataset, ShapesClassification
from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import Sample
from visionkit.data.dataset import DataSplits, VisionDataset


def write(path, height=20, width=30, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))


def folder(tmp_path):
    for i, name in enumerate(("cat/a.png", "cat/b.png", "dog/sub/c.png", "eel/d.png")):
        write(tmp_path / name, 20 + i, 30, 10 * i)
    return FolderDataset(tmp_path)


def manifest(tmp_path):
    folder(tmp_path)
    (tmp_path / "m.csv").write_text("path,label\ncat/a.png,cat\ncat/b.png,cat\ndog/sub/c.png,dog\neel/d.png,eel\n")
    return ManifestDataset(tmp_path / "m.csv")


def manifest_of_several(tmp_path):
    folder(tmp_path)
    lines = '{"path": "cat/a.png", "labels": ["cat", "dog"]}\n{"path": "eel/d.png", "labels": []}\n'
    (tmp_path / "m.jsonl").write_text(lines + '{"path": "cat/b.png", "labels": ["cat"]}\n')
    return ManifestDataset(tmp_path / "m.jsonl")


def shapes(tmp_path):
    return ShapesClassification(12, size=48)


def shapes_of_several(tmp_path):
    return ShapesClassification(12, size=48, multilabel=True)


@pytest.fixture(params=[folder, manifest, manifest_of_several, shapes, shapes_of_several])
def data(request, tmp_path):
    return request.param(tmp_path)


def test_knows_names_and_ids_without_pixels(data):
    assert isinstance(data, VisionDataset)
    assert isinstance(data.classes, tuple)
    assert list(data.classes) == sorted(set(data.classes))
    assert len(data) == len(data.ids) == len(data.labels) == len(set(data.ids)) == len(data.files())
    assert data.groups is None or len(data.groups) == len(data)


def test_samples(data):
    for i in range(len(data)):
        sample = data[i]
        assert isinstance(sample, Sample)
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape == (3, *sample.info.size)
        assert sample.image.permute(1, 2, 0).is_contiguous()  # a view of what was decoded, no copy
        assert sample.info.id == data.ids[i]
        assert sample.target.scores.dtype == torch.float32
        assert sample.target.scores.shape == (len(data.classes),)
        assert tuple(sample.target.scores.nonzero().flatten().tolist()) == data.labels[i]
        assert sample.target.weights is None


def test_reading_twice_gives_the_same(data):
    assert torch.equal(data[1].image, data[1].image)


def test_subset_keeps_order_and_pixels(data):
    part = data.subset([2, 0])
    assert type(part) is type(data)
    assert list(part.ids) == [data.ids[2], data.ids[0]]
    assert part.labels == [data.labels[2], data.labels[0]]
    assert part.classes == data.classes
    assert torch.equal(part[0].image, data[2].image)
    assert torch.equal(part.subset([1])[0].image, data[0].image)
    assert len(data) > 2
    assert len(data.subset([])) == 0


def test_files_exist_where_there_are_files(data):
    for entry in data.files():
        assert entry is None or (isinstance(entry, Path) and entry.is_file())


def test_weights_go_into_every_target(data):
    weights = torch.arange(len(data.classes)).double()
    weighted = data.with_weights(weights)
    assert data.weights is None
    assert weighted.weights.dtype == torch.float32
    assert weighted[0].target.weights is weighted[1].target.weights
    assert weighted.subset([0])[0].target.weights.tolist() == weights.tolist()
    assert weighted.with_weights(None)[0].target.weights is None
    with pytest.raises(UsageError, match="one a class"):
        data.with_weights(torch.ones(len(data.classes) + 1))


def test_travels_to_worker_processes(data):
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert other.labels == data.labels
        assert torch.equal(other[0].image, data[0].image)


def test_a_split_that_is_not_there_says_what_else_there_is():
    empty = DataSplits(None, None, None, "one file")
    with pytest.raises(DataError, match="there is no test split: one file$"):
        empty.get("test")
    both = DataSplits(None, [1], None, "one file")
    with pytest.raises(DataError, match="there is no test split: one file; visionkit validate measures on the val"):
        both.get("test")
