"""What options and configs give to keys, against what the classes of visionkit take: names, null and nothing at all."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from visionkit.cli.config import configs
from visionkit.cli.config.classes import Place, classes_in, is_class, place_of, taken_classes
from visionkit.cli.config.described import Argument
from visionkit.cli.config.descriptions import BASES, describe, known
from visionkit.cli.config.options import Option, options_of
from visionkit.core.errors import UsageError

__all__ = ["refuse_values"]

TOPS = (*BASES, "trainer", "seed_everything")


def refuse_values(arguments: Sequence[str]) -> None:
    """Refuse nothing or null for keys that need a value, and names of heads and data sets that there are not.

    Args:
        arguments: The command line after the command, with keys in place of short names and paths of configs.

    Raises:
        UsageError: Naming the option, or file and line.
    """
    options = options_of(arguments)
    taken = taken_classes(options)
    places = [place_of(option.name) for option in options]
    for option, place in zip(options, places, strict=True):
        if place[:1] and place[0] in TOPS:
            _check_option(option, place, taken, places)
    given = {place for place in places if place}
    for path in configs.paths(arguments):
        content = configs.content_of(path)
        for place in _nulls(content):
            argument = _argument(place, {**taken, **classes_in(content)})
            if argument is not None and not _takes_null(argument) and place not in given:
                line = configs.line_of(path, place)
                where = f"{path}:{line}" if line else str(path)
                raise UsageError(f"{where}: {'.'.join(place)} needs {_what(argument)}, got null")


def _check_option(option: Option, place: Place, taken: Mapping[Place, str], places: Collection[Place]) -> None:
    argument = _argument(place, taken)
    null = argument is None or _takes_null(argument)
    if not option.value.strip() and ("=" in option.words[0] or len(option.words) == 2):
        what = "a value" if argument is None else _what(argument)
        raise UsageError(f"{option.name} needs {what}{'; null stands for none' if argument and null else ''}")
    for end in range(2, len(place) - 1):  # the keys before a name, such as model.heads of model.heads.NAME.dropout
        before = _argument(place[:end], taken)
        if before is None or before.form != "named" or (name := place[end]) in _names(place[:end], taken, places):
            continue
        names = _names(place[:end], taken, places)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise UsageError(f"{option.name}: {'.'.join(place[:end])} has none called {name!r}; {hint} {', '.join(names)}")
    word = option.value == "null"
    if word and place in [(base,) for base in BASES]:
        raise UsageError(f"{option.name} needs a class: {', '.join(known().kinds[BASES[place[0]]])}; got null")
    if word and len(place) > 2 and (before := _argument(place[:-1], taken)) is not None and before.form == "named":
        raise UsageError(f"{option.name} needs {_what(before, one=True)}, got null")
    if word and argument is not None and not null:
        raise UsageError(f"{option.name} needs {_what(argument)}, got null")


def _names(place: Place, taken: Mapping[Place, str], places: Collection[Place]) -> list[str]:
    """Return the names that stand below a key: with a class in a config, or given as an option."""
    n = len(place)
    found = [p[n] for p in (*taken, *(q for q in places if len(q) == n + 1)) if len(p) > n and p[:n] == place]
    return list(dict.fromkeys(found))


def _argument(place: Place, taken: Mapping[Place, str]) -> Argument | None:
    """Return what is known of the key at a place; None where its class is none of visionkit's or has no such key."""
    owner = place[:-1]
    name = taken.get(owner, "")
    if not name and len(owner) > 1:  # settings, which are a key of the class around them
        around = _argument(owner, taken)
        name = around.kind if around is not None and around.form == "settings" else ""
    if name.rpartition(".")[2] not in known().classes or name.partition(".")[0] not in ("visionkit", name):
        return None
    cls = describe(name)
    return None if cls is None else cls.arguments.get(place[-1])


def _takes_null(argument: Argument) -> bool:
    said = argument.type
    if "None" in said or "Any" in said or said.endswith("..."):  # a long type is shortened
        return True
    return argument.default == "none" and "Literal" not in said  # else "none" is a word


def _what(argument: Argument, *, one: bool = False) -> str:
    """Return what a key takes, in words.

    Args:
        argument: The key's description.
        one: Whether one of several under names is meant.
    """
    if argument.form == "class" or (argument.form == "named" and one):
        return f"a class: {', '.join(known().kinds.get(argument.kind) or ['one of torch.optim'])}"
    if argument.form:
        return "a mapping of names to classes" if argument.form == "named" else "a mapping of its keys"
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}
    kinds = [kind for kind in argument.type.split(" | ") if kind != "None"]
    said = [words.get(k, k.replace("Literal[", "one of ").rstrip("]") if k.startswith("Literal") else k) for k in kinds]
    return " or ".join(said).replace("list[dict[str, Any] or a word]", "a list").replace("list[str]", "a list of words")


def _nulls(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where null stands for a key of a class in a config."""
    if not isinstance(value, Mapping):
        return
    inside = value.get("init_args") if is_class(value) else value
    for key, entry in inside.items() if isinstance(inside, Mapping) else ():
        if entry is None and place:
            yield (*place, str(key))
        yield from _nulls(entry, (*place, str(key)))
