"""Checkpoints that describe themselves and hold plain data only."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from visionkit.core.component import Spec
from visionkit.core.errors import DataError
from visionkit.core.files import replacing
from visionkit.models.model import VisionModel
from visionkit.models.weights.load import WeightsReport

__all__ = ["KEY", "adopt", "spec_of_model", "load", "read", "restore", "save", "write"]

KEY = "visionkit"
"""The entry of a checkpoint file that describes the model."""
FORMAT = 1
PREFIX = "model."
"""What the names of the model's tensors start with in ``state_dict`` (the task holds the model there)."""


def spec_of_model(model: VisionModel, *, task: str | None = None) -> Spec:
    """Return what a checkpoint says about its model.

    Args:
        model: The model.
        task: Import path of the Task class that trained it.
    """
    import visionkit

    passport = None if (report := model.backbone.weights_report) is None else report.plain()
    about = {"format": FORMAT, "version": visionkit.__version__, "task": task}
    return {**about, "model": model.spec(), "passport": passport}


def adopt(model: VisionModel, description: Mapping[str, Any]) -> None:
    """Take over what a checkpoint says of its backbone beside the weights: their passport and pixel statistics.

    A mean or std that the backbone's constructor was given stays.

    Args:
        model: The model that is given the checkpoint's weights.
        description: What :func:`spec_of_model` returned.

    Raises:
        DataError: The passport cannot be read.
    """
    backbone = model.backbone
    if "passport" in description:
        passport = description["passport"]
        backbone.weights_report = None if passport is None else WeightsReport.from_plain(passport)
    said = description.get("model", {}).get("backbone", {}).get("init_args", {})
    for key in ("mean", "std"):
        if said.get(key) is not None and backbone._arguments.get(key) is None:
            setattr(backbone, key, tuple(said[key]))
    model.take_statistics()


def save(model: VisionModel, path: str | os.PathLike[str], *, task: str | None = None) -> None:
    """Save a model so that :func:`load` and every command can use the file alone.

    Args:
        model: Any VisionModel, whether the command line or Python built it.
        path: File to write; it is complete or not there at all.
        task: Import path of the Task class that can measure it, such as ``visionkit.Detector``, or None.
    """
    state = {PREFIX + k: v for k, v in model.state_dict().items()}
    write({"state_dict": state, KEY: spec_of_model(model, task=task)}, path)


def load(
    path: str | os.PathLike[str], *, trust: Collection[str] = (), device: torch.device | str = "cpu"
) -> VisionModel:
    """Load the model of a checkpoint, ready to predict (in evaluation mode).

    Args:
        path: A file that ``visionkit fit`` or :func:`save` wrote.
        trust: Names of top-level packages, beside visionkit, whose classes the file may name.
        device: Where to put the model.

    Raises:
        DataError: The file is missing, damaged, of another kind or holds code.
        UsageError: The file names classes of a package that is not trusted.
    """
    return restore(read(path), path, trust=trust).to(device)


def restore(checkpoint: Mapping[str, Any], path: str | os.PathLike[str], *, trust: Collection[str] = ()) -> VisionModel:
    """Make the model of a checkpoint that :func:`read` returned; ``path`` is for messages."""
    model = VisionModel.from_spec(checkpoint[KEY]["model"], trust=trust)
    state = {k.removeprefix(PREFIX): v for k, v in checkpoint["state_dict"].items() if k.startswith(PREFIX)}
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        raise DataError(f"{path}: the weights do not fit the model it describes ({_first_line(e)})") from e
    try:
        adopt(model, checkpoint[KEY])
    except DataError as e:
        raise DataError(f"{path}: {e}") from e
    return model.eval()


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file without running code from it.

    Raises:
        DataError: The file is missing, damaged, of another kind or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint file")
    try:
        _verify_check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise DataError(f"{path}: refused, it holds code and not only data ({_refused(e)})") from e
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        raise DataError(f"{path}: no readable checkpoint, damaged or of another format ({_first_line(e)})") from e
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get(KEY), dict) and "state_dict" in checkpoint):
        raise DataError(
            f"{path}: not a visionkit checkpoint; if it holds weights of a backbone, use it with "
            f"--model.backbone.weights {path}"
        )
    if checkpoint[KEY].get("format") != FORMAT:
        raise DataError(
            f"{path}: checkpoint format {checkpoint[KEY].get('format')} of visionkit {checkpoint[KEY].get('version')}, "
            f"this version reads format {FORMAT}: upgrade visionkit"
        )
    return checkpoint


def write(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint under a temporary name, then rename it: a reader never sees half a file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def _verify_check_sums(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return  # torch.load reads older formats, or says what is wrong
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise DataError(f"{path}: damaged or tampered with (check sum of {damaged} is wrong); use another copy")


def _first_line(e: BaseException) -> str:
    lines = str(e).strip().splitlines() or [type(e).__name__]
    return " ".join(part.strip() for part in lines[:2])


def _refused(e: BaseException) -> str:
    for line in str(e).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()
    return _first_line(e)
