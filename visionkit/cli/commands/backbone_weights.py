"""The verbs of ``visionkit backbone`` that know the hub: what weights there are, and fetching them."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from visionkit.core.errors import UsageError
from visionkit.core.files import open_binary, writing
from visionkit.core.text import say

__all__ = ["add_parsers", "get_weights", "list_weights"]


def add_parsers(verbs: Any) -> list[argparse.ArgumentParser]:
    """Add ``list`` and ``get`` to the verbs of a parser, and return theirs.

    Args:
        verbs: What ``add_subparsers`` returned.
    """
    listed = verbs.add_parser(
        "list",
        help="show which pretrained weights can be had by name, and where they are",
        description="Show which pretrained weights can be had by name: depth, parameters in millions, size, published "
        "top-1 on ImageNet-1k, licence, and whether they are in the folder that VISIONKIT_WEIGHTS names (mirror), in "
        "the hub's cache, or not on this machine (-). Nothing is asked of the network.",
        allow_abbrev=False,
    )
    listed.add_argument("--json", action="store_true", help="print JSON")
    get = verbs.add_parser(
        "get",
        help="fetch weights by name, for this machine or another",
        description="Fetch weights by name, unless they are here already, and print where they are and their SHA-256.",
        allow_abbrev=False,
    )
    get.add_argument("name", metavar="NAME",
                     help="a name of `visionkit backbone list`, any of timm's, or a hub name (timm/NAME, "
                     "hf-hub:OWNER/NAME)")  # fmt: skip
    get.add_argument("--out", metavar="DIR",
                     help="write a copy into this folder, for another machine: there VISIONKIT_WEIGHTS names "
                     "it")  # fmt: skip
    get.add_argument("--overwrite", action="store_true", help="replace another file of this name in DIR")
    return [listed, get]


def list_weights(*, as_json: bool) -> None:
    """Print the known weights, and where they are.

    Args:
        as_json: Whether to print JSON.
    """
    from huggingface_hub import constants

    from visionkit.models.weights.known import KNOWN
    from visionkit.models.weights.places import VARIABLE, cached, mirror, mirrored, weights_at_hand

    folder = mirror()
    rows = []
    for known in KNOWN:
        paths = {"mirror": mirrored(known.source), "cache": cached(known.source)}
        where = next((place for place, path in paths.items() if path), None)
        rows.append((known, where, None if where is None else paths[where]))
    if as_json:
        plain = [
            {
                **{key: getattr(k, key) for key in ("name", "depth", "parameters", "megabytes", "top1", "top1_size")},
                "licence": k.licence,
                "style": dict(k.style),
                "auto": k.auto,
                "where": where,
                "path": None if path is None else str(path),
            }
            for k, where, path in rows
        ]
        say(*json.dumps(plain, indent=2).splitlines())
        return
    say(f"  {'name':<25} depth  param.    size  top-1  {'licence':<12}  where")
    for k, where, _ in rows:
        mark = "*" if k.auto else " "
        numbers = f"{k.depth:>5}  {k.parameters:>4.0f} M  {k.megabytes:>3.0f} MB  {k.top1:>5.1f}"
        say(f"{mark} {k.name:<25} {numbers}  {k.licence:<12}  {where or '-'}")
    say("* weights: auto takes these. top-1: as published, ImageNet-1k, 224 to 320 px")
    say(f"mirror   {folder or f'none: {VARIABLE} names no folder'}")
    say(f"cache    {constants.HF_HUB_CACHE}")
    say(f"hub      {constants.ENDPOINT}" + (" (HF_HUB_OFFLINE is set: not asked)" if constants.HF_HUB_OFFLINE else ""))
    for k, _, path in rows:
        own = weights_at_hand(k.network) if k.auto else None
        if own not in (None, path):
            say(f"auto     of {k.network}: {own}")


def get_weights(name: str, out: str | None, *, overwrite: bool) -> None:
    """Fetch weights, and print where they are.

    Args:
        name: As the command takes it.
        out: Folder for a copy, or None.
        overwrite: Whether a file of the same name there may be replaced.

    Raises:
        UsageError: No weights have this name, or another file stands in the way.
        DataError: They cannot be fetched or written.
    """
    from visionkit.models.weights.file import find_weights, is_hub_name
    from visionkit.models.weights.hub import check_cached
    from visionkit.models.weights.known import by_name
    from visionkit.models.weights.places import AUTO, VARIABLE, mirror_name, repository_of

    source = _source(name)
    path = find_weights(source)
    file = f"{mirror_name(repository_of(source))}{path.suffix}" if is_hub_name(source) else path.name
    digest, size = _hash(path)
    check_cached(path, digest)
    if out is not None:
        copy = Path(out) / file
        same = copy.is_file() and _hash(copy)[0] == digest
        if copy.exists() and not same and not overwrite:
            raise UsageError(f"{copy} exists and is another file: choose another folder, or add --overwrite")
        if not same:
            with open_binary(path) as content, writing(copy, needed=size) as written:
                shutil.copyfileobj(content, written, 1 << 20)
        path = copy
    say(f"file     {path}, {size / 1e6:.1f} MB")
    say(f"sha256   {digest}")
    use = source if (known := by_name(source)) is None else known.name
    if out is not None:
        use = f"{use if is_hub_name(source) else AUTO}, where {VARIABLE} names this folder"
    say(f"use      --model.backbone.weights {use}")


def _hash(path: Path) -> tuple[str, int]:
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _source(name: str) -> str:
    """Return what ``weights`` takes for a name: a hub name, or, of a network's name, what ``auto`` stands for."""
    from visionkit.models.weights.file import is_hub_name
    from visionkit.models.weights.known import KNOWN, by_name
    from visionkit.models.weights.places import auto_source, hub_source

    if (known := by_name(name)) is not None:
        return known.source
    if is_hub_name(name):
        return name
    if hub_source(name) is not None:
        return auto_source(name, name)
    import timm

    names = dict.fromkeys([*(k.name for k in KNOWN), *timm.list_pretrained()])
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`visionkit backbone list` shows names"
    raise UsageError(f"no weights are named {name!r}: {hint}")
