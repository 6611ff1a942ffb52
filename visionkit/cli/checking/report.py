"""A check as one page that needs no network: what was found, why it matters, and pictures of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from visionkit import __version__
from visionkit.cli.checking.words import counted, described
from visionkit.core.errors import DataError
from visionkit.core.files import write_text
from visionkit.core.page import DARK, LIGHT, STYLE, document, variables
from visionkit.core.page import escape as _text
from visionkit.data.audit.checks import Verdict
from visionkit.data.audit.findings import Example, Finding
from visionkit.data.audit.snapshot import Snapshot
from visionkit.data.images.reading import load_image
from visionkit.prediction.thumbnails import SIDE, address, shrunk, webp

__all__ = ["page", "write_report"]

_EACH = 8  # pictures of a finding's place
_PLACES = 100  # of a finding that are written out
_COLOURS = ((230, 159, 0), (86, 180, 233))  # of the box that is meant, and of the other one: Okabe and Ito
_STYLE = f"""{variables(LIGHT, DARK)}{STYLE}
.verdict {{ border-left: .35rem solid var(--note); padding: .5rem .8rem; background: var(--card); margin: 1rem 0; }}
.verdict.yes {{ border-color: var(--error); }}
.badge {{ font-size: .75rem; font-weight: 600; text-transform: uppercase; letter-spacing: .04em; margin-right: .4rem; }}
.error {{ color: var(--error); }} .warning {{ color: var(--warning); }} .note {{ color: var(--note); }}
figure div {{ display: flex; flex-wrap: wrap; gap: .3rem; }}
figure img {{ display: block; max-width: 12rem; height: auto; }}
figure img.wide {{ max-width: min(24rem, 100%); }}
figcaption {{ max-width: 24.5rem; }}
"""


def write_report(
    path: str | os.PathLike[str], s: Snapshot, findings: Sequence[Finding], answer: Verdict, *, most: int = 200
) -> None:
    """Write a check as a page.

    Args:
        path: The file.
        s: What was looked at.
        findings: What was found.
        answer: Whether that changes the validation number.
        most: Most pictures in the page.
    """
    write_text(path, page(s, findings, answer, most=most))


def page(s: Snapshot, findings: Sequence[Finding], answer: Verdict, *, most: int = 200) -> str:
    """Return a check as HTML; arguments as in :func:`write_report`."""
    shares = _shares(findings, most)
    body = [
        f"<h1>Check of {_text(s.root)}</h1>",
        f"<p class='soft'>{_text(described(s))}. Found: {_text(counted(findings))}.</p>",
        f"<div class='verdict {'yes' if answer.changes else 'no'}'>{_text(answer.sentence)}</div>",
        *_contents(findings),
        *(line for f in findings for line in _section(s, f, shares[f.id])),
        *_numbers(s),
        f"<p class='soft'>Made by visionkit {_text(__version__)} check. It loads nothing from anywhere.</p>",
    ]
    return document(f"Check of {s.root}", "\n".join(body), style=_STYLE)


def _shares(findings: Sequence[Finding], most: int) -> dict[str, int]:
    """Return how many pictures each finding may show: all get some before one gets many."""
    wanted = {f.id: sum(min(len(e.pictures), _EACH) for e in f.examples) for f in findings}
    given = dict.fromkeys(wanted, 0)
    while most > 0 and any(given[id] < wanted[id] for id in wanted):
        for id in wanted:
            if most > 0 and given[id] < wanted[id]:
                given[id] += 1
                most -= 1
    return given


def _contents(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        yield "<table><tr><th>severity</th><th>finding</th><th>number</th><th>--fix</th></tr>"
        for f in findings:
            mends = f"{f.mended} places" if f.mended else ""
            yield (
                f"<tr><td class='{f.severity}'>{f.severity}</td><td><a href='#{f.id}'>{f.id}</a></td>"
                f"<td>{f.count}</td><td>{mends}</td></tr>"
            )
        yield "</table>"


def _section(s: Snapshot, f: Finding, pictures: int) -> Iterator[str]:
    yield f"<section id='{f.id}'>"
    yield f"<h2><span class='badge {f.severity}'>{f.severity}</span>{_text(f.what)}</h2>"
    yield f"<p>{_text(f.kind.why)}</p><p><b>What to do:</b> {_text(f.kind.cure)}.</p>"
    if f.mended:
        yield f"<p><b>--fix</b> {_text(f.kind.mends)} ({f.mended} of {len(f.examples)}).</p>"
    figures = []
    shown = 0
    for example in f.examples:
        if not example.pictures:
            continue
        number = min(len(example.pictures), _EACH, pictures - shown)
        if number <= 0:
            break
        shown += number
        figures.append(_figure(s, example, number))
    if figures:
        left = sum(bool(e.pictures) for e in f.examples) - len(figures)
        more = f"<p class='soft'>and {left} more without a picture here; all are in the list</p>" if left else ""
        yield f"<div class='shown'>{''.join(figures)}</div>{more}"
    rows = "".join(f"<li>{_text(e.text)}</li>" for e in f.examples[:_PLACES])
    left = len(f.examples) - _PLACES
    more = f"<li>and {left} more: <code>--json</code> lists all</li>" if left > 0 else ""
    opened = " open" if not figures and len(f.examples) <= 10 else ""
    yield f"<details{opened}><summary>{len(f.examples)} places</summary><ul>{rows}{more}</ul></details></section>"


def _figure(s: Snapshot, e: Example, number: int) -> str:
    images = []
    for k, path in enumerate(e.pictures[:number]):
        data = _thumbnail(path, e.boxes if k == 0 else ())
        name = _text(os.path.basename(path))
        facts = f"class='{'wide' if k == 0 and e.boxes else 'small'}' alt='{name}'"
        images.append(f"<img {facts} src='{data}'>" if data else f"<span class='soft'>{name} cannot be shown</span>")
    left = len(e.pictures) - number
    more = f" (and {left} more pictures)" if left > 0 else ""
    return f"<figure><div>{''.join(images)}</div><figcaption>{_text(e.text)}{more}</figcaption></figure>"


def _thumbnail(path: str, boxes: Sequence[tuple[float, float, float, float]]) -> str:
    """Return a small picture with its boxes as an address that holds it, or "" where it cannot be read."""
    try:
        decoded = load_image(path, scale=lambda size: (2 * SIDE / max(size),) * 2)
    except DataError:
        return ""
    pixels = shrunk(decoded.pixels, 2 * SIDE if boxes else SIDE)
    scale = np.array([pixels.shape[1] / decoded.size[1], pixels.shape[0] / decoded.size[0]] * 2)
    for k, box in reversed(list(enumerate(boxes))):
        x1, y1, x2, y2 = np.rint(np.array(box) * scale).astype(int).tolist()
        cv2.rectangle(pixels, (x1, y1), (x2, y2), _COLOURS[min(k, 1)], 2)
    return address(webp(pixels))


def _numbers(s: Snapshot) -> Iterator[str]:
    """Yield the number of examples of each class and split."""
    if not s.images:
        return
    counts = {name: s.counts(name) for name in s.splits}
    yield "<details><summary>Examples of each class</summary><table>"
    yield "<tr><th>class</th>" + "".join(f"<th>{name}</th>" for name in counts) + "</tr>"
    for i, name in enumerate(s.classes):
        cells = "".join(f"<td>{c[i]}</td>" for c in counts.values())
        yield f"<tr><td>{_text(name)}</td>{cells}</tr>"
    yield "</table></details>"
