"""Files that a user names by a URL. Nothing else is ever fetched."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cellsparse.errors import InvalidArgument, Unavailable
from cellsparse_common.config.shown import has_userinfo, shown_url
from cellsparse_common.files import replacing
from cellsparse_common.onnx_file import MAX_BYTES

SECONDS = 60.0
"""Longest silence of a server."""
CHUNK_BYTES = 2**20
REMOTE = ("https", "s3")


def is_remote(source: str) -> bool:
    """Whether a source is a URL of another machine."""
    return source.partition("://")[0].lower() in REMOTE


def local_file(source: str, target: Path) -> Path:
    """Return a file on this machine.

    Args:
        source: A path, or a file:, https: or s3: URL (`CELLSPARSE_S3_*` say how S3 is reached).
        target: Where to put what is fetched.

    Raises:
        InvalidArgument: The URL is of another kind, the file is not there, or it is too large.
        Unavailable: The server does not answer.
    """
    kind = source.partition("://")[0].lower() if "://" in source else source.partition(":")[0].lower()
    if kind in REMOTE and has_userinfo(source):
        raise InvalidArgument(f"{shown_url(source)} must not hold a user or password.")
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise InvalidArgument(f"{shown_url(source)} is no URL: {error}.") from None
    if kind == "https":
        _fetch_https(source, target)
        return target
    if kind == "s3":
        _fetch_s3(source, parts.netloc, parts.path.lstrip("/"), target)
        return target
    if kind == "file":
        return Path(urllib.request.url2pathname(parts.path))
    if "://" in source:
        raise InvalidArgument(f"{shown_url(source)} is no URL that is taken; allowed: a path, file:, https: and s3:.")
    return Path(source)


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() != "https":
            raise InvalidArgument(f"{shown_url(req.full_url)} leads to {shown_url(newurl)}, which is not https.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_https(url: str, target: Path) -> None:
    opener = urllib.request.build_opener(_HttpsOnly)
    try:
        with opener.open(url, timeout=SECONDS) as answer, replacing(target) as file:
            size = 0
            while chunk := answer.read(CHUNK_BYTES):
                size += len(chunk)
                _check_size(url, size)
                file.write(chunk)
    except urllib.error.HTTPError as error:
        raise InvalidArgument(
            f"{shown_url(url)} cannot be fetched: the server answers {error.code} {error.reason}."
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise Unavailable(f"{shown_url(url)} cannot be fetched: {getattr(error, 'reason', error)}.") from None


def _fetch_s3(url: str, bucket: str, key: str, target: Path) -> None:
    # Slow to import.
    from cellsparse_common.config.settings import StoreSettings, load
    from cellsparse_common.storage import open_store

    folder, _, name = key.rpartition("/")
    if not bucket or not name:
        raise InvalidArgument(f"{shown_url(url)} names no object; allowed: s3://bucket/key.")
    try:
        store = open_store(load(StoreSettings, store_url=f"s3://{bucket}/{folder}".rstrip("/")))
    except ImportError:
        raise InvalidArgument("s3: URLs need the package minio: install `cellsparse-common[s3]`.") from None
    _check_size(url, store.size(name))
    store.fetch(name, target)


def _check_size(url: str, size: int) -> None:
    if size > MAX_BYTES:
        raise InvalidArgument(f"{shown_url(url)} is larger than {MAX_BYTES} bytes, the most that an ONNX file has.")
