"""The config.yaml of a run: it belongs to the folder in which it lies, and works from everywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from visionkit import __version__
from visionkit.cli.config import configs
from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.core.text import printable
from visionkit.models.run_folder import FOLDER
from visionkit.models.weights.places import AUTO

if TYPE_CHECKING:
    from visionkit.training.advice import Choice

__all__ = ["config_text", "home_of"]

HEADER = "# visionkit "
NAME = "config.yaml"
PATHS = ("root", "split", "cache_folder", "weights", "teacher")
"""Keys whose values are files or folders; of others those are that hold a slash and exist."""
ALWAYS = ("root", "cache_folder")
"""Those that are paths whether they exist or not; weights can be names of a hub, too."""


def config_text(
    parser: ArgumentParser, config: Namespace, choices: Sequence[Choice] = (), remarks: Sequence[str] = ()
) -> str:
    """Return the text of config.yaml: all keys, with absolute paths and a comment that tells how they were given.

    It names no run folder and no checkpoint: the one in which it lies is its own, and running it again starts anew.

    Args:
        parser: Made the config.
        config: What was parsed.
        choices: What was chosen from the data; it stands in comments with its reasons.
        remarks: Further comments.
    """
    config = config.clone()
    config.pop("ckpt_path", None)
    config.trainer.default_root_dir = None
    given = list(_made_absolute(config, ""))
    lines = [line for line in parser.dump(config, skip_none=False).splitlines() if not line.startswith("# lightning")]
    head = [f"{HEADER}{__version__}: visionkit fit -c THIS_FILE repeats the training, with --ckpt_path last it goes on"]
    head += [f"# paths as they were given, in {json.dumps(os.getcwd())}:"] if given else []
    head += [f"#   {key}: {json.dumps(value)}" for key, value in given]
    head += ["# chosen from the data:"] if choices else []
    head += [f"#   {printable(str(choice))}" for choice in choices]
    head += [f"# {printable(remark)}" for remark in remarks]
    return "\n".join([*head, *lines]) + "\n"


def home_of(arguments: Sequence[str]) -> Path | None:
    """Return the run folder in which the config lies that a run has written there, or None.

    Args:
        arguments: A command line; the last config counts.
    """
    for path in configs.paths(arguments)[-1:]:
        try:
            first = read_text(path).partition("\n")[0]
            written = first.startswith(HEADER) and "THIS_FILE" in first
            if written and (path.name == NAME or (path.parent / FOLDER).is_dir()):
                return path.parent
        except DataError:  # its reader says so
            pass
    return None


def _made_absolute(config: Any, key: str) -> Iterator[tuple[str, str]]:
    """Make the relative paths in a config absolute; yield their keys and what they were."""
    items = vars(config).items() if isinstance(config, Namespace) else config.items()
    for name, value in list(items):
        below = f"{key}.{name}" if key else str(name)
        if isinstance(value, Namespace | dict):
            yield from _made_absolute(value, below)
        elif isinstance(value, list):
            for k, part in enumerate(value):
                if isinstance(part, Namespace | dict):
                    yield from _made_absolute(part, f"{below}.{k}")
                elif _is_path(str(name), part):
                    yield f"{below}.{k}", part
                    value[k] = os.path.abspath(part)
        elif _is_path(str(name), value):
            yield below, value
            config[name] = os.path.abspath(value)


def _is_path(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not value or os.path.isabs(value) or (name, value) == ("weights", AUTO):
        return False
    if name in ALWAYS:
        return True
    return (name in PATHS or "/" in value or os.sep in value) and len(value) < 4096 and os.path.exists(value)
