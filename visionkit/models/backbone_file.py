"""The backbone of a checkpoint alone, in a file that other programs read."""

from __future__ import annotations

import json
import os
from collections.abc import Collection

import visionkit
from visionkit.core.component import spec_of
from visionkit.core.files import replacing
from visionkit.models import checkpoint
from visionkit.models.run_folder import find_checkpoint
from visionkit.models.weights.load import WeightsReport
from visionkit.models.weights.match import wrapper

__all__ = ["export_backbone"]


def export_backbone(
    ckpt: str | os.PathLike[str], out: str | os.PathLike[str], *, trust: Collection[str] = ()
) -> WeightsReport:
    """Write the backbone of a checkpoint alone as safetensors, and return its passport.

    The tensors are float32 under torchvision's or timm's own names. The header says, as text, the backbone's settings
    (``backbone``), ``mean``, ``std``, the ``passport`` and visionkit's version (``visionkit``).

    Args:
        ckpt: Checkpoint of ``visionkit fit`` or ``visionkit.save``, or the folder of a run.
        out: File to write; it is complete or not there at all.
        trust: Names of top-level packages, beside visionkit, whose backbone the checkpoint may name.

    Raises:
        DataError: The checkpoint is missing, damaged or of another kind.
        UsageError: The checkpoint names a backbone of a package that is not trusted.
    """
    from safetensors.torch import save_file

    path = find_checkpoint(ckpt)
    content = checkpoint.read(path)
    backbone = checkpoint.make_backbone(content[checkpoint.KEY], path, trust=trust, state=content["state_dict"])
    backbone.load(path)
    state = backbone.state_dict()
    wrapped = wrapper(state)
    tensors = {
        name.removeprefix(wrapped): (t.float() if t.is_floating_point() else t).contiguous()
        for name, t in state.items()
    }
    passport = backbone.weights_report
    assert passport is not None
    header = {
        "format": "pt",  # transformers asks for it
        "visionkit": visionkit.__version__,
        "backbone": json.dumps(spec_of(backbone)),
        "mean": json.dumps(backbone.mean),
        "std": json.dumps(backbone.std),
        "passport": json.dumps(passport.plain()),
    }
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata=header)
    return passport
