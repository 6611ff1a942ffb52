import pytest
import torch

from visionkit.transforms.draw import draw_text


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
