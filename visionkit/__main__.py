"""``python -m visionkit`` and the console script ``visionkit``."""

from __future__ import annotations

import os
import sys

from visionkit.cli.main import run


def main() -> None:
    """Run the command line and exit with its status."""
    os.environ.pop("MPLBACKEND", None)  # a notebook's names a module that may not be here; pictures go to files
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
