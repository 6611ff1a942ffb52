"""The classes of Pascal VOC and Cityscapes, which come without a file of names."""

from __future__ import annotations

from visionkit.tasks.segmentation.readers.class_table import ClassRow, ClassTable

__all__ = ["CITYSCAPES_IDS", "CITYSCAPES_TRAIN_IDS", "VOC"]

_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_CITYSCAPES_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_CITYSCAPES = dict(
    zip(_CITYSCAPES_NAMES, (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33), strict=True)
)  # the 19 classes of training by their id in *_labelIds.png


def _voc_colour(id: int) -> tuple[int, int, int]:
    """Return the colour of an id as the VOC development kit makes it: three bits of the id for each bit of a colour."""
    rgb = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            rgb[channel] |= (id >> (3 * bit + channel) & 1) << (7 - bit)
    return rgb[0], rgb[1], rgb[2]


VOC = ClassTable(
    (
        *(ClassRow(i, name, _voc_colour(i)) for i, name in enumerate(_VOC_NAMES)),
        ClassRow(255, "void", _voc_colour(255), void=True),
    ),
    "the 21 built-in names of Pascal VOC",
)
"""Pascal VOC; the border of objects is void."""

CITYSCAPES_IDS = ClassTable(
    tuple(
        ClassRow(i, next((n for n, k in _CITYSCAPES.items() if k == i), "void"), None, i not in _CITYSCAPES.values())
        for i in range(34)
    ),
    "the 19 built-in names of Cityscapes",
)
"""Cityscapes' ``*_labelIds.png``; ids that are not for training are void."""

CITYSCAPES_TRAIN_IDS = ClassTable(
    tuple(ClassRow(i, name) for i, name in enumerate(_CITYSCAPES)), "the 19 built-in names of Cityscapes"
)
"""Cityscapes' ``*_labelTrainIds.png``."""
