"""Files that clients send straight to a bucket, by URLs that are signed here."""

import hashlib

from minio.commonconfig import CopySource
from minio.error import S3Error

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_common.storage.keys import blob, check_key, checked_probe
from cellsparse_common.storage.protocol import CheckedUrl, MissingParts
from cellsparse_common.storage.s3 import CHUNK, MISSING, store_errors
from cellsparse_common.storage.s3_checked import S3Checked
from cellsparse_common.storage.s3_connection import connect
from cellsparse_common.storage.s3_parts import S3Parts
from cellsparse_common.storage.s3_signature import UrlSigner

_CHANGED = frozenset({"PreconditionFailed"})


class S3Uploads:
    """`DirectUploads` in a bucket.

    A URL takes one object by one PUT. Whoever has it could send another object while the first one is checked: the copy
    that makes a blob of it is made only of the very object that was read.

    Args:
        settings: How this process reaches the server.
        public: How clients reach it.
        bucket: The bucket's name.
        prefix: As of the store.
    """

    def __init__(self, settings: StoreSettings, public: StoreSettings, *, bucket: str, prefix: str) -> None:
        connection = connect(settings)
        self._client = connection.client
        self._endpoint = connection.endpoint
        public_client = connect(public).client
        self._signer = UrlSigner(public_client, bucket)
        self._parts = S3Parts(self._client, public_client, bucket)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._checked = S3Checked(self._client, public_client, bucket, self._prefix + checked_probe())

    def checked_url(self, sha256: str, sender: str, seconds: int) -> CheckedUrl | None:
        """See `DirectUploads.checked_url`."""
        with store_errors("ask whether hashes are checked", self._endpoint, self._bucket):
            return self._checked.url(self._prefix + blob(sha256), sha256, sender, seconds)

    def has_checked(self, sha256: str, size: int, sender: str) -> bool:
        """See `DirectUploads.has_checked`."""
        with store_errors(f"check {blob(sha256)}", self._endpoint, self._bucket):
            return self._checked.has(self._prefix + blob(sha256), sha256, size, sender)

    def upload_url(self, key: str, seconds: int) -> str:
        """See `DirectUploads.upload_url`."""
        return self._signer.url("PUT", self._prefix + check_key(key), seconds)

    def missing_parts(self, key: str, size: int, part_bytes: int, seconds: int) -> MissingParts:
        """See `DirectUploads.missing_parts`."""
        with store_errors(f"begin {key}", self._endpoint, self._bucket):
            return self._parts.missing(self._prefix + check_key(key), size, part_bytes, seconds)

    def complete_parts(self, key: str, size: int, part_bytes: int) -> None:
        """See `DirectUploads.complete_parts`."""
        with store_errors(f"complete {key}", self._endpoint, self._bucket):
            self._parts.complete(self._prefix + check_key(key), size, part_bytes)

    def abort_parts(self, key: str) -> None:
        """See `DirectUploads.abort_parts`."""
        with store_errors(f"remove {key}", self._endpoint, self._bucket):
            self._parts.abort(self._prefix + check_key(key))

    def adopt(self, key: str, sha256: str, size: int) -> None:
        """See `DirectUploads.adopt`."""
        name = self._prefix + check_key(key)
        with store_errors(f"check {key}", self._endpoint, self._bucket):
            try:
                there, etag = self._client.stat_object(self._bucket, name).size or 0, ""
                found = f"{there} bytes"
                if there == size:
                    digest, etag = self._hash(name)
                    found = f"SHA-256 {digest}"
                    if digest == sha256:
                        source = CopySource(self._bucket, name, match_etag=etag)
                        self._client.copy_object(self._bucket, self._prefix + blob(sha256), source)
                self._client.remove_object(self._bucket, name)
            except S3Error as error:
                if error.code in MISSING:
                    raise FailedPrecondition(f"File {sha256} has not come to its URL; send it first.") from error
                if error.code in _CHANGED:
                    raise FailedPrecondition(f"File {sha256} was sent once more while it was checked.") from error
                raise
        if found != f"SHA-256 {sha256}":
            raise InvalidArgument(
                f"What came to the URL of file {sha256} ({size} bytes) has {found}: nothing of it is kept; send it "
                "again.",
                "sha256",
            )

    def _hash(self, name: str) -> tuple[str, str]:
        """Return the SHA-256 and the ETag of an object, which belong together."""
        digest = hashlib.sha256()
        response = self._client.get_object(self._bucket, name)
        try:
            for part in response.stream(CHUNK):
                digest.update(part)
            return digest.hexdigest(), response.headers.get("etag", "").strip('"')
        finally:
            response.close()
            response.release_conn()
