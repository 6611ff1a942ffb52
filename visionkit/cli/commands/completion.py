"""completion: a script with which a shell completes commands, options and their values."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from visionkit.cli.commands.predict import Parser
from visionkit.core.text import say

__all__ = ["Words", "main", "parser", "words_of"]

Options: TypeAlias = Mapping[str, tuple[str, ...]]
"""Option -> the words that it takes; none where it takes nothing, or a file or a number."""
_KEY = re.compile(r"^  (--[\w.]+)  ((?:.*\n)(?: {6}.*\n)*)", re.MULTILINE)
_CHOICES = re.compile(r"\(Literal(\[[^\]]*\])(?: \| None)?, (?:required|default: [^()]*)\)\s*$")
USAGE = ("--help", "-c", "--config", "--ckpt", "--ckpt_path", "--trust", "--print_config", "--seed_everything")


@dataclass(frozen=True)
class Words:
    """What may follow a command.

    Args:
        options: Its options.
        verbs: Those that come first, each with its own options.
    """

    options: Options = field(default_factory=dict)
    verbs: Mapping[str, Options] = field(default_factory=dict)


def parser() -> Parser:
    """Return the parser of ``visionkit completion``."""
    p = Parser(
        prog="visionkit completion",
        description="Print a script that lets a shell complete visionkit's commands, options and their values. To use "
        "it at once: source <(visionkit completion bash); for every shell to come, put that line into ~/.bashrc. For "
        "zsh: visionkit completion zsh > a file _visionkit in a folder of $fpath. For fish: visionkit completion fish "
        "> ~/.config/fish/completions/visionkit.fish",
        allow_abbrev=False,
    )
    p.add_argument("shell", choices=tuple(_WRITERS), help="the shell")
    return p


def main(command: str, arguments: list[str]) -> int:
    """Run the command."""
    from visionkit.cli.main import COMMANDS  # which imports no command before it is asked for

    options = parser().parse_args(arguments)
    commands = {name: (what, words_of(name, module)) for name, (module, what) in COMMANDS.items()}
    say(*_WRITERS[options.shell](commands))
    return 0


def words_of(command: str, module: str) -> Words:
    """Return what may follow a command, as its help knows it.

    Args:
        command: Its name.
        module: The module that it is in, with a function ``parser``; without one it takes the keys of configs.
    """
    make = getattr(importlib.import_module(module), "parser", None)
    if make is None:
        return Words(_keys(command))
    made: argparse.ArgumentParser = make()
    verbs = next((a.choices for a in made._actions if isinstance(a, argparse._SubParsersAction)), None)
    if verbs is not None:
        return Words({"--help": ()}, {verb: _options(p) for verb, p in verbs.items()})
    positional = next((a.choices for a in made._actions if not a.option_strings and a.choices), None)
    return Words(_options(made), {str(word): {} for word in positional or ()})


def _options(made: argparse.ArgumentParser) -> Options:
    """Return the options of a parser."""
    return {
        option: tuple(map(str, action.choices or ()))
        for action in made._actions
        for option in action.option_strings
        if option != "-h"
    }


def _keys(command: str) -> Options:
    """Return the keys of all shipped configs, the short ones first."""
    from visionkit.cli.config import configs
    from visionkit.cli.config.short_names import SHORT
    from visionkit.cli.config.train_help import train_help

    found: dict[str, tuple[str, ...]] = dict.fromkeys((*USAGE, "--data"), ())
    found |= dict.fromkeys((f"--{word}" for short in SHORT for word in short.words), ())
    found |= dict.fromkeys(("-c", "--config"), tuple(configs.shipped()))
    found["--print_config"] = ("short", "full")
    for name in configs.shipped():
        text = train_help(command, ["-c", str(configs.folder() / name)])
        for key, said in _KEY.findall(f"{text}\n"):
            found[key] = found.get(key) or _choices(said)
    return found


def _choices(said: str) -> tuple[str, ...]:
    """Return the words that a key takes, by what help says of it."""
    literal = _CHOICES.search(" ".join(said.split()))
    try:
        return () if literal is None else tuple(map(str, ast.literal_eval(literal[1])))
    except (ValueError, SyntaxError):  # a long type is cut
        return ()


# ---- scripts

Commands: TypeAlias = Mapping[str, tuple[str, Words]]


def _places(commands: Commands) -> Iterator[tuple[str, Options, tuple[str, ...]]]:
    """Yield each command, and each verb behind its command, with its options and the words that come first."""
    for name, (_, words) in commands.items():
        yield name, words.options, tuple(words.verbs)
        for verb, options in words.verbs.items():
            yield f"{name} {verb}", options, ()


def _bash(commands: Commands) -> list[str]:
    lines = [
        "# visionkit's words for bash: source <(visionkit completion bash)",
        "_visionkit() {",
        "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        '  [ "$before" = "=" ] && before=${COMP_WORDS[COMP_CWORD-2]}; [ "$word" = "=" ] && word= && '
        "before=${COMP_WORDS[COMP_CWORD-1]}",
        "  local place=${COMP_WORDS[1]} first= options= values=",
        '  case "$place" in',
    ]
    with_verbs = [name for name, (_, words) in commands.items() if words.verbs]
    lines.append(f'    {"|".join(with_verbs)}) [ "$COMP_CWORD" -gt 2 ] && place="$place ${{COMP_WORDS[2]}}" ;;')
    lines += ["  esac", '  case "$place" in']
    for place, options, verbs in _places(commands):
        lines.append(f'    "{place}") first="{" ".join(verbs)}" options="{" ".join(options)}" ;;')
    lines += ["  esac", '  case "$place $before" in']
    for place, options, _ in _places(commands):
        for option, values in options.items():
            if values:
                lines.append(f'    "{place} {option}") values="{" ".join(values)}" ;;')
    return [
        *lines,
        "  esac",
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word"))',
        '  elif [ -n "$values" ]; then',
        '    COMPREPLY=($(compgen -W "$values" -- "$word"))',
        '  elif [ -n "$first" ] && [ "$COMP_CWORD" -eq 2 ]; then',
        '    COMPREPLY=($(compgen -W "$first $options" -- "$word"))',
        '  elif [ "${word#-}" != "$word" ]; then',
        '    COMPREPLY=($(compgen -W "$options" -- "$word"))',
        "  else",
        "    COMPREPLY=()",
        "  fi",
        "}",
        "complete -o default -F _visionkit visionkit",
    ]


def _zsh(commands: Commands) -> list[str]:
    lines = [
        "#compdef visionkit",
        "_visionkit() {",
        "  local place=${words[2]}",
        "  local -a first options values names",
    ]
    lines.append("  names=(" + " ".join(shlex.quote(f"{n}:{what}") for n, (what, _) in commands.items()) + ")")
    lines.append("  if (( CURRENT == 2 )); then _describe command names; return; fi")
    with_verbs = [name for name, (_, words) in commands.items() if words.verbs]
    lines.append(
        f'  case "$place" in {"|".join(with_verbs)}) (( CURRENT > 3 )) && place="$place ${{words[3]}}" ;; esac'
    )
    lines.append('  case "$place" in')
    for place, options, verbs in _places(commands):
        lines.append(f'    "{place}") first=({" ".join(verbs)}) options=({" ".join(options)}) ;;')
    lines += ["  esac", '  case "$place ${words[CURRENT-1]}" in']
    for place, options, _ in _places(commands):
        for option, values in options.items():
            if values:
                lines.append(f'    "{place} {option}") values=({" ".join(map(shlex.quote, values))}) ;;')
    return [
        *lines,
        "  esac",
        "  if (( $#values )); then compadd -a values",
        "  elif (( $#first && CURRENT == 3 )); then compadd -a first",
        "  elif [[ $PREFIX == -* ]]; then compadd -a options",
        "  else _files; fi",
        "}",
        'if [ "$funcstack[1]" = "_visionkit" ]; then _visionkit "$@"; else compdef _visionkit visionkit; fi',
    ]


def _fish(commands: Commands) -> list[str]:
    lines = ["# visionkit's words for fish"]
    for name, (what, words) in commands.items():
        lines.append(f"complete -c visionkit -n __fish_use_subcommand -f -a {name} -d {_quoted(what)}")
        seen = f"__fish_seen_subcommand_from {name}"
        none = f"{seen}; and not __fish_seen_subcommand_from {' '.join(words.verbs)}" if words.verbs else seen
        lines += [f"complete -c visionkit -n {_quoted(none)} -f -a {verb}" for verb in words.verbs]
        lines += _fish_options(none, words.options)
        for verb, options in words.verbs.items():
            lines += _fish_options(f"{seen}; and __fish_seen_subcommand_from {verb}", options)
    return lines


def _fish_options(when: str, options: Options) -> Iterator[str]:
    for option, values in options.items():
        dashes = "-s" if len(option) == 2 else "-l"
        known = f" -x -a {_quoted(' '.join(values))}" if values else ""
        yield f"complete -c visionkit -n {_quoted(when)} {dashes} {option.lstrip('-')}{known}"


def _quoted(text: str) -> str:
    """Return a text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_WRITERS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
