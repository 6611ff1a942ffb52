import csv
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import visionkit
from visionkit import Backbone, DataError, FeatureSpec, Head, ImageInfo, Preprocessing, Sample, UsageError, VisionModel
from visionkit.core.prediction import Prediction
from visionkit.prediction import pictures as pictures_module
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.stream import results_of
from visionkit.prediction.views import Views
from visionkit.tasks.segmentation.types import MaskPrediction
from visionkit.tasks.segmentation.writers import WRITERS

STRIDE = 4
COLOURS = ((230, 30, 30), (30, 230, 30), (30, 30, 230))


class Colours(Backbone):
    """The mean colour of cells of 4 pixels."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.features = FeatureSpec((in_channels,), (STRIDE,))
        self.in_channels = in_channels
        self.mean, self.std = (0.0,) * in_channels, (1.0,) * in_channels
        self.pool = nn.AvgPool2d(STRIDE, ceil_mode=True, count_include_pad=False)

    def forward(self, x):
        return [self.pool(x)]


class Brightest(Head):
    """Takes the colour of a cell for its scores."""

    prediction = MaskPrediction
    writers = WRITERS
    standard = ("mask",)

    def __init__(self, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.number = num_classes

    def forward(self, features):
        scores = features[0] * 20
        return scores if scores.shape[1] > 1 else torch.cat([10 - scores, scores - 10, scores * 0 - 99], 1)

    def decode(self, outputs):
        return [MaskPrediction.of(scores, STRIDE) for scores in outputs]


def segmenter(size=(64, 96), **options):
    preprocessing = Preprocessing(size, **options)
    backbone = Colours(preprocessing.channels)
    return VisionModel(backbone, Brightest, ["r", "g", "b"], preprocessing=preprocessing).eval()


def sample_of(pixels, name="a.png"):
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), None, ImageInfo(name, pixels.shape[:2]))


def blocks(height, width, cells=(3, 4), seed=0):
    """A picture of blocks of three colours; the class of each pixel; and how far the next border is, in pixels."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, cells)
    y, x = np.arange(height) * cells[0] // height, np.arange(width) * cells[1] // width
    mask = kinds[y[:, None], x[None]]
    edges = [np.flatnonzero(np.diff(v)) + 1 for v in (y, x)]
    away = [
        np.abs(np.arange(n)[:, None] + 0.5 - e[None]).min(1) if len(e) else np.full(n, 1e9)
        for n, e in zip((height, width), edges, strict=True)
    ]
    return np.asarray(COLOURS, np.uint8)[mask], mask, np.minimum(away[0][:, None], away[1][None])


def written(tmp_path, *pictures):
    found = []
    for i, pixels in enumerate(pictures):
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(path)
        found.append(ImageFile(str(path), {"n": i}))
    return found


def predict(model, pictures, **options):
    return list(results_of(model, pictures, precision="32", **options))


# ---- windows


@settings(max_examples=300)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    window=st.one_of(st.none(), st.integers(16, 300), st.tuples(st.integers(16, 300), st.integers(16, 300))),
    overlap=st.floats(0, 0.9),
)
def test_windows_cover_the_picture(size, window, overlap):
    regions = Views(window=window, overlap=overlap).regions(size)
    edges = size if window is None else (window, window) if isinstance(window, int) else window
    full = tuple(min(a, b) for a, b in zip(edges, size, strict=True))
    assert len(set(regions)) == len(regions)
    for axis in (0, 1):
        spans = sorted({(r[axis], r[axis + 2]) for r in regions})
        assert spans[0][0] == 0
        assert spans[-1][1] == size[axis]
        for (start, end), following in zip(spans, [*spans[1:], None], strict=True):
            assert end - start == full[axis], "all have the full size"
            if following is not None:
                assert following[0] <= end, "no gap"
                assert end - following[0] >= overlap * full[axis] - 1
    assert len(regions) == len({r[0] for r in regions}) * len({r[1] for r in regions}), "a grid"


@pytest.mark.parametrize(
    ("views", "size", "regions"),
    [
        (Views(), (30, 50), [(0, 0, 30, 50)]),
        (Views(window=64), (30, 50), [(0, 0, 30, 50)]),
        (Views(window=64, overlap=0), (64, 128), [(0, 0, 64, 64), (0, 64, 64, 128)]),
        (Views(window=64, overlap=0), (50, 150), [(0, 0, 50, 64), (0, 64, 50, 128), (0, 86, 50, 150)]),
        (Views(window=(20, 64), overlap=0.5), (41, 64), [(0, 0, 20, 64), (10, 0, 30, 64), (20, 0, 40, 64), (21, 0, 41, 64)]),
    ],
)  # fmt: skip
def test_windows_by_hand(views, size, regions):
    assert views.regions(size) == regions


@pytest.mark.parametrize(
    ("size", "scales", "sizes"),
    [
        ((100, 130), (1.0,), [(100, 130)]),
        ((64, 96), (0.5, 1, 1.5), [(32, 64), (64, 96), (96, 160)]),
        ((64, 96), (0.1, 0.01, 1.0, 1), [(32, 32), (64, 96)]),
        ((512, 512), (0.75, 1.25, 1.26), [(384, 384), (640, 640)]),
    ],
)
def test_sizes(size, scales, sizes):
    preprocessing = Preprocessing(size, resize="letterbox", denoise="median", denoise_strength=2.0, channels=1)
    made = Views(scales=scales).preprocessings(preprocessing)
    assert [p.size for p in made] == sizes
    for p in made:
        assert (p.resize, p.denoise, p.denoise_strength, p.channels) == ("letterbox", "median", 2.0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"scales": ()},
        {"scales": (0.0,)},
        {"scales": (1.0, -1.0)},
        {"scales": (9.0,)},
        {"scales": (float("nan"),)},
        {"scales": 1.0},
        {"scales": "1"},
        {"window": 0},
        {"window": 15},
        {"window": 64.0},
        {"window": (64,)},
        {"window": "64"},
        {"window": (64, 0)},
        {"overlap": -0.1},
        {"overlap": 0.95},
        {"overlap": float("nan")},
    ],
)
def test_bad_values(options):
    with pytest.raises(UsageError, match=f"^{next(iter(options))}=") as raised:
        Views(**options)
    assert "\n" not in str(raised.value)


# ---- what the network sees, and the way back


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("shape", [(97, 141), (40, 300), (13, 9)])
def test_one_view_is_the_picture_as_always(resize, shape):
    preprocessing = Preprocessing((64, 96), resize=resize)
    sample = sample_of(blocks(*shape)[0])
    ((view, region),) = Views()(sample, preprocessing)
    plain = preprocessing(sample)
    assert torch.equal(view.image, plain.image)
    assert (view.info, region) == (plain.info, (0, 0, *shape))


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(64, 96), (50, 75), (31, 33)])
@pytest.mark.parametrize("window", [None, (40, 64)])
def test_a_mirrored_view_comes_back_unmirrored(resize, size, window):
    model = segmenter(size, resize=resize)
    pixels = np.random.default_rng(0).integers(0, 256, (83, 121, 3), dtype=np.uint8)
    views = list(Views(flip=True, window=window)(sample_of(pixels), model.preprocessing))
    assert len(views) == (2 if window is None else 2 * len(Views(window=window).regions((83, 121))))
    for (plain, region), (mirror, again) in zip(views[::2], views[1::2], strict=True):
        assert region == again
        assert torch.equal(mirror.image, plain.image.flip(2))
        assert mirror.image.permute(1, 2, 0).is_contiguous()
        there, back = (model.decode(v.image[None])[0].restore(v.info) for v in (plain, mirror))
        assert there.size == back.size == (83, 121)
        if size[1] % STRIDE == 0:  # the same cells
            torch.testing.assert_close(there.probabilities(), back.probabilities(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("shape", [(150, 210), (75, 400), (300, 61)])
@pytest.mark.parametrize("scales", [(1.0,), (0.6, 1.7)])
def test_each_view_alone_is_right_within_its_region(resize, shape, scales):
    model = segmenter(resize=resize)
    pixels, mask, away = blocks(*shape)
    checked = np.zeros(shape, int)
    for view, (top, left, bottom, right) in Views(True, scales, 80, 0.3)(sample_of(pixels), model.preprocessing):
        found = model.decode(view.image[None])[0].restore(view.info)
        assert found.size == shape
        cell = max(STRIDE / abs(s) for s in view.info.scale)  # in pixels of the picture
        inside = np.zeros(shape, bool)
        inside[top:bottom, left:right] = True
        sure = inside & (away > cell / 2 + 2)
        assert (found.labels.numpy() == mask)[sure].all()
        checked += sure
    assert (checked > 0).mean() > 0.4


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_borders_stay_where_they_are(resize):
    """The picture turns from one class to the other at a line; each view finds it to a pixel."""
    model = segmenter(resize=resize)
    for line in (61, 100, 131):
        pixels = np.full((120, 200, 3), COLOURS[0], np.uint8)
        pixels[:, line:] = COLOURS[1]
        for view, (_, left, _, right) in Views(True, (1.0, 1.5), 90, 0.5)(sample_of(pixels), model.preprocessing):
            if left + 10 < line < right - 10:
                found = model.decode(view.image[None])[0].restore(view.info).labels[60, left:right]
                assert abs(int((found == 0).sum()) - (line - left)) <= 2


# ---- predictions


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize(
    "views",
    [
        Views(flip=True),
        Views(scales=(0.75, 1.0, 1.5)),
        Views(window=80),
        Views(window=80, overlap=0),
        Views(window=(50, 500), overlap=0.9),
        Views(True, (0.75, 1.25), 100, 0.5),
    ],
)
def test_views_say_what_the_picture_says(tmp_path, resize, views):
    if resize == "crop" and (views.window is None or isinstance(views.window, tuple)):
        pytest.skip("what is cut off is not seen")
    model = segmenter((64, 64) if resize == "crop" else (64, 96), resize=resize)
    pictures = [blocks(*shape, seed=i) for i, shape in enumerate(((150, 210), (90, 300), (161, 99)))]
    found = predict(model, written(tmp_path, *(p[0] for p in pictures)), views=views, batch_size=5)
    plain = predict(model, written(tmp_path, *(p[0] for p in pictures)))
    assert [info.extra["n"] for info, _ in found] == [0, 1, 2]
    for (info, several), (_, one), (_, mask, away) in zip(found, plain, pictures, strict=True):
        assert info.size == several.size == mask.shape
        cell = 1.5 * STRIDE * max(mask.shape[0] / 64, mask.shape[1] / model.preprocessing.size[1])
        assert (several.labels.numpy() == mask)[away > cell].all()
        if resize != "crop":
            assert torch.equal(several.labels[away > cell], one.labels[away > cell])


def test_windows_see_what_the_whole_picture_is_too_small_for(tmp_path):
    pixels, mask, away = blocks(640, 640, (40, 40))
    pictures = written(tmp_path, pixels)
    ((_, one),) = predict(segmenter((64, 64)), pictures)
    ((_, several),) = predict(segmenter((64, 64)), pictures, views=Views(window=128))
    assert (one.labels.numpy() == mask)[away > 6].mean() < 0.9
    assert (several.labels.numpy() == mask)[away > 6].all()


@pytest.mark.parametrize("shape", [(5, 7), (1, 40), (40, 1), (200, 1), (1, 1)])
@pytest.mark.parametrize("views", [Views(window=64), Views(True, (0.5, 1.0), 16, 0.5)])
def test_small_pictures(tmp_path, shape, views):
    pixels, mask, _ = blocks(*shape, (1, 1))
    pictures = written(tmp_path, pixels)
    ((_, found),) = predict(segmenter(), pictures, views=views)
    assert (found.labels.numpy() == mask).all()
    ((_, plain),) = predict(segmenter(), pictures)
    if not views.flip and max(shape) <= 64:
        assert torch.equal(found.probabilities(), plain.probabilities()), "one window is the picture"


def test_grey_pictures(tmp_path):
    pixels = np.zeros((90, 140, 1), np.uint8)
    pixels[:, 60:] = 255
    ((_, found),) = predict(segmenter(channels=1), written(tmp_path, pixels), views=Views(True, (0.75, 1.0), 64))
    truth = (pixels[..., 0] > 0).astype(int)
    assert (found.labels.numpy() == truth)[:, np.abs(np.arange(140) - 60) > 4].all()


def test_several_bands(tmp_path):
    pixels = np.zeros((70, 90, 5), np.uint8)
    pixels[:, :40, 1], pixels[:, 40:, 4] = 255, 255
    np.save(tmp_path / "a.npy", pixels)
    ((_, found),) = predict(segmenter(channels=5), [ImageFile(str(tmp_path / "a.npy"))], views=Views(True, window=32))
    assert (found.labels.numpy() == pixels.argmax(2))[:, np.abs(np.arange(90) - 40) > 4].all()


@pytest.mark.parametrize("views", [Views(flip=True), Views(window=40), Views(True, (0.75, 1.0), 40)])
@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (1000, 0), (4, 2)])
def test_order_batches_and_workers_change_nothing(tmp_path, views, batch_size, num_workers):
    rng = np.random.default_rng(0)
    pictures = written(tmp_path, *(rng.integers(0, 256, (30 + 9 * i, 90 - 7 * i, 3), dtype=np.uint8) for i in range(6)))
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "5.png").unlink()
    found = predict(segmenter(), pictures, views=views, batch_size=batch_size, num_workers=num_workers)
    assert [isinstance(f, DataError) for f in found] == [False, True, False, False, False, True]
    alone = [predict(segmenter(), [p], views=views)[0] for p in pictures]
    for k, (result, reference) in enumerate(zip(found, alone, strict=True)):
        if isinstance(result, DataError):
            assert str(result) == str(reference)
            assert str(result).startswith(f"{pictures[k].path}: ")
        else:
            assert result[0] == reference[0] == ImageInfo(pictures[k].path, (30 + 9 * k, 90 - 7 * k), extra={"n": k})
            torch.testing.assert_close(result[1].probabilities(), reference[1].probabilities(), atol=1e-5, rtol=0)


def test_no_pictures_and_none_that_can_be_read(tmp_path):
    assert predict(segmenter(), [], views=Views(flip=True)) == []
    (fault,) = predict(segmenter(), [ImageFile(str(tmp_path / "none.png"))], views=Views(flip=True))
    assert isinstance(fault, DataError)


def test_views_are_made_as_they_are_predicted(tmp_path, monkeypatch):
    """A large picture's windows are never all there at once, nor is the next picture read before they are made."""
    made, decoded, read = [], [], []

    class Counted(Views):
        def __call__(self, sample, preprocessing):
            for view in super().__call__(sample, preprocessing):
                made.append(1)
                yield view

    def decode(self, images):
        decoded.append(len(images))
        assert len(images) <= 8
        assert len(made) - sum(decoded) <= 8 * 2, "a batch of each size"
        return whole(self, images)

    def load_image(path, **options):
        read.append(path)
        return original(path, **options)

    whole, original = VisionModel.decode, pictures_module.load_image
    monkeypatch.setattr(VisionModel, "decode", decode)
    monkeypatch.setattr(pictures_module, "load_image", load_image)
    pictures = written(tmp_path, *(blocks(300, 420, seed=i)[0] for i in range(3)))
    views = Counted(True, (0.5, 1.0), 32, 0.0)
    results = results_of(segmenter(), pictures, batch_size=8, views=views)
    next(results)
    assert len(read) <= 2
    assert len(list(results)) == 2
    assert len(made) == sum(decoded) == 3 * 10 * 14 * 4
    assert decoded.count(8) >= len(decoded) - 2, "batches are full across pictures"


def test_another_size_needs_no_putting_together(tmp_path, tiny_model):
    """Classifiers and detectors can be shown one other size."""
    pictures = written(tmp_path, *(blocks(50, 60, seed=i)[0] for i in range(3)))
    larger = VisionModel.from_spec(replace_size(tiny_model.spec(), [64, 64])).eval()
    larger.load_state_dict(tiny_model.state_dict())
    for (_, a), (_, b) in zip(
        predict(tiny_model, pictures, views=Views(scales=(2.0,))), predict(larger, pictures), strict=True
    ):
        assert torch.equal(a.probabilities, b.probabilities)


def replace_size(spec, size):
    preprocessing = spec["preprocessing"]
    return {**spec, "preprocessing": {**preprocessing, "init_args": {**preprocessing["init_args"], "size": size}}}


@dataclass(frozen=True)
class Bare(Prediction):
    """A prediction of one's own that says no more than it must."""

    def restore(self, info):
        return self

    def record(self, names):
        return {"said": list(names)}


@pytest.mark.parametrize("views", [Views(flip=True), Views(window=32), Views(scales=(1.0, 2.0))])
def test_what_cannot_be_put_together_is_refused(tmp_path, tiny_model, monkeypatch, views):
    monkeypatch.setattr(visionkit.LinearHead, "decode", lambda self, outputs: [Bare() for _ in outputs.logits])
    words = (
        r"^Bare predictions cannot be put together from several views \(--flip, --scales, --window\): it "
        r"defines no merge\(parts, regions\)$"
    )
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match=words):
        predict_to_folder(
            tmp_path / "m.ckpt", written(tmp_path, blocks(50, 60)[0]), tmp_path / "out", views=views, save_images=True
        )
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")] == []
    done = predict_to_folder(tmp_path / "m.ckpt", written(tmp_path, blocks(50, 60)[0]), tmp_path / "one")
    assert json.loads(done.records.read_text())["said"] == ["blue", "green", "red"]


def test_training_mode_is_refused(tmp_path):
    with pytest.raises(UsageError, match="model.eval"):
        predict(segmenter().train(), written(tmp_path, blocks(30, 30)[0]), views=Views(flip=True))


# ---- to a folder


class Lines:
    """A format: one line a picture."""

    def __init__(self, job):
        self.path = job.out / "lines.txt"
        self.outputs = (self.path,)
        self.lines = []

    def add(self, info, prediction):
        self.lines.append(f"{info.extra['n']} {tuple(prediction.labels.shape)}")

    def finish(self):
        self.path.write_text("\n".join(self.lines))


@pytest.fixture
def loaded(monkeypatch, tmp_path_factory):
    model = segmenter()
    monkeypatch.setattr("visionkit.models.checkpoint.load", lambda *_, **__: model)
    monkeypatch.setattr(Brightest, "writers", {"lines": Lines})
    monkeypatch.setattr(Brightest, "standard", ())
    path = tmp_path_factory.mktemp("model") / "any.ckpt"
    path.touch()
    return path


def test_records_hold_columns_and_shares(tmp_path, loaded):
    (tmp_path / "in").mkdir()
    pictures = written(tmp_path / "in", blocks(150, 210)[0], blocks(40, 30, (1, 1))[0])
    gone = ImageFile(str(tmp_path / "in" / "none.png"), {"n": 7})
    done = predict_to_folder(
        loaded, [pictures[0], gone, pictures[1]], tmp_path / "out", views=Views(True, (1.0,), 64), precision="32"
    )
    records = [json.loads(line) for line in done.records.read_text().splitlines()]
    assert [(r["n"], r["image"], r["height"], r["width"]) for r in records] == [
        (0, pictures[0].path, 150, 210),
        (1, pictures[1].path, 40, 30),
    ]
    assert sum(records[0]["pixels"].values()) == 150 * 210
    assert len(done.problems) == 1
    assert done.problems[0].startswith(gone.path)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["0", "1"]


@pytest.mark.parametrize(
    ("standard", "asked", "written_ones"),
    [((), [], []), (("lines",), [], ["lines"]), (("lines",), ["more", "lines"], ["lines", "more"]), ((), ["more"], ["more"])],
)  # fmt: skip
def test_standard_formats_are_written_without_being_asked_for(
    tmp_path, loaded, monkeypatch, standard, asked, written_ones
):
    monkeypatch.setattr(Brightest, "standard", standard)
    made = []

    def make(name):
        def writer(job):
            made.append(name)
            return Lines(replace(job, out=job.out / name))

        return writer

    monkeypatch.setattr(Brightest, "writers", {name: make(name) for name in ("more", "lines")})
    for name in ("lines", "more"):
        (tmp_path / "out" / name).mkdir(parents=True)
    predict_to_folder(loaded, written(tmp_path, blocks(30, 40)[0]), tmp_path / "out", formats=asked)
    assert made == written_ones
    for name in written_ones:
        assert (tmp_path / "out" / name / "lines.txt").read_text() == "0 (30, 40)"
    with pytest.raises(UsageError, match="--format zip: this model's predictions offer more, lines"):
        predict_to_folder(loaded, [], tmp_path / "out2", formats=["zip"])
