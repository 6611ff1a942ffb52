"""Per-channel pixel statistics of a backbone, checked once for every backbone."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.core.errors import UsageError

__all__ = ["per_channel"]

MAX_CHANNELS = 1024  # of an image


def per_channel(
    key: str, given: Sequence[float] | None, default: Sequence[float], in_channels: int
) -> tuple[float, ...]:
    """Return one value a channel, on the 0..1 scale.

    Args:
        key: Name of the argument, for messages: ``mean`` or ``std``.
        given: What the user wrote, or None for the default.
        default: The default's values; for another number of channels their average is repeated.
        in_channels: Channels of the input image.

    Raises:
        UsageError: There are too many channels, the number of values is not theirs, or a value lies outside 0..1.
    """
    if in_channels > MAX_CHANNELS:
        raise UsageError(f"in_channels is {in_channels}: an image has at most {MAX_CHANNELS} channels")
    if given is None:
        if len(default) == in_channels:
            return tuple(float(v) for v in default)
        return (sum(default) / len(default),) * in_channels
    values = tuple(float(v) for v in given)
    if len(values) != in_channels:
        raise UsageError(f"{key} has {len(values)} values, in_channels is {in_channels}: give one value a channel")
    if not all(0 <= v <= 1 for v in values) or (key == "std" and 0 in values):
        raise UsageError(f"{key} {list(values)} is not on the 0..1 scale: divide values of the 0..255 scale by 255")
    return values
