import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from visionkit.data.audit.duplicates import Pair, find_duplicates
from visionkit.data.audit.pictures import PictureFacts, survey


def scene(seed):
    """A picture of blots of many sizes, 240 x 180."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((180, 240, 3), np.float32)
    for cells in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8))
        pixels += np.asarray(noise.resize((240, 180), Image.Resampling.BICUBIC), np.float32) * (4 / cells) ** 0.7
    return Image.fromarray(np.uint8(255 * (pixels - pixels.min()) / (pixels.max() - pixels.min())))


def cropped(image, left, top, right, bottom):
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round((1 - right) * w), round((1 - bottom) * h)))


ALTERED = {
    "smaller": (lambda im: im.resize((120, 90)), "near"),
    "square": (lambda im: im.resize((224, 224)), "near"),
    "brighter": (lambda im: ImageEnhance.Brightness(im).enhance(1.2), "near"),
    "gray": (lambda im: im.convert("L"), "near"),
    "blurred": (lambda im: im.filter(ImageFilter.GaussianBlur(2)), "near"),
    "cropped": (lambda im: cropped(im, 0.05, 0.05, 0.05, 0.05), "cropped"),
    "cut below": (lambda im: cropped(im, 0, 0, 0, 0.1), "cropped"),
    "cut aside": (lambda im: cropped(im, 0.08, 0.02, 0.01, 0.09), "cropped"),
    "flipped": (ImageOps.mirror, "flipped"),
    "flipped and cropped": (lambda im: ImageOps.mirror(cropped(im, 0.05, 0.05, 0.05, 0.05)), "flipped"),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for k in range(12):
        scene(k).save(folder / f"{k:02}.png")
    return folder


@pytest.fixture(scope="module")
def facts(scenes):
    return survey(sorted(scenes.glob("*.png")))


def test_different_pictures_are_not_called(facts):
    found = find_duplicates(facts)
    assert found.pairs == ()
    assert found.groups() == []
    assert found.first == tuple(range(12))


@pytest.mark.parametrize("name", ALTERED)
def test_altered_copies_are_found_and_named(name, facts, tmp_path):
    change, kind = ALTERED[name]
    for k in range(12):
        change(scene(k)).save(tmp_path / f"{k:02}.jpg", quality=40)
    found = find_duplicates([*facts, *survey(sorted(tmp_path.iterdir()))])
    assert [(p.one, p.other, p.kind) for p in found.pairs] == [(k, k + 12, kind) for k in range(12)]
    assert all(0.82 <= p.score <= 1 for p in found.pairs)
    assert found.groups() == [[k, k + 12] for k in range(12)]


def test_the_same_bytes_are_identical_even_of_files_that_are_no_pictures(scenes, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes((scenes / "00.png").read_bytes())
        (tmp_path / f"{name}.bad").write_bytes(b"not a picture")
        (tmp_path / f"{name}.empty").touch()
    found = find_duplicates(survey(sorted(tmp_path.iterdir())))
    assert found.pairs == tuple(Pair(a, b, "identical", 1.0) for a, b in ((0, 3), (0, 6), (2, 5), (2, 8)))
    assert found.groups() == [[0, 3, 6], [2, 5, 8]]


def test_pictures_of_next_to_no_contrast_are_told_apart_by_their_bytes():
    rng = np.random.default_rng(0)
    blank = [np.uint8(120 + rng.integers(0, 2, (32, 32))) for _ in range(4)]
    facts = [PictureFacts(str(k), file_size=1, content=bytes([k]), thumbnail=t) for k, t in enumerate(blank)]
    assert find_duplicates(facts).groups() == []


def test_frames_of_a_video_become_one_group_and_none_is_lost(facts, tmp_path):
    wide = scene(99).resize((480, 360))
    rng = np.random.default_rng(0)
    for k in range(100):  # the camera moves on
        frame = np.asarray(wide.crop((3 * k, 2 * k, 3 * k + 160, 2 * k + 120)), np.int64)
        Image.fromarray(np.uint8(np.clip(frame + rng.integers(-4, 5, frame.shape), 0, 255))).save(
            tmp_path / f"{k:03}.jpg"
        )
    found = find_duplicates([*facts, *survey(sorted(tmp_path.iterdir()))])
    assert found.groups() == [list(range(12, 112))]


def test_many_frames_of_a_camera_that_stands_still_take_no_long():
    rng = np.random.default_rng(0)
    still = np.asarray(scene(5).convert("L").resize((32, 32)), np.int64)
    facts = [
        PictureFacts(
            str(k),
            file_size=1,
            content=k.to_bytes(4),
            thumbnail=np.uint8(np.clip(still + rng.integers(-3, 4, still.shape), 0, 255)),
        )
        for k in range(800)
    ]
    found = find_duplicates(facts)
    assert found.groups() == [list(range(800))]
    assert len(found.pairs) < 8_000


def test_features_propose_smaller_parts_and_pixels_decide(facts, tmp_path):
    for k in range(12):
        cropped(scene(k), 0.18, 0.02, 0.01, 0.17).save(tmp_path / f"{k:02}.png")
    both = [*facts, *survey(sorted(tmp_path.iterdir()))]
    told_apart = np.tile(np.eye(12), (2, 1))
    found = find_duplicates(both, features=told_apart)
    assert [(p.one, p.other, p.kind) for p in found.pairs] == [(k, k + 12, "cropped") for k in range(12)]
    blind = np.ones((12, 4))  # all look alike to this network
    assert find_duplicates(facts, features=blind).pairs == ()


def test_progress_ends_with_all(facts):
    told = []
    find_duplicates(facts, progress=lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1] == len(told)


def test_none_and_one():
    assert find_duplicates([]).groups() == []
    assert find_duplicates([PictureFacts("a", error="a: broken")], features=np.zeros((1, 2))).pairs == ()


def test_the_same_field_of_view_in_blood_smears(data_root):
    folder = data_root / "detection" / "bccd"
    paths = sorted(folder.rglob("*.jpg"))
    found = find_duplicates(survey(paths))
    names = {tuple(paths[i].stem[-3:] for i in (p.one, p.other)) for p in found.pairs}
    assert names == {("037", "038"), ("229", "258"), ("386", "391")}  # looked at: all true
