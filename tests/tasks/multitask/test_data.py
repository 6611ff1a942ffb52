"""Several data sets as one: what they have in common, what each says, and what cannot be."""

import shutil

import cv2
import pytest
import torch

from visionkit import (
    ClassificationData,
    DataError,
    DetectionData,
    MultiTaskData,
    SegmentationData,
    UsageError,
)
from visionkit.tasks.multitask.types import MultiTaskTarget
from visionkit.training.datamodule import VisionDataModule

KINDS = ("circle", "cross", "ring")


def make(root, *, only=("ground", "cars", "kind"), kind=None, cars=None, ground=None, **settings):
    own = {
        "ground": lambda: SegmentationData(f"{root}/masks", **{"batch_size": 2, **(ground or {})}),
        "cars": lambda: DetectionData(f"{root}/boxes", **{"batch_size": 3, "mosaic": 0.0, **(cars or {})}),
        "kind": lambda: ClassificationData(f"{root}/kinds", **{"batch_size": 1, **(kind or {})}),
    }
    return MultiTaskData({name: own[name]() for name in only}, **{"size": 32, "num_workers": 0, **settings})


def shared_kinds(pictures, tmp_path):
    """A folder a class whose pictures are those with boxes."""
    for split, numbers in (("train", range(6)), ("val", range(20, 24))):
        for n in numbers:
            folder = tmp_path / "shared" / split / KINDS[n % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"s{n}.png").symlink_to(pictures / "boxes" / split / f"p{n}.png")
    return str(tmp_path / "shared")


def test_pictures_and_classes_of_all(pictures):
    data = make(pictures)
    assert data.classes[:2] == ("ground/background", "ground/circle")
    assert data.classes[-3:] == tuple(f"kind/{k}" for k in KINDS)
    assert len(data.classes) == 7 + 6 + 3
    train, val = data.splits.train, data.splits.val
    assert (len(train), len(val)) == (14 + 9, 8 + 6)
    assert [sorted(m) for m in train.members].count(["cars", "ground"]) == 6
    assert [sorted(m) for m in val.members].count(["cars", "ground"]) == 3
    assert data.sources == [("ground", "cars"), ("kind",)]
    assert data.multilabel == []


def test_batches_hold_the_share_of_each_group(pictures):
    """What shares pictures has one share, that of the first of them."""
    data = make(pictures)
    loader = data.train_dataloader()
    assert len(loader) == 9, "14 pictures two by two are 7 batches, 9 one by one 9"
    for batch in loader:
        assert batch.images.shape == (3, 3, 32, 32)
        assert all(set(t.parts) <= {"ground", "cars"} for t in batch.targets[:2])
        assert set(batch.targets[2].parts) == {"kind"}
    assert [len(b) for b in data.val_dataloader()] == [3, 3, 3, 3, 2]
    first = next(iter(data.val_dataloader()))
    assert isinstance(first.targets[0], MultiTaskTarget)
    assert [b.info.id for b in (data.splits.val[0],)] == [first.infos[0].id]


def test_batches_of_half_the_pictures(pictures):
    data = make(pictures)
    assert data.batch_sizes() == {"--data.datasets.ground.batch_size": 2, "--data.datasets.kind.batch_size": 1}
    data.halve_batches()
    assert data.batch_sizes() == {"--data.datasets.ground.batch_size": 1, "--data.datasets.kind.batch_size": 1}
    assert {len(batch) for batch in data.train_dataloader()} == {2}


def test_pictures_are_shown_as_the_first_of_a_group_says(pictures):
    """Grey everything for the masks; the detector's own augmentation would be black."""
    black = [{"RandomBrightnessContrast": {"brightness_limit": [-1.0, -1.0], "p": 1.0}}]
    grey, dark = {"augment": [{"ToGray": {"p": 1.0}}], "crop_scale": None}, {"augment": black}
    batch = next(iter(make(pictures, only=("ground", "cars"), ground=grey, cars=dark).train_dataloader()))
    assert torch.equal(batch.images[:, 0], batch.images[:, 1])
    assert batch.images.float().std() > 5
    batch = next(iter(make(pictures, only=("cars", "ground"), ground=grey, cars=dark).train_dataloader()))
    assert len(batch) == 3
    assert batch.images.max() < 30


@pytest.mark.parametrize(("epoch", "steps"), [("longest", 9), ("shortest", 4), (1, 1), (20, 20)])
def test_how_long_an_epoch_is(pictures, epoch, steps):
    data = make(pictures, epoch=epoch, ground={"batch_size": 3})
    assert len(data.train_dataloader()) == steps == len(list(data.train_dataloader()))


def test_what_it_says_of_itself(pictures):
    assert make(pictures).notes() == [
        "batches  2 of ground and cars, 1 of kind in each; an epoch lasts until the longest was shown once"
    ]
    assert make(pictures, epoch=5, only=("kind",)).notes() == ["batches  1 of kind in each; an epoch lasts 5 batches"]


COMMON = [
    ("cars", "size", 64), ("kind", "size", [48, 48]), ("ground", "resize", "squash"), ("kind", "resize", "crop"),
    ("cars", "denoise", "median"), ("cars", "denoise_strength", 2.0), ("ground", "channels", 1),
    ("kind", "check_images", False), ("ground", "skip_corrupt", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "value"), COMMON)
def test_what_all_have_in_common_is_not_said_by_one(pictures, name, key, value):
    with pytest.raises(UsageError) as raised:
        make(pictures, **{name: {key: value}})
    assert str(raised.value).startswith(f"data.datasets.{name}.{key} is ")
    assert str(raised.value).endswith(f"set data.{key}")
    assert "\n" not in str(raised.value)


def test_what_one_says_may_be_what_all_have(pictures):
    data = make(pictures, resize="squash", cars={"resize": "squash", "size": 32}, kind={"size": (32, 32)})
    assert data.datasets["ground"].preprocessing.resize == "squash"
    assert all(m.preprocessing is data.preprocessing for m in data.datasets.values())


WRONG = {
    "no data set": (lambda root: MultiTaskData({}), "data.datasets is empty"),
    "epoch of 0": (lambda root: make(root, epoch=0), "data.epoch=0: longest, shortest or a number of batches"),
    "epoch by name": (lambda root: make(root, epoch="long"), "data.epoch='long': longest, shortest"),
    "classes of others": (lambda root: make(root, classes=["cars/circle"]), "data.classes names none for data.datasets.ground: write them as ground/class"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_one_line(pictures, name):
    what, words = WRONG[name]
    with pytest.raises(UsageError) as raised:
        what(pictures)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_fixed_classes_reach_each_data_set(pictures):
    given = [f"cars/{k}" for k in ("ring", "cross", "circle", "square", "star", "triangle", "moon")]
    data = make(pictures, only=("cars", "kind"), classes=[*given, *(f"kind/{k}" for k in reversed(KINDS))])
    assert data.classes == (*given, "kind/ring", "kind/cross", "kind/circle")
    plain = make(pictures, only=("cars", "kind"))
    for k, names in enumerate((plain.classes[:6], data.classes[:7])):
        target = (plain, data)[k].splits.val[0].target.parts["cars"]
        assert {names[i] for i in target.labels.tolist()} == {"cars/ring", "cars/square"}, "picture 20"


def test_rare_classes_are_drawn_more_often(pictures, tmp_path):
    root = tmp_path / "rare"
    shutil.copytree(pictures / "kinds", root)
    for file in (root / "train" / "ring").iterdir():
        if file.name != "k2.png":
            file.unlink()
    (root / "train" / "cross").joinpath("k1.png").unlink()
    shown = {"none": 0, "sampling": 0}
    for balance in shown:
        kind = ClassificationData(str(root), batch_size=6, balance=balance)
        data = MultiTaskData(
            {"kind": kind, "cars": DetectionData(f"{pictures}/boxes", batch_size=1)}, size=32, num_workers=0, epoch=60
        )
        loader = data.train_dataloader()
        drawn = loader.dataset.views[0].dataset
        for _, view, index, _ in loader.sampler:
            if view == 0:
                shown[balance] += drawn.parts["kind"].labels[drawn.members[index]["kind"]] == (2,)
    assert 360 / 6 - 3 <= shown["none"] <= 360 / 6 + 3, "one of six"
    assert 360 / 3 - 30 < shown["sampling"] < 360 / 3 + 30


def test_balanced_sampling_of_shared_pictures_is_refused(pictures, tmp_path):
    kind = ClassificationData(shared_kinds(pictures, tmp_path), balance="sampling")
    data = MultiTaskData({"cars": DetectionData(f"{pictures}/boxes"), "kind": kind}, size=32, num_workers=0)
    with pytest.raises(UsageError) as raised:
        data.train_dataloader()
    assert str(raised.value) == (
        "data.datasets.kind.balance sampling: its pictures are those of cars, too; take balance loss"
    )


def test_class_weights_travel_with_their_own_labels(pictures, tmp_path):
    kind = ClassificationData(shared_kinds(pictures, tmp_path), balance="loss", augment=None, batch_size=4)
    data = MultiTaskData({"kind": kind, "cars": DetectionData(f"{pictures}/boxes", mosaic=1.0)}, size=32, num_workers=0)
    assert data.sources == [("kind", "cars")]
    batch = next(iter(data.train_dataloader()))
    assert len(batch) == 4
    assert all(t.parts["kind"].weights is not None for t in batch.targets if "kind" in t.parts)


def test_mosaics_of_a_group_have_what_all_four_have(pictures):
    data = make(pictures, only=("cars", "ground"), cars={"mosaic": 1.0, "mosaic_off": 0.0, "batch_size": 14})
    parts = [sorted(t.parts) for b in data.train_dataloader() for t in b.targets]
    assert len(parts) == 14
    assert any(parts)
    assert all(p in ([], ["cars"], ["ground"], ["cars", "ground"]) for p in parts)


def test_heads_with_several_labels_are_named(pictures, tmp_path):
    lines = [
        f"{pictures}/boxes/train/p{n}.png,{'ring|cross' if n % 2 else 'ring'},{'val' if n > 6 else 'train'}"
        for n in range(9)
    ]
    (tmp_path / "m.csv").write_text("path,labels,split\n" + "\n".join(lines))
    data = MultiTaskData(
        {"tags": ClassificationData(str(tmp_path / "m.csv")), "kind": ClassificationData(f"{pictures}/kinds")}, size=32
    )
    assert data.multilabel == ["tags"]
    assert data.sources == [("tags",), ("kind",)]


@pytest.fixture
def spoilt(pictures, tmp_path):
    """The second picture with a mask is no picture; of the third the mask has another size."""
    root = tmp_path / "spoilt"
    shutil.copytree(pictures, root)
    (root / "masks/images/train/p11.png").write_bytes(b"rubbish")
    (root / "boxes/train/p1.png").write_bytes(b"rubbish")
    mask = cv2.imread(str(root / "masks/masks/train/p12.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(root / "masks/masks/train/p12.png"), mask[:-2])
    return root


def test_all_faulty_pictures_are_named_at_once(spoilt):
    with pytest.raises(DataError) as raised:
        make(spoilt).setup("fit")
    lines = str(raised.value).splitlines()
    assert len(lines) == 4
    assert all(sum(name in line for line in lines) == 1 for name in ("p11.png", "p1.png", "p12.png"))
    assert "3 images of the train split cannot be used" in lines[-1]


def test_corrupt_pictures_can_be_left_out(spoilt):
    whole, data = make(spoilt), make(spoilt, skip_corrupt=True)
    data.setup("fit")
    assert len(data.skipped) == 3
    assert len(whole.splits.train) - len(data.splits.train) == 3
    assert not any(id.endswith(("p11.png", "/p1.png", "p12.png")) for id in data.splits.train.ids)
    shown = {info.id for _ in range(1) for batch in data.train_dataloader() for info in batch.infos}
    assert shown <= set(data.splits.train.ids)


def test_a_data_set_whose_pictures_all_validate_another_cannot_train(pictures, tmp_path):
    root = tmp_path / "k"
    for split, folder in (("train", "val"), ("val", "train")):
        for n in range(20, 24) if split == "train" else range(3):
            (root / split / KINDS[n % 2]).mkdir(parents=True, exist_ok=True)
            (root / split / KINDS[n % 2] / f"{n}.png").symlink_to(pictures / "boxes" / folder / f"p{n}.png")
    data = MultiTaskData(
        {"kind": ClassificationData(str(root)), "cars": DetectionData(f"{pictures}/boxes")}, size=32, num_workers=0
    )
    assert [list(m) for m in data.splits.train.members] == [["cars"]] * 7
    alone = MultiTaskData({"kind": ClassificationData(str(root))}, size=32, num_workers=0)
    assert len(alone.splits.train) == 4


def test_it_is_a_data_module_of_the_framework(pictures):
    assert isinstance(make(pictures), VisionDataModule)
    assert make(pictures).batch_size == 6
