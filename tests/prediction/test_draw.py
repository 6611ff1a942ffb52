import pytest
import torch

from visionkit.core.errors import UsageError
from visionkit.prediction.draw import PALETTE, draw_boxes, draw_classes, draw_text, palette


def gray(height, width):
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def box_of(before, after):
    changed = (before != after).any(0)
    return changed.any(1).nonzero().max().item() + 1, changed.any(0).nonzero().max().item() + 1


def test_a_label_is_light_on_dark_in_the_corner():
    before = gray(224, 320)
    after = draw_text(before, "cat 97%")
    assert after.shape == (3, 224, 320)
    assert after.dtype == torch.uint8
    height, width = box_of(before, after)
    assert height < 40
    assert 40 < width < 160
    assert after[:, :height, :width].max() == 255
    assert after[:, 0, 0].max() < 64
    assert (before == 128).all()  # a copy


def test_larger_on_larger_pictures():
    small = box_of(gray(240, 320), draw_text(gray(240, 320), "cat"))
    large = box_of(gray(960, 1280), draw_text(gray(960, 1280), "cat"))
    assert large[0] > 2.5 * small[0]


@pytest.mark.parametrize("text", ["one two three four five six seven eight nine", "x" * 60, "word " * 200])
@pytest.mark.parametrize("size", [(96, 96), (40, 200), (200, 40), (12, 12)])
def test_long_texts_stay_in_the_upper_part(text, size):
    before = gray(*size)
    height, width = box_of(before, draw_text(before, text))
    assert height <= max(size[0] / 2 + 2, 14)
    assert width <= size[1]


@pytest.mark.parametrize(("size", "text"), [((4, 4), "cat"), ((1, 300), "cat"), ((50, 50), " ")])
def test_nothing_to_draw(size, text):
    assert (draw_text(gray(*size), text) == 128).all()


def test_letters_beyond_ascii_are_not_boxes():
    a, b = (draw_text(gray(100, 200), letter) for letter in ("ä", "ж"))
    assert (a != b).any()


# ---- boxes


def draw(image, boxes, labels=None, texts=None):
    labels = torch.tensor(labels if labels is not None else [0] * len(boxes), dtype=torch.int64)
    texts = texts if texts is not None else [""] * len(boxes)
    return draw_boxes(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, texts)


def changed(before, after):
    """Rows and columns from the first to the last changed pixel: top, left, bottom, right."""
    rows, columns = (before != after).any(0).nonzero(as_tuple=True)
    return rows.min().item(), columns.min().item(), rows.max().item(), columns.max().item()


def test_a_box_is_a_frame_in_the_colour_of_its_class():
    before = gray(64, 64)
    after = draw(before, [[10, 20, 40, 50]], [1])
    frame = torch.zeros(64, 64, dtype=torch.bool)
    frame[20:50, 10:40] = True
    frame[21:49, 11:39] = False
    assert ((before != after).any(0) == frame).all(), "pixels 10..39 and 20..49"
    assert after[:, 20, 10].tolist() == list(PALETTE[1])
    assert (before == 128).all()


def test_lines_are_wider_on_larger_pictures():
    row = [
        (draw(gray(n, n), [[0.25 * n, 0.25 * n, 0.75 * n, 0.75 * n]])[:, n // 2, : n // 2] != 128) for n in (200, 1600)
    ]
    assert [r.any(0).sum().item() for r in row] == [1, 10]


def test_colours_differ_and_start_over():
    assert len(set(PALETTE)) == len(PALETTE) >= 12
    first, again = (draw(gray(64, 64), [[5, 5, 30, 30]], [k]) for k in (0, len(PALETTE)))
    assert (first == again).all()


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 500, 500],
        [190, 90, 260, 140],
        [-20, 40, -5, 60],
        [50, 50, 50, 50],
        [0, 0, 200, 100],
        [199, 99, 200, 100],
    ],
)
def test_boxes_and_tags_stay_in_the_picture(box):
    after = draw(gray(100, 200), [box], texts=["person 97%"])
    assert after.shape == (3, 100, 200)
    assert (after != 128).any()


def test_the_tag_stands_above_its_box_or_inside():
    for top, above in ((60, True), (3, False)):
        before = gray(200, 200)
        after = draw(before, [[50, top, 150, 180]], texts=["cat 97%"])
        first, left, last, _ = changed(before, after)
        assert (first < top - 8) == above
        assert first >= 0
        assert left == 50
        assert last == 179
        inside = after[:, top + 2 : top + 10, 53:90]
        assert (inside == 128).all() == above


def test_the_first_box_is_on_top():
    after = draw(gray(64, 64), [[10, 10, 50, 50], [10, 10, 50, 50]], [3, 1])
    assert after[:, 10, 10].tolist() == list(PALETTE[3])


def test_tags_do_not_cover_each_other():
    """Three tags find a place at one box, of which the strongest has the one above; the fourth has none."""
    boxes, texts = [[50.0, 60, 150, 140]] * 4, ["cat 97%"] * 4
    pictures = [draw(gray(200, 200), boxes[:n], [0, 1, 2, 3][:n], texts[:n]) for n in (1, 2, 3, 4)]
    areas = [sum((p == torch.tensor(PALETTE[k]).view(3, 1, 1)).all(0).sum().item() for k in range(4)) for p in pictures]
    assert areas[0] < areas[1] < areas[2]
    assert areas[2] == areas[3]
    one, two = pictures[:2]
    assert (one[:, :60] == two[:, :60]).all()


@pytest.mark.parametrize("size", [(99, 300), (300, 99), (40, 40), (1, 1)])
def test_small_pictures_get_no_tags(size):
    box = [[0.3 * size[1], 0.3 * size[0], 0.8 * size[1], 0.8 * size[0]]]
    assert (draw(gray(*size), box, texts=["cat 97%"]) == draw(gray(*size), box)).all()


def test_a_long_text_is_cut():
    before = gray(150, 400)
    after = draw(before, [[20, 50, 60, 90]], texts=["a very long name of a class " * 5])
    _, left, _, right = changed(before, after)
    assert left == 20
    assert right < 20 + 200 + 10


def test_no_boxes_leave_a_copy():
    before = gray(64, 64)
    after = draw(before, [])
    assert (after == 128).all()
    after[:] = 0
    assert (before == 128).all()


def test_tags_beyond_ascii_are_not_boxes():
    a, b = (draw(gray(200, 200), [[50, 60, 150, 140]], texts=[letter]) for letter in ("ä", "ж"))
    assert (a != b).any()


# ---- classes of pixels

NAMES = ["road", "sky", "car"]


def halves(height, width, left=0, right=1):
    labels = torch.full((height, width), left, dtype=torch.uint8)
    labels[:, width // 2 :] = right
    return labels


def tag_pixels(picture, k):
    """Where a tag of a class is: its colour unmixed."""
    return (picture == torch.tensor(palette(k + 1)[k], dtype=torch.uint8).view(3, 1, 1)).all(0)


def test_colours_of_classes_all_differ():
    colours = palette(256)
    assert tuple(colours[: len(PALETTE)]) == PALETTE
    assert len(set(colours)) == 256
    assert (0, 0, 0) not in colours
    assert palette(30) == colours[:30], "the same whatever the number of classes"
    assert palette(0) == []
    apart = torch.cdist(torch.tensor(colours).float()[:40], torch.tensor(colours).float()[:40])
    assert (apart + 1e3 * torch.eye(40)).min() >= apart[:14, :14][apart[:14, :14] > 0].min(), "as PALETTE's own"
    assert colours[14:17] == [(255, 0, 255), (34, 255, 0), (0, 0, 255)], "on all machines"


@pytest.mark.parametrize("count", [-1, 257])
def test_there_are_256_colours(count):
    with pytest.raises(UsageError, match=f"palette of {count} colours"):
        palette(count)


def test_a_class_is_half_its_colour_and_half_the_picture():
    before = gray(60, 80)
    after = draw_classes(before, halves(60, 80, 0, 2), NAMES)
    assert after.shape == (3, 60, 80)
    assert after.dtype == torch.uint8
    for column, k in ((3, 0), (70, 2)):
        assert after[:, 30, column].tolist() == [64 + c // 2 for c in PALETTE[k]]
    assert (before == 128).all(), "a copy"


def test_a_darker_line_lies_between_classes():
    before = gray(60, 80)
    after = draw_classes(before, halves(60, 80), NAMES)
    line = (after.sum(0) < before.sum(0) // 2).any(0)
    assert line.nonzero().flatten().tolist() == [40]
    assert not (draw_classes(before, halves(60, 80, 1, 1), NAMES).sum(0) < 192).any()


def test_pixels_without_a_class_stay_as_they_are():
    torch.manual_seed(0)
    before = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)
    assert torch.equal(draw_classes(before, halves(120, 160, 255, 255), NAMES), before)
    after = draw_classes(before, halves(120, 160, 255, 0), NAMES)
    assert torch.equal(after[:, :, :79], before[:, :, :79])
    assert (after[:, :, 81:] != before[:, :, 81:]).any()


def test_names_stand_in_the_middle_of_the_largest_region():
    labels = torch.zeros(200, 400, dtype=torch.uint8)
    labels[20:180, 220:380] = 1
    labels[5:15, 5:60] = 1  # smaller
    after = draw_classes(gray(200, 400), labels, NAMES)
    rows, columns = tag_pixels(after, 1).nonzero(as_tuple=True)
    assert 80 < rows.min() < rows.max() < 120
    assert 260 < columns.min() < columns.max() < 340
    assert tag_pixels(after, 0).any()
    assert not tag_pixels(after, 2).any()


def test_names_of_small_regions_stand_above_them_and_of_tiny_ones_nowhere():
    labels = torch.zeros(200, 400, dtype=torch.uint8)
    labels[100:120, 100:116] = 1  # 320 pixels; a 300th is 267
    labels[100:110, 300:310] = 2
    after = draw_classes(gray(200, 400), labels, NAMES)
    rows, columns = tag_pixels(after, 1).nonzero(as_tuple=True)
    assert 80 < rows.min() < rows.max() < 100
    assert columns.min() <= 108 <= columns.max()
    assert not tag_pixels(after, 2).any()


def test_names_never_cover_each_other_or_the_whole():
    """50 classes in stripes: tags that fit are drawn whole, the picture still shows."""
    names = [f"class {i}" for i in range(50)]
    labels = torch.arange(50).repeat_interleave(8).byte()[None].repeat(200, 1)
    after = draw_classes(gray(200, 400), labels, names)
    shown = torch.stack([tag_pixels(after, k) for k in range(50)])
    whole = shown.flatten(1).sum(1)
    found = whole[whole > 0]
    assert 5 < len(found) < 50
    assert found.min() > 0.4 * found.max()
    assert shown.any(0).float().mean() < 0.4


@pytest.mark.parametrize("size", [(99, 300), (300, 99), (40, 40), (1, 1), (1, 300)])
def test_small_pictures_get_no_names(size):
    after = draw_classes(gray(*size), halves(*size), NAMES)
    assert after.shape == (3, *size)
    assert not (tag_pixels(after, 0) | tag_pixels(after, 1)).any()


def test_large_pictures_get_large_names():
    tags = [tag_pixels(draw_classes(gray(n, n), halves(n, n), NAMES), 0).any(1).sum().item() for n in (300, 2400)]
    assert 4 * tags[0] < tags[1] < 2400 / 12


def test_odd_names_and_odd_labels():
    image, labels = gray(150, 150), halves(150, 150)
    long = draw_classes(image, labels, ["a very long name of a class " * 5, " "])
    assert tag_pixels(long, 0).any(0).sum() < 80, "half of the picture and its edge at most"
    assert not tag_pixels(long, 1).any()
    with pytest.raises(UsageError, match="labels of 150 x 150 pixels for an image of 150 x 140"):
        draw_classes(gray(150, 140), labels, NAMES)
    with pytest.raises(UsageError, match="labels with class id 1 for 1 class names"):
        draw_classes(image, labels, ["a"])


def test_the_background_stays_as_the_image_is():
    image = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)
    labels = torch.zeros((120, 160), dtype=torch.uint8)
    labels[:40] = 1
    for names in (("background", "road"), ("ground/Background", "ground/road")):
        drawn = draw_classes(image, labels, names)
        assert torch.equal(drawn[:, 45:], image[:, 45:])
        assert not torch.equal(drawn[:, :35], image[:, :35])
    assert not torch.equal(draw_classes(image, labels, ("grass", "road"))[:, 45:], image[:, 45:])
