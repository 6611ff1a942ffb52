"""Random numbers that depend on what they are for, never on who asks first."""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed"]


def derive_seed(*parts: int | str) -> int:
    """Return a seed in 0 .. 2**63 - 1 that is the same everywhere for the same parts, and unrelated for others.

    Args:
        parts: What the random numbers are for, e.g. ``("augment", seed, epoch, index)``.
    """
    text = "\0".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
