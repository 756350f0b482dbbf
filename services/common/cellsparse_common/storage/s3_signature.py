"""URLs of S3 that are good for one request with certain headers (AWS signature version 4, in the query).

The `minio` package signs no header but the host's, and derives its key anew for each URL.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache, reduce
from types import MappingProxyType
from urllib.parse import SplitResult, quote, urlunsplit

from minio import Minio
from minio.credentials import Credentials

NONE: Mapping[str, str] = MappingProxyType({})
_ALGORITHM, _ANY_CONTENT = "AWS4-HMAC-SHA256", "UNSIGNED-PAYLOAD"


class UrlSigner:
    """Signs URLs of objects. Safe to use from many threads.

    Args:
        client: Knows the server, and the credentials to sign with.
        bucket: The bucket's name.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def url(self, method: str, name: str, seconds: int, headers: Mapping[str, str] = NONE) -> str:
        """Return a URL that takes one kind of request, with these headers, for so many seconds.

        Args:
            method: HTTP method.
            name: Name of the object.
            seconds: How long, from now.
            headers: Headers without which it takes none; values without spaces around them.
        """
        region = self._client._get_region(self._bucket)
        plain = self._client._base_url.build(method=method, region=region, bucket_name=self._bucket, object_name=name)
        credentials = self._client._provider.retrieve()
        return signed(
            plain, method, credentials, region=region, when=datetime.now(UTC), seconds=seconds, headers=headers
        )


def signed(
    plain: SplitResult,
    method: str,
    credentials: Credentials,
    *,
    region: str,
    when: datetime,
    seconds: int,
    headers: Mapping[str, str] = NONE,
) -> str:
    """Return a URL with a signature.

    The algorithm is AWS's, "Authenticating Requests: Using Query Parameters" of the API reference of S3.

    Args:
        plain: The URL without a query.
        method: HTTP method that it shall take.
        credentials: What to sign with.
        region: Region of the bucket.
        when: Time from which on it can be used, UTC.
        seconds: How long.
        headers: Headers that a request must have, names in any case.
    """
    date = when.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    named = dict(sorted({"host": plain.netloc, **{name.lower(): value for name, value in headers.items()}}.items()))
    names = ";".join(named)
    token = f"&X-Amz-Security-Token={_quoted(credentials.session_token)}" if credentials.session_token else ""
    query = (
        f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={_quoted(f'{credentials.access_key}/{scope}')}"
        f"&X-Amz-Date={date}&X-Amz-Expires={seconds}{token}&X-Amz-SignedHeaders={_quoted(names)}"
    )
    lines = "".join(f"{name}:{value}\n" for name, value in named.items())
    request = "\n".join((method, plain.path, query, lines, names, _ANY_CONTENT))
    message = "\n".join((_ALGORITHM, date, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = _hmac(_key_of_day(credentials.secret_key, scope), message).hex()
    return urlunsplit(plain._replace(query=f"{query}&X-Amz-Signature={signature}"))


@lru_cache(maxsize=16)
def _key_of_day(secret_key: str, scope: str) -> bytes:
    return reduce(_hmac, scope.split("/"), b"AWS4" + secret_key.encode())


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
