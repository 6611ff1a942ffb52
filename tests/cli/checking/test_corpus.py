"""Every finding in every format is found at its place, nothing in the clean twin, and a repaired copy is clean."""

import shutil

import pytest

from tests import corpus, faulty
from visionkit.cli.checking.collect import collect
from visionkit.cli.checking.repair import repair
from visionkit.cli.recognise import recognise
from visionkit.data.audit.checks import run_checks, verdict

BOXES_ALONE = {"box-degenerate", "box-outside", "box-repeated", "box-duplicate", "box-contradictory", "object-small"}
BOXES_ALONE |= {"box-shape", "box-missing", "image-unlabelled", "label-syntax"}
"""Not looked for where boxes are painted as pixels."""


def look(root, format):
    candidate = next(c for c in recognise(root) if c.task == corpus.FORMATS[format][1])
    snapshot = collect(candidate)
    return candidate, snapshot, run_checks(snapshot)


@pytest.mark.parametrize("format", corpus.FORMATS)
def test_nothing_in_the_clean_twin(tmp_path, format):
    root = corpus.FORMATS[format][0](tmp_path / "data")
    _, snapshot, findings = look(root, format)
    assert [(f.id, f.what, f.examples[:3]) for f in findings] == []
    assert not verdict(snapshot, findings).changes


@pytest.mark.parametrize("format", corpus.FORMATS)
def test_every_fault_is_found_at_its_place_and_mended(tmp_path, format):
    root = tmp_path / "data"
    planted = faulty.make(root, format)
    if format == "COCO JSON, pixels":
        planted = {id: words for id, words in planted.items() if id not in BOXES_ALONE}
    candidate, snapshot, findings = look(root, format)
    found = {f.id: [" ".join((e.text, *e.pictures)) for e in f.examples] for f in findings}
    missed = {
        id: [w for w in words if not any(w in text for text in found.get(id, ()))] for id, words in planted.items()
    }
    assert {id: words for id, words in missed.items() if words} == {}, found
    assert verdict(snapshot, findings).changes

    mended = {f.id for f in findings if f.mended and f.mended == len(f.examples)}
    assert {"picture-unreadable", "picture-truncated", "duplicate-exact"} <= mended
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    repair(candidate, snapshot, findings, tmp_path / "copy")
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    shutil.rmtree(root)
    _, again, left = look(tmp_path / "copy", format)
    assert mended & {f.id for f in left} == set(), [f.examples for f in left if f.id in mended]
    assert len(again.images) < len(snapshot.images)
    unmended = {f.id for f in findings} - mended
    assert {f.id for f in left} <= unmended | {"class-few", "class-unseen", "split-small", "split-skew"}
