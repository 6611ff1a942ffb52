"""The whole page: its parts put together, its pictures made to fit, one file."""

from __future__ import annotations

import os
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from visionkit import __version__
from visionkit.core.errors import VisionkitError
from visionkit.core.files import read_text, write_text
from visionkit.core.page import document
from visionkit.core.text import printable
from visionkit.data.images.reading import load_image
from visionkit.evaluation.report.evidence import make_evidence
from visionkit.evaluation.report.files import PictureFiles
from visionkit.evaluation.report.gallery import PixelTruth, encode, make_gallery
from visionkit.evaluation.report.marks import Number, counted, join, name, pointer, say
from visionkit.evaluation.report.masks import predicted_pixels
from visionkit.evaluation.report.sections import Section, evaluation_sections, run_sections
from visionkit.evaluation.report.source import CURVES, Run, Source
from visionkit.evaluation.report.style import script, style
from visionkit.evaluation.report.words import main_metric, sentence
from visionkit.prediction.explain import Explainer
from visionkit.prediction.thumbnails import address, shrunk, webp

__all__ = ["EXPLAINED", "PICTURES", "ROOM", "page", "write_report"]

PICTURES = 200
"""Most pictures in a page, unless others are asked for."""
EXPLAINED = 20
"""Most pictures with maps of the evidence, unless others are asked for."""
ROOM = 1_500_000
"""Bytes that a page with so many pictures has at most; with more pictures, more in proportion."""
_PLOTS, _PLOT = 8, 900  # plots of a run folder that are shown, and their longer side in pixels
_DRAWN = ("learning_curves.png",)  # which the page draws itself


def write_report(
    source: Source,
    out: str | os.PathLike[str],
    *,
    pictures: int = PICTURES,
    data: str | os.PathLike[str] | None = None,
    truth: PixelTruth | None = None,
    explainer: Explainer | None = None,
    explained: int = EXPLAINED,
) -> tuple[str, ...]:
    """Write an evaluation or a training as one page that loads nothing.

    Args:
        source: What :func:`visionkit.evaluation.report.source.find_source` found.
        out: The file.
        pictures: Most pictures in it.
        data: Where the pictures lie now; None for where they were measured.
        truth: Of an evaluation of pixels, the true classes of a picture; None where they are not known.
        explainer: Of the evaluated model: its maps of the evidence are shown, too.
        explained: Most pictures with maps.

    Returns:
        What could not be shown, in lines.

    Raises:
        DataError: The records of predictions are damaged, or the file cannot be written.
    """
    text, left_out = page(source, pictures=pictures, data=data, truth=truth, explainer=explainer, explained=explained)
    write_text(out, text)
    return left_out


def page(
    source: Source,
    *,
    pictures: int = PICTURES,
    data: str | os.PathLike[str] | None = None,
    truth: PixelTruth | None = None,
    explainer: Explainer | None = None,
    explained: int = EXPLAINED,
) -> tuple[str, tuple[str, ...]]:
    """Return the page as HTML, and what could not be shown; arguments as in :func:`write_report`."""
    if source.evaluation is None:
        assert source.run is not None
        return _run_page(source.run), ()
    files = PictureFiles(source.facts.text("data", "root"), data)
    gallery = make_gallery(source, pictures, files, truth=truth, found=predicted_pixels(source))
    evidence = make_evidence(source, gallery.shots, files, explainer, explained)
    shown = [one for shot in gallery.pictures for _, one in shot]
    every = [*shown, *(picture for _, picture in evidence.maps)]
    passport = _passport(source.run)

    def made(addresses: list[str]) -> str:
        figures, maps = gallery.figures(source, addresses[: len(shown)]), evidence.part(addresses[len(shown) :])
        return _evaluation_page(source, evaluation_sections(source, gallery, figures, maps, passport))

    bare = made([""] * len(every))
    addresses = encode(every, round(ROOM * max(1.0, pictures / PICTURES)) - len(bare.encode()))
    return made(addresses), gallery.left_out


def _evaluation_page(source: Source, sections: list[Section]) -> str:
    facts = source.facts
    models = [facts.text("model", "checkpoints", i, "name") or facts.text("model", "checkpoints", i, "path")
              for i in range(len(facts.rows("model", "checkpoints")))]  # fmt: skip
    what = [one for one in (*models, facts.text("model", "predictions")) if one]
    task = {"instance": "Instance segmentation"}.get(facts.text("task"), facts.text("task").capitalize())
    title = f"{task}: {', '.join(what) or source.given}"
    images = facts.number("data", "images")
    about = say(
        "{} of {}; {} classes; split {}",
        counted(int(images.value) if images else 0, pointer("data", "images"), "picture"),
        name(facts.text("data", "root") or "somewhere"), Number(len(facts.rows("classes")), pointer("classes")),
        name(facts.text("data", "split") or "unknown"),
    )  # fmt: skip
    few = bool(facts.text("metrics", main_metric(facts), "few"))
    return _whole(title, about, sentence(facts), sections, few=few, remarks=source.remarks)


def _run_page(run: Run) -> str:
    about = say("{} epochs of training", Number(run.rows[-1]["epoch"], f"{CURVES}#epoch") if run.rows else "No")
    parts = []
    if "epoch" in run.best:
        best = [say("{} {}", name(k.partition("/")[2]), Number(run.best[k], f"metrics.json#{k}", "score"))
                for k in ("val/mask_map", "val/map", "val/miou", "val/top1", "val/loss") if k in run.best]  # fmt: skip
        parts.append(say("The best epoch is {} ({}).", Number(run.best["epoch"], "metrics.json#epoch"), join(best)))
    folder, out = (shlex.quote(str(p)) for p in (run.folder, run.folder / "evaluation"))
    command = f"visionkit evaluate --ckpt {folder} --data DATA --out {out}"
    if run.checkpoint is not None:
        parts.append(
            say(
                "It was not evaluated yet: <code>{}</code> measures it; this page then shows its errors, too.",
                command,
            )
        )
    else:
        parts.append(say("{}", "It has no checkpoint yet."))
    lead = join(parts, " ")
    return _whole(f"Training: {run.folder}", about, lead, run_sections(run, _plots(run), _passport(run)))


def _whole(
    title: str,
    about: Markup,
    lead: Markup,
    sections: list[Section],
    *,
    few: bool = False,
    remarks: tuple[str, ...] = (),
) -> str:
    body = _template().render(
        title=title, about=about, lead=lead, sections=sections, few=few, remarks=remarks, version=__version__
    )
    return document(title, body, style=style(), script=script())


@cache
def _template() -> jinja2.Template:
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown, trim_blocks=False)
    return made.from_string(read_text(Path(__file__).with_name("page.html")))


def _shown(value: Any) -> Any:
    """Return what a template shows: texts in one line that only shows; they are escaped after that."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _passport(run: Run | None) -> str:
    """Return the passport of the weights that a training started from; "" where its checkpoint has none."""
    if run is None or run.checkpoint is None:
        return ""
    from visionkit.models.checkpoint import KEY, read
    from visionkit.models.weights.load import WeightsReport

    try:
        passport = read(run.checkpoint)[KEY].get("passport")
        return "" if passport is None else str(WeightsReport.from_plain(passport))
    except VisionkitError:
        return ""


def _plots(run: Run) -> Markup:
    """Return the plots that a training left in its folder."""
    shown = []
    for path in sorted(p for p in run.folder.glob("*.png") if p.name not in _DRAWN)[:_PLOTS]:
        try:
            pixels = shrunk(load_image(path).pixels, _PLOT)
        except VisionkitError:
            continue
        words = path.stem.replace("_", " ")
        shown.append(
            say('<h3>{}</h3><img class="plot" src="{}" width="{}" height="{}" alt="{}">',
                words, address(webp(pixels)), str(pixels.shape[1]), str(pixels.shape[0]), words)
        )  # fmt: skip
    return join(shown, "")
