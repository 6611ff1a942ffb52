import numpy as np
import pytest
import torch

from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.prediction.explain import Explanation
from visionkit.prediction.explanations.drawing import LARGEST, SMALLEST, to_picture
from visionkit.prediction.explanations.judging import Scored


def draw_explanation(explanation, image):
    return explanation.draw(image)


def explained(size, *, seen=(32, 32), resize="squash", scored=Scored(0.3, 0.1), label="cat", **more):  # noqa: B008
    """Return an explanation whose map is 1 in the quarter at the upper left of the picture."""
    marked = torch.zeros(1, *size, dtype=torch.uint8)
    marked[:, : size[0] // 2, : size[1] // 2] = 255
    preprocessing = Preprocessing(seen, resize=resize, channels=1)
    info = preprocessing(Sample(marked, None, ImageInfo("a.png", size))).info
    values = preprocessing(Sample(marked, None, ImageInfo("a.png", size))).image[0].float() / 255
    return Explanation(info, label, 0.9, values, (4, 4), scored, **more)


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (33, 33)])
def test_a_map_comes_back_to_where_it_was(resize, size):
    one = explained(size, resize=resize)
    back = to_picture(one.map, one.info, (size[0] * 2, size[1] * 2))
    wanted = np.zeros_like(back)
    wanted[: size[0], : size[1]] = 1
    assert np.abs(back - wanted).mean() < 0.06
    assert back[5, 5] > 0.9
    assert back[-5, -5] < 0.1


def test_what_the_model_did_not_see_has_no_evidence():
    one = explained((40, 90), resize="crop")
    seen = to_picture(torch.ones(32, 32), one.info, (40, 90))
    assert (seen[:, :24] == 0).all()
    assert (seen[:, 26:64] == 1).all()
    assert (seen[:, 66:] == 0).all()
    drawn = draw_explanation(one, torch.full((3, 40, 90), 100, dtype=torch.uint8))
    assert drawn.shape[2] == 320
    assert (drawn[:, 60, 89] == 190).all()  # framed
    assert (drawn[:, 60, 80] == 60).all()  # not seen


@pytest.mark.parametrize(
    ("size", "longer"), [((3000, 40), LARGEST), ((2000, 3000), LARGEST), ((10, 20), SMALLEST), ((400, 500), 500)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_drawings_have_a_bounded_size_and_a_legend_below(size, longer, channels):
    image = torch.full((channels, *size), 100, dtype=torch.uint8)
    drawn = draw_explanation(explained(size), image)
    assert drawn.dtype == torch.uint8
    assert drawn.shape[0] == 3
    height = round(size[0] * longer / max(size))
    assert drawn.shape[2] == round(size[1] * longer / max(size))
    assert height + 40 < drawn.shape[1] < height + 150
    assert drawn[:, height:].float().mean() < 80  # dark


def test_the_evidence_is_bright_and_the_rest_is_the_picture_dimmed():
    image = torch.full((3, 400, 400), 100, dtype=torch.uint8)
    drawn = draw_explanation(explained((400, 400), seen=(400, 400)), image).float()
    assert drawn[:, 300:390, 300:390].mean() == pytest.approx(60, abs=3)
    assert drawn[:, 50:100, 50:100].mean() > 150
    assert drawn[0, 300, 300] == drawn[1, 300, 300] == drawn[2, 300, 300]  # no colour where there is no evidence


@pytest.mark.parametrize("more", [{"box": (100, 80, 220, 160)}, {"mask": "box"}])
def test_what_is_explained_is_outlined(more):
    image = torch.full((3, 400, 400), 100, dtype=torch.uint8)
    if "mask" in more:
        mask = torch.zeros(400, 400, dtype=torch.bool)
        mask[80:160, 100:220] = True
        more = {"mask": mask, "box": (0, 0, 400, 400)}
    plain = explained((400, 400), seen=(400, 400))
    drawn = draw_explanation(explained((400, 400), seen=(400, 400), **more), image)
    changed = (drawn != draw_explanation(plain, image)).any(0)[:400]
    rows, columns = changed.nonzero().unbind(1)
    assert (int(columns.min()), int(rows.min())) == pytest.approx((100, 80), abs=3)
    assert (int(columns.max()), int(rows.max())) == pytest.approx((219, 159), abs=3)
    assert not changed[100:140, 120:200].any()


def test_a_map_that_is_no_better_than_the_centre_says_so_and_any_name_fits():
    image = torch.full((3, 320, 320), 100, dtype=torch.uint8)
    good = draw_explanation(explained((320, 320)), image)[:, 320:]
    bad = draw_explanation(explained((320, 320), scored=Scored(0.1, 0.1)), image)[:, 320:]
    orange = (bad[0].int() - bad[2].int()) > 120
    assert orange.any()
    assert not ((good[0].int() - good[2].int())[:, :200] > 120).any()
    for label in ("", "a" * 500, "猫", "<script>"):
        assert draw_explanation(explained((320, 100), label=label), image[:, :, :100]).shape[2] == 100
