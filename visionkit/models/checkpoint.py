"""Checkpoints that describe themselves and hold plain data only."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionkit.core.component import Component, Spec, build, checked, class_path
from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import open_binary, writing
from visionkit.core.thresholds import Thresholds
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone
from visionkit.models.backbones.statistics import per_channel
from visionkit.models.description import FORMAT, KEY, Description, check_description
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.models.necks.base import Neck
from visionkit.models.outline import BoundError, bounded, misfit, outline
from visionkit.models.run_folder import find_checkpoint
from visionkit.models.torch_file import NO_WEIGHTS, NOT_FINITE, format_of, no_weights, not_finite, read_torch
from visionkit.models.weights.load import WeightsReport

__all__ = [
    "KEY",
    "adopt",
    "fit_state",
    "load",
    "make_backbone",
    "make_model",
    "read",
    "read_both",
    "restore",
    "save",
    "spec_of_model",
    "write",
]

PREFIX = "model."
"""What the names of the model's tensors start with in ``state_dict`` (the task holds the model there)."""
ALONE = 10_000  # tensors that a model may have where none came with its description
M = TypeVar("M", bound=nn.Module)


def spec_of_model(model: VisionModel, *, task: str | None = None) -> Spec:
    """Return what a checkpoint says about its model.

    Args:
        model: The model.
        task: Import path of the Task class that trained it.
    """
    import visionkit

    passport = None if (report := model.backbone.weights_report) is None else report.plain()
    about = {"format": FORMAT, "version": visionkit.__version__, "task": task}
    chosen = {} if model.thresholds is None else {"thresholds": model.thresholds.plain()}
    taught = {"teachers": [dict(one) for one in model.teachers]} if model.teachers else {}
    return {**about, "model": model.spec(), "passport": passport, **chosen, **taught}


def adopt(model: VisionModel, description: Mapping[str, Any], path: str | os.PathLike[str] = "the checkpoint") -> None:
    """Take over what a checkpoint says beside the weights: their passport, pixel statistics, and who taught the model.

    A mean or std that the backbone's constructor was given stays.

    Args:
        model: The model that is given the checkpoint's weights.
        description: What :func:`spec_of_model` returned.
        path: The checkpoint file, for messages.

    Raises:
        DataError: The passport or the statistics cannot be read.
    """
    backbone = model.backbone
    model.teachers = tuple(description.get("teachers") or ())
    try:
        if "passport" in description:
            passport = description["passport"]
            backbone.weights_report = None if passport is None else WeightsReport.from_plain(passport)
        said = description.get("model", {}).get("backbone", {}).get("init_args", {})
        for key in ("mean", "std"):
            if said.get(key) is not None and backbone._arguments.get(key) is None:
                setattr(backbone, key, per_channel(key, said[key], (), backbone.in_channels))
    except (VisionkitError, TypeError, ValueError) as e:
        raise DataError(f"{path}: {e}") from e
    model.take_statistics()


def save(model: VisionModel | nn.Module, path: str | os.PathLike[str], *, task: str | None = None) -> None:
    """Save a model so that :func:`load` and every command can use the file alone.

    Args:
        model: Any VisionModel, whether the command line or Python built it, or the Task that trains one.
        path: File to write; it is complete or not there at all.
        task: Import path of the Task class that can measure it, such as ``visionkit.Detector``; None takes that of a
            Task, or none.

    Raises:
        UsageError: It is neither.
    """
    held = getattr(model, "model", None)
    if not isinstance(model, VisionModel) and isinstance(held, VisionModel):
        model, task = held, task or class_path(type(model))
    if not isinstance(model, VisionModel):
        raise UsageError(f"save takes a VisionModel or the Task that trains one, not a {type(model).__name__}")
    state = {PREFIX + k: v for k, v in model.state_dict().items()}
    write({"state_dict": state, KEY: spec_of_model(model, task=task)}, path)


def load(
    path: str | os.PathLike[str], *, trust: Collection[str] = (), device: torch.device | str = "cpu"
) -> VisionModel:
    """Load the model of a checkpoint, ready to predict (in evaluation mode).

    Args:
        path: A file that ``visionkit fit`` or :func:`save` wrote, or the folder of a run: its best checkpoint.
        trust: Names of top-level packages, beside visionkit, whose classes the file may name.
        device: Where to put the model.

    Raises:
        DataError: The file is missing, damaged, of another kind or holds code.
        UsageError: The file names classes of a package that is not trusted.
    """
    file = find_checkpoint(path)
    return restore(read(file), file, trust=trust).to(device)


def restore(checkpoint: Mapping[str, Any], path: str | os.PathLike[str], *, trust: Collection[str] = ()) -> VisionModel:
    """Make the model of a checkpoint that :func:`read` returned, in evaluation mode.

    Args:
        checkpoint: What the file holds.
        path: The file, for messages.
        trust: As in :func:`load`.

    Raises:
        DataError: The description makes no model, or the weights do not fit it.
        UsageError: As in :func:`load`.
    """
    model = make_model(checkpoint[KEY], path, trust=trust, state=checkpoint["state_dict"])
    fit_state(model, checkpoint, path)
    return model.eval()


def make_model(
    description: Description,
    path: str | os.PathLike[str],
    *,
    trust: Collection[str] = (),
    state: Mapping[str, Any] | None = None,
) -> VisionModel:
    """Make the model that a checkpoint describes, with fresh weights: the one gate from a description to classes.

    Each class in it must be visionkit's or trusted, of the kind for its place, and have the arguments that it is given.
    Arguments that name other files to start from are left out. Before memory is taken, the model is made in outline
    and compared with the file's tensors.

    Args:
        description: What the file says of its model.
        path: The file, for messages.
        trust: As in :func:`load`.
        state: The file's ``state_dict``; None for a description that did not come with tensors.

    Raises:
        DataError: The description makes no model, or one that the file's tensors do not fit.
        UsageError: As in :func:`load`.
    """
    said = description["model"]
    spec = {
        "backbone": _checked(said["backbone"], Backbone, path, trust),
        "neck": _checked(said["neck"], Neck, path, trust),
        "head": _checked(said["head"], Head, path, trust),
        "classes": said["classes"],
        "preprocessing": _checked(said["preprocessing"], Preprocessing, path, trust),
    }
    model = _made(lambda: VisionModel.from_spec(spec, trust=trust), PREFIX, state, path, trust)
    adopt(model, description, path)
    if "thresholds" in description:
        model.thresholds = Thresholds.from_plain(description["thresholds"], model.classes)
    return model


def make_backbone(
    description: Description,
    path: str | os.PathLike[str],
    *,
    trust: Collection[str] = (),
    state: Mapping[str, Any] | None = None,
) -> Backbone:
    """Make the backbone alone that a checkpoint describes, as :func:`make_model` does; no other class is asked for."""
    spec = _checked(description["model"]["backbone"], Backbone, path, trust)

    def make() -> Backbone:
        backbone = build(spec, trust=trust)
        assert isinstance(backbone, Backbone)
        return backbone

    return _made(make, f"{PREFIX}backbone.", state, path, trust)


def _made(
    make: Callable[[], M],
    prefix: str,
    state: Mapping[str, Any] | None,
    path: str | os.PathLike[str],
    trust: Collection[str],
) -> M:
    """Make a module, first in outline where there are tensors to compare it with."""
    own = None if state is None else {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    fault = None
    with _no_model(path), torch.random.fork_rng(devices=()):  # whoever asks goes on with his own random numbers
        if own is not None:
            try:
                with outline(len(own)):
                    fault = misfit(make(), own)
            except BoundError:
                raise
            except MemoryError as e:  # it wanted some although there are no numbers
                raise BoundError("it takes more memory than there is") from e
            except Exception:
                if not trust:  # classes of the user's need not know how to be made so
                    raise
        if fault is None:
            with bounded(ALONE if own is None else len(own)):
                return make()
    raise DataError(f"{path}: the weights do not fit the model it describes: {fault}")


def _checked(spec: Spec, kind: type[Component], path: str | os.PathLike[str], trust: Collection[str]) -> Spec:
    try:
        return checked(spec, kind=kind, trust=trust)
    except VisionkitError as e:  # UsageError: its package is not trusted
        raise type(e)(f"{path}: {e}") from e


@contextmanager
def _no_model(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of whatever a constructor raises that the file is to blame."""
    try:
        yield
    except (VisionkitError, BoundError) as e:
        raise DataError(f"{path}: what it describes makes no model: {e}") from e
    except MemoryError:
        raise
    except Exception as e:  # values of a wrong kind can raise anything in a constructor
        raise DataError(f"{path}: what it describes makes no model ({type(e).__name__}: {_first_lines(e)})") from e


def fit_state(
    model: VisionModel,
    checkpoint: Mapping[str, Any],
    path: str | os.PathLike[str],
    what: str = "the model it describes",
) -> None:
    """Copy the weights of a checkpoint into a model.

    Args:
        model: The model.
        checkpoint: What the file holds.
        path: The file, for messages.
        what: What messages call the model.

    Raises:
        DataError: They do not fit, or are not finite.
    """
    state = {k.removeprefix(PREFIX): v for k, v in checkpoint["state_dict"].items() if k.startswith(PREFIX)}
    tensors, targets = {k: v for k, v in state.items() if isinstance(v, Tensor)}, model.state_dict()
    if (bad := no_weights(tensors, targets)) is not None:
        raise DataError(f"{path}: {PREFIX}{bad} {NO_WEIGHTS}: take another checkpoint, such as best.ckpt")
    if (bad := not_finite(tensors, targets)) is not None:
        raise DataError(f"{path}: {PREFIX}{bad} {NOT_FINITE}: take another checkpoint, such as best.ckpt")
    try:
        model.load_state_dict(state)
    except Exception as e:  # RuntimeError, but for tensors of odd kinds
        raise DataError(f"{path}: the weights do not fit {what} ({_first_lines(e)})") from e


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file without running code from it; what it says of its model has the right form.

    Args:
        path: The file, or the folder of a run.

    Raises:
        DataError: The file is missing, damaged, of another kind, of another version or holds code.
    """
    return read_both(path)[0]


def read_both(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what :func:`read` does, and the same with its description as it stands in the file, unknown keys and all.

    Args:
        path: The file, or the folder of a run.

    Raises:
        DataError: As :func:`read` does.
    """
    path = find_checkpoint(path)
    with open_binary(path) as file:
        content = read_torch(file, path) if format_of(file, path) == "PyTorch" else None
    if not (isinstance(content, dict) and KEY in content and "state_dict" in content):
        raise DataError(
            f"{path}: not a visionkit checkpoint; if it holds weights of a backbone, use it with "
            f"--model.backbone.weights {path}"
        )
    description = check_description(content[KEY], path)
    state = content["state_dict"]
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: its state_dict is a {type(state).__name__}, no mapping from names to tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not (isinstance(value, Tensor) or name.endswith("_extra_state")):
            raise DataError(f"{path}: its state_dict holds a {type(value).__name__} under {name!r:.60}, no tensor")
    return {**content, KEY: description}, content


def write(checkpoint: Mapping[str, Any], path: str | os.PathLike[str], *, mode: int | None = None) -> None:
    """Write a checkpoint under a temporary name, then rename it: a reader never sees half a file.

    Args:
        checkpoint: What it holds.
        path: The file.
        mode: Who may do what with it; None for what is usual.

    Raises:
        DataError: It cannot be written; what was there before stays.
    """
    with writing(path, needed=_bytes_of(checkpoint), mode=mode) as file:
        torch.save(checkpoint, file)


def _bytes_of(content: Any) -> int:
    """Return how many bytes the tensors of plain data have."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(map(_bytes_of, content.values()))
    return sum(map(_bytes_of, content)) if isinstance(content, list | tuple) else 0


def _first_lines(e: BaseException) -> str:
    lines = str(e).strip().splitlines() or [type(e).__name__]
    return " ".join(part.strip() for part in lines[:2])
