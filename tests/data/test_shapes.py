import hashlib

import cv2
import numpy as np
import pytest

from visionkit.core.errors import UsageError
from visionkit.data.shapes import SHAPES, draw_scene, write_shapes


def digest(scene):
    parts = [scene.image, scene.boxes, scene.masks]
    return hashlib.blake2b(b"".join(p.tobytes() for p in parts) + repr(scene.labels).encode()).hexdigest()


def test_the_same_seed_draws_the_same_bits():
    assert digest(draw_scene(7)) == digest(draw_scene(7))
    assert digest(draw_scene((3, 4))) == digest(draw_scene((3, 4)))
    assert len({digest(draw_scene(s)) for s in range(20)}) == 20


@pytest.mark.parametrize("seed", range(25))
def test_boxes_are_tight_around_masks_that_do_not_overlap(seed):
    scene = draw_scene(seed, size=(80, 120))
    n = len(scene.labels)
    assert 1 <= n <= 4
    assert scene.image.shape == (80, 120, 3)
    assert scene.image.dtype == np.uint8
    assert scene.masks.shape == (n, 80, 120)
    assert scene.boxes.shape == (n, 4)
    assert scene.boxes.dtype == np.float32
    assert scene.masks.sum(0).max() <= 1
    for mask, (x1, y1, x2, y2) in zip(scene.masks, scene.boxes.astype(int), strict=True):
        assert mask[y1:y2, x1:x2].sum() == mask.sum() > 60
        edges = mask[y1, :], mask[y2 - 1, :], mask[:, x1], mask[:, x2 - 1]
        assert all(e.any() for e in edges)


@pytest.mark.parametrize("name", SHAPES)
def test_masks_have_the_outline_of_their_class(name):
    for seed in range(12):
        mask = draw_scene(seed, size=192, labels=[name]).masks[0]
        touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        if touches:
            continue
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == (2 if name == "ring" else 1)
        outer = max(contours, key=cv2.contourArea)
        solid = cv2.contourArea(outer) / cv2.contourArea(cv2.convexHull(outer))
        corners = len(cv2.approxPolyDP(outer, 0.03 * cv2.arcLength(outer, True), True))
        expected = {"triangle": (3, True), "square": (4, True), "star": (10, False), "cross": (12, False)}
        if name in expected:
            assert (corners, solid > 0.9) == expected[name]
        else:
            assert corners > 5
            assert solid > 0.95


def test_labels_are_exact_and_may_be_none():
    assert draw_scene(0, labels=["star", "ring", "star"]).labels == ["star", "ring", "star"]
    empty = draw_scene(0, labels=[])
    assert empty.labels == []
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, 96, 96)


def test_crowded_scenes_keep_every_object():
    for seed in range(5):
        scene = draw_scene(seed, objects=(12, 12))
        assert len(scene.labels) == 12
        assert scene.masks.sum((1, 2)).min() > 10


def test_colour_says_nothing_about_the_class():
    means = []
    for k, name in enumerate(SHAPES):
        scenes = [draw_scene((k, i), labels=[name]) for i in range(60)]
        means.append(np.mean([s.image[s.masks[0]].mean(0) for s in scenes], 0))
    assert np.ptp(np.array(means), axis=0).max() < 50  # means of 60 colours spread over 225: 9 is one standard error


def test_objects_stand_out():
    for seed in range(20):
        scene = draw_scene(seed, labels=["circle"])
        grown = cv2.dilate(scene.masks[0].astype(np.uint8), np.ones((15, 15))) > 0
        around = scene.image[grown & ~scene.masks[0]].mean(0)
        assert np.linalg.norm(scene.image[scene.masks[0]].mean(0) - around) > 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["hexagon"]}, "'hexagon' is no shape"),
        ({"classes": ["hexagon"]}, "'hexagon' is no shape"),
        ({"size": 16}, "too small"),
        ({"objects": (3, 1)}, "objects"),
        ({"seed": -1}, "negative"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(UsageError, match=message):
        draw_scene(**({"seed": 0} | options))


def test_write_shapes(tmp_path):
    write_shapes(tmp_path / "out", count=13, seed=3, size=48)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert len(files) == 13
    assert files[:3] == ["out/circle/0000.png", "out/circle/0001.png", "out/circle/0002.png"]
    image = cv2.imread(str(tmp_path / "out/cross/0001.png"))[:, :, ::-1]
    assert (image == draw_scene((3, 7), size=48, labels=["cross"]).image).all()
    with pytest.raises(UsageError, match="not an empty folder"):
        write_shapes(tmp_path / "out", count=6)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # no temporary folder is left


def test_write_shapes_cut_off_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "imencode", fail)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "out", count=6, size=48)
    assert list(tmp_path.iterdir()) == []
