"""URLs of S3 that are good for one request with certain headers (AWS signature version 4, in the query)."""

import hashlib
import hmac
from collections.abc import Mapping
from functools import reduce
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

_SIGNATURE, _HEADERS, _CREDENTIAL = "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Credential"
_ALGORITHM, _ANY_CONTENT = "AWS4-HMAC-SHA256", "UNSIGNED-PAYLOAD"


def require_headers(url: str, method: str, secret_key: str, headers: Mapping[str, str]) -> str:
    """Return a signed URL that takes only requests with these headers, made of one that asks for none.

    The `minio` package signs no header but the host's. The algorithm is AWS's, "Authenticating Requests: Using Query
    Parameters" of the API reference of S3.

    Args:
        url: The URL, signed.
        method: Its HTTP method.
        secret_key: The key that it was signed with.
        headers: Names in any case, and values without spaces around them.

    Raises:
        ValueError: The URL is not signed.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.pop(_SIGNATURE, None) is None:
        raise ValueError("this URL is not signed")
    signed = dict(sorted({"host": parts.netloc, **{name.lower(): value for name, value in headers.items()}}.items()))
    names = ";".join(signed)
    query[_HEADERS] = names
    text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(query.items()))
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = "\n".join((method, parts.path, text, lines, names, _ANY_CONTENT))
    scope = query[_CREDENTIAL].split("/")[-4:]
    digest = hashlib.sha256(request.encode()).hexdigest()
    message = "\n".join((_ALGORITHM, query["X-Amz-Date"], "/".join(scope), digest))
    signature = reduce(_hmac, [*scope, message], b"AWS4" + secret_key.encode()).hex()
    return urlunsplit(parts._replace(query=f"{text}&{_SIGNATURE}={signature}"))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
