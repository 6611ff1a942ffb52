"""Weights from the Hugging Face hub, fetched once into its cache: announced, checked, and gone on with after a cut."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

from visionkit.core.errors import DataError
from visionkit.core.files import locked, make_folder, open_binary, unwritable, write_text
from visionkit.core.text import say
from visionkit.models.torch_file import first_line
from visionkit.models.weights.known import by_name
from visionkit.models.weights.places import FILE, VARIABLE, cached, mirror_name, timm_configuration

__all__ = ["check_cached", "fetch"]

PATIENCE = 3.0
"""Seconds in which the hub must have said what it has; after them it counts as not reachable."""
STALL = 15.0
"""Seconds without a byte after which a download counts as cut."""
_CHUNK = 1 << 18
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NETWORK = (OSError, ValueError, HTTPException)  # what urllib raises; its own errors are of the first kind


@dataclass(frozen=True)
class _Remote:
    """What the hub says of a file.

    Args:
        url: Where it is fetched.
        sha256: Hash of the whole file, in hex.
        bytes: Its size.
        commit: The state of the repository.
    """

    url: str
    sha256: str
    bytes: int
    commit: str


def fetch(repository: str) -> Path:
    """Fetch model.safetensors of a repository into the hub's cache, and return it there.

    Its size and licence are said first. A download that was cut goes on where it ended. Nothing goes into the cache
    whose SHA-256 is not the one that the hub says.

    Args:
        repository: The name on the hub, OWNER/NAME.

    Raises:
        DataError: The hub is not to be asked (``HF_HUB_OFFLINE``), cannot be reached within seconds, has no such file,
            or what came is damaged; the message says what else can be done.
    """
    from huggingface_hub import constants

    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        raise DataError(f"weights {repository}: no name of the hub: write hf-hub:OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise _not_here(repository, "HF_HUB_OFFLINE is set")
    endpoint, cache = str(constants.ENDPOINT), Path(constants.HF_HUB_CACHE)
    remote = _ask(repository, endpoint)
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / remote.sha256
    try:
        with _only_one(cache / ".locks" / folder.name / f"{remote.sha256}.lock"):
            if (found := cached(repository)) is not None:  # another process was faster
                return found
            if not blob.is_file():
                make_folder(blob.parent)
                say(f"weights  {_described(repository, remote, endpoint)}; kept in {cache}", error=True)
                _download(repository, remote, blob)
            return _entered(folder, blob, remote.commit)
    except OSError as e:  # of the disk: those of the network are put into words where they come up
        raise unwritable(e.filename or folder, e, remote.bytes) from e


def check_cached(path: Path, sha256: str) -> None:
    """Refuse a file of the hub's cache that is no longer what the hub gave: there its name is its hash.

    Args:
        path: Any file.
        sha256: Hash of its content, in hex.

    Raises:
        DataError: Its content has changed.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.fullmatch(real.name) and real.name != sha256:
        raise DataError(f"{path}: damaged, its SHA-256 is not the hub's: delete {real} and run again to fetch it anew")


def _ask(repository: str, endpoint: str) -> _Remote:
    """Ask the hub for the place, hash and size of a file, for at most ``PATIENCE`` seconds in all."""
    answers: list[_Remote | Exception] = []

    def ask() -> None:
        try:
            answers.append(_metadata(repository, endpoint))
        except Exception as e:
            answers.append(e)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a host's name, for one, has no limit of its own
    asking.start()
    asking.join(PATIENCE)
    answer = answers[0] if answers else TimeoutError()
    if isinstance(answer, _Remote):
        return answer
    if isinstance(answer, HTTPError) and answer.code in (401, 403, 404):  # the hub says 401 of what is not there, too
        raise DataError(
            f"weights {repository}: {endpoint} has no {FILE} under this name ({answer.code}): `visionkit backbone "
            "list` shows names; what is not public needs HF_TOKEN"
        ) from answer
    if isinstance(answer, _NETWORK):
        raise _not_here(repository, f"{endpoint} cannot be reached ({_reason(answer)})") from answer
    raise answer


def _metadata(repository: str, endpoint: str) -> _Remote:
    url = f"{endpoint}/{quote(repository)}/resolve/main/{FILE}"
    try:
        with _open(url, "HEAD", timeout=PATIENCE) as answer:
            headers = answer.headers
    except HTTPError as e:
        if not 300 <= e.code < 400:
            raise
        headers = e.headers  # it says all of it where it sends one on to the file
    sha256 = str(headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = str(headers.get("X-Linked-Size") or headers.get("Content-Length") or "")
    commit = str(headers.get("X-Repo-Commit") or "")
    if not _SHA256.fullmatch(sha256) or not size.isdecimal() or not re.fullmatch(r"\w+", commit):
        raise DataError(f"weights {repository}: {endpoint} answers, but not as the hub does, with size and SHA-256")
    return _Remote(url, sha256, int(size), commit)


def _download(repository: str, remote: _Remote, blob: Path) -> None:
    """Bring a file into place, whole and checked; what is there of it already is gone on with."""
    part, start = blob.with_name(f"{blob.name}.incomplete"), time.monotonic()
    with part.open("ab") as file, _bar(remote.bytes) as show:
        if file.tell() > remote.bytes:
            file.truncate(0)
        before, why = -1, ""
        while before < file.tell() < remote.bytes:  # again, as long as it brings something
            before = file.tell()
            show(before)
            why = _go_on(remote, file, show)
        size = file.tell()
    if size < remote.bytes:
        raise DataError(
            f"weights {repository}: the download was cut at {size / 1e6:.1f} of {remote.bytes / 1e6:.1f} MB ({why}): "
            "run the command again, it goes on from there"
        )
    with open_binary(part) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != remote.sha256:
        part.unlink()
        raise DataError(
            f"weights {repository}: what came is not the hub's file (SHA-256 {digest[:12]}..., not "
            f"{remote.sha256[:12]}...) and was deleted: run the command again; if it stays so, something on the way "
            "changes files"
        )
    os.replace(part, blob)
    say(f"weights  fetched in {time.monotonic() - start:.0f} s, SHA-256 {digest[:12]}... is the hub's", error=True)


def _go_on(remote: _Remote, file: IO[bytes], show: Callable[[int], None]) -> str:
    """Fetch what a file lacks; return why it ended before its end, or ""."""
    at = file.tell()
    try:
        answer = _open(remote.url, "GET", timeout=STALL, **({"Range": f"bytes={at}-"} if at else {}))
    except _NETWORK as e:
        return _reason(e)
    with answer:
        if at and answer.status != 206:  # it sends the whole
            file.truncate(0)
        while missing := remote.bytes - file.tell():
            try:
                data = answer.read(min(_CHUNK, missing))
            except _NETWORK as e:
                return _reason(e)
            if not data:
                return "the connection ended"
            file.write(data)
            show(file.tell())
    return ""


class _Redirect(HTTPRedirectHandler):
    """Stops where the hub has said all there is to know of a file, instead of asking where the file lies."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Follow with the method that was asked for: urllib makes a GET of a HEAD before Python 3.13."""
        if req.get_method() == "HEAD" and headers.get("X-Linked-Etag"):
            return None
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None:
            new.method = req.get_method()
        return new


def _open(url: str, method: str, *, timeout: float, **headers: str) -> Any:
    from huggingface_hub import get_token

    import visionkit

    headers |= {"User-Agent": f"visionkit/{visionkit.__version__}", "Accept-Encoding": "identity"}
    request = Request(url, method=method, headers=headers)  # noqa: S310 - the hub's own address, or what HF_ENDPOINT names
    if token := get_token():
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for the hub, not for where files lie
    return build_opener(_Redirect).open(request, timeout=timeout)


def _entered(folder: Path, blob: Path, commit: str) -> Path:
    """Enter a file into the hub's cache, where timm and transformers find it, too; return it there."""
    path = folder / "snapshots" / commit / FILE
    make_folder(path.parent)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except (OSError, NotImplementedError):  # no links, as on some disks: the hub's own way, too
        os.replace(blob, path)
    write_text(folder / "refs" / "main", commit)
    return path


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Let no other process fetch the same file meanwhile; the hub's own client holds the same lock."""
    make_folder(lock.parent)
    with locked(lock, wait=False) as held:
        if held:
            yield
            return
    say("weights  another process is fetching them: waiting for it", error=True)
    with locked(lock):
        yield


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Yield what shows on a terminal how many bytes are there."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def _described(repository: str, remote: _Remote, endpoint: str) -> str:
    name = repository.removeprefix("timm/")
    if (known := by_name(repository)) is not None:
        licence = known.licence
    else:
        config = timm_configuration(name) if name != repository else None
        licence = getattr(config, "license", None) or f"see {endpoint}/{repository}"
    return f"{name}: {remote.bytes / 1e6:.1f} MB from {endpoint}, licence {licence}"


def _not_here(repository: str, why: str) -> DataError:
    name = repository if repository.startswith("timm/") else f"hf-hub:{repository}"
    name = known.name if (known := by_name(repository)) is not None else name
    size = "" if known is None else f" ({known.megabytes:.0f} MB, {known.licence})"
    file = f"{mirror_name(repository)}.safetensors"
    return DataError(
        f"weights {name}{size}: not on this machine, and {why}: run `visionkit backbone get {name} --out .` on another "
        f"machine, put its {file} into a folder here and set {VARIABLE}=FOLDER; or train from random weights, with "
        "weights: null (of a few hundred photos, 0.72 right instead of 0.95)"
    )


def _reason(e: Exception) -> str:
    inner = e.reason if isinstance(e, URLError) and isinstance(e.reason, OSError) else e
    if isinstance(inner, TimeoutError):
        return "no answer"
    return (inner.strerror if isinstance(inner, OSError) else None) or first_line(inner)
