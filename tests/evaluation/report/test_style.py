"""Colours that lie over each other contrast enough, in both schemes."""

import re

import pytest

from visionkit.core import page
from visionkit.evaluation.report.style import DARK, HEAT, LIGHT, LINES, PAIRS, style


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(front, back):
    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
def test_contrast(pair, scheme):
    assert contrast(*(scheme[name] for name in pair)) >= 4.5


@pytest.mark.parametrize("scheme", [page.LIGHT, page.DARK], ids=["light", "dark"])
def test_contrast_of_the_page_of_check(scheme):
    for front in ("text", "soft", "note", "error", "warning"):
        for back in ("ground", "card"):
            assert contrast(scheme[front], scheme[back]) >= 4.5


def test_all_colours_are_those():
    """No rule brings a colour of its own, and each that text or lines have is in a pair."""
    rules = style()
    variables, _, rest = rules.partition("* {")
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(|(?<![\w-])(?:black|white|grey|gray)(?![\w-])", rest) == []
    assert set(LIGHT) == set(DARK)
    used = set(re.findall(r"var\(--(\w+)\)", rest))
    assert used <= set(LIGHT)
    assert {f"--{name}:" for name in used} <= set(re.findall(r"--\w+:", variables))
    fronts, backs = ({pair[k] for pair in PAIRS} for k in (0, 1))
    assert set(re.findall(r"(?<!-)color: var\(--(\w+)\)", rest)) <= fronts
    assert set(re.findall(r"background: var\(--(\w+)\)", rest)) <= backs
    assert {f"line{k}" for k in range(LINES)} <= fronts
    assert {f"heat{k}" for k in range(HEAT)} <= backs


def test_the_second_line_is_dashed():
    assert ".line0 { stroke: var(--line0); stroke-dasharray: none; }" in style()
    assert re.search(r"\.line1 \{ stroke: var\(--line1\); stroke-dasharray: \d", style())
