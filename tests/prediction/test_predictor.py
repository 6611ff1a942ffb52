"""Predictor: samples in, predictions out, whatever computes them and through whatever views."""

import gc
import json
import sys
import weakref

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import (
    Backbone,
    BoxPrediction,
    DataError,
    FeatureSpec,
    Head,
    ImageInfo,
    InstancePrediction,
    LinearHead,
    MaskRCNNHead,
    MultiTaskPrediction,
    Prediction,
    Predictor,
    Preprocessing,
    Sample,
    UsageError,
    Views,
    VisionModel,
    convert,
)
from visionkit.prediction import pictures as pictures_module
from visionkit.prediction.backends import available
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.run_output import Results
from visionkit.prediction.stream import results_of


class Light(Backbone):
    """The first channel, 0..1, of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = FeatureSpec((1,), (1,))
        self.in_channels, self.mean, self.std = 3, (0.0,) * 3, (1.0,) * 3

    def forward(self, x):
        return [x[:, :1]]


class Blobs(Head):
    """Finds each bright rectangle as a box with a mask; a classifier of what is bright on average, too."""

    prediction = InstancePrediction
    columns = MaskRCNNHead.columns
    writers = MaskRCNNHead.writers
    scored = True

    def __init__(self, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()

    def forward(self, features):
        return features[0]

    def decode(self, outputs):
        found = []
        for light in outputs.numpy():
            count, _, stats, _ = cv2.connectedComponentsWithStats(np.uint8(light[0] > 0.5))
            boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]], dtype=torch.float32)
            boxes = boxes.reshape(-1, 4)
            scores = torch.linspace(0.9, 0.8, count - 1)
            labels = torch.zeros(count - 1, dtype=torch.int64)
            full = torch.ones(count - 1, 28, 28)
            found.append(InstancePrediction(boxes, scores, labels, masks=full, frames=boxes))
        return found


def detector(size=64):
    return VisionModel(Light(), Blobs, ["bright"], preprocessing=Preprocessing(size, resize="letterbox")).eval()


def sample_of(pixels, name="a.png"):
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), None, ImageInfo(name, pixels.shape[:2]))


def random_samples(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, (count, 2))
    return [sample_of(rng.integers(0, 256, (*size, 3), dtype=np.uint8), f"{k}.png") for k, size in enumerate(sizes)]


def expected(model, sample):
    return model.predict(model.preprocessing(sample).image[None])[0].probabilities


class TestSamples:
    @pytest.mark.parametrize("batch_size", [1, 3, 100, None])
    def test_one_prediction_a_sample_in_order(self, tiny_model, batch_size):
        samples = random_samples(7)
        found = list(Predictor(tiny_model, precision="32", batch_size=batch_size)(samples))
        assert len(found) == 7
        for sample, prediction in zip(samples, found, strict=True):
            torch.testing.assert_close(prediction.probabilities, expected(tiny_model, sample))

    @pytest.mark.parametrize("backend", ["openvino", "onnx"])
    def test_backends_say_the_same(self, tiny_model, backend):
        for package in available.PACKAGES[backend]:
            pytest.importorskip(package)
        samples = random_samples(5)
        found = Predictor(tiny_model, backend, "32", Views(flip=True), batch_size=4)(samples)
        plain = Predictor(tiny_model, "torch", "32", Views(flip=True), batch_size=4)(samples)
        for a, b in zip(found, plain, strict=True):
            torch.testing.assert_close(a.probabilities, b.probabilities, atol=1e-4, rtol=0)

    def test_int8_learns_from_samples(self, tiny_model):
        pytest.importorskip("nncf")
        pytest.importorskip("openvino")
        samples, told = random_samples(6), []
        predictor = Predictor(tiny_model, "openvino", "int8", calibration=samples, tell=told.append)
        assert told[0].startswith("int8: ranges from 6 pictures; on the same ")
        for sample, prediction in zip(samples, predictor(samples), strict=True):
            assert prediction.probabilities.tolist() == pytest.approx(expected(tiny_model, sample).tolist(), abs=0.1)

    def test_what_int8_wants(self, tiny_model):
        with pytest.raises(UsageError, match="samples to calibrate with are for precision int8 alone"):
            Predictor(tiny_model, calibration=random_samples(1))
        with pytest.raises(UsageError, match="int8 alone"):
            Predictor(convert(tiny_model), "openvino", "int8", calibration=random_samples(1))

    def test_int8_without_samples(self, tiny_model):
        pytest.importorskip("nncf")
        pytest.importorskip("openvino")
        with pytest.raises(DataError, match=r"no picture to learn ranges from can be read \(there are none\)"):
            Predictor(tiny_model, "openvino", "int8")

    def test_it_is_used_again(self, tiny_model):
        predictor, samples = Predictor(tiny_model, precision="32", batch_size=2), random_samples(3)
        first, second = list(predictor(samples)), list(predictor(samples[::-1]))
        for a, b in zip(first, second[::-1], strict=True):
            torch.testing.assert_close(a.probabilities, b.probabilities)

    def test_samples_are_asked_for_as_batches_need_them(self, tiny_model):
        given = []

        def source():
            for sample in random_samples(9):
                given.append(sample)
                yield sample

        found = Predictor(tiny_model, batch_size=2)(source())
        next(found)
        assert len(given) == 2
        next(found), next(found)
        assert len(given) == 4

    def test_targets_are_left_alone(self, tiny_model):
        class Mine:
            def place(self, *_):
                raise AssertionError

        (sample,) = random_samples(1)
        predictor = Predictor(tiny_model, precision="32")
        ((back, _),) = predictor.results([predictor.prepare(sample.replace(target=Mine()), keep=True)])
        assert isinstance(back.target, Mine)

    @pytest.mark.parametrize("views", [None, Views(flip=True), Views(window=24)])
    def test_pixels_come_back_when_they_are_wanted(self, tiny_model, views):
        (sample,) = random_samples(1)
        predictor = Predictor(tiny_model, views=views)
        ((kept, _),) = predictor.results([predictor.prepare(sample, keep=True)])
        assert kept is sample
        ((bare, _),) = predictor.results([predictor.prepare(sample, keep=False)])
        assert (bare.info, bare.image.numel(), bare.image.untyped_storage().nbytes()) == (sample.info, 0, 0)

    def test_pixels_are_dropped_early(self, tiny_model):
        """Of pictures that nobody draws on, only what the network sees waits for its batch."""
        (sample,) = random_samples(1)
        alive = weakref.ref(sample.image)
        prepared = Predictor(tiny_model).prepare(sample, keep=False)
        del sample
        gc.collect()
        assert alive() is None
        assert len(prepared.views) == 1

    def test_what_could_not_be_read_goes_through(self, tiny_model):
        predictor, fault = Predictor(tiny_model, batch_size=2), DataError("a.png: broken")
        made = [predictor.prepare(s, keep=False) for s in random_samples(3)]
        found = list(predictor.results([fault, made[0], fault, made[1], made[2]]))
        assert [isinstance(f, DataError) for f in found] == [True, False, True, False, False]

    def test_wrong_channels(self, tiny_model):
        grey = sample_of(np.zeros((30, 30, 1), np.uint8), "grey.png")
        with pytest.raises(DataError, match=r"^grey\.png: image of shape \(1, 30, 30\)"):
            list(Predictor(tiny_model)([grey]))

    def test_training_mode(self, tiny_model):
        with pytest.raises(UsageError, match=r"model\.eval"):
            Predictor(tiny_model.train())


# ---- every task through views


def scene(size, *boxes):
    pixels = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 255
    return pixels


BOXES = ((50, 10, 90, 40), (10, 55, 30, 75), (100, 60, 180, 180), (40, 130, 70, 150), (120, 5, 128, 13))


@pytest.mark.parametrize(
    "views",
    [Views(window=64), Views(window=64, overlap=0.5), Views(True, (1.0,), 96), Views(window=100, overlap=0.4)],
)
def test_objects_across_seams_are_one(views):
    """Rectangles, some cut by windows and one larger than a window: each is found once, in its place, with its mask."""
    pixels = scene((190, 210), *BOXES)
    window = views.window
    (found,) = Predictor(detector(window), precision="32", views=views)([sample_of(pixels)])
    assert sorted(tuple(b) for b in found.boxes.round().int().tolist()) == sorted(BOXES)
    torch.testing.assert_close(found.boxes, found.boxes.round(), atol=0.01, rtol=0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in found.boxes.int().tolist()]
    assert found.pasted.areas().tolist() == pytest.approx(areas, rel=0.06), "masks of fragments add up"
    assert (found.scores > 0.4).all()


@pytest.mark.parametrize("views", [Views(flip=True), Views(scales=(1.0, 2.0)), Views(True, (1.0, 0.5))])
def test_objects_of_whole_views(views):
    pixels = scene((190, 210), *BOXES[:4])
    (found,) = Predictor(detector(224), precision="32", views=views)([sample_of(pixels)])
    assert len(found) == 4
    truth = torch.tensor(sorted(BOXES[:4]), dtype=torch.float32)
    torch.testing.assert_close(found.boxes[found.boxes[:, 0].argsort()], truth, atol=2.5, rtol=0)
    assert (found.scores > 0.75).all(), "each view finds it"


def test_a_classifier_says_the_mean(tiny_model):
    (sample,) = random_samples(1)
    (found,) = Predictor(tiny_model, precision="32", views=Views(flip=True))([sample])
    plain = tiny_model.preprocessing(sample).image
    both = torch.stack([tiny_model.predict(x[None])[0].probabilities for x in (plain, plain.flip(2))])
    torch.testing.assert_close(found.probabilities, both.mean(0))


def test_a_joint_model_merges_head_by_head(monkeypatch):
    model = detector(64)
    alone = type(model.head).decode
    monkeypatch.setattr(Blobs, "decode", lambda s, o: [MultiTaskPrediction({"a": p, "b": p}) for p in alone(s, o)])
    (found,) = Predictor(model, precision="32", views=Views(window=64))([sample_of(scene((190, 210), *BOXES))])
    assert {name: len(part) for name, part in found.parts.items()} == {"a": 5, "b": 5}


# ---- files


@pytest.fixture
def opened():
    """Count how often files are opened in this process, by path."""
    counts: dict[str, int] = {}
    active = [True]

    def hook(event, arguments):
        if active[0] and event == "open" and isinstance(arguments[0], str | bytes):
            path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()
            counts[path] = counts.get(path, 0) + 1

    sys.addaudithook(hook)  # it cannot be taken away again
    yield counts
    active[0] = False


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for k, sample in enumerate(random_samples(5)):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(tmp_path / "in" / f"{k}.png")
    return [ImageFile(str(path)) for path in sorted((tmp_path / "in").iterdir())]


@pytest.mark.parametrize("views", [None, Views(flip=True), Views(window=24)])
@pytest.mark.parametrize("workers", [0, 2])
def test_no_picture_is_opened_twice(tiny_model, pictures, tmp_path, opened, views, workers):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    predict_to_folder(
        tmp_path / "m.ckpt", pictures, tmp_path / "out", save_images=True, views=views, num_workers=workers
    )
    assert [opened.get(p.path) for p in pictures] == [1] * 5
    assert len(list((tmp_path / "out" / "images").iterdir())) == 5


def test_saved_pictures_are_the_pixels_that_were_predicted(tiny_model, pictures, tmp_path, monkeypatch):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    drawn = {}
    monkeypatch.setattr(
        visionkit.ClassPrediction, "draw", lambda self, image, names: drawn.setdefault(len(drawn), image)
    )
    predict_to_folder(tmp_path / "m.ckpt", pictures, tmp_path / "out", save_images=True, batch_size=2)
    for k, picture in enumerate(pictures):
        assert torch.equal(drawn[k], torch.from_numpy(visionkit.read_image(picture.path)).permute(2, 0, 1))


def test_grey_models_draw_on_grey(tmp_path):
    class Grey(Light):
        def __init__(self):
            super().__init__()
            self.in_channels, self.mean, self.std = 1, (0.0,), (1.0,)

    model = VisionModel(Grey(), Blobs, ["bright"], preprocessing=Preprocessing(64, channels=1)).eval()
    Image.fromarray(scene((64, 64), (10, 10, 40, 40))).save(tmp_path / "a.png")
    (tmp_path / "any.ckpt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visionkit.models.checkpoint.load", lambda *_, **__: model)
        predict_to_folder(
            tmp_path / "any.ckpt", [ImageFile(str(tmp_path / "a.png"))], tmp_path / "out", save_images=True
        )
    with Image.open(tmp_path / "out" / "images" / "00000_a.jpg") as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))


def test_few_whole_pictures_wait(tiny_model, pictures, tmp_path, monkeypatch):
    """What is read ahead of what is written stays a batch and a little, however many pictures there are."""
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    read, written, most = [], [], []
    original = pictures_module.load_image

    def load(path, **options):
        read.append(path)
        most.append(len(read) - len(written))
        return original(path, **options)

    real = Results.opened
    monkeypatch.setattr(pictures_module, "load_image", load)

    def opened(self, extra, before=None):
        self.writers.append(Counted())
        return real(self, extra, before)

    class Counted:
        outputs = ()

        def add(self, info, prediction):
            written.append(info.id)

        def finish(self):
            pass

    monkeypatch.setattr(Results, "opened", opened)
    predict_to_folder(
        tmp_path / "m.ckpt", pictures * 20, tmp_path / "out", save_images=True, batch_size=2, num_workers=2
    )
    assert len(read) == len(written) == 100
    assert max(most) <= 2 * 2 + 2 * 2 + 4


def test_windows_of_a_detector_to_a_folder(tmp_path, monkeypatch):
    model = detector(64)
    monkeypatch.setattr("visionkit.models.checkpoint.load", lambda *_, **__: model)
    Image.fromarray(scene((190, 210), *BOXES)).save(tmp_path / "a.png")
    (tmp_path / "any.ckpt").touch()
    done = predict_to_folder(
        tmp_path / "any.ckpt", [ImageFile(str(tmp_path / "a.png"))], tmp_path / "out", views=Views(window=64), precision="32",
        formats=["coco", "yolo"], save_images=True, min_score=0.5,
    )  # fmt: skip
    record = json.loads(done.records.read_text())
    assert len(record["objects"]) == 5
    assert len(json.loads((tmp_path / "out" / "predictions.coco.json").read_text())) == 5
    again = model.head.from_record(record, model.classes)
    assert isinstance(again, InstancePrediction)
    assert again.record(model.classes) == {k: record[k] for k in ("width", "height", "objects")}


def test_files_and_samples_say_the_same(tiny_model, pictures):
    samples = [sample_of(visionkit.read_image(p.path), p.path) for p in pictures]
    by_file = [p for _, p in results_of(tiny_model, pictures, precision="32", batch_size=2)]
    for a, b in zip(Predictor(tiny_model, precision="32", batch_size=2)(samples), by_file, strict=True):
        assert torch.equal(a.probabilities, b.probabilities)


def test_a_head_that_says_nothing_of_writing():
    assert (dict(Head.writers), Head.standard, Head.columns, Head.scored) == ({}, (), (), False)
    assert Head.prediction is Prediction
    assert LinearHead.prediction.__mro__[1] is Prediction
    assert issubclass(InstancePrediction, BoxPrediction)
