"""A repaired copy of a data set: what is certain is mended, in the same format; the original is never touched."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.cli.checking.rewriting import (
    rewrite_coco,
    rewrite_list,
    rewrite_manifest,
    rewrite_voc,
    rewrite_yolo,
)
from visionkit.cli.recognise import TABLES, Candidate
from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import make_folder, read_text, unwritable, write_text
from visionkit.data.audit.findings import Finding
from visionkit.data.audit.snapshot import Snapshot
from visionkit.data.formats import Request, read_labels
from visionkit.data.labels.faults import gathering
from visionkit.data.labels.names import spellings
from visionkit.data.split import SPLIT_WORDS, split_word

__all__ = ["refuse_place", "repair"]

_BOXES = ("box-degenerate", "box-outside", "box-missing", "box-repeated")
_WHOLE = ("picture-unreadable", "picture-truncated", "mask-unreadable")
_SPLIT_OF = {word: name for name, words in SPLIT_WORDS.items() for word in words}


def refuse_place(root: Path, out: Path) -> None:
    """Refuse a folder for the copy that holds something, or lies in the data set.

    Raises:
        UsageError: It does.
    """
    base = root if root.is_dir() else root.parent
    if out.resolve() == base.resolve() or out.resolve().is_relative_to(base.resolve()):
        raise UsageError(f"--fix {out}: lies within the data set itself; give a folder outside of {base}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--fix {out}: is there already; give a folder that is empty or not there")


@dataclass
class _Plan:
    """What is left out and rewritten.

    Args:
        dropped: Image files that are left out, each with the splits in which.
        kinds: The findings that are mended.
        files: Files of labels that hold something of them.
    """

    dropped: dict[str, set[str]] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)

    def drops(self, path: str, split: str) -> bool:
        return split in self.dropped.get(path, ())


def repair(candidate: Candidate, s: Snapshot, findings: Sequence[Finding], out: Path) -> list[str]:
    """Write the copy, and return what was done in lines.

    Args:
        candidate: What lies there, and how it is taken.
        s: What was looked at.
        findings: What was found.
        out: The folder; it is empty or not there.

    Raises:
        DataError: It cannot be written, or the copy would still name files of the original.
        UsageError: The data set is not in one folder.
    """
    plan = _plan(s, findings)
    if not plan.kinds:
        return ["mended   nothing that was found can be mended with certainty: no copy was written"]
    refuse_place(candidate.root, out)
    base = candidate.root if candidate.root.is_dir() else candidate.root.parent
    for path in [i.path for i in s.images] + [i.source for i in s.images if i.source]:
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(base)):
            raise UsageError(
                f"--fix: {path} lies outside of {base}; a copy is made of data sets that are in one folder"
            )
    make_folder(out.parent)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        _copy(base, work, _left_out(s, plan))
        _rewrite(candidate, s, plan, base, work)
        _refuse_original(candidate, base, work)
        if out.exists():
            out.rmdir()
        work.rename(out)
        out.chmod(0o755)
    except OSError as e:
        raise unwritable(out, e) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _told(s, findings, plan, out, candidate)


def _plan(s: Snapshot, findings: Sequence[Finding]) -> _Plan:
    plan = _Plan()
    splits_of: dict[str, set[str]] = {}
    for image in s.images:
        splits_of.setdefault(image.path, set()).add(image.split)
    for f in findings:
        for e in (e for e in f.examples if e.mended):
            plan.kinds.add(f.id)
            plan.files.add(e.file)
            if f.id in _WHOLE and e.pictures:
                plan.dropped.setdefault(e.pictures[0], set()).update(splits_of.get(e.pictures[0], ()))
            elif f.id == "leak-exact":
                plan.dropped.setdefault(e.pictures[0], set()).add("train")
            elif f.id == "duplicate-exact":
                plan.dropped.setdefault(e.pictures[-1], set()).update(e.splits)
    return plan


def _left_out(s: Snapshot, plan: _Plan) -> set[str]:
    """Return the files that are not copied: images that no split has any more, and their own files of labels."""
    kept = {i.path for i in s.images if not plan.drops(i.path, i.split)}
    files = {path for path in plan.dropped if path not in kept}
    own = {i.source for i in s.images if i.path in files and i.source in s.image_of}
    if s.format == "Pascal VOC" and "image-missing" in plan.kinds:
        own |= {f for f in plan.files if f.endswith(".xml") and f not in s.image_of}
    return {os.path.abspath(f) for f in files | own}


def _copy(base: Path, work: Path, left_out: Collection[str]) -> None:
    def skip(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if os.path.abspath(os.path.join(folder, n)) in left_out]

    try:
        shutil.copytree(base, work, ignore=skip, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    except shutil.Error as e:
        raise DataError(f"{base}: cannot be copied ({e.args[0][0][2] if e.args and e.args[0] else e})") from None


def _rewrite(candidate: Candidate, s: Snapshot, plan: _Plan, base: Path, work: Path) -> None:
    """Write the labels of the copy again."""

    def place(file: str | Path) -> Path:
        return work / os.path.relpath(file, base)

    if s.format == "manifest":
        _manifests(s, plan, base, place(candidate.root), candidate.root)
    elif s.format == "COCO JSON":
        for source in sorted({i.source for i in s.images}):
            dropped = {i.path for i in s.images if i.source == source and plan.drops(i.path, i.split)}
            rewrite_coco(place(source), Path(source), dropped, s.edges_of, plan.kinds)
    else:
        _boxes(s, plan, place)
        _lists(s, plan, work)
        for file in (*work.glob("*.yaml"), *work.glob("*.yml")) if s.format == "YOLO" else ():
            text = read_text(file)
            if re.search(r"^path:", text, re.MULTILINE):
                folder = os.path.relpath(_root_of(text, base), base)
                write_text(file, re.sub(r"^path:.*$", f"path: {folder}", text, count=1, flags=re.MULTILINE))


def _root_of(text: str, base: Path) -> Path:
    """Return the folder that ``path`` of a data.yaml means; the folder itself where it does not lie in there."""
    said = re.search(r"^path:\s*['\"]?([^'\"#\n]*)", text, re.MULTILINE)
    found = base / said[1].strip() if said else base
    return found if found.is_dir() and found.resolve().is_relative_to(base.resolve()) else base


def _boxes(s: Snapshot, plan: _Plan, place: object) -> None:
    """Write files of boxes again that are of one image each."""
    rewrite = {"YOLO": rewrite_yolo, "Pascal VOC": rewrite_voc}.get(s.format)
    if rewrite is None or s.task == "segmentation" or not plan.kinds & {*_BOXES}:
        return
    assert callable(place)
    for image in s.images:
        file = place(image.source) if image.source in plan.files else None
        if file is not None and file.is_file():
            text = read_text(file)
            mended = rewrite(text, s.edges_of.get(image.path), plan.kinds)
            if mended != text:
                write_text(file, mended)


def _lists(s: Snapshot, plan: _Plan, work: Path) -> None:
    """Take images out of lists: of all where they are left out altogether, else of those of their split."""
    stems: dict[str, set[str]] = {}
    for image in s.images:
        if plan.drops(image.path, image.split):
            stems.setdefault(Path(image.path).stem, set()).add(image.split)
    kept = {Path(i.path).stem for i in s.images if not plan.drops(i.path, i.split)}
    missing = _missing(s) if "image-missing" in plan.kinds else set()

    for file in _list_files(s, work):
        word = split_word(file.stem)

        def gone(stem: str, word: str | None = word) -> bool:
            return stem in missing or (stem in stems and (stem not in kept or word in stems[stem]))

        rewrite_list(file, gone)


def _list_files(s: Snapshot, work: Path) -> Iterator[Path]:
    """Yield the files of the copy that list images, a name a line."""
    if s.format == "class folders":
        return
    own = {Path(i.source).name for i in s.images if i.source}
    for file in sorted(work.rglob("*.txt")):
        if file.name not in own and (split_word(file.stem) or "trainval" in file.stem or "ImageSets" in file.parts):
            yield file


def _missing(s: Snapshot) -> set[str]:
    """Return the names of images that lists name and that are not there."""
    found = set()
    for f in s.faults:
        if f.kind == "image-missing":
            match = re.search(r"(?::\d+: )?([^:\n]*): no (?:such )?image", f.message)
            name = Path(f.message.split(": no image")[0]).stem if f.message.split(":")[0].endswith(".xml") else None
            found.add(name or (Path(match[1]).stem if match else ""))
    return found - {""}


def _manifests(s: Snapshot, plan: _Plan, base: Path, copy: Path, root: Path) -> None:
    original = Path(next((i.source for i in s.images if i.source), root))
    target = copy if copy.is_file() else copy / original.name
    known = {os.path.normpath(i.path) for i in s.images}

    def gone(name: str, split: str) -> bool:
        paths = [os.path.normpath(original.parent / n) for n in spellings(name)]
        path = next((p for p in paths if p in known), None)
        if path is None:
            return "image-missing" in plan.kinds and not any(map(os.path.isfile, paths))
        splits = {os.path.normpath(p): found for p, found in plan.dropped.items()}.get(path, set())
        return _SPLIT_OF.get(split, "train") in splits

    rewrite_manifest(target, original, gone)


def _refuse_original(candidate: Candidate, base: Path, work: Path) -> None:
    """Refuse a copy whose labels still name files of the original, by absolute paths."""
    root = work if candidate.root == base else work / candidate.root.name
    request = Request(root, None, 3, (), candidate.data_options)
    with gathering():
        found = read_labels(TABLES[candidate.task], request)
    for data in (found.train, found.val, found.test):
        for id in data.ids if data is not None else ():
            if os.path.isfile(id) and not Path(os.path.abspath(id)).is_relative_to(os.path.abspath(work)):
                raise DataError(
                    f"{base}: its labels name images by absolute paths ({id}), so a copy would still read these; "
                    "write paths that count from the folder of the data set"
                )


def _told(s: Snapshot, findings: Sequence[Finding], plan: _Plan, out: Path, candidate: Candidate) -> list[str]:
    counts = Counter({f.id: f.mended for f in findings if f.mended})
    lines = [f"mended   {f.id}: {counts[f.id]} ({f.kind.mends})" for f in findings if counts[f.id]]
    left = sum(len(f.examples) - f.mended for f in findings if f.severity != "note")
    beside = f"; {left} other places of errors and warnings are for you to decide" if left else ""
    root = out if candidate.root.is_dir() else out / candidate.root.name
    return [*lines, f"copy     {root}: {len(plan.dropped)} images left out{beside}"]
