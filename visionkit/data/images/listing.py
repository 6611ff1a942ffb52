"""Which files below a folder are pictures, and what is passed over there."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.core.errors import DataError
from visionkit.core.output import is_output
from visionkit.core.text import printable

__all__ = ["HEIF_SUFFIXES", "SUFFIXES", "PassedOver", "list_folders", "list_images", "passed_over", "reads_heif"]

HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
"""Photos of telephones; they are read where the extra ``heif`` is installed."""
reads_heif = importlib.util.find_spec("pi_heif") is not None
"""Whether the decoder of the extra ``heif`` is there."""

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif"),
        *(HEIF_SUFFIXES if reads_heif else ()),
    )
)
"""File name endings taken for images, in lower case; ``.npy`` joins them for other than 1 or 3 channels."""

_UNREAD = frozenset(
    (
        *(".heics", ".avcs", ".avifs", ".jxl", ".jxr", ".wdp", ".hdp", ".jls", ".bpg", ".qoi", ".flif", ".j2c", ".jpc"),
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".srw", ".orf", ".rw2", ".rwl"),
        *(".raf", ".pef", ".x3f", ".3fr", ".fff", ".iiq", ".mos", ".kdc", ".dcr", ".k25", ".mrw", ".mef", ".erf"),
        *(".raw", ".gpr", ".insp", ".svg", ".svgz", ".psd", ".psb", ".xcf", ".kra", ".ora", ".ai", ".eps", ".emf"),
        *(".wmf", ".ico", ".cur", ".icns", ".tga", ".exr", ".hdr", ".pfm", ".pcx", ".sgi", ".ras", ".xbm", ".xpm"),
        *(".dds",),
        *(".dcm", ".dicom", ".nii", ".fits", ".czi", ".nd2", ".lif", ".svs", ".ndpi", ".btf"),
        *(() if reads_heif else HEIF_SUFFIXES),
    )
)  # fmt: skip
_FOREIGN = frozenset(("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"))


@dataclass
class PassedOver:
    """What was passed over below some folders.

    Args:
        kinds: Number of pictures of kinds that are not read, by suffix.
        outputs: Folders that visionkit wrote into.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    outputs: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it in words: one text for pictures, one for folders, where there are any; safe to show."""
        told = []
        if self.kinds:
            total = self.kinds.total()
            counts = ", ".join(f"{n} {printable(kind)}" for kind, n in sorted(self.kinds.items()))
            many = (
                f"{total} pictures of kinds that are not read are" if total > 1 else "1 picture of a kind not read is"
            )
            heif = "pip install 'visionkit[heif]' reads .heic" if set(self.kinds) & HEIF_SUFFIXES else ""
            others = "convert them to JPEG or PNG" if set(self.kinds) - HEIF_SUFFIXES else ""
            told.append(f"{many} left out ({counts}): {', else '.join(filter(None, (heif, others)))}")
        if self.outputs:
            named = ", ".join(printable(p) for p in self.outputs[:5])
            more = f", ... ({len(self.outputs)} in all)" if len(self.outputs) > 5 else ""
            told.append(f"passed over, as visionkit wrote into it: {named}{more}")
        return told


def list_images(folder: str | os.PathLike[str], *, channels: int = 3) -> list[Path]:
    """Return the image files below a folder, sorted.

    Passed over are hidden files and folders, those that systems make for themselves (``__MACOSX``, ``@eaDir``, ...) and
    folders that visionkit wrote into; not the folder itself, which somebody asks for.

    Args:
        folder: Where to look; subfolders and links to folders are followed.
        channels: Other than 1 or 3 lists ``.npy`` files too.

    Raises:
        DataError: The folder does not exist or is a file, or it or one below it cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; give the folder that holds the images")
    suffixes = SUFFIXES if channels in (1, 3) else SUFFIXES | {".npy"}
    return sorted(Path(where, f) for where, files, _ in _walk(root) for f in files if _suffix(f) in suffixes)


def list_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the folders in a folder, sorted by name, without those that ``list_images`` passes over.

    Raises:
        OSError: It cannot be listed.
    """
    return sorted(f for f in Path(folder).iterdir() if not _foreign(f.name) and f.is_dir() and not is_output(f))


def passed_over(folders: Iterable[str | os.PathLike[str]]) -> PassedOver:
    """Return what lies below some folders and looks like data, but is not read.

    Args:
        folders: Where to look; what is no folder holds nothing.

    Raises:
        DataError: One cannot be read.
    """
    found = PassedOver()
    seen: set[str] = set()
    for folder in folders:
        for where, files, outputs in _walk(folder):
            if where not in seen:
                seen.add(where)
                found.kinds.update(s for f in files if (s := _suffix(f)) in _UNREAD)
                found.outputs += [Path(where, f) for f in outputs]
    return found


def _walk(root: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder below a root with its files and those folders in it that hold output, which are left out.

    Raises:
        DataError: A folder cannot be listed.
    """
    seen: set[str] = set()  # a link may lead back up
    for where, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        shown = sorted(f for f in folders if not _foreign(f))
        outputs = [f for f in shown if is_output(os.path.join(where, f))]
        folders[:] = [f for f in shown if f not in outputs]
        yield where, sorted(f for f in files if not f.startswith(".")), outputs


def _refuse(e: OSError) -> None:
    if not isinstance(e, FileNotFoundError | NotADirectoryError):  # what is no folder holds nothing
        raise DataError(
            f"{e.filename}: the folder cannot be read ({e.strerror or e}), so its pictures would be missing; change "
            "its permissions, or move it elsewhere"
        ) from None


def _foreign(name: str) -> bool:
    """Return whether a folder is nobody's data by its name: hidden, or a system's own."""
    return name.startswith(".") or name.lower() in _FOREIGN


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
