"""Blobs that clients send to a bucket themselves, where the bucket's server checks their hash.

The signed URL asks for two headers: the SHA-256 of the content, which the server compares with what comes, and who
sends it, which it keeps with the object. So an object with both has come whole, from somebody who has its content.
"""

import base64
import hashlib
import logging
import threading
import time
from datetime import timedelta
from http import HTTPStatus

from minio import Minio
from minio.error import S3Error

from cellsparse_common.storage.protocol import CheckedUrl
from cellsparse_common.storage.s3 import MISSING
from cellsparse_common.storage.s3_signature import require_headers

_LOG = logging.getLogger(__name__)
_CHECKSUM = "x-amz-checksum-sha256"
_SENDER = "x-amz-meta-cellsparse-sender"
_AGAIN_SECONDS = 60.0
_PROBE_SECONDS = 60
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
        self._signer = signer
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
        try:
            found = self._client.stat_object(self._bucket, name, extra_headers={"x-amz-checksum-mode": "ENABLED"})
        except S3Error as error:
            if error.code in MISSING:
                return False
            raise
        kept = {key.lower(): value for key, value in (found.metadata or {}).items()}
        return found.size == size and kept.get(_CHECKSUM) == _base64(sha256) and kept.get(_SENDER) == sender

    def _is_checking(self) -> bool:
        """Find out, once, whether the server refuses content of another hash: others ignore the header."""
        with self._asking:
            if not self._checks and time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + _AGAIN_SECONDS
                probe = self._signed(self._client, self._probe, _EMPTY_SHA256, "probe", _PROBE_SECONDS)
                status = self._client._http.urlopen("PUT", probe.url, body=b"not empty", headers=probe.headers).status
                self._checks = status == HTTPStatus.BAD_REQUEST
                if not self._checks:
                    _LOG.info("the store does not check the hashes of what clients send it (HTTP status %d)", status)
            return self._checks

    def _signed(self, client: Minio, name: str, sha256: str, sender: str, seconds: int) -> CheckedUrl:
        headers = {_CHECKSUM: _base64(sha256), _SENDER: sender}
        url = client.get_presigned_url("PUT", self._bucket, name, expires=timedelta(seconds=seconds))
        return CheckedUrl(
            url=require_headers(url, "PUT", client._provider.retrieve().secret_key, headers), headers=headers
        )


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
