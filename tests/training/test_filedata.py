"""The options that the data of all tasks have in common."""

import pytest

from tests import corpus
from visionkit import ClassificationData, DetectionData, MultiTaskData, SegmentationData, UsageError, VisionDataModule
from visionkit.core.component import parameters_of
from visionkit.training.filedata import FileData, SizedData

OF_ONE = [ClassificationData, DetectionData, SegmentationData]
COMMON = {
    "denoise": "median", "denoise_strength": 2.0, "channels": 1, "num_workers": 0, "check_images": False,
    "skip_corrupt": True, "seed": 3, "cache": "disk", "cache_folder": "kept", "cache_limit": 2.0,
}  # fmt: skip


def assert_taken(data):
    assert data.preprocessing.size == (32, 48)
    assert data.preprocessing.resize == "squash"
    assert {name: getattr(data.preprocessing, name) for name in ("denoise", "denoise_strength", "channels")} == {
        "denoise": "median", "denoise_strength": 2.0, "channels": 1
    }  # fmt: skip
    assert (data.num_workers, data.check_images, data.skip_corrupt, data.seed) == (0, False, True, 3)
    assert (data.cache.kind, data.cache.folder, data.cache.limit) == ("disk", "kept", 2.0)


@pytest.mark.parametrize("kind", OF_ONE)
def test_each_kind_of_data_takes_all_options(kind):
    options = {"classes": ["a", "b"], "val_fraction": 0.3, "split_seed": 4, "batch_size": 5}
    data = kind("photos", size=(32, 48), resize="squash", augment=None, **options, **COMMON)
    assert_taken(data)
    assert (data.root, data.fixed_classes, data.val_fraction, data.split_seed) == ("photos", ["a", "b"], 0.3, 4)
    assert data.batch_size == 5
    assert not data.augmentation.acts


def test_data_of_several_tasks_takes_those_that_they_share():
    data = MultiTaskData({"a": DetectionData(batch_size=3)}, size=(32, 48), resize="squash", **COMMON)
    assert_taken(data)
    assert data.batch_size == 3


DEFAULTS = {
    ClassificationData: ((224, 224), "squash", 32),
    DetectionData: ((320, 320), "letterbox", 8),
    SegmentationData: ((320, 320), "letterbox", 8),
}


@pytest.mark.parametrize("kind", OF_ONE)
def test_defaults(kind):
    data = kind()
    assert (data.preprocessing.size, data.preprocessing.resize, data.batch_size) == DEFAULTS[kind]
    assert (data.root, data.fixed_classes, data.val_fraction, data.split_seed) == (None, None, 0.2, 0)
    assert data.augmentation.acts


@pytest.mark.parametrize("kind", [*OF_ONE, MultiTaskData])
def test_an_unknown_option_is_named(kind):
    first = {"datasets": {"a": DetectionData()}} if kind is MultiTaskData else {}
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        kind(**first, sise=64)


@pytest.mark.parametrize("kind", OF_ONE)
def test_common_options_stand_once(kind):
    """No kind of data declares what it takes over as it is."""
    bases = {SizedData: "denoise", FileData: "split_seed", VisionDataModule: "cache_limit"}
    for base, name in bases.items():
        assert name in parameters_of(kind)
        assert name in parameters_of(base)
        assert name not in kind.__init__.__annotations__


def test_the_data_module_itself_is_given_its_data():
    with pytest.raises(UsageError, match="give VisionDataModule its splits"):
        _ = VisionDataModule(preprocessing=ClassificationData().preprocessing).splits


@pytest.mark.parametrize("root", ["photos", "my photos"])
def test_a_hint_where_reading_found_anything(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus.yolo(tmp_path / root)
    assert DetectionData(root).notes() == []
    label = tmp_path / root / "labels" / "train" / "train00.txt"
    label.write_text(label.read_text() * 2)
    quoted = "photos" if root == "photos" else "'my photos'"
    assert DetectionData(root).notes() == [f"hint     visionkit check {quoted} shows all that is wrong with the data"]
    label.write_text(label.read_text().splitlines()[0])
    folder = tmp_path / root / "images"
    (folder / "val" / "val00.jpg").write_bytes((folder / "train" / "train00.jpg").read_bytes())
    assert len(DetectionData(root).notes()) == 1
