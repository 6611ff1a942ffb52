"""shapes: draw the embedded data set as picture files."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.cli.commands.predict import Parser
from visionkit.core.errors import UsageError
from visionkit.core.text import say

__all__ = ["main"]


def parser() -> Parser:
    """Return the parser of ``visionkit shapes``."""
    p = Parser(
        prog="visionkit shapes",
        description="Draw pictures of the embedded data set into DIR, one folder a class: something to try "
        "fit and predict on, and a model of how your own pictures can lie.",
        allow_abbrev=False,
    )
    p.add_argument("--out", required=True, metavar="DIR", help="folder to fill; it must be empty or not there")
    p.add_argument("--count", type=int, default=100, metavar="N", help="pictures in all (default: 100)")
    p.add_argument("--size", type=int, default=96, metavar="PX", help="side of the pictures (default: 96)")
    p.add_argument("--seed", type=int, default=1000, metavar="N", help="another number draws others (default: 1000)")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.count < 1 or options.size < 32:
        raise UsageError("--count must be at least 1 and --size at least 32")

    from visionkit.data.shapes import write_shapes

    write_shapes(options.out, count=options.count, seed=options.seed, size=options.size)
    say(f"{options.count} pictures in {options.out}")
    return 0
