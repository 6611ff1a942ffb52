"""The options that say how pictures are read and what a network sees of each, for all commands that predict."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visionkit.core.errors import UsageError

if TYPE_CHECKING:
    from visionkit.prediction.views import Views

__all__ = ["add_loading", "add_views", "views_asked"]

NAMES = ("flip", "scales", "window", "overlap")


def add_loading(p: argparse.ArgumentParser) -> None:
    """Add the options that say how many pictures are computed at once, and read ahead, to a parser."""
    p.add_argument("--batch-size", "--batch", "--batch_size", type=int, metavar="N",
                   help="pictures at once (default: 8 on a CPU, 32 on a GPU)")  # fmt: skip
    p.add_argument("--num-workers", "--workers", "--num_workers", type=int, metavar="N",
                   help="threads that read pictures ahead (default: by the machine and the number of "
                   "pictures)")  # fmt: skip


def add_views(p: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    p.add_argument("--flip", action="store_true",
                   help="predict each picture mirrored, too, and put both predictions together: probabilities are "
                   "averaged, boxes of one object become one")  # fmt: skip
    p.add_argument("--scales", type=_scales, metavar="S,S,...",
                   help="factors of the model's size to predict at, such as 0.75,1,1.25; several are put together as "
                   "with --flip (default: 1)")  # fmt: skip
    p.add_argument("--window", type=_window, metavar="PX",
                   help="predict square windows of this edge (or HxW) in pixels of the picture, each at the model's "
                   "size, and join them; objects that windows cut become whole again. For pictures too large to be "
                   "shrunk and objects too small for it (default: the whole picture)")  # fmt: skip
    p.add_argument("--overlap", type=float, metavar="S",
                   help="share of a window that the next one repeats, 0..0.9 (default: 0.25)")  # fmt: skip


def views_asked(options: argparse.Namespace) -> Views | None:
    """Return the views that were asked for, None without any of the options.

    Raises:
        UsageError: A value is out of range, or --overlap stands alone.
    """
    if options.overlap is not None and options.window is None:
        raise UsageError("--overlap says how much of a window the next one repeats: add --window, too")
    given = {name: v for name in NAMES if (v := getattr(options, name)) is not None and v is not False}
    if not given:
        return None
    from visionkit.prediction.views import Views

    return Views(**given)


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give factors such as 0.75,1,1.25") from None


def _window(text: str) -> int | tuple[int, int]:
    try:
        edges = [int(part) for part in text.lower().split("x")]
    except ValueError:
        edges = []
    if len(edges) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r}: give pixels, such as 512, or height and width, such as 512x768")
    return edges[0] if len(edges) == 1 else (edges[0], edges[1])
