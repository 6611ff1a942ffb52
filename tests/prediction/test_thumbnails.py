"""Small pictures for pages."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from visionkit.prediction.thumbnails import address, shrunk, webp


@pytest.mark.parametrize(
    ("size", "small"), [((100, 400), (48, 192)), ((400, 100), (192, 48)), ((20, 30), (20, 30)), ((1, 4000), (1, 192))]
)
def test_the_longer_side(size, small):
    assert shrunk(np.zeros((*size, 3), np.uint8)).shape == (*small, 3)


def test_it_is_a_copy():
    pixels = np.zeros((4, 4, 3), np.uint8)
    shrunk(pixels)[:] = 1
    assert pixels.max() == 0


def test_an_address_holds_the_picture_in_its_colours():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 0] = 250
    kind, _, data = address(webp(pixels)).partition(",")
    assert kind == "data:image/webp;base64"
    assert np.asarray(Image.open(BytesIO(base64.b64decode(data)))).mean((0, 1)) == pytest.approx([250, 0, 0], abs=6)


def test_a_lower_quality_is_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert len(webp(noise, 20)) < len(webp(noise, 70))
