"""Blobs that clients send to a bucket themselves, where the bucket's server checks their hash.

The signed URL asks for two headers: the SHA-256 of the content, which the server compares with what comes, and who
sends it, which it keeps with the object. So an object with both has come whole, from somebody who has its content.
"""

import base64
import hashlib
import logging
import threading
import time
from http import HTTPStatus

from minio import Minio
from minio.error import S3Error

from cellsparse_common.storage.protocol import CheckedUrl
from cellsparse_common.storage.s3 import MISSING
from cellsparse_common.storage.s3_heads import HeadRequests
from cellsparse_common.storage.s3_signature import UrlSigner

_LOG = logging.getLogger(__name__)
_CHECKSUM = "x-amz-checksum-sha256"
_SENDER = "x-amz-meta-cellsparse-sender"
_AGAIN_SECONDS = 60.0
_PROBE_SECONDS, _HEAD_SECONDS = 60, 600
_WITH_CHECKSUM = {"x-amz-checksum-mode": "ENABLED"}
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


class S3Checked:
    """Checked blobs of a bucket; its methods raise what the client raises.

    Args:
        client: Reaches the server from here.
        signer: Signs URLs by which clients reach it.
        bucket: The bucket's name.
        probe: Name of an object by which it finds out whether the server checks.
    """

    def __init__(self, client: Minio, signer: Minio, bucket: str, probe: str) -> None:
        self._client = client
        self._here = UrlSigner(client, bucket)
        self._signer = UrlSigner(signer, bucket)
        self._heads = HeadRequests(client._http.connection_pool_kw.get("ssl_context"))
        self._bucket = bucket
        self._probe = probe
        self._asking = threading.Lock()
        self._checks = False
        self._ask_at = 0.0

    def url(self, name: str, sha256: str, sender: str, seconds: int) -> CheckedUrl | None:
        """Return where to send an object; None: the server does not check."""
        if not self._is_checking():
            return None
        return self._signed(self._signer, name, sha256, sender, seconds)

    def has(self, name: str, sha256: str, size: int, sender: str) -> bool:
        """Tell whether an object of this hash and size has come from a sender."""
        found = self._headers(name)
        return (
            found is not None
            and found.get("content-length") == str(size)
            and found.get(_CHECKSUM) == _base64(sha256)
            and found.get(_SENDER) == sender
        )

    def _headers(self, name: str) -> dict[str, str] | None:
        """Return what an object's headers are, names in small letters; None: there is no object."""
        answer = self._heads.ask(self._here.url("HEAD", name, _HEAD_SECONDS), _WITH_CHECKSUM)
        if answer is not None:
            status, headers = answer
            if status == HTTPStatus.OK:
                return {key.lower(): value for key, value in headers.items()}
            if status == HTTPStatus.NOT_FOUND:
                return None
        try:  # anything else is for the client, which tries again and says what is wrong
            found = self._client.stat_object(self._bucket, name, extra_headers=_WITH_CHECKSUM)
        except S3Error as error:
            if error.code in MISSING:
                return None
            raise
        kept = {key.lower(): str(value) for key, value in (found.metadata or {}).items()}
        return {**kept, "content-length": str(found.size)}

    def _is_checking(self) -> bool:
        """Find out, once, whether the server refuses content of another hash: others ignore the header."""
        with self._asking:
            if not self._checks and time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + _AGAIN_SECONDS
                probe = self._signed(self._here, self._probe, _EMPTY_SHA256, "probe", _PROBE_SECONDS)
                status = self._client._http.urlopen("PUT", probe.url, body=b"not empty", headers=probe.headers).status
                self._checks = status == HTTPStatus.BAD_REQUEST
                if not self._checks:
                    _LOG.info("the store does not check the hashes of what clients send it (HTTP status %d)", status)
            return self._checks

    def _signed(self, signer: UrlSigner, name: str, sha256: str, sender: str, seconds: int) -> CheckedUrl:
        headers = {_CHECKSUM: _base64(sha256), _SENDER: sender}
        return CheckedUrl(url=signer.url("PUT", name, seconds, headers), headers=headers)


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
