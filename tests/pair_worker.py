"""One of the two processes of the fixture ``pair``: calls functions of test modules until its input ends."""

import contextlib
import importlib.util
import io
import os
import pickle
import sys
import traceback
from pathlib import Path

modules = {}


def load(file):
    if file not in modules:
        spec = importlib.util.spec_from_file_location(f"in_pair_{Path(file).stem}_{len(modules)}", file)
        modules[file] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[file])
    return modules[file]


def run_command(arguments):
    """Return the exit status of the command line."""
    from visionkit.cli.main import run

    return run(arguments)


def call(file, name, arguments):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return True, getattr(load(file), name)(*arguments), printed.getvalue()
    except BaseException:
        return False, traceback.format_exc(), printed.getvalue()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print goes to the log
    with contextlib.suppress(EOFError):
        while True:
            pickle.dump(call(*pickle.load(sys.stdin.buffer)), answers)
            answers.flush()
