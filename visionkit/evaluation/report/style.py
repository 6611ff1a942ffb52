"""How the page looks: colours of both schemes, the pairs that are laid over each other, and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visionkit.core import page
from visionkit.core.files import read_text

__all__ = ["DARK", "HEAT", "LIGHT", "LINES", "PAIRS", "script", "style"]

LINES = 5
"""Lines of a chart that are told apart by colour and dashes."""
HEAT = 6
"""Steps of the ground of a confusion matrix's cell, from nothing to all of its row."""

LIGHT: Mapping[str, str] = {
    **page.LIGHT,
    "button": "#e4e8ee",
    "focus": "#1f5fa8",
    "line0": "#0072b2",
    "line1": "#a84a00",
    "line2": "#00694d",
    "line3": "#8a3a6b",
    "line4": "#1b1f24",
    "heat0": "#ffffff",
    "heat1": "#e3eef6",
    "heat2": "#c3dcec",
    "heat3": "#9cc6e0",
    "heat4": "#1a6ea3",
    "heat5": "#0b4f7d",
    "weak": "#1b1f24",
    "strong": "#ffffff",
}
"""Colours on a light ground. Those of lines are Okabe and Ito's (2008), darkened until they contrast 4.5 to 1."""
DARK: Mapping[str, str] = {
    **page.DARK,
    "button": "#333c46",
    "focus": "#8ec5ff",
    "line0": "#56b4e9",
    "line1": "#e69f00",
    "line2": "#2fc29a",
    "line3": "#dd94ba",
    "line4": "#e7eaee",
    "heat0": "#14171b",
    "heat1": "#172733",
    "heat2": "#17384d",
    "heat3": "#15496a",
    "heat4": "#56b4e9",
    "heat5": "#9fd4f3",
    "weak": "#e7eaee",
    "strong": "#0b1218",
}
"""The same names on a dark ground; those of lines are Okabe and Ito's, two of them lighter."""

PAIRS = (
    *((front, back) for front in ("text", "soft", "note", "error", "warning") for back in ("ground", "card")),
    *((f"line{k}", back) for k in range(LINES) for back in ("ground", "card")),
    *(("weak", f"heat{k}") for k in range(HEAT - 2)),
    *(("strong", f"heat{k}") for k in range(HEAT - 2, HEAT)),
    *(("text", "button"), ("ground", "focus"), ("focus", "ground"), ("focus", "card")),
)
"""Colours that lie over each other, front and back: each contrasts 4.5 to 1 at least, in both schemes."""
_DASHES = ("none", "7 4", "2 3", "9 3 2 3", "1 5")


def style() -> str:
    """Return all rules of the page."""
    lines = "".join(
        f".line{k} {{ stroke: var(--line{k}); stroke-dasharray: {dash}; }} .dot{k} {{ fill: var(--line{k}); }}\n"
        for k, dash in enumerate(_DASHES)
    )
    heat = "".join(
        f".heat{k} {{ background: var(--heat{k}); color: var(--{'weak' if k < HEAT - 2 else 'strong'}); }}\n"
        for k in range(HEAT)
    )
    return page.variables(LIGHT, DARK) + page.STYLE + lines + heat + _beside("style.css")


def script() -> str:
    """Return what the page runs."""
    return _beside("script.js")


def _beside(file: str) -> str:
    return read_text(Path(__file__).with_name(file))
