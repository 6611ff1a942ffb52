"""The command line: dispatch and error messages. Nothing heavy is imported before a command is known."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from visionkit import __version__
from visionkit.cli import clock
from visionkit.cli.faults import explained
from visionkit.core.errors import UsageError, VisionkitError
from visionkit.core.text import say

__all__ = ["COMMANDS", "GROUPS", "run"]

COMMANDS: dict[str, tuple[str, str]] = {
    "check": (
        "visionkit.cli.commands.check",
        "look at a data set first: damaged pictures, wrong labels, leaks: visionkit check FOLDER",
    ),
    "init": ("visionkit.cli.commands.init", "look at a folder and write a config for it: visionkit init FOLDER"),
    "train": ("visionkit.cli.commands.start", "init and fit in one, with nothing set by hand: visionkit train FOLDER"),
    "fit": ("visionkit.cli.commands.train", "train a model: visionkit fit -c classify.yaml [--KEY VALUE ...]"),
    "validate": ("visionkit.cli.commands.train", "measure a checkpoint on the validation data"),
    "test": ("visionkit.cli.commands.train", "measure a checkpoint on the test data"),
    "predict": ("visionkit.cli.commands.predict", "apply a checkpoint to pictures: --ckpt FILE --out DIR PICTURES..."),
    "evaluate": (
        "visionkit.cli.commands.evaluate",
        "how good a model is, with intervals: --ckpt RUN --data ROOT --out DIR",
    ),
    "compare": (
        "visionkit.cli.commands.compare",
        "which of several evaluations is better on the same pictures: compare DIR_A DIR_B",
    ),
    "report": (
        "visionkit.cli.commands.report",
        "an evaluation or a training as one page with pictures: visionkit report FOLDER --out FILE.html",
    ),
    "soup": (
        "visionkit.cli.commands.soup",
        "average the weights of several trainings into one model: soup A B C --data ROOT --out OUT.ckpt",
    ),
    "heads": ("visionkit.cli.commands.heads", "list, take out or join the heads of checkpoints"),
    "model": ("visionkit.cli.commands.model", "write the model of a checkpoint alone, without optimizer"),
    "backbone": (
        "visionkit.cli.commands.backbone",
        "list, fetch or look into pretrained weights, or write a backbone",
    ),
    "shapes": ("visionkit.cli.commands.shapes", "draw the embedded data set as picture files, to try things on"),
    "info": ("visionkit.cli.commands.info", "versions, what this machine is fast at, extras, caches"),
    "completion": ("visionkit.cli.commands.completion", "print a script for bash, zsh or fish that completes commands"),
}
"""Command -> module with ``main(command, arguments) -> int``, and what it does in a line."""


GROUPS: dict[str, tuple[str, ...]] = {
    "your pictures": ("init", "check", "shapes"),
    "a model": ("train", "fit", "validate", "test", "predict"),
    "trust": ("evaluate", "compare", "report", "soup"),
    "parts of models": ("model", "heads", "backbone"),
    "this machine": ("info", "completion"),
}
"""The commands as the first hour goes, under headings; those that stand under none come last."""


def run(argv: Sequence[str]) -> int:
    """Run a command and return the exit status.

    0: well. 1: something is wrong with a file or the machine. 2: with what was asked. 130, 143: stopped by SIGINT
    (Ctrl-C) or SIGTERM.
    """
    clock.start()
    try:
        with _terminable():
            return _dispatch(list(argv))
    except VisionkitError as e:
        return _fail(e)
    except KeyboardInterrupt as e:
        say("stopped", error=True)
        return 143 if isinstance(e, _Terminated) else 130
    except BrokenPipeError:  # the reader of our output has gone, as in `visionkit ... | head`
        sys.stderr.close()
        return 1
    except Exception as e:
        if (fault := explained(e)) is None:
            raise
        return _fail(fault)


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: what is half written is removed, and the last word says so."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(signum: int, frame: Any) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(e: VisionkitError) -> int:
    *details, last = e.lines or [""]
    say(*details, f"error: {last}", error=True)
    return e.exit_status


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"visionkit {__version__}")
        return 0
    command = argv[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"no command {command!r}; {hint}")
    for before, word in zip(argv, argv[1:], strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):  # "" would be the working folder
            raise UsageError(
                f"{word or before}: an empty value follows; is a variable of the shell not set? Give a value, or leave "
                "the option out"
            )
    if any(word.partition("=")[0] == "--trust" for word in argv) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # --trust my_heads finds my_heads.py in the working folder
    module = importlib.import_module(COMMANDS[command][0])
    return int(module.main(command, argv[1:]))


def _help() -> str:
    lines = [f"visionkit {__version__}: train, measure and apply vision models on your own pictures", ""]
    lines += ["usage: visionkit COMMAND ..."]
    grouped = {name for names in GROUPS.values() for name in names}
    for heading, names in {**GROUPS, "more": tuple(COMMANDS.keys() - grouped)}.items():
        shown = [(name, COMMANDS[name][1]) for name in names if name in COMMANDS]
        lines += ["", heading] if shown else []
        for name, what in shown:
            lines += textwrap.wrap(what, 80, initial_indent=f"  {name:<10} ", subsequent_indent=" " * 13)
    lines += ["", "visionkit COMMAND --help explains a command. A first run, on drawn pictures:"]
    lines += ["  visionkit fit -c classify.yaml"]
    return "\n".join(lines)
