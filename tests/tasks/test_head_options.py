"""Options that heads have in common: recorded, described and built as if each head declared them."""

import pytest
import torch

from visionkit import DeepLabV3PlusHead, FCNHead, FPNSegmentationHead, LinearHead, MaskRCNNHead, MLPHead
from visionkit.core.component import build, checked, spec_of
from visionkit.models.backbones.base import FeatureSpec
from visionkit.models.head import Head

BACKBONE = FeatureSpec((8, 16, 32, 64), (4, 8, 16, 32))
PYRAMID = FeatureSpec((16, 16, 16, 16), (4, 8, 16, 32))
SEGMENTATION = {
    "losses": {"dice": 1.0, "ohem": 0.5}, "label_smoothing": 0.1, "focal_gamma": 1.5, "ohem_fraction": 0.5, "aux": 0.4,
    "dropout": 0.2,
}  # fmt: skip
CLASSIFICATION = {
    "multilabel": True, "loss": "focal", "label_smoothing": 0.1, "focal_gamma": 1.0, "threshold": 0.4, "dropout": 0.3
}  # fmt: skip
HEADS = [
    (FCNHead, BACKBONE, {"level": -2, **SEGMENTATION}),
    (
        DeepLabV3PlusHead,
        BACKBONE,
        {"channels": 16, "atrous_rates": [1, 2], "low_level_channels": 4, "separable": False, **SEGMENTATION},
    ),
    (FPNSegmentationHead, PYRAMID, {"channels": 8, "max_stride": 16, **SEGMENTATION}),
    (LinearHead, BACKBONE, CLASSIFICATION),
    (MLPHead, BACKBONE, {"layers": 2, "width": 8, **CLASSIFICATION}),
    (MaskRCNNHead, PYRAMID, {"mask_size": 7, "width": 16, "nms": "soft", "nms_threshold": 0.4}),
]
NAMES = [head.__name__ for head, _, _ in HEADS]


@pytest.mark.parametrize(("head", "features", "options"), HEADS, ids=NAMES)
def test_a_description_names_each_option_once_and_makes_the_same_head(head, features, options):
    made = head(features, 3, **options)
    spec = spec_of(made)
    assert spec == {"class_path": f"visionkit.{head.__name__}", "init_args": options}
    assert checked(spec, kind=Head) == spec
    again = build(spec, features=features, num_classes=3)
    assert spec_of(again) == spec
    shapes, same = ({k: v.shape for k, v in one.state_dict().items()} for one in (made, again))
    assert shapes == same
    dropouts = [m.p for m in again.modules() if isinstance(m, torch.nn.Dropout)]
    assert all(p == options["dropout"] for p in dropouts)


@pytest.mark.parametrize(("head", "features", "options"), HEADS, ids=NAMES)
def test_defaults_are_not_recorded_and_unknown_options_are_refused(head, features, options):
    assert spec_of(head(features, 3))["init_args"] == {}
    with pytest.raises(TypeError, match="unexpected keyword argument 'drop_out'"):
        head(features, 3, drop_out=0.1)
