"""The descriptions of the classes that configs name, from a file: help speaks of classes that take seconds to import.

``python -m visionkit.cli.config.descriptions`` (``make descriptions``) imports the classes, asks them and writes the
file. It holds visionkit's public classes and Lightning's Trainer of one version; classes of the user's, and the Trainer
of another version, are imported and asked when they are needed.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import visionkit
from visionkit.cli.config.described import Argument, Described, ask, name_of, say_default
from visionkit.core.files import read_text

__all__ = [
    *("BASES", "TRAINER", "TRAINER_DEFAULTS", "Descriptions"),
    *("describe", "import_class", "keys_of_form", "kind_of", "known", "make", "write"),
]

FILE = Path(__file__).with_name("descriptions.json")
BASES = {"model": "Task", "data": "VisionDataModule"}
"""Keys of a config whose classes say themselves what else it holds, and what these classes derive from."""
TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
TRAINER_DEFAULTS = {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
"""Where visionkit's defaults are not Lightning's."""


@dataclass(frozen=True)
class Descriptions:
    """All that the file holds.

    Args:
        lightning: Version of Lightning whose Trainer is described.
        kinds: The public classes of each kind, by the name of the class that they derive from.
        classes: The description of each class, by its name in configs.
    """

    lightning: str
    kinds: dict[str, list[str]]
    classes: dict[str, Described]


@cache
def known() -> Descriptions:
    """Return what the file says."""
    plain = json.loads(read_text(FILE))
    for name, cls in plain["classes"].items():
        arguments = {k: Argument(**argument) for k, argument in cls.pop("arguments").items()}
        plain["classes"][name] = Described(**cls, arguments=arguments)
    return Descriptions(**plain)


def describe(path: str) -> Described | None:
    """Describe the class of a path or of a short name of visionkit's; None where there is no such class."""
    module, _, name = path.rpartition(".")
    if path == TRAINER:
        if known().lightning == importlib.metadata.version("lightning"):
            return known().classes[path]
        return _trainer()
    if name in known().classes and module in ("", "visionkit", visionkit.PUBLIC[name]):
        return known().classes[name]
    cls = import_class(path)
    return None if cls is None else _asked(cls)


def import_class(path: str) -> type | None:
    """Return the class of a path or of a short name of visionkit's, None where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "visionkit"), name, None)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None


def kind_of(key: str) -> str | None:
    """Return the kind of class that a key of a config takes, None where it takes none or nothing is known of it."""
    found = (c.arguments[key].kind for c in known().classes.values() if key in c.arguments)
    return BASES.get(key) or next(filter(None, found), None)


def keys_of_form(form: str) -> set[str]:
    """Return the keys below ``model`` and ``data`` that take classes in a form, such as "named"."""
    tops = [known().classes[name] for base in BASES.values() for name in known().kinds[base]]
    return {name for cls in tops for name, argument in cls.arguments.items() if argument.form == form}


# ---- made


def make() -> Descriptions:
    """Import the public classes that configs can name, and the Trainer, and ask them."""
    kinds: dict[str, list[str]] = {}
    classes = {TRAINER: _trainer()}
    waiting = dict.fromkeys(BASES.values(), 0)
    while waiting:
        kind, passed = waiting.popitem()
        base = import_class(kind)
        assert base is not None
        asked = {name_of(cls): ask(cls, passed) for cls in _public(base)}
        if kind not in BASES.values():  # what holds others of its kind is made by a task, such as MultiTaskHead
            asked = {k: cls for k, cls in asked.items() if all(a.kind != kind for a in cls.arguments.values())}
        kinds[kind] = list(asked)
        classes |= asked
        inner = [a for cls in asked.values() for a in cls.arguments.values() if a.kind and a.kind not in kinds]
        waiting |= {a.kind: a.passed for a in inner}
    return Descriptions(
        importlib.metadata.version("lightning"), dict(sorted(kinds.items())), dict(sorted(classes.items()))
    )


def write(path: Path = FILE) -> None:
    """Write the file."""
    plain = _short(dataclasses.asdict(make()))
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _short(value: Any) -> Any:
    """Return plain data without what is empty, which stands for itself when it is read."""
    if not isinstance(value, dict):
        return value
    return {k: _short(v) for k, v in value.items() if v not in ("", 0, (), None)}


def _public(base: type) -> list[type]:
    """Return the public classes that derive from one, or the one alone."""
    found = [getattr(visionkit, name) for name in visionkit.PUBLIC]
    kind = [cls for cls in found if isinstance(cls, type) and issubclass(cls, base)]
    return [cls for cls in kind if cls is not base] or kind


def _trainer() -> Described:
    cls = import_class(TRAINER)
    assert cls is not None
    asked = ask(cls)
    ours = {k: dataclasses.replace(asked.arguments[k], default=say_default(v)) for k, v in TRAINER_DEFAULTS.items()}
    return dataclasses.replace(asked, arguments={**asked.arguments, **ours})


def _asked(cls: type) -> Described:
    """Describe a class that the file does not hold."""
    arguments: list[Any] = [a for c in known().classes.values() for a in c.arguments.values()]
    passed = {a.kind: a.passed for a in arguments if a.kind}
    return ask(cls, next((passed[n] for base in cls.__mro__ if (n := name_of(base)) in passed), 0))


if __name__ == "__main__":
    write()
