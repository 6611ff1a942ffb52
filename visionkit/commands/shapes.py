"""shapes: draw the embedded data set as picture files."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.commands.predict import Parser
from visionkit.errors import UsageError

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


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    arguments = parser().parse_args(argv)
    if arguments.count < 1 or arguments.size < 32:
        raise UsageError("--count must be at least 1 and --size at least 32")

    from visionkit.shapes import write_shapes

    write_shapes(arguments.out, count=arguments.count, seed=arguments.seed, size=arguments.size)
    print(f"{arguments.count} pictures in {arguments.out}")
    return 0
