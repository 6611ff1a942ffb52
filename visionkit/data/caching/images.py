"""Pictures that are decoded once: what loaders ask before they read a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from visionkit import __version__
from visionkit.core.component import spec_of
from visionkit.core.errors import UsageError
from visionkit.core.files import locked, write_text
from visionkit.core.sample import Loaded, Target
from visionkit.data.caching.store import (
    LAYOUT,
    ImageStore,
    available_memory,
    filled,
    remove_images,
    remove_unused,
    taken,
)
from visionkit.data.dataset import VisionDataset, knows_targets, load_sample
from visionkit.data.images.decode import Array
from visionkit.data.images.reading import read_image
from visionkit.data.transforms.preprocessing import Preprocessing

__all__ = ["Cache", "CacheSettings", "ImageCache", "Prepared"]

T = TypeVar("T", bound=Target)

Cache: TypeAlias = Literal["none", "ram", "disk"]
DECODER = 2
"""Rises whenever the same file gives other pixels than before, or they are kept in another way."""
MEMORY_SHARE = 0.6  # share of the free memory that pictures may take


class CacheSettings:
    """Where decoded pictures are kept.

    Args:
        kind: "ram" keeps them in memory, "disk" in a folder, "none" nowhere.
        folder: The folder, or None for one in the run's.
        limit: Gigabytes that they may take.

    Raises:
        UsageError: A value is out of range, or a folder is given that is not used.
    """

    def __init__(self, kind: Cache = "none", folder: str | None = None, limit: float = 20.0) -> None:
        if kind not in get_args(Cache):
            raise UsageError(f"data.cache={kind!r}: one of {', '.join(get_args(Cache))}")
        if not 0 < limit < float("inf"):
            raise UsageError(f"data.cache_limit={limit}: gigabytes, above 0")
        if folder is not None and kind != "disk":
            raise UsageError(
                f"data.cache_folder is for data.cache disk, not {kind}: set data.cache disk or leave it out"
            )
        self.kind = kind
        self.folder = folder
        self.limit = limit


class ImageCache:
    """Decoded pictures of some data sets, shared by all processes that load them.

    Args:
        settings: Where they are kept.
        datasets: The data sets; only pictures that are files are kept, of data sets that know targets without them.
        preprocessing: Brings each picture to the model's size, at which it is kept.
        whole: Data sets of which whole pictures are kept, too, as they are decoded.
        folder: Where they lie on the disk.
        processes: Processes of this machine that keep pictures in memory of their own.

    Raises:
        UsageError: The folder cannot be written, or the system has no way to share it.
    """

    def __init__(
        self,
        settings: CacheSettings,
        datasets: Sequence[VisionDataset[Any]],
        preprocessing: Preprocessing,
        *,
        whole: Sequence[VisionDataset[Any]] = (),
        folder: Path | None = None,
        processes: int = 1,
    ) -> None:
        self.preprocessing = preprocessing
        self.folder = folder if settings.kind == "disk" else None
        limit = settings.limit * 1e9
        if settings.kind == "ram":
            limit = min(limit, MEMORY_SHARE * available_memory()) / processes
        self.limit = int(limit)
        self._keys: dict[str, bytes] = {}  # of files, by path
        self.left_out = sorted({type(data).__name__ for data in datasets if not knows_targets(data)})
        """Names of the data sets whose pictures are not kept."""
        placed = [key for data in datasets if knows_targets(data) for key in self._keys_of(data)]
        bytes_each = preprocessing.size[0] * preprocessing.size[1] * preprocessing.channels
        self.count = len(dict.fromkeys(placed))
        """Pictures that are to be kept at the model's size."""
        needed = self.count * bytes_each
        originals = [key for data in whole for key in self._keys_of(data)]
        room = min(needed, self.limit // 2) if originals else self.limit
        spec = {"preprocessing": spec_of(preprocessing)}
        try:
            self.store, self.known = self._store(spec, placed, room, needed)
            self.whole: ImageStore | None = None
            if originals:
                self.whole, known = self._store(
                    {"channels": preprocessing.channels}, originals, self.limit - room, None
                )
                self.known = max(self.known, known)
        except OSError as e:
            raise UsageError(
                f"data.cache: {self.folder or 'memory'} cannot be written ({e.strerror or e}): set data.cache_folder"
            ) from None

    def _store(
        self, spec: dict[str, Any], keys: Sequence[bytes], limit: int, needed: int | None
    ) -> tuple[ImageStore, int]:
        """Return a store and how many of its pictures are known already."""
        if self.folder is None:
            store = ImageStore(None, limit=limit)
            return store, store.plan(keys)
        name, text = _named(spec)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f"{name}.lock"):
            self._make_room(name, limit if needed is None else min(needed, limit))
            store = ImageStore(self.folder / name, limit=limit)
            known = store.plan(keys)
            foreign = len(store.rows) > len(dict.fromkeys(keys))
            tight = store.used + (0 if needed is None else needed) * (1 - known / max(1, len(keys))) > 0.98 * limit
            if foreign and tight and store.alone():  # pictures of others, or older ones, are in the way
                remove_images(self.folder / name)
                store.close()
                store = ImageStore(self.folder / name, limit=limit)
                known = store.plan(keys)
            write_text(self.folder / name / LAYOUT, text)  # its time says when the store was used last
        return store, known

    def _make_room(self, name: str, needed: int) -> None:
        """Remove the stores that were used least recently, and by no process now, until all keep to the limit."""
        assert self.folder is not None
        others = [p.parent for p in self.folder.glob(f"*/{LAYOUT}") if p.parent.name != name]
        others.sort(key=lambda p: (p / LAYOUT).stat().st_mtime_ns, reverse=True)  # the newest are kept
        used = needed
        for other in others:
            size = taken(other)
            if used + size > self.limit and remove_unused(other):
                self.folder.joinpath(f"{other.name}.lock").unlink(missing_ok=True)
            else:
                used += size

    @staticmethod
    def decoded(settings: CacheSettings, preprocessing: Preprocessing, files: Sequence[Path]) -> list[bool]:
        """Return which files an earlier run has decoded and kept, as they are now; nothing is made or written.

        Args:
            settings: Where pictures are kept.
            preprocessing: Brings each picture to the model's size, at which it is kept.
            files: Picture files.
        """
        if settings.kind != "disk" or settings.folder is None:
            return [False] * len(files)
        kept = filled(Path(settings.folder, _named({"preprocessing": spec_of(preprocessing)})[0]))
        return [bool(kept) and _key_of(file) in kept for file in files]

    # ---- what loaders ask

    def rows(self, dataset: VisionDataset[Any]) -> NDArray[np.int64] | None:
        """Return the record of each picture of a data set, int64 [N], 0 for none; None where there are none at all."""
        if not knows_targets(dataset):
            return None
        files = dataset.files()
        rows = np.zeros(len(files), np.int64)
        for i, file in enumerate(files):
            key = None if file is None else self._keys.get(str(file))
            rows[i] = 0 if key is None else self.store.rows[key]
        return rows if rows.any() else None

    def read_whole(self, path: str, channels: int) -> Array:
        """Return all pixels of a picture file, uint8 [H, W, C]; see ``read_image``."""
        key = self._keys.get(str(Path(path)))
        if self.whole is None or key is None:
            return read_image(path, channels=channels)
        row = self.whole.rows[key]
        kept = self.whole.read(row)
        if kept is not None:
            return kept.pixels
        pixels = read_image(path, channels=channels)
        self.whole.write(row, pixels, (pixels.shape[0], pixels.shape[1]))
        return pixels

    def close(self, *, remove: bool = False) -> None:
        """Give memory and files back.

        Args:
            remove: Whether to remove the folder's stores that no other process uses.
        """
        stores = [store for store in (self.store, self.whole) if store is not None]
        for store in stores:
            if remove and store.folder is not None and store.alone():
                remove_images(store.folder)
                store.folder.with_name(f"{store.folder.name}.lock").unlink(missing_ok=True)
            store.close()
        if remove and self.folder is not None:
            with contextlib.suppress(OSError):  # something else is in it
                self.folder.rmdir()

    def __str__(self) -> str:
        """Say for the first lines of a run where pictures are kept, how many, and how large that is."""
        known = f" ({self.known:,} known already)" if self.known else ""
        where = "memory" if self.folder is None else str(self.folder)
        each = self.preprocessing.size[0] * self.preprocessing.size[1] * self.preprocessing.channels
        if self.whole is not None:
            size = f"whole ones, too, up to {self.limit / 1e9:.3g} GB; others are read anew"
        elif self.count * each > self.limit:
            size = f"{self.limit // each:,} of them fit into {self.limit / 1e9:.3g} GB, the others are read anew"
        else:
            size = f"{self.count * each / 1e6:.1f} MB"
        lines = [f"pictures {self.count:,} cached{known}: {where}, {size}"]
        if self.left_out:
            lines.append(
                f"pictures of {', '.join(self.left_out)} are read anew: it reads them and their targets at once"
            )
        return "\n".join(lines)

    def _keys_of(self, dataset: VisionDataset[Any]) -> list[bytes]:
        """Return the keys of the pictures that are files."""
        keys = []
        for file in dataset.files():
            if file is None:
                continue
            name = str(file)
            if name not in self._keys:
                if (key := _key_of(file)) is None:
                    continue
                self._keys[name] = key
            keys.append(self._keys[name])
        return keys


def _named(spec: dict[str, Any]) -> tuple[str, str]:
    """Return the name of the store of pictures that are made so, and the text that says how."""
    versions = [__version__, cv2.__version__, torch.__version__, PIL.__version__]
    text = json.dumps(spec | {"decoder": DECODER, "versions": versions}, sort_keys=True, indent=1) + "\n"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), text


def _key_of(file: Path) -> bytes | None:
    """Return the key of a file as it is now, None where it cannot be found: reading it says what is wrong.

    A program that copies or unpacks can give another picture the same size and the same time of its last change, but
    not that of the change of the file's entry.
    """
    try:
        stat = os.stat(file)
    except OSError:
        return None
    facts = f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
    return hashlib.blake2b(facts.encode(errors="surrogateescape"), digest_size=16).digest()


class Prepared(Generic[T]):
    """A data set's samples at the model's size, from the cache where they are there.

    Args:
        dataset: The reader.
        preprocessing: Brings each image to the model's size.
        cache: Decoded pictures, or None.
    """

    def __init__(
        self, dataset: VisionDataset[T], preprocessing: Preprocessing, cache: ImageCache | None = None
    ) -> None:
        self.dataset = dataset
        self.preprocessing = preprocessing
        self.cache = cache
        self.rows = None if cache is None else cache.rows(dataset)

    def __call__(self, index: int, out: Array | None = None, *, shared: bool = False) -> Loaded[T]:
        """Return a sample.

        Args:
            index: Which one.
            out: uint8 [H, W, C], where the pixels may lie.
            shared: Whether the pixels may be those of the cache itself, which must not be changed.
        """
        row = 0 if self.rows is None else int(self.rows[index])
        if row:
            assert self.cache is not None
            kept = self.cache.store.read(row, out, shared=shared)
            if kept is not None:
                target, info = self.dataset.target_of(index, kept.size)
                target, info = self.preprocessing.placed(target, info, self.preprocessing.placement(kept.size))
                return Loaded(kept.pixels, target, info)
        loaded = Loaded.of(self.preprocessing(load_sample(self.dataset, index, self.preprocessing.scale)))
        if row:
            assert self.cache is not None
            self.cache.store.write(row, loaded.pixels, loaded.info.size)
        return loaded
