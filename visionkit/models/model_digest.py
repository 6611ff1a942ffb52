"""The digest of a checkpoint file's model, and whether a file still holds the model of a digest."""

from __future__ import annotations

import hashlib
import os

from visionkit.core.files import open_binary
from visionkit.models import checkpoint
from visionkit.models.content_digest import digest_of
from visionkit.models.run_folder import find_checkpoint

__all__ = ["digests_of", "holds_model", "model_digest"]


def model_digest(path: str | os.PathLike[str]) -> str:
    """Return the digest of the model in a checkpoint file, in hex: see :func:`digest_of`.

    Args:
        path: The file, or the folder of a run.

    Raises:
        DataError: It is no checkpoint.
    """
    file = find_checkpoint(path)
    return digest_of(checkpoint.read(file), file)


def digests_of(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the digest of the model in a checkpoint file, and the SHA-256 of the file, which stood for it before.

    Args:
        path: The file, or the folder of a run.

    Raises:
        DataError: It is no checkpoint.
    """
    return model_digest(path), _of_file(path)


def holds_model(path: str | os.PathLike[str], sha256: str) -> bool:
    """Return whether a checkpoint file holds the model of a digest, by either of its digests.

    Args:
        path: The file, or the folder of a run.
        sha256: What an evaluation or a passport says of it.

    Raises:
        DataError: It cannot be read, or is no checkpoint.
    """
    return _of_file(path) == sha256 or model_digest(path) == sha256


def _of_file(path: str | os.PathLike[str]) -> str:
    with open_binary(find_checkpoint(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
