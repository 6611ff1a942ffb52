"""Networks as torch's graphs: exported for one size of a batch of images, they compute any other."""

from functools import partial

import pytest
import torch

import visionkit
from visionkit.prediction.backends.exported import silenced
from visionkit.prediction.backends.outputs import flatten_outputs

pyramid = partial(visionkit.FPN, channels=8, min_level=2, max_level=5)
pooled = partial(pyramid, extra="pool")
HEADS = {
    "linear": (visionkit.LinearHead, visionkit.IdentityNeck),
    "fcos": (partial(visionkit.FCOSHead, channels=8, depth=1), pyramid),
    "faster": (partial(visionkit.FasterRCNNHead, width=8, roi_size=2), pooled),
    "mask": (partial(visionkit.MaskRCNNHead, width=8, roi_size=2, mask_size=2, mask_channels=8), pooled),
    "deeplab": (partial(visionkit.DeepLabV3PlusHead, channels=8), visionkit.IdentityNeck),
    "fpn": (partial(visionkit.FPNSegmentationHead, channels=8), pyramid),
}


class Flat(torch.nn.Module):
    """Returns the outputs as a plain tuple of tensors."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        tensors = []
        flatten_outputs(self.network(images), tensors)
        return tuple(tensors)


def joint(backbone):
    """Return a model with a head of each task, of which one reads the backbone's levels and two the neck's."""
    heads = {"kind": HEADS["linear"][0], "boxes": HEADS["fcos"][0], "areas": HEADS["fpn"][0]}
    sizes = {"kind": 2, "boxes": 3, "areas": 2}
    names = [f"{head}/{k}" for head, count in sizes.items() for k in range(count)]
    head = partial(visionkit.MultiTaskHead, heads=heads, sizes=sizes, levels=len(backbone.features.channels))
    return visionkit.VisionModel(backbone, head, names, partial(visionkit.MultiTaskNeck, neck=pyramid))


@pytest.mark.parametrize("name", [*HEADS, "joint"])
def test_a_graph_of_any_batch_and_size(name):
    torch.manual_seed(0)
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", depthwise_separable=True)
    model = (
        joint(backbone)
        if name == "joint"
        else visionkit.VisionModel(backbone, HEADS[name][0], ["a", "b"], HEADS[name][1])
    )
    network = Flat(model).eval()
    size = torch.export.Dim
    sizes = {0: size("b", min=1, max=8), 2: 32 * size("h", min=1, max=16), 3: 32 * size("w", min=1, max=16)}

    def images(*shape):
        return torch.randint(0, 256, shape, dtype=torch.uint8)

    with silenced():
        program = torch.export.export(network, (images(2, 3, 96, 128),), dynamic_shapes=(sizes,), strict=False)
        for shape in ((2, 3, 96, 128), (3, 3, 160, 64), (1, 3, 64, 192)):
            seen = images(*shape)
            for found, wanted in zip(program.module()(seen), network(seen), strict=True):
                torch.testing.assert_close(found, wanted)
