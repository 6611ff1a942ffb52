"""What a split of a data set must keep on one side, so that validation pictures are new to the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from visionkit.data.audit.duplicates import Duplicates
from visionkit.data.split import join_groups

__all__ = ["keep_together", "validation_share"]

_FEW = 100  # pictures
_LARGEST = 0.1  # of all pictures, that a group of pictures that look alike may hold before it is cut
_BLOCK = 10  # pictures, the fewest that a large group is cut into


def validation_share(count: int) -> float:
    """Return the share of pictures for validation: 0.2, of fewer than 100 pictures 0.3."""
    return 0.3 if count < _FEW else 0.2


def keep_together(groups: Sequence[str], names: Sequence[str], found: Duplicates) -> list[str]:
    """Return the group of each picture, by which ``visionkit.data.split.split`` keeps copies on one side.

    Groups that were given stay whole, and so do copies, near ones too. Where a tenth of all pictures or more look alike
    (one long video, a camera that does not move), they are cut in order of their names into blocks of a hundredth of
    all pictures, ten at least: neighbours stay together, and there is something to set aside. Copies of the same bytes
    stay together even then.

    Args:
        groups: Of each picture, as ``groups_and_labels`` of a data set gives them.
        names: A path or other name of each picture; frames are in order of the numbers in them.
        found: Of the same pictures.
    """
    first = list(range(len(groups)))
    for members in found.groups():
        ordered = sorted(members, key=lambda i: (_natural(names[i]), i))
        size = len(members)
        if size > max(_BLOCK, _LARGEST * len(groups)):
            size = max(_BLOCK, len(groups) // 100)
        for start in range(0, len(ordered), size):
            for i in ordered[start : start + size]:
                first[i] = ordered[start]
    kept = join_groups(groups, first)
    copies = list(range(len(groups)))
    for pair in found.pairs:
        if pair.kind == "identical":
            copies[pair.other] = pair.one
    return join_groups(kept, copies)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by, with numbers as such: frame 9 before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
