"""What changes training pictures at random says itself whether it acts, and which setting turns it off."""

from __future__ import annotations

from typing import ClassVar

from visionkit.core.component import Component

__all__ = ["RandomTransform", "setting_without"]


class RandomTransform(Component):
    """Changes training pictures at random: one by one, several into one, or a whole batch."""

    off: ClassVar[str | None] = None
    """The setting without it, such as "data.mosaic 0"; None where there is no such setting."""

    @property
    def acts(self) -> bool:
        """Whether it changes pictures at all with these arguments."""
        return True


def setting_without(part: object) -> str | None:
    """Return the setting that turns a random change off, or None where nothing changes.

    Args:
        part: A transform or None. A function, or what else does not say it itself, counts as one that acts.
    """
    if part is None or (isinstance(part, RandomTransform) and not part.acts):
        return None
    named = part.off if isinstance(part, RandomTransform) else None
    return named or f"{getattr(part, '__name__', type(part).__name__)} off"
