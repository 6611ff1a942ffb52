"""What predictions say in numbers: of one picture in a few words, of many added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = ["Tally", "joined"]


@dataclass(frozen=True)
class Tally:
    """How often each class occurs in a prediction, or in several together.

    Args:
        counts: Pictures, objects or pixels by class name; what does not occur may be left out.
        said: The prediction in a few words, such as ``cat 0.99``; of several together nothing.
        shares: Whether counts are said as shares of their sum.
        which: Which things alone are counted, such as ``from score 0.3 on``; "" where all are.
    """

    counts: Mapping[str, float]
    said: str = ""
    shares: bool = False
    which: str = ""

    @classmethod
    def told(cls, counts: Mapping[str, float], *, shares: bool = False, which: str = "") -> Tally:
        """Return the tally of one prediction that says what it counts; arguments as above."""
        one = cls(counts, shares=shares, which=which)
        return replace(one, said=", ".join(one.words()) or "none")

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        total: Counter[str] = Counter(self.counts)
        total.update(other.counts)
        return Tally(total, "", self.shares, self.which)

    def words(self) -> list[str]:
        """Return each class with its number, the most frequent first."""
        found = sorted((-n, name) for name, n in self.counts.items() if n)
        if not self.shares:
            return [f"{name} {-n:,.0f}" for n, name in found]
        total = sum(self.counts.values())
        return [f"{name} {-n / total:.1%}" if -n >= 5e-4 * total else f"{name} <0.1%" for n, name in found]


def joined(words: Sequence[str], width: int) -> str:
    """Return words in one line, with how many were left out where not all of them fit.

    Args:
        words: What is listed.
        width: Characters that the line may have, 20 or more; a first word that is longer is cut.
    """
    if not words:
        return "none"
    kept = min(len(words), width)
    while kept > 1 and len(_listed(words, kept)) > width:
        kept -= 1
    over = len(_listed(words, kept)) - width
    if over <= 0:
        return _listed(words, kept)
    return _listed([f"{words[0][: max(0, len(words[0]) - over - 3)]}...", *words[1:]], kept)


def _listed(words: Sequence[str], kept: int) -> str:
    left = len(words) - kept
    return ", ".join(words[:kept]) + (f", {left:,} more" if left else "")
