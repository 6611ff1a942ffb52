"""What changes training pictures at random says whether it acts, and how it is turned off."""

import pytest

from visionkit import Augmentation, MixUpCutMix, Mosaic, MultiScale, RandomScaledCrop
from visionkit.data.transforms.base import RandomTransform, setting_without

FLIP = [{"HorizontalFlip": {"p": 0.5}}]


class Own(RandomTransform):
    def __call__(self, batch):
        return batch


class Shifted(Augmentation):
    def __call__(self, sample, seed):
        return sample


def blur(batch):
    return batch


class Blur:
    def __call__(self, batch):
        return batch


@pytest.mark.parametrize(
    ("part", "setting"),
    [
        (None, None),
        (Augmentation(None), None),
        (Augmentation([]), None),
        (Augmentation(FLIP), "data.augment null"),
        (Shifted(None), "data.augment null"),
        (Mosaic(0.0), None),
        (Mosaic(0.1), "data.mosaic 0"),
        (RandomScaledCrop(), "data.crop_scale null"),
        (MixUpCutMix(), "model.mix null"),
        (MixUpCutMix(p=0.0), None),
        (MultiScale(), "model.multi_scale null"),
        (Own(), "Own off"),
        (blur, "blur off"),
        (Blur(), "Blur off"),
    ],
)
def test_the_setting_that_turns_a_change_off(part, setting):
    assert setting_without(part) == setting
