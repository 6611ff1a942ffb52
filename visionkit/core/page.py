"""Pages of HTML that need no network: escaping, colours of both schemes, and a policy that the browser enforces."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping

from visionkit.core.text import printable

__all__ = ["DARK", "LIGHT", "STYLE", "document", "escape", "policy"]

LIGHT: Mapping[str, str] = {
    "text": "#1b1f24",
    "ground": "#ffffff",
    "card": "#f3f4f6",
    "line": "#d0d5dc",
    "soft": "#535b66",
    "error": "#b3261e",
    "warning": "#8a5300",
    "note": "#1f5fa8",
}
"""Colours on a light ground, by the name of their variable: text on ground and card, lines, and what is meant."""
DARK: Mapping[str, str] = {
    "text": "#e7eaee",
    "ground": "#14171b",
    "card": "#1f242a",
    "line": "#3a424c",
    "soft": "#a9b2bd",
    "error": "#ff8a80",
    "warning": "#ffb95c",
    "note": "#8ec5ff",
}
"""The same on a dark ground."""


def variables(light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    """Return the CSS that gives colours their names in both schemes.

    Args:
        light: Colours on a light ground, by name.
        dark: The same names on a dark one.
    """
    first, second = ("; ".join(f"--{name}: {colour}" for name, colour in of.items()) for of in (light, dark))
    return (
        f":root {{ color-scheme: light dark; {first}; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {second}; }} }}\n"
    )


STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; color: var(--text); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 0; }
.soft { color: var(--soft); font-size: .9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem;
  margin: 1rem 0; }
p { margin: .4rem 0; } ul { margin: .4rem 0; padding-left: 1.2rem; } li { font-size: .85rem; }
.shown { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: .6rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .3rem; padding: .4rem; background: var(--ground);
  max-width: 100%; }
figcaption { font-size: .75rem; color: var(--soft); }
table { border-collapse: collapse; font-size: .9rem; } td, th { text-align: left; padding: .15rem .8rem .15rem 0; }
a { color: var(--note); }
"""
"""Rules that all pages begin with; colours are variables."""


def escape(value: object) -> str:
    """Return a text of somebody else's as text of a page; what turns the writing or acts on terminals shows escaped."""
    return html.escape(printable(value), quote=True)


def policy(style: str, script: str = "") -> str:
    """Return the content policy of a page: pictures within it, this style and this script; nothing else is loaded.

    Args:
        style: The whole text of its one ``<style>``.
        script: The same of its ``<script>``; "" where it has none.
    """
    allowed = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'"
    allowed += f"; script-src '{_hash(script)}'" if script else ""
    return f"{allowed}; base-uri 'none'; form-action 'none'"


def document(title: str, body: str, *, style: str, script: str = "") -> str:
    """Return a whole page.

    Args:
        title: As text; it is escaped.
        body: As HTML.
        style: Its rules.
        script: What it runs once it is read; "" for nothing.
    """
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style>"
    )
    run = f"<script>{script}</script>\n" if script else ""
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n{run}</body></html>\n'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
