"""Reading a file from the web, into memory: bounded in bytes and time, by http and https alone."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

import visionkit
from visionkit.core.errors import DataError

__all__ = ["LIMIT", "TIMEOUT", "fetch", "is_url"]

LIMIT = 200 * 2**20
"""Bytes that a file of the web may have."""
TIMEOUT = 20.0
"""Seconds that a server may keep silent; in all a file may take six times as long."""
_TOTAL = 6
_CHUNK = 2**16
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SAFE = ":/?#[]@!$&'()*+,;=%~"  # characters that a URL may hold as they are; others, such as ü, are written out
_ALLOWED = ("http", "https")


def is_url(text: str) -> bool:
    """Return whether a text is a URL, of whatever kind: ``https://...``, ``s3://...``."""
    return _SCHEME.match(text) is not None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request that follows."""
        if urlsplit(newurl).scheme not in _ALLOWED:
            raise DataError(f"{req.full_url}: leads to {newurl}, which is neither http nor https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, *, limit: int = LIMIT, timeout: float = TIMEOUT) -> bytes:
    """Return what lies behind a URL; nothing is written anywhere.

    Args:
        url: Of http or https, without a user's name.
        limit: Bytes that it may have.
        timeout: Seconds that the server may keep silent.

    Raises:
        DataError: It is another kind of URL, cannot be reached, is too large or takes too long.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in _ALLOWED or not parts.hostname or parts.username is not None:
            raise DataError(f"{url}: only http and https URLs without a user's name are read; download it first")
        asked = urllib.request.Request(  # noqa: S310  # the kinds are checked
            quote(url, safe=_SAFE),
            headers={"User-Agent": f"visionkit/{visionkit.__version__}", "Accept": "image/*, */*;q=0.5"},
        )
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(asked, timeout=timeout) as answer:
            return _read(answer, url, limit, time.monotonic() + _TOTAL * timeout)
    except urllib.error.HTTPError as e:
        raise DataError(f"{url}: the server answers {e.code} {e.reason}; check the address") from None
    except (OSError, http.client.HTTPException, ValueError) as e:  # URLError and timeouts are OSErrors
        why = getattr(e, "reason", e)
        words = f"no answer within {timeout:g} s" if isinstance(why, TimeoutError) else " ".join(str(why).split())
        raise DataError(
            f"{url}: cannot be read ({words or type(e).__name__}); check address and connection, or download it first"
        ) from None


def _read(answer: Any, url: str, limit: int, until: float) -> bytes:
    """Return the body of an answer."""
    said = answer.headers.get("Content-Length", "")
    found = bytearray()
    if not (said.isdecimal() and int(said) > limit):
        while part := answer.read1(_CHUNK):
            found += part
            if len(found) > limit:
                break
            if time.monotonic() > until:
                raise DataError(f"{url}: is not here after {len(found):,} bytes and too long a time; download it first")
        else:
            if said.isdecimal() and len(found) < int(said):
                raise DataError(f"{url}: the connection ended after {len(found):,} of {int(said):,} bytes; try again")
            return bytes(found)
    raise DataError(f"{url}: has more than {limit:,} bytes, the most for a picture of the web; download it first")
