"""From a URL to a store."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cellsparse_common.errors import FailedPrecondition, InvalidArgument, StorageError
from cellsparse_common.storage.folder import FolderStore
from cellsparse_common.storage.keys import check_key
from cellsparse_common.storage.protocol import DirectUploads, ObjectStore
from cellsparse_common.storage.traced import traced

if TYPE_CHECKING:
    from cellsparse_common.config.settings import StoreSettings

_LOG = logging.getLogger(__name__)
ALLOWED = "allowed: file:///absolute/folder, s3://bucket and s3://bucket/prefix."


def open_store(settings: "StoreSettings") -> ObjectStore:
    """Return the store that the settings name; nothing is contacted or made yet.

    Raises:
        InvalidArgument: The URL or the S3 settings cannot be understood.
    """
    url = settings.store_url
    parts = urlsplit(url)
    # A password with "/", "?" or "#" in it does not end where it should, so that the "@" is behind the server's name.
    if "@" in (parts.netloc if parts.scheme == "file" else url):
        raise InvalidArgument(f"store_url must not hold a user or password; {ALLOWED}", "store_url")
    path = unquote(parts.path)
    if parts.query or parts.fragment or parts.scheme not in {"file", "s3"}:
        raise InvalidArgument(f"store_url is {url!r}; {ALLOWED}", "store_url")
    if parts.scheme == "file":
        return traced(FolderStore(_folder(url, parts.netloc, path)))
    prefix = path.strip("/")
    if not parts.netloc or ":" in parts.netloc:
        raise InvalidArgument(f"store_url is {url!r}, which names no bucket; {ALLOWED}", "store_url")
    from cellsparse_common.storage.s3 import S3Store
    from cellsparse_common.storage.s3_connection import connect

    return traced(S3Store(connect(settings), bucket=parts.netloc, prefix=check_key(prefix) if prefix else ""))


def open_uploads(settings: "StoreSettings", endpoint: str = "") -> DirectUploads | None:
    """Return what lets clients send files straight to the store that the settings name; None: it takes none.

    Args:
        settings: The settings.
        endpoint: host:port under which clients reach the S3 server; empty: that of the settings.

    Raises:
        InvalidArgument: As for `open_store`.
    """
    parts = urlsplit(settings.store_url)
    if parts.scheme != "s3":
        return None
    from cellsparse_common.storage.s3_uploads import S3Uploads

    public = settings.model_copy(update={"s3_endpoint": endpoint}) if endpoint else settings
    return S3Uploads(settings, public, bucket=parts.netloc, prefix=unquote(parts.path).strip("/"))


def open_checked_store(settings: "StoreSettings") -> ObjectStore:
    """Return the store that the settings name, for a server that starts.

    A store that does not answer may come up later, so that it is only logged.

    Raises:
        InvalidArgument: The URL or the S3 settings cannot be understood.
        FailedPrecondition: There is no such bucket, or the folder cannot be.
    """
    store = open_store(settings)
    try:
        store.check()
    except StorageError as error:
        _LOG.warning("the store does not answer yet: %s It is %s", error.message, store.url)
    except FailedPrecondition as error:  # read by whoever starts the server
        raise FailedPrecondition(f"{error.message} CELLSPARSE_STORE_URL is {store.url}.") from error
    return store


def _folder(url: str, host: str, path: str) -> Path:
    if host not in {"", "localhost"} or not path.startswith("/") or "\0" in path or ".." in Path(path).parts:
        raise InvalidArgument(f"store_url is {url!r}, which names no absolute folder; {ALLOWED}", "store_url")
    return Path(path)
