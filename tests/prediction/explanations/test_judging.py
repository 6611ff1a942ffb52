import numpy as np
import pytest
import torch

from visionkit.prediction.explanations.judging import Judge, Region, Scored, blurred, passes, region_of, verdict


class Counting:
    """Says how bright a place of a picture is, 0..1, and counts the pictures."""

    def __init__(self, rows, columns):
        self.place, self.seen = (rows, columns), 0

    def __call__(self, pictures):
        assert pictures.dtype == torch.uint8
        self.seen += len(pictures)
        return pictures[:, 0, *self.place].float().mean((1, 2)) / 255


@pytest.fixture
def picture():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, 2:8, 20:28] = 255
    return image


class TestJudge:
    def test_the_right_map_scores_high_the_wrong_one_low_and_chance_lies_between(self, picture):
        score = Counting(slice(2, 8), slice(20, 28))
        judge = Judge(score, picture, region_of(None, (32, 32)))
        right = picture[0].float()
        chance = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
        assert judge(right) > 0.5
        assert abs(judge(chance)) < 0.15
        assert judge(-right) < -0.5
        assert judge(right * 7 - 3) == judge(right)  # the order alone counts
        assert score.seen == 5 * passes() // 2

    def test_it_is_the_difference_of_the_two_areas(self, picture):
        """Against curves computed as the paper does, ends included."""
        score, region, steps = Counting(slice(0, 16), slice(16, 32)), region_of(None, (32, 32)), 5
        values = torch.rand(32, 32, generator=torch.Generator().manual_seed(1))
        gone = blurred(picture, 3.2)
        order = values.flatten().argsort(descending=True).tolist()
        inserted, deleted = [], []
        for step in range(steps + 1):
            strong = torch.zeros(32 * 32, dtype=torch.bool)
            strong[order[: round(step / steps * len(order))]] = True
            strong = strong.view(32, 32)
            for curve, first, second in ((inserted, picture, gone), (deleted, gone, picture)):
                curve.append(float(score(torch.where(strong, first, second)[None])))
        area = np.trapezoid(inserted) / steps - np.trapezoid(deleted) / steps
        assert Judge(score, picture, region, steps)(values) == pytest.approx(area, abs=1e-6)

    def test_pixels_outside_of_the_region_stay(self, picture):
        seen = []

        def score(pictures):
            seen.append(pictures.clone())
            return torch.zeros(len(pictures))

        region = region_of((20, 4, 24, 8), (32, 32))
        Judge(score, picture, region)(torch.rand(8, 8))
        every = torch.cat(seen)
        outside = torch.ones(32, 32, dtype=torch.bool)
        region.cut(outside).fill_(False)
        assert len(every) == passes() // 2
        assert (every[:, :, outside] == picture[:, outside]).all()
        assert (every != picture).any()

    @pytest.mark.parametrize(("channels", "size"), [(1, (5, 7)), (3, (1, 1)), (6, (9, 2))])
    def test_any_channels_and_any_size(self, channels, size):
        image = torch.randint(0, 256, (channels, *size), dtype=torch.uint8)
        judge = Judge(lambda x: x.float().flatten(1).mean(1) / 255, image, region_of(None, size))
        assert -1 <= judge(torch.rand(size)) <= 1


class TestRegion:
    def test_it_is_twice_the_box_within_the_picture(self):
        assert region_of((10, 20, 14, 30), (100, 50)) == Region(15, 8, 35, 16, (25, 12))
        assert region_of((0, 0, 10, 10), (12, 100)) == Region(0, 0, 12, 15, (5, 5))
        assert region_of(None, (12, 100)) == Region(0, 0, 12, 100, (6, 50))

    @pytest.mark.parametrize("box", [(50, 12, 50, 12), (49.9, 11.9, 50, 12), (0, 0, 0, 0), (3.2, 4.1, 3.3, 4.2)])
    def test_a_box_of_next_to_nothing_has_a_pixel(self, box):
        region = region_of(box, (12, 50))
        assert region.cut(torch.zeros(12, 50)).numel() > 0
        assert region.blob().shape == region.cut(torch.zeros(12, 50)).shape

    def test_the_blob_is_highest_in_the_centre_of_the_box_and_as_long_as_it(self):
        region = region_of((0, 0, 20, 8), (40, 40))  # cut at the corner
        blob = region.blob()
        row, column = divmod(int(blob.argmax()), blob.shape[1])
        assert (row, column) in [(3, 9), (3, 10), (4, 9), (4, 10)]
        whole = region_of(None, (40, 80)).blob()
        assert whole[20, 0] == pytest.approx(float(whole[0, 40]), abs=0.02)


def test_blurring_keeps_the_light_and_takes_the_detail():
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, ::2] = 200
    soft = blurred(image, 6.4)
    assert soft.shape == image.shape
    assert soft.float().mean() == pytest.approx(100, abs=3)
    assert soft.float().std() < 5


class TestVerdict:
    def test_it_names_pictures_maps_and_means(self):
        said = verdict([[Scored(0.3, 0.1), Scored(0.1, 0.1)], [], *[[Scored(0.2, 0.05 + 0.01 * k)] for k in range(11)]])
        assert said.startswith("on 12 pictures (13 maps) the maps score 0.20, a blob in the centre 0.10 (insertion")
        assert said.endswith("they point at what the model goes by better than the centre does")

    def test_no_better_is_said(self):
        assert verdict([[Scored(0.1, 0.2)]] * 3).endswith("no better than a blob in the centre: do not read anything "
                                                           "into them")  # fmt: skip

    def test_what_reads_alike_is_no_better(self):
        assert "no better than a blob" in verdict([[Scored(0.1004, 0.1001)]] * 20)

    def test_few_pictures_can_be_chance(self):
        assert verdict([[Scored(0.2, 0.1)]]).endswith("better here, but 1 picture can be chance: explain 10 or more")

    def test_what_lies_within_the_noise_is_no_better(self):
        rng = np.random.default_rng(0)
        noisy = [[Scored(0.1 + float(x), 0.09)] for x in rng.normal(0, 0.3, 40)]
        noisy.append([Scored(0.1 + 2, 0.0)])
        assert "beyond chance: do not read anything into them" in verdict(noisy)

    def test_objects_of_one_picture_are_no_chances_of_their_own(self):
        said = verdict([[Scored(0.2, 0.1)] * 50])
        assert said.startswith("on 1 picture (50 maps)")
        assert "can be chance" in said

    def test_there_may_be_none(self):
        assert verdict([]) is None
        assert verdict([[], []]) is None
