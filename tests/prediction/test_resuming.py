"""What predict leaves in its folder, stopped or not, and how it goes on there."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import UsageError
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.predictor import Predictor
from visionkit.prediction.resuming import SEEN


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(tmp_path / "in" / f"{i}.png")
    return [ImageFile(str(tmp_path / "in" / f"{i}.png")) for i in range(4)]


def images(folder):
    return [json.loads(line)["image"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


class TestGoingOnWithOtherPictures:
    @pytest.fixture
    def told(self):
        return []

    def again(self, ckpt, pictures, out, told, **more):
        return predict_to_folder(ckpt, pictures, out, resume=True, num_workers=0, tell=told.append, **more)

    def test_pictures_that_are_others_now_are_predicted_anew(self, ckpt, pictures, tmp_path, told):
        out = tmp_path / "out"
        predict_to_folder(ckpt, pictures, out, save_images=True, num_workers=0)
        drawn = (out / "images" / "00001_1.jpg").read_bytes()
        shutil.copy(pictures[3].path, pictures[1].path)
        Path(pictures[2].path).write_bytes(b"no picture")
        done = self.again(ckpt, pictures, out, told, save_images=True)
        assert told == [
            f"2 pictures changed since are predicted anew: {pictures[1].path}, {pictures[2].path}",
        ]
        assert (done.count, len(done.problems)) == (3, 1)
        assert images(out) == [pictures[k].path for k in (0, 3, 1)]
        found = {r["image"]: r["probabilities"] for r in map(json.loads, done.records.read_text().splitlines())}
        assert found[pictures[1].path] == found[pictures[3].path]
        assert (out / "images" / "00001_1.jpg").read_bytes() != drawn
        assert sorted(p.name for p in (out / "images").glob("*.jpg")) == ["00000_0.jpg", "00001_1.jpg", "00003_3.jpg"]
        rows = (out / "predictions.csv").read_text().splitlines()
        assert len(rows) == 1 + 3

    def test_killed_before_what_changed_was_predicted_anew(self, ckpt, pictures, tmp_path, told, monkeypatch):
        predict_to_folder(ckpt, pictures, tmp_path / "out", num_workers=0)
        shutil.copy(pictures[3].path, pictures[1].path)
        monkeypatch.setattr(visionkit.VisionModel, "decode", lambda *given: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            self.again(ckpt, pictures, tmp_path / "out", told)
        monkeypatch.undo()
        assert images(tmp_path / "out") == [pictures[k].path for k in (0, 2, 3)]
        assert self.again(ckpt, pictures, tmp_path / "out", told).count == 4

    def test_what_a_manifest_says_counts(self, ckpt, pictures, tmp_path, told):
        given = [ImageFile(p.path, {"truth": "a"}) for p in pictures]
        predict_to_folder(ckpt, given, tmp_path / "out", num_workers=0)
        given[2] = ImageFile(given[2].path, {"truth": "b"})
        self.again(ckpt, given, tmp_path / "out", told)
        assert told == [f"1 picture changed since is predicted anew: {given[2].path}"]
        truths = {r["image"]: r["truth"] for r in map(json.loads, (tmp_path / "out" / "predictions.jsonl").open())}
        assert [truths[p.path] for p in given] == ["a", "a", "b", "a"]

    def test_new_pictures_are_added_and_missing_ones_stay(self, ckpt, pictures, tmp_path, told):
        out = tmp_path / "out"
        predict_to_folder(ckpt, pictures[1:], out, save_images=True, num_workers=0)
        done = self.again(ckpt, [pictures[0], *pictures[2:]], out, told, save_images=True)
        assert told == ["1 new picture is added", f"1 picture no longer given keeps its record: {pictures[1].path}"]
        assert images(out) == [pictures[k].path for k in (1, 2, 3, 0)]
        assert done.count == 4
        names = [f"0000{k}_{(k + 1) % 4}.jpg" for k in range(4)]
        assert sorted(p.name for p in (out / "images").glob("*.jpg")) == names, "none takes another one's place"
        told.clear()
        assert self.again(ckpt, pictures, out, told, save_images=True).count == 4
        assert told == []

    def test_nothing_in_common(self, ckpt, pictures, tmp_path, told):
        predict_to_folder(ckpt, pictures[:2], tmp_path / "out", num_workers=0)
        with pytest.raises(UsageError, match="its predictions are of other pictures; choose another --out"):
            self.again(ckpt, pictures[2:], tmp_path / "out", told)
        (tmp_path / "out" / SEEN).unlink()
        with pytest.raises(UsageError, match="nothing there says"):
            self.again(ckpt, pictures, tmp_path / "out", told)


class TestFilesOfPictures:
    @pytest.fixture
    def segmenter(self, tmp_path):
        torch.manual_seed(0)
        model = visionkit.VisionModel(
            visionkit.ResNet(layers=(1, 1, 1, 1), block="basic"), partial(visionkit.DeepLabV3PlusHead, channels=8),
            ["a", "b"], preprocessing=visionkit.Preprocessing(32),
        )  # fmt: skip
        visionkit.save(model.eval(), tmp_path / "s.ckpt")
        return tmp_path / "s.ckpt"

    def test_no_mask_of_a_picture_that_is_none_any_more(self, segmenter, pictures, tmp_path):
        out = tmp_path / "out"
        predict_to_folder(segmenter, pictures, out, num_workers=0)
        Path(pictures[2].path).write_bytes(b"no picture")
        assert predict_to_folder(segmenter, pictures, out, resume=True, num_workers=0).count == 3
        assert sorted(p.name for p in (out / "masks").glob("*.png")) == ["0.png", "1.png", "3.png"]

    def test_new_pictures_that_would_give_others_another_name(self, segmenter, pictures, tmp_path):
        predict_to_folder(segmenter, pictures, tmp_path / "out", num_workers=0)
        (tmp_path / "in" / "more").mkdir()
        for name in ("more/1.png", "2.jpg"):
            shutil.copy(pictures[3].path, tmp_path / "in" / name)
        below = [*pictures, ImageFile(str(tmp_path / "in" / "more" / "1.png"))]
        assert predict_to_folder(segmenter, below, tmp_path / "out", resume=True, num_workers=0).count == 5
        assert (tmp_path / "out" / "masks" / "more" / "1.png").is_file()
        beside = [*below, ImageFile(str(tmp_path / "in" / "2.jpg"))]
        with pytest.raises(UsageError, match=r"the files of .*0\.png would be called 0\.png in place of 0; choose"):
            predict_to_folder(segmenter, beside, tmp_path / "out", resume=True, num_workers=0)

    def test_what_a_kill_left_half_written_is_removed(self, segmenter, pictures, tmp_path):
        out = tmp_path / "out"
        predict_to_folder(segmenter, pictures[:2], out, num_workers=0, save_images=True)
        left = [out / "masks" / ".1.abcd_123.png", out / "masks" / "a" / ".x.y.00000000.png",
                out / "images" / ".00003_3.zzzzzzzz.jpg", out / ".predictions.abcdefgh.csv",
                out / "..predictions.pictures.abcdefgh.jsonl"]  # fmt: skip
        (out / "masks" / "a").mkdir()
        for path in left:
            path.write_bytes(b"half")
        (out / "masks" / ".mine.png").touch()
        predict_to_folder(segmenter, pictures, out, num_workers=0, save_images=True, resume=True)
        assert [p for p in left if p.exists()] == []
        assert (out / "masks" / ".mine.png").exists(), "it is no name that a writer gives"


def test_int8_learns_from_all_pictures(ckpt, pictures, tmp_path, monkeypatch):
    """Other pictures to learn from are another model."""
    monkeypatch.setattr("visionkit.prediction.files.check_backend", lambda *given: None)
    made = "visionkit.prediction.files.make_applied"
    monkeypatch.setattr(made, lambda members, *given, **more: Predictor(members.models[0]))
    more = {"precision": "int8", "backend": "openvino", "num_workers": 0, "device": "cpu"}
    predict_to_folder(ckpt, pictures[:2], tmp_path / "out", **more)
    assert predict_to_folder(ckpt, pictures[:2], tmp_path / "out", resume=True, **more).count == 2
    with pytest.raises(UsageError, match="made with another list of pictures to learn ranges from;"):
        predict_to_folder(ckpt, pictures, tmp_path / "out", resume=True, **more)
    with pytest.raises(UsageError, match="made with another list of pictures to learn ranges from;"):
        predict_to_folder(ckpt, pictures[:2], tmp_path / "out", resume=True, calibrate=pictures, **more)
