"""A loaded model says the same as visionkit predict, bit for bit, of whatever form a picture has."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import visionkit
from visionkit import (
    FPN,
    DataError,
    DeepLabV3PlusHead,
    FCOSHead,
    LinearHead,
    MaskRCNNHead,
    Preprocessing,
    ResNet,
    UsageError,
    VisionModel,
)
from visionkit.data.images.reading import list_images
from visionkit.prediction.files import ImageFile, predict_to_folder

TASKS = {
    "classification": lambda: VisionModel(ResNet(18), LinearHead, "abc", preprocessing=Preprocessing(64)),
    "boxes": lambda: VisionModel(
        ResNet(18),
        partial(FCOSHead, channels=32, score_threshold=0.0),
        "abc",
        FPN,
        preprocessing=Preprocessing(96, resize="letterbox"),
    ),
    "masks": lambda: VisionModel(
        ResNet(18),
        partial(MaskRCNNHead, width=64, score_threshold=0.0, detections=10),
        "abc",
        partial(FPN, channels=32, min_level=2, max_level=6, extra="pool"),
        preprocessing=Preprocessing((64, 96), resize="letterbox"),
    ),
    "segmentation": lambda: VisionModel(
        ResNet(18, output_stride=16), DeepLabV3PlusHead, "abc", preprocessing=Preprocessing(64)
    ),
}


def saved(task, folder):
    """Return a checkpoint of a model of random weights, whose norms have seen something."""
    torch.manual_seed(0)
    model = TASKS[task]().train()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8, generator=generator)
        model.neck(model.backbone(model.normalise(images)))
    visionkit.save(model.eval(), folder / f"{task}.ckpt")
    return folder / f"{task}.ckpt"


def records(ckpt, photos, out, **more):
    run = predict_to_folder(ckpt, [ImageFile(str(p)) for p in photos], out, **more)
    assert not run.problems
    return [json.loads(line) for line in run.records.read_text(encoding="utf-8").splitlines()]


def forms(path):
    """Return a picture in each form in which it can be given."""
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    return {
        "str": str(path),
        "path": Path(path),
        "pil": Image.open(path),
        "array": upright,
        "tensor": torch.from_numpy(upright.copy()).permute(2, 0, 1),
    }


def compared(task, photos, folder, precision="auto"):
    """Compare all forms of all photos with what the command writes; return how many were equal."""
    ckpt = saved(task, folder)
    written = records(ckpt, photos, folder / task)
    model = visionkit.load(ckpt)
    equal = 0
    for path, record in zip(photos, written, strict=True):
        for name, form in forms(path).items():
            found = {"image": str(path), **model.predict(form).record(model.classes)}
            assert json.loads(json.dumps(found)) == record, f"{path} as {name}"
            equal += 1
    for several in ([str(p) for p in photos], [forms(p)["array"] for p in photos]):
        found = [p.record(model.classes) for p in model.predict(several)]
        assert [{"image": str(p), **json.loads(json.dumps(r))} for p, r in zip(photos, found, strict=True)] == written
        equal += len(photos)
    return equal


@pytest.fixture
def photos(tmp_path):
    """Eleven pictures of all kinds: two batches and a rest, larger and smaller than models see."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(11):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize(
            (rng.integers(40, 300), rng.integers(40, 300)), Image.Resampling.BICUBIC
        )
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        kinds = {3: ("L", "png"), 5: ("P", "png"), 7: ("RGBA", "png"), 8: ("CMYK", "jpg"), 9: ("1", "png")}
        mode, suffix = kinds.get(i, ("RGB", "jpg"))
        picture.convert(mode).save(folder / f"{i:02d}.{suffix}", exif=exif)
    rgba = Image.open(folder / "07.png")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rgba.save(folder / "07.png")
    return [str(p) for p in list_images(folder)]


@pytest.mark.parametrize("task", TASKS)
def test_each_form_of_a_picture_is_predicted_as_by_the_command(task, photos, tmp_path):
    plain = [p for p in photos if not p.endswith("07.png")]  # whose arrays have no alpha
    assert compared(task, plain, tmp_path) == 70


def test_transparency_and_modes_are_read_as_from_files(photos, tmp_path):
    ckpt = saved("classification", tmp_path)
    model = visionkit.load(ckpt)
    for path, record in zip(photos, records(ckpt, photos, tmp_path / "out"), strict=True):
        found = model.predict(Image.open(path)).record(model.classes)
        assert found["probabilities"] == record["probabilities"], path


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_a_picture_has_the_same_digits_alone_and_among_others(task, photos, tmp_path, precision):
    ckpt = saved(task, tmp_path)
    together = records(ckpt, photos, tmp_path / "8", precision=precision, batch_size=8)
    assert records(ckpt, photos, tmp_path / "3", precision=precision, batch_size=3) == together
    assert records(ckpt, photos, tmp_path / "1", precision=precision, batch_size=1) == together


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_hundred_photos(task, data_root, tmp_path):
    photos = [str(p) for p in list_images(data_root / "coco128" / "images")[:100]]
    assert compared(task, photos, tmp_path) == 700


class TestWhatIsGiven:
    @pytest.fixture
    def model(self, tiny_model, tmp_path):
        visionkit.save(tiny_model, tmp_path / "m.ckpt")
        return visionkit.load(tmp_path / "m.ckpt")

    def test_one_gives_one_and_several_give_a_list(self, model):
        one = np.zeros((40, 50, 3), np.uint8)
        assert model.predict(one).probabilities.shape == (3,)
        assert model.predict(torch.zeros(3, 40, 50, dtype=torch.uint8)).probabilities.shape == (3,)
        for several, count in (
            ([one], 1),
            ((one, one[:20]), 2),
            (torch.zeros(2, 3, 9, 9, dtype=torch.uint8), 2),
            ([], 0),
        ):
            found = model.predict(several)
            assert isinstance(found, list)
            assert len(found) == count
        assert len(model.predict(torch.zeros(0, 3, 9, 9, dtype=torch.uint8))) == 0

    def test_arrays_in_any_memory(self, model):
        array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        expected = model.predict(array).probabilities
        fixed = array.copy()
        fixed.flags.writeable = False
        for same in (
            fixed,
            np.asfortranarray(array),
            array[:, :, ::-1].copy()[:, :, ::-1],
            torch.from_numpy(array).permute(2, 0, 1),
        ):
            assert torch.equal(model.predict(same).probabilities, expected)

    def test_grey_arrays(self, model):
        grey = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
        expected = model.predict(np.stack([grey] * 3, 2)).probabilities
        for same in (grey, grey[:, :, None], torch.from_numpy(grey)[None], Image.fromarray(grey)):
            assert torch.equal(model.predict(same).probabilities, expected)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (
                np.zeros((8, 8, 3)),
                "an array of float64 is no picture: values are uint8, 0..255; give a path, a PIL image",
            ),
            (torch.zeros(3, 8, 8), "a tensor of float32 is no picture"),
            (torch.zeros(2, 3, 8, 8), "picture 0: a tensor of float32 is no picture"),
            (np.zeros((8, 8), np.int64), "an array of int64"),
            (np.zeros((8, 8), bool), "an array of bool"),
            (np.zeros((3, 8, 8), np.uint8), r"an array of shape \[3, 8, 8\] is no picture: \[H, W, C\] with C 3"),
            (np.zeros((8, 8, 4), np.uint8), r"an array of shape \[8, 8, 4\]"),
            (np.zeros((1, 8, 8, 3), np.uint8), r"an array of shape \[1, 8, 8, 3\]"),
            (np.zeros((0, 8, 3), np.uint8), r"an array of shape \[0, 8, 3\]"),
            (torch.zeros(8, 8, 3, dtype=torch.uint8), r"a tensor of shape \[8, 8, 3\] is no picture: \[C, H, W\]"),
            (torch.zeros(8, 8, dtype=torch.uint8), r"a tensor of shape \[8, 8\]"),
            (3, "an int is no picture"),
            (None, "None is no picture"),
            (b"bytes", "a bytes is no picture"),
            ({"image": "a.png"}, "a dict is no picture"),
            ([[np.zeros((8, 8, 3), np.uint8)]], "picture 0: a list is no picture"),
            ([np.zeros((8, 8, 3), np.uint8), 1.5], "picture 1: a float is no picture"),
        ],
    )
    def test_what_is_no_picture_is_one_line(self, model, given, words):
        with pytest.raises(UsageError, match=words) as raised:
            model.predict(given)
        assert "\n" not in str(raised.value)

    def test_files_that_are_none(self, model, tmp_path):
        (tmp_path / "text.png").write_text("text")
        for path, words in (
            (tmp_path / "missing.png", "no such file"),
            (tmp_path, "is a folder"),
            (tmp_path / "text.png", "text.png: "),
        ):
            with pytest.raises(DataError, match=words) as raised:
                model.predict(str(path))
            assert str(path) in str(raised.value)
            assert "\n" not in str(raised.value)

    def test_a_picture_that_would_start_a_program(self, model, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
        with pytest.raises(DataError, match="the picture: is an EPS file, which is not read"):
            model.predict(Image.open(tmp_path / "a.eps"))

    def test_an_array_is_not_changed(self, model):
        array = np.full((32, 32, 3), 7, np.uint8)
        model.predict(array)
        assert (array == 7).all()


def test_a_model_that_learns_on_predicts_with_its_new_weights(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    model = visionkit.load(tmp_path / "m.ckpt")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    before = model.predict(picture).probabilities
    again = copy.deepcopy(model)
    assert torch.equal(again.predict(picture).probabilities, before)
    with torch.no_grad():
        model.head.classifier[1].bias[0] += 3
    assert float(model.predict(picture).probabilities[0]) > float(before[0]) + 0.1
    assert torch.equal(again.predict(picture).probabilities, before)
    with pytest.raises(UsageError, match="training mode"):
        model.train().predict(picture)


def test_a_loaded_model_is_called_with_pictures(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(tmp_path / "a.png")
    for model in (visionkit.load(tmp_path / "m.ckpt"), visionkit.convert(visionkit.load(tmp_path / "m.ckpt"))):
        expected = model.predict(str(tmp_path / "a.png")).probabilities
        for form in forms(tmp_path / "a.png").values():
            assert torch.equal(model(form).probabilities, expected), "one picture, one prediction"
        (found,) = model([tmp_path / "a.png"])
        assert torch.equal(found.probabilities, expected)
        batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        outputs = model(batch)
        assert torch.is_tensor(outputs[0]), "a batch goes through the network, as with any module"
        assert torch.equal(outputs[0], model.forward(batch)[0])


def test_a_run_folder_is_loaded_by_its_name(tiny_model, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    visionkit.save(tiny_model, tmp_path / "run" / "checkpoints" / "best.ckpt")
    picture = np.full((30, 40, 3), 200, np.uint8)
    assert visionkit.load(tmp_path / "run")(picture).record(tiny_model.classes)["label"] in tiny_model.classes
