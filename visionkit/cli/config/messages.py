"""jsonargparse's long messages, in one line: what, where, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from visionkit.cli.config.configs import TOP, line_of, paths
from visionkit.cli.config.descriptions import BASES, TRAINER, describe, keys_of_form, kind_of, known
from visionkit.cli.config.options import options_of
from visionkit.cli.config.short_names import keys_of

__all__ = ["explain"]

KEY = re.compile(r'Parser key "([^"]+)":?\s*(.*)')
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
NO_OPTION = re.compile(r"Option '([^']+)' is not accepted")
NO_KEY = re.compile(r"(?:Subcommand '\w+' does not accept option|Key|Unrecognized key) '([^']+)'")
NO_ARGUMENT = re.compile(r"unrecognized arguments: (.+)", re.IGNORECASE)
NO_CLASS = re.compile(
    r"Expected a (?:dot import path string: *(.*)|path but (\S*) either not accessible)|"
    r"(?:Not a valid subclass of \w+\. Got value: |Expected an? import path or a subclass spec, but got )"
    r"(.*?)(?:\. Got value.*)?$",
    re.IGNORECASE,
)
NESTED = re.compile(r"Given value: NestedArg\(key='([^']+)'")
NESTED_VALUE = re.compile(r"^NestedArg\(key='[^']+', val='?(.*?)'?\)$")
REQUIRED = re.compile(r"the following arguments are required: (?:\w+\.)?(\w+)")
KIND = re.compile(r"Expected an? (?!path but|dot import path)((?:(?!Got value).)+)")
GIVEN = re.compile(r"Given value: (.*)")
CALLABLE = re.compile(
    r".*expects a function or a callable class: (.*?)(?:\. Got value: Namespace\(class_path='([^']+)'.*)?"
)
NO_MODULE = re.compile(r"No module named '(\w+)'")
RESUME = re.compile(r"--(resume|continue)([_-].*)?")
UNION = ("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")


GO_ON = "a training goes on with --ckpt_path last, with auto where there is one to go on with, or with a run's folder"


def explain(message: str, arguments: Sequence[str]) -> str:
    """Return a message of the parser in one line.

    Args:
        message: As jsonargparse raises it; nested and several lines long.
        arguments: The command line, to name the option, or the config file and the line, that is meant.
    """
    keys: list[str] = []
    cls = ""  # whose argument is meant
    leaf = ""
    kinds: list[str] = []  # what a union would have taken
    given: str | None = None
    in_callable = False  # such as an optimizer, that is called with more arguments later
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if match := CALLABLE.fullmatch(text):
            in_callable = True
            text = match.group(1)
            cls = match.group(2) or cls
        if match := KEY.match(text):
            keys += match.group(1).split(".")
            text = match.group(2)
        if match := CLASS.match(text):
            cls = match.group(1)
            continue
        if text and not text.startswith(UNION) and not leaf:
            leaf = text
        if (match := KIND.fullmatch(text)) and given is None and not text.startswith(UNION):
            kinds.append(match.group(1))
        if given is None and (match := GIVEN.match(text)):
            given = match.group(1).partition(". Got value: Namespace(")[0]
            given = NESTED_VALUE.sub(r"\1", given)
        if NO_OPTION.search(text):
            leaf = text
            break
    if match := REQUIRED.search(leaf):
        return _missing([*keys, match.group(1)], arguments)
    if leaf.startswith("Unable to load config") and keys:
        return f"{_where(keys[:1], arguments)} takes a mapping of its keys, or a YAML file with one"
    if match := NO_OPTION.search(leaf):
        name = match.group(1)
        path = [*keys, *name.split(".")]
        return f"{_where(path, arguments, message)}: {_no_key(name, cls)}"
    if match := NO_KEY.search(leaf):
        path = match.group(1).split(".")
        if path[0] not in TOP:
            path = path[:1]
        return f"{_where(path, arguments, message)}: there is no such key{_near(path[-1], _siblings(path))}"
    if match := NO_ARGUMENT.search(leaf):
        word = match.group(1).split()[0].partition("=")[0]
        if RESUME.fullmatch(word):
            return f"{word}: there is no such option; {GO_ON}"
        return f"{word}: there is no such option{_near_option(word.lstrip('-'))}"
    if keys and (match := NO_MODULE.search(message)):
        module = match.group(1)
        return (
            f"{_where(keys, arguments, message)}: there is no module {module!r}; start where {module}.py lies, or name "
            "its folder in PYTHONPATH"
        )
    if kinds and given is not None and (in_callable or KIND.fullmatch(leaf)):
        leaf = f"Expected a {' or '.join(kinds)}. Got value: {given}"
    if match := NO_CLASS.search(leaf):
        name = next((found for found in match.groups() if found), "")
        key = [k for k in keys if k not in ("init_args", "class_path")][-1:]
        return (
            f"{_where(keys, arguments, message)}: there is no class {name!r}; there are {', '.join(_class_names(*key))}"
        )
    return f"{_where(keys, arguments, message)}: {_plain(leaf)}" if keys else _plain(leaf)


def _missing(keys: Sequence[str], arguments: Sequence[str]) -> str:
    kind = kind_of(keys[-1])
    takes = f" a class: {', '.join(_class_names(keys[-1]))}" if kind else " a value"
    return f"{_where(keys, arguments)} needs{takes}"


def _where(keys: Sequence[str], arguments: Sequence[str], said: str = "") -> str:
    """Return the option, or file, line and key, of which the parser has ``said`` something."""
    name = ".".join(k for k in keys if k not in ("init_args", "class_path"))
    options = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    for option in options:  # as it was typed: a short name, or the key
        if name in keys_of(option):
            return option.replace(".init_args", "")
    top, nested = KEY.match(said), NESTED.findall(said)
    below = f"--{top.group(1)}.{nested[-1]}".replace(".init_args", "") if top and nested else f"--{name}."
    for o in reversed(options_of(arguments)):  # what the parser says of a key may be of one entry below it
        option = o.name.replace(".init_args", "")
        if option == below or (not nested and o.value and o.value in said and option.startswith(below)):
            return option
    given = [option.replace(".init_args", "") for option in options]
    for named in keys_of_form("named"):  # model.heads.NAME.key: the parser leaves NAME out
        if named in keys:
            before, _, last = name.partition(f".{named}.")
            found = [g for g in given if g.startswith(f"--{before}.{named}.") and f".{last}." in f"{g}."]
            if found:
                return found[-1]
    for file in reversed(paths(arguments)):  # a later one wins over an earlier one
        line = line_of(file, keys) or (line_of(file, keys[:-1]) if keys[-1:] == ["class_path"] else None)
        if line is not None:
            return f"{file}:{line}: {name}"
    return name


def _no_key(name: str, cls: str) -> str:
    described = describe(cls)
    if described is None:
        return f"there is no key {name!r}"
    for key, argument in described.arguments.items():  # what each of several has for itself, such as batch_size
        inner = [describe(k) for k in known().kinds.get(argument.kind, ())] if argument.form == "named" else []
        if any(c is not None and c.name != described.name and name in c.arguments for c in inner):
            return f"{described.name} has no key {name!r}; each of its {key} has its own: {key}.NAME.{name}"
    near = _near(name.partition(".")[0], described.arguments)
    return f"{described.name} has no key {name!r}{near or '; it has ' + (', '.join(described.arguments) or 'none')}"


def _near(word: str, words: Collection[str], prefix: str = "") -> str:
    begins = [k for k in words if k.startswith(word)]
    near = begins or difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {prefix + near[0]!r}?" if near else ""


def _near_option(name: str) -> str:
    """Return the nearest option of the whole tree: `max_epochs` is meant as `trainer.max_epochs`."""
    tops = {"trainer": [TRAINER], **{top: known().kinds[base] for top, base in BASES.items()}}
    options = [*TOP, "dry-run", *(f"{top}.{key}" for top, names in tops.items() for key in _arguments(names))]
    whole = [k for k in options if k.rpartition(".")[2] == name]
    return _near(whole[0] if whole else name, options, "--")


def _siblings(path: Sequence[str]) -> list[str]:
    if len(path) == 1:
        return list(TOP)
    return _arguments([TRAINER] if path[0] == "trainer" else known().classes)


def _arguments(classes: Iterable[str]) -> list[str]:
    return [name for path in classes if (cls := describe(path)) is not None for name in cls.arguments]


def _class_names(key: str = "") -> list[str]:
    """Return the classes that a key takes, by their short names."""
    kind = kind_of(key)
    if kind is not None and kind.startswith("torch.optim."):
        return ["AdamW", "SGD", "Adam", "and the others of torch.optim"]
    return known().kinds.get(kind or "") or [name for name in known().classes if name != TRAINER]


def _plain(text: str) -> str:
    text = text.partition(". Got value: Namespace(")[0]
    text = re.sub(r"<class '([^']+)'>", r"\1", text)
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", text)
    text = re.sub(
        r"Expected an? (.+?)\. Got value:(?: (.*)|$)", lambda m: f"expected {m[1]}, got {m[2] or 'nothing'}", text
    )
    text = re.sub(r"got None$", "got null", text)
    if re.search(r"expected str, got (True|False|[\d.+-].*)$", text):
        text += "; YAML reads such a word (no, on, 010) as something else: put it into quotes, as ['no']"
    return text.strip() or "not understood"
