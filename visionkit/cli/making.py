"""What is refused when data, model and trainer are made, in a line that names the option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry

import visionkit
from visionkit.cli.config import configs
from visionkit.cli.config.descriptions import import_class
from visionkit.cli.config.options import Option, options_of
from visionkit.cli.faults import explained
from visionkit.cli.parser import names_class
from visionkit.core.errors import UsageError, VisionkitError
from visionkit.models.run_folder import BEST

__all__ = ["check_data", "check_machine", "instead_of_last", "place_loggers", "refused"]

MAX_SEED = 2**32 - 1
ACCELERATOR, DEVICE = "--trainer.accelerator", "--device"


def check_machine(config: Namespace, given: Sequence[str]) -> None:
    """Refuse a seed out of range and a device that is not here.

    Args:
        config: What was parsed for the command.
        given: The command line, for messages.

    Raises:
        UsageError: Naming the option and what there is.
    """
    for key in ("seed_everything", "start_seed"):
        seed = config.get(key)
        if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed <= MAX_SEED:
            raise UsageError(f"--{key} {seed}: a whole number from 0 to {MAX_SEED}")
    asked = config.trainer.accelerator
    if not isinstance(asked, str) or asked == "auto":
        return
    device = next((o.value for o in reversed(options_of(given)) if o.name == DEVICE), None)
    option = f"{ACCELERATOR} {asked}" if device is None else f"{DEVICE} {device}"
    here = ["cpu", *(name for name in ("cuda", "mps") if _is_here(name))]
    known = sorted({"gpu", *AcceleratorRegistry.available_accelerators()})
    if asked not in known:
        raise UsageError(f"{option}: no such device; one of auto, {', '.join(known)}; here there is {', '.join(here)}")
    if not (any(map(_is_here, ("cuda", "mps"))) if asked == "gpu" else _is_here(asked)):
        version = torch.__version__
        raise UsageError(
            f"{option}: this machine has none that torch {version} can use; here there is {', '.join(here)}"
        )


def _is_here(name: str) -> bool:
    accelerator: Any = AcceleratorRegistry[name]["accelerator"]
    return bool(accelerator.is_available())


def check_data(config: Namespace, given: Sequence[str]) -> None:
    """Refuse data of another task of visionkit: a segmenter learns nothing from pictures with classes.

    Args:
        config: What was parsed for the command.
        given: The command line, for messages.

    Raises:
        UsageError: Naming both classes.
    """
    model, data = (import_class(str(config[part].class_path)) for part in ("model", "data"))
    file = getattr(model, "config", None)
    if file is None or data is None or visionkit.PUBLIC.get(data.__name__) != data.__module__:
        return  # classes of the user's know themselves what fits
    usual = import_class(configs.content_of(configs.folder() / file)["data"]["class_path"])
    if usual is not None and not issubclass(data, usual):
        option = next((o.name for o in options_of(given) if o.name.removesuffix(".class_path") == "--data"), "data")
        task = config.model.class_path.rpartition(".")[2]
        raise UsageError(f"{option}: a {task} needs {usual.__name__}, got {data.__name__}")


def place_loggers(loggers: Iterable[Any], folder: Path) -> None:
    """Let loggers that are to write nowhere else write into the run folder.

    Args:
        loggers: As they were parsed.
        folder: The run folder.
    """
    for logger in filter(names_class, loggers):
        arguments = logger.get("init_args", {})
        if "save_dir" in arguments and arguments["save_dir"] is None:
            arguments["save_dir"] = str(folder)


def instead_of_last(path: Path) -> str:
    """Return what a training can do whose last.ckpt cannot be read.

    Args:
        path: That file.
    """
    best = "go on from the best epoch with --ckpt_path best, or " if path.with_name(BEST).is_file() else ""
    return f"{best}remove the file, and --ckpt_path auto starts from the beginning"


def refused(e: BaseException, given: Sequence[str]) -> VisionkitError | None:
    """Return what a constructor refuses as an error for the user; None for what is a fault of its own.

    Args:
        e: What was raised.
        given: The command line: an option whose value is in the message, but not its name, is named.
    """
    cause: BaseException | None = e
    while cause is not None and not isinstance(cause, VisionkitError):
        last, cause = cause, cause.__cause__ or cause.__context__
    if cause is not None:
        single = isinstance(cause, UsageError) and len(cause.lines) == 1
        return UsageError(_named(cause.args[0], given)) if single else cause
    if isinstance(e, ValueError | TypeError | ImportError | MisconfigurationException):
        return explained(e) or UsageError(_named(" ".join(str(last).split()), given))
    return None


def _named(message: str, given: Sequence[str]) -> str:
    options = list({o.name: o for o in options_of(given) if o.name.startswith("--") and o.value}.values())
    if any(re.search(rf"\b{re.escape(o.name.rpartition('.')[2].lstrip('-'))}\b", message) for o in options):
        return message
    meant = [o for o in options if _holds(message, o)]
    return f"{meant[0].name} {meant[0].value}: {message}" if len(meant) == 1 else message


def _holds(message: str, option: Option) -> bool:
    """Return whether the value of an option is in a message, as a word or as an equal number."""
    words = re.findall(r"[^\s=,;:()'\"]+", message)
    number = _number(option.value)
    return option.value in words or (number is not None and number in map(_number, words))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
