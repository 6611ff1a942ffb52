"""What tells one model from another: a hash of all that it computes with, whatever thresholds its file holds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from visionkit.core.errors import DataError
from visionkit.models.description import KEY

__all__ = ["digest_of"]


def digest_of(content: Mapping[str, Any], path: str | os.PathLike[str]) -> str:
    """Return the SHA-256, in hex, of the model that a checkpoint holds: its tensors, its parts and its passport.

    ``evaluate --choose`` writes thresholds into a file, and the model stays the same; so does its digest. A file that
    is written anew with the same model has the same one, too.

    Args:
        content: What the file holds, its description checked.
        path: The file, for messages.

    Raises:
        DataError: It holds a tensor of a kind that has no bytes of its own.
    """
    said = content[KEY]
    about = {"model": said["model"], "passport": said.get("passport")}
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    state: Mapping[str, Any] = content["state_dict"]
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):
            found.update(f"\n{name!r} {value!r}\n".encode("utf-8", "backslashreplace"))
            continue
        found.update(f"\n{name!r} {value.dtype} {tuple(value.shape)}\n".encode("utf-8", "backslashreplace"))
        try:
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        except (RuntimeError, NotImplementedError, TypeError) as e:  # sparse, quantised, on no device
            raise DataError(f"{path}: its state_dict holds a tensor of an unknown kind under {name!r:.60}") from e
    return found.hexdigest()
