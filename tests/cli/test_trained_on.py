"""What the config of a run says of the pictures that it was trained on."""

import shutil

import pytest

from tests import corpus
from visionkit import ClassificationData
from visionkit.cli.recognise import TABLES
from visionkit.cli.trained_on import Training, pictures_of, shared, training_of

DATA = """data:
  class_path: visionkit.ClassificationData
  init_args: {root: ROOT, val_fraction: 0.3, split_seed: 4, split: null, multilabel: null, ignore: [void]}
"""
JOINT = """data:
  class_path: visionkit.MultiTaskData
  init_args:
    size: 64
    datasets:
      things: {class_path: visionkit.DetectionData, init_args: {root: boxes, split: s.csv}}
      stuff: {class_path: visionkit.SegmentationData, init_args: {root: null}}
"""


@pytest.fixture
def run_of(tmp_path):
    """Make the folder of a run with a config; return its checkpoint."""

    def make(text):
        file = tmp_path / "run" / "checkpoints" / "best.ckpt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        (tmp_path / "run" / "config.yaml").write_text(text)
        return file

    return make


def test_of_one_head(run_of):
    file = run_of(DATA)
    for given in (file, file.parents[1]):
        found = training_of(given)
        assert (found.root, found.val_fraction, found.split_seed, found.split) == ("ROOT", 0.3, 4, None)
        assert found.options == {"ignore": ["void"]}
        assert found.rule == (0.3, 4, None)


def test_of_a_joint_model(run_of):
    file = run_of(JOINT)
    assert training_of(file, "things").rule == (0.0, 0, "s.csv")
    assert training_of(file, "stuff").root is None
    assert training_of(file, "dog") is None
    assert training_of(file) is None


@pytest.mark.parametrize("text", ["", "data: 3\n", "data: [\n", "model: {}\n", "data: {class_path: Mine}\n"])
def test_what_says_nothing(run_of, text):
    assert training_of(run_of(text)) is None


def test_without_a_config(tmp_path):
    (tmp_path / "a.ckpt").touch()
    assert training_of(tmp_path / "a.ckpt") is None


def test_values_of_a_wrong_kind_are_the_usual_ones(tmp_path):
    found = Training.of_settings(tmp_path, {"val_fraction": "x", "split_seed": "y", "root": 3, "split": 4})
    assert (found.val_fraction, found.split_seed, found.root, found.split) == (0.2, 0, None, None)


def test_pictures_of_a_run(tmp_path):
    root = corpus.class_folders(tmp_path / "data")
    flat = shutil.copytree(root / "train", tmp_path / "flat")
    table = TABLES["classification"]
    found = pictures_of(Training(tmp_path, str(flat), 0.4, 2), table)
    data = ClassificationData(str(flat), val_fraction=0.4, split_seed=2).splits
    assert list(found.trained) == list(data.train.ids)
    assert len(found.every) == 30
    brought = pictures_of(Training(tmp_path, str(root)), table)
    assert len(brought.trained) == 30
    assert len(brought.every) == 60
    assert pictures_of(Training(tmp_path, str(tmp_path / "gone")), table) is None
    assert pictures_of(Training(tmp_path, None), table).every == ()
    copies = [str(root / "train" / "cat" / "train00.jpg"), str(root / "val" / "cat" / "val00.jpg")]
    assert shared(brought.trained, [str(flat / "cat" / "train00.jpg"), copies[1]]) == [
        (str(flat / "cat" / "train00.jpg"), copies[0])
    ]
    assert shared((), copies) == []
