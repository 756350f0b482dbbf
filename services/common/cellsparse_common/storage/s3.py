"""Objects in a bucket of any S3 server."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import ParseError

from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from cellsparse_common.errors import FailedPrecondition, NotFound, StorageError
from cellsparse_common.files import disk_errors, open_source, replacing
from cellsparse_common.storage.blobs import BlobCheck
from cellsparse_common.storage.keys import check_key, check_prefix, is_key
from cellsparse_common.storage.s3_connection import S3Connection
from cellsparse_common.storage.s3_errors import DENIED, explain, no_bucket

DOWNLOAD_ATTEMPTS = 3
CHUNK = 2**20
PUT_PAUSES = (0.05, 0.1, 0.2)
"""Seconds before a write that failed with one of `AGAIN` is tried again from its start."""
AGAIN = frozenset({"AccessDenied", "NoSuchUpload"})
"""A server that keeps objects as files may answer "denied" for a moment while another client deletes the last object
beside the new one. "No such upload" follows where the answer to the completion of an upload in parts was lost."""

MISSING = frozenset({"NoSuchKey", "NotFound"})
HIDDEN = frozenset({"AccessDenied"})


class S3Store:
    """An `ObjectStore` in a bucket, which must exist.

    It uses six calls that every S3 server has: PutObject (with multipart uploads for more than 5 MiB), GetObject,
    HeadObject, HeadBucket, ListObjectsV2 and DeleteObject. A writer killed in the middle of a multipart upload leaves
    parts that no reader sees; a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes them.

    Args:
        connection: The server.
        bucket: The bucket's name.
        prefix: A key to keep all objects below, or "" for the whole bucket.
    """

    def __init__(self, connection: S3Connection, *, bucket: str, prefix: str = "") -> None:
        self._client = connection.client
        self._endpoint = connection.endpoint
        self._restricted = connection.restricted
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket_seen = False

    @property
    def url(self) -> str:
        """See `ObjectStore.url`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: bytes | Path) -> None:
        """See `ObjectStore.put`."""
        name = self._name(key)
        source = io.BytesIO(data) if isinstance(data, bytes) else open_source(data)
        with source, disk_errors(f"write {key} to {self.url}"), self._errors(f"write {key}", key):
            length = source.seek(0, io.SEEK_END)
            for pause in (*PUT_PAUSES, None):
                source.seek(0)
                try:
                    written = self._client.put_object(self._bucket, name, source, length)
                except S3Error as error:
                    if error.code not in AGAIN or pause is None:
                        raise
                else:
                    if written.etag:  # else the answer said 200 before the server failed to put the parts together
                        return
                    if pause is None:
                        raise StorageError(f"Cannot write {key}: {self._endpoint} did not say that it is written.")
                time.sleep(pause)

    def check(self) -> None:
        """See `ObjectStore.check`."""
        if not self._sees_bucket():
            raise FailedPrecondition(no_bucket(self._bucket, self._endpoint))

    def expect(self) -> None:
        """See `ObjectStore.expect`: a bucket that is missing is a failure in any case."""

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        buffer = io.BytesIO()
        self._download(key, buffer)
        return buffer.getvalue()

    def fetch(self, key: str, target: Path) -> None:
        """See `ObjectStore.fetch`."""
        with replacing(target) as file:
            self._download(key, file)

    def read(self, key: str) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        name, check = self._name(key), BlobCheck(key)
        with self._errors(f"read {key}", key):
            for part in self._parts(name):
                check.update(part)
                yield part
        check.finish()

    def exists(self, key: str) -> bool:
        """See `ObjectStore.exists`."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        name = self._name(key)
        try:
            with self._errors(f"read {key}", key):
                return self._client.stat_object(self._bucket, name).size or 0
        except NotFound:
            # The answer to HEAD has no body: a missing bucket looks like a missing key.
            self._check_bucket()
            raise

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        return self._walk(self._prefix + check_prefix(prefix))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        name = self._name(key)
        try:
            with self._errors(f"delete {key}", key):
                self._client.remove_object(self._bucket, name)
        except NotFound:  # S3 answers 204; some servers do not
            return

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _download(self, key: str, file: BinaryIO) -> None:
        """Write an object to a file; a connection that breaks in the middle is tried again from the start."""
        name = self._name(key)
        with self._errors(f"read {key}", key):
            for remaining in reversed(range(DOWNLOAD_ATTEMPTS)):
                file.seek(0)
                file.truncate()
                check = BlobCheck(key)
                try:
                    for part in self._parts(name):
                        check.update(part)
                        file.write(part)
                except (ProtocolError, ReadTimeoutError):
                    if not remaining:
                        raise
                else:
                    check.finish()
                    return

    def _parts(self, name: str) -> Iterator[bytes]:
        response = self._client.get_object(self._bucket, name)
        try:
            yield from response.stream(CHUNK)
        finally:
            response.close()
            response.release_conn()

    def _walk(self, prefix: str) -> Iterator[str]:
        with self._errors(f"list {self.url}", prefix):
            for entry in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                key = entry.object_name.removeprefix(self._prefix)
                if is_key(key):  # others share the bucket: folder markers, for one, end with "/"
                    yield key

    def _check_bucket(self) -> None:
        if not self._sees_bucket():
            raise StorageError(no_bucket(self._bucket, self._endpoint))

    def _sees_bucket(self) -> bool:
        """Whether the bucket is there, or hidden from us: permission to read objects does not include it."""
        if not self._bucket_seen:
            with self._errors(f"read bucket {self._bucket}", ""):
                try:
                    self._bucket_seen = self._client.bucket_exists(self._bucket)
                except S3Error as error:
                    if error.code not in DENIED:
                        raise
                    return True
        return self._bucket_seen

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        with store_errors(action, self._endpoint, self._bucket):
            try:
                yield
            except S3Error as error:
                if key and (error.code in MISSING or (error.code in HIDDEN and self._is_hidden(key))):
                    raise NotFound(f"There is no object {key} in {self.url}.") from None
                raise

    def _is_hidden(self, key: str) -> bool:
        """Whether a key is missing where the server says "denied", as AWS does to who may not list the whole bucket."""
        if not self._restricted:
            return False
        try:
            entries = self._client.list_objects(self._bucket, prefix=self._prefix + key)
            return all(entry.object_name != self._prefix + key for entry in entries)
        except (S3Error, HTTPError, MinioException, ParseError, ValueError):
            return False  # the key is none of those that these credentials may list: denied it is


@contextmanager
def store_errors(action: str, endpoint: str, bucket: str) -> Iterator[None]:
    """Turn what the client of a server raises into StorageError; `action` is what was tried, after "Cannot"."""
    try:
        yield
    except (HTTPError, MinioException, ParseError, ValueError) as error:  # S3Error is a MinioException
        raise StorageError(explain(error, action=action, endpoint=endpoint, bucket=bucket)) from error
