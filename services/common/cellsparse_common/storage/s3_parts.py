"""Files that clients send to a bucket in parts, each to a URL of its own (an S3 multipart upload).

Which upload a file has, and what has come of it, is asked of the bucket: there is nothing to remember here.
"""

from datetime import timedelta

from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from cellsparse_common.errors import FailedPrecondition
from cellsparse_common.storage.protocol import MissingParts

_MOST_PARTS = 10_000
_AT_ONCE = 100
"""Parts that are signed in one answer."""
_GONE = frozenset({"NoSuchUpload"})
_SHOWN = 10


class S3Parts:
    """Uploads in parts in a bucket; its methods raise what the client raises.

    Args:
        client: Reaches the server from here.
        signer: Signs URLs by which clients reach it.
        bucket: The bucket's name.
    """

    def __init__(self, client: Minio, signer: Minio, bucket: str) -> None:
        self._client = client
        self._signer = signer
        self._bucket = bucket

    def missing(self, name: str, size: int, part_bytes: int, seconds: int) -> MissingParts:
        """Return the first parts of an object that have not come; begin the upload if there is none."""
        length = _part_length(size, part_bytes)
        uploads = self._uploads(name)
        upload_id = uploads[0] if uploads else self._client._create_multipart_upload(self._bucket, name, {})
        lengths = _lengths(size, length)
        there = self._there(name, upload_id, lengths)
        missing = [number for number in lengths if number not in there][:_AT_ONCE]
        return MissingParts(
            part_bytes=length,
            received=sum(lengths[number] for number in there),
            urls={number: self._url(name, upload_id, number, seconds) for number in missing},
        )

    def complete(self, name: str, size: int, part_bytes: int) -> None:
        """Make an object of the parts of an upload, if there is one; raises FailedPrecondition if a part is missing."""
        uploads = self._uploads(name)
        if not uploads:
            return
        lengths = _lengths(size, _part_length(size, part_bytes))
        there = self._there(name, uploads[0], lengths)
        missing = [str(number) for number in lengths if number not in there]
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise FailedPrecondition(
                f"Of {len(lengths)} parts of file {name.rpartition('/')[2]} these have not come: {shown}; "
                "StartUploads gives their URLs."
            )
        parts = [there[number] for number in lengths]
        self._client._complete_multipart_upload(self._bucket, name, uploads[0], parts)
        self.abort(name)  # another one that was begun at the same time

    def abort(self, name: str) -> None:
        """Forget all parts that have come of an object."""
        for upload_id in self._uploads(name):
            try:
                self._client._abort_multipart_upload(self._bucket, name, upload_id)
            except S3Error as error:
                if error.code not in _GONE:
                    raise

    def _uploads(self, name: str) -> list[str]:
        """Return the uploads of an object, the oldest first."""
        found = self._client._list_multipart_uploads(self._bucket, prefix=name).uploads
        ours = [each for each in found if each.object_name == name and each.upload_id]
        return [
            str(each.upload_id) for each in sorted(ours, key=lambda each: (str(each.initiated_time), each.upload_id))
        ]

    def _there(self, name: str, upload_id: str, lengths: dict[int, int]) -> dict[int, Part]:
        """Return the parts that have come and are as long as they should be, by number."""
        found: dict[int, Part] = {}
        marker: int | None = 0
        while marker is not None:
            answer = self._client._list_parts(self._bucket, name, upload_id, part_number_marker=str(marker))
            found.update({part.part_number: part for part in answer.parts})
            marker = answer.next_part_number_marker if answer.is_truncated else None
        return {number: part for number, part in found.items() if lengths.get(number) == part.size}

    def _url(self, name: str, upload_id: str, number: int, seconds: int) -> str:
        query = {"uploadId": upload_id, "partNumber": str(number)}
        expires = timedelta(seconds=seconds)
        return str(self._signer.get_presigned_url("PUT", self._bucket, name, expires=expires, extra_query_params=query))


def _part_length(size: int, part_bytes: int) -> int:
    return max(part_bytes, -(-size // _MOST_PARTS))


def _lengths(size: int, length: int) -> dict[int, int]:
    """Return the length of each part by its number, from 1."""
    return {begin // length + 1: min(length, size - begin) for begin in range(0, size, length)}
