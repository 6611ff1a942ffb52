"""Config files: the shipped ones by name, their syntax, and what a checkpoint says in their place."""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import visionkit
from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.descriptions import BASES, keys_of_form
from visionkit.cli.config.options import CONFIG, options_of
from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import open_binary

if TYPE_CHECKING:
    from visionkit.models.description import Description

__all__ = [
    "TOP",
    "classes_of",
    "content_of",
    "from_checkpoint",
    "line_of",
    "paths",
    "refuse_partial",
    "resolve",
    "shipped",
]

TOP = {
    "seed_everything": "Seed of start weights, order and augmentation.",
    "start_seed": "Seed of the start weights alone, where it is not that of all else.",
    "trainer": "Trainer of Lightning",
    "pictures": "When fit draws validation pictures, truth beside prediction: auto after the epochs 1, 2, 5, 10, 20, "
    "50 and so on and the last, N after each N epochs; none draws neither these nor the first training batch.",
    **dict.fromkeys((*BASES, "ckpt_path", "config"), ""),
    "weights_only": "Of Lightning; visionkit reads nothing but plain data from a checkpoint in any case.",
}
"""Keys of a config, with what is to be said of those that do not describe themselves."""


def folder() -> Path:
    """Return where the shipped configs lie: inside the installed package, or beside it in a checkout."""
    package = Path(visionkit.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    """Return the names of the shipped configs."""
    return sorted(p.name for p in folder().glob("*.yaml"))


def resolve(arguments: Sequence[str]) -> list[str]:
    """Replace names of shipped configs by their paths; a file of the user's wins over a shipped one.

    Raises:
        UsageError: A config is neither.
    """
    resolved: list[str] = []
    for option in options_of(arguments):
        if option.name in CONFIG and option.words == (option.name,):
            raise UsageError(f"{option.name} needs a config: a file or one of the shipped {', '.join(shipped())}")
        resolved += option.with_value(_find(option.value)) if option.name in CONFIG else option.words
    return resolved


def paths(arguments: Sequence[str]) -> list[Path]:
    """Return the config files among the arguments, in order."""
    return [Path(option.value) for option in options_of(arguments) if option.name in CONFIG and option.value]


def content_of(path: Path) -> dict[str, Any]:
    """Return what a config holds.

    Raises:
        UsageError: The file cannot be parsed, is over a bound or no mapping; with its line.
    """
    content = bounded_yaml.load_file(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a config is a mapping of keys (trainer, model, data), this file holds none")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise UsageError(f"{path}: the key {odd[0]!r} is no word: a config's are {', '.join(TOP)}")
    return content


def refuse_partial(files: Sequence[Path], arguments: Sequence[str]) -> None:
    """Refuse configs of which none, and no option, names the class of the model or of the data.

    Raises:
        UsageError: Naming the last file and what it lacks.
    """
    contents = [content_of(file) for file in files if file.is_file()]
    given = {option.name.removesuffix(".class_path") for option in options_of(arguments)}
    for part in BASES:
        values = [content[part] for content in contents if part in content]
        if contents and f"--{part}" not in given and not any(isinstance(v, str) or _has_class(v) for v in values):
            raise UsageError(
                f"{files[-1]}: it names no class for {part} ({part}.class_path): put a whole config before it, such as "
                f"-c classify.yaml -c {files[-1]}; shipped with visionkit: {', '.join(shipped())}"
            )


def classes_of(path: Path) -> set[str]:
    """Return what a config may import: its class paths, and all words that the parser could take for a class.

    Words of ``root`` and ``classes`` are data. Files and mappings in a word may name classes, too.
    """

    def named(value: Any, key: str = "") -> set[str]:
        if isinstance(value, dict):
            return set().union(*(named(v, str(k)) for k, v in value.items() if k not in ("root", "classes")))
        if isinstance(value, list):
            return set().union(*map(named, value))
        if not isinstance(value, str):
            return set()
        dotted = all(part.isidentifier() for part in value.split(".")) and "." in value
        unclear = value.endswith(bounded_yaml.YAML_FILES) or value.lstrip().startswith(("{", "["))
        short = key == "class_path" and "." not in value
        return {f"visionkit.{value}" if short else value} if dotted or unclear or key == "class_path" else set()

    return named(content_of(path))


def _has_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def line_of(path: Path, keys: Sequence[str]) -> int | None:
    """Return the line of a key in a YAML file, or None where it does not stand.

    Args:
        path: The file.
        keys: The way to it, e.g. ``("model", "backbone", "depth")``; ``init_args`` levels are passed over.
    """
    try:
        text = bounded_yaml.read(path)
        bounded_yaml.check(text, str(path))
        node = yaml.compose(text)
    except (UsageError, yaml.YAMLError):
        return None
    wanted = [k for k in keys if k != "init_args"]
    named = keys_of_form("named")

    def search(node: yaml.Node | None, rest: list[str], parent: str = "") -> int | None:
        if not isinstance(node, yaml.MappingNode):
            return None
        for key, value in node.value:
            if key.value == "init_args" or (parent in named and key.value != rest[0]):
                found = search(value, rest)
            elif key.value == rest[0]:
                found = search(value, rest[1:], key.value) if len(rest) > 1 else key.start_mark.line + 1
            else:
                found = None
            if found is not None:
                return int(found)
        return None

    return search(node, wanted) if wanted else None


def from_checkpoint(
    described: Description, path: str, trust: Collection[str] = (), state: Mapping[str, Any] | None = None
) -> list[str]:
    """Return arguments that stand for a config: the shipped one of the checkpoint's task and head, with its model.

    The parser imports and makes what it is told, so it is told of a model that was made by ``make_model`` already.

    Args:
        described: What the checkpoint says of itself.
        path: The checkpoint file, for messages.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.
        state: Its tensors, which the model must fit; None where there are none.

    Raises:
        UsageError: The checkpoint does not say which task trained it, or names a class that is not trusted.
        DataError: It describes no model, or none of that task.
    """
    from visionkit.core.component import spec_of
    from visionkit.data.transforms.preprocessing import Preprocessing
    from visionkit.models.checkpoint import make_model

    cls = getattr(visionkit, (described["task"] or "").removeprefix("visionkit."), None)
    if cls is None or not hasattr(cls, "config"):
        raise UsageError(f"{path} was not made by a task of visionkit: name a config with -c")
    model = make_model(described, path, trust=trust, state=state)
    usual = getattr(inspect.signature(cls).parameters.get("head"), "default", None)  # a joint task has several heads
    kind = model.head.prediction
    if usual is not None and kind is not None and not issubclass(kind, usual.prediction):
        raise DataError(
            f"{path}: it says that it is of a {cls.__name__}, but its head is a {type(model.head).__name__}"
        )
    if type(model.preprocessing) is not Preprocessing:
        raise UsageError(f"{path}: its preprocessing is a {type(model.preprocessing).__name__}: name a config with -c")
    spec = model.spec()
    arguments = ["-c", str(_like(cls, spec["head"]["class_path"]))]
    try:
        given = cls.config_of(spec)
    except KeyError as e:
        raise DataError(f"{path}: it describes no model of a {cls.__name__}, which has {e}") from e
    for key, value in given.items():
        arguments.append(f"--model.{key}={value if isinstance(value, str) else json.dumps(value)}")
    for key, value in spec_of(model.preprocessing)["init_args"].items():
        arguments.append(f"--data.{key}={value if isinstance(value, str) else json.dumps(value)}")
    return arguments


def _like(task: Any, head: str) -> Path:
    """Return the shipped config of a task with this head, which asks the data for what the head needs; else its own."""
    for name in shipped():
        model = content_of(folder() / name)["model"]
        own = model["init_args"].get("head", {}).get("class_path")
        if model["class_path"] == task.__name__ and own == head.rpartition(".")[2]:
            return folder() / name
    return folder() / str(task.config)


def _find(name: str) -> str:
    if Path(name).is_file():
        return name
    inside = folder() / name
    if Path(name).name == name and inside.is_file():
        return str(inside)
    if Path(name).name == name and inside.with_suffix(".yaml").is_file():
        return str(inside.with_suffix(".yaml"))
    if os.path.lexists(name):
        try:
            open_binary(name).close()
        except DataError as e:  # a folder, a pipe, a link to nothing
            raise UsageError(*e.lines) from e
    near = difflib.get_close_matches(Path(name).stem, [Path(n).stem for n in shipped()], n=1)
    hint = f"did you mean {near[0]}.yaml? Shipped" if near and Path(name).name == name else "shipped"
    raise UsageError(f"there is no config file {name}; {hint} with visionkit: {', '.join(shipped())}")
