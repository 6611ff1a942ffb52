"""Which pictures are measured on: splits that the data bring, that a run made, and data of elsewhere."""

import shutil

import pytest

from tests import corpus
from visionkit import ClassificationData, DataError, UsageError
from visionkit.cli.measured import data_for
from visionkit.cli.trained_on import Training

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    return corpus.class_folders(tmp_path_factory.mktemp("parted"))


@pytest.fixture
def flat(parted, tmp_path):
    return shutil.copytree(parted / "train", tmp_path / "flat")


def training(root, tmp_path, **more):
    return Training(tmp_path / "config.yaml", None if root is None else str(root), **more)


def names(found):
    return {id.rpartition("/")[2] for id in found.dataset.ids}


@pytest.mark.parametrize("name", corpus.FORMATS)
def test_every_format_with_the_classes_of_a_model(tmp_path, name):
    make, task = corpus.FORMATS[name]
    root = make(tmp_path / "data")
    own = data_for(root, task=task).dataset.classes
    found = data_for(root, task=task, classes=tuple(reversed(own)), trainings={"m": None})
    assert (found.split, found.task, len(found.dataset)) == ("val", task, 30)
    assert found.dataset.classes == tuple(reversed(own))
    assert found.warnings == ()


def test_the_test_split_comes_first(parted, tmp_path):
    root = shutil.copytree(parted, tmp_path / "data")
    shutil.copytree(root / "val", root / "test")
    found = data_for(root)
    assert found.split == "test"
    assert data_for(root, split="val").split == "val"
    assert data_for(root, split="train").warnings == (
        "pictures of training are counted: these numbers say how well they are known by heart, no more",
    )
    for file in sorted((root / "train" / "cat").iterdir())[:2]:
        shutil.copy(file, root / "test" / "cat" / f"x{file.name}")
    (line,) = data_for(root, classes=CLASSES, trainings={"m": training(root, tmp_path)}).warnings
    assert line.startswith(f"2 of the 32 pictures are among the training pictures of {root}, too, so the numbers")


def test_pictures_without_splits(flat, tmp_path):
    def split_of(**more):
        return ClassificationData(str(flat), **more).splits.val.ids

    assert data_for(flat).split == "all"
    asked = {"classes": CLASSES, "task": "classification"}
    found = data_for(flat, **asked, trainings={"m": training(flat, tmp_path, val_fraction=0.4, split_seed=3)})
    assert found.dataset.ids == list(split_of(val_fraction=0.4, split_seed=3))
    assert found.warnings == ()
    rest = data_for(flat, **asked, split="train", trainings={"m": training(flat, tmp_path, val_fraction=0.4)})
    assert len(rest.dataset) == 30 - len(split_of(val_fraction=0.4))
    unknown = data_for(flat, **asked, trainings={"m.ckpt": None})
    assert unknown.dataset.ids == list(split_of())
    assert unknown.warnings[0].startswith("m.ckpt: which pictures it was trained on is not known")
    drawn = data_for(flat, **asked, trainings={"m": training(None, tmp_path)})
    assert (drawn.split, len(drawn.dataset)) == ("all", 30)
    listed = tmp_path / "split.csv"
    listed.write_text("image,split\ncat/train00.jpg,val\ndog/train01.jpg,val\n")
    found = data_for(flat, **asked, trainings={"m": training(flat, tmp_path, split=str(listed))})
    assert names(found) == {"train00.jpg", "train01.jpg"}


def test_runs_that_divided_the_pictures_in_different_ways(flat, tmp_path):
    ways = {k: training(flat, tmp_path, val_fraction=0.5, split_seed=k) for k in range(2)}
    asked = {"classes": CLASSES, "task": "classification"}
    both = data_for(flat, **asked, trainings={str(k): way for k, way in ways.items()})
    single = [names(data_for(flat, **asked, trainings={"m": way})) for way in ways.values()]
    assert names(both) == single[0] & single[1] != set()
    assert "in different ways" in both.warnings[0]
    listed = {}
    for k, id in enumerate(("cat/train00.jpg", "dog/train01.jpg")):
        (tmp_path / f"{k}.csv").write_text(f"image,split\n{id},val\n")
        listed[str(k)] = training(flat, tmp_path, split=str(tmp_path / f"{k}.csv"))
    with pytest.raises(DataError, match="in different ways; give pictures that none has seen"):
        data_for(flat, **asked, trainings=listed)


def test_data_of_elsewhere(parted, flat, tmp_path):
    asked = {"classes": CLASSES, "task": "classification"}
    elsewhere = data_for(parted / "val", **asked, trainings={"m": training(flat, tmp_path)})
    assert (elsewhere.split, len(elsewhere.dataset)) == ("all", 30)
    assert elsewhere.warnings == ()
    copy = shutil.copytree(flat, tmp_path / "copy")
    again = data_for(copy, **asked, trainings={"m": training(flat, tmp_path)})
    assert again.split == "val", "the same pictures under another path"
    assert again.warnings == ()
    heart = data_for(copy, **asked, split="all", trainings={"m": training(flat, tmp_path)})
    assert "known by heart" in heart.warnings[0]
    held = data_for(parted / "val", **asked, split="all", trainings={"m": training(parted, tmp_path)})
    assert held.warnings == (), "they validated, and trained nothing"
    gone = data_for(copy, **asked, trainings={"m": training(tmp_path / "gone", tmp_path)})
    assert gone.split == "val"
    assert "cannot be read any more" in gone.warnings[0]
    learnt = data_for(parted, **asked, trainings={"m": training(parted / "val", tmp_path)})
    assert "of the 30 pictures are among the training pictures of" in learnt.warnings[0]


@pytest.mark.parametrize(("split", "whole"), [("all", False), ("train", True), ("train", False)])
def test_pictures_of_which_nothing_is_known_are_not_said_to_have_trained(parted, flat, tmp_path, split, whole):
    asked = {"classes": CLASSES, "task": "classification", "split": split}
    root = parted if whole else flat
    (line,) = data_for(root, **asked, trainings={"m": None}).warnings
    assert line == (
        f"m: which pictures it was trained on is not known (no config.yaml of a run beside it); if they are of {root}, "
        "some of them may be counted here: give pictures that it has not seen"
    )
    first, second = data_for(root, **asked, trainings={"m": None, "n": training(root, tmp_path)}).warnings
    assert "known by heart" in first
    assert second == line
    (gone,) = data_for(root, **asked, trainings={"m": training(tmp_path / "gone", tmp_path)}).warnings
    assert "cannot be read any more" in gone
    assert data_for(root, **asked, trainings={"m": training(None, tmp_path)}).warnings == ()


def test_faults_of_other_splits_do_not_matter(parted, tmp_path):
    root = shutil.copytree(parted, tmp_path / "data")
    (root / "train" / "cat").rename(root / "train" / "emu")
    assert len(data_for(root, classes=CLASSES, task="classification", trainings={"m": None}).dataset) == 30
    (root / "val" / "cat").rename(root / "val" / "Cat")
    with pytest.raises(DataError, match="class 'Cat' is not one of cat, dog; did you mean 'cat'") as raised:
        data_for(root, classes=CLASSES, task="classification", trainings={"m": None})
    assert raised.value.lines[-1].startswith(f"{root}: a label names a class that the model does not know")


def test_pixels_of_a_class_that_the_model_does_not_know(tmp_path):
    root = corpus.mask_folders(tmp_path / "data")
    classes = ("background", "cat")
    with pytest.raises(DataError, match="class 'dog' is not one of background, cat") as raised:
        data_for(root, task="segmentation", classes=classes, trainings={"m": None})
    assert raised.value.lines[-1] == "data.ignore stands in a config here: give one as --data in place of the folder"
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{class_path: SegmentationData, init_args: {{root: {root}, ignore: [dog]}}}}\n")
    found = data_for(config, task="segmentation", classes=classes, trainings={"m": None})
    assert set(found.dataset[1].target.mask.unique().tolist()) == {0, 255}


def test_a_config_in_place_of_a_folder(flat, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{class_path: ClassificationData, init_args: {{root: {flat}, val_fraction: 0.4}}}}\n")
    found = data_for(config, classes=CLASSES, trainings={"m": None})
    assert found.dataset.ids == list(ClassificationData(str(flat), val_fraction=0.4).splits.val.ids)


def test_what_is_not_there(parted, tmp_path):
    with pytest.raises(UsageError, match="holds data for classification, and detection is asked for"):
        data_for(parted, task="detection")
    with pytest.raises(DataError, match=r"has no test split .* choose another with --split train\|val"):
        data_for(parted, split="test")
    with pytest.raises(UsageError, match="are divided into train, val: choose one of them"):
        data_for(parted, split="all")
    with pytest.raises(DataError, match="no such folder or file"):
        data_for(tmp_path / "none", task="detection")


@pytest.mark.parametrize("name", [n for n in corpus.FORMATS if not n.startswith("YOLO")])
def test_pictures_to_measure_on_alone(tmp_path, monkeypatch, name):
    make, task = corpus.FORMATS[name]
    monkeypatch.setattr(corpus, "COUNTS", {"val": 30})
    found = data_for(make(tmp_path / "data"), task=task)  # without a model their own labels name the classes
    assert len(found.dataset) == 30
    assert set(corpus.NAMES) <= set(found.dataset.classes)
