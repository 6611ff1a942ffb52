"""jsonargparse's long messages, in one line: what, where, what to do."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence

from visionkit.cli.config import configs
from visionkit.cli.config.configs import line_of, paths

__all__ = ["explain"]

KEY = re.compile(r'Parser key "([^"]+)":?\s*(.*)')
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
NO_OPTION = re.compile(r"Option '([^']+)' is not accepted")
NO_KEY = re.compile(r"(?:Subcommand '\w+' does not accept option|Key|Unrecognized key) '([^']+)'")
NO_ARGUMENT = re.compile(r"unrecognized arguments: (.+)", re.IGNORECASE)
NO_CLASS = re.compile(r"Expected a (?:dot import path string: (\S+)|path but (\S+) either not accessible)")
KIND = re.compile(r"Expected an? (?!path but|dot import path)((?:(?!Got value).)+)")
GIVEN = re.compile(r"Given value: (.*)")
CALLABLE = re.compile(
    r".*expects a function or a callable class: (.*?)(?:\. Got value: Namespace\(class_path='([^']+)'.*)?"
)
UNION = ("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
ONE_CLASS = {"mix": "MixUpCutMix", "multi_scale": "MultiScale"}
INNER = ("MultiTaskHead", "MultiTaskNeck")  # MultiTask makes them
TOP = ("seed_everything", "trainer", "model", "data", "ckpt_path", "config", "weights_only")


def explain(message: str, arguments: Sequence[str]) -> str:
    """Return a message of the parser in one line.

    Args:
        message: As jsonargparse raises it; nested and several lines long.
        arguments: The command line, to name the option, or the config file and the line, that is meant.
    """
    keys: list[str] = []
    cls: type | None = None
    leaf = ""
    kinds: list[str] = []  # what a union would have taken
    given: str | None = None
    in_callable = False  # such as an optimizer, that is called with more arguments later
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if match := CALLABLE.fullmatch(text):
            in_callable = True
            text = match.group(1)
            cls = _import(match.group(2)) if match.group(2) else cls
        if match := KEY.match(text):
            keys += match.group(1).split(".")
            text = match.group(2)
        if match := CLASS.match(text):
            cls = _import(match.group(1))
            continue
        if text and not text.startswith(UNION) and not leaf:
            leaf = text
        if (match := KIND.fullmatch(text)) and given is None and not text.startswith(UNION):
            kinds.append(match.group(1))
        if given is None and (match := GIVEN.match(text)):
            given = match.group(1).partition(". Got value: Namespace(")[0]
        if NO_OPTION.search(text):
            leaf = text
            break
    if match := NO_OPTION.search(leaf):
        name = match.group(1)
        path = [*keys, *name.split(".")]
        return f"{_where(path, arguments)}: {_no_key(name, cls)}"
    if match := NO_KEY.search(leaf):
        path = match.group(1).split(".")
        if path[0] not in TOP:
            path = path[:1]
        return f"{_where(path, arguments)}: there is no such key{_near(path[-1], _siblings(path))}"
    if match := NO_ARGUMENT.search(leaf):
        word = match.group(1).split()[0].partition("=")[0]
        return f"{word}: there is no such option{_near_option(word.lstrip('-'))}"
    if kinds and given is not None and (in_callable or KIND.fullmatch(leaf)):
        leaf = f"Expected a {' or '.join(kinds)}. Got value: {given}"
    if match := NO_CLASS.search(leaf):
        name = match.group(1) or match.group(2)
        key = [k for k in keys if k not in ("init_args", "class_path")][-1:]
        return f"{_where(keys, arguments)}: there is no class {name!r}; there are {', '.join(_class_names(*key))}"
    return f"{_where(keys, arguments)}: {_plain(leaf)}" if keys else _plain(leaf)


def _where(keys: Sequence[str], arguments: Sequence[str]) -> str:
    name = ".".join(k for k in keys if k not in ("init_args", "class_path"))
    given = [a.partition("=")[0].replace(".init_args", "") for a in arguments if a.startswith("--")]
    if f"--{name}" in given:
        return f"--{name}"
    for named in configs.NAMED:  # model.heads.NAME.key: the parser leaves NAME out
        if named in keys:
            before, _, last = name.partition(f".{named}.")
            found = [g for g in given if g.startswith(f"--{before}.{named}.") and g.endswith(f".{last}")]
            if found:
                return found[-1]
    for file in reversed(paths(arguments)):  # a later one wins over an earlier one
        line = line_of(file, keys) or (line_of(file, keys[:-1]) if keys[-1:] == ["class_path"] else None)
        if line is not None:
            return f"{file}:{line}: {name}"
    return name


def _no_key(name: str, cls: type | None) -> str:
    if cls is None:
        return f"there is no key {name!r}"
    known = _parameters(cls)
    near = _near(name.partition(".")[0], known)
    return f"{cls.__name__} has no key {name!r}{near or '; it has ' + (', '.join(known) or 'none')}"


def _near(word: str, known: Iterable[str], prefix: str = "") -> str:
    begins = [k for k in known if k.startswith(word)]
    near = begins or difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix + near[0]!r}?" if near else ""


def _parameters(cls: type) -> list[str]:
    """Return the keys of a class, with those that it passes on to its base, as the parser takes them."""
    from jsonargparse import ArgumentParser

    keys = ArgumentParser().add_class_arguments(cls, skip={"features", "num_classes"}, fail_untyped=False)
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def _near_option(name: str) -> str:
    """Return the nearest option of the whole tree: `max_epochs` is meant as `trainer.max_epochs`."""
    import lightning

    known = [*TOP, *(f"trainer.{p}" for p in _parameters(lightning.Trainer))]
    for prefix, base in (("data", "VisionDataModule"), ("model", "Task")):
        for cls in _components():
            if any(b.__name__ == base for b in cls.__mro__[1:]):
                known += [f"{prefix}.{p}" for p in _parameters(cls)]
    whole = [k for k in known if k.rpartition(".")[2] == name]
    return _near(whole[0] if whole else name, known, "--")


def _siblings(path: Sequence[str]) -> list[str]:
    if len(path) > 1 and path[0] == "trainer":
        import lightning

        return _parameters(lightning.Trainer)
    if len(path) > 1:
        return [name for cls in _components() for name in _parameters(cls)]
    return list(TOP)


def _components() -> list[type]:
    import visionkit

    loaded = [getattr(visionkit, name) for name in visionkit.PUBLIC]
    return [c for c in loaded if isinstance(c, type) and not issubclass(c, Exception)]


def _class_names(key: str = "") -> list[str]:
    """Return the classes that a key takes, by their short names."""
    base = {"model": "Task", "data": "VisionDataModule", "heads": "Head", "datasets": "VisionDataModule"}.get(
        key, key.capitalize()
    )
    if key == "optimizer":
        return ["AdamW", "SGD", "Adam", "and the others of torch.optim"]
    if key in ONE_CLASS:
        return [ONE_CLASS[key]]
    found = [c.__name__ for c in _components() if any(b.__name__ == base for b in c.__mro__[1:])]
    found = [name for name in found if name not in INNER]
    return found or [c.__name__ for c in _components()]


def _import(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _plain(text: str) -> str:
    text = text.partition(". Got value: Namespace(")[0]
    text = re.sub(r"<class '([^']+)'>", r"\1", text)
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", text)
    text = re.sub(r"Expected an? (.+?)\. Got value: (.*)", r"expected \1, got \2", text)
    return text.strip() or "not understood"
