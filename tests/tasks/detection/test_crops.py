"""Objects that are cut out of their pictures."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import FPN, BoxPrediction, FCOSHead, ImageInfo, Preprocessing, ResNet, UsageError, VisionModel
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.crops import CropWriter, folders_of
from visionkit.tasks.multitask.writers import writers_of

INFO = ImageInfo("in/a.png", (20, 30))


def found(*boxes, scores=None):
    n = len(boxes)
    return BoxPrediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
        torch.tensor(scores or [0.9] * n),
        torch.arange(n) % 2,
        size=(20, 30),
    )


def picture():
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[0, 4:12, 8:24] = 250
    return image


def written(out):
    return {p.relative_to(out).as_posix(): np.asarray(Image.open(p)) for p in sorted(out.rglob("*.jpg"))}


def test_an_object_is_cut_with_all_its_pixels(tmp_path):
    writer = CropWriter(WriterJob(tmp_path, ("cat", "dog"), ("in/0.png", "in/a.png")))
    writer.add(INFO, found((8.0, 4.0, 24.0, 12.0), (0.2, 0.2, 3.1, 30)), picture())
    writer.finish()
    crops = written(tmp_path)
    assert {name: c.shape for name, c in crops.items()} == {
        "crops/cat/00001_a_000.jpg": (8, 16, 3),
        "crops/dog/00001_a_001.jpg": (20, 4, 3),
    }
    assert abs(crops["crops/cat/00001_a_000.jpg"].astype(int) - [250, 0, 0]).max() <= 6, "the object, nothing beside"


def test_unsure_ones_are_left_out_unless_they_are_asked_for(tmp_path):
    prediction = found((8, 4, 24, 12), (0, 0, 3, 3), scores=[0.31, 0.29])
    for least, count in ((None, 1), (0.0, 2)):
        out = tmp_path / str(least)
        CropWriter(WriterJob(out, ("cat", "dog"), ("in/a.png",), min_score=least)).add(INFO, prediction, picture())
        assert len(written(out)) == count


def test_grey_pictures_and_boxes_without_a_whole_pixel(tmp_path):
    writer = CropWriter(WriterJob(tmp_path, ("cat", "dog"), ("in/a.png",)))
    writer.add(INFO, found((29.9, 19.9, 30, 20), (30, 20, 30, 20)), picture()[:1])
    assert [c.shape for c in written(tmp_path).values()] == [(1, 1, 3), (1, 1, 3)]


def test_folders_are_safe_and_no_two_the_same():
    names = ["cat", "Cat", "a/b", "a:b", "..", ".", "", "con", "x\x1b[2J", "../../etc", "dog ", "dog", "é" * 300]
    folders = folders_of(names)
    assert folders[:4] == ["cat", "Cat-2", "a_b", "a_b-2"]
    assert folders[7] == "_con"
    assert len({f.casefold() for f in folders}) == len(names)
    assert all(f and f not in (".", "..") and "/" not in f and f.isprintable() for f in folders)
    assert max(len(f.encode()) for f in folders) <= 255


def test_a_joint_model_cuts_into_the_folder_of_its_head(tmp_path):
    head = FCOSHead(FPN(ResNet(18).features, channels=8).features, 2, channels=8)
    writers, _ = writers_of({"cars": head})
    writer = writers["cars/crops"](WriterJob(tmp_path, ("cars/a", "cars/b"), ("in/a.png",)))
    assert writer.wants_pixels
    writer.add(INFO, visionkit.MultiTaskPrediction({"cars": found((8, 4, 24, 12))}), picture())
    assert list(written(tmp_path)) == ["cars/crops/a/00000_a_000.jpg"]
    assert writer.files_of("in/a.png") == [tmp_path / "cars/crops/a/00000_a_000.jpg"]


@pytest.fixture
def detector(tmp_path):
    torch.manual_seed(0)
    head = partial(FCOSHead, channels=8, score_threshold=0.0, detections=3)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")
    model = VisionModel(backbone, head, ["a", "b"], partial(FPN, channels=8), preprocessing=Preprocessing(32))
    visionkit.save(model.eval(), tmp_path / "d.ckpt")
    return tmp_path / "d.ckpt"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.png")
    return [ImageFile(str(tmp_path / "in" / f"{k}.png")) for k in range(3)]


def test_the_command_cuts_what_it_records_and_goes_on_where_it_stopped(detector, pictures, tmp_path):
    out = tmp_path / "out"
    done = predict_to_folder(detector, pictures, out, save_crops=True, min_score=0.0, precision="32")
    records = [json.loads(line) for line in done.records.read_text().splitlines()]
    whole = written(out)
    objects = [(n, k, o) for n, r in enumerate(records) for k, o in enumerate(r["objects"])]
    assert len(objects) == len(whole) >= 4
    for n, k, o in objects:
        left, top, right, bottom = o["box"]
        shape = whole[f"crops/{o['label']}/{n:05d}_{n}_{k:03d}.jpg"].shape
        assert shape == (int(np.ceil(bottom)) - int(top), int(np.ceil(right)) - int(left), 3)
    assert out / "crops" in done.files

    lines = done.records.read_text().splitlines(keepends=True)
    done.records.write_text("".join(lines[:1]))
    for path in out.glob("crops/*/00002_*"):
        path.unlink()
    predict_to_folder(detector, pictures, out, save_crops=True, min_score=0.0, precision="32", resume=True)
    assert written(out).keys() == whole.keys()
    with pytest.raises(UsageError, match="made with another --save-crops"):
        predict_to_folder(detector, pictures, out, min_score=0.0, precision="32", resume=True)
    with pytest.raises(UsageError, match="crops of before would stay among the new"):
        predict_to_folder(detector, pictures, out, save_crops=True, overwrite=True)


def test_other_tasks_are_refused_in_a_line(tiny_model, pictures, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match="--save-crops cuts objects out of pictures: this model's predictions have no"):
        predict_to_folder(tmp_path / "m.ckpt", pictures, tmp_path / "out", save_crops=True)
    assert not (tmp_path / "out").exists()
