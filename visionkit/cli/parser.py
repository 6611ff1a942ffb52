"""Lightning's parser of the command line and of configs, with visionkit's messages and defaults."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Union, get_args

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of jsonargparse, not the user's

import lightning as L
import yaml
from jsonargparse import Namespace, get_loader, set_loader
from jsonargparse._paths import Path as ParserPath
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from visionkit.cli.config import bounded_yaml, messages
from visionkit.core.errors import UsageError

__all__ = ["GIVEN_ARGUMENTS", "Parser", "names_class"]

GIVEN_ARGUMENTS: list[str] = []
"""The arguments as they were given, for messages; Lightning makes the parsers without a way to tell them."""


def _whole_numbers_first(function: Callable[..., Any]) -> None:
    """Let whole numbers be read as such where a function takes those and others.

    Up to Python 3.13 typing takes the first spelling of ``Optional[Union[int, float]]`` that it sees. Where nncf came
    before Lightning that has float first, and ``limit_train_batches: 1``, one batch, would be read as 1.0, all of them.
    """
    for name, kind in function.__annotations__.items():
        kinds = get_args(kind)
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            function.__annotations__[name] = Union[(int, *(k for k in kinds if k is not int))]


_whole_numbers_first(L.Trainer.__init__)
for _logger in (CSVLogger, TensorBoardLogger):  # without a folder of their own they write into that of the run
    setattr(_logger.__init__, "__defaults__", (None, *(_logger.__init__.__defaults__ or ())))  # noqa: B010


def _read_file(path: ParserPath) -> str:
    """Return the text of a file that stands in place of a mapping, within the bounds of a config."""
    text = bounded_yaml.read(Path(path.absolute))
    with contextlib.suppress(yaml.YAMLError):  # the parser says so
        bounded_yaml.check(text, str(path))
    return text


def _load_bounded(text: str) -> Any:
    """Load YAML as jsonargparse does, within the bounds of a config."""
    bounded_yaml.check(text, "a value")
    return _load_yaml(text)


_load_yaml = get_loader("yaml")
setattr(ParserPath, "read_text", _read_file)  # noqa: B010  # the one place where jsonargparse opens what a config or an option names
set_loader("yaml", _load_bounded, exceptions=(yaml.YAMLError, ValueError, LookupError, AttributeError))


class Parser(LightningArgumentParser):
    """A parser whose errors are one clear line, and in which a class has its own defaults."""

    started_in: ClassVar[str] = "."
    """The working folder of the command: paths among the arguments are relative to it."""

    def parse_object(self, obj: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parse, and fill in nothing from the class that stands in a place by default where another one is named."""
        usual = {action: action.default for action in self._actions if names_class(action.default)}
        for action, default in usual.items():
            given = _at(obj, action.dest)
            if names_class(given) and given["class_path"] != default["class_path"]:
                action.default = {"class_path": given["class_path"]}
        try:
            parsed: Namespace = super().parse_object(obj, *args, **kwargs)
            return parsed
        finally:  # the parser of a class is made once
            for action, default in usual.items():
                action.default = default

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise a UsageError that names file, line, key and the nearest right name."""
        if not self.exit_on_error:
            super().error(message, ex)
        with contextlib.chdir(self.started_in):  # while a config is read, its folder is the working folder
            said = messages.explain(message, GIVEN_ARGUMENTS)
        raise UsageError(said) from None


def _at(config: Any, key: str) -> Any:
    """Return what stands below a dotted key of a config, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Namespace | dict) else None
    return config


def names_class(value: Any) -> bool:
    """Return whether a part of a parsed config is a class with its arguments."""
    return isinstance(value, Namespace | dict) and "class_path" in value
